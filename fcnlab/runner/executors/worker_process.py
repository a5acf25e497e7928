"""Start of worker processes: on Linux forked from one process that has imported torch, elsewhere as new programs.

Importing torch, torchvision and timm takes several seconds of CPU time, and a forked worker starts in milliseconds. The
server is started before the first worker or with it, and exits with this process.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Pipe
from pathlib import Path
from threading import Lock
from typing import IO

from fcnlab.runner.executors.stop_signals import block_stop_signals

WORKER = "fcnlab.runner.executors.worker"
SERVER = "fcnlab.runner.executors.fork_server"

READ_BY_LIBRARIES = (
    *("ATEN_", "CUBLAS_", "DNNL_", "GOMP_", "KMP_", "LD_", "MALLOC_", "MKL_", "NCCL_", "OMP_", "ONEDNN_", "OPENBLAS_"),
    *("PYTHON", "PYTORCH_", "TORCH", "TRITON_"),
)
"""Prefixes of environment variables that Python, torch and their libraries read when they are loaded.

Workers for which these differ are forked from different servers, so that a forked worker is like a started one.
"""

LENGTH_BYTES = 8
"""Bytes of the length that precedes a worker's request on its standard input."""

UNKNOWN_EXIT = 255
"""Exit code of a worker whose server was killed."""

REPORT_TIMEOUT = 10.0
"""Seconds in which a server has to report the end of a killed worker; a server that does not is stopped or hangs."""


