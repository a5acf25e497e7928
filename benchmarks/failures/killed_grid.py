"""The grid that the harnesses of `kills.py` disturb, and its comparison with an undisturbed run."""

from __future__ import annotations

import hashlib
import json
import re
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from mlflow.tracking import MlflowClient

import fcnlab
from benchmarks.failures.warm import Driver, list_session, wait_until_gone
from fcnlab.lab import Lab

GRID = """
question: Do kills change the results of a grid?
base: {{backbone: tiny-scratch, dataset: shapes-mini, recipe: smoke, recipe.epochs: 6}}
product: {{head: {heads}, upsampler: {upsamplers}}}
seeds: {seeds}
baseline: {{head: fcn32s, upsampler: bilinear}}
"""
TIMES = ["train_seconds", "images_per_s", "peak_memory", "device_hours"]
"""Columns of the table that differ between two runs of the same grid."""

OPTIONS = ("--threads", "1", "--checkpoint-every", "0")

PATIENCE = 60.0
"""Seconds within which processes must have ended, on a machine with other work."""

MAX_FAILED_ENDS = 5
"""Number of drivers in sequence with exit code 1 after which a grid is given up."""

EXIT_CODES = (0, 1, 130, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT)
"""Exit codes of drivers: finished, a trial has failed, interrupted, or killed."""

TEMPORARY = re.compile(
    r"\..+\.[0-9a-f]{12}|\.lease\..+|lease\.\d+|checkpoint(\.previous)?\.pt|.+\.partial|.+-journal|.+\.draft"
)
"""Names of files that no run leaves in a lab or a cache when its grid has finished."""


class KilledGrid:
    """A lab with one grid, and the output of its drivers in `log`. Its cache is the environment's.

    Attributes:
        folder: the lab.
        file: the grid file.
        runs: the run folders.
        problems: one line for each problem that was found so far.
        torn: one line for each file that was damaged.
    """

    def __init__(self, folder: Path, seeds: int, *, small: bool = False) -> None:
        """Write the lab.

        Args:
            folder: the lab, which is created.
            seeds: number of seeds of the cells.
            small: two cells instead of six.
        """
        self.folder = folder
        self.file = folder / "experiments" / "killed.yaml"
        self.file.parent.mkdir(parents=True)
        heads, upsamplers = (
            ("[fcn32s, fcn8s]", "[bilinear]") if small else ("[fcn32s, fcn16s, fcn8s]", "[bilinear, random]")
        )
        self.file.write_text(GRID.format(seeds=seeds, heads=heads, upsamplers=upsamplers), encoding="utf-8")
        self.runs = folder / "runs"
        self.problems: list[str] = []
        self.torn: list[str] = []
        self._records: dict[Path, str] = {}
        self._damaged: set[Path] = set()
        self._failed_ends = 0

    def start(self, *, workers: int = 2, retry_failed: bool = False) -> Driver:
        """Start a driver.

        Args:
            workers: its number of workers.
            retry_failed: run failed trials again.
        """
        options = ["--workers", str(workers), *OPTIONS, *(["--retry-failed"] if retry_failed else [])]
        return Driver(["grid", "run", str(self.file), *options], self.folder / "log")

    def run_undisturbed(self) -> None:
        """Run the grid to its end.

        Raises:
            RuntimeError: it has not finished.
        """
        driver = self.start()
        if not driver.wait(10 * PATIENCE) or driver.exit_code != 0:
            raise RuntimeError(driver.read_log())

    def find_rewritten(self) -> list[str]:
        """Return the finished records whose content has changed since the last call: they were written twice."""
        found = []
        for file in self.runs.glob("*/record.json"):
            content = file.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            try:
                finished = json.loads(content)["status"] == "finished"
            except ValueError:  # torn
                continue
            if finished and self._records.setdefault(file, digest) != digest:
                self._records[file] = digest
                if file not in self._damaged:
                    found.append(f"{file.parent.name[:12]}/record.json: written again")
                self._damaged.discard(file)
        return found

    def expect_repair(self, path: Path) -> None:
        """Expect a record to be written again, since a file of its trial is damaged.

        Args:
            path: path of the file.
        """
        self._damaged.add(path.parent / "record.json")

    def check_output(self, driver: Driver) -> None:
        """Note a traceback in the output of a driver.

        Args:
            driver: a driver that has ended.
        """
        text = driver.read_log()
        if "Traceback (most recent call last)" in text:
            self.problems.append(text[max(0, text.index("Traceback") - 200) :][:2000])

    def check_end(self, driver: Driver) -> None:
        """Note a traceback in the output of a driver, and an exit code that a signal does not explain.

        Args:
            driver: a driver that has ended.
        """
        self.check_output(driver)
        self._failed_ends = self._failed_ends + 1 if driver.exit_code == 1 else 0
        if self.is_stuck:
            self.problems.append(f"every run ends with exit code 1: {driver.read_log()[-300:]}")
        if driver.exit_code not in EXIT_CODES:
            self.problems.append(f"exit code {driver.exit_code}: {driver.read_log()[-300:]}")

    @property
    def is_stuck(self) -> bool:
        """True if driver after driver has ended with exit code 1."""
        return self._failed_ends >= MAX_FAILED_ENDS

    def has_failed_trial(self) -> bool:
        """Return whether a trial has a failed record."""
        return any(b'"status": "failed"' in file.read_bytes() for file in self.runs.glob("*/record.json"))

    def finish(self, driver: Driver, *, repair: bool = False) -> None:
        """Check what the last driver has left; the results are compared later.

        Args:
            driver: the driver that has finished the grid.
            repair: first verify the lab, and run the trials again whose weights are damaged.
        """
        self.check_output(driver)
        if repair:
            check = Driver(["lab", "check", "--repair", "--lab", str(self.folder)], self.folder / "log")
            check.wait(PATIENCE)
            self.check_output(check)
            driver = self.start()
            driver.wait(4 * PATIENCE)
            self.check_end(driver)
        left = wait_until_gone([one.id for one in list_session(driver.id)], PATIENCE)
        self.problems += [f"{len(left)} processes left behind"] if left else []
        self.problems += self.find_left_files()

    def has_heartbeat(self, driver: Driver) -> bool:
        """Return whether a driver runs the grid: one that writes the report has left the trials to others.

        Args:
            driver: the driver.
        """
        return any((self.folder / ".fcnlab" / "drivers").glob(f"*:{driver.id}:*"))

    def find_left_files(self) -> list[str]:
        """Return the temporary files, leases and checkpoints in the lab, one per line."""
        drivers = self.folder / ".fcnlab" / "drivers"
        left = [path for path in self.folder.rglob("*") if TEMPORARY.fullmatch(path.name)]
        left += drivers.iterdir() if drivers.is_dir() else ()
        shown = [path.relative_to(self.folder) for path in sorted(left) if ".quarantine" not in path.parts]
        return [f"left behind: {path}" for path in shown]


