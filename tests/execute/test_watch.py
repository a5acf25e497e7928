from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from fcnlab.execute.plan import make_plan
from fcnlab.execute.watch import LiveWatcher, PlainWatcher, Watcher, duration
from fcnlab.places import Lab
from fcnlab.trial.record import EpochRecord, Failure, Record
from tests.conftest import SMOKE, write_grid


def epochs(count: int) -> list[EpochRecord]:
    return [
        EpochRecord(epoch=n, loss=1.0, lr=0.1, images_per_s=9.0, seconds=1.0, val_miou=0.5) for n in range(1, count + 1)
    ]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(None, "unknown"), (0.4, "0 s"), (89, "89 s"), (90, "2 min"), (3600, "60 min"), (12000, "3 h 20 min")],
)
def test_durations_are_said_as_people_say_them(seconds: float | None, said: str) -> None:
    assert duration(seconds) == said


def test_the_share_done_and_the_time_left_follow_the_epochs(tmp_path: Path) -> None:
    path = write_grid(tmp_path, SMOKE)
    lab = Lab.find(path)
    plan = make_plan(lab.grid(path), lab)
    watcher = Watcher()
    watcher.planned(plan)
    assert (watcher.fraction, watcher.time_left) == (0, None)
    first = plan.trials[0]
    watcher.started(first)
    assert watcher.progress(first, epochs(1))
    assert not watcher.progress(first, epochs(1)), "no epoch is counted twice"
    assert watcher.fraction == 1 / 8
    assert watcher.time_left is not None
    failure = Failure(cause="exception", message="no")
    watcher.ended(first, Record.of(first.trial, "failed", failure=failure))
    assert watcher.fraction == 2 / 8, "a failed trial has no epochs left to do"
    assert (watcher.done, watcher.failed) == (1, 1)


@pytest.mark.parametrize("kind", [PlainWatcher, LiveWatcher])
def test_what_runs_and_what_failed_is_shown(kind: type[PlainWatcher], tmp_path: Path) -> None:
    path = write_grid(tmp_path, SMOKE)
    lab = Lab.find(path)
    plan = make_plan(lab.grid(path), lab)
    shown = io.StringIO()
    with kind(Console(file=shown, width=100, force_terminal=True, markup=False, highlight=False)) as watcher:
        watcher.planned(plan)
        watcher.started(plan.trials[0])
        watcher.progress(plan.trials[0], epochs(1))
        if isinstance(watcher, LiveWatcher):
            watcher._live.refresh()
        failure = Failure(cause="exception", message="the disk [/x] is full\nsecond line")
        watcher.ended(plan.trials[0], Record.of(plan.trials[0].trial, "failed", failure=failure))
    text = shown.getvalue()
    assert "fcn32s, seed 0" in text
    assert "1/2" in text
    assert "50.0" in text
    assert "FAILED fcn32s, seed 0: the disk [/x] is full" in text
    assert "second line" not in text


def test_the_decoding_of_a_split_is_shown_until_the_first_trial_starts(tmp_path: Path) -> None:
    path = write_grid(tmp_path, SMOKE)
    lab = Lab.find(path)
    plan = make_plan(lab.grid(path), lab)
    shown = io.StringIO()
    with LiveWatcher(Console(file=shown, width=100, force_terminal=True, highlight=False)) as watcher:
        assert isinstance(watcher, LiveWatcher)
        watcher.planned(plan)
        advance = watcher.decoding("camvid train", 367)
        for _ in range(3):
            advance()
        watcher._live.refresh()
        assert "decode camvid train: 367 images" in shown.getvalue()
        assert "decoding camvid train, 3 of 367 images" in shown.getvalue()
        watcher.started(plan.trials[0])
        shown.truncate(0)
        watcher._live.refresh()
    assert "decoding" not in shown.getvalue()
