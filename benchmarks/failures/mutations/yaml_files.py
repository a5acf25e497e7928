"""Mutated grid files, registry files and the text files of datasets."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.failures.mutations.contents import CLASS_LISTS, GRIDS, REGISTRY
from benchmarks.failures.mutations.octets import mutate_text
from benchmarks.failures.mutations.problem import find_problem
from benchmarks.failures.mutations.sandbox import Sandbox
from benchmarks.failures.mutations.values import Mutation, mutate
from fcnlab.config.yaml_file import parse
from fcnlab.errors import FcnlabError
from fcnlab.lab import Lab

NAMED = ("--classes", "dataset one", "dataset two", "no dataset", "data check three")
"""Texts of errors that name a file by its option or its dataset."""


@dataclass(frozen=True)
class Subject:
    """A kind of file that is mutated.

    Attributes:
        name: name of the kind, as in a table.
        file: path of the file in the sandbox.
        contents: contents that are mutated.
        commands: commands that read the file, of which one is called.
        structured: whether keys and values can be mutated.
        normalize: returns what the file means, for the comparison before and after a mutation; None if that is unknown.
    """

    name: str
    file: Path
    contents: tuple[str, ...]
    commands: tuple[tuple[str, ...], ...]
    normalize: Callable[[], Any]
    structured: bool = True


def list_subjects(sandbox: Sandbox) -> list[Subject]:
    """Return the kinds of files, each with the lab that its commands need.

    Args:
        sandbox: the lab; files are written to it.
    """
    make_street(sandbox.lab / "street")
    grid, lab = sandbox.lab / "experiments" / "mutated.yaml", sandbox.lab
    subjects = [
        Subject(
            "grid files",
            grid,
            GRIDS,
            (("grid", "plan", str(grid), "--json"), ("grid", "status", str(grid)), ("weights", "list", str(grid))),
            lambda: describe_grid(Lab.find(grid).load_grid(grid)),
        )
    ]
    for kind, content in REGISTRY.items():
        commands: tuple[tuple[str, ...], ...] = (("registry", "list", kind, "--json"),)
        if kind == "datasets":
            checks = (("data", "check", "one"), ("data", "check", "two"))
            commands = (*checks, ("data", "stats", "three"), ("data", "list"))
        if kind == "extensions":
            commands = (("registry", "list", "heads"), ("registry", "list", "datasets"))
        file = lab / "registry" / f"{kind}.yaml"
        subjects.append(
            Subject(f"registry/{file.name}", file, (content,), commands, lambda: describe_registry(Lab.find(root=lab)))
        )
    return subjects


def list_text_subjects(sandbox: Sandbox) -> list[Subject]:
    """Return the kinds of text files of datasets, each with the lab that its commands need.

    Args:
        sandbox: the lab; files are written to it.
    """
    street, lab = sandbox.lab / "street", sandbox.lab
    make_street(street)
    (lab / "registry" / "datasets.yaml").write_text(REGISTRY["datasets"], encoding="utf-8")
    pairs = "".join(f"images/a{i}.png masks/a{i}_mask.png\n" for i in range(4))

    def read_ids() -> Any:
        found = Lab.find(root=lab)
        return found.open_dataset(found.registry.get("dataset", "one")).split("train").ids

    subjects = [
        Subject(
            "lists of a split",
            street / "train.txt",
            ("a0\na1\na2\na3\n", pairs, "images/a0.png\na1.png\na2\n", pairs.replace(" ", ", ")),
            (("data", "check", "one"), ("data", "stats", "one")),
            read_ids,
            structured=False,
        )
    ]
    for name, content in CLASS_LISTS.items():
        file = street / name
        command = ("data", "add", "new", "--images", "street/images", "--masks", "street/masks", "--dry-run")
        subjects.append(
            Subject(
                "lists of classes",
                file,
                (content,),
                ((*command, "--classes", str(file), "--ignore", "11"),),
                lambda: None,
                structured=name == "classes.yaml",
            )
        )
    return subjects


def make_street(folder: Path) -> None:
    """Write eight small images with masks.

    Args:
        folder: folder of the dataset.
    """
    numbers = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for index in range(8):
        picture = numbers.integers(0, 256, (24, 32), dtype=np.uint8)
        mask = numbers.choice(np.array([0, 1, 2, 3, 11], dtype=np.uint8), (24, 32))
        Image.fromarray(picture).save(folder / "images" / f"a{index}.png")
        Image.fromarray(mask).save(folder / "masks" / f"a{index}_mask.png")
    (folder / "train.txt").write_text("a0\na1\na2\na3\n", encoding="utf-8")
    (folder / "val.txt").write_text("a4\na5\n", encoding="utf-8")


def describe_grid(grid: Any) -> Any:
    """Return everything that a grid means, as plain values."""
    cells = [(cell.label, cell.content(), dict(cell.names), dict(cell.axes)) for cell in grid.cells]
    return cells, grid.seeds, grid.baseline.label, grid.axes, grid.file.model_dump()


def describe_registry(lab: Lab) -> Any:
    """Return all entries of a lab as plain values, and its extensions."""
    entries = lab.registry.entries
    listed = {
        kind: {name: repr(found) for name, found in lab.extensions.own(kind).items()}
        for kind in ("head", "dataset", "transform")
    }
    return listed, {kind: {name: repr(entry) for name, entry in named.items()} for kind, named in entries.items()}


def run_cases(sandbox: Sandbox, subject: Subject, count: int, chance: random.Random) -> Iterator[tuple[str, str]]:
    """Try mutations of a file.

    Args:
        sandbox: the lab.
        subject: the kind of file.
        count: number of mutations.
        chance: chooses the mutations.

    Yields:
        The kind of each mutation, and the problem if it failed, else an empty text.
    """
    original = subject.file.read_bytes() if subject.file.exists() else None
    before = {}
    for content in subject.contents:
        subject.file.write_text(content, encoding="utf-8")
        before[content] = repr(subject.normalize())
    for _ in range(count):
        content = chance.choice(subject.contents)
        mutation = _mutate(subject, content, chance)
        command = chance.choice(subject.commands)
        subject.file.write_bytes(mutation.content)
        result = sandbox.call(*command)
        problem = find_problem(result, [subject.file.name, f"{subject.file.parent}: ", *NAMED])
        if not problem and result.code == 0:
            problem = _find_ignored(subject, mutation, before[content])
        detail = f"{mutation.what}; {' '.join(command[:2])}: {problem}" if problem else ""
        yield f"{subject.name}: {mutation.kind}", detail
    subject.file.unlink()
    if original is not None:
        subject.file.write_bytes(original)


def _mutate(subject: Subject, content: str, chance: random.Random) -> Mutation:
    if subject.structured and chance.random() < 0.75:
        return mutate(parse(content, "original"), chance)
    return mutate_text(content.encode(), chance)


def _find_ignored(subject: Subject, mutation: Mutation, before: str) -> str:
    """Return the problem if a mutation was accepted without the effect that it must have."""
    if mutation.expected == "error":
        return "accepted, but must be refused"
    if mutation.expected == "any" or before == repr(None):
        return ""
    try:
        after = repr(subject.normalize())
    except FcnlabError as error:
        return f"the command accepts it, and reading it raises: {error}"
    if mutation.expected == "effect" and after == before:
        return "accepted without any effect"
    if mutation.expected == "same" and after != before:
        return "means something else"
    return ""
