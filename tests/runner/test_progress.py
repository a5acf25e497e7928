from __future__ import annotations

import inspect
import io
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fcnlab.cli.grid import running
from fcnlab.lab import Lab
from fcnlab.runner.plan import Plan, make_plan
from fcnlab.runner.progress import jsonl
from fcnlab.runner.progress.base import ProgressReporter, Waiting, format_duration
from fcnlab.runner.progress.jsonl import JsonlReporter
from fcnlab.runner.progress.notebook import MAX_MESSAGES, NotebookReporter
from fcnlab.runner.progress.plain import PlainReporter, describe_result
from fcnlab.runner.progress.rich import RichReporter, format_clock
from fcnlab.trial.record import Attempt, Failure, Record
from tests.builders import epoch_records, failed_record, finished_record
from tests.conftest import SMOKE, write_grid


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(None, "unknown"), (0.4, "0 s"), (89, "89 s"), (90, "2 min"), (3600, "60 min"), (12000, "3 h 20 min")],
)
def test_durations_are_formatted(seconds: float | None, expected: str) -> None:
    assert format_duration(seconds) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"), [(None, ""), (7.9, "0:07"), (60, "1:00"), (3599, "59:59"), (12000, "3:20:00")]
)
def test_clock_is_formatted(seconds: float | None, expected: str) -> None:
    assert format_clock(seconds) == expected


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Four trials of two epochs."""
    path = write_grid(tmp_path, SMOKE)
    lab = Lab.find(path)
    return make_plan(lab.load_grid(path), lab)


class Clock:
    """A clock that a test advances."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self._now)

    def passes(self, seconds: float) -> None:
        self._now += seconds


