"""The process from which workers are forked. It imports everything that a worker needs, and computes nothing.

Each message on its socket brings four files: standard input, output and error output of a new worker, and a pipe on
which the worker writes its process id, before anything else, and the server its exit code. The worker reads its
program, its arguments and its environment from its standard input. The server exits at the end of the socket, when its
driver has exited.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection
from typing import NoReturn

from fcnlab.runner.executors.worker_process import LENGTH_BYTES, WORKER

import_seconds = 0.0
"""Seconds that this process, or the one from which it was forked, took to import torch; 0 in other processes."""


def main(requests: int) -> None:
    """Fork a worker for each message until the driver exits.

    Args:
        requests: file descriptor of the socket.
    """
    global import_seconds  # inherited by the forked processes
    began = time.monotonic()
    initial = frozenset(os.environ)
    gc.disable()  # imports make many objects and no garbage
    import_module(WORKER)  # and torch, which adds environment variables
    gc.collect()
    gc.freeze()  # so that garbage collection in workers does not copy the shared pages
    gc.enable()
    import_seconds = time.monotonic() - began
    with socket.socket(fileno=requests) as messages:
        _Server(messages, initial).serve()
    gc.unfreeze()  # otherwise extension modules report all their objects as leaked when the interpreter exits


class _Server:
    def __init__(self, requests: socket.socket, initial: frozenset[str]) -> None:
        self._requests, self._initial = requests, initial
        self._status: dict[int, Connection] = {}  # by the process id of a worker
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._wake, False)

    def serve(self) -> None:
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # it writes to the pipe
        while True:
            ready, _, _ = select.select([self._requests.fileno(), self._woken], [], [])
            if self._woken in ready:
                os.read(self._woken, 4096)
                self._report_exits()
            if self._requests.fileno() in ready:
                message, descriptors, _, _ = socket.recv_fds(self._requests, 1, 4)
                if not message:
                    return
                self._fork(*descriptors)

    def _report_exits(self) -> None:
        """Write the exit codes of the workers that have ended."""
        while self._status:
            process, status = os.waitpid(-1, os.WNOHANG)
            if process == 0:
                return
            with self._status.pop(process) as pipe, suppress(BrokenPipeError):  # the executor is closed
                pipe.send({"exit": os.waitstatus_to_exitcode(status)})

    def _fork(self, stdin: int, stdout: int, stderr: int, status: int) -> None:
        pipe = Connection(status, readable=False)
        try:
            process = os.fork()
        except OSError as error:  # the driver sees the end of the pipes
            os.write(stderr, f"fcnlab: error: a worker cannot be started: {error}\n".encode())
            pipe.close()
        else:
            if process == 0:
                self._run_worker((stdin, stdout, stderr), pipe)
            self._status[process] = pipe
        for descriptor in (stdin, stdout, stderr):
            os.close(descriptor)

    def _run_worker(self, streams: Sequence[int], status: Connection) -> NoReturn:
        """Become a worker: run it in this forked process, and exit."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setpgid(0, 0)
            with status, suppress(BrokenPipeError):  # the executor is closed
                status.send({"pid": os.getpid()})
            self._requests.close()
            for pipe in (self._woken, self._wake):
                os.close(pipe)
            for other in self._status.values():
                other.close()
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
                os.close(stream)
            request = json.loads(_read(int.from_bytes(_read(LENGTH_BYTES), "big")))
            os.chdir(request["folder"])
            for name in self._initial - request["environment"].keys():
                os.environ.pop(name, None)
            os.environ.update(request["environment"])
            import_module(request["program"]).main(request["arguments"])
            code = 0
        except EOFError:  # the driver has exited
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:  # noqa: BLE001 - as the interpreter does at the end of a program
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def _read(length: int) -> bytes:
    """Read bytes from standard input.

    Raises:
        EOFError: it has ended.
    """
    content = b""
    while len(content) < length:
        chunk = os.read(0, length - len(content))
        if not chunk:
            raise EOFError
        content += chunk
    return content
