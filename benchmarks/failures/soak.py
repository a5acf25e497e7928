"""Run thousands of trials in one driver, and check that it needs no more memory, files or processes at the end.

    python -m benchmarks.failures.soak --trials 2000 --json docs/reliability/soak.json

The trials are as small as possible, so that the driver dominates; MLflow's store is a new SQLite file. The driver is
measured after each twentieth of the trials. Each measure must stay below its value after the first tenth, by when all
modules are imported and caches are full, plus the limit of `LIMITS`; otherwise the exit code is 1. Each trial must have
finished and be in MLflow once. The time per trial is printed; it is no condition. Runs on Linux only: it reads /proc.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from benchmarks.failures.outcomes import Outcome, add_json_option, report
from fcnlab.lab import Lab
from fcnlab.runner.plan import PlannedTrial, make_plan
from fcnlab.runner.progress.base import ProgressReporter
from fcnlab.runner.publisher import open_tracker
from fcnlab.runner.run import run_grid
from fcnlab.settings import RunOptions
from fcnlab.trial.record import Record

GRID = """
question: Does a driver need more memory after thousands of trials?
base:
  backbone: tiny-scratch
  upsampler: bilinear
  dataset: shapes-mini
  recipe: smoke
  recipe.epochs: 1
  recipe.crop: {{height: 32, width: 32}}
