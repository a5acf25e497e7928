"""The Python interface of fcnlab, exported by the package `fcnlab`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fcnlab.config.grid.grid import Grid
from fcnlab.config.validation import validate
from fcnlab.config.variant import NamedVariant, Variant
from fcnlab.errors import ConfigError
from fcnlab.lab import Lab
from fcnlab.settings import CHECKPOINT_EVERY, Device

if TYPE_CHECKING:
    import pandas as pd

    from fcnlab.inference.model import TrainedModel
    from fcnlab.models import FCN
    from fcnlab.report.report import Report
    from fcnlab.runner.scheduler import Outcome


def build_model(
    variant: str, num_classes: int, *, seed: int = 0, pretrained: bool = True, lab: Lab | None = None
) -> FCN:
    """Build a variant of the catalogue, or any `backbone+head+upsampler` of it.

    It maps images [B, 3, H, W], normalised as `model.backbone.mean` and `.std` say, to scores [B, num_classes, H, W].
    The same seed gives the same weights. With `pretrained=False` the backbone starts from random weights, whatever its
    entry says.

    Raises:
        ConfigError: no such variant.
        ModelError: its weights cannot be had here.
    """
    from fcnlab.trial.build import build_model as build

    lab = lab or Lab.find()
    parts = variant_parts(variant, lab)
    if not pretrained:
        parts = parts.model_copy(update={"backbone": parts.backbone.model_copy(update={"weights": "scratch"})})
    return build(parts, num_classes, seed, lab.find_weights_file(parts.backbone), lab.extensions)


def variant_parts(name: str, lab: Lab) -> Variant:
    """The configuration of a variant of the catalogue, or of `backbone+head+upsampler`.

    Raises:
        ConfigError: there is none of that name, or the parts do not go together.
    """
    kinds = ("backbone", "head", "upsampler")
    if "+" in name:
        parts = name.split("+")
        if len(parts) != len(kinds):
            raise ConfigError(f"'{name}' is not backbone+head+upsampler, such as resnet18+fcn8s+bilinear")
        names = dict(zip(kinds, parts, strict=True))
    else:
        named = lab.registry.get("variant", name)
        assert isinstance(named, NamedVariant)
        names = {kind: getattr(named, kind) for kind in kinds}
    return validate(Variant, {kind: lab.registry.get(kind, part) for kind, part in names.items()}, name)


def load_grid(path: str | os.PathLike[str]) -> Grid:
    """Read and check a grid file. Raises ConfigError with one line a fault."""
    path = Path(path)
    return Lab.find(path).load_grid(path)


def run_grid(
    grid: Grid,
    *,
    executor: str = "process",
    workers: int | None = None,
    threads: int | None = None,
    per_gpu: int = 1,
    address: str | None = None,
    devices: int = 1,
    device: Device = "auto",
    fail_fast: bool = False,
    checkpoint_every: float = CHECKPOINT_EVERY,
    lab: Lab | None = None,
    quiet: bool = False,
) -> Outcome:
    """Run the remaining trials of a grid, publish them to MLflow and write the report.

    The arguments are those of `fcnlab grid run`, described at `fcnlab.runner.executors.config.ExecutorConfig`.

    Raises:
        FcnlabError: as `fcnlab grid run` would say it.
    """
    from fcnlab.console import create_console
    from fcnlab.runner.executors.config import ExecutorConfig
    from fcnlab.runner.progress.base import PlainReporter, ProgressReporter
    from fcnlab.runner.scheduler import run
    from fcnlab.tracking.store import is_installed

    lab = lab or Lab.find(grid.path)
    reporter = ProgressReporter() if quiet else PlainReporter(create_console())
    executor_config = ExecutorConfig(executor, workers, threads, per_gpu, address, devices, device)
    executor_config.check(grid.cells, lab)
    outcome = run(
        grid,
        lab,
        lambda: executor_config.create_executor(lab, grid.recipes),
        reporter,
        fail_fast=fail_fast,
        checkpoint_every=checkpoint_every,
    )
    if outcome.postponed is None or not is_installed():
        report(grid, lab=lab)
    return outcome


def load(
    trial: str | os.PathLike[str], *, checkpoint: Literal["last", "best"] = "last", lab: Lab | None = None
) -> TrainedModel:
    """The model of a finished trial, by its key, the beginning of its key or its run folder, or of an exported file.

    `model.predict(image)` gives the label of each pixel of a PIL image: see `fcnlab.inference.model.TrainedModel`.

    Raises:
        RunError: no such trial, or one that has not finished or whose weights are gone.
        ModelError: a file that is not from `fcnlab export`, or weights that do not fit.
    """
    from fcnlab.inference.load import load as read

    return read(trial, checkpoint=checkpoint, lab=lab)


def frame(grid: Grid, *, lab: Lab | None = None) -> pd.DataFrame:
    """One row a trial: `docs/reading-a-report.md` says what each column is."""
    from fcnlab.report.frame import trials_frame
    from fcnlab.runner.plan import make_plan
    from fcnlab.runner.publisher import open_if_installed

    lab = lab or Lab.find(grid.path)
    return trials_frame(make_plan(grid, lab), open_if_installed(grid, lab))


def summary(grid: Grid, *, lab: Lab | None = None) -> pd.DataFrame:
    """One row a cell, with the intervals of the table: `docs/reading-a-report.md` says what each column is."""
    from fcnlab.report.report import make_report
    from fcnlab.runner.plan import make_plan
    from fcnlab.runner.publisher import open_if_installed

    lab = lab or Lab.find(grid.path)
    return make_report(make_plan(grid, lab), lab, open_if_installed(grid, lab)).cells


def report(grid: Grid, *, lab: Lab | None = None, predict: bool = False) -> Report:
    """Write `results/<grid>/` from the records in runs/ and from MLflow, and return the `Report`.

    With `predict` the images that its page shows are predicted again where the trials' weights are there.
    """
    from fcnlab.report.report import make_report
    from fcnlab.report.write import write_report
    from fcnlab.runner.plan import make_plan
    from fcnlab.runner.publisher import open_if_installed

    lab = lab or Lab.find(grid.path)
    tracker = open_if_installed(grid, lab)
    made = make_report(make_plan(grid, lab), lab, tracker)
    write_report(made, lab, tracker, predict=predict)
    return made
