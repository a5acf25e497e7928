"""The Python interface of fcnlab, exported by the package `fcnlab`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

from fcnlab.config.grid.grid import Grid
from fcnlab.config.validation import validate
from fcnlab.config.variant import VARIANT_COMPONENTS, Variant, parse_variant
from fcnlab.errors import ConfigError, RunError, nearest
from fcnlab.lab import Lab
from fcnlab.paths import is_file
from fcnlab.settings import Device, RunOptions

if TYPE_CHECKING:
    import pandas as pd

    from fcnlab.constants import CheckpointChoice, Precision
    from fcnlab.inference.model import TrainedModel
    from fcnlab.models import FCN
    from fcnlab.report.comparison import CellComparison
    from fcnlab.report.report import Report
    from fcnlab.runner.find import Reference
    from fcnlab.runner.plan import Plan
    from fcnlab.runner.publisher import OptionalTracker
    from fcnlab.runner.run import Outcome

LabOrFolder: TypeAlias = Lab | str | os.PathLike[str]
"""A lab, or its folder."""

GridOrFile: TypeAlias = Grid | str | os.PathLike[str]
"""A grid, or the path of its file."""


def build_model(
    variant: str, num_classes: int, *, seed: int = 0, pretrained: bool = True, lab: LabOrFolder | None = None
) -> FCN:
    """Build the model of a variant.

    The model maps images [B, 3, H, W], normalized with `model.backbone.mean` and `model.backbone.std`, to class scores
    [B, num_classes, H, W].

    Args:
        variant: name of a variant of the registry, `backbone+head` or `backbone+head+upsampler`.
        num_classes: number of classes.
        seed: seed of the initialization; the same seed gives the same weights.
        pretrained: load the weights of the backbone's registry entry; otherwise initialize it randomly.
        lab: lab whose registry is used, or its folder; by default that of the current folder.

    Returns:
        The model in training mode, in float32.

    Raises:
        ConfigError: there is no such variant.
        ModelError: the pretrained weights are not available.
    """
    from fcnlab.trial.build import build_model as build

    lab = _find_lab(lab)
    config = variant_config(variant, lab)
    if not pretrained:
        config = config.from_scratch()
    weights_file = lab.find_weights_file(config.backbone)
    return build(config, num_classes, seed, weights_file=weights_file, extensions=lab.extensions)


def variant_config(name: str, lab: Lab) -> Variant:
    """Return the configuration of a variant.

    Args:
        name: name of a variant of the registry, `backbone+head` or `backbone+head+upsampler`.
        lab: lab whose registry is used.

    Raises:
        ConfigError: there is no such variant, or its components are not compatible.
    """
    if "+" in name:
        names = parse_variant(name)
    else:
        named = lab.registry.get("variant", name)
        names = {kind: getattr(named, kind) for kind in VARIANT_COMPONENTS}
    return validate(Variant, {kind: lab.registry.get(kind, part) for kind, part in names.items()}, name)


def load_grid(
    source: str | os.PathLike[str] | Mapping[str, Any], name: str = "", *, lab: LabOrFolder | None = None
) -> Grid:
    """Read and validate a grid file, or a dict with its content.

    Args:
        source: path of the grid file; or a dict with the keys of a grid file (`docs/grids.md`).
        name: name of the grid of a dict. `run_grid` writes the dict to `experiments/<name>.yaml`, so that the commands
            find the grid; until then nothing is written.
        lab: lab of the grid, or its folder; by default the folder above `experiments/` of the file, and the current
            folder for a dict.

    Raises:
        ConfigError: the grid is not valid; the message has one line per error.

    Example::

        grid = fcnlab.load_grid(
            {
                "question": "What do skips gain?",
                "base": {"backbone": "tiny-scratch", "dataset": "shapes", "recipe": "quick"},
                "product": {"head": ["fcn32s", "fcn8s"]},
            },
            name="skips",
        )
    """
    if isinstance(source, Mapping):
        if not name:
            raise ConfigError('a grid that is a dict needs a name, such as load_grid({...}, name="heads")')
        return _find_lab(lab).create_grid(source, name)
    path = Path(source)
    if name:
        raise ConfigError(f"{path}: a grid file has the name of its file; leave out name={name!r}, or rename the file")
    return _find_lab(lab, path).load_grid(path)


def run_grid(
    grid: GridOrFile,
    *,
    executor: str = RunOptions.executor,
    workers: int | None = RunOptions.workers,
    threads: int | None = RunOptions.threads,
    per_gpu: int = RunOptions.per_gpu,
    devices_per_trial: int = RunOptions.devices_per_trial,
    device: Device = RunOptions.device,
    address: str | None = RunOptions.address,
    retry_failed: bool = RunOptions.retry_failed,
    fail_fast: bool = RunOptions.fail_fast,
    wait: bool = RunOptions.wait,
    checkpoint_every: float = RunOptions.checkpoint_every,
    log_every: int | None = RunOptions.log_every,
    hang_timeout: float | None = RunOptions.hang_timeout,
    lab: LabOrFolder | None = None,
    quiet: bool = False,
) -> Outcome:
    """Run the remaining trials of a grid, publish them to MLflow and write the report.

    Args:
        grid: the grid, from `load_grid`, or the path of its file.
        executor: `process`, `serial`, `ray`, or the name of an extension.
        workers: number of trials that run at the same time; None chooses it for the machine.
        threads: number of CPU threads per trial; None chooses it for the machine.
        per_gpu: number of trials that share a GPU.
        devices_per_trial: number of devices that train one trial together.
        device: `cuda`, `cpu`, or `auto` for CUDA if there is a GPU.
        address: address of a running Ray cluster.
        retry_failed: run failed trials again.
        fail_fast: start no further trial after the first failure.
        wait: wait until the trials that other drivers run have ended.
        checkpoint_every: seconds between two checkpoints of a trial; 0 writes one after each epoch.
        log_every: number of steps between two training losses that are recorded; None records those of epochs only.
        hang_timeout: least number of seconds without progress after which a trial is killed and resumed; None never
            does so.
        lab: lab of the grid, or its folder; by default the folder above `experiments/`.
        quiet: print no progress.

    Returns:
        The numbers of finished, failed, reused and pruned trials.

    Raises:
        FcnlabError: the grid cannot be run; the message is that of `fcnlab grid run`.
    """
    from fcnlab.console import create_console
    from fcnlab.report.write import create_report
    from fcnlab.runner.progress.base import ProgressReporter
    from fcnlab.runner.progress.create import create_reporter
    from fcnlab.runner.publisher import OptionalTracker
    from fcnlab.runner.run import run_grid as run_trials

    grid, lab = _find_grid(grid, lab)
    reporter = ProgressReporter() if quiet else create_reporter(create_console())
    options = RunOptions(
        executor=executor,
        workers=workers,
        threads=threads,
        per_gpu=per_gpu,
        devices_per_trial=devices_per_trial,
        device=device,
        address=address,
        retry_failed=retry_failed,
        fail_fast=fail_fast,
        wait=wait,
        checkpoint_every=checkpoint_every,
        log_every=log_every,
        hang_timeout=hang_timeout,
    )
    with reporter:
        outcome = run_trials(grid, lab, reporter, options)
    create_report(grid, lab, OptionalTracker(grid, lab, outcome.deferred.get("mlflow")), predict=False)
    return outcome


def load(
    trial: str | os.PathLike[str],
    *,
    checkpoint: CheckpointChoice | None = None,
    precision: Precision | None = None,
    lab: LabOrFolder | None = None,
) -> TrainedModel:
    """Load the model of a finished trial or of an exported file.

    Args:
        trial: `FILE:CELL` or `FILE:CELL:SEED` of a grid, `FILE:best` for the cell with the greatest mean mIoU on the
            reported split, key of a trial or its first characters, its run folder, or a file of `fcnlab export`.
        checkpoint: load the weights of the last epoch, or of the epoch with the best mIoU on val; by default the
            checkpoint of the grid file, and `last` for a trial that is not named by a grid file.
        precision: precision of prediction; by default that of the training on the same type of device.
        lab: lab of the trial, or its folder; by default that of the grid file or of the current folder.

    Returns:
        The model; `model.predict(image)` returns the label of each pixel of a PIL image.

    Raises:
        ConfigError: the grid file does not contain the cell or the seed.
        RunError: there is no such trial, it has not finished, or its weights are missing; or the file has another
            format than safetensors.
        ModelError: the file was not written by `fcnlab export`, or the weights do not fit the model.
    """
    from fcnlab.runner.find import find_grid_file

    name = os.fspath(trial)
    found = _find_lab(lab, find_grid_file(name))
    model = load_model(name, checkpoint, found, lambda name, lab: _find_references(name, lab=lab, stacklevel=6)[0])
    return model if precision is None else model.with_precision(precision)


def load_model(
    name: str, checkpoint: CheckpointChoice | None, lab: Lab, find: Callable[[str, Lab], Reference]
) -> TrainedModel:
    """Load the model of a finished trial or of an exported file, as `load`; torch is imported after the trial is found.

    Args:
        name: name of the trial, or path of the file.
        checkpoint: the checkpoint; None for that of the grid file, or `last`.
        lab: lab of the trial.
        find: finds a trial by its name.
    """
    from fcnlab.constants import CheckpointChoice

    file = Path(name)
    if checkpoint is not None and checkpoint not in get_args(CheckpointChoice):
        raise RunError(f"checkpoint '{checkpoint}': {nearest(checkpoint, get_args(CheckpointChoice))}")
    if file.suffix == ".safetensors":
        if checkpoint is not None:
            raise RunError(f"{name}: an exported file has one checkpoint, so {checkpoint} cannot be selected")
        from fcnlab.extensions import Extensions
        from fcnlab.inference.load import read_safetensors

        return read_safetensors(file, Extensions(lab.root))
    if file.suffix in (".onnx", ".pt2") and is_file(file):
        raise RunError(f"{name}: only trials and exported .safetensors files can be loaded; export --to safetensors")
    reference = find(name, lab)
    finished = reference.read_finished()

    from fcnlab.inference.load import load_trial

    return load_trial(finished, checkpoint or reference.checkpoint)


def frame(grid: GridOrFile, *, lab: LabOrFolder | None = None) -> pd.DataFrame:
    """Return a data frame with one row per trial.

    Args:
        grid: the grid, from `load_grid`, or the path of its file.
        lab: lab of the grid, or its folder; by default the folder above `experiments/`.

    Returns:
        The frame; `docs/reading-a-report.md` describes the columns.
    """
    from fcnlab.report.frame import trials_frame

    grid, lab = _find_grid(grid, lab)
    plan = _make_plan(grid, lab)
    with _open_tracker(grid, lab) as tracker:
        return tracker.call(lambda store: trials_frame(plan, store))


def summary(grid: GridOrFile, *, lab: LabOrFolder | None = None) -> pd.DataFrame:
    """Return a data frame with one row per cell, with the intervals of the table.

    Args:
        grid: the grid, from `load_grid`, or the path of its file.
        lab: lab of the grid, or its folder; by default the folder above `experiments/`.

    Returns:
        The frame; `docs/reading-a-report.md` describes the columns.
    """
    from fcnlab.report.report import report_plan

    grid, lab = _find_grid(grid, lab)
    plan = _make_plan(grid, lab)
    with _open_tracker(grid, lab) as tracker:
        return report_plan(plan, lab, tracker).cells


def effects(grid: GridOrFile, *, lab: LabOrFolder | None = None) -> pd.DataFrame:
    """Return a data frame with one row per effect of an axis: the mean difference of cells that differ in it only.

    Args:
        grid: the grid, from `load_grid`, or the path of its file.
        lab: lab of the grid, or its folder; by default the folder above `experiments/`.

    Returns:
        Columns `dataset`, `axis`, `value`, `reference`, `pairs`, `n` (seeds), `delta`, `delta_low`, `delta_high` (the
        95 % interval), `p_value`, `p_holm`, `significant` (missing where no claim is made), `delta_min` and `delta_max`
        (the smallest and the largest difference of a pair); metrics are fractions of 1. Empty for a grid without an
        axis that varies over two pairs of cells.
    """
    from fcnlab.report.report import report_plan

    grid, lab = _find_grid(grid, lab)
    plan = _make_plan(grid, lab)
    with _open_tracker(grid, lab) as tracker:
        return report_plan(plan, lab, tracker).effects


def curves(grid: GridOrFile, *, lab: LabOrFolder | None = None) -> pd.DataFrame:
    """Return a data frame with one row per trial and epoch, also of trials that are running or have failed.

    Args:
        grid: the grid, from `load_grid`, or the path of its file.
        lab: lab of the grid, or its folder; by default the folder above `experiments/`.

    Returns:
        Columns `cell`, one per axis, `seed`, `key`, `epoch`, `loss`, `lr`, `images_per_s`, `seconds`, `val_miou` and
        `val_pixel_acc`. The last two are fractions of 1, and NaN in epochs that were not validated.
    """
    from fcnlab.report.report import make_curves

    grid, lab = _find_grid(grid, lab)
    plan = _make_plan(grid, lab)
    with _open_tracker(grid, lab) as tracker:
        return tracker.call(lambda store: make_curves(plan, lab, store))


def compare(a: str, b: str, *, lab: LabOrFolder | None = None) -> CellComparison:
    """Compare two cells or trials: the difference in mIoU of `b` to `a` with its interval, by class and by image.

    Args:
        a: `FILE:CELL`, `FILE:CELL:SEED`, `FILE:best`, the first characters of a trial's key, or a run folder.
        b: the other cell or trial.
        lab: lab of the trials, or its folder; by default that of the grid file or of the current folder.

    Returns:
        The comparison; its `difference`, `classes` and `images` contain the numbers.

    Raises:
        ConfigError: the grid file does not contain the cell or the seed.
        RunError: a trial has not finished, or the two were evaluated on different images.
    """
    from fcnlab.report import comparison
    from fcnlab.runner.find import find_grid_file

    lab = _find_lab(lab, find_grid_file(a, b))
    sides = [comparison.load_side(reference, lab) for reference in _find_references(a, b, lab=lab)]
    return comparison.compare(*sides)


def diff(a: str, b: str, *, lab: LabOrFolder | None = None) -> pd.DataFrame:
    """Return every field in which two trials differ: configuration, data, code, environment, metrics, cost.

    Args:
        a: `FILE:CELL:SEED`, `FILE:best`, the first characters of a trial's key, or a run folder.
        b: the other trial.
        lab: lab of the trials, or its folder; by default that of the grid file or of the current folder.

    Returns:
        Columns `section`, `field`, `a`, `b` and `delta`, which is `b - a` for numbers. Metrics are fractions of 1.

    Raises:
        ConfigError: the grid file does not contain the cell or the seed.
        RunError: there is no such trial, or it has not ended.
    """
    import pandas as pd

    from fcnlab.runner.find import find_grid_file
    from fcnlab.trial.diff import diff_records

    lab = _find_lab(lab, find_grid_file(a, b))
    differences = diff_records(*(reference.read_record() for reference in _find_references(a, b, lab=lab)))
    rows = [(one.section, one.field, one.a, one.b, one.delta) for one in differences]
    return pd.DataFrame(rows, columns=["section", "field", "a", "b", "delta"])


def report(grid: GridOrFile, *, lab: LabOrFolder | None = None, predict: bool = False) -> Report:
    """Write the report of a grid to `results/<grid>/`, from the records of the lab and of MLflow.

    Args:
        grid: the grid, from `load_grid`, or the path of its file.
        lab: lab of the grid, or its folder; by default the folder above `experiments/`.
        predict: predict images that the page shows and that are not saved yet, if the weights are available.

    Returns:
        The report with its tables and frames.

    Raises:
        RunError: no trial has finished, and the written report has finished trials, or it cannot be written.
    """
    from fcnlab.report.write import create_report

    grid, lab = _find_grid(grid, lab)
    with _open_tracker(grid, lab) as tracker:
        made = create_report(grid, lab, tracker, predict=predict, after_run=False)
    _warn_of_missing_inputs(made.plan)
    return made


def _find_lab(lab: LabOrFolder | None, file: Path | None = None) -> Lab:
    """Return a lab, or find that of a folder or of a grid file."""
    return lab if isinstance(lab, Lab) else Lab.find(file, root=None if lab is None else Path(lab))


def _find_grid(grid: GridOrFile, lab: LabOrFolder | None) -> tuple[Grid, Lab]:
    """Return a grid, or that of a file, and its lab."""
    if isinstance(grid, Grid):
        return grid, _find_lab(lab, grid.path)
    found = _find_lab(lab, Path(grid))
    return found.load_grid(Path(grid)), found


def _make_plan(grid: Grid, lab: Lab) -> Plan:
    """Make the plan of a grid to read its results."""
    from fcnlab.runner.plan import make_plan

    plan = make_plan(grid, lab, recorded_inputs=True)
    _warn_of_missing_inputs(plan, stacklevel=4)
    return plan


def _find_references(*names: str, lab: Lab, stacklevel: int = 4) -> list[Reference]:
    """Find trials or cells by their names."""
    from fcnlab.runner.find import find_reference

    references = [find_reference(name, lab) for name in names]
    plans = [reference.plan for reference in references if reference.plan is not None]
    _warn_of_missing_inputs(*plans, stacklevel=stacklevel)
    return references


def _warn_of_missing_inputs(*plans: Plan, stacklevel: int = 3) -> None:
    """Warn if recorded fingerprints replace those of missing data or weights."""
    for line in dict.fromkeys(plan.missing_inputs for plan in plans):
        if line is not None:
            warnings.warn(line, stacklevel=stacklevel)


@contextmanager
def _open_tracker(grid: Grid, lab: Lab) -> Iterator[OptionalTracker]:
    """Open the tracker of a grid, and warn if its store raises an error."""
    from fcnlab.runner.publisher import OptionalTracker

    tracker = OptionalTracker(grid, lab)
    yield tracker
    if tracker.error is not None:
        warnings.warn(f"only the records in {lab.runs} are read: {tracker.error}", stacklevel=4)
