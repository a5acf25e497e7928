"""Alternating timings of two ways to do the same work: A B A B, so that other load affects both."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Timing:
    """Seconds per image: wall-clock time, and CPU time of all threads of this process."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Ratio:
    """The peer's time divided by fcnlab's: median, minimum and maximum over pairs."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, ratios: list[float]) -> Ratio:
        """Summarize ratios.

        Args:
            ratios: ratio of each pair; at least one.
        """
        return cls(median(ratios), min(ratios), max(ratios))

    def __str__(self) -> str:
        return f"{self.median:.1f} ({self.min:.1f} to {self.max:.1f})"


@dataclass(frozen=True)
class Comparison:
    """Timings of pairs in their order; `ours_timings[i]` ran directly before `peer_timings[i]`."""

    ours_timings: tuple[Timing, ...]
    peer_timings: tuple[Timing, ...]

    @property
    def ours(self) -> Timing:
        """Return the medians of fcnlab, in seconds per image."""
        return _medians(self.ours_timings)

    @property
    def peer(self) -> Timing:
        """Return the medians of the peer, in seconds per image."""
        return _medians(self.peer_timings)

    @property
    def wall(self) -> Ratio:
        """Return the ratio of wall-clock times."""
        return Ratio.of([p.wall / o.wall for o, p in zip(self.ours_timings, self.peer_timings, strict=True)])

    @property
    def cpu(self) -> Ratio:
        """Return the ratio of CPU times."""
        return Ratio.of([p.cpu / o.cpu for o, p in zip(self.ours_timings, self.peer_timings, strict=True)])

    def to_json(self) -> dict[str, Any]:
        """Return all timings, in seconds per image, and the ratios as plain values."""
        return {
            "pairs": len(self.ours_timings),
            "seconds_per_image": {"ours": vars(self.ours), "peer": vars(self.peer)},
            "ratio": {"wall": vars(self.wall), "cpu": vars(self.cpu)},
            "timings": {
                "ours": [vars(timing) for timing in self.ours_timings],
                "peer": [vars(timing) for timing in self.peer_timings],
            },
        }


def _medians(timings: tuple[Timing, ...]) -> Timing:
    return Timing(median(t.wall for t in timings), median(t.cpu for t in timings))


def pairs(ours: Callable[[], int], peer: Callable[[], int], repeats: int = 5) -> Comparison:
    """Time fcnlab and the peer alternately, after one run of each that does not count.

    Args:
        ours: does the work once and returns its number of images.
        peer: the same.
        repeats: number of pairs.
    """
    ours()
    peer()
    taken = [(timed(ours), timed(peer)) for _ in range(repeats)]
    return Comparison(tuple(o for o, _ in taken), tuple(p for _, p in taken))


def timed(work: Callable[[], int]) -> Timing:
    """Do the work once and return its seconds per image.

    Args:
        work: does the work and returns its number of images.
    """
    wall, cpu = time.perf_counter(), time.process_time()
    images = work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Timing(wall / images, cpu / images)
