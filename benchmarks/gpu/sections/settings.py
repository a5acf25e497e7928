"""Settings of an acceptance run, and functions that sections share: labs, trials, the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.gpu.results import write_json

if TYPE_CHECKING:
    from fcnlab.config.grid.grid import Cell
    from fcnlab.config.trial import Trial
    from fcnlab.lab import Lab

CORES = 16
"""The most cores that are used, although the machine may show more."""

JOBS = 4
"""Sections that run at once, by default."""

ROOT = Path(__file__).resolve().parents[3]
"""The checkout."""


@dataclass(frozen=True)
class Settings:
    """The settings of an acceptance run.

    Args:
        out: Folder for results, logs and the lab's archive.
        scratch: Folder for everything else: labs, caches, images. It is removed at the end.
        device: `cuda` or `cpu`.
        data_root: Folder that contains `camvid/`; None for generated images only.
        smoke: Use tiny sizes.
        jobs: Number of sections that run at the same time; the threads of each depend on it.
    """

    out: Path
    scratch: Path
    device: str
    data_root: Path | None = None
    smoke: bool = False
    jobs: int = JOBS

    def write(self) -> Path:
        """Write the settings to a file for a child process and return its path."""
        path = self.scratch / "settings.json"
        path.write_text(json.dumps(asdict(self), default=str))
        return path

    @classmethod
    def read(cls, path: Path) -> Settings:
        """Read a file written by `write`.

        Args:
            path: the file.
        """
        given = json.loads(path.read_text())
        root = given["data_root"]
        folders = Path(given["out"]), Path(given["scratch"])
        return cls(*folders, given["device"], Path(root) if root else None, given["smoke"], given["jobs"])

    @property
    def cuda(self) -> bool:
        """Return whether the device is a GPU."""
        return self.device == "cuda"

    @property
    def patience(self) -> int:
        """Return the factor of time limits: small runs are for machines of any speed."""
        return 20 if self.smoke else 1

    def log(self, name: str) -> Path:
        """Return the log file of a section; its folder is created.

        Args:
            name: name of the section.
        """
        folder = self.out / "logs"
        folder.mkdir(exist_ok=True)
        return folder / f"{name}.txt"

    def keep(self, section: str, result: dict[str, Any]) -> None:
        """Save the measurements of a section so far, in case it is stopped or killed.

        Args:
            section: name of the section.
            result: JSON-able measurements.
        """
        write_json(self._kept(section), result)

    def kept(self, section: str) -> dict[str, Any]:
        """Return the saved measurements of a section; empty if there are none.

        Args:
            section: name of the section.
        """
        file = self._kept(section)
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}

    def _kept(self, section: str) -> Path:
        return self.scratch / f"result-{section}.json"

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


def child_environment(settings: Settings) -> dict[str, str]:
    """Return the environment of processes that run sections: the checkout importable, caches in the scratch folder.

    Args:
        settings: settings of the run.
    """
    variables = dict(os.environ)
    paths = [str(ROOT), *filter(None, [variables.get("PYTHONPATH")])]
    variables["PYTHONPATH"] = os.pathsep.join(paths)
    variables["FCNLAB_DEVICE"] = settings.device
    variables["FCNLAB_CACHE"] = str(settings.scratch / "cache")
    for name in ("FCNLAB_LAB", "FCNLAB_DATA", "MLFLOW_TRACKING_URI"):
        variables.pop(name, None)
    if not settings.cuda:
        variables["CUDA_VISIBLE_DEVICES"] = ""
    cores = min(CORES, len(os.sched_getaffinity(0)))
    threads = 1 if settings.smoke else max(1, cores // (2 * settings.jobs))
    variables.setdefault("OMP_NUM_THREADS", str(threads))
    variables.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait leave their cores to the other sections
    # The CPU is the reference. oneDNN's kernels for AMX have had writes out of bounds, as in its pull request 5368.
    variables.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")
    return variables


@contextmanager
def triton(value: str) -> Iterator[None]:
    """Turn the Triton kernels off (`0`) or on (`1`) within the context.

    Args:
        value: `0` or `1`.
    """
    from fcnlab.kernels.switch import TRITON_VARIABLE

    before = os.environ.get(TRITON_VARIABLE)
    os.environ[TRITON_VARIABLE] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[TRITON_VARIABLE]
        else:
            os.environ[TRITON_VARIABLE] = before


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
    return found.trial(seed, lab.fingerprints)


def run_cli(
    settings: Settings,
    *arguments: str,
    timeout: float,
    code: int = 0,
    variables: dict[str, str] | None = None,
    address_space: int | None = None,
) -> str:
    """Run `fcnlab` with these arguments and return its standard output.

    Args:
        settings: the settings of the run.
        arguments: the command line.
        timeout: time limit in seconds; longer in a small run.
        code: the expected exit code.
        variables: environment variables to add.
        address_space: limit of the address space in bytes, for the command and for all processes that it starts.

    Raises:
        AssertionError: the exit code is another than `code`.
    """
    command = [sys.executable, "-m", "fcnlab", *arguments]
    environment = dict(os.environ) | (variables or {})
    if address_space is not None:
        command = ["prlimit", f"--as={address_space}", *command]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=settings.patience * timeout,
        env=environment,
        cwd=settings.scratch,
    )
    print(f"$ fcnlab {' '.join(arguments)}\n{done.stdout}{done.stderr}", flush=True)
    output = (done.stderr or done.stdout)[-2000:]
    assert done.returncode == code, f"fcnlab {' '.join(arguments[:2])}: exit code {done.returncode}: {output}"
    return done.stdout


def without_mlflow(settings: Settings) -> dict[str, str]:
    """Return environment variables under which mlflow cannot be imported, as on a machine without it.

    Args:
        settings: settings of the run.
    """
    folder = settings.scratch / "without-mlflow"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text("import sys\n\nsys.modules['mlflow'] = None\n")
    return {"PYTHONPATH": os.pathsep.join([str(folder), os.environ["PYTHONPATH"]])}
