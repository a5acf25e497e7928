"""`fcnlab compare`: the difference of two trials or two cells with its interval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fcnlab.cli.options import DataRoot, LabOption, TrackingUri
from fcnlab.cli.output import AsJson, print_json, report_damage
from fcnlab.cli.references import TRIAL_FORMS, find_named, reference_argument
from fcnlab.console import create_console

if TYPE_CHECKING:
    from fcnlab.report.comparison import CellComparison

EXAMPLE = "Example: fcnlab compare experiments/quickstart.yaml:fcn32s,bilinear experiments/quickstart.yaml:best"


def compare(
    a: Annotated[str, reference_argument("A", f"The first cell or trial: {TRIAL_FORMS}")],
    b: Annotated[str, reference_argument("B", "The second cell or trial, named in the same way")],
    as_json: AsJson = False,
    lab: LabOption = None,
    data_root: DataRoot = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Show the difference in mIoU between two cells or trials.

    It is that of B to A, with its interval, the differences by class, and the images that differ most. Exit code 1 if
    files of a trial of these cells are damaged; the trial is left out.
    """
    from fcnlab.lab import Lab
    from fcnlab.runner.find import find_grid_file

    lab_ = Lab.find(find_grid_file(a, b), root=lab, data_root=data_root, tracking_uri=tracking_uri)
    named = find_named(a, b, lab=lab_)

    from fcnlab.report import comparison as comparing

    comparison = comparing.compare(*(comparing.load_side(reference, lab_) for reference in named))
    if as_json:
        print_json(comparing.to_values(comparison))
    else:
        _print_comparison(comparison)
    report_damage(*(reference.named_plan for reference in named if reference.named_plan is not None))


def _print_comparison(comparison: CellComparison) -> None:
    from fcnlab.report import comparison as comparing
    from fcnlab.report.tables.formats import to_terminal

    terminal = create_console()
    terminal.print(f"A: {comparison.a.name}\nB: {comparison.b.name}\n\n{comparing.describe_difference(comparison)}\n")
    tables = {
        "IoU by class in points, with 95 % intervals of single classes": comparing.make_class_differences_table(
            comparison
        ),
        "\nImages that differ most": comparing.make_images_table(comparison),
    }
    for title, table in tables.items():
        terminal.print(to_terminal(table, title, terminal.width))
