from __future__ import annotations

from pathlib import Path

import pytest

from fcnlab.config.recipe import Recipe
from fcnlab.config.registry import builtin
from fcnlab.runner.executors import slots
from fcnlab.runner.executors.slots import Slot, plan_slots
from fcnlab.settings import RunOptions


def recipe(name: str) -> Recipe:
    found = builtin().get("recipe", name)
    assert isinstance(found, Recipe)
    return found


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Eight cores, 32 GiB, no GPU."""
    monkeypatch.setattr(slots, "usable_cores", lambda: 8)
    monkeypatch.setattr(slots, "usable_memory", lambda: 32 * 2**30)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return monkeypatch


def test_the_number_of_workers_is_limited_by_cores_and_memory(
    machine: pytest.MonkeyPatch,
) -> None:
    assert plan_slots([recipe("quick")]) == [Slot(threads=1)] * 8
    assert plan_slots([recipe("quick"), recipe("d2l")]) == [Slot(threads=4)] * 2


def test_a_recipe_too_large_for_the_memory_still_has_one_worker(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(slots, "usable_memory", lambda: 2**30)
    assert plan_slots([recipe("d2l")]) == [Slot(threads=8)]


@pytest.mark.parametrize(
    ("group", "limit"),
    [
        ("0::/job/7", "sys/fs/cgroup/job/memory.max"),
        ("4:memory:/job/7", "sys/fs/cgroup/memory/job/memory.limit_in_bytes"),
    ],
    ids=["version 2", "version 1"],
)
def test_the_usable_memory_is_limited_by_the_control_groups(tmp_path: Path, group: str, limit: str) -> None:
    for name, text in {"proc/self/cgroup": f"{group}\n", limit: "1000\n"}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / limit).parent.joinpath("7").mkdir()
    (tmp_path / limit).parent.joinpath("7", "memory.max").write_text("max\n")
    assert slots.usable_memory(tmp_path) == 1000


def test_workers_and_threads_can_be_set(machine: pytest.MonkeyPatch) -> None:
    assert plan_slots([recipe("quick")], RunOptions(workers=2)) == [Slot(threads=4)] * 2
    assert plan_slots([recipe("quick")], RunOptions(workers=3, threads=2)) == [Slot(threads=2)] * 3


def test_workers_are_distributed_over_the_gpus(machine: pytest.MonkeyPatch) -> None:
    machine.setenv("CUDA_VISIBLE_DEVICES", "1,3")
    assert plan_slots([recipe("d2l")]) == [Slot(threads=4, gpu="1"), Slot(threads=4, gpu="3")]
    assert [slot.gpu for slot in plan_slots([recipe("d2l")], RunOptions(workers=3))] == ["1", "3", "1"]
