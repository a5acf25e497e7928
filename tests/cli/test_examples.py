"""Every `fcnlab` command in help texts, the README and the documentation is valid, and the quick ones run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from fcnlab import cli
from fcnlab.lab import Lab
from fcnlab.runner.plan import make_plan
from tests.cli.conftest import Call
from tests.conftest import REPOSITORY
from tests.report.finished_grid import RIGHT, finish

PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md"))]

PLACEHOLDERS = {
    "FILE:CELL:SEED": "experiments/quickstart.yaml:fcn8s,random:0",
    "FILE:CELL": "experiments/quickstart.yaml:fcn8s,random",
    "FILE:best": "experiments/quickstart.yaml:best",
    "FILE": "experiments/quickstart.yaml",
    "TRIAL": "0123456789ab",
    "KEY": "0123456789ab",
    "K": "2",
}

QUICK = (
    *("grid plan", "grid schema", "grid status", "grid reproduce", "report", "compare", "diff"),
    *("registry list", "registry show", "data list", "data cache list"),
)
"""Commands whose examples are run; the others train, download, serve, or load a model."""

ROOT = typer.main.get_command(cli.app)


def commands_of(group: Any, words: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    if not hasattr(group, "commands"):
        return {words: group}
    return {
        path: command
        for name, child in group.commands.items()
        for path, command in commands_of(child, (*words, name)).items()
    }


COMMANDS = commands_of(ROOT)
HELP = {words: str(command.epilog).removeprefix("Example: ") for words, command in COMMANDS.items() if command.epilog}


def commands_in_page(page: Path) -> list[tuple[str, bool]]:
    """Return the commands of a page, and whether each is a line of its own: others may leave out arguments."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = re.findall(r"^(?:    |\$ |    \$ |> )?(fcnlab (?:--)?[a-z].*)$", text, re.MULTILINE)
    blocks = "".join(re.findall(r"^```.*?^```|^(?: {4}.*\n)+", text, re.MULTILINE | re.DOTALL))
    own = [line for line in lines if line in blocks]
    inline = re.findall(r"(?<!`)`(fcnlab [^`\n]+)`", text)
    return [(line, True) for line in own] + [(span, False) for span in inline]


def split(command: str) -> list[list[str]]:
    """Split a line of shell into the words of its fcnlab commands, with placeholders resolved."""
    pattern = "|".join(rf"\b{name}\b" for name in PLACEHOLDERS)
    command = re.sub(pattern, lambda found: PLACEHOLDERS[found[0]], command)
    words = shlex.split(command, comments=True)
    parts: list[list[str]] = [[]]
    for word in words:
        if word in ("&&", "&", "|", ">"):
            parts.append([])
        else:
            parts[-1].append(word)
    return [part[1:] for part in parts if part[:1] == ["fcnlab"]]


def parse(words: list[str], *, whole: bool) -> None:
    """Parse the words of a command, without running it."""
    options = [word for word in words if word.startswith("-")]
    if words[:1] and words[0].startswith("--"):
        ROOT.make_context("fcnlab", [words[0]], resilient_parsing=True)
        words = words[1:]
    found = next((path for path in COMMANDS if tuple(words[: len(path)]) == path), None)
    if found is None:
        groups = {path[:count] for path in COMMANDS for count in range(len(path))}
        assert tuple(words) in groups or (not words and options), f"no such command: {' '.join(words)}"
        return
    try:
        COMMANDS[found].make_context("fcnlab", words[len(found) :])
    except typer.Exit:  # --help
        return
    except Exception as error:
        if type(error).__name__ not in ("MissingParameter", "NoArgsIsHelpError") or whole:
            raise AssertionError(str(error)) from error


def test_the_pages_have_commands() -> None:
    assert sum(len(commands_in_page(page)) for page in PAGES) > 60


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_the_documentation_is_valid(page: Path) -> None:
    errors = []
    for command, whole in commands_in_page(page):
        if "..." in command:
            continue
        for words in split(command):
            try:
                parse(words, whole=whole)
            except AssertionError as error:
                errors.append(f"{command}: {error}")
    assert not errors, "\n".join(errors)


@pytest.mark.parametrize("example", HELP.values(), ids=[" ".join(words) for words in HELP])
def test_every_example_of_a_help_text_is_valid(example: str) -> None:
    for words in split(example):
        parse(words, whole=True)


@pytest.fixture
def lab(fcnlab: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A lab as `fcnlab init` creates it, in which the first grid has finished."""
    assert fcnlab("init", "mylab").code == 0
    monkeypatch.chdir(tmp_path / "mylab")
    lab = Lab.find()
    for planned in make_plan(lab.load_grid(Path("experiments/quickstart.yaml")), lab).trials:
        finish(planned, RIGHT[planned.trial.names["head"]])
    return lab


def test_the_quick_examples_run_in_a_finished_lab(fcnlab: Call, lab: Lab) -> None:
    for words, example in HELP.items():
        if " ".join(words) in QUICK:
            (arguments,) = split(example)
            done = fcnlab(*arguments)
            assert done.code == 0, f"{example}: {done.err}"
            assert done.out, example
    assert (lab.results / "quickstart" / "table.md").is_file()
