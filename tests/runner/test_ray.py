"""Trials on a Ray cluster of two nodes on this machine."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import numpy as np
import pytest
import torch

from fcnlab.config.trial import Trial
from fcnlab.errors import RunError
from fcnlab.lab import Lab
from fcnlab.runner.executors.base import Executor, Job, JobExit
from fcnlab.runner.executors.ray.cluster import TrialResources, connect
from fcnlab.runner.executors.ray.executor import RayExecutor
from fcnlab.runner.executors.ray.worker import RayWorker, Token
from fcnlab.trial.run import run_trial
from fcnlab.trial.run_folder import RunFolder
from tests.builders import build_trial
from tests.conftest import arrays_of, create_cache
from tests.patience import patience, wait_until

ray = pytest.importorskip("ray", reason="Ray is not installed; it comes with fcnlab[ray]")

LONG = 400
"""Epochs of a trial that does not end while a test looks at it."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A head with one CPU, and a node with three CPUs and a simulated GPU."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("FCNLAB_CACHE", str(create_cache(tmp_path_factory)))
        monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        monkeypatch.delenv("FCNLAB_DATA", raising=False)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)  # Ray would count no GPU
        head = {"num_cpus": 1, "num_gpus": 0, "include_dashboard": False, "wait": False}
        made = Cluster(initialize_head=True, head_node_args=head)
        made.add_node(num_cpus=3, num_gpus=1, wait=False)
        made.wait_for_nodes(timeout=patience())
        yield made
        made.shutdown()


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def until(executor: Executor, condition: Callable[[list[JobExit]], object]) -> list[JobExit]:
    """Wait with an executor for a condition; return the jobs that have ended before."""
    ended: list[JobExit] = []

    def met() -> object:
        found = condition(ended)
        if not found:
            ended.extend(executor.wait(0.1))
        return found

    wait_until(met, "the executor's jobs", pause=0)
    return ended


def start(executor: Executor, *jobs: Job) -> list[JobExit]:
    """Start jobs as slots become free."""
    ended: list[JobExit] = []
    for job in jobs:
        ended += until(executor, lambda _: executor.free_slots)
        executor.start(job)
    return ended


def run(executor: Executor, *jobs: Job) -> list[JobExit]:
    """Run jobs to their ends."""
    ended = start(executor, *jobs)
    return ended + until(executor, lambda more: len(ended) + len(more) == len(jobs))


def folder(lab: Lab, trial: Trial) -> RunFolder:
    return RunFolder(lab.runs, trial.key)


def counts(lab: Lab, trial: Trial) -> dict[str, Any]:
    return arrays_of(folder(lab, trial).counts)


def assert_same(trial: Trial, lab: Lab, elsewhere: Lab) -> None:
    """Check that a trial has left the same results in a lab as a plain run in another lab."""
    expected = run_trial(trial, elsewhere)
    record = folder(lab, trial).read()
    assert record is not None and expected is not None
    assert record.failure is None, record.failure
    assert record.metrics == expected.metrics
    ours, theirs = counts(lab, trial), counts(elsewhere, trial)
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture(scope="module")
def near(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RayExecutor, Lab]]:
    """Two slots that see the driver's lab."""
    lab = Lab.find(root=tmp_path_factory.mktemp("near"))
    with RayExecutor(lab, TrialResources(threads=1), cluster.address, at_once=2) as executor:
        yield executor, lab


def test_trials_have_the_metrics_of_a_plain_run_bit_for_bit(near: tuple[RayExecutor, Lab], tmp_path: Path) -> None:
    executor, lab = near
    trials = [build_trial(lab=lab, seed=seed) for seed in range(3)]
    ended = run(executor, *(Job(trial=trial) for trial in trials))
    assert {end.key for end in ended} == {trial.key for trial in trials}
    assert {end.error for end in ended} == {None}
    for trial in trials[:2]:
        assert_same(trial, lab, Lab.find(root=tmp_path))


def test_a_pause_requested_at_the_start_ends_the_trial_after_one_epoch(near: tuple[RayExecutor, Lab]) -> None:
    executor, lab = near
    trial = build_trial(lab=lab, seed=9, epochs=LONG)
    start(executor, Job(trial=trial))
    executor.pause()
    assert until(executor, lambda ended: ended) == [JobExit(trial.key)]
    assert folder(lab, trial).read() is None
    assert len(folder(lab, trial).read_progress()) < 10


