"""Let the MLflow server fail in every way at every request, and check that each record is published once in the end.

    python -m benchmarks.failures.tracking --json docs/reliability/tracking.json

A grid is run once. Then its records are published to a server that fails from its first, second, third ... request on,
or at this request only. Afterwards the server works again and `sync_grid` is called twice. A case fails if an
exception is raised, if the error is not reported in one line or contains the password, if a run of a trial is missing,
incomplete, there twice or has repeated points, or if the last call changes anything. In other cases runs are deleted in
MLflow, or trials run while the server does not answer: they must not wait for it.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.failures.mlflow_checks import check_reasons, check_store, list_identities, list_runs
from benchmarks.failures.mlflow_server import PASSWORD, PROBLEMS, MlflowServer
from benchmarks.failures.outcomes import Outcome, add_json_option, report
from fcnlab.lab import Lab
from fcnlab.runner import tracker_thread
from fcnlab.runner.executors.serial import SerialExecutor
from fcnlab.runner.executors.slots import Slot
from fcnlab.runner.plan import PlannedTrial
from fcnlab.runner.progress.base import ProgressReporter
from fcnlab.runner.run import run_grid, sync_grid
from fcnlab.tracking.store import open_client
from fcnlab.trial.record import Record

GRID = """
question: Is each record published once?
base: {backbone: tiny-scratch, upsampler: bilinear, dataset: shapes-mini, recipe: smoke, recipe.epochs: 1}
product: {head: [fcn32s, fcn8s]}
seeds: 1
baseline: {head: fcn32s}
"""

FEW_ATTEMPTS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "120",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
}
"""Environment variables with which MLflow's client finds a failure quickly."""

EXPECTED = {
    "refused": "connections are refused",
    "dropped": "the connection is closed before the request is read",
    "lost": "the request is handled, but its answer is lost",
    "hangs": "the server accepts the request and never answers",
    "slow": "each answer takes long",
    "HTML": "the answer is a page of a proxy, with status 200",
    "truncated": "the answer ends in the middle of its JSON",
    "list": "the answer is valid JSON, but not MLflow's",
    "redirect": "the server redirects to a page to log in",
}
"""Descriptions of the problems that are no status codes."""


class Listener(ProgressReporter):
    """Collects the lines that are reported about trackers."""

    def __init__(self) -> None:
        super().__init__()
        self.reasons: list[str] = []

    def on_publishing_deferred(self, why: str) -> None:
        """Collect a reason.

        Args:
            why: the error message.
        """
        self.reasons.append(why)


class Recovering(Listener):
    """Lets a server recover when the last trial has ended.

    Attributes:
        recovered: whether the server has recovered, and a request was waiting if there had to be one.
    """

    def __init__(self, server: MlflowServer, *, wait: bool) -> None:
        """Refer to a server.

        Args:
            server: the server.
            wait: whether a request must be waiting for its answer then.
        """
        super().__init__()
        self.recovered = False
        self._server = server
        self._wait = wait

    def on_trial_end(self, planned: PlannedTrial, record: Record) -> None:
        """Recover after the last trial.

        Args:
            planned: the trial.
            record: its record.
        """
        super().on_trial_end(planned, record)
        if self.done == self.total:
            self.recovered = not self._wait or self._server.hanging.wait(60)
            self._server.recover()


