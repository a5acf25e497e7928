"""Names of cells and lists of them in sentences."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from fcnlab.config.grid.grid import Grid
from fcnlab.report.tables.names import quote_name

MAX_NAMES = 6
"""Most classes without a labeled pixel, and most cells with the same flag, that are named in a footnote."""


def name_cell(grid: Grid, label: str) -> str:
    """Return the display name of a cell for a sentence.

    Args:
        grid: the grid.
        label: label of the cell.
    """
    return quote_name(grid.display_name(label))


def list_cells(names: Sequence[str]) -> str:
    """Return the name of one cell, or the number and the names of several ones.

    Args:
        names: names of at least one cell, for a sentence.
    """
    more = f"; {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return names[0] if len(names) == 1 else f"{len(names)} cells ({'; '.join(names[:MAX_NAMES])}{more})"


def distinct_texts(column: pd.Series) -> list[str]:
    """Return the distinct texts of a column, sorted, without empty ones.

    Args:
        column: column of a frame.
    """
    return sorted({str(value) for value in column} - {"", "nan"})
