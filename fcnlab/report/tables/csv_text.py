"""Data frames as comma-separated values that a spreadsheet program shows as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from fcnlab.redaction import escape_control_characters

_FORMULA = ("=", "+", "-", "@", "\t", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""First characters of a cell that spreadsheet programs calculate, also the wide forms of East Asian keyboards."""


def to_csv_text(frame: pd.DataFrame) -> str:
    """Format a frame as comma-separated values with a heading.

    Texts that a spreadsheet program would calculate as formulas get a leading apostrophe, and control characters are
    escaped. Numbers have twelve significant digits, so that numbers of parameters and of bytes are exact.

    Args:
        frame: the frame, whose index is left out.
    """
    shown = frame.rename(columns=quote_formula)
    for position, (_, column) in enumerate(frame.items()):
        quoted = [quote_formula(value) for value in column]
        if any(new is not old for new, old in zip(quoted, column, strict=True) if isinstance(new, str)):
            shown.isetitem(position, quoted)
    return str(shown.to_csv(index=False, float_format="%.12g"))


def rows_to_csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Format rows as `to_csv_text` does, with the keys of the first row as heading and all digits of numbers.

    Args:
        rows: at least one row; all have the same keys.
    """
    return to_csv_text(pd.DataFrame(rows, columns=list(rows[0]), dtype=object))


def quote_formula(value: Any) -> Any:
    """Return a value, with a leading apostrophe if it is a text that is read as a formula.

    Args:
        value: value of a cell; control characters of a text are escaped.

    >>> quote_formula("=HYPERLINK(1)"), quote_formula("-0.5"), quote_formula(-0.5)
    ("'=HYPERLINK(1)", '-0.5', -0.5)
    """
    if not isinstance(value, str):
        return value
    text = escape_control_characters(value)
    return f"'{text}" if text.startswith(_FORMULA) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
