"""The training benchmark: one side's epoch, its process, and the results."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.speed import images, ours, peer, sides, train
from benchmarks.speed.machine import Machine
from benchmarks.speed.page import format_training, page
from benchmarks.speed.sides import KEEPING, OURS, PEERS, Lap, Setting
from fcnlab.errors import ConfigError, DataError, RunError
from fcnlab.lab import Lab
from fcnlab.training import cost
from tests.conftest import REPOSITORY

CROP = (64, 96)


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
    epochs: list[int] = []
    begin_calls: list[dict[str, Any]] = []

    def after_epoch(images: int) -> None:
        epochs.append(images)
        if len(epochs) == 2:
            raise sides.Closed

    with torch.random.fork_rng(devices=[]), pytest.raises(sides.Closed):
        sides.train(setting(side, pairs), lambda **about: begin_calls.append(about), after_epoch)
    assert epochs == [2, 2] and len(begin_calls) == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:Converting a tensor with requires_grad")  # the peers'
@pytest.mark.parametrize("side", ["ours fp32", *PEERS])
def test_a_frozen_batch_norm_keeps_its_statistics_and_weights(side: str, pairs: tuple[tuple[str, str], ...]) -> None:
    frozen = dataclasses.replace(setting(side, pairs), batch_norm="frozen")
    nets: list[torch.nn.Module] = []
    register = torch.nn.modules.module.register_module_forward_hook(lambda module, *_: nets.append(module))

    def end(images: int) -> None:
        raise sides.Closed

    with register, torch.random.fork_rng(devices=[]), pytest.raises(sides.Closed):
        sides.train(frozen, lambda **_: None, end)
    norms = [net for net in nets if isinstance(net, torch.nn.BatchNorm2d)]
    assert norms
    for norm in norms:
        assert not any(parameter.requires_grad for parameter in norm.parameters())
        assert norm.running_mean is not None and norm.running_var is not None
        assert torch.count_nonzero(norm.running_mean) == 0 and torch.equal(
            norm.running_var, torch.ones_like(norm.running_var)
        )


def test_smp_augments_by_torchvision_where_albumentations_is_missing(
    pairs: tuple[tuple[str, str], ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    smp = peer("train_smp")
    monkeypatch.setattr(smp, "A", None)
    image, mask = smp.training_dataset([(Path(image), Path(mask)) for image, mask in pairs], CROP)[0]
    assert image.shape == (3, *CROP) and image.dtype == torch.float32
    assert mask.shape == CROP and mask.dtype == torch.int64 and set(mask.unique().tolist()) <= {*range(21), 255}


@pytest.mark.parametrize("head", train.HEADS)
@pytest.mark.parametrize("backbone", train.BACKBONES)
def test_both_sides_have_the_same_network(backbone: str, head: str) -> None:
    with torch.random.fork_rng(devices=[]):
        net = peer("networks").FCN(backbone, head, images.CLASSES)
    model = ours.network(backbone, head)
    assert cost.count_parameters(model) == cost.count_parameters(net)


def test_small_run_has_every_measurement(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the benchmark with three processes, as in CI."""
    monkeypatch.setattr(train, "CROP", CROP)
    monkeypatch.setattr(train, "OURS", ("ours bf16",))
    monkeypatch.setattr(train, "multiplies_bf16", lambda device: True)
    found = train.compare(lab, batch=2, images=2, repeats=1, cpu_threads=1, peers=("torchvision",))
    assert list(found["sides"]) == list(found["about"]) == ["ours bf16", "torchvision", "torchvision" + KEEPING]
    assert found["setting"]["device"] == "cpu"
    for side in found["sides"].values():
        assert min(side["images_per_s"], side["cpu_seconds_per_image"]) > 0 and side["peak_memory"] > 2**26
    assert list(found["comparisons"]) == ["ours bf16 / torchvision", "ours bf16 / torchvision" + KEEPING]
    assert found["gflop_per_image"] > 0.5 and min(found["gemm_peak"].values()) > 0
    assert "generated shapes" in format_training(found)


class FakeSide:
    """A side whose laps take no time; counts the sides that exist at the same time."""

    alive = most = 0

    def __init__(self, setting: Setting, *_: object) -> None:
        self.name = setting.side
        FakeSide.alive += 1
        FakeSide.most = max(FakeSide.most, FakeSide.alive)

    def about(self) -> dict[str, object]:
        return {}

    def lap(self, seconds: float = 0.0) -> Lap:
        return lap(1.0, 1.0)

    def close(self, *, at_once: bool = False) -> None:
        FakeSide.alive -= 1


