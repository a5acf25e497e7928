"""Settings of an acceptance run, and functions that sections share: labs, trials, the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from benchmarks.gpu.settings import Settings

if TYPE_CHECKING:
    from fcnlab.config.grid.grid import Cell
    from fcnlab.config.trial import Trial
    from fcnlab.lab import Lab

CORES = 16
"""The most cores that are used, although the machine may show more."""

JOBS = 4
"""Sections that run at once, by default."""


@dataclass(frozen=True)
class AcceptSettings(Settings):
    """The settings of an acceptance run.

    Args:
        data_root: Folder that contains `camvid/`; None for generated images only.
        jobs: Number of sections that run at the same time; the threads of each depend on it.
    """

    data_root: Path | None = None
    jobs: int = JOBS

    def environment(self) -> dict[str, str]:
        """Return the environment of processes that run sections, with threads for as many sections as run at once."""
        variables = super().environment()
        for name in ("FCNLAB_LAB", "FCNLAB_DATA", "MLFLOW_TRACKING_URI"):
            variables.pop(name, None)
        if not self.cuda:
            variables["CUDA_VISIBLE_DEVICES"] = ""
        cores = min(CORES, len(os.sched_getaffinity(0)))
        threads = 1 if self.smoke else max(1, cores // (2 * self.jobs))
        variables.setdefault("OMP_NUM_THREADS", str(threads))
        variables.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait leave their cores to the other sections
        # The CPU is the reference. oneDNN's kernels for AMX have had writes out of bounds, as in its pull request 5368.
        variables.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")
        return variables

    def lab(self, name: str) -> Lab:
        """Return a lab in its own folder in the scratch folder; the folder is created.

        Args:
            name: name of the folder.
        """
        from fcnlab.lab import Lab

        root = self.scratch / "labs" / name
        (root / "experiments").mkdir(parents=True, exist_ok=True)
        return Lab.find(root=root, data_root=self.data_root)

    def grid(self, lab: str, text: str, name: str = "grid") -> Path:
        """Write a grid file into a lab and return its path.

        Args:
            lab: name of the lab.
            text: content of the file.
            name: name of the grid.
        """
        file = self.lab(lab).root / "experiments" / f"{name}.yaml"
        file.write_text(text, encoding="utf-8")
        return file


def triton(value: str) -> AbstractContextManager[object]:
    """Return a context in which the Triton kernels are off (`0`) or on (`1`).

    Args:
        value: `0` or `1`.
    """
    from fcnlab.kernels.switch import TRITON_VARIABLE

    return patch.dict(os.environ, {TRITON_VARIABLE: value})


def cell(axes: dict[str, Any]) -> Cell:
    """Return the cell of a grid with these axes, such as `{"head": "fcn8s", "recipe.epochs": 2, ...}`.

    Args:
        axes: values by axis.
    """
    from fcnlab.config.grid.grid import resolve
    from fcnlab.config.registry import builtin

    return resolve(axes, builtin(), "accept")


def trial(lab: Lab, axes: dict[str, Any], seed: int = 0) -> Trial:
    """Return the trial of a cell with this seed.

    Args:
        lab: lab of the trial.
        axes: values by axis.
        seed: the seed.
    """
    found = cell(axes)
    return found.trials([seed], lab.fingerprints)[0]


def run_cli(settings: AcceptSettings, *arguments: str, timeout: float, variables: dict[str, str] | None = None) -> str:
    """Run `fcnlab` with these arguments and return its standard output.

    Args:
        settings: the settings of the run.
        arguments: the command line.
        timeout: time limit in seconds; longer in a small run.
        variables: environment variables to add.

    Raises:
        AssertionError: the exit code is not 0.
    """
    done = subprocess.run(
        [sys.executable, "-m", "fcnlab", *arguments],
        capture_output=True,
        text=True,
        timeout=settings.patience * timeout,
        env=os.environ | (variables or {}),
        cwd=settings.scratch,
    )
    print(f"$ fcnlab {' '.join(arguments)}\n{done.stdout}{done.stderr}", flush=True)
    output = (done.stderr or done.stdout)[-2000:]
    assert done.returncode == 0, f"fcnlab {' '.join(arguments[:2])}: exit code {done.returncode}: {output}"
    return done.stdout


def without_mlflow(settings: AcceptSettings) -> dict[str, str]:
    """Return environment variables under which mlflow cannot be imported, as on a machine without it.

    Args:
        settings: settings of the run.
    """
    folder = settings.scratch / "without-mlflow"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text("import sys\n\nsys.modules['mlflow'] = None\n")
    return {"PYTHONPATH": os.pathsep.join([str(folder), os.environ["PYTHONPATH"]])}
