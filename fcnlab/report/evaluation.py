"""Table of a grid's finished trials under a protocol, beside their plain metrics."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from fcnlab.atomic_file import write_atomically
from fcnlab.config.grid.grid import Grid
from fcnlab.console import format_count
from fcnlab.lab import Lab
from fcnlab.report.tables.columns import format_mean_std, format_number
from fcnlab.report.tables.csv_text import to_csv_text
from fcnlab.report.tables.formats import to_markdown
from fcnlab.report.tables.markdown_text import escape_markdown, escape_markdown_lines
from fcnlab.report.tables.table import Table
from fcnlab.runner.grid_state import claim_results
from fcnlab.runner.plan import PlannedTrial
from fcnlab.storage_errors import convert_write_errors
from fcnlab.trial.evaluation.evaluate import Evaluation, find_other_precision
from fcnlab.trial.record import SplitMetrics


@dataclass(frozen=True)
class EvaluatedTrial:
    """A finished trial of a grid with its plain metrics and those under a protocol.

    Attributes:
        planned: the trial.
        plain: metrics of its record.
        evaluation: metrics under the protocol.
    """

    planned: PlannedTrial
    plain: SplitMetrics
    evaluation: Evaluation


def evaluation_frame(grid: Grid, evaluated: list[EvaluatedTrial]) -> pd.DataFrame:
    """Return one row per cell: means over its n finished trials, and Δ to the plain metrics, paired by trial.

    Args:
        grid: the grid.
        evaluated: its evaluated trials.

    Returns:
        A frame with metrics as fractions of 1. `boundary_iou` is under the protocol.
    """
    rows = [
        {
            "cell": one.planned.cell.label,
            "plain_miou": one.plain.miou,
            "miou": one.evaluation.metrics.miou,
            "pixel_acc": one.evaluation.metrics.pixel_acc,
            "boundary_iou": one.evaluation.metrics.boundary_iou,
            "seconds_per_image": one.evaluation.seconds_per_image,
        }
        for one in evaluated
    ]
    trials = pd.DataFrame(rows).set_index("cell").astype(float)
    trials["delta"] = trials["miou"] - trials["plain_miou"]
    groups = trials.groupby("cell", sort=False)
    spreads = groups.std()[["plain_miou", "miou", "delta"]].add_suffix("_std")
    frame = pd.concat([groups.size().rename("n"), groups.mean(), spreads], axis=1).reset_index()
    order = {cell.label: index for index, cell in enumerate(grid.cells)}
    frame = frame.sort_values("cell", key=lambda cells: cells.map(order), ignore_index=True)
    frame["planned"] = len(grid.seeds)
    frame["baseline"] = frame["cell"] == grid.baseline.label
    return frame


def evaluation_table(grid: Grid, frame: pd.DataFrame) -> Table:
    """Format the frame: percentages with one decimal.

    Args:
        grid: the grid, for the display names of its cells.
        frame: result of `evaluation_frame`.

    Returns:
        The table.
    """
    headings = ("cell", "n", "plain mIoU %", "mIoU %", "Δ mIoU", "acc. %", "boundary IoU %", "s/image")
    rows = tuple(
        (
            grid.display_name(str(row["cell"])),
            f"{row['n']}" if row["n"] == row["planned"] else f"{row['n']} of {row['planned']}",
            format_mean_std(row["plain_miou"], row["plain_miou_std"]),
            format_mean_std(row["miou"], row["miou_std"]),
            format_mean_std(row["delta"], row["delta_std"], sign=True),
            format_number(100 * row["pixel_acc"], 1),
            format_number(100 * row["boundary_iou"], 1),
            format_number(row["seconds_per_image"], 3),
        )
        for _, row in frame.iterrows()
    )
    return Table(headings, rows, 1)


def evaluation_footnote(evaluated: list[EvaluatedTrial]) -> str:
    """Return a footnote that describes the table.

    Args:
        evaluated: the evaluated trials.

    Returns:
        The text.
    """
    one = evaluated[0].evaluation
    epoch = "the last epoch" if one.metrics.checkpoint == "last" else "the epoch that is best on val"
    where = ", ".join(sorted({f"{r.evaluation.device}, {r.evaluation.precision}" for r in evaluated}))
    return (
        f"Protocol {one.name} on {_list_splits(evaluated)} at native size, at {epoch}, beside the plain metrics of the "
        f"same weights; Δ is the difference to them, by trial. Mean ± standard deviation over n seeds. "
        f"Seconds per image include decoding, on {where}.{_describe_other_precisions(evaluated)}"
    )


def _describe_other_precisions(evaluated: list[EvaluatedTrial]) -> str:
    """Return a sentence about the trials whose plain metrics are of another precision; empty if there are none."""
    others = [
        recorded
        for one in evaluated
        if one.planned.record is not None
        and (recorded := find_other_precision(one.planned.record, one.evaluation)) is not None
    ]
    if not others:
        return ""
    trials, names = format_count(len(others), "trial"), " and ".join(sorted(set(others)))
    return f" The plain metrics of {trials} are of {names}, so that Δ includes this change."


def _list_splits(evaluated: list[EvaluatedTrial]) -> str:
    """List the evaluated splits; several ones with the names of their datasets."""
    datasets: dict[str, dict[str, None]] = {}
    for one in evaluated:
        datasets.setdefault(one.evaluation.metrics.split, {})[one.planned.trial.names["dataset"]] = None
    if len(datasets) == 1:
        return next(iter(datasets))
    return " and ".join(f"{split} ({', '.join(names)})" for split, names in datasets.items())


def write_evaluation(grid: Grid, evaluated: list[EvaluatedTrial], frame: pd.DataFrame, lab: Lab, slug: str) -> Path:
    """Write `results/<grid>/evaluation-<slug>.md` and `.csv`.

    Args:
        grid: the grid.
        evaluated: its evaluated trials.
        frame: their result of `evaluation_frame`.
        lab: lab of the grid.
        slug: name of the protocol in the file name.

    Returns:
        Path of the Markdown page.

    Raises:
        RunError: they cannot be written.
    """
    claim_results(grid, lab)
    page = lab.results / grid.name / f"evaluation-{slug}.md"
    title = f"{grid.name}: {evaluated[0].evaluation.name}"
    lines = [f"# {escape_markdown(title)}", "", f"**{escape_markdown(grid.file.question)}**", ""]
    lines += [to_markdown(evaluation_table(grid, frame)), escape_markdown_lines(evaluation_footnote(evaluated)), ""]
    with convert_write_errors(page):
        page.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(page, lambda file: file.write("\n".join(lines).encode()))
        write_atomically(page.with_suffix(".csv"), lambda file: file.write(to_csv_text(frame).encode()))
    return page
