"""The grid benchmark: its lab, its shell loop and the timing of commands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.speed import grid, images
from fcnlab.errors import DataError, RunError
from fcnlab.lab import Lab
from fcnlab.trial.run_folder import RunFolder
from tests.builders import finished_record


@pytest.fixture
def data(lab: Lab, tmp_path: Path) -> Path:
    with images.files(lab, 3, grid.CROP) as (_, pairs):
        for pair in pairs:  # the files go when the context ends
            for path in (pair.image, pair.mask):
                (tmp_path / path.name).write_bytes(path.read_bytes())
        kept = [type(p)(p.id, tmp_path / p.image.name, tmp_path / p.mask.name) for p in pairs]
    return grid._laid_out(tmp_path / "data", {"train": kept[:2], "val": kept[2:]})


def test_the_grid_is_valid_and_has_the_trials_that_the_loop_has(data: Path, tmp_path: Path) -> None:
    file = grid._lab(tmp_path / "lab", data, seeds=2, epochs=1)
    found = Lab.find(file)
    loaded = found.load_grid(file)
    trials = list(loaded.trials(found.fingerprints))
    assert len(trials) == 6
    dataset = found.open_dataset(trials[0][1].dataset)
    assert [len(dataset.split(split)) for split in ("train", "val")] == [2, 1]
    assert set(dataset.split("train")[0].label.flatten()) <= {*range(len(dataset.classes)), 255}
    loop = grid._shell_loop(data, seeds=2, epochs=1)[-1].replace(sys.executable, "echo")
    output = subprocess.run(["sh", "-ec", loop], capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line.split()[2:4] for line in output] == [[head, seed] for head in grid.HEADS for seed in ("0", "1")]


def test_the_training_images_have_every_class_as_a_grid_requires(lab: Lab, tmp_path: Path) -> None:
    with images.files(lab, 24, grid.CROP, every_class=16) as (_, pairs):
        found = {int(value) for pair in pairs[:16] for value in np.unique(np.asarray(Image.open(pair.mask)))}
        assert len({pair.id for pair in pairs}) == 24
    assert found - {255} == set(range(images.CLASSES))
    with pytest.raises(DataError, match="no 2 images"), images.files(lab, 24, grid.CROP, every_class=2):
        pass


def test_command_time_covers_all_processes_and_failures_are_reported() -> None:
    busy = f"{sys.executable} -c 'sum(range(10**6))'"
    taken = grid._timed(["sh", "-c", f"{busy}; {busy}"], 2, {})
    assert taken.cpu > 0 and taken.wall > 0
    with pytest.raises(RunError, match="the reason"):
        grid._timed(["sh", "-c", "echo the reason; exit 3"], 1, {})


def test_overhead_of_a_trial_is_measured_from_the_end_of_the_previous_one(data: Path, tmp_path: Path) -> None:
    found = Lab.find(grid._lab(tmp_path / "lab", data, seeds=2, epochs=1))
    trials = [
        trial
        for _, trial in found.load_grid(tmp_path / "lab" / "experiments" / "timed.yaml").trials(found.fingerprints)
    ]
    # Two workers: the third trial follows the second, which ends first, and the fourth the first.
    times = {0: (100.0, 110.0), 1: (100.0, 109.0), 2: (109.1, 118.0), 3: (110.2, 120.0)}
    for number, (began, ended) in times.items():
        folder = RunFolder(found.runs, trials[number].key)
        folder.create()
        folder.trial.write_text("{}", encoding="utf-8")
        folder.finish(finished_record(trials[number], seconds=7.5))  # and half a second of evaluation
        os.utime(folder.trial, (began, began))
        os.utime(folder.record, (ended, ended))
    assert grid._beside(found) == pytest.approx([118.0 - 109.0 - 8.0, 120.0 - 110.0 - 8.0])
