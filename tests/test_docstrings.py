"""Docstrings have the form of Google's style guide: a summary, then Args, Returns and Raises."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.conftest import REPOSITORY

QUESTION_WORD = re.compile(r"^(What|How|Whether|Where|Why|Which|Who|When)\b")
NO_NOUN = re.compile(r"(of|that|with|to|and|whose|what|why|how|which)\b", re.IGNORECASE)


class Documented(NamedTuple):
    """A definition with a docstring."""

    location: str
    docstring: str
    arguments: tuple[str, ...]


def arguments_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> tuple[str, ...]:
    given = function.args
    names = [argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    names += [argument.arg for argument in (given.vararg, given.kwarg) if argument is not None]
    return tuple(name for name in names if name not in ("self", "cls"))


def definitions(body: list[ast.stmt], path: Path, *, public_only: bool) -> Iterator[Documented]:
    for node in body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if public_only and node.name.startswith("_"):
            continue
        docstring = ast.get_docstring(node)
        if docstring is not None:
            arguments = () if isinstance(node, ast.ClassDef) else arguments_of(node)
            yield Documented(f"{path.relative_to(REPOSITORY)}:{node.lineno} {node.name}", docstring, arguments)
        if isinstance(node, ast.ClassDef):
            yield from definitions(node.body, path, public_only=public_only)


def modules() -> list[Path]:
    return sorted(path for folder in ("fcnlab", "benchmarks") for path in (REPOSITORY / folder).rglob("*.py"))


def test_no_docstring_opens_with_a_question_word() -> None:
    found = []
    for path in modules():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        module = Documented(str(path.relative_to(REPOSITORY)), ast.get_docstring(tree) or "", ())
        for definition in (module, *definitions(tree.body, path, public_only=False)):
            if QUESTION_WORD.match(definition.docstring):
                found.append(f"{definition.location}: {definition.docstring.splitlines()[0]}")
    assert found == []


def entries_of(docstring: str) -> Iterator[tuple[str, str]]:
    """Yield the names and descriptions of Args and Attributes, and the first lines of Returns and Yields."""
    section = ""
    for line in docstring.splitlines():
        if line and not line.startswith(" "):
            section = line
        elif section in ("Args:", "Attributes:") and (entry := re.match(r" {4}([*`\w][^:]*): +(.+)", line)):
            yield entry[1], entry[2]
        elif section in ("Returns:", "Yields:") and line:
            yield section.removesuffix(":"), line.strip()
            section = ""


def test_entries_are_read_without_continuation_lines_and_other_sections() -> None:
    docstring = """Do it.

    Args:
        path: path of a file
            of: a continuation.
        mean, std: values.

    Returns:
        The result,
        of two lines.

    Raises:
        that: no entry.
    """
    expected = [("path", "path of a file"), ("mean, std", "values."), ("Returns", "The result,")]
    assert list(entries_of(inspect.cleandoc(docstring))) == expected


def test_descriptions_of_arguments_attributes_and_results_begin_with_their_own_noun() -> None:
    found = []
    for path in modules():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for definition in definitions(tree.body, path, public_only=False):
            for name, description in entries_of(definition.docstring):
                if NO_NOUN.match(description):
                    found.append(f"{definition.location}: {name}: {description}")
    assert found == []


def test_public_functions_document_their_arguments() -> None:
    """At least nine in ten public functions with arguments have an Args section; a command's options are its help."""
    with_arguments, without_section = 0, []
    for path in modules():
        if "cli" in path.relative_to(REPOSITORY).parts or path.name == "__main__.py":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for definition in definitions(tree.body, path, public_only=True):
            if definition.arguments:
                with_arguments += 1
                if not re.search(r"^\s*Args:", definition.docstring, re.MULTILINE):
                    without_section.append(definition.location)
    assert len(without_section) <= 0.1 * with_arguments, without_section
