"""How many seeds more would show a difference: for planning, never as evidence."""

from __future__ import annotations

from fcnlab.analysis import SeedPlan, plan_seeds
from fcnlab.report.report import Report
from fcnlab.report.tables.cells import Table

NOTE = (
    "Planning, not evidence: seeds needed for a power of 80 % at the 5 % level of one comparison, from the spread "
    "observed so far; cautious: at the upper 80 % limit of that spread. Seeds that are added after looking at a result "
    "are to be marked as such."
)


def seeds_table(report: Report, points: float) -> Table:
    """For each cell, how many seeds would show a true difference of so many points to the baseline.

    Raises:
        RunError: the difference is not above 0.
    """
    plans = {cell: plan_seeds(one.difference, points / 100) for cell, one in report.significance.comparisons.items()}
    rows = tuple(_row(cell, plan) for cell, plan in plans.items())
    return Table(("cell", "seeds now", f"more for {points:g} points", "cautious", "remark"), rows, 1, -1)


def _row(cell: str, plan: SeedPlan) -> tuple[str, ...]:
    cautious = "–" if plan.cautious is None else str(max(0, plan.cautious - plan.have))
    remark = plan.note if plan.more is None else ""
    return cell, str(plan.have), "–" if plan.more is None else str(plan.more), cautious, remark
