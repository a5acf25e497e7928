"""The problem of a command that has failed."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable

from benchmarks.failures.mutations.sandbox import Result

LONGEST_LINE = 2000
"""Maximum number of characters of a line that is still clear; lists of valid names are long."""

MOST_LINES = 100
"""Maximum number of lines of errors; a file can have several."""


def find_problem(
    result: Result, names: Iterable[str] = (), codes: Collection[int] = (0, 2), *, inside: str = ""
) -> str:
    """Return why a command has failed, or an empty text.

    Args:
        result: the end of the command.
        names: texts of which the error must contain one: the name of the mutated file or its folder.
        codes: exit codes that are allowed.
        inside: folder in which the command may create files; empty if it may create none.

    Returns:
        One line.
    """
    if result.crash:
        return result.crash
    if "Traceback (most recent call last)" in result.err + result.out:
        return f"prints a traceback: {result.err[-200:]!r}"
    misplaced = [path for path in result.created if not inside or not path.startswith(f"{inside}{os.sep}")]
    if result.touched or misplaced:
        return f"changes {', '.join([*result.touched, *misplaced][:3])}"
    if result.code not in codes:
        return f"exit code {result.code}: {result.err[:200]!r}"
    if result.code == 0:
        return ""
    lines = result.err.splitlines()
    if not lines and not result.out:
        return f"exit code {result.code} without output"
    if len(lines) > MOST_LINES:
        return f"{len(lines)} lines of errors"
    longest = max(lines, key=len, default="")
    if len(longest) > LONGEST_LINE:
        return f"an error of {len(longest)} characters: {longest[:120]!r}"
    if not any(name in result.err + result.out for name in names):
        return f"the error does not name the file: {result.err[:300]!r}"
    return ""
