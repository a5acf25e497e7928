"""Table of the effects of the axes of a grid."""

from __future__ import annotations

from collections.abc import Sequence

from fcnlab.analysis import MIN_SEEDS, is_significant
from fcnlab.config.grid.display_names import Names
from fcnlab.report.effects import AxisEffect, effects_frame
from fcnlab.report.tables.columns import NO_CLAIM, SIGNIFICANT, format_difference, format_points
from fcnlab.report.tables.table import Table


def make_effects_table(effects: Sequence[AxisEffect], names: Names) -> Table:
    """Return the table of effects, one row for each.

    Args:
        effects: at least one effect.
        names: display names of the axes.
    """
    several = len({one.dataset for one in effects}) > 1
    rows = [
        (
            *((row["dataset"],) if several else ()),
            row["axis"],
            row["value"],
            row["reference"],
            str(row["pairs"]),
            str(row["n"]),
            format_difference(row.rename({"n": "delta_n"})),
            f"{format_points(row['delta_min'])} to {format_points(row['delta_max'])}",
        )
        for _, row in effects_frame(effects, names).iterrows()
    ]
    headings = ("axis", "value", "compared with", "pairs", "n", "Δ mIoU [95 %]", "range of Δ")
    groups = [(one.dataset, one.axis) for one in effects]
    return Table(
        (*(("dataset",) if several else ()), *headings),
        tuple(rows),
        text_columns=3 + several,
        group_starts=tuple(index for index in range(1, len(rows)) if groups[index] != groups[index - 1]),
    )


def describe_effects(effects: Sequence[AxisEffect]) -> list[str]:
    """Return the footnotes of the table of effects, one text per line.

    Args:
        effects: at least one effect.
    """
    lines = [
        "Δ: mean difference in mIoU, in points, of the cells with this value to the cells that differ from them in "
        "this axis only, paired by seed and image, with its 95 % interval; n: seeds that all of these cells have.",
        "Range: smallest and largest difference of a pair. Where the range is wide, the effect depends on other axes.",
    ]
    claims = sum(is_significant(one.adjusted_p) is not None for one in effects)
    if claims:
        lines.append(
            f"{SIGNIFICANT}: significant at 5 % after Holm's correction over "
            f"{claims} {'effect' if claims == 1 else 'effects'}."
        )
    if claims < len(effects):
        lines.append(f"{NO_CLAIM}: fewer than {MIN_SEEDS} seeds, so no claim of significance is made.")
    return lines
