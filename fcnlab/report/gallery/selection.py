"""Selection of the gallery's images: those on which cells disagree most, and the best and worst of each cell.

The per-image counts of one seed select the images: the first seed that all shown cells have, or the first of each
cell. The images are predicted with the saved weights and cached in `.fcnlab/predictions/`; if the weights or the
dataset are missing, the images are selected from the saved samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from fcnlab.errors import FcnlabError, first_line
from fcnlab.lab import Lab
from fcnlab.metrics.summary import compute_image_miou
from fcnlab.paths import is_file
from fcnlab.report.report import Report
from fcnlab.report.trial_records import TrialRecords
from fcnlab.runner.plan import Plan
from fcnlab.trial.storage.sample_name import name_samples

MAX_CELLS = 6
"""Most cells that are shown side by side: the baseline and the best of the others."""

DISAGREEMENTS = 6
SAMPLES_ONLY = "The images are selected from the saved samples of each trial"


@dataclass(frozen=True)
class GalleryCell:
    """A cell in the gallery.

    Attributes:
        label: label of the cell.
        name: display name of the cell.
        seed: the seed whose predictions are shown.
        miou: mIoU of each image by its id.
        folders: folders with its pictures.
    """

    label: str
    name: str
    seed: int
    miou: dict[str, float]
    folders: tuple[Path, ...]

    @cached_property
    def _file_names(self) -> dict[str, str]:
        return name_samples(list(self.miou))

    def find_picture(self, id_: str, role: str) -> Path | None:
        """Return the file of a picture, or None.

        Args:
            id_: id of the image.
            role: `image.jpg`, `label.png` or `prediction.png`.
        """
        name = f"{self._file_names[id_]}.{role}"
        return next((folder / name for folder in self.folders if is_file(folder / name)), None)

    def has_prediction(self, id_: str) -> bool:
        """Return whether there is a prediction of an image.

        Args:
            id_: id of the image.
        """
        return self.find_picture(id_, "prediction.png") is not None


@dataclass(frozen=True)
class Gallery:
    """Images of the gallery.

    Attributes:
        cells: the cells to show.
        disagreements: ids of the images on which the cells disagree most.
        extremes: cell label -> ids of its best and its worst image.
        note: limits of the selection; empty for none.
    """

    cells: tuple[GalleryCell, ...]
    disagreements: tuple[str, ...]
    extremes: dict[str, tuple[str, str]]
    note: str


def select_gallery(report: Report, lab: Lab, *, predict: bool) -> Gallery | None:
    """Select the images of a grid's gallery, of the cells that were evaluated on the same images.

    Args:
        report: report of the grid.
        lab: the lab of the grid.
        predict: whether to predict images that have no predictions yet; if that fails, saved samples are shown and
            the gallery's `note` gives the reason.

    Returns:
        The gallery, or None where no cell has counts and pictures.
    """
    selected, records = report.select_cells(MAX_CELLS), report.records
    counts = {cell: found for cell in selected if (found := records.counts(cell))}
    if not counts:
        return None
    shared = set.intersection(*map(set, counts.values()))
    candidates = [_show_cell(cell, min(shared or found), report, lab) for cell, found in counts.items()]
    why = (
        _predict_missing(candidates, report.plan, records, lab)
        if predict
        else f"{SAMPLES_ONLY}. Run `fcnlab report` to select from all images"
    )
    ids = list(candidates[0].miou)
    if all(shown.has_prediction(id_) for id_ in _wanted_ids(candidates) for shown in candidates):
        return _gallery(candidates, ids, "")
    known = [id_ for id_ in ids if all(shown.has_prediction(id_) for shown in candidates)]
    return _gallery(candidates, known, why) if known else None


def _show_cell(cell: str, seed: int, report: Report, lab: Lab) -> GalleryCell:
    records = report.records
    folder = records.folders[cell][seed]
    miou = compute_image_miou(records.counts(cell)[seed])
    cache = lab.root / ".fcnlab" / "predictions" / f"{folder.key}-{records.checkpoint}"
    miou_by_id = dict(zip(records.ids(cell, seed), miou.tolist(), strict=True))
    return GalleryCell(cell, report.grid.display_name(cell), seed, miou_by_id, (cache, folder.samples))


def _predict_missing(candidates: Sequence[GalleryCell], plan: Plan, records: TrialRecords, lab: Lab) -> str:
    """Predict the missing images; returns the reason if one cannot be predicted, else an empty text."""
    ids = _wanted_ids(candidates)
    trials = {(one.cell.label, one.trial.seed): one.trial for one in plan.trials}
    why = ""
    for shown in candidates:
        missing = [id_ for id_ in ids if not shown.has_prediction(id_)]
        if not missing:
            continue
        from fcnlab.report.gallery.predictions import predict_images
        from fcnlab.trial.find import FinishedTrial

        key = shown.label, shown.seed
        folder, record = records.folders[shown.label][shown.seed], records.by_cell[shown.label][shown.seed]
        try:
            predict_images(
                FinishedTrial(trials[key], record, folder), lab, missing, records.checkpoint, shown.folders[0]
            )
        except FcnlabError as error:
            reason = first_line(error).replace(f"{lab.root}/", "")
            why = f"{SAMPLES_ONLY}: other images cannot be predicted ({reason})"
    return why


def _wanted_ids(candidates: Sequence[GalleryCell]) -> list[str]:
    """Return the images of the gallery if all could be shown."""
    gallery = _gallery(candidates, list(candidates[0].miou), "")
    return list(dict.fromkeys([*gallery.disagreements, *(id_ for pair in gallery.extremes.values() for id_ in pair)]))


def _gallery(candidates: Sequence[GalleryCell], ids: Sequence[str], note: str) -> Gallery:
    return Gallery(
        tuple(candidates),
        tuple(_disagreements(candidates, ids)) if len(candidates) > 1 else (),
        {shown.label: pair for shown in candidates if (pair := _extremes(shown, ids))},
        note,
    )


def _disagreements(candidates: Sequence[GalleryCell], ids: Iterable[str]) -> list[str]:
    """Return the images whose mIoU differs most between the best and the worst cell."""

    def spread(id_: str) -> float:
        values = [shown.miou.get(id_, np.nan) for shown in candidates]
        return 0.0 if np.isnan(values).any() else max(values) - min(values)

    return sorted((id_ for id_ in ids if spread(id_) > 0), key=lambda id_: -spread(id_))[:DISAGREEMENTS]


def _extremes(shown: GalleryCell, ids: Iterable[str]) -> tuple[str, str] | None:
    """Return the images on which a cell is best and worst."""
    finished = [id_ for id_ in ids if not np.isnan(shown.miou.get(id_, np.nan))]
    if not finished:
        return None
    return max(finished, key=lambda id_: shown.miou[id_]), min(finished, key=lambda id_: shown.miou[id_])
