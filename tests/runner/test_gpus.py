"""The GPUs that trials may use, and differences between the GPUs found by the driver and by torch."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fcnlab.config.recipe import Recipe
from fcnlab.config.registry import builtin
from fcnlab.errors import RunError
from fcnlab.lab import Lab
from fcnlab.runner.executors import gpus, slots
from fcnlab.runner.executors.base import Job
from fcnlab.runner.executors.create import check_executor
from fcnlab.runner.executors.device_check import describe_device_error
from fcnlab.runner.executors.gpus import select_gpus, visible_gpus
from fcnlab.runner.executors.process import ProcessExecutor
from fcnlab.runner.executors.ray.cluster import Node, TrialResources, choose_threads
from fcnlab.runner.executors.slots import Slot, plan_slots
from fcnlab.runner.plan import make_plan
from fcnlab.runner.progress.base import ProgressReporter
from fcnlab.runner.run import run_grid
from fcnlab.settings import RunOptions
from fcnlab.trial.run_folder import RunFolder
from tests.builders import build_trial
from tests.conftest import SMOKE, write_grid
from tests.patience import patience


def quick() -> Recipe:
    found = builtin().get("recipe", "quick")
    assert isinstance(found, Recipe)
    return found


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A machine whose GPUs are not named in the environment, without NVML and without device files."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(gpus, "DEVICES", tmp_path)
    monkeypatch.setattr(gpus, "NVML", "libno-such-library.so.1")
    monkeypatch.setattr(slots, "usable_cores", lambda: 8)
    return monkeypatch


def nvml(monkeypatch: pytest.MonkeyPatch, count: int, *, init: int = 0, counted: int = 0) -> None:
    """Install an NVML that finds `count` GPUs, or answers with these error codes."""

    def get_count(into: Any) -> int:
        into._obj.value = count
        return counted

    library = SimpleNamespace(nvmlInit_v2=lambda: init, nvmlDeviceGetCount_v2=get_count, nvmlShutdown=lambda: 0)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)


def device_files(*names: str) -> None:
    for name in names:
        (gpus.DEVICES / name).touch()


@pytest.mark.parametrize(
    ("named", "found"),
    [
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("1,3", ["1", "3"]),
        (" 0, 2 ", ["0", "2"]),
        ("0,-1,1", ["0"]),
        ("GPU-8932f937-d72c,MIG-GPU-8932f937/1/0", ["GPU-8932f937-d72c", "MIG-GPU-8932f937/1/0"]),
        ("MIG-0b5c,none,0", ["MIG-0b5c"]),
    ],
)
def test_cuda_visible_devices_decides_up_to_its_first_invalid_name(
    machine: pytest.MonkeyPatch, named: str, found: list[str]
) -> None:
    nvml(machine, 8)
    machine.setenv("CUDA_VISIBLE_DEVICES", named)
    assert visible_gpus() == found


def test_nvml_counts_the_gpus(machine: pytest.MonkeyPatch) -> None:
    nvml(machine, 2)
    device_files("nvidia0", "nvidia1", "nvidia2")
    assert visible_gpus() == ["0", "1"]


@pytest.mark.parametrize("codes", [{"init": 9}, {"counted": 999}])
def test_the_device_files_are_counted_if_nvml_fails(machine: pytest.MonkeyPatch, codes: dict[str, int]) -> None:
    nvml(machine, 0, **codes)
    device_files("nvidia0", "nvidia3", "nvidiactl", "nvidia-uvm", "nvidia-caps")
    assert visible_gpus() == ["0", "1"], "CUDA counts the devices that it may open"


def test_without_nvml_the_device_files_are_counted(machine: pytest.MonkeyPatch) -> None:
    assert visible_gpus() == []
    device_files("nvidia0", "nvidiactl")
    assert visible_gpus() == ["0"]


def test_the_cpu_can_be_chosen_and_cuda_required(machine: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunError, match=r"--device cuda: this machine shows no NVIDIA GPU \(no libno.*--device cpu"):
        select_gpus("cuda")
    nvml(machine, 2)
    assert (select_gpus("auto"), select_gpus("cuda"), select_gpus("cpu")) == (["0", "1"], ["0", "1"], [])
    recipes = [quick()]
    assert [slot.gpu for slot in plan_slots(recipes)] == ["0", "1"]
    on_cpu = plan_slots(recipes, RunOptions(workers=2, device="cpu"))
    assert on_cpu == [Slot(threads=4)] * 2
    assert on_cpu[0].environment["FCNLAB_DEVICE"] == "cpu" and on_cpu[0].environment["CUDA_VISIBLE_DEVICES"] == ""
    assert plan_slots(recipes)[1].environment["FCNLAB_DEVICE"] == "cuda"


def test_missing_cuda_is_rejected_before_a_run(machine: pytest.MonkeyPatch, lab: Lab) -> None:
    with pytest.raises(RunError, match="--device cuda: this machine shows no"):
        check_executor(RunOptions(device="cuda"), [], lab)
    check_executor(RunOptions(executor="ray", address="auto", device="cuda"), [], lab)  # a cluster has GPUs of its own


def test_the_worker_searches_for_gpus_if_the_driver_found_none(machine: pytest.MonkeyPatch) -> None:
    slot = plan_slots([quick()], RunOptions(workers=1))[0]
    assert slot.verify and "CUDA_VISIBLE_DEVICES" not in slot.environment
    machine.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not plan_slots([quick()], RunOptions(workers=1))[0].verify, "all GPUs are hidden on purpose"


@pytest.mark.parametrize(
    ("kind", "count", "devices", "verify", "message"),
    [
        ("cuda", 1, 1, False, None),
        ("cuda", 2, 2, False, None),
        ("cpu", 0, 1, True, None),
        ("cpu", 1, 1, False, None),
        ("cuda", 0, 1, False, "sees 0 of the 1 GPUs of a trial"),
        ("cuda", 1, 2, False, "sees 1 of the 2 GPUs of a trial"),
        ("cpu", 2, 1, True, "sees 2 CUDA devices, but neither NVML nor /dev shows a GPU; set CUDA_VISIBLE_DEVICES"),
    ],
)
def test_driver_and_worker_must_agree(kind: str, count: int, devices: int, verify: bool, message: str | None) -> None:
    problem = describe_device_error(kind, count, devices, verify=verify)
    assert (problem is None) == (message is None)
    if problem is not None and message is not None:
        assert message in problem and "--device cpu" in problem and "\n" not in problem


def test_a_worker_without_a_gpu_ends_the_run_with_one_line_and_no_failed_trial(lab: Lab) -> None:
    trial = build_trial(lab=lab)
    # No machine has a GPU of this name, so torch sees none there.
    with ProcessExecutor(lab, [Slot(threads=1, gpu="GPU-no-such")]) as executor:
        executor.start(Job(trial=trial))
        with pytest.raises(RunError, match=r"sees 0 of the 1 GPUs of a trial .*GPU-no-such.*--device cpu"):
            executor.await_ready()
    assert RunFolder(lab.runs, trial.key).read() is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "sees 0 of the 1 GPUs of a trial (CUDA_VISIBLE_DEVICES=GPU-no-such)"),
        (["--executor", "serial"], "sees 0 of the 1 GPUs of a trial"),
    ],
)
def test_an_unusable_gpu_is_a_one_line_error_with_exit_code_2(lab: Lab, options: list[str], message: str) -> None:
    path = write_grid(lab.root, SMOKE)
    done = subprocess.run(
        [sys.executable, "-m", "fcnlab", "grid", "run", str(path), *options],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "GPU-no-such"}, capture_output=True, text=True, timeout=patience(),
    )  # fmt: skip
    assert done.returncode == 2, done.stdout + done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("fcnlab: error: ")]
    assert len(errors) == 1 and message in errors[0] and "Traceback" not in done.stderr
    assert not list(lab.runs.glob("*/record.json")), "no trial has failed"


def test_a_machine_with_gpus_trains_on_the_cpu_on_request(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_grid(lab.root, SMOKE.replace("seeds: 2", "seeds: 1"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-no-such")
    run_grid(lab.load_grid(path), lab, ProgressReporter(), RunOptions(device="cpu", workers=2, threads=1))
    for planned in make_plan(lab.load_grid(path), lab).trials:
        assert planned.record is not None and planned.record.environment is not None
        assert planned.record.environment.kind == "cpu"


@pytest.mark.parametrize(
    ("ask", "nodes", "at_once", "threads"),
    [
        (TrialResources(gpus=1), [{"CPU": 4}, {"CPU": 32, "GPU": 4}], None, 8),
        (TrialResources(gpus=0.5), [{"CPU": 32, "GPU": 4}, {"CPU": 16, "GPU": 4}], None, 2),
        (TrialResources(memory=8), [{"CPU": 1, "memory": 32}, {"CPU": 16, "memory": 32}], None, 4),
        (TrialResources(memory=99), [{"CPU": 16, "memory": 32}], None, 16),
        (TrialResources(memory=8), [{"CPU": 16, "memory": 32}], 2, 8),
        (TrialResources(gpus=1), [{"CPU": 4}], None, 1),
        (TrialResources(), [], None, 1),
    ],
)
def test_trials_on_a_cluster_share_the_cores_of_its_nodes(
    ask: TrialResources, nodes: list[dict[str, float]], at_once: int | None, threads: int
) -> None:
    made = [Node(str(number), "host", resources) for number, resources in enumerate(nodes)]
    assert choose_threads(ask, made, at_once) == threads
