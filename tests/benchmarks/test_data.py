"""`python -m benchmarks.speed data`: both sides do the same work; timings are not asserted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from benchmarks.speed import loader_options, peer
from benchmarks.speed.__main__ import app
from benchmarks.speed.data import BATCH, CROP, SIZE, compare
from benchmarks.speed.images import write_scenes
from fcnlab.errors import DataError
from fcnlab.lab import Lab


def test_it_compares_on_generated_images_without_a_data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FCNLAB_DATA", raising=False)
    done = CliRunner().invoke(app, ["data", "--images", "8", "--repeats", "1", "--json", "--lab", str(tmp_path)])
    assert done.exit_code == 0, done.output
    results = json.loads(done.stdout)
    assert results["source"] == "generated shapes" and results["images"] == 8 and results["batch"] == BATCH
    assert results["machine"]["threads"] == 1
    assert results["once"]["bytes_per_image"] == 4 * 360 * 480
    assert list(results["comparisons"]) == ["crop, flip", "scale 0.5 to 2.0, crop, flip"]
    for comparison in results["comparisons"].values():
        assert comparison["pairs"] == 1
        assert comparison["seconds_per_image"]["ours"]["cpu"] > 0 < comparison["seconds_per_image"]["peer"]["cpu"]


def test_a_data_root_without_camvid_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="camvid"):
        compare(Lab(tmp_path, tmp_path), images=8, repeats=1)


@pytest.mark.parametrize("resize", [None, (180, 720)])
def test_the_peer_yields_normalized_batches_of_the_same_shape(tmp_path: Path, resize: tuple[int, int] | None) -> None:
    files = [(pair.image, pair.mask) for pair in write_scenes(tmp_path, 8, SIZE)]
    batches = peer("train_torchvision").loader(files, CROP, BATCH, loader_options("cpu", 0), resize)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        images, labels = next(iter(batches))
    assert images.shape == (BATCH, 3, *CROP) and images.dtype == torch.float32
    assert labels.shape == (BATCH, *CROP)
    assert -2.2 < float(images.min()) < 0 < float(images.max()) < 2.7
    assert set(labels.unique().tolist()) <= {*range(21), 255}
