"""Code, messages and documentation use the terms of docs/glossary.md, and none of the retired words below."""

from __future__ import annotations

import re
from pathlib import Path

from tests.conftest import REPOSITORY

RETIRED = {
    # word: the term to use
    "alike": "comparable, the same",
    "anew": "again",
    "apart": "separate, isolated, except for",
    "aside": "except for",
    "begun": "started",
    "behaviour": "behavior",
    "book": "tracker, MLflow experiment",
    "books": "trackers, MLflow experiments",
    "catalog": "registry",
    "catalogue": "registry",
    "catalogues": "registries",
    "centre": "center",
    "colour": "color",
    "colours": "colors",
    "desk": "run index",
    "dismiss": "shut down",
    "drawn": "sampled, plotted",
    "ears": "a reader's literal name",
    "farewell": "a message's literal name",
    "fault": "error, problem",
    "faults": "errors, problems",
    "faulty": "invalid",
    "figures": "metrics",
    "findings": "summary text",
    "fruitless": "failed",
    "grey": "gray",
    "hire": "create",
    "hires": "creates",
    "hopeless": "pruned",
    "initialisation": "initialization",
    "initialise": "initialize",
    "initialised": "initialized",
    "introduction": "a message's literal name",
    "judge": "evaluate, test",
    "judged": "significance",
    "judges": "evaluates, tests",
    "kin": "similar",
    "lain": "was located",
    "learnt": "conclusion, learned",
    "lie": "be located",
    "lies": "is located",
    "mouth": "a writer's literal name",
    "neighbour": "neighbor",
    "neighbours": "neighbors",
    "news": "update",
    "nobody": "no one; name the process or user",
    "normalise": "normalize",
    "normalised": "normalized",
    "normalises": "normalizes",
    "onlooker": "status reader",
    "optimiser": "optimizer",
    "optimisers": "optimizers",
    "outlook": "eta",
    "outpost": "Ray worker",
    "outposts": "Ray workers",
    "pace": "cost estimate, speed",
    "paces": "cost estimates, speeds",
    "said": "set, specified, reported",
    "say": "set, specify, report",
    "saying": "setting, specifying, reporting",
    "says": "sets, specifies, reports",
    "settle": "handle an exit",
    "settled": "handled, resolved",
    "settles": "handles an exit, resolves",
    "someones": "a user's",
    "stand": "appear, be",
    "standing": "compared",
    "stands": "appears, is",
    "stilled": "fixed",
    "stood": "was",
    "tell": "report, show",
    "tells": "reports, shows",
    "told": "reported, specified",
    "untold": "not reported",
    "verdict": "result",
    "whoever": "name the user or process",
}

FOLDERS = ("fcnlab", "registry", "experiments", "tests", "benchmarks", "docs")
SUFFIXES = {".py", ".md", ".yaml", ".c", ".h", ".css", ".js", ".j2", ".sh", ".toml", ".cff"}

ALLOWED: dict[str, set[str]] = {
    "CHANGELOG.md": {"learnt"},
    "README.md": {"book"},
    "docs/glossary.md": set(RETIRED),
    "docs/gpu.md": {"grey"},
    "fcnlab/config/grid/file.py": {"learnt"},
    "fcnlab/data/datasets/ade20k.py": {"book", "desk"},
    "fcnlab/data/datasets/labels.py": {"colours"},
    "registry/variants.yaml": {"book"},
    "tests/test_vocabulary.py": set(RETIRED),
}
"""Retired words that a file may contain: old keys, class names of ADE20K, measured texts, keys of caches, the
d2l book."""


def files() -> list[Path]:
    """Return every text file of the project that a person writes: no results, no measurements."""
    found = [path for path in REPOSITORY.iterdir() if path.suffix in SUFFIXES]
    for folder in FOLDERS:
        found += [path for path in (REPOSITORY / folder).rglob("*") if path.suffix in SUFFIXES and path.is_file()]
    return sorted(path for path in found if "__pycache__" not in path.parts)


def words_of(line: str) -> set[str]:
    """Return the words of a line in lower case; names in snake_case and CamelCase count as several words."""
    return set(re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", line).lower()))


def test_words_of_names_are_separated() -> None:
    assert words_of("def hire_one(OutpostNews): faults") == {"def", "hire", "one", "outpost", "news", "faults"}


def test_no_file_contains_a_retired_word() -> None:
    found = []
    for path in files():
        name = path.relative_to(REPOSITORY).as_posix()
        forbidden = RETIRED.keys() - ALLOWED.get(name, set())
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            found += [f"{name}:{number}: {word}: use {RETIRED[word]}" for word in words_of(line) & forbidden]
    assert found == []


def test_every_term_of_the_glossary_has_one_line() -> None:
    page = (REPOSITORY / "docs" / "glossary.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([a-z -]+) \| (.+) \|$", page, re.MULTILINE)
    terms = [term for term, meaning in rows if term != "term"]
    assert len(terms) >= 30
    assert len(terms) == len(set(terms))
    assert not set(terms) & RETIRED.keys()
