"""The families of cases, and what fcnlab does in each kind of case."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from pathlib import Path

from benchmarks.failures.mutations import command_lines, odd_names, pictures, yaml_files
from benchmarks.failures.mutations.model import write_model
from benchmarks.failures.mutations.sandbox import Sandbox
from benchmarks.failures.outcomes import Tally

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


def _count(tally: Tally, cases: Iterable[tuple[str, str]]) -> None:
    """Add cases, each with its kind and its problem or an empty text."""
    for detailed, problem in cases:
        kind = re.sub("^(command lines|names of files): .*", r"\1", detailed)
        kind = re.sub(r"^registry/\w+\.yaml", "registry files", kind)
        expected = next(text for start, text in EXPECTED.items() if kind.startswith(start))
        tally.add(kind, expected, problem)


def run_family(root: Path, family: str, count: int | None, seed: int) -> Tally:
    """Try the cases of a family in an empty lab.

    Args:
        root: folder of the lab.
        family: `grids`: mutated grid files; `files`: those of the registry, and lists of splits and of classes;
            `pictures`: mutated images and masks; `command lines`; `names`: unusual names of files, and things in their
            place.
        count: number of cases, which is divided among the kinds of files; of names and things, the number for each
            file, None for all.
        seed: seed of the cases.

    Returns:
        The counts.
    """
    sandbox, tally, chance = Sandbox(root), Tally(), random.Random(f"{seed} {family}")
    with sandbox.active():
        if family in ("grids", "files"):
            subjects = list_subjects(sandbox, grids=family == "grids")
            for subject in subjects:
                chance = random.Random(f"{seed} {subject.name} {subject.file.name}")
                _count(tally, yaml_files.run_cases(sandbox, subject, max(1, (count or 0) // len(subjects)), chance))
        elif family == "command lines":
            write_model(sandbox.lab / "model.safetensors")
            _count(tally, command_lines.run_cases(sandbox, count or 0, chance))
        else:
            model = write_model(sandbox.root / "model.safetensors")
            if family == "pictures":
                _count(tally, pictures.run_cases(sandbox, model, count or 0, chance))
            else:
                _count(tally, odd_names.run_cases(sandbox, model, count))
    return tally


def list_subjects(sandbox: Sandbox, *, grids: bool) -> list[yaml_files.Subject]:
    """Return the kinds of text files.

    Args:
        sandbox: the lab.
        grids: grid files; otherwise all others.
    """
    found = yaml_files.list_subjects(sandbox)
    return found[:1] if grids else [*found[1:], *yaml_files.list_text_subjects(sandbox)]
