"""Images per second of training: fcnlab and the peers as their users write them, alternately, in separate processes.

Configurations are measured one after another, and only the sides of one configuration exist at a time: fcnlab first,
measured before any peer is started. A peer's DataLoader starts its worker processes in the peer's first epoch, which is
not measured and during which no other side trains. The result is saved after each round, so that it is kept if the
section is killed.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.gpu.timings import Context, Spread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.speed.sides import Lap, Setting, Side

ANSWER = 90.0
"""Seconds that a side may take to answer, at most; less where less of the allowance is left."""
LEAST = 15.0
"""Seconds that a side may take to answer, at least."""
OURS_SECONDS = 18.0
"""Seconds that starting and measuring ours takes."""
SIDE_SECONDS = 10.0
"""Seconds that each other side adds: its start beside the others, its first epoch, and a round with ours."""
COMPILED_SECONDS = 45.0
"""Seconds that compiling takes."""
FULL = 165.0
"""Seconds of the allowance for which a lap has its full length."""


@dataclass(frozen=True)
class Configuration:
    """A network and the sides that train it.

    Attributes:
        large: use the larger backbone.
        head: head of the network.
        batch_norm: batch norm of the backbone, `train` or `frozen`.
        more: also run fcnlab in TF32, and torchvision's loop in channels-last layout.
        compiled: run fcnlab compiled and not compiled, without peers; on CUDA only.
    """

    large: bool
    head: str
    batch_norm: str = "train"
    more: bool = False
    compiled: bool = False

    def name(self, context: Context) -> str:
        """Return its name in the results.

        Args:
            context: context of the section.
        """
        norm = ", batch norm frozen" if self.batch_norm == "frozen" else ""
        return f"{context.sizes.backbones[self.large]} {self.head}{norm}{', compiled' if self.compiled else ''}"

    @property
    def seconds(self) -> float:
        """Return the seconds that it needs; with less time left it is not started."""
        return OURS_SECONDS + (COMPILED_SECONDS if self.compiled else SIDE_SECONDS)


CONFIGURATIONS = (
    Configuration(False, "fcn32s", more=True),
    Configuration(True, "fcn32s"),
    Configuration(False, "fcn8s"),
    Configuration(True, "fcn32s", "frozen"),
    Configuration(False, "fcn32s", compiled=True),
)
"""The most valuable first."""


def measure(context: Context) -> dict[str, Any]:
    """Measure one configuration after another, as long as the allowance has time.

    Args:
        context: context of the section.
    """
    pairs = tuple((str(pair.image), str(pair.mask)) for pair in context.pairs(context.sizes.epoch))
    lap = context.sizes.lap * min(1.0, max(0.5, context.allowance / FULL))
    result: dict[str, Any] = {
        "images": len(pairs),
        "crop": context.sizes.crop,
        "batch": context.sizes.batch,
        "lap_seconds": lap,
        "workers_of_peers": context.workers,
        "configurations": {},
        "left_out": [],
    }

    def complete() -> dict[str, Any]:
        found = result["configurations"]
        table = [row for name, one in found.items() for row in rows(name, one)]
        errors = sum(len(one["errors"]) for one in found.values())
        detail = f"{len(found)} configurations, {errors} sides failed"
        return result | {"table": table, "detail": detail}

    for configuration in CONFIGURATIONS[:1] if context.smoke else CONFIGURATIONS:
        if configuration.compiled and not context.cuda:
            continue
        name = configuration.name(context)
        if context.left < configuration.seconds:
            result["left_out"].append(name)
            continue

        def keep(found: dict[str, Any], name: str = name) -> None:
            result["configurations"][name] = found
            context.save(complete())

        measure_configuration(context, settings(context, configuration, pairs), lap, keep)
    return complete()


def measure_configuration(
    context: Context, wanted: Sequence[Setting], lap: float, keep: Callable[[dict[str, Any]], None]
) -> None:
    """Measure fcnlab before the other sides are started, then let all sides train in turn.

    Args:
        context: context of the section.
        wanted: settings of all sides, fcnlab first, then the most important ones.
        lap: minimum seconds that a side trains in each round.
        keep: called with the results so far, after each round.
    """
    from benchmarks.speed.sides import Side

    def side(setting: Setting) -> Side:
        return Side(setting, str(context.scratch / "cache"), min(ANSWER, max(LEAST, context.left)))

    group: list[Side] = []
    try:
        group.append(side(wanted[0]))
        rounds = Rounds(group, lap)
        rounds.begin(group[0])
        for _ in range(1 if context.smoke else 2):
            rounds.before_peers()
        keep(rounds.found())
        others = 1 + int(min(len(wanted) - 1, max(1, (context.left - LEAST) / SIDE_SECONDS)))
        rounds.left_out = [setting.side for setting in wanted[others:]]
        group += [side(setting) for setting in wanted[1:others]]
        for one in group[1:]:
            rounds.wait(one)
        for one in group[1:]:
            rounds.begin(one)
            keep(rounds.found())
        longest = 0.0
        for _ in range(context.sizes.rounds):
            if longest and context.left < 1.2 * longest:
                break
            began = time.monotonic()
            rounds.all()
            longest = max(longest, time.monotonic() - began)
            keep(rounds.found())
    finally:
        for one in group:  # all end at the same time
            one.end_input()
        for one in group:
            one.close()


class Rounds:
    """Sides that train in turn, and their measurements. A side that fails is left out afterwards."""

    def __init__(self, group: list[Side], lap: float) -> None:
        """Start without measurements.

        Args:
            group: the sides, fcnlab first; more may be added.
            lap: minimum seconds that a side trains in each round.
        """
        self._group, self._lap = group, lap
        self._first: dict[str, float] = {}
        self._before_peers: list[Lap] = []
        self._rounds: list[dict[str, Lap]] = []
        self._errors: dict[str, str] = {}
        self.left_out: list[str] = []

    def wait(self, side: Side) -> None:
        """Wait until a side is built.

        Args:
            side: the side.
        """
        self._try(side, side.about)

    def begin(self, side: Side) -> None:
        """Let a side train its first epoch, in which libraries initialize themselves and worker processes start.

        Args:
            side: the side.
        """
        if (taken := self._try(side, side.lap)) is not None:
            self._first[side.name] = taken.wall

    def before_peers(self) -> None:
        """Let fcnlab train before any other side exists."""
        if (taken := self._try(self._group[0], partial(self._group[0].lap, self._lap))) is not None:
            self._before_peers.append(taken)

    def all(self) -> None:
        """Let each side train once."""
        now: dict[str, Lap] = {}
        self._rounds.append(now)
        for side in self._group:
            if (taken := self._try(side, partial(side.lap, self._lap))) is not None:
                now[side.name] = taken

    def _try(self, side: Side, work: Callable[[], Any]) -> Any:
        from fcnlab.errors import RunError

        if side.name in self._errors:
            return None
        try:
            return work()
        except RunError as error:
            self._errors[side.name] = str(error)
            return None

    def found(self) -> dict[str, Any]:
        """Return the results so far."""
        found: dict[str, Any] = {
            "sides": {},
            "errors": dict(self._errors),
            "left_out": list(self.left_out),
        }
        for number, side in enumerate(self._group):
            in_turn = [now[side.name] for now in self._rounds if side.name in now]
            laps = in_turn or (self._before_peers if number == 0 else [])
            if not laps or side.name in self._errors:
                continue
            found["sides"][side.name] = one = {
                "images_per_s": Spread.of([lap.images_per_s for lap in laps]).json(),
                "peak_memory": max(lap.peak_memory for lap in laps),
                "first_epoch_seconds": self._first[side.name],
                "cpu_seconds_per_image": Spread.of([lap.cpu / lap.images for lap in laps]).json(),
                "about": side.about(),
                "laps": [vars(lap) for lap in in_turn],
            }
            if number == 0:
                one["laps_before_peers"] = [vars(lap) for lap in self._before_peers]
                continue
            ours = self._group[0].name
            both = [now for now in self._rounds if ours in now and side.name in now]
            if both:
                times = [now[ours].images_per_s / now[side.name].images_per_s for now in both]
                one["ours_bf16_times_faster"] = Spread.of(times).json()
        return found


def settings(context: Context, configuration: Configuration, pairs: tuple[tuple[str, str], ...]) -> list[Setting]:
    """Return the settings of all sides of a configuration, fcnlab first, then the most important ones.

    Args:
        context: context of the section.
        configuration: the configuration.
        pairs: paths of images and masks.
    """
    from benchmarks.speed.sides import CHANNELS_LAST, COMPILED, TF32, Setting

    cuda = context.cuda
    names = ["ours bf16", *([] if configuration.compiled else context.peers)]
    if configuration.compiled:
        names.append("ours bf16" + COMPILED)
    if configuration.more and cuda:
        names += ["torchvision" + CHANNELS_LAST] if "torchvision" in context.peers else []
        names.append(TF32)
    setting = Setting(
        side="",
        backbone=context.sizes.backbones[configuration.large],
        head=configuration.head,
        batch=context.sizes.batch,
        crop=context.sizes.crop,
        pairs=pairs,
        threads=4 if cuda else 1,
        device=context.device,
        workers=context.workers,
        bf16=cuda,
        batch_norm="frozen" if configuration.batch_norm == "frozen" else "train",
    )
    return [replace(setting, side=name) for name in names]


def rows(name: str, found: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the table of a configuration.

    Args:
        name: name of the configuration.
        found: its results.
    """
    lines = []
    for side, one in found["sides"].items():
        text = f"{Spread(**one['images_per_s']).text(0)} images/s, {one['peak_memory'] / 2**30:.2f} GiB"
        if "ours_bf16_times_faster" in one:
            text += f", ours bf16 {Spread(**one['ours_bf16_times_faster']).text(1)}x"
        lines.append((f"{name}: {side}", text))
    return lines + [(f"{name}: {side}", "failed: " + error.splitlines()[-1]) for side, error in found["errors"].items()]
