"""Data frames as comma-separated values that a spreadsheet program shows as they are."""

from __future__ import annotations

from typing import Any

import pandas as pd

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First characters of a cell that spreadsheet programs calculate."""


def to_csv_text(frame: pd.DataFrame) -> str:
    """Format a frame as comma-separated values with a heading.

    Texts that a spreadsheet program would calculate as formulas get a leading apostrophe; numbers are unchanged.

    Args:
        frame: the frame, whose index is left out.
    """
    shown = frame.rename(columns=quote_formula)
    for position, (_, column) in enumerate(frame.items()):
        quoted = [quote_formula(value) for value in column]
        if any(new is not old for new, old in zip(quoted, column, strict=True) if isinstance(new, str)):
            shown.isetitem(position, quoted)
    return str(shown.to_csv(index=False, float_format="%.6g"))


def quote_formula(value: Any) -> Any:
    """Return a value, with a leading apostrophe if it is a text that is read as a formula.

    Args:
        value: value of a cell.

    >>> quote_formula("=HYPERLINK(1)"), quote_formula("-0.5"), quote_formula(-0.5)
    ("'=HYPERLINK(1)", '-0.5', -0.5)
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) and not _is_number(value) else value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