class Harness:
    """A lab with the records of a small grid, and the server.

    Attributes:
        reasons: the errors that the last case has reported.
    """

    def __init__(self, folder: Path, delay: float = 5.0) -> None:
        """Start the server, and run the grid without a tracker.

        Args:
            folder: an empty folder.
            delay: seconds of a slow answer.
        """
        self.root = folder / "lab"
        (self.root / "experiments").mkdir(parents=True)
        self.server = MlflowServer(folder, delay)
        self.cases = 0
        self.reasons: list[str] = []
        file = self._write_grid()
        lab = Lab.find(file, trackers="none")
        self._run(file, lab, ProgressReporter())

    def _write_grid(self) -> Path:
        """Write the grid under a new name: a new experiment, with the records of the same trials."""
        self.cases += 1
        file = self.root / "experiments" / f"case{self.cases}.yaml"
        file.write_text(GRID, encoding="utf-8")
        return file

    def _run(self, file: Path, lab: Lab, reporter: ProgressReporter) -> Any:
        return run_grid(lab.load_grid(file), lab, reporter, executor=lambda: SerialExecutor(lab, Slot(1)))

    def publish(self, problem: str, first: int, last: int | None = None) -> list[str]:
        """Publish while the server has a problem, then without, and return what is wrong.

        Args:
            problem: one of `PROBLEMS`.
            first: number of the first request with the problem.
            last: number of the last one; None for all later ones.
        """
        file = self._write_grid()
        lab = Lab.find(file, tracking_uri=self.server.uri)
        grid = lab.load_grid(file)
        listener = Listener()
        self.reasons = listener.reasons
        self.server.fail(problem, first, last)
        timeout = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "2"} if problem == "hangs" else {}
        try:
            with mock.patch.dict(os.environ, timeout):
                outcome = sync_grid(grid, lab, listener)
        except Exception as error:  # noqa: BLE001 - counted as a case that failed
            return [f"{type(error).__name__}: {error}"]
        finally:
            failed = self.server.requests >= first
            self.server.recover()
        bad = check_reasons(listener.reasons, outcome.deferred, expect=failed and problem != "slow" and last is None)
        if sync_grid(grid, lab, listener).deferred:
            bad.append(f"not published after the recovery: {listener.reasons[-1]}")
        bad += check_store(lab, file)
        before = list_identities(lab, file)
        if sync_grid(grid, lab, listener).deferred or list_identities(lab, file) != before:
            bad.append("the second call changes the runs")
        return bad

    def count_requests(self) -> int:
        """Return the number of requests that publish the grid without a problem."""
        file = self._write_grid()
        lab = Lab.find(file, tracking_uri=self.server.uri)
        self.server.fail("slow", first=10**9)
        sync_grid(lab.load_grid(file), lab, ProgressReporter())
        return self.server.requests

    def train(self, problem: str) -> list[str]:
        """Run a grid with new trials while the server has a problem, until all trials have ended.

        Args:
            problem: `hangs`: the trials must not wait; `dropped`: the end of the run must publish everything.
        """
        file = self._write_grid()
        file.write_text(GRID.replace("seeds: 1", f"seeds: [{self.cases + 1000}]"), encoding="utf-8")
        lab = Lab.find(file, tracking_uri=self.server.uri)
        listener = Recovering(self.server, wait=problem == "hangs")
        self.server.fail(problem)
        with mock.patch.object(tracker_thread, "LAST_RETRY_AFTER", 0.0):
            outcome = self._run(file, lab, listener)
        bad = [] if listener.recovered else ["no request was waiting when the last trial ended"]
        bad += [] if outcome.finished == 2 else [f"{outcome.finished} of 2 trials have finished"]
        bad += [f"not published after the recovery: {reason}" for reason in outcome.deferred.values()]
        return bad + check_store(lab, file)

    def delete(self, what: str) -> list[str]:
        """Delete runs or the experiment in MLflow and publish again.

        Args:
            what: `trial`, `grid` or `experiment`.
        """
        file = self._write_grid()
        lab = Lab.find(file, tracking_uri=self.server.uri)
        grid, client = lab.load_grid(file), open_client(self.server.uri)
        sync_grid(grid, lab, ProgressReporter())
        runs = list_runs(lab, file)
        experiment = runs[0].info.experiment_id
        if what == "experiment":
            client.delete_experiment(experiment)
            reason = sync_grid(grid, lab, ProgressReporter()).deferred.get("mlflow", "")
            if "is deleted" not in reason or "restore it: " not in reason or PASSWORD in reason:
                return [f"no remedy: {reason}"]
            client.restore_experiment(experiment)
        for run in runs:
            if run.data.tags["fcnlab.role"] == what:
                client.delete_run(run.info.run_id)
        outcome = sync_grid(grid, lab, ProgressReporter())
        return [*outcome.deferred.values(), *check_store(lab, file)]


def try_all(harness: Harness, problems: Sequence[str], requests: Sequence[int]) -> Iterator[Outcome]:
    """Try the problems at some requests, from each on and at each only.

    Args:
        harness: the lab and the server.
        problems: names of the problems.
        requests: numbers of the requests.
    """
    for problem in problems:
        bad: list[str] = []
        cases: list[tuple[int, int | None]] = [(first, None) for first in (requests if problem != "slow" else [1])]
        if problem not in ("refused", "slow"):
            cases += [(first, first) for first in requests]
        for first, last in cases:
            until = "on" if last is None else "only"
            bad += [f"{problem} from request {first} {until}: {line}" for line in harness.publish(problem, first, last)]
        print(f"{problem}: {len(cases)} tried, {len(bad)} lines", *bad, sep="\n    ", flush=True)
        name = EXPECTED.get(problem, f"the server answers with error {problem}")
        expected = (
            "publishing is deferred; `fcnlab grid sync` completes it" if problem != "slow" else "nothing is deferred"
        )
        yield Outcome(name, len(cases), bad, expected)


def try_others(harness: Harness) -> Iterator[Outcome]:
    """Try deletions in MLflow, and training without answers.

    Args:
        harness: the lab and the server.
    """
    expected = {
        "trial": ("the run of a trial is deleted in MLflow", "`fcnlab grid sync` publishes it again"),
        "grid": ("the run of the grid is deleted in MLflow", "`fcnlab grid sync` creates it again"),
        "experiment": ("the experiment is deleted in MLflow", "a line with the command that restores it"),
    }
    for what, (name, result) in expected.items():
        yield Outcome(name, 1, harness.delete(what), result)
    yield Outcome("no answer while the trials run", 1, harness.train("hangs"), "the trials do not wait for the server")
    again = "the run publishes everything at its end"
    yield Outcome("the server is away while the trials run, and comes back", 1, harness.train("dropped"), again)


def main() -> int:
    """Try all problems and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, metavar="N", help="try only every N-th request")
    add_json_option(parser)
    given = parser.parse_args()
    began = time.monotonic()
    os.environ |= FEW_ATTEMPTS
    with tempfile.TemporaryDirectory() as folder:
        harness = Harness(Path(folder), delay=0.5)
        requests = range(1, harness.count_requests() + 1, given.every)
        outcomes = [*try_others(harness), *try_all(harness, PROBLEMS, requests)]
    command = "python -m benchmarks.failures.tracking" + (f" --every {given.every}" if given.every > 1 else "")
    return report(outcomes, command, time.monotonic() - began, given.json)


if __name__ == "__main__":
    sys.exit(main())
