"""Stop the processes of a running grid, and limit the memory of a worker, and check what becomes of its trials.

    python -m benchmarks.failures.hangs --json docs/reliability/hangs.json

A driver, the server that forks its workers, a worker or a trial receives SIGSTOP at a random moment; a driver receives
SIGCONT later. The counts must be those of an undisturbed run, the other trial must not be retried, and no process may
remain. Then one of two workers has little address space (RLIMIT_AS): each trial must finish, possibly with more
micro-batches, or fail with the cause `out_of_memory`, or because a library crashed. Runs on Linux only.
"""

from __future__ import annotations

import argparse
import random
import re
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.failures.outcomes import Outcome, add_json_option, report
from fcnlab.lab import Lab
from fcnlab.runner.executors.process import ProcessExecutor
from fcnlab.runner.executors.slots import Slot
from fcnlab.runner.plan import PlannedTrial, make_plan
from fcnlab.runner.progress.base import ProgressReporter
from fcnlab.runner.run import run_grid
from fcnlab.settings import RunOptions
from fcnlab.trial.record import Attempt, Failure

if TYPE_CHECKING:
    from benchmarks.failures.warm import Driver

GRID = """
question: Does a trial that hangs or runs out of memory change the results of a grid?
base: {{backbone: {backbone}, dataset: shapes-mini, recipe: smoke, recipe.epochs: {epochs}}}
product: {{head: [fcn32s, fcn8s]}}
seeds: {seeds}
baseline: {{head: fcn32s}}
"""
HANG_TIMEOUT = 10
"""Seconds without progress after which a stopped trial is killed; far above the steps of these trials."""

DEADLINE = 900.0
"""Seconds after which a grid counts as one that hangs."""

