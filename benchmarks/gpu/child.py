"""Sections in processes of their own: one that fails, crashes or hangs ends only itself."""

from __future__ import annotations

import faulthandler
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.gpu.results import Outcome, Results, run_section, to_plain
from benchmarks.gpu.settings import Settings
from benchmarks.processes import child_environment, end_with_parent, kill_group

GRACE = 8.0
"""Seconds after its time limit that a section has before its process is killed."""

AnySettings = TypeVar("AnySettings", bound=Settings)


class Child:
    """Runs sections in a process, and the remaining ones in a new process if that one dies."""

    def __init__(
        self, settings: Settings, results: Results, deadline: float, program: Sequence[str], grace: float = GRACE
    ) -> None:
        """Prepare to run sections; `run` starts the process.

        Args:
            settings: the settings of the run.
            results: takes the outcomes.
            deadline: deadline of the whole run, by `time.monotonic`.
            program: arguments of Python that start a program, which calls `run_child`.
            grace: seconds after its time limit that a section has before its process is killed.
        """
        self._settings, self._results, self._deadline = settings, results, deadline
        self._program, self._grace = program, grace

    def run(self, sections: list[str], limit: float) -> None:
        """Run sections in order, each for at most `limit` seconds, until the deadline of the whole run.

        Args:
            sections: names of the sections.
            limit: seconds of each section.
        """
        try:
            while sections:
                if time.monotonic() > self._deadline:
                    for name in sections:
                        self._fail(name, 0.0, "not started: the budget is spent")
                    return
                sections = self._run_process(sections, limit)
        except Exception as error:  # noqa: BLE001 - a defect of the runner must not hide the section
            for name in sections:
                self._fail(name, 0.0, f"the runner failed: {type(error).__name__}: {error}")

    def _run_process(self, sections: list[str], limit: float) -> list[str]:
        """Run sections in a new process; return those that have not run when it ends."""
        log = self._settings.log(sections[0])
        read, write = os.pipe()
        own = {"LIMIT": limit, "DEADLINE": self._deadline, "PIPE": write}
        variables = {f"FCNLAB_SECTION_{name}": str(value) for name, value in own.items()}
        settings = self._settings.write(sections[0])
        options = ["--out", str(self._settings.out), "--child", str(settings), "--section", *sections]
        with log.open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, *self._program, *options],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                pass_fds=[write],
                env=child_environment(self._settings.environment() | variables),
                start_new_session=True,
            )
        os.close(write)
        lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=_read_lines, args=(read, lines), daemon=True).start()
        try:
            return self._follow(process, lines, sections, limit, log)
        finally:
            kill_group(process)  # and what a section has left running

    def _follow(
        self,
        process: subprocess.Popen[bytes],
        lines: queue.Queue[dict[str, Any] | None],
        sections: list[str],
        limit: float,
        log: Path,
    ) -> list[str]:
        left = list(sections)
        while left:
            started = time.monotonic()
            allowed = min(limit, self._deadline - started) + self._grace
            try:
                message = lines.get(timeout=max(0.1, allowed))
            except queue.Empty:
                self._fail(left.pop(0), time.monotonic() - started, "killed: no result within its time limit", log)
                return left
            if message is None:  # the process has died
                code = process.wait()
                self._fail(left.pop(0), time.monotonic() - started, f"its process ended with exit code {code}", log)
                return left
            self._results.add(Outcome(**message))
            left.pop(0)
        return left

    def _fail(self, section: str, seconds: float, detail: str, log: Path | None = None) -> None:
        tail = log.read_text(errors="replace")[-6000:] if log is not None else None
        self._results.add(Outcome(section, False, seconds, detail, self._settings.kept(section), tail))


def _read_lines(file: int, lines: queue.Queue[dict[str, Any] | None]) -> None:
    with os.fdopen(file, encoding="utf-8") as stream:
        for line in stream:
            lines.put(json.loads(line))
    lines.put(None)


def run_child(
    settings: AnySettings, sections: list[str], find: Callable[[str], Callable[[AnySettings], dict[str, Any]]]
) -> int:
    """Run sections in this process and write one line of JSON for each to the runner's pipe.

    Args:
        settings: settings of the run.
        sections: names of the sections.
        find: returns the function of a section by its name.

    Returns:
        The exit code.
    """
    end_with_parent()
    pipe = os.fdopen(int(os.environ.pop("FCNLAB_SECTION_PIPE")), "w", encoding="utf-8")
    os.set_inheritable(pipe.fileno(), False)
    longest = float(os.environ.pop("FCNLAB_SECTION_LIMIT"))
    deadline = float(os.environ.pop("FCNLAB_SECTION_DEADLINE"))  # the clock is the same in all processes
    faulthandler.enable()  # where a section crashes
    for name in sections:
        print(f"--- {name}", flush=True)
        limit = max(0.1, min(longest, deadline - time.monotonic()))
        faulthandler.dump_traceback_later(limit + GRACE / 2, exit=False)  # where a hanging section hangs
        outcome = run_section(name, lambda: find(name)(settings), limit)  # noqa: B023 - called at once
        faulthandler.cancel_dump_traceback_later()
        outcome.result = outcome.result or settings.kept(name)
        print(json.dumps(vars(outcome), default=to_plain), file=pipe, flush=True)
    return 0
