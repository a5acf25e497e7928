"""Fill docs/grids.md: below each question the cells that it has, or what is wrong with it.

    python docs/fill_grids.py

A question is a block of YAML; the block of text that follows it is replaced by what fcnlab says of it.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from rich.console import Console

from fcnlab.cli.grid.cells import cells
from fcnlab.errors import ConfigError
from fcnlab.lab import Lab
from fcnlab.runner.plan import make_plan

PAGE = Path(__file__).with_name("grids.md")
EXAMPLE = re.compile(r"(?<=```yaml\n)(?P<question>.*?)(?P<between>```\n+```text\n)(?P<said>.*?)(?=```\n)", re.DOTALL)


def filled(page: str) -> str:
    """The page with what fcnlab says of each question."""
    return EXAMPLE.sub(lambda found: f"{found['question']}{found['between']}{said_of(found['question'])}", page)


def said_of(question: str) -> str:
    """The table of a question's cells in an empty lab, or its faults, as a terminal shows them."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "experiments" / "question.yaml"
        file.parent.mkdir()
        file.write_text(question, encoding="utf-8")
        lab = Lab.find(file)
        try:
            grid = lab.grid(file)
        except ConfigError as error:
            lines = str(error).replace(str(file), "question.yaml").splitlines()
            return "".join(f"fcnlab: error: {line}\n" for line in lines)
        terminal = Console(width=119, color_system=None, markup=False, highlight=False)
        with terminal.capture() as captured:
            terminal.print(cells(make_plan(grid, lab)))
        return "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
