"""Parameters of a trial as a tracker shows them: every field of its configuration by its path, as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fcnlab.config.grid.axes import format_value
from fcnlab.config.trial import Trial
from fcnlab.redaction import redact

MAX_KEY = 250
"""Maximum length of the name of a parameter in MLflow."""

MAX_VALUE = 6000
"""Maximum length of the value of a parameter in MLflow."""


def extract_params(trial: Trial, axes: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters of a trial.

    The names of its components come first (`head`, `recipe`, ...), then the axes of its grid and the seed, then each
    field of the components, named as an axis of a grid is: `head.stride`, `recipe.optimizer.lr`. Fields that are not
    set are `null`.

    Args:
        trial: the trial.
        axes: value of each axis of the grid.

    Returns:
        Texts by name.
    """
    fields = trial.model_dump(mode="json")
    components = {**fields["variant"], "dataset": fields["dataset"], "recipe": fields["recipe"]}
    params = {**trial.names, **axes, "seed": str(trial.seed)}
    if trial.init_from is not None:
        params["init_from"] = trial.init_from
    for name, value in _flatten(components):
        params.setdefault(name[:MAX_KEY], _format(value))
    return {name: redact(value)[:MAX_VALUE] for name, value in params.items()}


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the path and the value of each field, without descriptions."""
    for name, value in values.items():
        if name == "description":
            continue
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _format(value: Any) -> str:
    if value is None:
        return "null"
    return ", ".join(map(_format, value)) if isinstance(value, list) else format_value(value)
