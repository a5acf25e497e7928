"""Workloads of trials, and the cost rates of finished trials in a lab."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from fcnlab.config.dataset import Dataset
from fcnlab.config.recipe import Recipe
from fcnlab.config.trial import Trial
from fcnlab.config.variant import Variant
from fcnlab.lab import Lab
from fcnlab.paths import is_file
from fcnlab.processor import get_processor_name
from fcnlab.runner.cost.rate import FINISHED_SPREAD, SETUP_SECONDS, CostRate, count_validations
from fcnlab.runner.executors.slots import Slot
from fcnlab.runner.plan import Plan, PlannedTrial, list_other_folders
from fcnlab.trial.record import Record
from fcnlab.trial.run_folder import RunFolder

MAX_RECORDS = 5
"""Maximum number of records of the grid that are read per workload."""

MAX_OTHER_FOLDERS = 500
"""Maximum number of other run folders of the lab that are searched for comparable trials."""


@dataclass(frozen=True)
class Workload:
    """The configuration that determines the cost of an epoch.

    Attributes:
        variant: the variant as JSON, without the initialization of its weights.
        data: the dataset as JSON.
        sizes: the fields of the recipe that change the cost of a step, as JSON.
    """

    variant: str
    data: str
    sizes: str

    @property
    def data_and_sizes(self) -> tuple[str, str]:
        """The workload without the variant."""
        return self.data, self.sizes

    @classmethod
    def of(cls, trial: Trial) -> Workload:
        """Return the workload of a trial.

        Args:
            trial: the trial.
        """
        return cls(_encode_variant(trial.variant), _encode_dataset(trial.dataset), _encode_sizes(trial.recipe))


def _encode_dataset(dataset: Dataset) -> str:
    content = dataset.content()
    for name in ("seed", "fold"):  # all folds have the same size
        content.get("cross_validation", {}).pop(name, None)
    return _to_json(content)


def _encode_variant(variant: Variant) -> str:
    content = variant.content()
    for name in ("weights", "weights_prefix"):
        content["backbone"].pop(name, None)
    for name in ("init", "stage_init"):
        content.get("upsampler", {}).pop(name, None)
    return _to_json(content)


def _encode_sizes(recipe: Recipe) -> str:
    sizes = [recipe.crop.content(), recipe.batch_size, recipe.grad_accum_steps, recipe.precision, recipe.freeze]
    sizes += [recipe.train_size, recipe.steps_per_epoch]
    custom = [spec.content() for spec in (recipe.loss.custom, recipe.transform) if spec is not None]
    return _to_json([*sizes, recipe.score_scale, recipe.ema is not None, *custom])


def _to_json(content: object) -> str:
    return json.dumps(content, sort_keys=True)


def read_cost_rates(
    plan: Plan, lab: Lab, workloads: Mapping[str, Workload], trials_per_device: int = 1, slot: Slot | None = None
) -> dict[Workload, CostRate]:
    """Read the cost rates of finished trials that are comparable to the remaining ones.

    Trials are comparable if they have the same dataset and sizes. Trials of the grid are preferred to other trials of
    the lab, which are read only for workloads without a finished trial in the grid.

    Args:
        plan: the plan of the grid.
        lab: the lab whose run folders are read.
        workloads: the workload of each trial of the plan, by key.
        trials_per_device: the number of trials that share a GPU.
        slot: threads and GPUs of a trial; trials that ran with others are not comparable. None accepts all trials.

    Returns:
        The rate of each workload: measured with this `trials_per_device`, else extrapolated from another.
    """
    remaining = {workloads[planned.key] for planned in plan.remaining}
    comparable = {workload.data_and_sizes for workload in remaining}
    finished: dict[Workload, list[PlannedTrial]] = {}
    for planned in plan.all_trials:
        if planned.status == "finished" and workloads[planned.key].data_and_sizes in comparable:
            finished.setdefault(workloads[planned.key], []).append(planned)
    rates: dict[Workload, list[CostRate]] = {}
    for workload, trials in finished.items():
        records = [(planned.folder, planned.record) for planned in trials[:MAX_RECORDS]]
        rates[workload] = [
            rate for folder, record in records if record is not None for _, rate in _read_rate(record, folder, slot)
        ]
    for folder in list_other_folders(plan, lab, MAX_OTHER_FOLDERS) if remaining - rates.keys() else ():
        record = folder.read()
        if record is None or record.status != "finished":
            continue
        for workload, rate in _read_rate(record, folder, slot):
            if workload.data_and_sizes in comparable and workload not in finished:
                rates.setdefault(workload, []).append(rate)
    return {workload: _average(several, trials_per_device) for workload, several in rates.items() if several}


def _average(rates: Sequence[CostRate], trials_per_device: int) -> CostRate:
    measured = [rate for rate in rates if rate.trials_per_device == trials_per_device]
    return CostRate.mean(measured or [rate.with_trials_per_device(trials_per_device) for rate in rates])


def _read_rate(record: Record, folder: RunFolder, slot: Slot | None) -> Iterator[tuple[Workload, CostRate]]:
    """Yield the workload and the rate of a finished trial, or nothing if it is not comparable.

    It is not if this version cannot read its trial, or if it ran on other hardware.
    """
    try:
        trial = Trial.model_validate(record.trial)
    except ValidationError:
        return
    if record.cost is None or not _ran_on_hardware_of(record, slot):
        return
    images = {metrics.split: metrics.images for metrics in record.metrics}
    val, test = images.get("val", 1), images.get("test", 0)
    evaluated_epochs = len({metrics.epoch for metrics in record.metrics}) or 1
    # The last validation is also the evaluation of the last epoch, unless the trial stopped before its last epoch.
    validations = count_validations(trial.recipe, record.trained_epochs) - (record.plateau is None)
    evaluated = val * (validations + evaluated_epochs) + test * evaluated_epochs
    image_seconds = record.cost.evaluate_seconds / evaluated
    yield (
        Workload.of(trial),
        CostRate(
            epoch_seconds=record.cost.train_seconds / record.trained_epochs,
            image_seconds=image_seconds,
            final_image_seconds=image_seconds,
            setup_seconds=SETUP_SECONDS,
            memory=record.cost.peak_memory,
            disk=_compute_size(folder.path),
            device=record.environment.hardware if record.environment is not None else "an unknown device",
            trials=1,
            trials_per_device=record.environment.trials_per_device if record.environment is not None else 1,
            spread=FINISHED_SPREAD,
        ),
    )


def _ran_on_hardware_of(record: Record, slot: Slot | None) -> bool:
    """Return whether a trial ran on the hardware of a slot; a record without an environment is accepted."""
    environment = record.environment
    if slot is None or environment is None:
        return True
    if slot.gpu is not None:
        return environment.kind == "cuda"
    hardware = (environment.threads, environment.device.rpartition(" (")[0])
    return environment.kind == "cpu" and hardware == (slot.threads, get_processor_name())


def _compute_size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if is_file(file))


def find_workloads(plan: Plan) -> dict[str, Workload]:
    """Return the workload of each trial of a plan.

    The trials of a cell share their components, which are encoded only once.

    Args:
        plan: the plan.

    Returns:
        The workloads by the key of the trial.
    """
    by_components: dict[tuple[int, int, int], Workload] = {}
    workloads = {}
    for planned in plan.all_trials:
        trial = planned.trial
        components = id(trial.variant), id(trial.dataset), id(trial.recipe)
        if components not in by_components:
            by_components[components] = Workload.of(trial)
        workloads[planned.key] = by_components[components]
    return workloads
