"""`fcnlab data list`: list the datasets of the registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fcnlab.cli.options import DataRoot, LabOption
from fcnlab.cli.output import AsJson, Verbose, fit_last_column, print_json
from fcnlab.console import create_console, format_table
from fcnlab.errors import DataError

if TYPE_CHECKING:
    from fcnlab.lab import Lab

EXAMPLE = "Example: fcnlab data list --data-root ~/data"


def list_(verbose: Verbose = False, as_json: AsJson = False, lab: LabOption = None, data_root: DataRoot = None) -> None:
    """List the datasets, with their classes and images.

    For a dataset without its files, "missing" is printed in place of the number of images of each split. Descriptions
    are shortened to one line; --verbose shows them in full, and which files are missing.
    """
    from fcnlab.lab import Lab

    lab_ = Lab.find(root=lab, data_root=data_root)
    datasets = [_describe(lab_, name) for name in lab_.registry.names("dataset")]
    if as_json:
        print_json({"data_root": lab_.data_root, "datasets": datasets})
        return
    terminal = create_console()
    headings = ("name", "classes", "images", "description")
    rows = [
        (values["name"], str(values["classes"] or ""), _format_images(values), _format_details(values, verbose))
        for values in datasets
    ]
    shown = [headings, *rows] if verbose else fit_last_column(headings, rows, terminal.width)
    terminal.print(format_table(shown[0], shown[1:], terminal.width, numbers=[1]))
    missing = sum(values["missing"] is not None for values in datasets)
    if missing and not verbose:
        terminal.print(f"{missing} datasets have missing files; --verbose lists them")


def _describe(lab: Lab, name: str) -> dict[str, Any]:
    """Return the description of a dataset as JSON values."""
    spec = lab.registry.get("dataset", name)
    values: dict[str, Any] = {"name": name, "description": spec.description, "classes": None, "images": None}
    try:
        dataset = lab.open_dataset(spec)
        images = {split: len(dataset.split(split)) for split in spec.used_splits}
    except DataError as error:
        return values | {"missing": str(error)}
    return values | {"classes": len(dataset.classes), "images": images, "missing": None}


def _format_images(values: dict[str, Any]) -> str:
    if values["images"] is None:
        return "missing"
    return ", ".join(f"{split} {count}" for split, count in values["images"].items())


def _format_details(values: dict[str, Any], verbose: bool) -> str:
    return "\n".join(filter(None, (values["description"], values["missing"] if verbose else "")))
