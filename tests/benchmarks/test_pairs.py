"""Pairs of timings: order, medians and ratios."""

from __future__ import annotations

import json
import time

import torch

from benchmarks.speed.machine import machine, threads
from benchmarks.speed.pairs import Comparison, Timing, pairs


def test_the_two_run_in_turn_after_one_run_each_that_does_not_count() -> None:
    calls: list[str] = []

    def named(name: str) -> int:
        calls.append(name)
        return 2

    found = pairs(lambda: named("A"), lambda: named("B"), repeats=3)
    assert calls == ["A", "B"] * 4
    assert len(found.ours_timings) == len(found.peer_timings) == 3


def test_results_are_seconds_per_image() -> None:
    def sleeping() -> int:
        time.sleep(0.02)
        return 10

    found = pairs(sleeping, lambda: 1, repeats=5)
    assert found.ours.wall >= 0.002
    assert min(timing.cpu for timing in found.ours_timings) < 0.002, "other threads may be busy, but not always"


def test_medians_are_over_runs_and_ratios_pair_by_pair() -> None:
    found = Comparison(
        (Timing(1.0, 1.0), Timing(2.0, 1.0), Timing(4.0, 2.0)), (Timing(10.0, 5.0), Timing(40.0, 6.0), Timing(8.0, 8.0))
    )
    assert (found.ours, found.peer) == (Timing(2.0, 1.0), Timing(10.0, 6.0))
    assert (found.wall.median, found.wall.min, found.wall.max) == (10.0, 2.0, 20.0)
    assert (found.cpu.median, found.cpu.min, found.cpu.max) == (5.0, 4.0, 6.0)
    output = json.loads(json.dumps(found.to_json()))
    assert output["pairs"] == 3
    assert output["seconds_per_image"]["peer"] == {"wall": 10.0, "cpu": 6.0}
    assert output["ratio"]["wall"] == {"median": 10.0, "min": 2.0, "max": 20.0}
    assert str(found.wall) == "10.0 (2.0 to 20.0)"


def test_a_machine_is_named_with_versions_and_threads() -> None:
    before = torch.get_num_threads()
    with threads(1):
        found = machine("timm")
    assert torch.get_num_threads() == before
    assert found.threads == 1 and found.cores >= 1
    assert {"torch", "torchvision", "timm"} <= found.versions.keys()
    assert found.processor and f"torch {torch.__version__.split('+')[0]}" in found.lines()[-1]
    json.dumps(vars(found))
