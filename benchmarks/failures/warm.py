"""Drivers and workers as forked copies of this process, which has imported everything: they start in milliseconds.

They run the same functions as the command `fcnlab` and the server that forks its workers, in the same tree of
processes; only the start of the interpreter and the imports are left out. Each driver has a session of its own, by
which its processes are found, also after its death.
"""

from __future__ import annotations

import ctypes
import importlib
import inspect
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch
from sqlalchemy.orm import configure_mappers

from fcnlab import cli
from fcnlab.runner.executors import fork_server
from fcnlab.runner.executors.worker_process import SERVER

PIPES = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
"""Arguments of `subprocess.Popen._execute_child`, in the order of `_close_pipe_fds`."""

IMPORTED = (
    "fcnlab.runner.executors.worker",
    "fcnlab.report.charts.draw",
    "fcnlab.report.html.page",
    "fcnlab.report.write",
    "fcnlab.runner.run",
    "fcnlab.tracking.tracker",
    "mlflow.store.tracking.sqlalchemy_store",
    "vl_convert",
)
"""Modules that a command imports when it needs them."""

PR_SET_PDEATHSIG = 1
"""Option of Linux's `prctl`."""

TICKS = os.sysconf("SC_CLK_TCK")
"""Units of CPU time in a second."""

FORK = multiprocessing.get_context("fork")


for _name in IMPORTED:
    importlib.import_module(_name)
configure_mappers()  # of MLflow's tables


class Process(NamedTuple):
    """A living process: its id, those of its parent and its group, and the CPU seconds of it and its ended children."""

    id: int
    parent: int
    group: int
    seconds: float


class Driver:
    """A driver: `fcnlab ARGUMENTS` in a forked copy of this process."""

    def __init__(self, arguments: Sequence[str], log: Path) -> None:
        """Start the driver.

        Args:
            arguments: those of the command `fcnlab`.
            log: file to which its output is appended.
        """
        self.log = log
        self._log_start = log.stat().st_size if log.exists() else 0
        sys.stdout.flush()
        self._process = FORK.Process(target=_run_command, args=(arguments, log))
        self._process.start()
        assert self._process.pid is not None, "it has been started"
        self.id = self._process.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative after a signal; None while it runs."""
        return self._process.exitcode

    def wait(self, seconds: float) -> bool:
        """Wait for the end of the driver; return whether it has ended.

        Args:
            seconds: maximum time.
        """
        self._process.join(seconds)
        return self._process.exitcode is not None

    def wait_for_work(self, seconds: float) -> bool:
        """Wait until the driver and its workers have computed; return whether the driver has ended.

        Args:
            seconds: seconds of CPU time, which do not depend on other work on the machine.
        """
        done = self._work() + seconds
        while self._work() < done:
            if self.wait(0.1):
                return True
        return self.exit_code is not None

    def _work(self) -> float:
        return sum(one.seconds for one in list_session(self.id))

    def read_log(self) -> str:
        """Return the output of this driver and its workers."""
        with self.log.open("rb") as file:
            file.seek(self._log_start)
            return file.read().decode(errors="replace")

    def find_processes(self, kind: str) -> list[int]:
        """Return the ids of living processes.

        Args:
            kind: `driver`, `server`, which forks workers, `worker` or `trial`; `any` for all processes of the session.
        """
        living = list_session(self.id)
        leaders = [one for one in living if one.id == one.group != self.id and _is_copy(one.id)]
        servers = {one.id for one in leaders if one.parent == self.id}
        workers = {one.id for one in leaders} - servers  # also those whose server has been killed
        trials = {one.id for one in living if one.parent in workers}
        kinds = {"driver": {self.id}, "server": servers, "worker": workers, "trial": trials}
        return [one.id for one in living if kind == "any" or one.id in kinds[kind]]

    def kill_all(self) -> None:
        """Kill all processes of the session at the same moment, as a power cut does."""
        for number in (signal.SIGSTOP, signal.SIGKILL):  # a stopped process starts no other one
            for one in list_session(self.id):
                send(one.id, number)
        self._process.join()
        wait_until_gone([one.id for one in list_session(self.id)], 20.0)


def list_session(leader: int) -> list[Process]:
    """Return the living processes of a session.

    Args:
        leader: id of its first process, which may have ended.
    """
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            try:
                fields = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has ended
                continue
            state, parent, group, session = fields[0], *map(int, fields[1:4])
            if session == leader and state not in "ZX":
                seconds = sum(map(int, fields[11:15])) / TICKS
                found.append(Process(int(entry.name), parent, group, seconds))
    return found


def send(process_id: int, number: int) -> bool:
    """Send a signal; return whether the process existed.

    Args:
        process_id: id of the process.
        number: number of the signal.
    """
    try:
        os.kill(process_id, number)
    except ProcessLookupError:
        return False
    return True


def wait_until_gone(ids: Sequence[int], seconds: float) -> list[int]:
    """Wait until processes have ended, and return the ids of those that have not.

    Args:
        ids: ids of processes.
        seconds: maximum time.
    """
    deadline = time.monotonic() + seconds
    while (left := [one for one in ids if _is_alive(one)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def _is_alive(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _is_copy(process_id: int) -> bool:
    """Return whether a process is a fork of this one: drivers also start git for a moment."""
    try:
        return Path(f"/proc/{process_id}/cmdline").read_bytes() == Path("/proc/self/cmdline").read_bytes()
    except OSError:
        return False


def _run_command(arguments: Sequence[str], log: Path) -> None:
    os.setsid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a killed harness leaves no driver behind
    opened = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for standard in (1, 2):
        os.dup2(opened, standard)
    os.close(opened)
    sys.argv = ["fcnlab", *arguments]
    subprocess.Popen._execute_child = _execute_or_fork  # type: ignore[attr-defined]
    torch.set_num_threads(1)
    cli.main()


_execute = subprocess.Popen._execute_child  # type: ignore[attr-defined]


def _execute_or_fork(self: Any, *arguments: Any) -> None:
    """Start the child of a `Popen`: fork this process if it is a server of workers, execute all other programs."""
    given = inspect.signature(_execute).bind(self, *arguments).arguments
    if not any(SERVER in str(word) for word in given["args"]):
        _execute(self, *arguments)
        return
    self.pid = os.fork()
    if self.pid == 0:
        _run_server(given)
    self._child_created = True
    self._close_pipe_fds(*(given[name] for name in PIPES))


def _run_server(given: Mapping[str, Any]) -> NoReturn:
    """Run the server of workers as its program does, and exit."""
    code = 1
    try:
        os.setpgid(0, 0)
        (messages,) = given["pass_fds"]
        os.dup2(messages, 3)
        os.closerange(4, 65536)  # locks and pipes of the driver
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        os.environ.clear()
        os.environ.update(given["env"])
        fork_server.main(3)
        code = 0
    except BaseException:  # noqa: BLE001 - printed as the interpreter prints it
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)
