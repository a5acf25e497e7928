"""Worker processes that are forked from one server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from fcnlab.runner.executors import worker_process
from fcnlab.runner.executors.worker_process import WORKER, ForkedWorker, start_worker

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")


def start(folder: Path, **environment: str) -> ForkedWorker:
    """Start a worker and wait until it is ready."""
    worker = start_worker(WORKER, [str(folder), ""], os.environ | {"OMP_NUM_THREADS": "1"} | environment)
    assert isinstance(worker, ForkedWorker) and worker.stdout is not None
    line = b""
    while not line.endswith(b"\n"):
        line += worker.stdout.read(1) or pytest.fail("its output has ended")
    assert json.loads(line) == {"ready": True}
    return worker


def end(worker: ForkedWorker) -> int:
    assert worker.stdin is not None and worker.stdout is not None
    worker.stdin.close()
    code = worker.wait(60)
    assert worker.stdout.read() == b""
    worker.stdout.close()
    return code


def parent_of(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def server_of(worker: ForkedWorker) -> tuple[Any, worker_process._Server]:
    """Return the server of a worker with its key."""
    parent = parent_of(worker.pid)
    ((key, server),) = ((key, one) for key, one in worker_process._servers.items() if one._process.pid == parent)
    return key, server


def pipes(worker: ForkedWorker) -> set[str]:
    """Return the names of the open pipes of a worker."""
    links = set()
    for file in Path(f"/proc/{worker.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it has closed the file meanwhile
            links.add(str(file.readlink()))
    return {link for link in links if link.startswith("pipe:")}


def test_workers_share_a_server_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = start(tmp_path, FCNLAB_CACHE=str(tmp_path / "first"))
    monkeypatch.chdir(tmp_path)
    second = start(tmp_path, FCNLAB_CACHE=str(tmp_path / "second"))
    assert first.pid != second.pid and parent_of(first.pid) == parent_of(second.pid) != os.getpid()
    assert os.getpgid(second.pid) == second.pid, "signals of the terminal do not reach it"
    assert Path(f"/proc/{second.pid}/cwd").resolve() == tmp_path != Path(f"/proc/{first.pid}/cwd").resolve()
    assert not pipes(first) & pipes(second), "a worker that kept those of another would hide its end"
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(0)
    os.kill(first.pid, signal.SIGKILL)
    assert end(first) == -signal.SIGKILL
    assert end(second) == 0, "a worker exits at the end of its input"


def test_the_environment_of_a_worker_is_that_of_its_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FCNLAB_TEST_OLD", "of the server, if this test starts it")
    end(start(tmp_path))
    monkeypatch.delenv("FCNLAB_TEST_OLD")
    # The worker refuses to start with a device that torch does not see, and names the variable.
    missing_gpu = {"OMP_NUM_THREADS": "1", "FCNLAB_DEVICE": "cuda", "CUDA_VISIBLE_DEVICES": "7"}
    worker = start_worker(WORKER, [str(tmp_path), ""], os.environ | missing_gpu)
    assert worker.stdout is not None and worker.stdin is not None
    assert "CUDA_VISIBLE_DEVICES=7" in json.loads(worker.stdout.read())["refused"]
    assert end(worker) == 0


def test_a_killed_server_is_replaced_and_a_server_exits_with_its_driver(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first = start(tmp_path, OMP_NUM_THREADS="2")  # of a server of its own
    key, server = server_of(first)
    os.kill(server._process.pid, signal.SIGKILL)
    server._process.wait(60)
    second = start(tmp_path, OMP_NUM_THREADS="2")
    assert server_of(second) != (key, server)
    assert end(first) == 255, "it has continued, and its exit code is not known"
    server = worker_process._servers.pop(key)
    server._requests.close()
    assert server._process.wait(60) == 0
    assert end(second) == 255
    assert capfd.readouterr().err == "", "extension modules report no leaks when the server exits"


def test_a_stopped_server_does_not_hide_the_end_of_its_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_process, "REPORT_TIMEOUT", 0.1)
    worker = start(tmp_path, OMP_NUM_THREADS="3")  # of a server of its own
    key, server = server_of(worker)
    os.kill(server._process.pid, signal.SIGSTOP)
    assert worker.stdin is not None and worker.stdout is not None
    worker.stdin.close()
    assert worker.stdout.read() == b"", "it has ended"
    with pytest.raises(subprocess.TimeoutExpired):
        worker.wait(0)
    assert worker.end() == 255 and server._process.returncode == -signal.SIGKILL
    worker.stdout.close()
    assert end(start(tmp_path, OMP_NUM_THREADS="3")) == 0, "another server is started"
    worker_process._servers.pop(key).close()
