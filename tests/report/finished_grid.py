"""A small grid that ran without training: records and counts as trials write them, of cells with known quality."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from fcnlab.config.grid.display_names import Names
from fcnlab.config.grid.grid import Grid
from fcnlab.data.datasets.palette import to_palette_image, voc_palette
from fcnlab.lab import Lab
from fcnlab.metrics.summary import compute_metrics
from fcnlab.report.report import Report, make_report
from fcnlab.report.tables.latex import to_latex
from fcnlab.report.tables.table import Table
from fcnlab.runner.plan import PlannedTrial, make_plan
from fcnlab.trial.record import Cost, Environment, EpochRecord, Record, SplitMetrics
from fcnlab.trial.storage.sample_name import name_sample
from tests.conftest import SMOKE, write_grid

IMAGES = 40
CLASSES = ("background", "disc", "box")
THREE = SMOKE.replace("seeds: 2", "seeds: 3").replace("[fcn32s, fcn8s]", "[fcn32s, fcn16s, fcn8s]")
"""Three cells with three seeds."""

RIGHT = {"fcn32s": 0.70, "fcn16s": 0.701, "fcn8s": 0.80}
"""How much of each class a cell finds: fcn16s hardly more than the baseline, fcn8s much."""


def finished_lab(
    root: Path,
    text: str = THREE,
    right: dict[str, float] | None = None,
    unfinished: Callable[[str, int], bool] = lambda _head, _seed: False,
) -> tuple[Grid, Lab]:
    """A lab in which every trial of a grid has finished, except those whose head and seed are `unfinished`."""
    root.mkdir(parents=True, exist_ok=True)
    path = write_grid(root, text)
    lab = Lab.find(path)
    grid = lab.load_grid(path)
    for planned in make_plan(grid, lab).trials:
        head = planned.trial.names["head"]
        if not unfinished(head, planned.trial.seed):
            finish(planned, (right or RIGHT)[head])
    return grid, lab


def finish(
    planned: PlannedTrial, right: float, counts: np.ndarray | None = None, image: str = "scene", **changes: object
) -> Record:
    """Write the files of a trial that finds this share of each class, or that has these counts.

    The ids of the images begin with `image`, and `changes` are fields of the record.
    """
    trial, folder = planned.trial, planned.folder
    folder.create()
    folder.trial.write_text(trial.model_dump_json())
    counts = counted(right, trial.seed) if counts is None else counts
    found = compute_metrics(counts)
    class_iou = tuple(None if np.isnan(iou) else iou for iou in found.class_iou)
    scores = tuple(
        SplitMetrics(
            split="test", checkpoint=checkpoint, epoch=2, images=IMAGES, miou=found.miou, pixel_acc=found.pixel_acc,
            mean_acc=found.mean_acc, fw_iou=found.fw_iou, class_iou=class_iou,
        )
        for checkpoint in ("last", "best")
    )  # fmt: skip
    ids = np.array([f"{image}_{index:03}" for index in range(IMAGES)])
    np.savez_compressed(folder.counts, test_last=counts, test_best=counts, test_ids=ids)
    write_samples(folder.samples, ids[:4])
    epochs = [
        EpochRecord(epoch=n, loss=1.0 / n, lr=0.1, images_per_s=9.0, seconds=1.0, val_miou=0.1 * n) for n in (1, 2)
    ]
    record = Record.create(trial, "finished", classes=CLASSES, epochs=tuple(epochs), metrics=scores, cost=cost(right),
                       environment=ENVIRONMENT).model_copy(update=changes)  # fmt: skip
    folder.finish(record)
    return record


def make_report_of_repeated_class(root: Path) -> Report:
    """A report of trials with two classes of one name, of which the second is found half as often."""
    grid, lab = finished_lab(root)
    for planned in make_plan(grid, lab).trials:
        counts = counted(RIGHT[planned.trial.names["head"]], planned.trial.seed)
        counts[:, 2, 0] //= 2
        finish(planned, 0.0, counts, classes=("background", "disc", "disc"))
    return make_report(make_plan(grid, lab), lab, None)


def raw_names(cells: pd.DataFrame, axes: list[str]) -> Names:
    """The names of axes and values in a frame of cells."""
    values = {str(row["cell"]): {axis: str(row[axis]) for axis in axes} for _, row in cells.iterrows()}
    return Names({axis: axis for axis in axes}, values, {})


def plain_latex(table: Table, caption: str) -> str:
    """The LaTeX of a table without notes, in the smallest layout."""
    return to_latex(table, caption, label="tab:plain", comments=(), notes=(), wide=False, layout=None)


def counted(right: float, seed: int) -> np.ndarray:
    """Counts [images, num_classes, 3]: images differ in the same way for all cells, and seeds a little."""
    target = np.random.default_rng(0).integers(200, 400, (IMAGES, len(CLASSES)))
    noise = np.random.default_rng([seed, round(1000 * right)]).normal(0, 0.03, target.shape)
    hit = np.clip(right + noise, 0, 1) * target
    return np.stack((hit.astype(np.int64), target, target), axis=-1)


def write_samples(folder: Path, ids: np.ndarray) -> None:
    folder.mkdir(exist_ok=True)
    for id_ in map(name_sample, map(str, ids)):
        labels = np.zeros((12, 16), dtype=np.uint8)
        labels[3:9, 4:8], labels[0] = 1, 255
        Image.fromarray(np.full((12, 16, 3), 90, dtype=np.uint8)).save(folder / f"{id_}.image.jpg")
        to_palette_image(labels, voc_palette()).save(folder / f"{id_}.label.png")
        to_palette_image(np.where(labels == 1, 2, 0).astype(np.uint8), voc_palette()).save(
            folder / f"{id_}.prediction.png"
        )


def cost(right: float) -> Cost:
    return Cost(
        params=1_000_000, trainable_params=1_000_000, gmacs=10 * right, gmacs_size=(64, 64), train_seconds=1800.0,
        evaluate_seconds=1800.0, images_per_s=9.0, peak_memory=2_000_000_000,
    )  # fmt: skip


ENVIRONMENT = Environment(
    device="a CPU", precision="fp32", threads=1, repeatable=True, system="Linux", versions={"fcnlab": "1"}, commit="abc"
)
