"""Kill the processes of a running grid at random, and check that nothing is lost, repeated or changed.

    python -m benchmarks.failures.kills --kills 100

A grid is run twice: undisturbed, and while its driver, its workers and its trials are killed by SIGKILL at random
moments; a killed driver is started again, as a cluster would. The two runs must give the same table and the same counts
for every image, each trial must be in MLflow once and finished, and no record may be written twice. Otherwise the exit
code is 1. Runs on Linux only, since it finds processes in /proc.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

import fcnlab
from fcnlab.lab import Lab

GRID = """
question: Do kills change the results of a grid?
base: {{backbone: tiny-scratch, dataset: shapes-mini, recipe: smoke, recipe.epochs: 6}}
product: {{head: [fcn32s, fcn16s, fcn8s], upsampler: [bilinear, random]}}
seeds: {seeds}
baseline: {{head: fcn32s, upsampler: bilinear}}
"""
TIMES = ["train_seconds", "images_per_s", "peak_memory", "device_hours"]


def main() -> int:
    """Run the two grids and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=4, help="seeds of the grid, which has six cells")
    parser.add_argument("--pause", type=float, default=3.0, help="mean seconds between two kills")
    parser.add_argument("--chance", type=int, default=0, help="seed of the times and processes of kills")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        calm, killed = (_lab(Path(folder) / name, given.seeds) for name in ("calm", "killed"))
        _driver(calm).wait()
        kills = harass(killed, given.kills, given.pause, random.Random(given.chance))
        problems = [*kills.rewritten, *disagreements(calm, killed)]
    print(f"{kills.total} kills: {', '.join(f'{n} {kind}' for kind, n in sorted(kills.by_kind.items()))}")
    print(f"{kills.drivers} drivers{' and a retry' if kills.retried else ''}; {kills.seconds:.0f} s")
    print("\n".join(problems) or "nothing lost, nothing repeated, the same table")
    return 1 if problems else 0


def _lab(folder: Path, seeds: int) -> Path:
    file = folder / "experiments" / "killed.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(GRID.format(seeds=seeds), encoding="utf-8")
    return file


def _driver(file: Path, verb: str = "run") -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "fcnlab", "grid", verb, str(file), "--workers", "2", "--threads", "1"]
    command += ["--checkpoint-every", "0"]
    with (file.parent.parent / "log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


class Kills:
    """The numbers of killed processes, and the errors that were found meanwhile."""

    def __init__(self) -> None:
        self.by_kind: Counter[str] = Counter()
        self.drivers = 1
        self.seconds = 0.0
        self.retried = False
        self.rewritten: list[str] = []
        self._records: dict[Path, str] = {}

    @property
    def total(self) -> int:
        """Return the number of killed processes."""
        return self.by_kind.total()

    def look(self, runs: Path) -> None:
        """Read the finished records; one whose content has changed was written twice.

        Args:
            runs: folder with the run folders of the grid.
        """
        for file in runs.glob("*/record.json"):
            content = file.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            if json.loads(content)["status"] == "finished" and self._records.setdefault(file, digest) != digest:
                self.rewritten.append(f"{file}: written again")


def harass(file: Path, wanted: int, pause: float, chance: random.Random) -> Kills:
    """Run a grid to its end while its processes are killed.

    If the grid would end before the last kill, the driver is started again without removing finished trials, so that
    kills also happen while it reads, publishes and reports.

    Args:
        file: the grid file.
        wanted: number of kills.
        pause: mean seconds between two kills.
        chance: chooses when and what to kill.

    Returns:
        The kills and the errors found.
    """
    kills, began = Kills(), time.monotonic()
    runs = file.parent.parent / "runs"
    driver = _driver(file)
    while kills.total < wanted:
        time.sleep(chance.expovariate(1 / pause))
        kind = chance.choice(("driver", "worker", "trial"))
        while driver.poll() is None and not (found := _processes(driver.pid)[kind]):
            time.sleep(0.02)
        kills.look(runs)
        if driver.poll() is None and _kill(chance.choice(found)):
            kills.by_kind[kind] += 1
        if kind == "driver" or driver.poll() is not None:
            driver.wait()
            driver = _driver(file)
            kills.drivers += 1
    if driver.wait() != 0:  # a trial killed twice in the same epoch has failed: run it again
        kills.retried = True
        _driver(file, "retry").wait()
    kills.look(runs)
    kills.seconds = time.monotonic() - began
    return kills


def _processes(driver: int) -> dict[str, list[int]]:
    """Return the process ids of the driver, of its workers, and of their trials."""
    workers = _children(driver)
    return {
        "driver": [driver],
        "worker": workers,
        "trial": [trial for worker in workers for trial in _children(worker)],
    }


def _kill(process: int) -> bool:
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:  # it has exited already
        return False
    return True


def _children(process: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:  # it has exited
        return []


def disagreements(calm: Path, killed: Path) -> list[str]:
    """Return the differences between the results of the killed and of the undisturbed grid, one per line.

    Args:
        calm: grid file of the undisturbed run.
        killed: grid file of the run with kills.
    """
    found = []
    frames = [fcnlab.frame(fcnlab.load_grid(file)) for file in (calm, killed)]
    tables = [
        pd.read_csv(file.parent.parent / "results/killed/table.csv").drop(columns=TIMES, errors="ignore")
        for file in (calm, killed)
    ]
    if not tables[0].equals(tables[1]):
        found.append(f"the tables differ:\n{tables[0].compare(tables[1])}")
    for file, frame in zip((calm, killed), frames, strict=True):
        if not frame["run_id"].is_unique or set(frame["status"]) != {"finished"}:
            found.append(f"{file}: runs in MLflow: {Counter(frame['status'])}")
        found += _unfinished(file)
    for key in frames[0]["key"]:
        counts = [(file.parent.parent / "runs" / key / "counts.npz").read_bytes() for file in (calm, killed)]
        if counts[0] != counts[1]:
            found.append(f"{key}: the counts differ")
    return found


def _unfinished(file: Path) -> Iterator[str]:
    """Yield the runs of the MLflow store that are neither finished nor replaced by a later run."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(Lab.find(file).tracking_uri)
    experiment = client.get_experiment_by_name("fcnlab/killed")
    assert experiment is not None
    for run in client.search_runs([experiment.experiment_id], max_results=1000):
        if run.info.status != "FINISHED" and run.data.tags.get("fcnlab.superseded") != "true":
            yield f"{file}: the run {run.info.run_id} is {run.info.status}"


if __name__ == "__main__":
    sys.exit(main())
