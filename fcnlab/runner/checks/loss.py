"""Check of the loss terms of recipes: they are computed for small batches."""

from __future__ import annotations

from importlib.metadata import version

from fcnlab.config.loss import CustomLoss
from fcnlab.config.trial import Trial, canonical
from fcnlab.data.json_cache import cache_file, read_json, write_json
from fcnlab.lab import Lab
from fcnlab.runner.executors.call_process import Call
from fcnlab.version import __version__


def find_loss_errors(trial: Trial, num_classes: int, lab: Lab, call: Call) -> list[str]:
    """Return the errors of the loss term of a trial that is not built in.

    Args:
        trial: the trial.
        num_classes: number of classes of its dataset.
        lab: the lab of the extensions.
        call: calls the functions that import torch.

    Returns:
        One line, or none if the term works, which is cached, is not allowed to run, or the recipe has none.

    Raises:
        ConfigError: the term cannot be created.
    """
    spec = trial.recipe.loss.custom
    if spec is None or not lab.extensions.find("loss", spec.type).is_allowed:
        return []
    identity = canonical([spec.content(), trial.extensions["loss"], num_classes])
    file = cache_file("losses", [identity, __version__, version("torch")])
    if read_json(file):
        return []
    problem = call(_find_problem, spec, num_classes, lab)
    if problem is not None:
        return [f"recipe.loss.custom: {spec.type}: {problem}"]
    write_json(file, {"works": True})
    return []


def _find_problem(spec: CustomLoss, num_classes: int, lab: Lab) -> str | None:
    from fcnlab.training.loss_term import create_loss_term, find_problem  # imports torch

    return find_problem(create_loss_term(spec, num_classes, lab.extensions), num_classes)