def test_a_worker_is_stopped_when_it_has_started(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = RayWorker(lab.root, None, Token.write(lab), 1, gpu=False)
    starts, may_start = threading.Event(), threading.Event()
    calls: list[str] = []

    def await_ready() -> None:
        starts.set()
        may_start.wait(patience())
        calls.append("ready")

    monkeypatch.setattr("ray.get_runtime_context", Mock())
    monkeypatch.setattr(worker._executor, "await_ready", await_ready)
    monkeypatch.setattr(
        worker._executor, "close", lambda close=worker._executor.close: (calls.append("closed"), close())
    )
    threads = [threading.Thread(target=worker.describe), threading.Thread(target=worker.stop)]
    threads[0].start()
    assert starts.wait(patience())
    threads[1].start()
    threads[1].join(0.2)
    may_start.set()
    for thread in threads:
        thread.join(patience())
    assert calls == ["ready", "closed"]


def test_the_token_of_a_killed_driver_is_removed(lab: Lab) -> None:
    own = Token.write(lab)
    killed = own.path.with_name(f"{socket.gethostname()}_{2**22 + 1}_12345678")
    elsewhere = own.path.with_name("elsewhere_1_12345678")
    for file in (killed, elsewhere):
        file.write_text("secret")
    other = Token.write(lab)
    assert sorted(own.path.parent.iterdir()) == sorted([own.path, other.path, elsewhere])


@pytest.fixture(scope="module")
def far(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RayExecutor, Lab]]:
    """A slot without access to the driver's disk."""
    lab = Lab.find(root=tmp_path_factory.mktemp("far"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(Token, "write", lambda lab: Token(lab.root / "on another machine", "secret"))
        executor = RayExecutor(lab, TrialResources(threads=1), cluster.address, at_once=1)
    with executor:
        yield executor, lab


def test_without_a_shared_disk_all_files_of_a_trial_arrive(far: tuple[RayExecutor, Lab], tmp_path: Path) -> None:
    executor, lab = far
    trial = build_trial(lab=lab)
    assert run(executor, Job(trial=trial)) == [JobExit(trial.key)]
    elsewhere = Lab.find(root=tmp_path)
    assert_same(trial, lab, elsewhere)
    names = {file.relative_to(folder(elsewhere, trial).path) for file in folder(elsewhere, trial).path.rglob("*")}
    arrived = {file.relative_to(folder(lab, trial).path) for file in folder(lab, trial).path.rglob("*")}
    assert arrived == names - {Path("lock")} | {Path("log.txt")}


def test_without_a_shared_disk_a_paused_trial_resumes(far: tuple[RayExecutor, Lab], tmp_path: Path) -> None:
    executor, lab = far
    trial = build_trial(lab=lab, seed=1)
    assert run(executor, Job(trial=trial, pause_after=1)) == [JobExit(trial.key)]
    assert folder(lab, trial).read() is None
    assert folder(lab, trial).checkpoint.exists()
    assert run(executor, Job(trial=trial)) == [JobExit(trial.key)]
    assert not folder(lab, trial).checkpoint.exists()
    assert_same(trial, lab, Lab.find(root=tmp_path))


def test_without_a_shared_disk_init_from_is_found(far: tuple[RayExecutor, Lab], tmp_path: Path) -> None:
    executor, lab = far
    first = build_trial({"head": "fcn32s"}, lab=lab)
    second = build_trial(lab=lab).model_copy(update={"init_from": first.key})
    assert run(executor, Job(trial=first), Job(trial=second)) == [JobExit(first.key), JobExit(second.key)]
    elsewhere = Lab.find(root=tmp_path)
    run_trial(first, elsewhere)
    assert_same(second, lab, elsewhere)


def test_epochs_arrive_while_a_trial_runs_and_a_pause_ends_it_after_one(far: tuple[RayExecutor, Lab]) -> None:
    executor, lab = far
    trial = build_trial(lab=lab, epochs=LONG)
    start(executor, Job(trial=trial))
    until(executor, lambda _: len(folder(lab, trial).read_progress()) > 1)
    executor.pause()
    assert until(executor, lambda ended: ended) == [JobExit(trial.key)]
    assert folder(lab, trial).read() is None
    done = folder(lab, trial).read_progress()
    assert 1 < len(done) < LONG
    assert len(torch.load(folder(lab, trial).checkpoint, weights_only=True)["epochs"]) == len(done)


def test_data_missing_on_the_node_is_a_one_line_error(far: tuple[RayExecutor, Lab]) -> None:
    executor, lab = far
    trial = build_trial(lab=lab)
    other = trial.model_copy(update={"data": "sha256:0"})
    missing = trial.model_copy(update={"dataset": lab.registry.get("dataset", "camvid")})
    assert run(executor, Job(trial=other), Job(trial=missing)) == [JobExit(other.key), JobExit(missing.key)]
    for invalid, output in ((other, "the data differs from the driver's"), (missing, "no data root")):
        record = folder(lab, invalid).read()
        assert record is not None and record.failure is not None
        assert output in record.failure.message
        assert "\n" not in record.failure.message


def test_resources_that_no_node_has_are_rejected_with_those_of_the_cluster(cluster: Any, lab: Lab) -> None:
    cases = (
        (TrialResources(threads=64), r"takes 64 CPUs, .* it has .*: 3 CPUs"),
        (TrialResources(gpus=2), r"1 CPUs and 2 GPUs.*1 GPUs"),
    )
    for ask, output in cases:
        with pytest.raises(RunError, match=output):
            RayExecutor(lab, ask, cluster.address)
    assert not [file for file in lab.state.rglob("*") if file.is_file()]


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "nowhere"])
def test_an_unreachable_address_is_a_one_line_error(address: str) -> None:
    with (
        patch.object(ray, "is_initialized", return_value=False),
        pytest.raises(RunError, match=rf"^--address {address}: no Ray cluster can be joined there \(.+$"),
    ):
        connect(address)


