"""The bench of training: one side's epoch, its process, and the figures that come of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fcnlab.bench import images, ours, peer, sides, train
from fcnlab.bench.machine import Machine
from fcnlab.bench.performance import page
from fcnlab.bench.sides import KEEPING, OURS, PEERS, Lap, Setting
from fcnlab.errors import DataError, RunError, SpecError
from fcnlab.places import Lab
from fcnlab.training import cost

torch.set_num_threads(1)

CROP = (64, 96)
PACKAGES = {"smp": "albumentations"}


@pytest.fixture
def pairs(lab: Lab) -> Any:
    with images.files(lab, 2, CROP) as (source, found):
        assert source.startswith("generated shapes")
        yield tuple((str(pair.image), str(pair.mask)) for pair in found)


def setting(side: str, pairs: tuple[tuple[str, str], ...]) -> Setting:
    return Setting(side, "resnet18", "fcn16s", 2, CROP, pairs, 1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:Converting a tensor with requires_grad")  # the peers'
@pytest.mark.parametrize("side", [*OURS, *PEERS])
def test_every_side_trains_for_an_epoch_of_the_same_images(side: str, pairs: tuple[tuple[str, str], ...]) -> None:
    if side in PACKAGES:
        pytest.importorskip(PACKAGES[side])
    with torch.random.fork_rng(devices=[]):
        epoch = sides.epochs(setting(side, pairs))
        assert [epoch(), epoch()] == [2, 2]


@pytest.mark.parametrize("head", train.HEADS)
@pytest.mark.parametrize("backbone", train.BACKBONES)
def test_both_sides_have_the_same_network(backbone: str, head: str) -> None:
    with torch.random.fork_rng(devices=[]):
        net = peer("networks").FCN(backbone, head, images.CLASSES)
    model = ours.network(backbone, head)
    assert cost.parameters(model) == cost.parameters(net)


def test_a_small_run_has_every_figure(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three processes: what CI runs of the benchmark."""
    monkeypatch.setattr(train, "CROP", CROP)
    monkeypatch.setattr(train, "OURS", ("ours bf16",))
    found = train.compare(lab, batch=2, images=2, repeats=1, cpu_threads=1, peers=("torchvision",))
    assert list(found.laps) == ["ours bf16", "torchvision", "torchvision" + KEEPING]
    for (lap_,) in found.laps.values():
        assert lap_.images == 2 and min(lap_.wall, lap_.cpu) > 0 and lap_.peak_memory > 2**26
    assert list(found.comparisons) == ["ours bf16 / torchvision", "ours bf16 / torchvision" + KEEPING]
    assert found.gflop > 0.5 and min(found.peaks.values()) > 1e8
    assert any("generated shapes" in line for line in found.notes())


def test_a_side_that_ends_is_named() -> None:
    with sides.sides([setting("ours fp32", ())]) as (side,):
        side._process.kill()
        side._process.wait()
        with pytest.raises(RunError, match="the side 'ours fp32' of the benchmark has ended"):
            side.lap()


def lap(wall: float, cpu: float, peak: int = 2**20) -> Lap:
    return Lap(2, wall, cpu, peak)


@pytest.fixture
def found() -> train.TrainingBench:
    laps = {
        "ours fp32": (lap(2, 4), lap(4, 4, 3 * 2**20)),
        "ours bf16": (lap(1, 2), lap(1, 2)),
        "d2l": (lap(6, 6), lap(8, 8, 2**22)),
        "d2l" + KEEPING: (lap(4, 6), lap(4, 6)),
    }
    there = Machine("A CPU", "Linux", 2, 2, None, {"torch": "2"}, 0.0)
    said = {"backbone": "resnet18", "head": "fcn32s", "batch": 2, "crop": CROP, "images": 2, "rounds": 2}
    return train.TrainingBench("generated", said, 30.0, {"fp32": 1e11, "bf16": 2e11}, laps, there)


def test_ratios_are_taken_round_by_round_and_memory_is_the_most_there_was(found: train.TrainingBench) -> None:
    compared = found.comparisons
    assert list(compared) == [f"{a} / {b}" for b in ("d2l", "d2l" + KEEPING) for a in OURS]
    ratio = compared["ours fp32 / d2l"].wall
    assert (ratio.median, ratio.min, ratio.max) == (2.5, 2.0, 3.0)
    assert found.peak_memory("ours fp32") == 3 * 2**20
    said = json.loads(json.dumps(found.to_json()))
    assert said["sides"]["ours fp32"]["of_gemm_peak"] == pytest.approx(30e9 / 2.0 / 1e11)
    assert said["sides"]["ours bf16"]["of_gemm_peak"] == pytest.approx(30e9 / 1.0 / 2e11)
    assert said["sides"]["d2l"]["images_per_s"] == pytest.approx(2 / 7)
    assert [row[0] for row in found.rows()] == list(found.laps)


def test_what_the_bench_does_not_know_is_named(lab: Lab) -> None:
    with pytest.raises(SpecError, match="knows no 'fcn2s'"):
        train.compare(lab, head="fcn2s")
    with pytest.raises(SpecError, match="knows no 'detectron'"):
        train.compare(lab, peers=("detectron",))
    with pytest.raises(DataError, match="a batch has 8"):
        train.compare(lab, images=4)


def test_the_page_is_made_of_what_the_benches_say(found: train.TrainingBench, tmp_path: Path) -> None:
    (tmp_path / "train-a.json").write_text(json.dumps(found.to_json()), encoding="utf-8")
    text = page(tmp_path)
    assert "resnet18 fcn32s" in text and "2.5 (2.0 to 3.0)" in text
    assert "| resnet18 fcn32s, batches of 2 | d2l | 2.5x | 7.0x | 0.75x | 0.25x |" in text
    assert "A CPU, 2 cores, 2 threads" in text and "torch 2" in text
    assert "not measured" in text  # there is no GPU among the machines
