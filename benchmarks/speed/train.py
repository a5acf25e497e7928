"""Timings of training: fcnlab in both precisions and the peers as their users write them, in pairs, epoch by epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.speed import check_peers, peer
from benchmarks.speed.images import CLASSES, files
from benchmarks.speed.machine import machine, measure_gemm_peaks, multiplies_bf16, threads
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
from fcnlab.training import cost

BACKBONES = ("resnet18", "resnet50", "mobilenetv2_100")
CROP = (320, 480)
HEADS = ("fcn32s", "fcn16s", "fcn8s")
WORKERS = 8
"""Processes that load the data of a peer on CUDA."""
SECONDS = 2.0
"""Minimum seconds of a lap on CUDA, where an epoch of few images would be too short to be timed."""
CPU = torch.device("cpu")
Pairs = dict[tuple[str, str], tuple[tuple[Lap, ...], tuple[Lap, ...]]]
"""Laps of a side of fcnlab and of a peer, in the order of rounds, without the first one, by both names."""


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
) -> dict[str, Any]:
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

    Returns:
        JSON-able results.

    Raises:
        DataError: there are fewer images than in a batch, or than requested.
        RunError: a peer's package is not installed.
        ConfigError: there is no such backbone, head or peer.
    """
    for name, known in ((backbone, BACKBONES), (head, HEADS), *((name, PEERS) for name in peers)):
        if name not in known:
            raise ConfigError(f"python -m benchmarks.speed train: unknown name '{name}'; {nearest(name, known)}")
    if images < batch:
        raise DataError(f"--images {images}: a batch has {batch}; give {batch} or more")
    check_peers(*(f"train_{name}" for name in peers))
    gflop = _same_network(backbone, head)
    count = cpu_threads or torch.get_num_threads()
    cuda = device.type == "cuda"
    with threads(count), files(lab, images, CROP) as (source, pairs):
        bf16 = multiplies_bf16(device)
        if not bf16:
            report("bf16 is left out: this device does not multiply it natively")
        report("measuring the peak of a product of matrices")
        peaks = measure_gemm_peaks(device, bf16=bf16)
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
        loading = (
            f"the peers load their data in {WORKERS} processes and train in bf16 autocast; fcnlab augments on the GPU"
            if cuda
            else "all sides decode and crop in the process that trains"
        )
        return {
            "source": source,
            "setting": {
                "backbone": backbone,
                "head": head,
                "batch": batch,
                "crop": CROP,
                "images": images,
                "recompute": recompute,
                "device": device.type,
                "rounds": repeats,
            },
            "gflop_per_image": gflop,
            "gemm_peak": peaks,
            **summarize(laps, gflop, peaks, cuda=cuda),
            "about": about,
            "machine": vars(machine("timm", "segmentation-models-pytorch", "albumentations")),
            "notes": [
                f"{repeats} alternating epochs of each pair, each side in its own process",
                f"{loading}; fcnlab decodes once, before the first epoch that counts",
                *(
                    f"{side}: augmentation by {description['augmentation']}"
                    for side, description in about.items()
                    if description.get("augmentation")
                ),
            ],
        }


def summarize(pairs: Pairs, gflop: float, peaks: dict[str, float], *, cuda: bool) -> dict[str, dict[str, Any]]:
    """Return the medians of each side, those of fcnlab first, and the comparisons of each pair.

    The share of the peak is that per second of the CPU, on CUDA per second of the clock. The peak is that of bf16 for
    ours in bf16, and on CUDA for the peers, which train in bf16 there.

    Args:
        pairs: the laps.
        gflop: billions of floating-point operations of a step per image, forward and backward.
        peaks: floating-point operations per second in a product of matrices, by precision.
        cuda: whether the sides were trained on CUDA.
    """
    laps: dict[str, tuple[Lap, ...]] = {}
    for position in (0, 1):
        for names, both in pairs.items():
            laps[names[position]] = laps.get(names[position], ()) + both[position]
    sides = {}
    for side, of_side in laps.items():
        timings = _timings(of_side)
        median = Comparison(timings, timings).ours
        precision = side.removesuffix(RECOMPUTED).removeprefix("ours ") if is_ours(side) else None
        peak = peaks[precision or ("bf16" if cuda and "bf16" in peaks else "fp32")]
        sides[side] = {
            "images_per_s": 1 / median.wall,
            "cpu_seconds_per_image": median.cpu,
            "of_gemm_peak": 1e9 * gflop / (median.wall if cuda else median.cpu) / peak,
            "peak_memory": max(lap.peak_memory for lap in of_side),
        }
    compared = {
        f"{a} / {b}": Comparison(_timings(ours), _timings(peers)).to_json() for (a, b), (ours, peers) in pairs.items()
    }
    return {"sides": sides, "comparisons": compared}


def _timings(laps: Sequence[Lap]) -> tuple[Timing, ...]:
    return tuple(Timing(lap.wall / lap.images, lap.cpu / lap.images) for lap in laps)


def _time_pairs(
    pairs: Sequence[tuple[Setting, Setting]], repeats: int, seconds: float, report: Callable[[str], object]
) -> tuple[dict[str, dict[str, Any]], Pairs]:
    """Time pairs one after another, so that no more than two networks are in memory.

    Returns:
        The description of each side, and the laps of both sides of each pair.
    """
    about: dict[str, dict[str, Any]] = {}
    found: Pairs = {}
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
