"""Logging of the models of a grid to its MLflow runs."""

from __future__ import annotations

from collections.abc import Callable

from fcnlab.config.grid.grid import Grid
from fcnlab.constants import CheckpointChoice
from fcnlab.inference.description import ModelDescription
from fcnlab.inference.export_model import ExportModel
from fcnlab.lab import Lab
from fcnlab.runner.find import BEST, find_reference
from fcnlab.runner.plan import make_plan
from fcnlab.runner.publisher import open_tracker
from fcnlab.tracking.tracker import MlflowTracker
from fcnlab.trial.find import FinishedTrial


def log_models(grid: Grid, lab: Lab, on_logged: Callable[[str], None]) -> int:
    """Log the model of each finished trial to its MLflow run, with the checkpoint that the grid reports.

    A logged model maps images, uint8 [B, C, H, W], to probabilities [B, num_classes, H, W]. Models that are already
    logged are skipped.

    Args:
        grid: the grid.
        lab: lab of the grid.
        on_logged: called with the label of the trial after each new model.

    Returns:
        Number of new models.

    Raises:
        TrackingError: MLflow is unreachable.
        RunError: a trial has no weights.
    """
    tracker = open_tracker(grid, lab)
    new = 0
    for planned, record in make_plan(grid, lab, recorded_inputs=True).records():
        if record.status == "finished":
            finished = FinishedTrial(planned.trial, record, planned.folder)
            if _log_model(tracker, finished, grid.file.checkpoint):
                on_logged(finished.label)
                new += 1
    return new


def register_best_model(grid: Grid, lab: Lab, name: str) -> tuple[str, str | None]:
    """Register the model of the grid's best cell in MLflow's model registry; it is logged if it is not.

    The best cell is that of `FILE:best`: the one with the greatest mean mIoU on the reported split. The model is that
    of its first finished seed.

    Args:
        grid: the grid.
        lab: lab of the grid.
        name: name of the registered model.

    Returns:
        The label of the trial and the number of the new version; None if the newest version is this model.

    Raises:
        TrackingError: MLflow is unreachable, or refuses the name.
        RunError: no trial has finished, or the trial has no weights.
    """
    reference = find_reference(f"{grid.path}:{BEST}", lab)
    finished = reference.read_finished()
    tracker = open_tracker(grid, lab)
    _log_model(tracker, finished, grid.file.checkpoint)
    metrics = finished.record.find_metrics(finished.record.report_split, grid.file.checkpoint)
    tags = {"fcnlab.grid": grid.name, "fcnlab.trial": finished.label, "fcnlab.key": finished.record.key}
    if metrics is not None and metrics.miou is not None:
        tags["miou"] = str(metrics.miou)
    return finished.label, tracker.register_model(finished.record.key, name, tags)


def _log_model(tracker: MlflowTracker, finished: FinishedTrial, checkpoint: CheckpointChoice) -> bool:
    """Log the model of a finished trial; return False if it is logged already."""
    network = finished.load_model(checkpoint)
    description = ModelDescription.from_trial(finished, network, checkpoint)
    export_model = ExportModel(network, description).eval()
    key, num_classes = finished.record.key, len(finished.record.classes)
    return tracker.log_model(key, export_model, num_classes, len(description.mean))
