"""`fcnlab init`: create a lab."""

from __future__ import annotations

import re
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from fcnlab.errors import RunError
from fcnlab.paths import exists, is_folder, resolve_path
from fcnlab.storage_errors import convert_write_errors

EXAMPLE = "Example: fcnlab init mylab && cd mylab && fcnlab grid run experiments/quickstart.yaml"

_README = """# {name}

A lab of fcnlab: grid files in `experiments/`, reports in `results/`, and the lab's own components in `registry/`.

    fcnlab grid run experiments/quickstart.yaml
    fcnlab ui
"""

_ENTRIES = {
    "variants": "# Added by this lab:\n# mine: {backbone: resnet18-scratch, head: fcn8s, upsampler: random}\n",
    "recipes": "# Added by this lab; `fcnlab registry show recipe standard` shows one to start from.\n",
}

_IGNORED = "/runs/\n/mlflow.db*\n/mlartifacts/\n/mlruns/\n/tensorboard/\n/.fcnlab/\n"


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New or empty folder")],
) -> None:
    """Create a lab with a first grid to run.

    A lab is a folder with experiments/, registry/ and results/.
    """
    from fcnlab.config.registry import shipped

    if exists(folder) and (not is_folder(folder) or any(folder.iterdir())):
        raise RunError(f"{folder}: already exists and is not empty; name a new folder")
    examples = shipped("experiments")
    quickstart = examples.joinpath("quickstart.yaml").read_text(encoding="utf-8")
    texts = {
        "README.md": _README.format(name=resolve_path(folder).name),
        ".gitignore": _IGNORED,
        "experiments/quickstart.yaml": _drop_conclusion(quickstart),
        "experiments/grid.schema.json": examples.joinpath("grid.schema.json").read_text(encoding="utf-8"),
        "results/.gitkeep": "",
    } | {f"registry/{kind}.yaml": text for kind, text in _ENTRIES.items()}
    with convert_write_errors(folder):
        for name, text in texts.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
    typer.echo(f"{folder} is a lab; next: cd {quote(str(folder))} && fcnlab grid run experiments/quickstart.yaml")


def _drop_conclusion(text: str) -> str:
    """Remove the conclusion from a grid file: it is about the committed results, not about those of a new lab."""
    return re.sub(r"^conclusion:.*\n(?:[ \t].*\n)*", "", text, flags=re.MULTILINE)
