"""Logging of the models of a grid to its MLflow runs."""

from __future__ import annotations

from collections.abc import Callable

from fcnlab.config.grid.grid import Grid
from fcnlab.inference.description import ModelDescription
from fcnlab.inference.export_model import ExportModel
from fcnlab.lab import Lab
from fcnlab.runner.plan import make_plan
from fcnlab.runner.publisher import open_tracker
from fcnlab.trial.find import FinishedTrial


def log_models(grid: Grid, lab: Lab, on_logged: Callable[[str], None]) -> int:
    """Log the model of each finished trial to its MLflow run, with the checkpoint that the grid reports.

    A logged model maps images, uint8 [B, C, H, W], to probabilities [B, classes, H, W]. Models that are already
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
    checkpoint, new = grid.file.checkpoint, 0
    for planned, record in make_plan(grid, lab).records():
        if record.status == "finished":
            finished = FinishedTrial(planned.trial, record, planned.folder)
            network = finished.load_model(checkpoint)
            description = ModelDescription.from_trial(finished, network, checkpoint)
            export_model = ExportModel(network, description).eval()
            if tracker.log_model(planned.key, export_model, len(record.classes), len(description.mean)):
                on_logged(finished.label)
                new += 1
    return new