def compare(calm: KilledGrid, killed: KilledGrid, *, weights: bool = False) -> list[str]:
    """Return the differences between the results of a killed and of the undisturbed grid, one per line.

    Args:
        calm: the undisturbed grid.
        killed: the killed grid.
        weights: also compare the files with the weights.
    """
    tables = [_read_table(one) for one in (calm, killed)]
    found = [] if tables[0].equals(tables[1]) else [f"the tables differ:\n{tables[0].compare(tables[1])}"]
    frame = fcnlab.frame(fcnlab.load_grid(killed.file))
    if not frame["run_id"].is_unique or set(frame["status"]) != {"finished"}:
        found.append(f"runs in MLflow: {Counter(frame['status'])}, {frame['run_id'].nunique()} of {len(frame)} ids")
    found += _find_unfinished(killed)
    names = ("counts.npz", *(("last.safetensors", "best.safetensors") if weights else ()))
    for folder in sorted(calm.runs.iterdir()):
        for name in names:
            ours, theirs = folder / name, killed.runs / folder.name / name
            if ours.exists() != theirs.exists() or (ours.exists() and ours.read_bytes() != theirs.read_bytes()):
                found.append(f"{folder.name[:12]}/{name} differs")
    return found


def _read_table(grid: KilledGrid) -> pd.DataFrame:
    file = grid.folder / "results" / "killed" / "table.csv"
    return pd.read_csv(file).drop(columns=TIMES, errors="ignore")


def _find_unfinished(grid: KilledGrid) -> Iterator[str]:
    """Yield the runs of the MLflow store that are neither finished nor replaced by a later run."""
    client = MlflowClient(Lab.find(grid.file).tracking_uri)
    experiment = client.get_experiment_by_name("fcnlab/killed")
    assert experiment is not None, "the grid has been published"
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    current = [run for run in runs if run.data.tags.get("fcnlab.superseded") != "true"]
    for run in current:
        if run.info.status != "FINISHED":
            yield f"the run {run.info.run_id} in MLflow is {run.info.status}"
    keys = Counter(run.data.tags.get("fcnlab.key") for run in current)
    yield from (f"{key}: {number} runs in MLflow" for key, number in keys.items() if key and number > 1)
