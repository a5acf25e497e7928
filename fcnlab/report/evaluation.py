"""What a protocol makes of a grid's finished trials, beside their plain figures and never in their place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from fcnlab.config.grid.grid import Grid
from fcnlab.errors import RunError
from fcnlab.lab import Lab
from fcnlab.report.tables.cells import Table
from fcnlab.report.tables.columns import number, spread
from fcnlab.report.tables.formats import to_markdown
from fcnlab.runner.plan import PlannedTrial
from fcnlab.trial.evaluate import Evaluation
from fcnlab.trial.record import SplitMetrics


@dataclass(frozen=True)
class Rescored:
    """A finished trial of a grid: what its record says, and what the protocol gives."""

    planned: PlannedTrial
    plain: SplitMetrics
    under: Evaluation


def score_frame(grid: Grid, rescored: list[Rescored]) -> pd.DataFrame:
    """One row a cell of which a trial has finished: means over its n trials, and Δ paired trial by trial.

    Figures are fractions of 1. `boundary_iou` is the protocol's.
    """
    rows = [
        {
            "cell": one.planned.cell.label,
            "plain_miou": one.plain.miou,
            "miou": one.under.metrics.miou,
            "pixel_acc": one.under.metrics.pixel_acc,
            "boundary_iou": one.under.metrics.boundary_iou,
            "seconds_per_image": one.under.seconds_per_image,
        }
        for one in rescored
    ]
    trials = pd.DataFrame(rows).set_index("cell").astype(float)
    trials["delta"] = trials["miou"] - trials["plain_miou"]
    groups = trials.groupby("cell", sort=False)
    spreads = groups.std()[["plain_miou", "miou", "delta"]].add_suffix("_std")
    frame = pd.concat([groups.size().rename("n"), groups.mean(), spreads], axis=1).reset_index()
    order = {cell.label: place for place, cell in enumerate(grid.cells)}
    frame = frame.sort_values("cell", key=lambda cells: cells.map(order), ignore_index=True)
    frame["planned"] = len(grid.seeds)
    frame["baseline"] = frame["cell"] == grid.baseline.label
    return frame


def score_table(frame: pd.DataFrame) -> Table:
    """The frame as a person reads it: percentages with one decimal, the baseline marked."""
    headings = ("cell", "n", "plain mIoU %", "mIoU %", "Δ mIoU", "acc. %", "boundary IoU %", "s/image")
    rows = tuple(
        (
            str(row["cell"]),
            f"{row['n']}" if row["n"] == row["planned"] else f"{row['n']} of {row['planned']}",
            spread(row["plain_miou"], row["plain_miou_std"]),
            spread(row["miou"], row["miou_std"]),
            spread(row["delta"], row["delta_std"], sign=True),
            number(100 * row["pixel_acc"], 1),
            number(100 * row["boundary_iou"], 1),
            number(row["seconds_per_image"], 3),
        )
        for _, row in frame.iterrows()
    )
    marked = frame.index[frame["baseline"]]
    return Table(headings, rows, 1, int(marked[0]) if len(marked) else -1)


def score_footnote(rescored: list[Rescored]) -> str:
    """What the figures are."""
    one = rescored[0].under
    epoch = "the last epoch" if one.metrics.checkpoint == "last" else "the epoch that is best on val"
    where = ", ".join(sorted({f"{r.under.device}, {r.under.precision}" for r in rescored}))
    return (
        f"Protocol {one.name} on {one.metrics.split} at native size, at {epoch}, beside the plain figure of the same "
        f"weights; Δ is to that figure. Seconds an image with decoding, on {where}."
    )


def write_scores(grid: Grid, rescored: list[Rescored], lab: Lab, slug: str) -> Path:
    """Write `results/<grid>/score-<slug>.md` and `.csv`; returns the path of the first.

    Raises:
        RunError: they cannot be written.
    """
    frame = score_frame(grid, rescored)
    page = lab.results / grid.name / f"score-{slug}.md"
    lines = [f"# {grid.name}: {rescored[0].under.name}", "", f"**{grid.file.question}**", ""]
    lines += [to_markdown(score_table(frame)), score_footnote(rescored), ""]
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text("\n".join(lines), encoding="utf-8")
        frame.to_csv(page.with_name(f"score-{slug}.csv"), index=False, float_format="%.6g")
    except OSError as error:
        raise RunError(f"{page}: cannot be written: {error.strerror}") from None
    return page
