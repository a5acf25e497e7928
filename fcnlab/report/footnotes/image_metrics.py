"""Footnotes on means over images: their definition, and the cells that lack the counts for them."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from fcnlab.console import format_count
from fcnlab.errors import list_some
from fcnlab.report.dataset_groups import count_images
from fcnlab.report.footnotes.names import MAX_NAMES, name_cell
from fcnlab.report.tables.columns import is_per_image, make_heading, name_class_metrics, split_class_column
from fcnlab.report.tables.names import join_names, number_repeated
from fcnlab.report.trial_records import find_missing_counts

if TYPE_CHECKING:
    from fcnlab.report.report import Report


def describe_image_metrics(report: Report, columns: Collection[str]) -> list[str]:
    """Define the means over images that are shown.

    Args:
        report: report of the grid.
        columns: names of the shown columns.

    Returns:
        One text; none if no such column is shown.
    """
    shown = list(dict.fromkeys(filter(is_per_image, columns)))
    if not shown:
        return []
    class_names = {class_name for metric, class_name in map(split_class_column, shown) if metric}
    definitions = []
    if means := [make_heading(name, report.names).removesuffix(" %") for name in shown if ":" not in name]:
        definitions.append(f"{join_names(means)}: mean over the images of the mean over the classes in an image")
    if class_names:
        metrics = join_names(name_class_metrics(shown))
        definitions.append(
            f"{metrics} of a class: mean over the images that contain it{_describe_numbers(report, class_names)}"
        )
    return [f"{'; '.join(definitions)}; unlike mIoU and Dice, not from summed counts."]


def _describe_numbers(report: Report, class_names: Collection[str]) -> str:
    """Return the numbers of images that contain the classes, in parentheses, if they are the same for all cells."""
    if len(report.groups) > 1 or report.groups[0].others:
        return ""
    by_label = count_images(report.groups[0], report.records)
    numbers = {by_label.get(label) for label, name in enumerate(number_repeated(report.classes)) if name in class_names}
    known = sorted(number for number in numbers if number is not None)
    if not known:
        return ""
    return f" ({known[0]} to {known[-1]} images)" if len(known) > 1 else f" ({format_count(known[0], 'image')})"


def describe_missing_image_metrics(report: Report, columns: Collection[str]) -> list[str]:
    """Name the cells without means over images and the reason, if such columns are shown.

    Args:
        report: report of the grid.
        columns: names of the shown columns.

    Returns:
        One text; none if no such column is shown or all counts exist.
    """
    if not any(map(is_per_image, columns)):
        return []
    missing = find_missing_counts(report.cells, report.records)
    if not missing:
        return []
    cells = list_some([name_cell(report.grid, cell) for cell in missing], MAX_NAMES)
    number = sum(missing.values())
    verb = "is" if number == 1 else "are"
    return [f"No metrics per image of {cells}: counts.npz of {format_count(number, 'trial')} {verb} missing."]
