"""Images per second of training: ours, and the peers as their users write them, in turn, each in its process."""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from timings import Context, Spread

if TYPE_CHECKING:
    from fcnlab.bench.sides import Lap, Setting, Side

ANSWER = 90.0
"""Seconds that a side may take to answer."""
FULL = 165.0
"""Seconds of the allowance for which a lap has its full length."""


@dataclass(frozen=True)
class Configuration:
    """What is trained.

    Attributes:
        large: whether the backbone is the larger one.
        head: of the network.
        batch_norm: of the backbone, `train` or `frozen`.
        more: whether ours also run in TF32 and compiled, and torchvision's loop in channels-last layout.
    """

    large: bool
    head: str
    batch_norm: str = "train"
    more: bool = False

    def name(self, context: Context) -> str:
        """Return its name in the results."""
        norm = ", batch norm frozen" if self.batch_norm == "frozen" else ""
        return f"{context.sizes.backbones[self.large]} {self.head}{norm}"


CONFIGURATIONS = (
    Configuration(False, "fcn32s", more=True),
    Configuration(True, "fcn32s"),
    Configuration(False, "fcn8s"),
    Configuration(True, "fcn32s", "frozen"),
)
"""The most valuable first."""


def measure(context: Context) -> dict[str, Any]:
    """Start all sides at once, since starting takes longest, and let those of one configuration after another train."""
    from fcnlab.bench.sides import COMPILED, Side
    from fcnlab.errors import RunError

    pairs = tuple((str(pair.image), str(pair.mask)) for pair in context.pairs(context.sizes.epoch))
    lap = context.sizes.lap * min(1.0, max(0.5, context.allowance / FULL))
    result: dict[str, Any] = {
        "images": len(pairs),
        "crop": context.sizes.crop,
        "batch": context.sizes.batch,
        "lap_seconds": lap,
        "workers_of_peers": context.workers,
        "configurations": {},
    }
    configurations = CONFIGURATIONS[:1] if context.smoke else CONFIGURATIONS
    if context.left < 100:
        configurations = configurations[:2]
    table: list[tuple[str, str]] = []
    with ExitStack() as stack:
        started: list[list[Side]] = []
        for configuration in configurations:
            group: list[Side] = []
            stack.callback(close, group)
            started.append(group)
            for setting in settings(context, configuration, pairs):
                group.append(Side(setting, str(context.work / "cache"), ANSWER))
        for side in started[0]:
            if side.name.endswith(COMPILED):  # which takes the CPU half a minute, beside the start of the others
                side.begin()
        began = time.monotonic()
        for side in (side for group in started for side in group):
            with suppress(RunError):  # its first lap raises it again
                side.about()
        result["start_seconds"] = time.monotonic() - began
        longest = 0.0
        for configuration, group in zip(configurations, started, strict=True):
            if context.left < 1.1 * longest:
                result["left_out"] = [*result.get("left_out", []), configuration.name(context)]
                continue
            began = time.monotonic()
            found = compare(context, group, lap)
            result["configurations"][configuration.name(context)] = found
            longest = max(longest, (time.monotonic() - began) * len(started[-1]) / len(group))
            table += rows(configuration.name(context), found)
            context.save(result | {"table": table})
            close(group)
    errors = sum(len(found["errors"]) for found in result["configurations"].values())
    detail = f"{len(result['configurations'])} configurations, {errors} sides failed"
    return result | {"table": table, "detail": detail}


def close(group: list[Side]) -> None:
    """End the processes of some sides, all at once."""
    for side in group:
        side.end_input()
    for side in group:
        side.close()


def settings(context: Context, configuration: Configuration, pairs: tuple[tuple[str, str], ...]) -> list[Setting]:
    """Return the settings of all sides of a configuration."""
    from fcnlab.bench.sides import CHANNELS_LAST, COMPILED, TF32, Setting

    cuda = context.device == "cuda"
    names = ["ours bf16", *context.peers]
    if configuration.more and cuda:
        names += ["ours bf16" + COMPILED, TF32]
        names += ["torchvision" + CHANNELS_LAST] if "torchvision" in context.peers else []
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


def compare(context: Context, group: list[Side], lap: float) -> dict[str, Any]:
    """Let the sides train in turn. A side that fails is left out from then on; its error is kept."""
    from fcnlab.bench.sides import COMPILED
    from fcnlab.errors import RunError

    errors: dict[str, str] = {}
    laps: dict[str, list[Lap]] = {side.name: [] for side in group}
    first: dict[str, float] = {}
    for number in range(context.sizes.rounds + 1):
        for side in group:
            if side.name in errors:
                continue
            try:
                asked = number == 0 and side.name.endswith(COMPILED)  # when it was started
                taken = side.end() if asked else side.lap(lap if number else 0.0)
            except RunError as error:
                errors[side.name] = str(error)
                continue
            if number:
                laps[side.name].append(taken)
            else:
                first[side.name] = taken.wall
    ours = laps["ours bf16"]
    found: dict[str, Any] = {"sides": {}, "errors": errors}
    for side in group:
        of_side = laps[side.name]
        if not of_side or side.name in errors:
            continue
        rates = [one.images / one.wall for one in of_side]
        found["sides"][side.name] = {
            "images_per_s": Spread.of(rates).json(),
            "peak_memory": max(one.peak_memory for one in of_side),
            "first_epoch_seconds": first[side.name],
            "cpu_seconds_per_image": Spread.of([one.cpu / one.images for one in of_side]).json(),
            "about": side.about(),
            "laps": [vars(one) for one in of_side],
        }
        if side.name != "ours bf16" and len(ours) == len(of_side):
            times = [(a.images / a.wall) / rate for a, rate in zip(ours, rates, strict=True)]
            found["sides"][side.name]["ours_bf16_times_faster"] = Spread.of(times).json()
    return found


def rows(name: str, found: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the table of a configuration."""
    lines = []
    for side, one in found["sides"].items():
        text = f"{Spread(**one['images_per_s']).text(0)} images/s, {one['peak_memory'] / 2**30:.2f} GiB"
        if "ours_bf16_times_faster" in one:
            text += f", ours bf16 {Spread(**one['ours_bf16_times_faster']).text(1)}x"
        lines.append((f"{name}: {side}", text))
    return lines + [(f"{name}: {side}", "failed: " + error.splitlines()[-1]) for side, error in found["errors"].items()]
