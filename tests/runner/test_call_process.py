"""Calls of functions in a process that imports torch."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping

import pytest

from fcnlab.errors import ConfigError, DataError, RunError
from fcnlab.runner.executors import call_process, worker_process
from fcnlab.runner.executors.call_process import CallProcess, call_directly, create_call
from tests.conftest import REPOSITORY

Start = Callable[[str, list[str], Mapping[str, str]], worker_process.WorkerProcess]

STARTS: dict[str, Start] = {"started": worker_process.StartedWorker}
if sys.platform == "linux":
    STARTS["forked"] = worker_process.start_worker


def ignore() -> None:
    pass


@pytest.fixture(params=STARTS, scope="module")
def call(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CallProcess]:
    folder = tmp_path_factory.mktemp("folder")
    (folder / "secrets.py").write_text("raise SystemExit('files in the current folder are not modules of Python')")
    # The functions of this file are found by PYTHONPATH, with which a server of its own is started.
    environment = os.environ | {"FCNLAB_TEST": "here", "PYTHONPATH": str(REPOSITORY)}
    with pytest.MonkeyPatch.context() as patch, CallProcess(environment, ignore) as call:
        patch.chdir(folder)
        patch.setattr(call_process, "start_worker", STARTS[request.param])
        yield call


def describe(name: str, *, error: str = "") -> tuple[str, int, bool]:
    """Return the value of an environment variable, the process, and whether torch is imported."""
    print("output of the function, which is no result")  # noqa: T201
    if error:
        raise ConfigError(error)
    return os.environ[name], os.getpid(), "torch" in sys.modules


def fail(number: int | None) -> None:
    if number is None:
        raise ZeroDivisionError("a bug")
    os.kill(os.getpid(), number)


def test_results_and_errors_are_those_of_the_function(call: CallProcess) -> None:
    value, process, _ = call(describe, "FCNLAB_TEST")
    assert value == "here" and process != os.getpid()
    with pytest.raises(ConfigError, match=r"^no such head$"):
        call(describe, "FCNLAB_TEST", error="no such head")
    assert call(describe, "FCNLAB_TEST")[1] == process, "an error does not end the process"
    assert call(len, [0] * 1_000_000) == 1_000_000, "more than fits into a pipe"


def test_a_process_that_ends_is_an_error_and_the_next_call_starts_another(
    call: CallProcess, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RunError, match=r"^the process that checks the trials ended with signal 11$"):
        call(fail, signal.SIGSEGV)
    with pytest.raises(RunError, match=r"ended with exit code 1$"):
        call(fail, None)
    assert "ZeroDivisionError: a bug" in capfd.readouterr().err
    assert call(describe, "FCNLAB_TEST")[0] == "here"


def test_the_start_of_the_process_is_reported_once() -> None:
    starts: list[str] = []
    with CallProcess(os.environ, lambda: starts.append("start")) as call:
        assert starts == []
        assert call(len, "ab") == 2 and call(len, "abc") == 3
    assert starts == ["start"]


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")
def test_a_server_that_is_killed_while_it_imports_torch_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_process, "_servers", {})

    def start_and_kill(program: str, arguments: list[str], env: Mapping[str, str]) -> worker_process.WorkerProcess:
        worker = worker_process.start_worker(program, arguments, env)
        (server,) = worker_process._servers.values()
        server.kill()
        return worker

    monkeypatch.setattr(call_process, "start_worker", start_and_kill)
    with CallProcess(os.environ, ignore) as call, pytest.raises(RunError, match="ended with exit code 255"):
        call(describe, "PATH")
    worker_process._servers.popitem()[1].close()


def test_a_process_that_has_imported_torch_calls_the_functions_itself() -> None:
    started: list[bool] = []
    with create_call({}, lambda: started.append(True)) as call:
        assert call(describe, "PATH") == (os.environ["PATH"], os.getpid(), True) and not started
    with pytest.raises(DataError), create_call(None, ignore) as call:
        raise DataError("of the caller")
    assert call is call_directly
