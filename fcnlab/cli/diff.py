"""`fcnlab diff`: show the differences between two trials."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

from fcnlab.cli.options import DataRoot, LabOption
from fcnlab.cli.output import AsJson, print_json
from fcnlab.cli.references import TRIAL_FORMS, find_named_trials, reference_argument
from fcnlab.console import create_console, format_table
from fcnlab.constants import KEY_DIGITS

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fcnlab.trial.diff import Difference
    from fcnlab.trial.record import Record

EXAMPLE = (
    "Example: fcnlab diff experiments/quickstart.yaml:fcn32s,bilinear:0 experiments/quickstart.yaml:fcn8s,bilinear:0"
)


def diff(
    a: Annotated[str, reference_argument("A", f"The first trial: {TRIAL_FORMS}")],
    b: Annotated[str, reference_argument("B", "The second trial, named in the same way")],
    as_json: AsJson = False,
    lab: LabOption = None,
    data_root: DataRoot = None,
) -> None:
    """Show every field in which two trials differ.

    These are fields of the configuration, the data, the code, the environment, the metrics and the cost.
    """
    from fcnlab.lab import Lab
    from fcnlab.runner.find import find_grid_file

    lab_ = Lab.find(find_grid_file(a, b), root=lab, data_root=data_root)
    first, second = find_named_trials(a, b, lab=lab_)
    records = first.read_record(), second.read_record()

    from fcnlab.trial.diff import diff_records

    differences = diff_records(*records)
    if as_json:
        _print_values(records, differences)
    else:
        terminal = create_console()
        for name, record in zip("AB", records, strict=True):
            terminal.print(f"{name}: {_title(record)}", soft_wrap=True)
        terminal.print(_table(differences, terminal.width) if differences else "no field differs")


def _title(record: Record) -> str:
    names = record.trial.get("names", {})
    parts = [names.get(part, "") for part in ("variant", "dataset", "recipe")]
    return f"{record.key[:KEY_DIGITS]}  {', '.join(filter(None, parts))}, seed {record.trial['seed']}, {record.status}"


def _table(differences: list[Difference], width: int) -> RenderableType:
    rows: list[tuple[str, ...]] = []
    for section, group in groupby(differences, lambda difference: difference.section):
        rows.append((section, "", "", ""))
        rows += [tuple(_row(difference)) for difference in group]
    return format_table(("", "A", "B", "B - A"), rows, width, numbers=[3])


def _row(difference: Difference) -> Iterator[str]:
    """Format metrics in percent, as in every table, and other numbers unchanged."""
    from fcnlab.report.tables.columns import format_points

    percent = difference.section == "metrics"
    yield f"  {difference.field}"
    for value in (difference.a, difference.b):
        yield _text(value, percent)
    delta = difference.delta
    if delta is None or difference.section not in ("metrics", "cost"):
        yield ""
    elif percent:
        yield format_points(delta, 2)
    else:
        yield f"{delta:+,}" if isinstance(delta, int) else f"{delta:+,.6g}"


def _text(value: Any, percent: bool) -> str:
    from fcnlab.config.grid.axes import format_value

    if value is None:
        return "–"
    if percent:
        return f"{100 * value:.2f}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return format_value(value)
    return f"{value:,.6g}" if isinstance(value, float) else f"{value:,}"


def _print_values(records: tuple[Record, Record], differences: list[Difference]) -> None:
    import dataclasses

    trials = {
        name: {"key": record.key, "names": record.trial.get("names", {}), "seed": record.trial["seed"]}
        for name, record in zip("ab", records, strict=True)
    }
    fields = [dataclasses.asdict(difference) | {"delta": difference.delta} for difference in differences]
    print_json({**trials, "differences": fields})
