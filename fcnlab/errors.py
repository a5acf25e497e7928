"""What users are told when something is wrong: what, where, the nearest valid name, the remedy.

Every error that a user can cause is an `FcnlabError`. The command line prints its message and exits with 2;
a traceback means a fault of ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class FcnlabError(Exception):
    """Something that the user can put right. `str(error)` is the whole message, one fault a line."""


class ConfigError(FcnlabError):
    """A registry file, a grid file or a setting is invalid."""


class DataError(FcnlabError):
    """A dataset is missing, incomplete or inconsistent."""


class ModelError(FcnlabError):
    """A variant cannot be built: weights that are missing or do not fit, a stride that is not there."""


class RunError(FcnlabError):
    """A grid or a trial cannot be run here and now."""


class TrackingError(FcnlabError):
    """The MLflow store cannot be reached or holds nothing of what was asked for."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """Say which of `valid` was probably meant by `name`, and what else there is.

    Returns a clause for the end of an error message, such as
    ``did you mean 'fcn8s'? valid: fcn16s, fcn32s, fcn8s``.
    """
    names = sorted(valid)
    listing = "valid: " + (", ".join(names) if names else "none")
    close = get_close_matches(str(name), names, n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'? {listing}" if close else listing
