"""The images worth a look: those on which cells disagree most, and each cell's best and worst.

Figures choose the images, from the per-image counts of each cell's first seed. Predictions are made again from the
weights of the last epoch (or the best) where they and the dataset are there, and kept below `.fcnlab/predictions/`;
else the images are chosen among the first ones, of which each trial has left samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fcnlab.analysis.resampling import Floats, compute_class_iou, mean_over_classes
from fcnlab.errors import FcnlabError
from fcnlab.lab import Lab
from fcnlab.report.trial_records import TrialRecords
from fcnlab.runner.plan import Plan

if TYPE_CHECKING:  # at run time it would import torch
    from fcnlab.metrics.confusion import Counts

MOST_CELLS = 6
"""Cells that a page has room to show side by side: the baseline and the best of the others."""

DISAGREEMENTS = 6
SAMPLES_ONLY = "The images are chosen among the samples that each trial keeps"


@dataclass(frozen=True)
class Shown:
    """A cell in the gallery: the seed that is shown, mIoU of each image by its id, and where its pictures lie."""

    cell: str
    seed: int
    miou: dict[str, float]
    folders: tuple[Path, ...]

    def picture(self, id_: str, role: str) -> Path | None:
        """The file of an image's `image.jpg`, `label.png` or `prediction.png`."""
        name = f"{id_.replace('/', '_')}.{role}"
        return next((folder / name for folder in self.folders if (folder / name).is_file()), None)

    def has(self, id_: str) -> bool:
        """Whether it is known what the cell predicts for an image."""
        return self.picture(id_, "prediction.png") is not None


@dataclass(frozen=True)
class Gallery:
    """Ids of the images to show: where the cells disagree most, and the best and the worst of each cell."""

    shown: tuple[Shown, ...]
    disagreements: tuple[str, ...]
    extremes: dict[str, tuple[str, str]]
    note: str


def choose(plan: Plan, cells: pd.DataFrame, records: TrialRecords, lab: Lab, *, predict: bool) -> Gallery | None:
    """The gallery of a grid; None where no cell has counts and pictures.

    With `predict` what is wanted and not kept yet is predicted; a cell for which that cannot be done is shown with the
    samples that it has, and the gallery's `note` says why.
    """
    candidates = [shown for cell in _cells(cells) if (shown := _first_seed(cell, records, lab)) is not None]
    if not candidates:
        return None
    why = _complete(candidates, plan, records, lab) if predict else f"{SAMPLES_ONLY}; `fcnlab report` predicts others"
    ids = list(candidates[0].miou)
    if all(shown.has(id_) for id_ in _wanted(candidates) for shown in candidates):
        return _gallery(candidates, ids, "")
    known = [id_ for id_ in ids if all(shown.has(id_) for shown in candidates)]
    return _gallery(candidates, known, why) if known else None


def _cells(cells: pd.DataFrame) -> list[str]:
    """The baseline and the best others, in the order of the table."""
    scored = cells[cells["n"] > 0]
    others = scored[~scored["baseline"]].nlargest(MOST_CELLS - 1, "miou")["cell"]
    chosen = {*others, *scored["cell"][scored["baseline"]]}
    return [str(cell) for cell in scored["cell"] if cell in chosen]


def _first_seed(cell: str, records: TrialRecords, lab: Lab) -> Shown | None:
    counts = records.counts(cell)
    if not counts:
        return None
    seed = min(counts)
    folder = records.folders[cell][seed]
    miou = image_miou(counts[seed])
    kept = _kept(lab, folder.key, records.checkpoint)
    found = dict(zip(records.ids(cell, seed), miou.tolist(), strict=True))
    return Shown(cell, seed, found, (kept, folder.samples))


def _kept(lab: Lab, key: str, checkpoint: str) -> Path:
    return lab.root / ".fcnlab" / "predictions" / f"{key}-{checkpoint}"


def image_miou(counts: Counts) -> Floats:
    """Each image's own mIoU, over the classes that are labelled in it: [images, classes, 3] -> [images].

    It says where a cell is right and where not; the mIoU of a split is over summed counts, and no mean of these. A few
    pixels of a class that is not there would halve it if such classes counted, too.
    """
    return mean_over_classes(np.where(counts[..., 2] > 0, compute_class_iou(counts), np.nan))


def _complete(candidates: Sequence[Shown], plan: Plan, records: TrialRecords, lab: Lab) -> str:
    """Predict what is wanted and missing; returns why something could not be, or nothing."""
    ids = _wanted(candidates)
    trials = {(one.cell.label, one.trial.seed): one.trial for one in plan.trials}
    why = ""
    for shown in candidates:
        missing = [id_ for id_ in ids if not shown.has(id_)]
        if not missing:
            continue
        from fcnlab.report.gallery.predictions import predict
        from fcnlab.trial.find import FinishedTrial

        place = shown.cell, shown.seed
        folder, record = records.folders[shown.cell][shown.seed], records.by_cell[shown.cell][shown.seed]
        try:
            predict(FinishedTrial(trials[place], record, folder), lab, missing, records.checkpoint, shown.folders[0])
        except FcnlabError as error:
            reason = str(error).splitlines()[0].replace(f"{lab.root}/", "")
            why = f"{SAMPLES_ONLY}: others cannot be predicted ({reason})"
    return why


def _wanted(candidates: Sequence[Shown]) -> list[str]:
    """The images of the gallery, if all could be shown."""
    found = _gallery(candidates, list(candidates[0].miou), "")
    return list(dict.fromkeys([*found.disagreements, *(id_ for pair in found.extremes.values() for id_ in pair)]))


def _gallery(candidates: Sequence[Shown], ids: Sequence[str], note: str) -> Gallery:
    return Gallery(
        tuple(candidates),
        tuple(_disagreements(candidates, ids)) if len(candidates) > 1 else (),
        {shown.cell: pair for shown in candidates if (pair := _extremes(shown, ids))},
        note,
    )


def _disagreements(candidates: Sequence[Shown], ids: Iterable[str]) -> list[str]:
    """The images whose mIoU differs most between the best and the worst cell."""

    def apart(id_: str) -> float:
        found = [shown.miou.get(id_, np.nan) for shown in candidates]
        return 0.0 if np.isnan(found).any() else max(found) - min(found)

    return sorted((id_ for id_ in ids if apart(id_) > 0), key=lambda id_: -apart(id_))[:DISAGREEMENTS]


def _extremes(shown: Shown, ids: Iterable[str]) -> tuple[str, str] | None:
    """The images on which a cell is best and worst."""
    scored = [id_ for id_ in ids if not np.isnan(shown.miou.get(id_, np.nan))]
    if not scored:
        return None
    return max(scored, key=lambda id_: shown.miou[id_]), min(scored, key=lambda id_: shown.miou[id_])
