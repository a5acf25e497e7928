"""A lab in a temporary folder, in which commands are called in this process under limits of time and memory."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import BytesIO, TextIOWrapper
from pathlib import Path
from unittest.mock import patch

from typer.main import get_command

from benchmarks.time_limit import time_limit
from fcnlab import cli

LIMIT = 60.0
"""Seconds after which a command is stopped and its case fails."""


class TimeLimitError(BaseException):
    """A command has not ended in time. It is not an `Exception`, so that no handler of the command catches it."""


@dataclass(frozen=True)
class Result:
    """The end of a command.

    Attributes:
        code: exit code; None if it ended with an exception or after the time limit.
        out: standard output.
        err: standard error.
        crash: description of the exception, with the line of code; empty if there was none.
        touched: files outside of the output folder that were changed or removed.
        created: files and folders outside of the output folder that are new.
    """

    code: int | None
    out: str
    err: str
    crash: str = ""
    touched: tuple[str, ...] = ()
    created: tuple[str, ...] = ()


class Sandbox:
    """A lab and its surroundings.

    Attributes:
        root: folder of everything.
        lab: folder of the lab, the current folder of commands.
        out: folder that commands may write to.
    """

    def __init__(self, root: Path) -> None:
        """Create the folders.

        Args:
            root: an empty folder.
        """
        self.root, self.lab, self.out = root, root / "lab", root / "lab" / "out"
        for folder in (self.lab / "experiments", self.lab / "registry", self.out, root / "home", root / "data"):
            folder.mkdir(parents=True, exist_ok=True)
        self._command = get_command(cli.app)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make the lab the current folder, with caches and a home folder of its own."""
        before = Path.cwd()
        own = {
            "FCNLAB_CACHE": str(self.root / "cache"),
            "FCNLAB_DATA": str(self.root / "data"),
            "FCNLAB_PROBE": "0",
            "FCNLAB_TRACKER": "none",
            "FCNLAB_ALLOW_EXTENSIONS": "",
            "CUDA_VISIBLE_DEVICES": "",
            "HOME": str(self.root / "home"),
            "COLUMNS": "100",
        }
        with patch.dict(os.environ, own):
            os.chdir(self.lab)
            try:
                yield
            finally:
                os.chdir(before)

    def call(self, *arguments: str) -> Result:
        """Call `fcnlab` as the shell would.

        Args:
            arguments: arguments of the command line.

        Returns:
            Its end.
        """
        buffers = BytesIO(), BytesIO()
        out, err = map(_to_text, buffers)  # which close the buffers when they are removed
        before = self._list_files()
        code: int | None = None
        crash = ""
        late = TimeLimitError(f"has not ended after {LIMIT:g} s")
        with patch.object(sys, "argv", ["fcnlab", *arguments]), patch.object(cli, "app", self._command):
            try:
                with redirect_stdout(out), redirect_stderr(err), time_limit(LIMIT, late):
                    cli.main()
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                crash = describe_crash(error)
        after = self._list_files()
        touched = tuple(sorted(path for path in before if before[path] != after.get(path)))
        created = tuple(sorted(after.keys() - before.keys()))
        texts = [buffer.getvalue().decode() for buffer in buffers]
        return Result(code, texts[0], texts[1], crash, touched, created)

    def _list_files(self) -> dict[str, tuple[int, int]]:
        """Return size and time of all files outside of the caches and the output folder."""
        found = {}
        for folder, folders, files in os.walk(self.root):
            if folder == str(self.root):
                folders[:] = [name for name in folders if name != "cache"]
            elif folder == str(self.lab):
                folders[:] = [name for name in folders if name != "out"]
            for name in (*folders, *files):
                path = f"{folder}{os.sep}{name}"
                status = os.lstat(path)
                found[path] = (0, 0) if name in folders else (status.st_size, status.st_mtime_ns)
        return found


def _to_text(stream: BytesIO) -> TextIOWrapper:
    """Return a text stream that refuses what a terminal cannot show."""
    return TextIOWrapper(stream, encoding="utf-8", write_through=True)


def describe_crash(error: BaseException) -> str:
    """Describe an exception in one line, with the innermost line of fcnlab.

    Args:
        error: the exception.
    """
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/fcnlab/" in frame.filename]
    where = f" in {frames[-1].filename.rpartition('/fcnlab/')[2]}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}: {' '.join(str(error).split())[:200]}"
