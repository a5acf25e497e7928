"""Measured cost of trials by workload: seconds per epoch and evaluation, memory and disk."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from pydantic import ValidationError

from fcnlab.config.dataset import Dataset
from fcnlab.config.recipe import Recipe
from fcnlab.config.trial import Trial
from fcnlab.config.variant import Variant
from fcnlab.lab import Lab
from fcnlab.runner.plan import Plan, PlannedTrial
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
    def of(cls, variant: Variant, dataset: Dataset, recipe: Recipe) -> Workload:
        """Return the workload of a trial.

        Args:
            variant: the variant of the trial.
            dataset: its dataset.
            recipe: its recipe.
        """
        return cls(_encode_variant(variant), _to_json(dataset.content()), _encode_sizes(recipe))


def _encode_variant(variant: Variant) -> str:
    content = variant.content()
    for name in ("weights", "weights_prefix"):
        content["backbone"].pop(name, None)
    for name in ("init", "stage_init"):
        content.get("upsampler", {}).pop(name, None)
    return _to_json(content)


def _encode_sizes(recipe: Recipe) -> str:
    sizes = [recipe.crop.content(), recipe.batch_size, recipe.grad_accum_steps, recipe.precision, recipe.freeze]
    return _to_json([*sizes, recipe.score_scale, recipe.ema is not None])


def _to_json(content: object) -> str:
    return json.dumps(content, sort_keys=True)


@dataclass(frozen=True)
class CostRate:
    """Measured cost of the trials of one workload.

    Attributes:
        epoch_seconds: training time of an epoch.
        evaluation_seconds: time of one evaluation of a split.
        memory: peak memory of the device in bytes; None if it was not measured.
        disk: size of the run folder of a finished trial in bytes.
        device: name of the hardware of the measurement.
        trials: the number of finished trials averaged over; 0 for a probe.
        sharing: the number of trials that shared the GPU.
        measured: whether the rate was measured with this `sharing`, and not extrapolated from another.
    """

    epoch_seconds: float
    evaluation_seconds: float
    memory: int | None
    disk: int
    device: str
    trials: int
    sharing: int = 1
    measured: bool = True

    def with_sharing(self, count: int) -> CostRate:
        """Return the rate of each of several trials on one GPU.

        If fewer trials shared the GPU in the measurement, sharing is assumed to gain nothing: with twice the number
        of trials, each takes twice as long. If more trials shared it, the times stay as measured.

        Args:
            count: the number of trials that share the GPU.
        """
        if count == self.sharing:
            return self
        factor = max(1.0, count / self.sharing)
        return replace(
            self,
            epoch_seconds=factor * self.epoch_seconds,
            evaluation_seconds=factor * self.evaluation_seconds,
            sharing=count,
            measured=False,
        )

    def trial_seconds(self, recipe: Recipe, epochs: int) -> float:
        """Return the time of a trial in seconds, with all evaluations.

        Args:
            recipe: the recipe of the trial.
            epochs: the number of epochs to train.
        """
        return epochs * self.epoch_seconds + count_evaluations(recipe) * self.evaluation_seconds

    @classmethod
    def mean(cls, rates: Iterable[CostRate]) -> CostRate:
        """Return the mean of several rates, with the maximum of their peak memories.

        Args:
            rates: at least one rate.
        """
        rates = list(rates)
        measured = [rate.memory for rate in rates if rate.memory is not None]
        return cls(
            epoch_seconds=fmean(rate.epoch_seconds for rate in rates),
            evaluation_seconds=fmean(rate.evaluation_seconds for rate in rates),
            memory=max(measured, default=None),
            disk=round(fmean(rate.disk for rate in rates)),
            device=" and ".join(dict.fromkeys(rate.device for rate in rates)),
            trials=sum(rate.trials for rate in rates),
            sharing=max(rate.sharing for rate in rates),
            measured=all(rate.measured for rate in rates),
        )


def count_evaluations(recipe: Recipe) -> int:
    """Return the number of evaluations of a trial: val during training, then the two splits of the record.

    Args:
        recipe: the recipe of the trial.
    """
    return -(-recipe.epochs // recipe.validate_every) + 2


def read_cost_rates(
    plan: Plan, lab: Lab, workloads: Mapping[str, Workload], sharing: int = 1
) -> dict[Workload, CostRate]:
    """Read the cost rates of finished trials that are comparable to the remaining ones.

    Trials are comparable if they have the same dataset and sizes. Trials of the grid are preferred to other trials of
    the lab, which are read only for workloads without a finished trial in the grid.

    Args:
        plan: the plan of the grid.
        lab: the lab whose run folders are read.
        workloads: the workload of each trial of the plan, by key.
        sharing: the number of trials that share a GPU.

    Returns:
        The rate of each workload: measured with this `sharing`, else extrapolated from another.
    """
    wanted = {workloads[planned.key] for planned in plan.remaining}
    comparable = {workload.data_and_sizes for workload in wanted}
    own: dict[Workload, list[PlannedTrial]] = {}
    for planned in plan.all_trials:
        if planned.status == "finished" and workloads[planned.key].data_and_sizes in comparable:
            own.setdefault(workloads[planned.key], []).append(planned)
    found: dict[Workload, list[CostRate]] = {}
    for workload, trials in own.items():
        records = [(planned.folder, planned.record) for planned in trials[:MAX_RECORDS]]
        found[workload] = [
            rate for folder, record in records if record is not None for _, rate in _read_rate(record, folder)
        ]
    for folder, record in _iterate_others(plan, lab) if wanted - found.keys() else ():
        for workload, rate in _read_rate(record, folder):
            if workload.data_and_sizes in comparable and workload not in own:
                found.setdefault(workload, []).append(rate)
    return {workload: _average(rates, sharing) for workload, rates in found.items() if rates}


def _average(rates: Sequence[CostRate], sharing: int) -> CostRate:
    measured = [rate for rate in rates if rate.sharing == sharing]
    return CostRate.mean(measured or [rate.with_sharing(sharing) for rate in rates])


def _iterate_others(plan: Plan, lab: Lab) -> Iterator[tuple[RunFolder, Record]]:
    """Yield the finished trials of the lab that are not in the plan, the latest first."""
    if not lab.runs.is_dir():
        return
    own = {planned.key for planned in plan.all_trials}
    others = [path for path in lab.runs.iterdir() if path.name not in own]
    latest = sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)
    for path in latest[:MAX_OTHER_FOLDERS]:
        folder = RunFolder(lab.runs, path.name)
        if (record := folder.read()) is not None and record.status == "finished":
            yield folder, record


def _read_rate(record: Record, folder: RunFolder) -> Iterator[tuple[Workload, CostRate]]:
    """Yield the workload and the rate of a finished trial, or nothing if this version cannot read its trial."""
    try:
        trial = Trial.model_validate(record.trial)
    except ValidationError:
        return
    if record.cost is None:
        return
    yield (
        Workload.of(trial.variant, trial.dataset, trial.recipe),
        CostRate(
            epoch_seconds=record.cost.train_seconds / trial.recipe.epochs,
            evaluation_seconds=record.cost.evaluate_seconds / count_evaluations(trial.recipe),
            memory=record.cost.peak_memory,
            disk=_compute_size(folder.path),
            device=record.environment.hardware if record.environment is not None else "an unknown device",
            trials=1,
            sharing=record.environment.sharing if record.environment is not None else 1,
        ),
    )


def _compute_size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def find_workloads(plan: Plan) -> dict[str, Workload]:
    """Return the workload of each trial of a plan.

    Most trials of a grid share their components, so each component is encoded only once.

    Args:
        plan: the plan.

    Returns:
        The workloads by the key of the trial.
    """
    texts: dict[int, str] = {}
    found = {}
    for planned in plan.all_trials:
        trial = planned.trial
        if id(trial.variant) not in texts:
            texts[id(trial.variant)] = _encode_variant(trial.variant)
        if id(trial.dataset) not in texts:
            texts[id(trial.dataset)] = _to_json(trial.dataset.content())
        if id(trial.recipe) not in texts:
            texts[id(trial.recipe)] = _encode_sizes(trial.recipe)
        found[planned.key] = Workload(texts[id(trial.variant)], texts[id(trial.dataset)], texts[id(trial.recipe)])
    return found