def test_a_cluster_of_fcnlab_refuses_everyone_without_its_token() -> None:
    code = """if True:
        import os
        from fcnlab.runner.executors.ray.cluster import connect
        connect(None)
        import grpc, ray
        print(ray.get(ray.remote(lambda: "runs").remote()))
        head = grpc.insecure_channel(ray.get_runtime_context().gcs_address)
        call = head.unary_unary("/ray.rpc.NodeInfoGcsService/CheckAlive")
        call(b"", metadata=[("authorization", f"Bearer {os.environ['RAY_AUTH_TOKEN']}")], timeout=100)
        try:
            call(b"", timeout=100)
        except grpc.RpcError as error:
            print(error.code())
        """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["runs", "StatusCode.UNAUTHENTICATED"]


def test_trials_end_when_the_driver_is_killed(cluster: Any, lab: Lab) -> None:
    trial = build_trial(lab=lab, epochs=100 * LONG)
    code = f"""
import sys
import threading
from pathlib import Path
from fcnlab.runner.executors.base import Job
from fcnlab.runner.executors.ray.executor import RayExecutor
from fcnlab.runner.executors.ray.cluster import TrialResources, connect
from fcnlab.lab import Lab
executor = RayExecutor(Lab(Path({str(lab.root)!r})), TrialResources(), {cluster.address!r}, at_once=1)
while not executor.free_slots:
    executor.wait(0.1)
executor.start(Job.model_validate_json(sys.stdin.read()))
while True:
    executor.wait(1)
"""
    driver = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    assert driver.stdin is not None
    driver.stdin.write(Job(trial=trial).model_dump_json().encode())
    driver.stdin.close()
    try:
        wait_until(lambda: folder(lab, trial).read_progress(), "the trial trains")
    finally:
        driver.kill()
        driver.wait()
    wait_until(lambda: not _grows(folder(lab, trial)), "the trial ends")


def test_a_trial_is_retried_on_a_new_node_after_the_loss_of_its_node(
    cluster: Any, near: tuple[RayExecutor, Lab]
) -> None:
    """This is the last test, since it removes the second node."""
    executor, lab = near
    trials = [build_trial(lab=lab, seed=seed, epochs=100 * LONG) for seed in range(2)]
    start(executor, *(Job(trial=trial) for trial in trials))
    until(executor, lambda _: all(folder(lab, trial).read_progress() for trial in trials))
    cluster.remove_node(cluster.worker_nodes.copy().pop())
    lost = until(executor, lambda ended: ended)
    assert {end.error for end in lost} == {f"{socket.gethostname()}: its node is gone"}
    cluster.add_node(num_cpus=1, wait=False)
    short = build_trial(lab=lab, seed=5)
    assert run(executor, Job(trial=short)) == [JobExit(short.key)]
    assert folder(lab, short).read() is not None
    executor.pause()
    paused = until(executor, lambda ended: len(lost) + len(ended) == 2)
    assert {end.key for end in lost + paused} == {trial.key for trial in trials}
    assert {end.error for end in paused} <= {None}


def _grows(folder: RunFolder) -> bool:
    before = len(folder.read_progress())
    time.sleep(1)
    return len(folder.read_progress()) > before
