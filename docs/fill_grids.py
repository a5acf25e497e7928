"""Fill docs/grids.md: below each grid its cells, or its errors.

    python docs/fill_grids.py

A grid is a block of YAML; the block of text after it is replaced by the output of fcnlab.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from rich.console import Console

from fcnlab.cli.grid.cells import create_cells_table
from fcnlab.errors import ConfigError
from fcnlab.lab import Lab
from fcnlab.runner.plan import make_plan

PAGE = Path(__file__).with_name("grids.md")
EXAMPLE = re.compile(r"(?<=```yaml\n)(?P<grid>.*?)(?P<between>```\n+```text\n)(?P<output>.*?)(?=```\n)", re.DOTALL)


def fill(page: str) -> str:
    """Replace the output below each grid of a page.

    Args:
        page: Markdown.

    Returns:
        The filled page.
    """
    return EXAMPLE.sub(lambda found: f"{found['grid']}{found['between']}{plan(found['grid'])}", page)


def plan(text: str) -> str:
    """Return the table of a grid's cells in an empty lab, or its errors, as a terminal shows them.

    Args:
        text: YAML of a grid file.

    Returns:
        Lines of text.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "experiments" / "grid.yaml"
        file.parent.mkdir()
        file.write_text(text, encoding="utf-8")
        lab = Lab.find(file)
        try:
            grid = lab.load_grid(file)
        except ConfigError as error:
            lines = str(error).replace(str(file), "grid.yaml").splitlines()
            return "".join(f"fcnlab: error: {line}\n" for line in lines)
        terminal = Console(width=119, color_system=None, markup=False, highlight=False)
        with terminal.capture() as captured:
            planned = make_plan(grid, lab)
            terminal.print(create_cells_table(planned, planned.states, terminal.width))
        return "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())


if __name__ == "__main__":
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
