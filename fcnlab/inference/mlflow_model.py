"""The models of a grid's finished trials, put on their runs in MLflow."""

from __future__ import annotations

from collections.abc import Callable

from fcnlab.config.grid.grid import Grid
from fcnlab.inference.description import Description
from fcnlab.inference.export_model import ExportModel
from fcnlab.lab import Lab
from fcnlab.runner.plan import make_plan
from fcnlab.runner.publisher import open_tracker
from fcnlab.trial.find import FinishedTrial


def log_models(grid: Grid, lab: Lab, told: Callable[[str], None]) -> int:
    """Put the model of each finished trial on its run, once: RGB uint8 in, probabilities out; returns how many are new.

    The weights are those of the epoch that the grid reports. `told` is given the label of each.

    Raises:
        TrackingError: the store is out of reach.
        RunError: weights are no longer there.
    """
    tracker = open_tracker(grid, lab)
    checkpoint, new = grid.file.checkpoint, 0
    for planned, record in make_plan(grid, lab).records():
        if record.status == "finished":
            finished = FinishedTrial(planned.trial, record, planned.folder)
            network = finished.load_model(checkpoint)
            portable = ExportModel(network, Description.of(finished, network, checkpoint)).eval()
            if tracker.log_model(planned.key, portable, len(record.classes)):
                told(finished.label)
                new += 1
    return new
