"""A lab with a small grid, commands of fcnlab in forked processes, and the checks of their ends.

A command runs in a process that is forked from this one, where fcnlab is imported already, so that hundreds of commands
take minutes. The process can change its limits, its user, its mounts and its clock before the command begins.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from mlflow.tracking import MlflowClient

GRID = """
question: Does the environment change the results of a grid?
base: {{backbone: tiny-scratch, upsampler: bilinear, dataset: {dataset}, recipe: smoke}}
product: {{head: [fcn32s, fcn8s]}}
seeds: 1
baseline: {{head: fcn32s}}
"""
NAME = "environment"
FILE = f"experiments/{NAME}.yaml"
TIMES = ["train_seconds", "images_per_s", "peak_memory", "device_hours"]
"""Columns that differ from run to run."""

TIMEOUT = 900.0
"""Seconds after which a command hangs."""


class Ended(NamedTuple):
    """The end of a command.

    Attributes:
        code: exit code; None if it was killed because it did not end.
        output: output of the command, on both streams.
        seconds: duration of the command.
    """

    code: int | None
    output: str
    seconds: float

    @property
    def errors(self) -> list[str]:
        """The lines that the command line prints for errors."""
        return [line for line in self.output.splitlines() if line.startswith("fcnlab: error: ")]


class Workbench:
    """Makes labs from a template, runs commands in them, and knows the table of the undisturbed grid.

    Attributes:
        root: a temporary folder.
        cache: cache of all commands, unless they set another.
        table: table of the grid that was run without failures.
        size: bytes of the lab of that grid.
    """

    def __init__(self, root: Path) -> None:
        """Run the undisturbed grid.

        Args:
            root: an empty folder.
        """
        self.root = root
        self._template = root / "template"
        self._count = 0
        make_lab(self._template, "shapes-mini")
        self.cache = root / "cache"
        calm = self.copy()
        ended = self.run(calm)
        if ended.code != 0:
            raise RuntimeError(f"the undisturbed grid failed:\n{ended.output}")
        self.table = read_table(calm)
        self.size = sum(file.stat().st_size for file in calm.rglob("*") if file.is_file())

    @cached_property
    def empty_store(self) -> Path:
        """An MLflow store without runs; MLflow needs seconds to create one."""
        file = self.root / "empty.db"
        MlflowClient(f"sqlite:///{file}").search_experiments()
        return file

    def copy(self, name: str | Path | None = None, *, onto: Path | None = None, store: bool = False) -> Path:
        """Copy the template, a lab in which nothing has run.

        Args:
            name: name of the new folder.
            onto: an existing empty folder to use instead, such as a mount point.
            store: whether the lab has an MLflow store.
        """
        self._count += 1
        folder = onto or self.root / (name or f"lab{self._count}")
        shutil.copytree(self._template, folder, dirs_exist_ok=onto is not None)
        if store:
            shutil.copy2(self.empty_store, folder / "mlflow.db")
        return folder

    def run(self, lab: Path, *arguments: str, **options: object) -> Ended:
        """Run the grid of a lab with a checkpoint after each epoch, by default one trial at a time.

        Records are published to MLflow if the lab has a store, or if the arguments select it.

        Args:
            lab: the lab.
            *arguments: more arguments of `grid run`.
            **options: see `call`.
        """
        chosen = [] if "--executor" in arguments else ["--executor", "serial"]
        if not ((lab / "mlflow.db").exists() or "--tracker" in arguments):
            chosen += ["--tracker", "none"]
        command = ("grid", "run", FILE, "--threads", "1", "--device", "cpu", "--checkpoint-every", "0", *chosen)
        return self.call(lab, *command, *arguments, **options)  # type: ignore[arg-type]

    def call(
        self,
        lab: Path,
        *arguments: str,
        prepare: Callable[[], object] = lambda: None,
        during: Callable[[], object] = lambda: None,
        timeout: float = TIMEOUT,
    ) -> Ended:
        """Call a command of fcnlab in a lab.

        Args:
            lab: current folder of the command.
            *arguments: arguments of the command.
            prepare: called in the process of the command before it begins.
            during: called here after it has started.
            timeout: seconds after which it is killed.
        """
        with tempfile.TemporaryFile(dir=self.root) as output:
            started = time.monotonic()
            child = os.fork()
            if child == 0:
                _become_command(lab, arguments, output.fileno(), self.cache, prepare)
            try:
                during()
            finally:
                code = _wait(child, started + timeout)
            output.seek(0)
            text = output.read().decode(errors="replace")
        return Ended(code, text, time.monotonic() - started)

    def start(self, lab: Path, *arguments: str, **variables: str | None) -> Ended:
        """Call a command in a new interpreter, whose start depends on its environment.

        Args:
            lab: current folder of the command.
            *arguments: arguments of the command.
            **variables: variables of its environment; None removes one.
        """
        values = os.environ | {"FCNLAB_CACHE": str(self.cache)} | variables
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "fcnlab", *arguments],
            cwd=lab,
            env={name: value for name, value in values.items() if value is not None},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT,
            check=False,
        )
        return Ended(done.returncode, done.stdout.decode(errors="replace"), time.monotonic() - started)

    def find_changes(self, lab: Path) -> list[str]:
        """Return how the table of a lab differs from that of the undisturbed grid.

        Args:
            lab: the lab.
        """
        try:
            found = read_table(lab)
        except OSError as error:
            return [f"no table: {error.strerror}"]
        return [] if found.equals(self.table) else [f"another table:\n{found}"]

    def rerun(self, lab: Path, *arguments: str) -> list[str]:
        """Run a grid to its end after a failure, and return what is wrong then.

        Args:
            lab: the lab.
            *arguments: more arguments of `grid run`.
        """
        again = self.run(lab, *arguments)
        found = find_problems(again, 0)
        return found or self.find_changes(lab)


def make_lab(folder: Path, dataset: str) -> None:
    """Write a lab with a grid file.

    Args:
        folder: the new folder.
        dataset: name of the dataset.
    """
    file = folder / FILE
    file.parent.mkdir(parents=True)
    file.write_text(GRID.format(dataset=dataset), encoding="utf-8")


def read_table(lab: Path) -> pd.DataFrame:
    """Return the table of the grid without columns of time.

    Args:
        lab: the lab.
    """
    return pd.read_csv(lab / "results" / NAME / "table.csv").drop(columns=TIMES, errors="ignore")


def find_problems(ended: Ended, *codes: int | None, mentions: str = "") -> list[str]:
    """Return what is wrong with the end of a command, one line each.

    Args:
        ended: the end.
        *codes: the expected exit codes.
        mentions: regular expression that the errors must match, if the exit code is 2.
    """
    found = []
    if ended.code is None:
        found.append(f"it did not end within {ended.seconds:.0f} s")
    elif ended.code not in codes:
        found.append(f"exit code {ended.code}, not {' or '.join(map(str, codes))}: {ended.output[-600:]}")
    if "Traceback (most recent call last)" in ended.output:
        found.append(f"a traceback: {ended.output[-1500:]}")
    if ended.code == 2 and len(ended.errors) != 1:
        found.append(f"{len(ended.errors)} lines of errors: {ended.errors}")
    if ended.code == 2 and mentions and not any(re.search(mentions, line) for line in ended.errors):
        found.append(f"the error does not mention '{mentions}': {ended.errors}")
    return found


def _become_command(
    lab: Path, arguments: tuple[str, ...], output: int, cache: Path, prepare: Callable[[], object]
) -> None:
    """Run a command in this forked process, which ends with it."""
    code = 70
    try:
        os.setpgid(0, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="replace", closefd=False)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="replace", closefd=False)
        os.environ["FCNLAB_CACHE"] = str(cache)
        os.environ["PWD"] = str(lab)
        os.chdir(lab)
        sys.argv = ["fcnlab", *arguments]
        prepare()
        from fcnlab.cli import main

        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - a traceback is what the harness looks for
        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(child: int, deadline: float) -> int | None:
    """Return the exit code of a process; kill its group and return None if it does not end."""
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def set_environment(**values: str | None) -> None:
    """Set variables of the environment, or remove those that are None.

    Args:
        **values: values by name.
    """
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
