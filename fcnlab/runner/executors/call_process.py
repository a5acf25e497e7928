"""A process that calls functions which import torch, so that the driver need not import it.

    python -m fcnlab.runner.executors.call_process

Standard input and output are connections of `multiprocessing`. Each call is received as a tuple of the function, its
positional and its keyword arguments, and answered by a pair: the result and None, or None and the error. The process
exits at the end of standard input, and after an exception that is a bug: its traceback is printed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, NamedTuple, ParamSpec, Protocol, TypeVar, cast

from fcnlab.errors import FcnlabError, RunError
from fcnlab.redaction import redact_output
from fcnlab.runner.executors.exits import describe_exit
from fcnlab.runner.executors.worker_process import WorkerProcess, start_worker

CALL_PROCESS = "fcnlab.runner.executors.call_process"

END_TIMEOUT = 10.0
"""Seconds that a process has to end after the end of its output: it may still print a traceback."""

P = ParamSpec("P")
T = TypeVar("T")


class Call(Protocol):
    """A function that calls functions which import torch, in this process or in another one."""

    def __call__(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function.

        Args:
            function: a function of a module; it, its arguments and its result can be pickled.
            args: its positional arguments.
            kwargs: its keyword arguments.

        Returns:
            Its result.

        Raises:
            FcnlabError: the function has raised it; the same for OSError and MemoryError.
            RunError: the process that called the function has ended.
        """
        ...


def call_directly(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function in this process, as `Call` describes."""
    return function(*args, **kwargs)


def create_call(environment: Mapping[str, str] | None, on_start: Callable[[], None]) -> AbstractContextManager[Call]:
    """Create the calls of functions that import torch: in another process if this one has not imported it.

    Args:
        environment: environment variables of the workers that this process will start, which import torch anyway; None
            if it starts none.
        on_start: called before another process is started, which takes seconds.

    Returns:
        A context manager of the calls.
    """
    if environment is None or "torch" in sys.modules:
        return nullcontext(call_directly)
    return CallProcess(environment, on_start)


class _Process(NamedTuple):
    worker: WorkerProcess
    calls: Connection
    answers: Connection


class CallProcess:
    """Calls functions in another process, which is started by the first call. A context manager, which ends it.

    On Linux it is forked from the server of the workers, which imports torch once for all of them. To wait for several
    processes, `start` a call in each, pass them to `multiprocessing.connection.wait`, and `receive` the results.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        on_start: Callable[[], None] | None = None,
        *,
        purpose: str = "checks the trials",
    ) -> None:
        """Start no process yet.

        Args:
            environment: environment variables of the process; those of a worker select its server.
            on_start: called before the process is started.
            purpose: task of the process, for the message after it has ended.
        """
        self._environment = environment
        self._on_start = on_start
        self._purpose = purpose
        self._process: _Process | None = None

    def __call__(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in the process, as `Call` describes."""
        self.start(function, *args, **kwargs)
        return cast(T, self.receive())

    def start(self, function: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Start to call a function in the process, as `Call` describes; `receive` returns its result."""
        if self._process is None:
            if self._on_start is not None:
                self._on_start()
            self._process = _start(self._environment)
        with suppress(OSError):  # the process has ended, as `receive` reports
            self._process.calls.send((function, args, kwargs))

    def receive(self) -> object:
        """Wait for the function that was started, and return its result.

        Raises:
            FcnlabError: the function has raised it; the same for OSError and MemoryError.
            RunError: the process has ended.
        """
        assert self._process is not None, "a call has been started"
        try:
            result, error = self._process.answers.recv()
        except (OSError, EOFError):  # the end of a pipe, perhaps within a message
            code = self._end(END_TIMEOUT)
            raise RunError(f"the process that {self._purpose} ended with {describe_exit(code)}") from None
        if error is not None:
            raise error
        return result

    def fileno(self) -> int:
        """Return the file descriptor that can be read when the function that was started has returned."""
        assert self._process is not None, "a call has been started"
        return self._process.answers.fileno()

    def __enter__(self) -> CallProcess:
        return self

    def __exit__(self, _type: type[BaseException] | None, _error: object, _traceback: TracebackType | None) -> None:
        if self._process is not None:
            self._end()

    def _end(self, timeout: float = 0.0) -> int:
        """Kill the process if it does not end by itself within some seconds, and return its exit code."""
        assert self._process is not None, "it has been started"
        (worker, calls, answers), self._process = self._process, None
        with calls, answers:
            try:
                return worker.wait(timeout)
            except subprocess.TimeoutExpired:
                return worker.end()


def _start(environment: Mapping[str, str]) -> _Process:
    worker = start_worker(CALL_PROCESS, [], environment)
    assert worker.stdin is not None and worker.stdout is not None
    with worker.stdin, worker.stdout:
        calls = Connection(os.dup(worker.stdin.fileno()), readable=False)
        answers = Connection(os.dup(worker.stdout.fileno()), writable=False)
    return _Process(worker, calls, answers)


def main(_arguments: Sequence[str] = ()) -> None:
    """Call the functions from standard input, until the driver ends the process or exits."""
    redact_output()
    calls, answers = Connection(os.dup(0), writable=False), Connection(os.dup(1), readable=False)
    os.dup2(2, 1)  # output of the functions must not mix with the answers
    with calls, answers:
        while True:
            try:
                function, args, kwargs = calls.recv()
            except EOFError:  # the driver has exited
                return
            answer: tuple[Any, Exception | None]
            try:
                answer = function(*args, **kwargs), None
            except (FcnlabError, OSError, MemoryError) as error:
                answer = None, error
            answers.send(answer)


if __name__ == "__main__":
    main()
