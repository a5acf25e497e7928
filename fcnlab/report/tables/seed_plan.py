"""Table of the number of additional seeds that would show a difference. For planning, not evidence."""

from __future__ import annotations

from fcnlab.analysis import SeedPlan, plan_seeds
from fcnlab.report.report import Report
from fcnlab.report.tables.columns import MISSING
from fcnlab.report.tables.table import Table

NOTE = (
    "Planning, not evidence: additional seeds for a power of 80 % at the 5 % level of one comparison, from the spread "
    "observed so far; cautious: at the upper 80 % limit of that spread. Report seeds that are added after looking at a "
    "result."
)


def make_seed_table(report: Report, points: float) -> Table:
    """Return the number of additional seeds that each cell needs to show a true difference to the baseline.

    Args:
        report: report of a grid.
        points: the difference in percentage points of mIoU.

    Raises:
        RunError: the difference is not above 0.
    """
    rows = tuple(
        _make_row(report.grid.display_name(cell), plan_seeds(one.difference, points / 100))
        for cell, one in report.significance.comparisons.items()
    )
    return Table(("cell", "seeds now", f"more for {points:g} points", "cautious", "remark"), rows, 1)


def _make_row(cell: str, plan: SeedPlan) -> tuple[str, ...]:
    cautious = MISSING if plan.cautious is None else str(max(0, plan.cautious - plan.have))
    more = MISSING if plan.more is None else str(plan.more)
    return cell, str(plan.have), more, cautious, plan.note