SIZES = (32, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
"""Mebibytes of address space that a trial has above those that its worker uses before it."""

CRASH = re.compile(rf"signal ({int(signal.SIGSEGV)}|{int(signal.SIGABRT)})\b")
"""End of a process in which a library of C does not check whether it has received the memory that it asked for."""

EXPECTED = {
    "driver": "no trial is retried; the run continues after SIGCONT",
    "server": "no trial is retried; it is killed at the end",
    "worker": "it is killed; the trial resumes from its checkpoint, or has ended already",
    "trial": "it is killed and resumes from its checkpoint",
}


def write_lab(folder: Path, backbone: str = "tiny-scratch", epochs: int = 40, seeds: int = 1) -> Path:
    """Write a lab with one grid and return the grid file.

    Args:
        folder: the folder of the lab.
        backbone: backbone of the trials.
        epochs: number of their epochs.
        seeds: number of seeds of the two cells.
    """
    file = folder / "experiments" / "hangs.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(GRID.format(backbone=backbone, epochs=epochs, seeds=seeds), encoding="utf-8")
    return file


def read_counts(file: Path) -> dict[str, bytes | None]:
    """Return the counts of every image of each trial of a grid, by key; None for a trial without a result.

    Args:
        file: the grid file.
    """
    lab = Lab.find(file)
    plan = make_plan(lab.load_grid(file), lab)
    return {
        planned.key: planned.folder.counts.read_bytes() if planned.folder.counts.is_file() else None
        for planned in plan.trials
    }


def start_driver(file: Path) -> Driver:
    """Start a driver with two workers.

    Args:
        file: the grid file; the output is written to `log` in its lab.
    """
    from benchmarks.failures.warm import Driver  # it imports all that a driver needs

    command = ["grid", "run", str(file), "--workers", "2", "--threads", "1", "--checkpoint-every", "0"]
    command += ["--hang-timeout", str(HANG_TIMEOUT), "--tracker", "none"]
    return Driver(command, file.parent.parent / "log")


def stop_one(kind: str, file: Path, expected: dict[str, bytes | None], chance: random.Random) -> str | None:
    """Run a grid and stop one of its processes at a random moment.

    Args:
        kind: `driver`, `server`, `worker` or `trial`.
        file: the grid file of a new lab.
        expected: the counts of an undisturbed run.
        chance: chooses the moment, the process and the duration.

    Returns:
        The problem, in one line; None if there is none.
    """
    from benchmarks.failures.warm import send

    driver = start_driver(file)
    try:
        deadline = time.monotonic() + DEADLINE
        while not (len(_beating(file)) == 2 == len(driver.find_processes("trial"))):
            if driver.wait(0.02) or time.monotonic() > deadline:
                return f"the trials have not started: {driver.read_log()[-300:]}"
        time.sleep(chance.uniform(0, 2))
        living = driver.find_processes("any")
        stopped = chance.choice(driver.find_processes(kind) or [driver.id])
        if kind == "driver" or driver.exit_code is None:
            send(stopped, signal.SIGSTOP)
        if kind == "driver":
            time.sleep(chance.uniform(1, 2 * HANG_TIMEOUT))
            send(stopped, signal.SIGCONT)
        if not driver.wait(DEADLINE):
            return f"the driver has not ended: {driver.read_log()[-300:]}"
        return _find_problem(kind, file, expected, driver, living)
    finally:
        driver.kill_all()


def _find_problem(
    kind: str, file: Path, expected: dict[str, bytes | None], driver: Driver, living: Sequence[int]
) -> str | None:
    """Return what is wrong with a grid that has ended."""
    from benchmarks.failures.warm import wait_until_gone

    output = driver.read_log()
    retries = [line for line in output.splitlines() if line.startswith("retry")]
    if driver.exit_code != 0 or "Traceback" in output:
        return f"exit code {driver.exit_code}: {output[-300:]}"
    if read_counts(file) != expected:
        return "the counts differ"
    if len(retries) > (kind in ("worker", "trial")):
        return f"retried: {retries}"
    if wait_until_gone(living, 30):
        return "a process is left behind"
    return None


class _Attempts(ProgressReporter):
    """Collects the failed attempts by key."""

    def __init__(self) -> None:
        super().__init__()
        self.attempts: dict[str, list[Attempt]] = {}

    def on_trial_retry(self, planned: PlannedTrial, attempt: Attempt, remedy: str) -> None:
        super().on_trial_retry(planned, attempt, remedy)
        self.attempts.setdefault(planned.key, []).append(attempt)


def limit_memory(file: Path, mebibytes: int) -> str | None:
    """Run a grid on two workers, of which the trials of one have little address space.

    Args:
        file: the grid file of a new lab.
        mebibytes: address space of a trial above that of its worker.

    Returns:
        The problem, in one line; None if there is none.
    """
    lab = Lab.find(file)
    reporter = _Attempts()

    executor = ProcessExecutor(lab, [Slot(threads=1)] * 2)
    executor.await_ready()
    worker = executor._workers[0].process.pid
    assert worker is not None, "it has started"
    # Each trial is forked from its worker and inherits the limit, so that it has it from its first instruction on.
    limit = _address_space(worker) + mebibytes * 2**20
    resource.prlimit(worker, resource.RLIMIT_AS, (limit, limit))
    grid = lab.load_grid(file)
    run_grid(grid, lab, reporter, RunOptions(hang_timeout=300), executor=lambda: executor)
    for planned in make_plan(grid, lab).trials:
        record, attempts = planned.record, planned.folder.attempts()
        if record is None:
            return f"{planned.description}: no record"
        problems: list[Attempt | Failure] = [*attempts, *([record.failure] if record.failure else [])]
        for problem in problems:
            if problem.cause != "out_of_memory" and not CRASH.search(problem.message):
                return f"{planned.description}: {problem.cause}: {problem.message.splitlines()[0]}"
    return None


def run_stops(folder: Path, rounds: int, chance: random.Random) -> list[Outcome]:
    """Stop processes of grids in turn.

    Args:
        folder: a folder for the labs.
        rounds: number of grids of each kind.
        chance: see `stop_one`.
    """
    calm = write_lab(folder / "calm")
    start_driver(calm).wait(DEADLINE)
    expected = read_counts(calm)
    assert all(expected.values()), "the undisturbed run has finished"
    outcomes = []
    for kind, what in EXPECTED.items():
        found = [stop_one(kind, write_lab(folder / f"{kind}{one}"), expected, chance) for one in range(rounds)]
        bad = [f"{kind} {one}: {problem}" for one, problem in enumerate(found) if problem is not None]
        outcomes.append(Outcome(f"SIGSTOP of {'the' if kind == 'server' else 'a'} {kind}", rounds, bad, what))
    return outcomes


def run_limits(folder: Path, sizes: Sequence[int] = SIZES) -> Outcome:
    """Limit the memory of a worker.

    Args:
        folder: a folder for the labs.
        sizes: see `limit_memory`.
    """
    bad = []
    for size in sizes:
        problem = limit_memory(write_lab(folder / f"memory{size}", "resnet18-scratch", 1, seeds=2), size)
        bad += [f"{size} MiB: {problem}"] if problem is not None else []
    what = "its trials finish, with more micro-batches, or fail for lack of memory; the other worker is undisturbed"
    return Outcome("address space of one of two workers limited", len(sizes), bad, what)


def _beating(file: Path) -> list[Path]:
    return list((file.parent.parent / "runs").glob("*/.heartbeat"))


def _address_space(process: int) -> int:
    """Return the bytes of address space of a process."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[0]) * resource.getpagesize()


def main() -> int:
    """Run all cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="grids for each kind of process that is stopped")
    parser.add_argument("--chance", type=int, default=0, help="seed of the moments and processes")
    parser.add_argument("--only", choices=("stops", "limits"), help="leave out the other cases")
    add_json_option(parser)
    given = parser.parse_args()
    began = time.monotonic()
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as folder:
        if given.only != "limits":
            outcomes += run_stops(Path(folder), given.rounds, random.Random(given.chance))
        if given.only != "stops":
            outcomes.append(run_limits(Path(folder)))
    command = f"python -m benchmarks.failures.hangs --rounds {given.rounds}"
    return report(outcomes, command, time.monotonic() - began, given.json)


if __name__ == "__main__":
    sys.exit(main())
