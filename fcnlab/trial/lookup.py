"""Run folders by what people call them."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from fcnlab.errors import RunError
from fcnlab.lab import Lab
from fcnlab.trial.record import RunFolder

SHORT = 12
"""Digits of a key that are shown to people."""


def find_folder(what: str, lab: Lab) -> RunFolder:
    """The run folder of this key, of the one key that begins so, or at this path.

    Raises:
        RunError: there is none, or more than one.
    """
    path = Path(what)
    if (path / "trial.json").is_file():
        return RunFolder(path.resolve().parent, path.resolve().name)
    keys = sorted(path.name for path in lab.runs.iterdir()) if lab.runs.is_dir() else []
    if not keys:
        raise RunError(f"{lab.runs}: no trial was run here; name the lab's folder with --lab, or give a run folder")
    found = [key for key in keys if key.startswith(what.lower())] if what else []
    if len(found) == 1:
        return RunFolder(lab.runs, found[0])
    if found:
        raise RunError(f"{lab.runs}: {len(found)} keys begin with '{what}': {_shown(found)}; give more digits")
    near = get_close_matches(what[:SHORT], [key[:SHORT] for key in keys], n=3, cutoff=0.0)
    raise RunError(f"{lab.runs}: no trial's key begins with '{what}'; nearest: {_shown(near)}")


def _shown(keys: list[str]) -> str:
    return ", ".join(key[:SHORT] for key in keys[:5]) + (", ..." if len(keys) > 5 else "")