def test_bf16_is_left_out_without_hardware_and_two_sides_run_at_a_time(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def peak(precision: torch.dtype, side: int) -> float:
        assert precision == torch.float32, "a product of bf16 would take minutes"
        return 1e11

    monkeypatch.setattr(train, "CROP", CROP)
    monkeypatch.setattr("benchmarks.speed.machine.gemm_peak", peak)
    monkeypatch.setattr("benchmarks.speed.machine.resolve_precision", lambda precision, device: "fp32")
    monkeypatch.setattr(sides, "Side", FakeSide)
    lines: list[str] = []
    found = train.compare(lab, batch=2, images=2, repeats=2, peers=("d2l", "smp"), report=lines.append)
    assert list(found["sides"]) == ["ours fp32", "d2l", "d2l" + KEEPING, "smp", "smp" + KEEPING]
    assert (FakeSide.most, FakeSide.alive) == (2, 0)
    assert lines[:4] == [
        "bf16 is left out: this device does not multiply it natively",
        "measuring the peak of a product of matrices",
        "pair 1 of 4, ours fp32: first lap, which does not count",
        "pair 1 of 4, d2l: first lap, which does not count",
    ]
    assert lines[4:6] == ["pair 1 of 4, ours fp32: lap 1 of 2", "pair 1 of 4, d2l: lap 1 of 2"]
    assert found["gemm_peak"] == {"fp32": 1e11}


def test_a_side_that_ends_is_named_with_its_last_output(pairs: tuple[tuple[str, str], ...]) -> None:
    absent = tuple((image + ".absent", mask) for image, mask in pairs)
    with (
        sides.sides([setting("torchvision", absent)]) as (side,),
        pytest.raises(RunError, match=r"(?s)the side 'torchvision' of the benchmark has ended.*No such file"),
    ):
        side.lap()


def test_a_side_that_hangs_is_named_and_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sides, "ENDING", 0.1)
    with (
        sides.sides([setting("ours fp32", ())], timeout=0.2) as (side,),
        pytest.raises(RunError, match="the side 'ours fp32' of the benchmark has not answered"),
    ):
        side.lap()
    assert side._process.returncode is not None


def test_a_lap_has_whole_epochs_until_its_seconds_are_over(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("benchmarks.speed.sides.time.perf_counter", lambda: clock[0])
    answers = io.StringIO()
    laps = sides.Laps(io.StringIO("0.0\n0.05\n"), answers, "cpu")
    laps.begin(augmentation="none")
    laps.after_epoch(3)

    def epochs() -> None:
        while True:
            clock[0] += 0.02
            laps.after_epoch(2)

    with pytest.raises(sides.Closed):
        epochs()
    about, first, second = map(json.loads, answers.getvalue().splitlines())
    assert about == {"augmentation": "none"} and first["images"] == 3
    assert second["images"] == 6 and second["wall"] == pytest.approx(0.06)


def lap(wall: float, cpu: float, peak: int = 2**20) -> Lap:
    return Lap(2, wall, cpu, peak)


@pytest.fixture
def found() -> dict[str, Any]:
    ours = {
        "ours fp32": (lap(2, 4), lap(4, 4, 3 * 2**20)),
        "ours bf16": (lap(1, 2), lap(1, 2)),
    }
    peers = {
        "d2l": (lap(6, 6), lap(8, 8, 2**22)),
        "d2l" + KEEPING: (lap(4, 6), lap(4, 6)),
    }
    laps = {(a, b): (ours[a], peers[b]) for b in peers for a in ours}
    peaks = {"fp32": 1e11, "bf16": 2e11}
    results = {
        "source": "generated",
        "setting": {"backbone": "resnet18", "head": "fcn32s", "batch": 2, "crop": CROP, "images": 2, "rounds": 2},
        "gflop_per_image": 30.0,
        "gemm_peak": peaks,
        **train.summarize(laps, 30.0, peaks, cuda=False),
        "machine": vars(Machine("A CPU", "Linux", 2, 2, None, {"torch": "2"}, 0.0)),
    }
    return json.loads(json.dumps(results))


def test_ratios_are_computed_per_round_and_memory_is_the_maximum(found: dict[str, Any]) -> None:
    compared, of_sides = found["comparisons"], found["sides"]
    assert list(compared) == [f"{a} / {b}" for b in ("d2l", "d2l" + KEEPING) for a in OURS]
    assert compared["ours fp32 / d2l"]["ratio"]["wall"] == {"median": 2.5, "min": 2.0, "max": 3.0}
    assert of_sides["ours fp32"]["peak_memory"] == 3 * 2**20
    assert of_sides["ours fp32"]["of_gemm_peak"] == pytest.approx(30e9 / 2.0 / 1e11)
    assert of_sides["ours bf16"]["of_gemm_peak"] == pytest.approx(30e9 / 1.0 / 2e11)
    assert of_sides["d2l"]["images_per_s"] == pytest.approx(2 / 7)


def test_unknown_benchmark_settings_are_named(lab: Lab) -> None:
    with pytest.raises(ConfigError, match="unknown name 'fcn2s'"):
        train.compare(lab, head="fcn2s")
    with pytest.raises(ConfigError, match="unknown name 'detectron'"):
        train.compare(lab, peers=("detectron",))
    with pytest.raises(DataError, match="a batch has 8"):
        train.compare(lab, images=4)


def test_page_is_generated_from_the_results(found: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "train-a.json").write_text(json.dumps(found), encoding="utf-8")
    text = page(tmp_path)
    assert "resnet18 fcn32s" in text and "2.5 (2.0 to 3.0)" in text
    assert "| resnet18 fcn32s, batches of 2 | d2l | 2.5x | 7.0x | 0.75x | 0.25x |" in text
    assert "A CPU, 2 cores, 2 threads" in text and "torch 2" in text
    assert "None of the machines above has a GPU." in text


def test_the_committed_page_is_up_to_date() -> None:
    committed = (REPOSITORY / "docs" / "performance.md").read_text(encoding="utf-8")
    assert page(REPOSITORY / "docs" / "performance") == committed, "run python -m benchmarks.speed page"
