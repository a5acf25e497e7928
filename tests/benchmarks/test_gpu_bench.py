"""The benchmark on a GPU, at tiny sizes on the CPU: every section that needs no grid is called, and errors are kept."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from benchmarks.gpu import images
from benchmarks.gpu.bench import allowance, plan
from benchmarks.gpu.timings import Context, training
from benchmarks.speed.sides import Lap, Setting
from fcnlab.data.datasets.voc import Voc2012
from fcnlab.errors import RunError
from tests.conftest import REPOSITORY


def bench(out: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-m", "benchmarks.gpu.bench", "--out", str(out), "--smoke", "--device", "cpu"]
    command += arguments
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert (out / "bench.json").is_file(), done.stderr
    return done.returncode, json.loads((out / "bench.json").read_text(encoding="utf-8"))


def test_sections_run_in_separate_processes_and_write_one_file(tmp_path: Path) -> None:
    names = ("environment", "step", "evaluation", "augmentation", "training")
    code, found = bench(tmp_path, "--peer", "torchvision", "--section", *names)
    errors = {name: section["error"] for name, section in found["sections"].items() if section["error"]}
    assert errors == {} and code == 0 and found["passed"]
    assert tuple(found["sections"]) == names
    results = {name: section["result"] for name, section in found["sections"].items()}
    assert results["environment"]["copy"]["bytes_per_s"] > 0
    assert set(results["step"]["phases"]) == {"about", "batch", "forward and loss", "backward", "optimizer"}
    assert results["step"]["epochs"]["images_per_s"]["median"] > 0
    assert set(results["step"]["variants"]) == {"as a trial", "without CUDA graphs"}
    (trained,) = results["training"]["configurations"].values()
    assert trained["errors"] == {} and set(trained["sides"]) == {"ours bf16", "torchvision"}
    assert trained["sides"]["torchvision"]["ours_bf16_times_faster"]["rounds"] == 1
    assert results["evaluation"]["images"] == 4 and results["evaluation"]["areas and boundaries"]["seconds"] > 0
    assert len(results["augmentation"]["kinds"]) == 3


def test_a_section_that_fails_keeps_its_traceback_and_the_next_one_runs(tmp_path: Path) -> None:
    absent = str(tmp_path / "absent")
    code, found = bench(tmp_path, "--photos", absent, "--section", "environment", "augmentation")
    assert code == 1 and not found["passed"]
    assert found["sections"]["environment"]["passed"]
    assert "the images were not made" in found["sections"]["augmentation"]["detail"]
    assert "no photographs with labels" in (tmp_path / "logs" / "images.txt").read_text(encoding="utf-8")


def test_a_small_budget_leaves_out_the_last_sections() -> None:
    everything = [section.name for section in plan(420, [], False)]
    assert everything[0] == "environment" and everything[-1] == "grid" and len(everything) == 8
    some = [section.name for section in plan(200, [], False)]
    assert some == everything[: len(some)] and 0 < len(some) < 8
    assert [section.name for section in plan(10, ["grid"], False)] == ["grid"]


def test_no_section_takes_the_minimum_of_a_later_one() -> None:
    for budget in (150.0, 250.0, 420.0, 800.0):
        chosen, left = plan(budget, [], False), budget
        for number, section in enumerate(chosen):
            taken = allowance(chosen[number:], left)
            assert taken >= section.minimum
            left -= taken
        assert left >= -1e-6


class FakeSide:
    """A side that trains at given rates and fails when there are no more."""

    started: ClassVar[list[str]] = []
    rates: ClassVar[dict[str, list[float]]] = {}

    def __init__(self, setting: Any, _cache: str, _timeout: float) -> None:
        self.name = setting.side
        self.started.append(self.name)

    def lap(self, _seconds: float = 0.0) -> Lap:
        if not self.rates[self.name]:
            raise RunError("no memory left")
        return Lap(10, 10 / self.rates[self.name].pop(0), 1.0, 2**30)

    def about(self) -> dict[str, str]:
        return {}

    def end_input(self) -> None:
        pass

    def close(self) -> None:
        pass


def compare(
    monkeypatch: pytest.MonkeyPatch, folder: Path, rates: dict[str, list[float]], allowance: float
) -> list[dict[str, Any]]:
    """Let fake sides train; returns the results that were kept, one after the other."""
    monkeypatch.setattr("benchmarks.speed.sides.Side", FakeSide)
    monkeypatch.setattr(FakeSide, "started", [])
    monkeypatch.setattr(FakeSide, "rates", rates)
    context = Context(folder, folder, "cuda", name="training", allowance=allowance)
    kept: list[dict[str, Any]] = []
    settings = [Setting(name, "resnet18", "fcn32s", 2, (64, 64), (), 1) for name in rates]
    training.measure_configuration(context, settings, 2.0, kept.append)
    assert any("failed" in text for _, text in training.rows("resnet18", kept[-1])) == bool(kept[-1]["errors"])
    return kept


def test_a_side_that_fails_is_left_out_and_its_error_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rates = {"ours bf16": [1.0, 20, 20, 30, 40, 50], "smp": [1.0, 10, 10, 10], "d2l": [1.0, 5]}
    found = compare(monkeypatch, tmp_path, rates, 100.0)[-1]
    assert found["errors"] == {"d2l": "no memory left"} and set(found["sides"]) == {"ours bf16", "smp"}
    assert found["sides"]["ours bf16"]["images_per_s"]["median"] == 40
    assert found["sides"]["smp"]["ours_bf16_times_faster"] == {"median": 4, "min": 3, "max": 5, "rounds": 3}


def test_ours_are_kept_before_peers_start_and_every_round_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rates = {"ours bf16": [1.0, 20, 20, 30, 40, 50], "smp": [1.0, 10, 10, 10]}
    kept = compare(monkeypatch, tmp_path, rates, 100.0)
    assert set(kept[0]["sides"]) == {"ours bf16"}
    assert [len(found["sides"].get("smp", {}).get("laps", ())) for found in kept] == [0, 0, 1, 2, 3]


def test_little_time_leaves_out_the_last_sides(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rates = {name: [1.0] + [10.0] * 5 for name in ("ours bf16", "torchvision", "d2l", "smp")}
    found = compare(monkeypatch, tmp_path, rates, 36.0)[-1]
    assert FakeSide.started == ["ours bf16", "torchvision", "d2l"] and found["left_out"] == ["smp"]


def test_images_are_a_voc_dataset_of_photographs_with_their_labels(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for folder in ("train", "trainannot"):
        (photos / folder).mkdir(parents=True)
    pixels = np.zeros((360, 480, 3), np.uint8)
    pixels[:, 240:] = 200
    Image.fromarray(pixels).save(photos / "train" / "a.png")
    Image.fromarray(np.where(pixels[..., 0] > 0, 11, 3).astype(np.uint8)).save(photos / "trainannot" / "a.png")
    about = images.write_voc(tmp_path / "data", {"train": 3, "val": 2}, photos, processes=1)
    assert about == "crops of 1 photographs in VOC's sizes"
    dataset = Voc2012(tmp_path / "data" / "VOCdevkit" / "VOC2012")
    assert [len(dataset.split(split)) for split in ("train", "val")] == [3, 2]
    for sample in dataset.split("train"):
        assert sample.image.shape[:2] in [size for size, _ in images.SIZES]
        gray, void = sample.image.mean(2), sample.label == 255
        assert gray[void].mean() > 150 or not void.any()
        assert gray[~void].mean() < 50 or void.all()
    labels = {int(label) for sample in dataset.split("train") for label in np.unique(sample.label)}
    assert labels == {3, 3 + images.UPPER, 255}, "a grid needs pixels of each of VOC's classes"
    assert len((tmp_path / "data" / "val.txt").read_text(encoding="utf-8").splitlines()) == 2
