"""Errors that a user can fix.

The command line prints the message of an `FcnlabError` and exits with 2; a traceback is a bug in fcnlab. Errors name
the key, the problem and the valid values, one per line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from fcnlab.redaction import clean_text

LONGEST_WORD = 600
"""Maximum number of characters of a word in a message."""

_LONG_WORD = re.compile(rf"\S{{{LONGEST_WORD + 1},}}")


class FcnlabError(Exception):
    """Base of the errors that a user can fix; `str(error)` is the whole message, without secrets."""

    def __init__(self, *texts: object) -> None:
        """Create an error.

        Args:
            texts: the message; passwords and tokens are removed, control characters are escaped, and very long words
                are shortened.
        """
        super().__init__(*(_shorten_words(clean_text(text)) if isinstance(text, str) else text for text in texts))


def _shorten_words(text: str) -> str:
    """Replace the middle of words that are too long to be read, such as the content of a binary file, by dots."""
    return _LONG_WORD.sub(lambda found: f"{found[0][: LONGEST_WORD // 2]}...{found[0][-LONGEST_WORD // 8 :]}", text)


class ConfigError(FcnlabError):
    """A registry file, a grid file or a setting is invalid."""


class DataError(FcnlabError):
    """A dataset is missing, incomplete or inconsistent."""


class ModelError(FcnlabError):
    """A variant cannot be built: missing weights, weights that do not fit, or a stride that does not exist."""


class RunError(FcnlabError):
    """A grid or a trial cannot be run."""


class StopRunError(RunError):
    """A run must end for a reason outside of its trials: full storage, or inputs that have changed.

    Trials that have not ended get no record, and continue when the reason is removed.
    """


class TrackingError(FcnlabError):
    """The MLflow store is unreachable, or lacks the requested object.

    The lines of the message after the first are commands that help.
    """


def first_line(error: BaseException) -> str:
    r"""Return the first line of an error's message without terminal escape codes, or the error's class if it is empty.

    >>> first_line(RuntimeError("shapes differ\nTraceback ..."))
    'shapes differ'
    >>> first_line(AssertionError())
    'AssertionError'
    """
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    return next(iter(plain.splitlines()), "") or type(error).__name__


def describe_error(error: BaseException) -> str:
    """Return the class of an error and the first line of its message.

    >>> describe_error(ValueError("too large")), describe_error(AssertionError())
    ('ValueError: too large', 'AssertionError')
    """
    name, text = type(error).__name__, first_line(error)
    return name if text == name else f"{name}: {text}"


def list_some(items: Sequence[object], most: int, separator: str = ", ") -> str:
    """List items in a message; of more than `most`, the number of the others.

    Args:
        items: the items.
        most: maximum number of listed items.
        separator: text between two items.

    >>> list_some(["fcn32s", "fcn16s", "fcn8s"], 2)
    'fcn32s, fcn16s and 1 more'
    """
    more = f" and {len(items) - most:,} more" if len(items) > most else ""
    return separator.join(map(str, items[:most])) + more


def nearest(name: str, valid: Iterable[str], most: int | None = None) -> str:
    """Describe the valid names, with the one that is closest to a wrong name, in any case.

    Args:
        name: the wrong name.
        valid: the valid names.
        most: maximum number of listed names. Of more valid names, only the closest is given, or the first ones if none
            is close. None lists all.

    Returns:
        The end of an error message.

    >>> nearest("fcn8", ["fcn32s", "fcn16s", "fcn8s"])
    "did you mean 'fcn8s'? valid: fcn16s, fcn32s, fcn8s"
    >>> nearest("fcn8", ["fcn32s", "fcn16s", "fcn8s"], most=2)
    "did you mean 'fcn8s'?"
    >>> nearest("unet", ["fcn32s", "fcn16s", "fcn8s"], most=2)
    'valid: fcn16s, fcn32s and 1 more'
    >>> nearest("FCN8s", ["fcn32s", "fcn16s", "fcn8s"], most=2)
    "did you mean 'fcn8s'?"
    """
    names = list(valid)
    names.sort(key=int if all(map(str.isdecimal, names)) else None)
    close = _find_close(str(name), names)
    most = len(names) if most is None else most
    if close and len(names) > most:
        return f"did you mean '{close[0]}'?"
    listing = f"valid: {list_some(names, most) or 'none'}"
    return f"did you mean '{close[0]}'? {listing}" if close else listing


def _find_close(name: str, names: Sequence[str]) -> list[str]:
    """Return the closest name if one is close; of names that differ only in case, the closest in case."""
    by_folded: dict[str, list[str]] = {}
    for each in names:
        by_folded.setdefault(each.casefold(), []).append(each)
    folded = get_close_matches(name.casefold(), by_folded, n=1)
    return get_close_matches(name, by_folded[folded[0]], n=1, cutoff=0) if folded else []
