"""Measure the cost of a trial of a large grid for its driver: CPU time, and memory over the grid.

    python -m benchmarks.failures.soak --trials 1000 --executor process

The trials are as small as possible, so that the driver dominates. MLflow's store is a new sqlite file.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

from fcnlab.lab import Lab
from fcnlab.runner.executors.config import ExecutorConfig
from fcnlab.runner.plan import PlannedTrial
from fcnlab.runner.progress.base import ProgressReporter
from fcnlab.runner.run import run_grid
from fcnlab.trial.record import Record

GRID = """
question: What is the cost of a trial for its driver?
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
MARKS = 10


class Memory(ProgressReporter):
    """Records the memory of this process at each tenth of the grid."""

    def __init__(self) -> None:
        super().__init__()
        self.marks: list[tuple[int, float, float, float]] = []  # trials, resident MB, CPU s, wall s

    def ended(self, planned: PlannedTrial, record: Record) -> None:
        """Record the memory after each tenth of the trials.

        Args:
            planned: the trial that has ended.
            record: its record.
        """
        super().ended(planned, record)
        if self.done % max(1, self.total // MARKS) == 0:
            self.marks.append((self.done, resident() / 2**20, time.process_time(), time.monotonic()))


def resident() -> int:
    """Return the bytes of this process in memory now, or their maximum so far if /proc is missing."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return 1024 * int(lines["VmRSS"].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> int:
    """Run the grid and print its cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--executor", choices=("process", "serial", "ray"), default="process")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    executor_config = ExecutorConfig(given.executor, None if given.executor == "serial" else given.workers, 1)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "experiments" / "many.yaml"
        file.parent.mkdir()
        file.write_text(GRID.format(seeds=given.trials // 2), encoding="utf-8")
        lab = Lab.find(file)
        grid = lab.load_grid(file)
        reporter = Memory()
        outcome = run_grid(grid, lab, lambda: executor_config.create_executor(lab, grid.recipes), reporter)
    print(f"{given.executor}, {given.workers} workers: {outcome.finished} finished, {outcome.failed} failed")
    print(" trials  driver MB  driver CPU s  wall s")
    began = reporter.marks[0][3]
    for trials, memory, cpu, wall in reporter.marks:
        print(f"{trials:7} {memory:10.0f} {cpu:13.1f} {wall - began:7.0f}")
    (first, _, early, _), (last, _, late, _) = reporter.marks[0], reporter.marks[-1]
    print(f"{1000 * (late - early) / (last - first):.1f} ms of driver CPU per trial, after the first tenth")
    return int(outcome.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
