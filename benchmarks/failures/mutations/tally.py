"""Counts of the cases of each kind, and the families of cases."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.failures.mutations import command_lines, odd_names, pictures, yaml_files
from benchmarks.failures.mutations.model import write_model
from benchmarks.failures.mutations.sandbox import Sandbox
from benchmarks.failures.outcomes import Outcome

EXPECTED = {
    "grid files": "an error with file and key, and the line if it is not YAML; or the mutation has its effect",
    "registry": "as for grid files",
    "lists": "an error with the file, and the line of a list of a split; or the mutation has its effect",
    "images": "`data check` lists all problems; other commands name the first file, and `predict` skips it",
    "command lines": "an error with the option or value; no file outside of the lab is written",
    "names": "valid names work, others are an error",
    "things": "an error with the file and its kind; Windows line ends and byte order marks are read",
}
"""What fcnlab does, by the start of the kind."""


@dataclass
class Tally:
    """The cases that were tried, by kind.

    Attributes:
        tried: number of cases.
        bad: one line for each case that ended badly.
    """

    tried: dict[str, int] = field(default_factory=dict)
    bad: dict[str, list[str]] = field(default_factory=dict)

    def add(self, cases: Iterable[tuple[str, str]]) -> None:
        """Count cases.

        Args:
            cases: the kind of each, and its problem or an empty text.
        """
        for detailed, problem in cases:
            kind = re.sub("^(command lines|names of files): .*", r"\1", detailed)
            kind = re.sub(r"^registry/\w+\.yaml", "registry files", kind)
            self.tried[kind] = self.tried.get(kind, 0) + 1
            if problem:
                self.bad.setdefault(kind, []).append(problem)
                print(f"{detailed}: {problem}", flush=True)

    def outcomes(self) -> Iterator[Outcome]:
        """Yield the counts of each kind."""
        for kind, tried in self.tried.items():
            expected = next(text for start, text in EXPECTED.items() if kind.startswith(start))
            yield Outcome(kind, tried, tuple(self.bad.get(kind, ())), expected)


def try_files(sandbox: Sandbox, count: int, seed: int, *, grids: bool) -> Tally:
    """Try mutated text files.

    Args:
        sandbox: an empty lab.
        count: number of cases, which is divided among the kinds of files.
        seed: seed of the mutations.
        grids: mutate grid files; otherwise the files of the registry, and lists of splits and of classes.

    Returns:
        The counts.
    """
    tally = Tally()
    with sandbox.active():
        subjects = list_subjects(sandbox, grids=grids)
        for subject in subjects:
            chance = random.Random(f"{seed} {subject.name} {subject.file.name}")
            tally.add(yaml_files.run_cases(sandbox, subject, max(1, count // len(subjects)), chance))
    return tally


def try_pictures(sandbox: Sandbox, count: int, seed: int) -> Tally:
    """Try mutated images and masks.

    Args:
        sandbox: an empty lab.
        count: number of cases.
        seed: seed of the mutations.

    Returns:
        The counts.
    """
    tally = Tally()
    with sandbox.active():
        model = write_model(sandbox.root / "model.safetensors")
        tally.add(pictures.run_cases(sandbox, model, count, random.Random(f"{seed} pictures")))
    return tally


def try_command_lines(sandbox: Sandbox, count: int, seed: int) -> Tally:
    """Try random command lines.

    Args:
        sandbox: an empty lab.
        count: number of cases.
        seed: seed of the command lines.

    Returns:
        The counts.
    """
    tally = Tally()
    with sandbox.active():
        write_model(sandbox.lab / "model.safetensors")
        tally.add(command_lines.run_cases(sandbox, count, random.Random(f"{seed} command lines")))
    return tally


def try_names(sandbox: Sandbox, limit: int | None) -> Tally:
    """Try unusual names and unusual things in the place of files.

    Args:
        sandbox: an empty lab.
        limit: number of names and of things for each file; None for all.

    Returns:
        The counts.
    """
    tally = Tally()
    with sandbox.active():
        model = write_model(sandbox.root / "model.safetensors")
        tally.add(odd_names.run_cases(sandbox, model, limit))
    return tally


def list_subjects(sandbox: Sandbox, *, grids: bool) -> list[yaml_files.Subject]:
    """Return the kinds of text files.

    Args:
        sandbox: the lab.
        grids: grid files; otherwise all others.
    """
    found = yaml_files.list_subjects(sandbox)
    return found[:1] if grids else [*found[1:], *yaml_files.list_text_subjects(sandbox)]


def run_job(job: Callable[[Sandbox], Tally], root: Path) -> Tally:
    """Run a family of cases.

    Args:
        job: function that tries them.
        root: folder of their lab.

    Returns:
        The counts.
    """
    return job(Sandbox(root))
