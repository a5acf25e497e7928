"""Ends of processes for lack of memory: by the kernel, by a library, and by a failed allocation in a trial."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from fcnlab.lab import Lab
from fcnlab.runner.executors import process
from fcnlab.runner.executors.base import Job, JobExit
from fcnlab.runner.executors.exits import count_oom_kills, find_memory_message, was_killed
from fcnlab.runner.executors.process import ProcessExecutor
from fcnlab.runner.executors.slots import Slot
from fcnlab.settings import KILLED
from fcnlab.trial.run_folder import RunFolder
from tests.builders import build_trial
from tests.processes import needs_proc
from tests.runner.jobs import LONG, child_of_worker, wait_for_exit


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


VERSION_2 = {
    "proc/self/cgroup": "0::/job/7\n",
    "sys/fs/cgroup/job/7/memory.events": "low 0\nhigh 0\nmax 9\noom 4\noom_kill 3\noom_group_kill 0\n",
    "proc/vmstat": "pgfault 5\noom_kill 8\n",
}
VERSION_1 = {
    "proc/self/cgroup": "5:devices:/\n4:cpu,memory:/job/7\n0::/\n",
    "sys/fs/cgroup/memory/job/7/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
    "proc/vmstat": "oom_kill 8\n",
}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (VERSION_2, 3),
        (VERSION_1, 2),
        ({"proc/self/cgroup": "0::/\n", "proc/vmstat": "nr_free_pages 5\noom_kill 8\n"}, 8),
        ({"proc/vmstat": "nr_free_pages 5\n"}, 0),
        ({}, 0),
    ],
    ids=["version 2", "version 1", "no group", "old kernel", "no proc"],
)
def test_processes_killed_for_lack_of_memory_are_counted_in_the_own_group(
    tmp_path: Path, files: dict[str, str], expected: int
) -> None:
    assert count_oom_kills(write(tmp_path, files)) == expected


def test_only_messages_of_this_start_are_read_from_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc\n")
    assert find_memory_message(log, 0) == "what():  std::bad_alloc"
    assert find_memory_message(log, log.stat().st_size) is None
    assert find_memory_message(tmp_path / "none.txt", 0) is None


def test_a_trial_of_several_processes_reports_a_kill_as_shells_do() -> None:
    assert [was_killed(code) for code in (-signal.SIGKILL, KILLED, -signal.SIGTERM, 1, 0)] == [True, True] + [False] * 3


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab.find(root=tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="module")
def executor(lab: Lab) -> Iterator[ProcessExecutor]:
    with ProcessExecutor(lab, [Slot(threads=1)]) as created:
        yield created


@needs_proc
@pytest.mark.parametrize(
    ("sent", "kills", "log", "cause", "message"),
    [
        (signal.SIGKILL, [5, 6], "", "out_of_memory", "out of memory: the kernel killed its process"),
        (signal.SIGKILL, [5, 5], "", "lost", "its process ended with signal 9"),
        (
            signal.SIGABRT,
            [5, 5],
            "  what():  std::bad_alloc\n",
            "out_of_memory",
            "out of memory: its process ended with signal 6 after 'what():  std::bad_alloc'",
        ),
        (signal.SIGABRT, [5, 6], "", "lost", "its process ended with signal 6"),
    ],
    ids=["kernel", "somebody", "library", "other abort"],
)
def test_a_killed_trial_ran_out_of_memory_if_the_kernel_or_its_log_reports_it(
    executor: ProcessExecutor,
    lab: Lab,
    monkeypatch: pytest.MonkeyPatch,
    sent: signal.Signals,
    kills: list[int],
    log: str,
    cause: str,
    message: str,
) -> None:
    counted = iter(kills)
    monkeypatch.setattr(process, "count_oom_kills", lambda: next(counted))
    asked = build_trial(lab=lab, **LONG)
    folder = RunFolder(lab.runs, asked.key)
    executor.start(Job(trial=asked))
    while not folder.heartbeat.exists():
        assert not executor.wait(0.02)
    with folder.log.open("a") as file:
        file.write(log)
    os.kill(child_of_worker(executor), sent)
    assert wait_for_exit(executor) == JobExit(asked.key, message, cause=cause)
    folder.heartbeat.unlink()
