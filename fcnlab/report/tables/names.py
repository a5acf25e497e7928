"""Names in sentences and in headings: quoted, numbered, and those of checkpoints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

EPOCHS = {"last": "the last epoch", "best": "the epoch with the best mIoU on val"}
"""Names of checkpoints in sentences."""


def quote_name(name: str) -> str:
    """Return the name of a cell for a sentence: in quotation marks, unless it is a single word.

    Args:
        name: display name of a cell.
    """
    return f"“{name}”" if not name[:1].isalpha() or "," in name or " " in name else name


def join_names(names: Sequence[str]) -> str:
    """Join names for a sentence.

    Args:
        names: at least one name.

    Example:
        >>> join_names(["IoU", "Dice", "mIoU"]), join_names(["IoU"])
        ('IoU, Dice and mIoU', 'IoU')
    """
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def number_repeated(names: Sequence[str]) -> list[str]:
    """Return a different name for each of some names: repeated ones get a number.

    Args:
        names: any names.

    Example:
        >>> number_repeated(["car", "sky", "car"])
        ['car', 'sky', 'car (2)']
    """
    seen: Counter[str] = Counter()
    numbered = []
    for name in names:
        seen[name] += 1
        numbered.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return numbered