@pytest.fixture
def clock_of_tests(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_fraction_and_time_left_follow_the_seconds_of_training(plan: Plan, clock_of_tests: Clock) -> None:
    reporter = ProgressReporter()
    reporter.on_plan(plan)
    assert (reporter.eta.fraction, reporter.time_left) == (0, None)
    first, second = plan.trials[:2]
    reporter.on_trial_start(first)
    clock_of_tests.passes(10)
    assert reporter.on_progress(first, epoch_records(1, seconds=8))
    assert not reporter.on_progress(first, epoch_records(1, seconds=8)), "no epoch is counted twice"
    assert reporter.eta.fraction == 1 / 8
    assert reporter.time_left == pytest.approx(7 * 8), "the 2 seconds before it trained come once"
    clock_of_tests.passes(12)
    assert reporter.on_progress(first, epoch_records(2, seconds=8))
    assert reporter.time_left == pytest.approx(6 * 8 * 20 / 16), "20 seconds of the clock went by for 16 of training"
    reporter.on_trial_end(first, failed_record(first.trial))
    assert reporter.eta.fraction == 2 / 8, "a failed trial has no epochs left to do"
    assert (reporter.done, reporter.failed) == (1, 1)
    for planned in plan.trials[1:]:
        reporter.on_trial_start(planned)
        reporter.on_trial_end(planned, finished_record(planned.trial, seconds=8))
    assert (reporter.eta.fraction, reporter.time_left) == (1, 0)
    assert second.key not in reporter.running


def test_time_left_weights_epochs_by_the_cost_of_their_cell(plan: Plan, clock_of_tests: Clock) -> None:
    reporter = ProgressReporter()
    reporter.on_plan(plan)
    cheap, dear = plan.trials[:2]
    for planned in (cheap, dear):
        reporter.on_trial_start(planned)
    clock_of_tests.passes(9)
    reporter.on_progress(cheap, epoch_records(2, seconds=0.5))
    reporter.on_progress(dear, epoch_records(1, seconds=8))
    # Left: 2 cheap epochs of half a second, 3 dear ones of 8 seconds; 9 seconds of training took 8 of the clock.
    assert reporter.time_left == pytest.approx((2 * 0.5 + 3 * 8) * 8 / 9)


def test_earlier_training_by_another_driver_does_not_count_towards_the_speed(plan: Plan, clock_of_tests: Clock) -> None:
    reporter = ProgressReporter()
    reporter.on_plan(plan)
    reporter.on_trial_end(plan.trials[0], finished_record(plan.trials[0].trial, seconds=500))
    reporter.on_trial_start(plan.trials[1])
    assert reporter.time_left == pytest.approx(6 * 500)


def test_pauses_reduce_the_speed_and_pruned_trials_leave_the_estimate(plan: Plan, clock_of_tests: Clock) -> None:
    reporter = ProgressReporter()
    reporter.on_plan(plan)
    first = plan.trials[0]
    reporter.on_trial_start(first)
    clock_of_tests.passes(4)
    reporter.on_progress(first, epoch_records(1, seconds=4))
    first.folder.create()
    first.folder.write_progress(epoch_records(1, seconds=4))
    reporter.on_trial_pause(first)
    clock_of_tests.passes(4)
    assert reporter.time_left == pytest.approx(7 * 4 * 2), "half of the time nothing ran"
    for planned in plan.trials[1:]:
        reporter.on_trial_prune(planned, 1)
    assert reporter.time_left == pytest.approx(1 * 4 * 2)
    assert (reporter.done, reporter.pruned) == (3, 3)


def test_time_left_is_at_least_that_of_the_longest_running_trial(plan: Plan, clock_of_tests: Clock) -> None:
    reporter = ProgressReporter()
    reporter.on_plan(plan)
    for planned in plan.trials:
        reporter.on_trial_start(planned)
    clock_of_tests.passes(10)
    for planned in plan.trials[:3]:
        reporter.on_trial_end(planned, finished_record(planned.trial, seconds=5))
    reporter.on_progress(plan.trials[3], epoch_records(1, seconds=10))
    assert reporter.time_left == pytest.approx(10), "three workers have nothing left to do"


def test_restarted_trial_has_all_its_epochs_left(plan: Plan, clock_of_tests: Clock) -> None:
    reporter = ProgressReporter()
    reporter.on_plan(plan)
    first = plan.trials[0]
    reporter.on_trial_start(first)
    clock_of_tests.passes(2)
    reporter.on_progress(first, epoch_records(1, seconds=2))
    reporter.on_trial_retry(first, Attempt(cause="out_of_memory", message="no memory", epoch=1), "it starts again")
    assert first.key not in reporter.running
    assert reporter.eta.fraction == 2 / (2 + 8 * 2)


@pytest.mark.parametrize("kept", [0, 1, 2, 3])
def test_a_trial_resumes_after_the_epochs_of_its_checkpoint(tmp_path: Path, kept: int) -> None:
    path = write_grid(tmp_path, SMOKE.replace("recipe: smoke", "recipe: smoke, recipe.epochs: 9"))
    lab = Lab.find(path)
    plan = make_plan(lab.load_grid(path), lab)
    first, shown, objects = plan.trials[0], io.StringIO(), list[dict[str, Any]]()
    reporters = PlainReporter(Console(file=shown, width=100)), JsonlReporter(objects.append)
    earlier = epoch_records(3, seconds=2)
    first.folder.create()
    first.folder.write_progress(earlier)

    def poll() -> None:
        for reporter in reporters:
            reporter.on_progress(first, first.folder.read_progress())

    for reporter in reporters:
        reporter.on_plan(plan)
        reporter.on_trial_start(first)
    poll()
    assert "resume" not in shown.getvalue(), "the trial has not read its checkpoint"
    again = epoch_records(4, seconds=2.5)
    first.folder.write_progress([*earlier[:kept], *again[kept : kept + 1]])  # it has trained an epoch already
    poll()
    note = {
        0: "; epochs 1 to 3 are trained again",
        1: "; epochs 2 to 3 are trained again",
        2: "; epoch 3 is trained again",
    }
    assert shown.getvalue().endswith(f"resume fcn32s, seed 0 after epoch {kept} of 9{note.get(kept, '')}\n")
    poll()
    assert f"seed 0: epoch {kept + 1}/9" in shown.getvalue()
    first.folder.write_progress([*earlier[:kept], *again[kept:]])
    poll()
    events = objects[1:]
    assert events[0] | {"event": "start", "epoch": kept, "repeated": 3 - kept} == events[0]
    assert [event["epoch"] for event in events[1:]] == [*range(kept + 1, 5)]
    assert all(reporter.running[first.key].epochs_left == 5 for reporter in reporters)


def test_a_trial_that_ends_before_it_has_read_its_checkpoint_has_been_started(plan: Plan) -> None:
    first, events = plan.trials[0], list[dict[str, Any]]()
    first.folder.create()
    first.folder.write_progress(epoch_records(1))
    reporter = JsonlReporter(events.append)
    reporter.on_plan(plan)
    reporter.on_trial_start(first)
    reporter.on_trial_end(first, failed_record(first.trial))
    assert [event["event"] for event in events] == ["plan", "start", "end"]


def test_finished_trial_gives_an_estimate_from_the_start(plan: Plan, clock_of_tests: Clock) -> None:
    first = plan.trials[0]
    first.folder.create()
    first.folder.finish(finished_record(first.trial, seconds=30))
    reporter = ProgressReporter()
    reporter.on_plan(make_plan(plan.grid, Lab.find(plan.grid.path)))
    assert reporter.done == 1
    reporter.on_trial_start(plan.trials[1])
    assert reporter.time_left == pytest.approx(6 * 30)


def test_idle_describes_why_no_trial_runs(plan: Plan) -> None:
    reporter = ProgressReporter()
    assert reporter.describe_counts() == "starting", "the plan is not known yet"
    reporter.on_plan(plan)
    assert reporter.idle == "starting"
    reporter.on_trials_elsewhere(2)
    reporter.on_wait(Waiting(for_init=1, for_decision=3))
    assert (
        reporter.idle == "2 run by other drivers, 1 wait for the trial they are initialized from, 3 wait for an "
        "early stopping decision"
    )
    reporter.on_trial_start(plan.trials[0])
    assert reporter.idle is None
    for planned in plan.trials:
        reporter.on_trial_end(planned, finished_record(planned.trial))
    assert reporter.idle == "all trials have ended; publishing"


@pytest.mark.parametrize(
    ("setting", "used", "expected"),
    [("auto", "bf16", " of training in bf16"), ("auto", "fp32", " of training"), ("bf16", "bf16", " of training")],
)
def test_the_result_names_a_precision_that_auto_has_selected(
    plan: Plan, setting: str, used: str, expected: str
) -> None:
    planned = plan.trials[0]
    recipe = planned.trial.recipe.model_copy(update={"precision": setting})
    planned = replace(planned, trial=planned.trial.model_copy(update={"recipe": recipe}))
    assert describe_result(planned, finished_record(planned.trial, precision=used)).endswith(expected)


@pytest.mark.parametrize("kind", [PlainReporter, RichReporter])
def test_running_and_failed_trials_are_printed(kind: type[PlainReporter], tmp_path: Path) -> None:
    path = write_grid(tmp_path, SMOKE)
    lab = Lab.find(path)
    plan = make_plan(lab.load_grid(path), lab)
    shown = io.StringIO()
    with kind(Console(file=shown, width=100, force_terminal=True, markup=False, highlight=False)) as reporter:
        reporter.on_plan(plan)
        reporter.on_trial_start(plan.trials[0])
        reporter.on_progress(plan.trials[0], epoch_records(1))
        if isinstance(reporter, RichReporter):
            reporter._live.refresh()
        failure = Failure(cause="exception", message="the disk [/x] is full\nsecond line")
        reporter.on_trial_end(plan.trials[0], Record.create(plan.trials[0].trial, "failed", failure=failure))
    text = shown.getvalue()
    assert "fcn32s, seed 0" in text
    assert "1/2" in text
    assert "50.0" in text
    assert "FAILED fcn32s, seed 0: the disk [/x] is full" in text
    assert "second line" not in text


def test_decoding_is_shown_until_the_first_trial_starts(tmp_path: Path) -> None:
    path = write_grid(tmp_path, SMOKE)
    lab = Lab.find(path)
    plan = make_plan(lab.load_grid(path), lab)
    shown = io.StringIO()
    with RichReporter(Console(file=shown, width=100, force_terminal=True, highlight=False)) as reporter:
        assert isinstance(reporter, RichReporter)
        reporter.on_plan(plan)
        advance = reporter.on_decode_start("camvid train", 367)
        for _ in range(3):
            advance()
        reporter._live.refresh()
        assert "decode camvid train: 367 images" in shown.getvalue()
        assert "decoding camvid train, 3 of 367 images" in shown.getvalue()
        reporter.on_trial_start(plan.trials[0])
        shown.truncate(0)
        reporter._live.refresh()
    assert "decoding" not in shown.getvalue()


def render(width: int, height: int, running: int, tmp_path: Path) -> list[str]:
    """Return the lines of a terminal of this size with a number of running trials."""
    seeds = -(-running // 2)
    text = SMOKE.replace("seeds: 2", f"seeds: {seeds}").replace("smoke}", "smoke, recipe.epochs: 200}")
    path = write_grid(tmp_path, text)
    lab = Lab.find(path)
    plan = make_plan(lab.load_grid(path), lab)
    shown = io.StringIO()
    console = Console(file=shown, width=width, height=height, force_terminal=False, markup=False, highlight=False)
    reporter = RichReporter(console)
    ProgressReporter.on_plan(reporter, plan)
    for planned in plan.trials[:running]:
        reporter.on_trial_start(planned)
        reporter.on_progress(planned, epoch_records(123))
    reporter.on_trials_elsewhere(4)
    console.print(reporter._render())
    return shown.getvalue().splitlines()


def test_sixteen_trials_fit_into_80_columns_and_24_lines(tmp_path: Path) -> None:
    lines = render(80, 24, 16, tmp_path)
    assert len(lines) <= 20 and all(len(line) <= 80 for line in lines)
    assert lines[0].split() == ["running", "seed", "epoch", "loss", "val", "mIoU", "images/s", "for", "left"]
    assert lines[1].split()[:6] == ["fcn32s", "0", "123/200", "0.008", "50.0", "9.0"]
    assert "0/16 trials, 0 failed, 4 run elsewhere" in lines[17]


def test_hidden_trials_are_counted(tmp_path: Path) -> None:
    lines = render(80, 12, 16, tmp_path)
    assert len(lines) <= 12 and "and 9 more" in lines[8]


def test_jsonl_reporter_writes_one_object_per_event(plan: Plan) -> None:
    events: list[dict[str, Any]] = []
    reporter = JsonlReporter(events.append)
    first, second = plan.trials[:2]
    reporter.on_plan(plan)
    reporter.on_device_wait(first)
    reporter.on_trial_start(first)
    reporter.on_progress(first, epoch_records(1))
    reporter.on_progress(first, epoch_records(1))
    reporter.on_trial_end(first, finished_record(first.trial, miou=0.25))
    reporter.on_trials_elsewhere(0)
    reporter.on_trials_elsewhere(1)
    reporter.on_wait(Waiting())
    reporter.on_wait(Waiting())
    reporter.on_trial_end(second, failed_record(second.trial, "no"))
    assert [one["event"] for one in events] == [
        "plan", "device_wait", "start", "epoch", "end", "elsewhere", "waiting", "end",
    ]  # fmt: skip
    assert events.pop(1)["key"] == first.key
    assert events[0] | {"trials": 4, "ended": 0, "remaining": 4} == events[0]
    assert events[2] | {"key": first.key, "cell": "fcn32s", "seed": 0, "epoch": 1, "loss": 1.0} == events[2]
    assert events[3] | {"status": "finished", "split": "test", "miou": 0.25, "failure": None, "done": 1} == events[3]
    assert events[6] | {"status": "failed", "miou": None, "failure": "no", "done": 2} == events[6]


def test_the_list_of_events_is_complete() -> None:
    listed = re.findall(r"^    (\w+) ", jsonl.__doc__ or "", re.MULTILINE)
    written = re.findall(r'(?:_write|create)_event\(\s*"(\w+)"', inspect.getsource(jsonl) + inspect.getsource(running))
    assert sorted(listed) == sorted(written)


def test_a_notebook_has_one_output_with_counts_running_trials_and_messages(plan: Plan, clock_of_tests: Clock) -> None:
    shown: list[str] = []
    first, second = plan.trials[:2]
    with NotebookReporter(shown.append) as reporter:
        reporter.on_plan(plan)
        for planned in (first, second):
            reporter.on_trial_start(planned)
        clock_of_tests.passes(1)
        reporter.on_progress(first, epoch_records(1))
        assert "0/4 trials, 0 failed" in shown[-1] and shown[-1].count("<tr>") == 3
        updates = len(shown)
        for _ in range(100):
            reporter.on_progress(first, epoch_records(1))
        assert len(shown) == updates, "the scheduler reports several times a second"
        reporter.on_trial_end(first, failed_record(first.trial, "no <memory>"))
        assert "FAILED fcn32s, seed 0: no &lt;memory&gt;" in shown[-1] and shown[-1].count("<tr>") == 2
        for number in range(20):
            reporter.on_remark(f"remark {number}.")
        assert shown[-1].count("<div>remark") == MAX_MESSAGES
    assert shown[-1].startswith("<div><strong>1/4 trials, 1 failed</strong>") and "<tr>" not in shown[-1]
