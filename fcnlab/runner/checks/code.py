"""Check that the code of heads, loss terms and transforms that are not built in is allowed to run."""

from __future__ import annotations

from collections.abc import Iterable

from fcnlab.lab import Lab
from fcnlab.runner.plan import PlannedTrial


def check_code_is_allowed(trials: Iterable[PlannedTrial], lab: Lab) -> None:
    """Check that the user has allowed the Python files of the lab which trials use.

    Args:
        trials: the trials.
        lab: the lab of the extensions.

    Raises:
        ConfigError: the user has not allowed them, or there is no such extension.
    """
    for cell in {id(planned.cell): planned.cell for planned in trials}.values():
        for extension in lab.extensions.used(cell.variant.head, recipe=cell.recipe).values():
            extension.check_allowed()
