"""Damage to the files of a lab, and what the commands make of it. `python -m tests.runner.damages` tries a long list.

A lab has four trials: three have finished and one has been started. Each case damages one file in a copy of the lab and
then calls a command. It fails if the command raises something that is not an error for the user, if a trial whose
files are intact gets other metrics or other files, if a damaged trial has other metrics than it had, or if the grid
does not have its table again after `run`. Metrics with a corrected checksum are found by `lab check` only.
Trials are not trained: an executor writes their files.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import pandas as pd
from typer.main import get_command

from fcnlab.cli import app
from fcnlab.config.grid.grid import Grid
from fcnlab.errors import FcnlabError
from fcnlab.lab import Lab
from fcnlab.lab_check import check_lab
from fcnlab.report.frame import trials_frame
from fcnlab.runner.executors.base import Executor, Job, JobExit
from fcnlab.runner.plan import PlannedTrial, make_plan
from fcnlab.runner.progress.jsonl import JsonlReporter
from fcnlab.runner.run import run_grid
from fcnlab.trial.record import Attempt
from fcnlab.trial.storage.sealed_record import compute_checksum
from tests.builders import epoch_records
from tests.conftest import SMOKE
from tests.report.finished_grid import RIGHT, finish, finished_lab

FINISHED = ("record.json", "counts.npz", "trial.json", "samples/scene_000.prediction.png")
"""Files of a finished trial that are damaged."""

STARTED = ("progress.jsonl", "attempts.jsonl", "trial.json")
"""Files of a started trial that are damaged."""

VERBS = ("status", "report", "compare", "run")

SEALED_VERBS = ("lab_check", "run")
"""What finds and repairs metrics that agree with the checksum of their record, but not with the counts."""


class Case(NamedTuple):
    """A damage: the index of the trial, the file, the name of the damage, a function that applies it, and commands."""

    trial: int
    file: str
    name: str
    apply: Callable[[Path], object]
    verbs: tuple[str, ...] = VERBS


class FakeExecutor(Executor):
    """Writes the files of each trial at once."""

    shares_devices = False

    def __init__(self, trials: dict[str, PlannedTrial]) -> None:
        self._trials = trials
        self._ended: list[JobExit] = []

    @property
    def free_slots(self) -> int:
        return 1 - len(self._ended)

    def start(self, job: Job) -> None:
        planned = self._trials[job.trial.key]
        for line in planned.folder.repair(checkpoints=True):
            raise AssertionError(f"the driver has left damage: {line}")
        shutil.rmtree(planned.folder.samples, ignore_errors=True)
        finish(planned, RIGHT[planned.trial.names["head"]])
        self._ended.append(JobExit(planned.key))

    def wait(self, timeout: float) -> list[JobExit]:
        ended, self._ended = self._ended, []
        return ended

    def pause(self) -> None: ...

    def close(self) -> None: ...


def make_lab(root: Path) -> None:
    """Write the lab: two cells with two seeds; the last trial has only been started."""
    grid, lab = finished_lab(root, SMOKE)
    last = make_plan(grid, lab).trials[-1].folder
    for file in (last.record, last.counts):
        file.unlink()
    shutil.rmtree(last.samples)
    last.write_progress(epoch_records(3))
    for epoch in (1, 2, 3):
        last.add_attempt(Attempt(cause="lost", message="killed", epoch=epoch))


def cases(*, long: bool) -> Iterator[Case]:
    """Yield the cases; the long list truncates and flips at many more offsets."""
    for trial, files in ((0, FINISHED), (1, ("record.json", "counts.npz")), (3, STARTED)):
        for file in files:
            for name, apply in _damages(long=long):
                yield Case(trial, file, name, apply)
        yield Case(trial, ".", "a file in place of the folder", _replace_folder)
    for name, edit in _edits():
        for seal in (False,) if name == "a new field" else (False, True):  # sealed, it is of a newer version
            verbs = SEALED_VERBS if seal and name not in INCOMPLETE else VERBS
            label = f"{name}{', checksum corrected' if seal else ''}"
            yield Case(0, "record.json", label, _edit_with(edit, seal=seal), verbs)


def _damages(*, long: bool) -> Iterator[tuple[str, Callable[[Path], object]]]:
    steps = 23 if long else 3
    yield "deleted", lambda path: path.unlink()
    yield "empty", lambda path: path.write_bytes(b"")
    yield "a folder in its place", _replace_by_folder
    yield "zeros", lambda path: path.write_bytes(bytes(path.stat().st_size))
    for step in range(1, steps):
        yield f"truncated at {step}/{steps}", partial(_truncate, share=step / steps)
    yield "last byte missing", lambda path: path.write_bytes(path.read_bytes()[:-1])
    for step in range(steps):
        for bit in (1, 128) if long else (1,):
            yield f"bit {bit} at {step}/{steps}", partial(_flip, share=step / steps, bit=bit)


def _replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _truncate(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


def _flip(path: Path, share: float, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[int(share * len(content))] ^= bit
    path.write_bytes(content)


def _replace_folder(path: Path) -> None:
    shutil.rmtree(path)
    path.write_bytes(b"")


INCOMPLETE = ("no metrics", "no cost", "another key", "a failure")
"""Edits that are damage of a record without its counts."""


def _edits() -> Iterator[tuple[str, Callable[[dict[str, Any]], object]]]:
    yield "mIoU 0.46", lambda record: record["metrics"][0].update(miou=0.46)
    yield "mIoU 3.5e300", lambda record: record["metrics"][0].update(miou=3.5e300)
    yield "mIoU NaN", lambda record: record["metrics"][0].update(miou=float("nan"))
    yield "mIoU infinite", lambda record: record["metrics"][1].update(miou=float("inf"))
    yield "mIoU null", lambda record: record["metrics"][0].update(miou=None)
    yield "class IoU", lambda record: record["metrics"][0]["class_iou"].pop()
    yield "no metrics", lambda record: record.update(metrics=[])
    yield "one checkpoint", lambda record: record["metrics"].pop()
    yield "no cost", lambda record: record.pop("cost")
    yield "images", lambda record: record["metrics"][0].update(images=39)
    yield "another key", lambda record: record.update(key="0" * 64)
    yield "a new field", lambda record: record.update(remark="red")
    yield "a failure", lambda record: record.update(status="failed")


def _edit_with(edit: Callable[[dict[str, Any]], object], *, seal: bool) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        record = json.loads(path.read_bytes())
        edit(record)
        if seal:
            del record["checksum"]
            record["checksum"] = compute_checksum(record)
        path.write_text(json.dumps(record))

    return apply


class Harness:
    """Applies cases to copies of one lab."""

    def __init__(self, root: Path) -> None:
        self._command = get_command(app)
        self._pristine, self._work = root / "pristine", root / "work"
        self._pristine.mkdir()
        make_lab(self._pristine)
        grid, lab = _load(self._pristine)
        self._keys = [planned.key for planned in make_plan(grid, lab).trials]
        self._before = _metrics(grid, lab)
        self._copy()
        grid, lab = _load(self._work)
        _run(grid, lab)
        self._after_run = _metrics(grid, lab)

    def _copy(self) -> None:
        shutil.rmtree(self._work, ignore_errors=True)
        shutil.copytree(self._pristine, self._work)

    @patch("fcnlab.tracking.store.is_installed", new=lambda: False)
    @patch("fcnlab.runner.publisher.is_installed", new=lambda: False)
    def try_case(self, case: Case, *, verbs: tuple[str, ...] | None = None) -> list[str]:
        """Apply a case, call commands that read or check and then `run`; return one line per bad end.

        Args:
            case: the damage.
            verbs: some of the commands of the case; by default all.
        """
        self._copy()
        folder = self._work / "runs" / self._keys[case.trial]
        case.apply(folder / case.file)
        intact = {key: _contents(self._work / "runs" / key) for key in self._keys[:3] if key != folder.name}
        bad = []
        for verb in verbs or case.verbs:
            try:
                problem = getattr(self, f"_{verb}")(folder.name)
            except FcnlabError as error:
                problem = "" if "\n" not in str(error) else f"several lines: {error}"
                if verb != "compare":
                    problem = f"error: {error}"
            except Exception as error:  # noqa: BLE001 - any other exception is the bad end that is looked for
                problem = f"{type(error).__name__}: {error}"
            if any(_contents(self._work / "runs" / key) != content for key, content in intact.items()):
                problem = problem or "the files of another trial have changed"
            if problem:
                bad.append(f"trial {case.trial} {case.file}, {case.name}: {verb}: {problem}")
        return bad

    def _status(self, _key: str) -> str:
        return self._cli("grid", "status", "experiments/question.yaml")

    def _compare(self, _key: str) -> str:
        return self._cli("compare", "experiments/question.yaml:fcn32s:0", "experiments/question.yaml:fcn8s:0")

    def _cli(self, *arguments: str) -> str:
        """Call a command; it must end with 0 or 1, and with 1 if and only if it names damage."""
        out, err, here = StringIO(), StringIO(), Path.cwd()
        os.chdir(self._work)
        try:
            with redirect_stdout(out), redirect_stderr(err):
                code = self._command.main(list(arguments), "fcnlab", standalone_mode=False) or 0
        finally:
            os.chdir(here)
        named = err.getvalue().count("damaged: ")
        return "" if (code, named) in ((0, 0), (1, 1)) else f"exit code {code}, {named} lines: {err.getvalue()}"

    def _lab_check(self, key: str) -> str:
        _, lab = _load(self._work)
        problems = check_lab(lab, repair=True).problems
        if [Path(problem.path).parent.name for problem in problems] != [key] or not problems[0].repair:
            return f"problems: {problems}"
        left = check_lab(lab).problems
        return f"problems after the repair: {left}" if left else ""

    def _report(self, key: str) -> str:
        grid, lab = _load(self._work)
        plan = make_plan(grid, lab)
        found = _metrics(grid, lab)
        for other in self._keys:
            if found[other] != self._before[other] and not (other == key and found[other] is None):
                return f"{other[:6]} has mIoU {found[other]}, not {self._before[other]}"
        lost = found[key] is None and self._before[key] is not None
        if lost and not (self._work / "runs" / key / "record.json").exists() and (self._work / "runs" / key).is_dir():
            return ""  # it has not finished
        if lost != (bool(plan.damages) and self._before[key] is not None):
            return f"{len(plan.damages)} damages, and the trial is {'' if lost else 'not '}left out"
        return ""

    def _run(self, _key: str) -> str:
        grid, lab = _load(self._work)
        _run(grid, lab)
        found = _metrics(grid, lab)
        return "" if found == self._after_run else f"the table is {found}"


def _load(root: Path) -> tuple[Grid, Lab]:
    file = root / "experiments" / "question.yaml"
    lab = Lab.find(file)
    return lab.load_grid(file), lab


def _run(grid: Grid, lab: Lab) -> None:
    trials = {planned.key: planned for planned in make_plan(grid, lab).trials}
    outcome = run_grid(grid, lab, JsonlReporter(lambda line: None), executor=lambda: FakeExecutor(trials))
    assert outcome.finished == len(trials), outcome


def _metrics(grid: Grid, lab: Lab) -> dict[str, float | None]:
    """Return the mIoU of each trial in the frame of the report; None if it has none."""
    frame = trials_frame(make_plan(grid, lab), None)
    return {key: None if pd.isna(miou) else miou for key, miou in zip(frame["key"], frame["miou"], strict=True)}


def _contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("lease")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def main() -> int:
    """Try the long list, print each bad end and the numbers."""
    tried, bad = 0, []
    with tempfile.TemporaryDirectory() as root:
        harness = Harness(Path(root))
        for case in cases(long=True):
            tried += len(case.verbs)
            bad += harness.try_case(case)
    print("\n".join([*bad, f"tried: {tried}, failed: {len(bad)}"]))  # noqa: T201
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
