"""How long trials of one shape take, and how much memory and disk: by trials that have finished, or by a probe."""

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

ENOUGH = 5
"""Finished trials of a shape that are read."""

LOOKED_THROUGH = 500
"""Other trials of the lab that are read at most, in search of one of the same shape."""


@dataclass(frozen=True)
class Shape:
    """What the cost of an epoch depends on: the variant but for its start, the data, the sizes of the recipe."""

    variant: str
    data: str
    sizes: str

    @property
    def work(self) -> tuple[str, str]:
        """All of it but the variant."""
        return self.data, self.sizes

    @classmethod
    def of(cls, variant: Variant, dataset: Dataset, recipe: Recipe) -> Shape:
        """The shape of a trial."""
        return cls(_shape_of(variant), _text(dataset.content()), _sizes(recipe))


def _shape_of(variant: Variant) -> str:
    parts = variant.content()
    parts["backbone"].pop("weights", None)
    for name in ("init", "stage_init"):
        parts["upsampler"].pop(name, None)
    return _text(parts)


def _sizes(recipe: Recipe) -> str:
    sizes = [recipe.crop.content(), recipe.batch_size, recipe.grad_accum_steps, recipe.precision, recipe.freeze]
    return _text([*sizes, recipe.score_scale, recipe.ema is not None])


def _text(content: object) -> str:
    return json.dumps(content, sort_keys=True)


@dataclass(frozen=True)
class Pace:
    """What trials of a shape cost.

    Attributes:
        epoch: seconds of training an epoch takes.
        scoring: seconds that scoring a split takes.
        memory: bytes of the device at most; None where it was not measured.
        disk: bytes of the run folder in the end.
        device: what it was measured on.
        trials: how many finished trials it is the mean of; 0 for a probe.
        sharing: how many trials shared the GPU at the same time.
        measured: whether it was measured so, and not derived from trials with fewer or more neighbours.
    """

    epoch: float
    scoring: float
    memory: int | None
    disk: int
    device: str
    trials: int
    sharing: int = 1
    measured: bool = True

    def shared_by(self, count: int) -> Pace:
        """Return the pace of each of `count` trials on one GPU.

        Where it was measured with fewer, nothing is assumed to be gained by sharing: twice as many trials take twice
        as long each. Where it was measured with more, it stays.
        """
        if count == self.sharing:
            return self
        factor = max(1.0, count / self.sharing)
        return replace(self, epoch=factor * self.epoch, scoring=factor * self.scoring, sharing=count, measured=False)

    def seconds(self, recipe: Recipe, epochs: int) -> float:
        """Seconds that so many epochs and all scoring of a trial take."""
        return epochs * self.epoch + scorings(recipe) * self.scoring

    @classmethod
    def mean(cls, paces: Iterable[Pace]) -> Pace:
        """The mean of several; of memory the most."""
        paces = list(paces)
        measured = [pace.memory for pace in paces if pace.memory is not None]
        return cls(
            epoch=fmean(pace.epoch for pace in paces),
            scoring=fmean(pace.scoring for pace in paces),
            memory=max(measured, default=None),
            disk=round(fmean(pace.disk for pace in paces)),
            device=" and ".join(dict.fromkeys(pace.device for pace in paces)),
            trials=sum(pace.trials for pace in paces),
            sharing=max(pace.sharing for pace in paces),
            measured=all(pace.measured for pace in paces),
        )


def scorings(recipe: Recipe) -> int:
    """How often a trial scores a split: val while it trains, then the splits of its record."""
    return -(-recipe.epochs // recipe.validate_every) + 2


def recorded(plan: Plan, lab: Lab, shapes: Mapping[str, Shape], sharing: int = 1) -> dict[Shape, Pace]:
    """What trials have cost that have finished in this lab and are like those that are left: those of the grid first.

    Like is what has the same shape, or that of another variant. `shapes` are those of the plan's trials by their keys.
    The paces are those of `sharing` trials on a GPU: as measured, else derived from trials with other neighbours.
    """
    wanted = {shapes[planned.key] for planned in plan.remaining}
    work = {shape.work for shape in wanted}
    own: dict[Shape, list[PlannedTrial]] = {}
    for planned in plan.all_trials:
        if planned.status == "finished" and shapes[planned.key].work in work:
            own.setdefault(shapes[planned.key], []).append(planned)
    found: dict[Shape, list[Pace]] = {}
    for shape, trials in own.items():
        records = [(planned.folder, planned.record) for planned in trials[:ENOUGH]]
        found[shape] = [pace for folder, record in records if record is not None for _, pace in _read(record, folder)]
    for folder, record in _others(plan, lab) if wanted - found.keys() else ():
        for shape, pace in _read(record, folder):
            if shape.work in work and shape not in own:
                found.setdefault(shape, []).append(pace)
    return {shape: _with_neighbours(paces, sharing) for shape, paces in found.items() if paces}


def _with_neighbours(paces: Sequence[Pace], sharing: int) -> Pace:
    measured = [pace for pace in paces if pace.sharing == sharing]
    return Pace.mean(measured or [pace.shared_by(sharing) for pace in paces])


def _others(plan: Plan, lab: Lab) -> Iterator[tuple[RunFolder, Record]]:
    """Finished trials of the lab that are none of the plan, the latest first."""
    if not lab.runs.is_dir():
        return
    own = {planned.key for planned in plan.all_trials}
    others = [path for path in lab.runs.iterdir() if path.name not in own]
    latest = sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)
    for path in latest[:LOOKED_THROUGH]:
        folder = RunFolder(lab.runs, path.name)
        if (record := folder.read()) is not None and record.status == "finished":
            yield folder, record


def _read(record: Record, folder: RunFolder) -> Iterator[tuple[Shape, Pace]]:
    """The shape and the pace of a finished trial, as far as its record can still be read as a trial of today."""
    try:
        trial = Trial.model_validate(record.trial)
    except ValidationError:
        return
    if record.cost is None:
        return
    yield (
        Shape.of(trial.variant, trial.dataset, trial.recipe),
        Pace(
            epoch=record.cost.train_seconds / trial.recipe.epochs,
            scoring=record.cost.evaluate_seconds / scorings(trial.recipe),
            memory=record.cost.peak_memory,
            disk=_size(folder.path),
            device=record.environment.hardware if record.environment is not None else "an unknown device",
            trials=1,
            sharing=record.environment.sharing if record.environment is not None else 1,
        ),
    )


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def shapes_of(plan: Plan) -> dict[str, Shape]:
    """The shape of each trial by its key; most have their parts in common with others, which are looked at once."""
    texts: dict[int, str] = {}
    found = {}
    for planned in plan.all_trials:
        trial = planned.trial
        if id(trial.variant) not in texts:
            texts[id(trial.variant)] = _shape_of(trial.variant)
        if id(trial.dataset) not in texts:
            texts[id(trial.dataset)] = _text(trial.dataset.content())
        if id(trial.recipe) not in texts:
            texts[id(trial.recipe)] = _sizes(trial.recipe)
        found[planned.key] = Shape(texts[id(trial.variant)], texts[id(trial.dataset)], texts[id(trial.recipe)])
    return found
