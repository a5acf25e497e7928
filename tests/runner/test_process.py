from __future__ import annotations

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


def test_workers_and_threads_can_be_set(machine: pytest.MonkeyPatch) -> None:
    assert plan_slots([recipe("quick")], RunOptions(workers=2)) == [Slot(threads=4)] * 2
    assert plan_slots([recipe("quick")], RunOptions(workers=3, threads=2)) == [Slot(threads=2)] * 3


def test_workers_are_distributed_over_the_gpus(machine: pytest.MonkeyPatch) -> None:
    machine.setenv("CUDA_VISIBLE_DEVICES", "1,3")
    assert plan_slots([recipe("d2l")]) == [Slot(threads=4, gpu="1"), Slot(threads=4, gpu="3")]
    assert [slot.gpu for slot in plan_slots([recipe("d2l")], RunOptions(workers=3))] == ["1", "3", "1"]
