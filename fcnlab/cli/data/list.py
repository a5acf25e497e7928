"""`fcnlab data list`: list the datasets of the registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fcnlab.cli.options import DataRoot, LabOption
from fcnlab.cli.output import AsJson, Verbose, fit_last_column, print_json
from fcnlab.console import create_console, format_count, format_table
from fcnlab.errors import ConfigError, DataError

if TYPE_CHECKING:
    from fcnlab.lab import Lab

EXAMPLE = "Example: fcnlab data list --data-root ~/data"


def list_(verbose: Verbose = False, as_json: AsJson = False, lab: LabOption = None, data_root: DataRoot = None) -> None:
    """List the datasets, with their classes and images.

    In place of the number of images of each split, "missing" is printed for a dataset without its files, and "error"
    for an extension that cannot be used. Descriptions are shortened to one line; --verbose shows them in full, with
    the missing files and the errors.
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
    missing, errors = (sum(values[key] is not None for values in datasets) for key in ("missing", "error"))
    if missing and not verbose:
        terminal.print(f"missing: the files of {format_count(missing, 'dataset')}; --verbose lists them")
    if errors and not verbose:
        terminal.print(f"error: {format_count(errors, 'dataset')} cannot be used; --verbose shows why")


def _describe(lab: Lab, name: str) -> dict[str, Any]:
    """Return the description of a dataset as JSON values."""
    spec = lab.registry.get("dataset", name)
    values: dict[str, Any] = {"name": name, "description": spec.description}
    values |= dict.fromkeys(("classes", "images", "missing", "error"))
    try:
        dataset = lab.open_dataset(spec)
        images = {split: len(dataset.split(split)) for split in spec.used_splits}
    except DataError as error:
        return values | {"missing": str(error)}
    except ConfigError as error:
        return values | {"error": str(error)}
    return values | {"classes": len(dataset.classes), "images": images}


def _format_images(values: dict[str, Any]) -> str:
    if values["images"] is None:
        return "missing" if values["error"] is None else "error"
    return ", ".join(f"{split} {count}" for split, count in values["images"].items())


def _format_details(values: dict[str, Any], verbose: bool) -> str:
    return "\n".join(filter(None, (values["description"], (values["missing"] or values["error"]) if verbose else "")))
