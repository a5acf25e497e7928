"""Tests of several processes that train one model: shares of a batch, and equality with one process."""

from __future__ import annotations

from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fcnlab.config.grid.grid import resolve
from fcnlab.config.recipe import Recipe
from fcnlab.config.registry import builtin
from fcnlab.data.datasets.shapes import Shapes
from fcnlab.errors import ModelError
from fcnlab.models import FCN
from fcnlab.training.distributed import SINGLE_PROCESS, ProcessGroup, join_process_group, synchronize_batch_norm
from fcnlab.training.fit import Epoch
from fcnlab.training.fused_loss import FusedUpsampleLoss
from fcnlab.training.losses import Loss
from fcnlab.training.optim import MovingAverage
from fcnlab.trial.build import build_model, build_training
from fcnlab.trial.launch import START_METHOD
from tests.training.test_fit import CLASS_WEIGHTS, SixImages, create_identical_models, train, weights

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")  # Python 3.12

CPU = torch.device("cpu")


class SixShared(SixImages):
    """The share of a process in the batches of `SixImages`."""

    def __init__(self, group: ProcessGroup) -> None:
        super().__init__()
        self.batch_slice = group.batch_slice

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in super().epoch(epoch):
            yield images[self.batch_slice], labels[self.batch_slice]


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
def test_every_process_has_a_share_of_every_micro_batch(size: int, parts: int, images: int) -> None:
    batch = list(range(size * parts * images))
    whole = torch.tensor(batch).chunk(parts)
    shares = [torch.tensor(batch[ProcessGroup(rank, size).batch_slice]).chunk(parts) for rank in range(size)]
    for part, *of_ranks in zip(whole, *shares, strict=True):
        assert sorted(torch.cat(of_ranks).tolist()) == part.tolist()
        assert {len(share) for share in of_ranks} == {images}


def built(group: ProcessGroup, head: str = "fcn8s", **overrides: Any) -> tuple[FCN, Any, Recipe]:
    """Build a small network, its training on generated scenes, and the `smoke` recipe with overrides."""
    fields = {f"recipe.{name}": value for name, value in overrides.items()}
    parts = {"backbone": "tiny-scratch", "head": head, "upsampler": "bilinear", "dataset": "shapes-mini"}
    cell = resolve({**parts, "recipe": "smoke", **fields}, builtin(), "test")
    scenes = Shapes(train=8, val=1, test=1, height=48, width=64, seed=0)
    model = build_model(cell.variant, len(scenes.classes), seed=0)
    return model, build_training(cell.recipe, model, scenes, split="train", seed=0, group=group), cell.recipe


def test_each_process_gets_its_slice_of_the_batches_of_one_process() -> None:
    varied: dict[str, Any] = {"scale": [0.5, 2.0], "flip": 0.5, "batch_norm": "eval"}
    whole, *shares = (
        built(group, **varied)[1].batches for group in (SINGLE_PROCESS, ProcessGroup(0, 2), ProcessGroup(1, 2))
    )
    for (images, labels), *of_ranks in zip(whole.epoch(3), *(share.epoch(3) for share in shares), strict=True):
        for rank, (some_images, some_labels) in enumerate(of_ranks):
            assert torch.equal(some_images, images[rank::2])
            assert torch.equal(some_labels, labels[rank::2])


RUNS: dict[str, dict[str, Any]] = {
    "plain": {},
    "class weights": {"loss": Loss(class_weights=CLASS_WEIGHTS, label_smoothing=0.1), "grad_accum_steps": 3},
    "focal, clipped": {"loss": Loss(focal=2.0), "grad_clip_norm": 0.01},
    "image means": {"loss": Loss("image_mean_sum"), "grad_accum_steps": 3},
    "pixel sum": {"loss": Loss("pixel_sum", class_weights=CLASS_WEIGHTS), "lr": 1e-4},
    "auxiliary": {"loss": Loss(auxiliary=0.7), "grad_accum_steps": 3, "auxiliary": True},
    "unread auxiliary": {"loss": Loss(auxiliary=0.0), "grad_accum_steps": 3, "auxiliary": True},
}
"""Arguments of trainings on `SixImages`."""

BUILT: dict[str, dict[str, Any]] = {
    "fused": {"batch_norm": "eval", "lr": 0.1},
    "fused, fixed": {
        "head": "fcn32s",
        "batch_norm": "frozen",
        "grad_accum_steps": 2,
        "grad_clip_norm": 0.5,
        "ema": 0.9,
    },
    "plain": {
        "batch_norm": "eval",
        "fused": "off",
        "activation_checkpointing": "backbone",
        "grad_accum_steps": 2,
        "loss": {"class_weights": "median_frequency"},
        "optimizer": {"name": "adamw", "lr": 0.003, "weight_decay": 0.1},
    },
}
"""Overrides of the recipe for trainings of an FCN on generated scenes."""


def run(name: str, group: ProcessGroup) -> dict[str, Any]:
    """Run one of `RUNS` and return its losses and weights."""
    overrides = dict(RUNS[name])
    (model,) = create_identical_models(1, auxiliary=overrides.pop("auxiliary", False))
    start = weights(model)
    sgd = torch.optim.SGD(model.parameters(), lr=overrides.pop("lr", 0.1), weight_decay=0.1)
    average = MovingAverage(model, 0.99)
    seen = train(model, SixShared(group), optimizer=sgd, average=average, group=group, **overrides)
    return outcome(seen, start, model, average.module)


