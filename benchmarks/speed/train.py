"""Timings of training: fcnlab in both precisions and the peers as their users write them, in pairs, epoch by epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.speed import check_peers, peer
from benchmarks.speed.images import CLASSES, files
from benchmarks.speed.machine import Machine, device_gemm_peak, gemm_peak, machine, multiplies_bf16, threads
from benchmarks.speed.ours import network
from benchmarks.speed.pairs import Comparison, Timing
from benchmarks.speed.sides import (
    CHANNELS_LAST,
    KEEPING,
    OURS,
    PEERS,
    RECOMPUTED,
    TF32,
    Lap,
    Setting,
    Side,
    is_ours,
    sides,
)
from fcnlab.errors import ConfigError, DataError, nearest
from fcnlab.lab import Lab
from fcnlab.training import cost, hardware

BACKBONES = ("resnet18", "resnet50", "mobilenetv2_100")
CROP = (320, 480)
HEADS = ("fcn32s", "fcn16s", "fcn8s")
WORKERS = 8
"""Processes that load the data of a peer on CUDA."""
SECONDS = 2.0
"""Minimum seconds of a lap on CUDA, where an epoch of few images would be too short to be timed."""
CPU = torch.device("cpu")
COLUMNS = ("implementation", "images/s", "CPU s/image", "of GEMM peak", "peak memory, MiB")
"""The columns of `TrainingBench.rows`."""


@dataclass(frozen=True)
class TrainingBench:
    """Timings of training.

    Attributes:
        source: name of the images.
        setting: settings that all sides share.
        gflop: billions of floating-point operations of a step per image, forward and backward.
        peaks: floating-point operations per CPU second in a product of matrices, by precision.
        pairs: laps of a side of fcnlab and of a peer, in the order of rounds, without the first one, by both names.
        machine: the machine.
        about: description of each side, such as the library that augments.
    """

    source: str
    setting: dict[str, Any]
    gflop: float
    peaks: dict[str, float]
    pairs: dict[tuple[str, str], tuple[tuple[Lap, ...], tuple[Lap, ...]]]
    machine: Machine
    about: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def laps(self) -> dict[str, tuple[Lap, ...]]:
        """Return the laps of each side from all of its pairs, those of fcnlab first."""
        found: dict[str, tuple[Lap, ...]] = {}
        for position in (0, 1):
            for names, laps in self.pairs.items():
                found[names[position]] = found.get(names[position], ()) + laps[position]
        return found

    @property
    def comparisons(self) -> dict[str, Comparison]:
        """Return the comparisons of each side of fcnlab with each peer, by names."""
        return {f"{a} / {b}": Comparison(_timings(ours), _timings(peer)) for (a, b), (ours, peer) in self.pairs.items()}

    def _of_peak(self, side: str) -> float:
        """Return the share of the peak that a side reaches per second of the CPU, on CUDA per second of the clock.

        The peak is that of bf16 for ours in bf16, and on CUDA for the peers, which train in bf16 there.
        """
        cuda = self.setting.get("device") == "cuda"
        precision = side.removesuffix(RECOMPUTED).removeprefix("ours ") if is_ours(side) else None
        peak = self.peaks[precision or ("bf16" if cuda and "bf16" in self.peaks else "fp32")]
        timing = self._median(side)
        return 1e9 * self.gflop / (timing.wall if cuda else timing.cpu) / peak

    def _median(self, side: str) -> Timing:
        timings = _timings(self.laps[side])
        return Comparison(timings, timings).ours

    def peak_memory(self, side: str) -> int:
        """Return the maximum memory of a side in bytes.

        Args:
            side: name of the side.
        """
        return max(lap.peak_memory for lap in self.laps[side])

    def rows(self) -> list[tuple[str, ...]]:
        """Return the medians of each side as rows of COLUMNS."""
        return [
            (
                side,
                f"{1 / self._median(side).wall:.2f}",
                f"{self._median(side).cpu:.3f}",
                f"{100 * self._of_peak(side):.0f} %",
                f"{self.peak_memory(side) / 2**20:.0f}",
            )
            for side in self.laps
        ]

    def to_json(self) -> dict[str, Any]:
        """Return all results as plain values."""
        sides = {
            side: {
                "images_per_s": 1 / self._median(side).wall,
                "cpu_seconds_per_image": self._median(side).cpu,
                "of_gemm_peak": self._of_peak(side),
                "peak_memory": self.peak_memory(side),
            }
            for side in self.laps
        }
        return {
            "source": self.source,
            "setting": self.setting,
            "gflop_per_image": self.gflop,
            "gemm_peak": self.peaks,
            "sides": sides,
            "about": self.about,
            "comparisons": {name: comparison.to_json() for name, comparison in self.comparisons.items()},
            "machine": self.machine.to_json(),
        }

    def notes(self) -> list[str]:
        """Return notes on the table, one per line."""
        peaks = ", ".join(f"{value / 1e9:.0f} {name}" for name, value in self.peaks.items())
        cuda = self.setting.get("device") == "cuda"
        of = f"GEMM peak, measured before, in GFLOP per second of {'the device' if cuda else 'one core'}"
        loading = (
            f"the peers load their data in {WORKERS} processes and train in bf16 autocast; fcnlab augments on the GPU"
            if cuda
            else "all sides decode and crop in the process that trains"
        )
        return [
            f"{self.source}; {self.setting['rounds']} alternating epochs of each pair, each side in its own process",
            f"{of}: {peaks}",
            f"a step is {self.gflop:.1f} GFLOP per image, forward and backward",
            f"{loading}; fcnlab decodes once, before the first epoch that counts",
            *(
                f"{side}: augmentation by {about['augmentation']}"
                for side, about in self.about.items()
                if about.get("augmentation")
            ),
            *self.machine.lines(),
        ]


def compare(
    lab: Lab,
    *,
    backbone: str = "resnet18",
    head: str = "fcn32s",
    batch: int = 8,
    images: int = 16,
    repeats: int = 3,
    cpu_threads: int | None = None,
    peers: Sequence[str] = PEERS,
    recompute: bool = False,
    device: torch.device = CPU,
    report: Callable[[str], object] = lambda _: None,
) -> TrainingBench:
    """Train each side of fcnlab and each peer on the same images, one epoch each in turn, two sides at a time.

    A first epoch of each side does not count. On CUDA a side trains for at least `SECONDS` each time, the peers in bf16
    autocast. Precisions that the device does not have are left out.

    Args:
        lab: lab with the data root.
        backbone: timm's name, one of `BACKBONES`.
        head: one of `HEADS`.
        batch: images per step.
        images: number of images.
        repeats: number of rounds.
        cpu_threads: CPU threads; by default torch's.
        peers: names of the peers.
        recompute: also train fcnlab with activation checkpointing up to stride 8.
        device: device of all sides.
        report: called with one line before each measurement.

    Raises:
        DataError: there are fewer images than in a batch, or than requested.
        RunError: this is not a checkout, or a peer's package is not installed.
        ConfigError: there is no such backbone, head or peer.
    """
    for name, known in ((backbone, BACKBONES), (head, HEADS), *((name, PEERS) for name in peers)):
        if name not in known:
            raise ConfigError(f"python -m benchmarks.speed train: unknown name '{name}'; {nearest(name, known)}")
    if images < batch:
        raise DataError(f"--images {images}: a batch has {batch}; give {batch} or more")
    check_peers("networks", *(f"train_{name}" for name in peers))
    gflop = _same_network(backbone, head)
    count = cpu_threads or torch.get_num_threads()
    cuda = device.type == "cuda"
    with threads(count), files(lab, images, CROP) as (source, pairs):
        bf16 = multiplies_bf16(device)
        if not bf16:
            report("bf16 is left out: this device does not multiply it natively")
        report("measuring the peak of a product of matrices")
        peaks = _peaks(device, bf16=bf16)
        precisions = [name for name in (*OURS, *((TF32,) if cuda else ())) if bf16 or not name.endswith("bf16")]
        ours = [name + again for again in ("", RECOMPUTED)[: 1 + recompute] for name in precisions]
        # On CUDA the layout of the network affects the time, glibc's allocator does not.
        others = [peer_ + also for peer_ in peers for also in ("", CHANNELS_LAST if cuda else KEEPING)]
        paths = tuple((str(pair.image), str(pair.mask)) for pair in pairs)
        workers = WORKERS if cuda else 0
        settings = {
            name: Setting(name, backbone, head, batch, CROP, paths, count, device.type, workers, cuda and bf16)
            for name in (*ours, *others)
        }
        chosen = [(settings[a], settings[b]) for b in others for a in ours]
        about, laps = _time_pairs(chosen, repeats, SECONDS if cuda else 0.0, report)
        setting = {"backbone": backbone, "head": head, "batch": batch, "crop": CROP, "images": images}
        setting |= {"recompute": recompute, "device": device.type}
        found = machine("timm", "segmentation-models-pytorch", "albumentations")
        return TrainingBench(source, setting | {"rounds": repeats}, gflop, peaks, laps, found, about)


def _timings(laps: Sequence[Lap]) -> tuple[Timing, ...]:
    return tuple(Timing(lap.wall / lap.images, lap.cpu / lap.images) for lap in laps)


def _peaks(device: torch.device, *, bf16: bool) -> dict[str, float]:
    """Return the floating-point operations per second in products of matrices, by precision."""
    if device.type == "cpu":
        return {"fp32": gemm_peak(torch.float32)} | ({"bf16": gemm_peak(torch.bfloat16)} if bf16 else {})
    peaks = {"bf16": device_gemm_peak(device, torch.bfloat16)} if bf16 else {}
    precisions: tuple[hardware.Precision, ...] = ("tf32", "fp32")
    for precision in precisions:
        with hardware.create_autocast(device, precision)():
            peaks[precision] = device_gemm_peak(device, torch.float32)
    return peaks


def _time_pairs(
    pairs: Sequence[tuple[Setting, Setting]], repeats: int, seconds: float, report: Callable[[str], object]
) -> tuple[dict[str, dict[str, Any]], dict[tuple[str, str], tuple[tuple[Lap, ...], tuple[Lap, ...]]]]:
    """Time pairs one after another, so that no more than two networks are in memory.

    Returns:
        The description of each side, and the laps of both sides of each pair.
    """
    about: dict[str, dict[str, Any]] = {}
    found: dict[tuple[str, str], tuple[tuple[Lap, ...], tuple[Lap, ...]]] = {}
    with TemporaryDirectory(prefix="fcnlab-bench-") as cache:
        for number, pair in enumerate(pairs, start=1):
            with sides(pair, cache) as started:

                def lap(side: Side, what: str, number: int = number, seconds: float = 0.0) -> Lap:
                    report(f"pair {number} of {len(pairs)}, {side.name}: {what}")
                    return side.lap(seconds)

                for side in started:
                    lap(side, "first lap, which does not count")
                    about[side.name] = side.about()
                rounds = [
                    [lap(side, f"lap {one} of {repeats}", seconds=seconds) for side in started]
                    for one in range(1, repeats + 1)
                ]
            ours, peers = zip(*rounds, strict=True)
            found[pair[0].side, pair[1].side] = (ours, peers)
    return about, found


def _same_network(backbone: str, head: str) -> float:
    """Check that both sides train the same network; return the billions of operations of a step for an image.

    A backward pass is counted as two forward passes: torch's counter takes grouped convolutions for dense ones there.
    """
    model, net = network(backbone, head), peer("networks").FCN(backbone, head, CLASSES)
    assert cost.count_parameters(model) == cost.count_parameters(net), "both sides have the same network"
    return 3 * 2 * cost.count_gmacs(model, CROP)