product: {{head: [fcn32s, fcn8s]}}
seeds: {seeds}
baseline: {{head: fcn32s}}
"""

MARKS = 20
"""Number of measurements."""

WARM_UP = 2
"""Number of measurements until the driver is warm."""


@dataclass(frozen=True)
class Limit:
    """The allowed growth of a measure after the warm-up.

    Attributes:
        name: name of the measure, as in a table.
        unit: its unit.
        constant: allowed growth.
        per_thousand: allowed growth per 1,000 trials.
    """

    name: str
    unit: str
    constant: float
    per_thousand: float = 0.0


LIMITS = {
    "driver_mb": Limit("memory of the driver (RSS)", "MB", 8, 4),
    "workers_mb": Limit("memory of its workers (RSS)", "MB", 8, 4),
    "descriptors": Limit("open descriptors of the driver", "", 4),
    "threads": Limit("threads of the driver", "", 2),
    "children": Limit("child processes of the driver", "", 0),
}


@dataclass(frozen=True)
class Mark:
    """The state of the driver after some trials.

    Attributes:
        trials: number of ended trials.
        seconds: wall-clock time, by the monotonic clock.
        cpu_seconds: CPU time of the driver.
        values: the measures by the keys of `LIMITS`.
    """

    trials: int
    seconds: float
    cpu_seconds: float
    values: dict[str, float]


class Measurements(ProgressReporter):
    """Measures this process after each twentieth of the grid.

    Attributes:
        marks: the measurements.
    """

    def __init__(self) -> None:
        super().__init__()
        self.marks: list[Mark] = []

    def on_trial_end(self, planned: PlannedTrial, record: Record) -> None:
        """Measure after each twentieth of the trials.

        Args:
            planned: the trial that has ended.
            record: its record.
        """
        super().on_trial_end(planned, record)
        if self.done % max(1, self.total // MARKS) == 0:
            self.marks.append(measure(self.done))
            print(format_mark(self.marks[-1]), flush=True)


def measure(trials: int) -> Mark:
    """Measure this process now.

    Args:
        trials: number of ended trials.
    """
    own = os.getpid()
    children = [int(child) for task in Path("/proc/self/task").iterdir() for child in _read(task / "children").split()]
    values = {
        "driver_mb": _read_rss(own),
        "workers_mb": sum(map(_read_rss, children)),
        "descriptors": sum(1 for _ in Path("/proc/self/fd").iterdir()),
        "threads": sum(1 for _ in Path("/proc/self/task").iterdir()),
        "children": len(children),
    }
    return Mark(trials, time.monotonic(), time.process_time(), values)


def _read_rss(process: int) -> float:
    """Return the memory of a process in MB; 0 if it has exited."""
    lines = dict(line.split(":", 1) for line in _read(Path(f"/proc/{process}/status")).splitlines() if ":" in line)
    return int(lines["VmRSS"].split()[0]) / 1024 if "VmRSS" in lines else 0.0


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:  # the process has exited
        return ""


def format_mark(mark: Mark) -> str:
    """Return a measurement as one line.

    Args:
        mark: the measurement.
    """
    values = ", ".join(f"{LIMITS[name].name} {value:.0f} {LIMITS[name].unit}" for name, value in mark.values.items())
    return f"{mark.trials} trials: {values}".replace(" ,", ",").rstrip()


def find_growth(marks: list[Mark]) -> list[Outcome]:
    """Compare the measurements after the warm-up with their limits.

    Args:
        marks: all measurements.

    Returns:
        One outcome for each measure, with a bad case for each measurement beyond the limit.
    """
    first, *later = marks[WARM_UP - 1 :]
    outcomes = []
    for name, limit in LIMITS.items():
        bad = []
        for mark in later:
            allowed = limit.constant + limit.per_thousand * (mark.trials - first.trials) / 1000
            grown = mark.values[name] - first.values[name]
            if grown > allowed:
                bad.append(f"{limit.name}: {grown:.1f} more after {mark.trials} trials; {allowed:.1f} are allowed")
        now, then = later[-1].values[name], first.values[name]
        slope = f" + {limit.per_thousand:.0f} {limit.unit} per 1,000 trials" if limit.per_thousand else ""
        allowed_text = f"at most {limit.constant:.0f} {limit.unit}".rstrip() + f"{slope} more than after the warm-up"
        seen = (
            f"{then:.0f} {limit.unit} after {first.trials:,} trials, {now:.0f} {limit.unit} after {marks[-1].trials:,}"
        )
        outcomes.append(Outcome(limit.name, len(later), bad, f"{allowed_text}: {seen}".replace(" ,", ",").rstrip()))
    return outcomes


def describe_time(marks: list[Mark]) -> str:
    """Return the time per trial after the warm-up and at the end, in one line.

    Args:
        marks: all measurements.
    """

    def between(first: Mark, last: Mark) -> str:
        trials = last.trials - first.trials
        wall, cpu = last.seconds - first.seconds, last.cpu_seconds - first.cpu_seconds
        return f"{wall / trials:.2f} s a trial ({1000 * cpu / trials:.0f} ms of the driver's CPU)"

    early, late = marks[WARM_UP - 1 : WARM_UP + 3], marks[-4:]
    return f"{between(early[0], early[-1])} after the warm-up, {between(late[0], late[-1])} at the end"


def run(folder: Path, trials: int, executor: str, workers: int) -> tuple[list[Outcome], list[Mark]]:
    """Run a grid in a new lab, and check the driver.

    Args:
        folder: folder of the lab.
        trials: number of trials, an even number of at least `MARKS`.
        executor: the executor.
        workers: number of workers.

    Returns:
        The outcomes and the measurements.
    """
    file = folder / "experiments" / "many.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(GRID.format(seeds=trials // 2), encoding="utf-8")
    lab = Lab.find(file)
    grid = lab.load_grid(file)
    options = RunOptions(executor=executor, workers=1 if executor == "serial" else workers, threads=1)
    reporter = Measurements()
    outcome = run_grid(grid, lab, reporter, options)
    keys = {planned.key for planned in make_plan(grid, lab).trials}
    published = Counter(run["tags"]["fcnlab.key"] for run in open_tracker(grid, lab).list_trials())
    bad = [] if outcome.finished == trials else [f"{outcome.finished} of {trials} trials have finished"]
    bad += [] if published == Counter(keys) else [f"MLflow has {published.total()} runs of {len(published)} trials"]
    done = Outcome(
        "trials in one driver", trials, bad, f"each finishes and is in MLflow once; {describe_time(reporter.marks)}"
    )
    return [done, *find_growth(reporter.marks)], reporter.marks


def main() -> int:
    """Run the grid and report its outcomes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--executor", choices=("process", "serial", "ray"), default="process")
    parser.add_argument("--workers", type=int, default=2)
    add_json_option(parser)
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        outcomes, _ = run(Path(folder), given.trials, given.executor, given.workers)
    command = f"python -m benchmarks.failures.soak --trials {given.trials} --workers {given.workers}"
    return report(outcomes, command, time.monotonic() - began, given.json)


if __name__ == "__main__":
    sys.exit(main())
