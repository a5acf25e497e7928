"""The limits of `benchmarks/failures/soak.py`, and its measurement of this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.failures.soak import LIMITS, MARKS, Mark, find_growth, measure


def marks(name: str, growth: float) -> list[Mark]:
    """Return measurements of 2,000 trials in which one measure grows by an amount per 1,000 trials."""
    flat = dict.fromkeys(LIMITS, 100.0)
    trials = range(100, 2001, 2000 // MARKS)
    return [Mark(n, float(n), n / 10, {**flat, name: 100 + growth * n / 1000}) for n in trials]


@pytest.mark.parametrize(
    ("name", "allowed", "refused"), [("driver_mb", 8, 9), ("descriptors", 2, 3), ("children", 0, 1)]
)
def test_growth_beyond_its_limit_fails(name: str, allowed: float, refused: float) -> None:
    assert not any(outcome.bad for outcome in find_growth(marks(name, allowed)))
    assert [outcome.failure for outcome in find_growth(marks(name, refused)) if outcome.bad] == [LIMITS[name].name]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="requires /proc")
def test_an_open_file_is_counted(tmp_path: Path) -> None:
    before = measure(0).values
    with (tmp_path / "open").open("w"):
        after = measure(0).values
    assert after["descriptors"] == before["descriptors"] + 1
    assert after["driver_mb"] > 10 and after["threads"] >= 1
