"""Output that several commands share: the options `--json` and `--verbose`, documents, progress bars, damaged files."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fcnlab.console import GAP, column_widths, create_console
from fcnlab.errors import RunError
from fcnlab.redaction import RedactedStream, find_control_character, redact_values
from fcnlab.storage_errors import describe_reason

if TYPE_CHECKING:
    from fcnlab.runner.plan import Plan

LEAST = 20
"""Least space for a description that is shortened."""

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document to standard output, and nothing else")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show long texts in full, over several lines")]


def print_json(value: Any, *, indent: int | None = 1, ascii_only: bool = True) -> None:
    """Print a value as one JSON document without secrets. Missing numbers (NaN) are null, and paths are texts.

    Args:
        value: the value.
        indent: spaces of each level; None to print it on one line.
        ascii_only: escape all other characters; if False, only where a control character is among them.
    """
    plain = redact_values(_to_plain(value))
    text = json.dumps(plain, indent=indent, allow_nan=False, ensure_ascii=ascii_only)
    if find_control_character(text) is not None:
        text = json.dumps(plain, indent=indent, allow_nan=False)
    # Removing secrets from the encoded text could make the document invalid.
    typer.echo(text, file=sys.stdout.original if isinstance(sys.stdout, RedactedStream) else None)


def _to_plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _to_plain(item) for key, item in value.items()}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_to_plain(item) for item in value]
    return value


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the file of the option `--csv`, with the keys of the first row as heading.

    Raises:
        RunError: the file cannot be written.
    """
    from fcnlab.report.tables.csv_text import rows_to_csv_text

    try:
        path.write_text(rows_to_csv_text(rows), encoding="utf-8", newline="")
    except OSError as error:
        raise RunError(f"--csv: {path} cannot be written: {describe_reason(error)}") from None


def fit_last_column(headings: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[tuple[str, ...]]:
    """Return the headings and rows with the last texts shortened between words, so that each row takes one line.

    The last column is left out where there is space for less than `LEAST` characters.
    """
    rest = sum(size + GAP for size in column_widths(headings[:-1], [row[:-1] for row in rows]))
    room = width - rest
    if room < LEAST:
        return [tuple(row[:-1]) for row in (headings, *rows)]
    return [tuple(headings), *((*row[:-1], shorten(row[-1], room, placeholder=" ...")) for row in rows)]


@contextmanager
def sample_bars() -> Iterator[Callable[[str, int], Callable[[], object]]]:
    """Yield a function that starts a bar on standard error: (label, total) -> a function that advances it by one.

    Nothing is printed without a terminal.
    """
    terminal = create_console(stderr=True)
    if not terminal.is_terminal:  # a disabled `Progress` prints an empty line with rich 13.9 to 14.2
        yield lambda *_: lambda: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=terminal, transient=True) as bars:
        yield lambda label, total: partial(bars.advance, bars.add_task(label, total=total))


def report_missing_inputs(*plans: Plan) -> None:
    """Print one line to standard error if recorded fingerprints replace those of missing data or weights.

    Args:
        *plans: the plans of the grids that a command has read.
    """
    for line in dict.fromkeys(plan.missing_inputs for plan in plans):
        if line is not None:
            typer.echo(line, err=True)


def report_damage(*plans: Plan) -> None:
    """Print one line per trial with damaged or unusable files to standard error, and exit with 1 if there is one.

    Args:
        *plans: the plans of the grids that a command has read.
    """
    lines = list(dict.fromkeys(line for plan in plans for line in plan.damages))
    if not lines:
        return
    moved = any(line.startswith("damaged: ") for line in lines)
    remedy = "; `fcnlab grid run` moves damaged files and runs the trials again" if moved else ""
    typer.echo("\n".join([*lines, f"they are left out{remedy}"]), err=True)
    raise typer.Exit(1)
