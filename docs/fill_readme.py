"""Fill the README's generated blocks: with the files that they name, or with a table of all result folders."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd

from fcnlab.config.grid.cell import UNCHANGED

ROOT = Path(__file__).resolve().parent.parent
NAMED_BY_VALUE = ("variant", "backbone", "head", "upsampler", "dataset", "recipe")
"""Fields whose values are names in the registry."""

BLOCK = re.compile(r"(<!-- generated: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    """Rewrite README.md in place."""
    readme = ROOT / "README.md"
    readme.write_text(fill_blocks(readme.read_text(encoding="utf-8")), encoding="utf-8")


def fill_blocks(page: str) -> str:
    """Replace the generated blocks of a page.

    Args:
        page: Markdown.

    Returns:
        The filled page.
    """
    return BLOCK.sub(lambda block: f"{block[1]}\n{create_content(block[2])}\n{block[3]}", page)


def create_content(name: str) -> str:
    """Return the content of a block.

    Args:
        name: path of a file below the repository, or `results`.
    """
    if name != "results":
        return (ROOT / name).read_text(encoding="utf-8")
    rows = [describe(folder) for folder in sorted((ROOT / "results").iterdir()) if folder.is_dir()]
    return "\n".join(["| grid | highest mIoU % | trials | device-h |", "| --- | --- | ---: | --- |", *rows, ""])


def describe(folder: Path) -> str:
    """Return the row of a grid: its question, its best cell, the number of its trials and their cost.

    Args:
        folder: folder with the report of the grid.
    """
    provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    cells = pd.read_csv(folder / "table.csv", keep_default_na=False, na_values=[""])  # a value may be None
    place = int(cells["miou"].argmax())
    best = cells.iloc[place]
    spread = f" ± {100 * best['miou_std']:.1f}" if best["n"] > 1 else ""
    hardware = ", ".join(provenance["hardware"]).replace("(1 threads)", "(1 thread)")
    hours = f"{cells['device_hours'].sum():.2f}, {hardware}"
    link = f"[{folder.name}](results/{folder.name}/README.md)"
    name = name_cell(best)
    if UNCHANGED in set(cells["cell"]):  # an ablation, whose cells have names of their own
        name = (folder / "table.md").read_text(encoding="utf-8").splitlines()[2 + place].split("|")[1].strip()
    score = f"{100 * best['miou']:.1f}{spread} ({name})"
    return f"| {link}: {provenance['question']} | {score} | {len(provenance['trials'])} | {hours} |"


def name_cell(row: pd.Series) -> str:
    """Return the name of a cell, in which values that do not speak for themselves follow the name of their field.

    Args:
        row: row of a table.csv; the fields that differ between cells are the columns between `cell` and `n`.
    """
    axes = row.index[row.index.get_loc("cell") + 1 : row.index.get_loc("n")]
    if not len(axes):
        return str(row["cell"])
    texts = {axis: str(row[axis]).lower() if pd.api.types.is_bool(row[axis]) else str(row[axis]) for axis in axes}
    return ", ".join(
        text if axis in NAMED_BY_VALUE else f"{axis.removeprefix('recipe.')} {text}" for axis, text in texts.items()
    )


if __name__ == "__main__":
    main()
