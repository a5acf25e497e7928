"""Comparison of two trials or two cells: the difference with its interval, by class and by image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import pandas as pd

from fcnlab.analysis import CONFIDENCE, MIN_SEEDS, CellCounts, Difference, estimate_difference
from fcnlab.config.dataset import CrossValidation
from fcnlab.constants import KEY_DIGITS, CheckpointChoice
from fcnlab.errors import RunError
from fcnlab.lab import Lab
from fcnlab.metrics.summary import compute_image_miou
from fcnlab.notebook import render_html
from fcnlab.report.frame import trials_frame
from fcnlab.report.tables.columns import format_p_value, format_points
from fcnlab.report.tables.names import EPOCHS, quote_name
from fcnlab.report.tables.table import Table
from fcnlab.report.trial_records import TrialRecords, load_records
from fcnlab.runner.find import Reference
from fcnlab.runner.publisher import OptionalTracker

MAX_IMAGES = 10
"""Most images that are listed."""


@dataclass(frozen=True)
class Side:
    """One of the two sides of a comparison.

    Attributes:
        name: name of the trial or cell.
        source: name of the grid of the cell, or first digits of the key of the trial.
        counts: counts by seed, each [images, num_classes, 3].
        ids: ids of the images by seed.
        classes: names of the classes.
        shown_classes: display names of the classes: those of the grid file, else the names.
        checkpoint: the epoch of the counts, `last` or `best`.
        folds: the cross-validation, in which each seed has the images of another fold; None if all seeds have the same.
    """

    name: str
    source: str
    counts: CellCounts
    ids: Mapping[int, tuple[str, ...]]
    classes: tuple[str, ...]
    shown_classes: tuple[str, ...]
    checkpoint: CheckpointChoice = "last"
    folds: CrossValidation | None = None

    def select(self, seeds: Iterable[int]) -> Side:
        """Return this side with the counts of some of its seeds.

        Args:
            seeds: the seeds.
        """
        kept = list(seeds)
        return replace(
            self, counts={seed: self.counts[seed] for seed in kept}, ids={seed: self.ids[seed] for seed in kept}
        )

    @property
    def image_miou(self) -> pd.Series[float]:
        """The mIoU of each image by its id, the mean over the seeds that were evaluated on it."""
        by_seed = [
            pd.Series(compute_image_miou(counts), index=list(self.ids[seed])) for seed, counts in self.counts.items()
        ]
        return pd.concat(by_seed).groupby(level=0, sort=False).mean()


@dataclass(frozen=True)
class CellComparison:
    """Comparison of two cells or trials.

    Attributes:
        a: the first side, with the seeds that are compared.
        b: the second side, with the same seeds; two single trials may have different ones.
        difference: difference of `b` to `a`.
    """

    a: Side
    b: Side
    difference: Difference

    def __repr__(self) -> str:
        return f"CellComparison({describe_difference(self)})"

    def _repr_html_(self) -> str:
        table = make_class_differences_table(self)
        return render_html(
            describe_difference(self),
            headings=table.headings,
            rows=table.rows,
            note="IoU by class in points, with 95 % intervals of single classes",
        )

    @property
    def shown_classes(self) -> tuple[str, ...]:
        """Display names of the classes where both sides have the same, else the names in the dataset."""
        return self.a.shown_classes if self.a.shown_classes == self.b.shown_classes else self.a.classes

    @property
    def classes(self) -> pd.DataFrame:
        """The differences by class: `class`, `images`, `delta`, `low`, `high` and `p_value`; IoU as fractions of 1."""
        by_class = self.difference.classes
        columns = {"delta": by_class.value, "low": by_class.low, "high": by_class.high, "p_value": by_class.p_value}
        return pd.DataFrame({"class": self.a.classes, "images": by_class.images, **columns})

    @property
    def images(self) -> pd.DataFrame:
        """The mIoU of each image on both sides, means over the seeds: `image`, `a`, `b` and `delta`, fractions of 1."""
        a, b = self.a.image_miou, self.b.image_miou
        images = a.index[a.index.isin(b.index)]
        a, b = a[images], b[images]
        return pd.DataFrame({"image": images, "a": a.to_numpy(), "b": b.to_numpy(), "delta": (b - a).to_numpy()})


def load_side(reference: Reference, lab: Lab) -> Side:
    """Load the counts of a cell or trial at the checkpoint that its grid reports.

    Args:
        reference: the cell or trial.
        lab: the lab of the trials.

    Raises:
        RunError: the trial has not finished, or its counts are missing.
    """
    if reference.plan is None or reference.planned is None:
        record, folder = reference.read_record(), reference.folder
        own, cell = int(record.trial["seed"]), record.key[:KEY_DIGITS]
        records = TrialRecords({cell: {own: folder}}, {cell: {own: record}}, reference.checkpoint)
        return _side(f"{record.trial['names'].get('variant', cell)}, seed {own}", cell, cell, records)
    plan, label, seed = reference.plan, reference.planned.cell.label, reference.seed
    checkpoint = plan.grid.file.checkpoint
    records = OptionalTracker(plan.grid, lab).call(
        lambda tracker: load_records(trials_frame(plan, tracker), lab.runs, tracker, lab.state / "fetched", checkpoint)
    )
    name, grid = plan.grid.display_name(label), plan.grid.name
    folds = reference.planned.cell.dataset.folds_by_seed if seed is None else None
    shown = plan.grid.file.labels.classes
    return _side(name if seed is None else f"{name}, seed {seed}", grid, label, records, seed, folds, shown)


def _side(
    name: str,
    source: str,
    cell: str,
    records: TrialRecords,
    seed: int | None = None,
    folds: CrossValidation | None = None,
    display_names: Mapping[str, str] = MappingProxyType({}),
) -> Side:
    counts: Mapping[int, np.ndarray] = {
        number: array for number, array in records.counts(cell).items() if seed in (None, number)
    }
    if not counts:
        raise RunError(f"{name}: none of its trials has finished with counts")
    ids = {number: records.ids(cell, number) for number in counts}
    classes = records.by_cell[cell][min(counts)].classes
    shown = tuple(display_names.get(one, one) for one in classes)
    return Side(name, source, counts, ids, classes, shown, records.checkpoint, folds)


def compare(a: Side, b: Side) -> CellComparison:
    """Compute the difference of two sides, paired by seed and image; two single trials are paired by image only.

    Args:
        a: the first side.
        b: the second side.

    Raises:
        RunError: they were evaluated at different checkpoints, or on different images or classes, or have no seed in
            common.
    """
    if a.name == b.name and a.source != b.source:
        a, b = (replace(side, name=f"{side.name} ({side.source})") for side in (a, b))
    if a.checkpoint != b.checkpoint:
        raise RunError(
            f"{quote_name(a.name)} was evaluated at {EPOCHS[a.checkpoint]} and {quote_name(b.name)} at "
            f"{EPOCHS[b.checkpoint]}, and they cannot be compared. Set the same 'checkpoint' in both grid files; no "
            "trial runs again for it. A trial that is named by its key has the last epoch; name it by its grid file"
        )
    pairs = {seed: seed for seed in a.ids.keys() & b.ids.keys()}
    single = len(a.counts) == len(b.counts) == 1
    if single:  # also of two seeds
        pairs = {next(iter(a.ids)): next(iter(b.ids))}
    if a.classes != b.classes or any(a.ids[one] != b.ids[other] for one, other in pairs.items()):
        names = f"{quote_name(a.name)} and {quote_name(b.name)}"
        raise RunError(f"{names} were evaluated on different images or classes and cannot be compared")
    if single:
        one, other = ({0: next(iter(side.counts.values()))} for side in (a, b))
        return CellComparison(a, b, estimate_difference(other, one))
    difference = estimate_difference(b.counts, a.counts, folds=a.folds)
    return CellComparison(a.select(difference.by_seed), b.select(difference.by_seed), difference)


def to_values(comparison: CellComparison) -> dict[str, object]:
    """Return a comparison as values for JSON; metrics are fractions of 1.

    Args:
        comparison: the comparison.
    """
    one = comparison.difference
    return {
        "a": _side_values(comparison.a),
        "b": _side_values(comparison.b),
        "difference": {
            "miou": one.value,
            "low": one.low,
            "high": one.high,
            "confidence": CONFIDENCE,
            "p_value": one.p_value,
            "seeds": one.seeds,
            "images": one.images,
            "note": one.note,
        },
        "classes": comparison.classes.to_dict(orient="records"),
        "images": comparison.images.to_dict(orient="records"),
    }


def _side_values(side: Side) -> dict[str, object]:
    return {"name": side.name, "seeds": sorted(side.counts), "checkpoint": side.checkpoint}


def describe_difference(comparison: CellComparison) -> str:
    """Describe the difference in a sentence.

    Args:
        comparison: the comparison.
    """
    one = comparison.difference
    way = "more" if one.value >= 0 else "less"
    epoch = EPOCHS[comparison.a.checkpoint]
    interval = f"95 % interval {format_points(one.low, 2)} to {format_points(one.high, 2)}"
    interval += f", {format_p_value(one.p_value)}" if one.seeds >= MIN_SEEDS else ""
    text = (
        f"{quote_name(comparison.b.name)} scored {abs(100 * one.value):.2f} points of mIoU {way} than "
        f"{quote_name(comparison.a.name)} at {epoch}: {interval}, n = {one.seeds}, {one.images} images."
    )
    return f"{text} {one.note[0].upper()}{one.note[1:]}." if one.note else text


def make_class_differences_table(comparison: CellComparison) -> Table:
    """Return the differences of IoU by class in points, from the greatest gain to the greatest loss.

    Args:
        comparison: the comparison.
    """
    by_class = comparison.difference.classes
    order = sorted(range(len(comparison.a.classes)), key=lambda c: -np.nan_to_num(by_class.value[c], nan=-np.inf))
    rows = tuple(
        (
            comparison.shown_classes[c],
            str(by_class.images[c]),
            *(format_points(values[c]) for values in (by_class.value, by_class.low, by_class.high)),
        )
        for c in order
    )
    return Table(("class", "images", "Δ IoU", "from", "to"), rows, 1)


def make_images_table(comparison: CellComparison) -> Table:
    """Return the images whose mIoU differs most, as means over the seeds.

    Args:
        comparison: the comparison.
    """
    images = comparison.images
    distance = images["delta"].abs().fillna(-1.0)
    order = distance.sort_values(ascending=False, kind="stable").index[:MAX_IMAGES]
    rows = tuple(
        (str(image), f"{100 * a:.1f}", f"{100 * b:.1f}", format_points(delta))
        for image, a, b, delta in images.loc[[index for index in order if distance[index] > 0]].itertuples(index=False)
    )
    return Table(("image", "A mIoU %", "B mIoU %", "B - A"), rows, 1)