class ForkedWorker:
    """A worker forked by a server, with the attributes and methods of `subprocess.Popen` that an executor needs.

    Attributes:
        stdin: its standard input.
        stdout: its standard output, unbuffered.
        returncode: exit code, or minus the signal that ended it, once `wait` has returned; `UNKNOWN_EXIT` if the server
            was killed.
    """

    def __init__(self, server: _Server, program: str, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        """Ask a server for a worker; it need not have started yet.

        Args:
            server: the server.
            program: module whose function `main` the worker calls.
            arguments: command-line arguments of the worker.
            environment: its environment variables.

        Raises:
            OSError: the server has died.
        """
        theirs_in, ours_in = os.pipe()
        ours_out, theirs_out = os.pipe()
        self._status, theirs_status = Pipe(duplex=False)
        self.stdin: IO[bytes] | None = os.fdopen(ours_in, "wb")
        self.stdout: IO[bytes] | None = os.fdopen(ours_out, "rb", 0)
        self.returncode: int | None = None
        self._server = server
        self._pid: int | None = None
        try:
            server.send([theirs_in, theirs_out, 2, theirs_status.fileno()])
        except OSError:
            self.stdin.close()
            self.stdout.close()
            self._status.close()
            raise
        finally:
            os.close(theirs_in)
            os.close(theirs_out)
            theirs_status.close()
        request = {"program": program, "arguments": list(arguments), "environment": dict(environment)}
        content = json.dumps(request | {"folder": str(Path.cwd())}).encode()
        with suppress(BrokenPipeError):  # the server has just died; the executor sees the end of the output
            self.stdin.write(len(content).to_bytes(LENGTH_BYTES, "big") + content)
            self.stdin.flush()

    @property
    def pid(self) -> int | None:
        """The process id; None if the worker has not started yet. It is known when the worker has written something."""
        while self._pid is None and self.returncode is None and self._status.poll():
            self._receive()
        return self._pid

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end of the process.

        Args:
            timeout: time limit in seconds.

        Returns:
            The exit code.

        Raises:
            subprocess.TimeoutExpired: it has not ended in time.
        """
        while self.returncode is None:
            if not self._status.poll(timeout):
                raise subprocess.TimeoutExpired(WORKER, timeout or 0.0)
            self._receive()
        self._status.close()
        return self.returncode

    def _receive(self) -> None:
        """Receive the process id from the worker, or the exit code from the server."""
        try:
            message = self._status.recv()
        except (EOFError, ConnectionResetError):
            message = {"exit": UNKNOWN_EXIT}
        self._pid = message.get("pid", self._pid)
        self.returncode = message.get("exit")

    def kill(self) -> None:
        """Kill the worker and the processes of its trial, or if it has not started yet, its server."""
        if self.pid is None:
            self._server.kill()
        else:
            _kill_group(self.pid)

    def end(self) -> int:
        """Kill the worker, and its server, too, if that does not report the end; return the worker's exit code."""
        self.kill()
        try:
            return self.wait(REPORT_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._server.kill()
            return self.wait()


class StartedWorker(subprocess.Popen[bytes]):
    """A worker that is a new program."""

    def __init__(self, program: str, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start the worker.

        Args:
            program: module that it runs.
            arguments: its command-line arguments.
            environment: its environment variables.
        """
        with block_stop_signals():  # until the worker can handle them
            super().__init__(
                [sys.executable, "-P", "-m", program, *arguments],  # -P: files in the current folder are no modules
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=dict(environment),
                process_group=0,  # the driver handles Ctrl-C of the terminal
            )

    def kill(self) -> None:
        """Kill the worker and the processes of its trial."""
        _kill_group(self.pid)

    def end(self) -> int:
        """Kill the worker and return its exit code."""
        self.kill()
        return self.wait()


WorkerProcess = ForkedWorker | StartedWorker


def _kill_group(leader: int) -> None:
    """Kill the processes of a group, also if they are stopped. Its leader has not been waited for."""
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


class _Server:
    """The process that forks workers: `fcnlab.runner.executors.fork_server`."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._requests, theirs = socket.socketpair()
        # It ends with this process only: a signal to all processes of a job pauses the trials, which may be resumed.
        with theirs, block_stop_signals():
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", f"from {SERVER} import main; main({theirs.fileno()})"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=dict(environment),
                pass_fds=[theirs.fileno()],
                process_group=0,  # the driver handles Ctrl-C of the terminal
            )

    def send(self, descriptors: Sequence[int]) -> None:
        """Request a worker with these files: standard input, output and error output, and the pipe of its status."""
        socket.send_fds(self._requests, [b"\n"], descriptors)

    def kill(self) -> None:
        """Kill the server; its workers continue until their standard input ends."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Stop the server; its workers continue until their standard input ends."""
        self._requests.close()
        try:
            self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:  # it is still importing, or stopped
            self.kill()


_servers: dict[tuple[int, tuple[tuple[str, str], ...]], _Server] = {}
"""Servers of this process and of the process that forked it, by process id and environment."""

_lock = Lock()


def start_worker(program: str, arguments: Sequence[str], environment: Mapping[str, str]) -> WorkerProcess:
    """Start a worker process, in a process group of its own.

    Args:
        program: module whose function `main` it calls with the arguments, such as `WORKER`.
        arguments: its command-line arguments.
        environment: its environment variables.

    Returns:
        The process.
    """
    if sys.platform != "linux":
        return StartedWorker(program, arguments, environment)
    with _lock:
        try:
            return ForkedWorker(_start_server(environment), program, arguments, environment)
        except OSError:  # it was killed
            _servers.pop(_identify(environment)).close()
            return ForkedWorker(_start_server(environment), program, arguments, environment)


def prepare_workers(environment: Mapping[str, str]) -> None:
    """Start the server of later workers, which imports torch while this process does something else.

    Args:
        environment: environment variables of the workers.
    """
    if sys.platform == "linux":
        with _lock:
            _start_server(environment)


def _start_server(environment: Mapping[str, str]) -> _Server:
    """Return the server of workers with an environment, which is started if there is none."""
    key = _identify(environment)
    if key not in _servers:
        _servers[key] = _Server(environment)
    return _servers[key]


def _identify(environment: Mapping[str, str]) -> tuple[int, tuple[tuple[str, str], ...]]:
    """Return the key of the server of this process for workers with an environment."""
    read = sorted((name, value) for name, value in environment.items() if name.startswith(READ_BY_LIBRARIES))
    return os.getpid(), tuple(read)


@atexit.register
def _close_servers() -> None:
    for (process, _), server in _servers.items():
        if process == os.getpid():
            server.close()
