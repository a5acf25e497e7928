"""The training loop: that it learns, that it stops when it diverges, that it goes on where it stopped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fcnlab.data.shapes import Shapes
from fcnlab.spec.catalog import builtin
from fcnlab.spec.grid import resolve
from fcnlab.training.fit import Diverged, Epoch, fit
from fcnlab.training.losses import pixel_mean
from fcnlab.training.optim import sgd
from fcnlab.trial.build import build_model, build_training

torch.set_num_threads(1)


class Two:
    """Two batches an epoch, of three images each; says which epochs were asked for."""

    steps = 2

    def __init__(self) -> None:
        self.asked: list[int] = []

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        self.asked.append(epoch)
        for step in range(self.steps):
            generator = torch.Generator().manual_seed(10 * epoch + step)
            images = torch.randn(3, 3, 8, 8, generator=generator)
            yield images, (images[:, 0] > 0).to(torch.uint8)


def train(model: nn.Module, batches: Any, *, lr: float = 0.1, **said: Any) -> list[Epoch]:
    seen: list[Epoch] = []
    options: dict[str, Any] = {
        "epochs": 3,
        "start": 0,
        "loss": pixel_mean,
        "optimizer": sgd(model, lr=lr, momentum=0, weight_decay=0, nesterov=False),
        "factor": lambda step: 1 / (1 + step),
        "autocast": nullcontext,
        "after_epoch": seen.append,
    }
    fit(model, batches, **(options | said))
    return seen


def test_a_tiny_network_learns_on_generated_scenes() -> None:
    cell = resolve({"variant": "fcn16s-tiny", "dataset": "shapes-mini", "recipe": "smoke"}, {}, builtin(), "test")
    shapes = Shapes(train=8, val=1, test=1, height=64, width=64, seed=0)
    model = build_model(cell.variant, len(shapes.classes), seed=0)
    parts = build_training(cell.recipe, model, shapes, "train", 0, torch.device("cpu"))
    seen = train(model, parts.batches, epochs=5, loss=parts.loss, optimizer=parts.optimizer, factor=lambda step: 1.0)
    assert [epoch.epoch for epoch in seen] == [1, 2, 3, 4, 5]
    assert seen[-1].loss < 0.8 * seen[0].loss
    assert {epoch.images for epoch in seen} == {8}


def test_an_epoch_says_its_mean_loss_and_its_last_rate() -> None:
    model = nn.Conv2d(3, 2, 1)
    with torch.no_grad():
        wanted = [pixel_mean(model(x), y).item() for x, y in Two().epoch(0)]
    seen = train(model, Two(), epochs=1, optimizer=torch.optim.SGD(model.parameters(), lr=0.0), factor=lambda step: 1)
    assert seen[0].loss == pytest.approx(sum(wanted) / 2)
    rates = [epoch.lr for epoch in train(model, Two(), lr=1.2)]
    assert rates == pytest.approx([1.2 / 2, 1.2 / 4, 1.2 / 6])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_the_run_and_the_epoch_is_not_reported(bad: float) -> None:
    seen: list[Epoch] = []
    batches = Two()

    def loss(scores: Tensor, labels: Tensor) -> Tensor:
        return pixel_mean(scores, labels) * (bad if batches.asked[-1] == 1 else 1)

    with pytest.raises(Diverged, match=r"the loss of epoch 2 is (nan|inf); a smaller learning rate may help"):
        train(nn.Conv2d(3, 2, 1), batches, epochs=5, loss=loss, after_epoch=seen.append)
    assert [epoch.epoch for epoch in seen] == [1]
    assert batches.asked == [0, 1]


def test_a_rate_far_too_large_diverges() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    with pytest.raises(Diverged):
        train(model, Two(), epochs=20, lr=1e30, factor=lambda step: 1.0)


def test_a_run_that_goes_on_trains_the_remaining_epochs_alone() -> None:
    batches, steps = Two(), []

    def factor(step: int) -> float:
        steps.append(step)
        return 1.0

    seen = train(nn.Conv2d(3, 2, 1), batches, epochs=5, start=3, factor=factor)
    assert batches.asked == [3, 4]
    assert steps == [6, 7, 8, 9]  # the schedule goes on, too
    assert [epoch.epoch for epoch in seen] == [4, 5]


def test_a_run_in_two_parts_ends_where_one_in_one_part_does() -> None:
    torch.manual_seed(0)
    whole, parts = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1)
    parts.load_state_dict(whole.state_dict())
    train(whole, Two(), epochs=4)
    optimizer = sgd(parts, lr=0.1, momentum=0, weight_decay=0, nesterov=False)
    train(parts, Two(), epochs=2, optimizer=optimizer)
    train(parts, Two(), epochs=4, start=2, optimizer=optimizer)
    assert torch.equal(whole.weight, parts.weight)


def test_a_finished_run_trains_nothing() -> None:
    model = nn.Conv2d(3, 2, 1)
    before = model.weight.clone()
    assert train(model, Two(), epochs=3, start=3) == []
    assert torch.equal(model.weight, before)


def test_a_model_left_in_eval_mode_is_trained_in_train_mode() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1)).eval()
    modes: list[bool] = []
    train(model, Two(), epochs=2, after_epoch=lambda _: (modes.append(model.training), model.eval()))
    assert modes == [True, True]
