"""Check on a GPU that training, evaluation and grids give the same results as on the CPU.

    python -m benchmarks.gpu.accept --out DIR --data-root DATA

Each section checks one property: CUDA against the CPU, no hidden synchronization, determinism, resumption, shared GPUs,
exhausted memory. A section that fails or hangs ends only itself. DIR/accept.json is rewritten after each section,
DIR/logs contains the output of the sections. The exit code is 0 only if all sections passed.

Sections run in separate processes, several at a time, because most of them check correctness and wait for the host.
Sections that measure time or fill the GPU's memory run one at a time. `--resume` runs only the sections that have not
passed before. `--smoke --device cpu` runs all but the sections that need a GPU, at tiny sizes.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that the file runs without -m, too

from benchmarks.gpu.results import Outcome, Results, read_passed, run_section
from benchmarks.gpu.sections import GROUPS, Group, section_function
from benchmarks.gpu.sections.settings import JOBS, Settings, child_environment

PROGRAM = ("-m", "benchmarks.gpu.accept")
"""Arguments of Python that start this program."""

GRACE = 8.0
"""Seconds after its time limit that a section has before its process is killed."""

RESERVED = 0.3
"""Largest share of the budget that is kept for the sections of later phases."""


def main() -> int:
    """Run the sections and return the exit code."""
    given = parse()
    if given.child is not None:
        return run_child(Settings.read(given.child), given.section)
    file = given.out / "accept.json"
    passed = read_passed(file) if given.resume else []
    if not given.resume:
        shutil.rmtree(given.out / "logs", ignore_errors=True)  # of an earlier run
    results = Results(file, {"device": given.device, "smoke": given.smoke}, passed)
    deadline = time.monotonic() + given.budget
    groups = selected(given.section, given.device, {outcome.section for outcome in passed})
    if given.jobs == 1:
        groups = merge_phases(groups)
    with TemporaryDirectory(prefix="fcnlab-accept-", ignore_cleanup_errors=True) as scratch:
        data_root = given.data_root.resolve() if given.data_root is not None else None
        settings = Settings(given.out.resolve(), Path(scratch), given.device, data_root, given.smoke, given.jobs)
        for phase in sorted({group.phase for group in groups}):
            later = settings.patience * sum(group.limit for group in groups if group.phase > phase)
            until = deadline - min(later, RESERVED * given.budget)
            with ThreadPoolExecutor(given.jobs) as pool:
                for group in groups:
                    if group.phase == phase:
                        limit = settings.patience * group.limit
                        pool.submit(Child(settings, results, until).run, list(group.sections), limit)
    return results.summarize()


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [name for group in GROUPS for name in group.sections]
    parser.add_argument("--out", type=Path, required=True, help="folder for accept.json, logs and the lab's archive")
    parser.add_argument("--section", nargs="+", choices=names, default=[], help="only these")
    parser.add_argument("--budget", type=float, default=300.0, help="seconds for all sections")
    parser.add_argument("--data-root", type=Path, help="folder that holds camvid/; generated images without it")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to see that the sections run")
    parser.add_argument("--jobs", type=int, default=JOBS, help="sections at once")
    parser.add_argument("--resume", action="store_true", help="keep the passed sections of DIR/accept.json")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def selected(names: list[str], device: str, passed: Collection[str] = ()) -> list[Group]:
    """Return the groups with the named sections, or with all that can run on the device.

    Args:
        names: names of sections; if empty, all.
        device: `cpu` or `cuda`.
        passed: sections that have passed before and are left out.
    """
    found = []
    for group in GROUPS:
        chosen = (name for name in group.sections if (name in names if names else group.runs_on(device)))
        wanted = tuple(name for name in chosen if name not in passed)
        if wanted:
            found.append(Group(wanted, group.phase, group.limit, group.needs_gpu))
    return found


def merge_phases(groups: Sequence[Group]) -> list[Group]:
    """Return one group per phase, for sections that run one at a time: each process imports torch.

    Args:
        groups: the groups; a section that crashes or hangs still ends only itself.
    """
    merged: dict[int, Group] = {}
    for group in groups:
        before = merged.get(group.phase, Group((), group.phase, 0.0))
        sections, limit = before.sections + group.sections, max(before.limit, group.limit)
        merged[group.phase] = Group(sections, group.phase, limit, before.needs_gpu or group.needs_gpu)
    return list(merged.values())


class Child:
    """Runs sections in a process, and the remaining ones in a new process if that one dies."""

    def __init__(
        self,
        settings: Settings,
        results: Results,
        deadline: float,
        program: Sequence[str] = PROGRAM,
        grace: float = GRACE,
    ) -> None:
        """Prepare to run sections; `run` starts the process.

        Args:
            settings: the settings of the run.
            results: takes the outcomes.
            deadline: deadline of the whole run, by `time.monotonic`.
            program: arguments of Python that start a program, which runs the sections and writes an outcome for
                each to the pipe.
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
        limits = {"FCNLAB_ACCEPT_LIMIT": str(limit), "FCNLAB_ACCEPT_DEADLINE": str(self._deadline)}
        read, write = os.pipe()
        command = [
            sys.executable,
            *self._program,
            "--out",
            str(self._settings.out),
            "--child",
            str(self._settings.write()),
        ]
        with log.open("ab") as out:
            process = subprocess.Popen(
                [*command, "--section", *sections],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
                pass_fds=[write],
                env=child_environment(self._settings) | limits | {"FCNLAB_ACCEPT_PIPE": str(write)},
                start_new_session=True,
            )
        os.close(write)
        lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=_read_lines, args=(read, lines), daemon=True).start()
        try:
            return self._follow(process, lines, sections, limit, log)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # what a section has left running
            process.wait()
            process.stdin.close()  # type: ignore[union-attr]

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


def run_child(settings: Settings, sections: list[str]) -> int:
    """Run sections in this process and write one line of JSON for each to the runner's pipe.

    Args:
        settings: settings of the run.
        sections: names of the sections.

    Returns:
        The exit code.
    """
    pipe = os.fdopen(int(os.environ.pop("FCNLAB_ACCEPT_PIPE")), "w", encoding="utf-8")
    os.set_inheritable(pipe.fileno(), False)
    longest = float(os.environ.pop("FCNLAB_ACCEPT_LIMIT"))
    deadline = float(os.environ.pop("FCNLAB_ACCEPT_DEADLINE"))  # the clock is the same in all processes
    threading.Thread(target=_end_with_the_runner, daemon=True).start()
    faulthandler.enable()  # where a section crashes
    for name in sections:
        print(f"--- {name}", flush=True)
        limit = max(0.1, min(longest, deadline - time.monotonic()))
        faulthandler.dump_traceback_later(limit + GRACE / 2, exit=False)  # where a hanging section hangs
        function = section_function(name)
        outcome = run_section(name, lambda: function(settings), limit)  # noqa: B023 - called at once
        faulthandler.cancel_dump_traceback_later()
        outcome.result = outcome.result or settings.kept(name)
        print(json.dumps(vars(outcome), default=lambda v: v.tolist() if hasattr(v, "tolist") else str(v)), file=pipe)
        pipe.flush()
    return 0


def _end_with_the_runner() -> None:
    """Kill this process and all that it has started when the runner is gone."""
    while os.read(0, 4096):
        pass
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