def run_built(name: str, group: ProcessGroup) -> dict[str, Any]:
    """Run one of `BUILT` and return its losses and weights."""
    model, training, recipe = built(group, **BUILT[name])
    start = weights(model)
    assert isinstance(training.loss, FusedUpsampleLoss) == name.startswith("fused")
    seen = train(
        model,
        training.batches,
        loss=training.loss,
        optimizer=training.optimizer,
        grad_accum_steps=recipe.grad_accum_steps,
        grad_clip_norm=recipe.grad_clip_norm,
        average=training.average,
        group=group,
    )
    return outcome(seen, start, model, training.averaged or model)


def outcome(seen: list[Epoch], start: Tensor, model: nn.Module, averaged: nn.Module) -> dict[str, Any]:
    epochs = [(epoch.loss, epoch.images) for epoch in seen]
    return {"epochs": epochs, "start": start, "weights": weights(model), "average": weights(averaged)}


def list_listening() -> list[str]:
    """Return the local addresses on which this process listens, in the hexadecimal digits of Linux."""
    links = [file.readlink().name for file in Path("/proc/self/fd").glob("*") if file.is_symlink()]
    tables = [Path(f"/proc/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
    rows = [line.split() for table in tables for line in table]
    return [row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in links]


def everything(rank: int, size: int, meeting: Path, out: Path) -> None:
    torch.set_num_threads(1)
    group = join_process_group(rank, size, meeting)
    found: dict[str, Any] = {"listening": list_listening()} | {name: run(name, group) for name in RUNS}
    found |= {f"built {name}": run_built(name, group) for name in BUILT}
    torch.save(found, out)


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Run all trainings in two processes and return the results of each."""
    folder = tmp_path_factory.mktemp("group")
    files = [folder / f"{rank}.pt" for rank in range(2)]
    context = get_context(START_METHOD)
    processes = [
        context.Process(target=everything, args=(rank, 2, folder / "meeting", file))  # type: ignore[attr-defined]
        for rank, file in enumerate(files)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        process.kill()
    assert [process.exitcode for process in processes] == [0, 0]
    return [torch.load(file) for file in files]


@pytest.mark.parametrize("name", [*RUNS, *(f"built {name}" for name in BUILT)])
def test_two_processes_train_like_one(by_two: list[dict[str, Any]], name: str) -> None:
    one = (
        run_built(name.removeprefix("built "), SINGLE_PROCESS)
        if name.startswith("built")
        else run(name, SINGLE_PROCESS)
    )
    for found in (ranks[name] for ranks in by_two):
        assert [loss for loss, _ in found["epochs"]] == pytest.approx([loss for loss, _ in one["epochs"]], rel=1e-6)
        assert [images for _, images in found["epochs"]] == [images for _, images in one["epochs"]]
        for what in ("weights", "average"):
            way = (one[what] - one["start"]).norm()
            assert way > 1e-3
            assert (found[what] - one[what]).norm() < 1e-5 * way
    assert torch.equal(by_two[0][name]["weights"], by_two[1][name]["weights"])


def test_the_processes_listen_on_the_loopback_interface_only(by_two: list[dict[str, Any]]) -> None:
    addresses = [address for found in by_two for address in found["listening"]]
    assert addresses and all(address.startswith("0100007F:") for address in addresses)


def test_weight_decay_does_not_change_unused_parameters(by_two: list[dict[str, Any]]) -> None:
    (fresh,) = create_identical_models(1, auxiliary=True)
    assert fresh.auxiliary is not None
    unread = nn.utils.parameters_to_vector(fresh.auxiliary.parameters())
    assert torch.equal(by_two[0]["unread auxiliary"]["weights"][-len(unread) :], unread)


def test_training_batch_norms_are_an_error_on_several_cpu_processes() -> None:
    with pytest.raises(
        ModelError, match=r"15 batch norm layers.* each of 2 CPU processes.* set recipe.batch_norm: eval or frozen"
    ):
        built(ProcessGroup(0, 2))
    with pytest.raises(
        ModelError, match=r"1 batch norm layers, such as 'head\.\S+', .* GPUs; leave out --devices-per-trial"
    ):
        built(ProcessGroup(0, 2), "dilated8", batch_norm="eval")
    built(ProcessGroup(0, 2), freeze="backbone")
    built(SINGLE_PROCESS)


@pytest.mark.parametrize("freeze", ["none", "stride4"])
@pytest.mark.parametrize("backbone", ["tiny-scratch", "mobilenetv2"])
def test_training_batch_norms_are_replaced_by_sync_batch_norm(backbone: str, freeze: str) -> None:
    overrides = {"backbone": backbone, "head": "dilated8", "upsampler": "bilinear", "dataset": "shapes-mini"}
    cell = resolve({**overrides, "recipe": "smoke", "backbone.weights": "scratch"}, builtin(), "test")
    model = build_model(cell.variant, 4, seed=0)
    if freeze != "none":
        from fcnlab.training.freezing import freeze_backbone as keep

        keep(model.backbone, 4)
    model.train()
    norms = {path for path, m in model.named_modules() if isinstance(m, nn.BatchNorm2d) and m.training}
    still = {path for path, m in model.named_modules() if isinstance(m, nn.BatchNorm2d) and not m.training}
    parameters, images = dict(model.named_parameters()), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        before = model.eval()(images)
    synchronize_batch_norm(model, ProcessGroup(0, 2), torch.device("cuda"))
    assert {path for path, m in model.named_modules() if isinstance(m, nn.SyncBatchNorm)} == norms
    assert {path for path, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)} == still
    assert bool(still) == (freeze != "none")
    assert all(parameter is parameters[name] for name, parameter in model.named_parameters())
    with torch.no_grad():
        assert torch.equal(model.eval()(images), before)
