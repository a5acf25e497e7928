"""Two ways to do the same work, timed in turn: A B A B, so that what else the machine does falls on both."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

HEADINGS = ("what", "ours, ms/image", "peer, ms/image", "times faster (wall)", "times faster (CPU)")
"""The columns of `Comparison.row`."""


@dataclass(frozen=True)
class Timing:
    """Seconds an image: by the clock, and of the CPU by all threads of this process."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Ratio:
    """How many times longer the peer takes: over the pairs, the median, the smallest and the largest."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, ratios: list[float]) -> Ratio:
        """Of the ratios pair by pair, of which there is one at least."""
        return cls(median(ratios), min(ratios), max(ratios))

    def __str__(self) -> str:
        return f"{self.median:.1f} ({self.min:.1f} to {self.max:.1f})"


@dataclass(frozen=True)
class Comparison:
    """Timings of pairs, in the order in which they were taken; ours[i] ran right before peer[i]."""

    ours_timings: tuple[Timing, ...]
    peer_timings: tuple[Timing, ...]

    @property
    def ours(self) -> Timing:
        """Medians of ours, seconds an image."""
        return _medians(self.ours_timings)

    @property
    def peer(self) -> Timing:
        """Medians of the peer, seconds an image."""
        return _medians(self.peer_timings)

    @property
    def wall(self) -> Ratio:
        """How many times longer the peer takes by the clock."""
        return Ratio.of([p.wall / o.wall for o, p in zip(self.ours_timings, self.peer_timings, strict=True)])

    @property
    def cpu(self) -> Ratio:
        """How many times more of the CPU the peer takes."""
        return Ratio.of([p.cpu / o.cpu for o, p in zip(self.ours_timings, self.peer_timings, strict=True)])

    def to_json(self) -> dict[str, Any]:
        """All figures as plain values; seconds an image, and how many times longer the peer takes."""
        return {
            "pairs": len(self.ours_timings),
            "seconds_per_image": {"ours": vars(self.ours), "peer": vars(self.peer)},
            "ratio": {"wall": vars(self.wall), "cpu": vars(self.cpu)},
            "timings": {
                "ours": [vars(timing) for timing in self.ours_timings],
                "peer": [vars(timing) for timing in self.peer_timings],
            },
        }

    def row(self, what: str) -> tuple[str, ...]:
        """A row of a rich table whose columns are HEADINGS."""
        ours, theirs = (f"{1000 * side.wall:.3f}" for side in (self.ours, self.peer))
        return what, ours, theirs, str(self.wall), str(self.cpu)


def _medians(timings: tuple[Timing, ...]) -> Timing:
    return Timing(median(t.wall for t in timings), median(t.cpu for t in timings))


def pairs(ours: Callable[[], int], peer: Callable[[], int], repeats: int = 5) -> Comparison:
    """Time ours and the peer in turn, `repeats` times each, after one run of each that does not count.

    Args:
        ours: does the work once and returns how many images it was.
        peer: the same.
        repeats: how many pairs.
    """
    ours()
    peer()
    taken = [(timed(ours), timed(peer)) for _ in range(repeats)]
    return Comparison(tuple(o for o, _ in taken), tuple(p for _, p in taken))


def timed(work: Callable[[], int]) -> Timing:
    """Do the work once; seconds for each of the images that it says it did."""
    wall, cpu = time.perf_counter(), time.process_time()
    images = work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Timing(wall / images, cpu / images)
