"""Mutated files, images and command lines end commands with a clear error or with their effect: the short form."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from benchmarks.failures.mutations.contents import GRIDS
from benchmarks.failures.mutations.octets import mutate_text
from benchmarks.failures.mutations.problem import find_problem
from benchmarks.failures.mutations.sandbox import Result, Sandbox
from benchmarks.failures.mutations.tally import run_family
from benchmarks.failures.mutations.values import mutate
from fcnlab.config.yaml_file import parse


@pytest.mark.parametrize(
    ("family", "count"), [("grids", 40), ("files", 56), ("pictures", 30), ("command lines", 50), ("names", 2)]
)
def test_mutations_end_well(family: str, count: int, tmp_path: Path) -> None:
    tally = run_family(tmp_path, family, count, 1)
    assert sum(tally.tried.values()) >= 30
    assert tally.bad == {}


def test_mutations_follow_from_their_seed() -> None:
    content = parse(GRIDS[0], "grid")
    for make in (lambda chance: mutate(content, chance), lambda chance: mutate_text(GRIDS[0].encode(), chance)):
        first, again = ([make(random.Random(seed)) for seed in range(20)] for _ in range(2))
        assert first == again and len({one.content for one in first}) > 10


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        (Result(0, "fine", ""), ""),
        (Result(2, "", "fcnlab: error: a.yaml: no head 'x'\n"), ""),
        (Result(2, "", "fcnlab: error: no head 'x'\n"), "does not name the file"),
        (Result(2, "", ""), "without output"),
        (Result(1, "", "failed a.yaml"), "exit code 1"),
        (Result(None, "", "", "KeyError in config/a.py:3: 'x'"), "KeyError"),
        (Result(2, "", "a.yaml\nTraceback (most recent call last):\n"), "traceback"),
        (Result(2, "", f"a.yaml {'x ' * 2000}"), "characters"),
        (Result(0, "", "", touched=("/lab/registry/heads.yaml",)), "changes /lab/registry/heads.yaml"),
        (Result(0, "", "", created=("/home/x",)), "changes /home/x"),
    ],
)
def test_each_bad_end_of_a_command_is_found(result: Result, problem: str) -> None:
    found = find_problem(result, ["a.yaml"])
    assert (found == "") == (problem == "") and problem in found


def test_a_command_that_waits_for_ever_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    from benchmarks.failures.mutations import sandbox as module

    monkeypatch.setattr(module, "LIMIT", 0.2)
    monkeypatch.setattr("fcnlab.config.yaml_file.check_regular_file", lambda path: None)
    sandbox = Sandbox(tmp_path)
    os.mkfifo(sandbox.lab / "experiments" / "pipe.yaml")
    with sandbox.active():
        result = sandbox.call("grid", "plan", "experiments/pipe.yaml")
    assert result.crash.startswith("TimeLimitError") and "0.2 s" in find_problem(result)
