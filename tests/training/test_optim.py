"""Tests of learning rates, schedules, weight decay and the moving average of weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim.lr_scheduler import MultiStepLR

from fcnlab.config.grid.grid import resolve
from fcnlab.config.optimizer import LrFactors
from fcnlab.config.registry import builtin
from fcnlab.data.datasets.shapes import Shapes
from fcnlab.models import FCN
from fcnlab.training.optim import (
    OPTIMIZERS,
    MovingAverage,
    create_optimizer,
    create_schedule,
    set_learning_rates,
)
from fcnlab.trial.build import build_model, build_training

BASE = {"variant": "fcn8s-tiny", "upsampler.bias": True, "dataset": "shapes-mini", "recipe": "smoke"}
SCHEDULES = ["constant", "poly", "cosine", "step"]


def create_fcn(**overrides: Any) -> FCN:
    """Create an FCN-8s whose upsamplers have biases; with ConvNeXt also its other layers."""
    return build_model(resolve({**BASE, **overrides}, builtin(), "test").variant, num_classes=4, seed=0)


def rates(built: torch.optim.Optimizer, model: nn.Module) -> dict[str, float]:
    """Return the learning rate of each trainable parameter by name, after a check that each is in one group, once."""
    found = {id(p): group["lr"] for group in built.param_groups for p in group["params"]}
    assert len(found) == sum(len(group["params"]) for group in built.param_groups)
    names = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    assert found.keys() == names.keys()
    return {names[key]: rate for key, rate in found.items()}


def test_a_constant_schedule_is_1() -> None:
    assert {create_schedule("constant", steps=10)(step) for step in range(10)} == {1.0}


@pytest.mark.parametrize("power", [0.5, 0.9, 2])
def test_poly_is_a_power_of_the_remaining_fraction(power: float) -> None:
    factor = create_schedule("poly", steps=20, power=power)
    assert [factor(step) for step in range(20)] == pytest.approx([(1 - step / 20) ** power for step in range(20)])


@pytest.mark.parametrize("name", SCHEDULES)
def test_steps_after_the_last_one_have_the_factor_at_the_end(name: str) -> None:
    factor = create_schedule(name, steps=4, warmup=1)
    assert factor(5) == factor(100) == factor(4) <= factor(3)


def test_cosine_decays_from_1_to_0() -> None:
    factor = create_schedule("cosine", steps=8)
    assert [factor(step) for step in (0, 2, 4, 8)] == pytest.approx([1, (1 + math.sqrt(0.5)) / 2, 0.5, 0])


@pytest.mark.parametrize("milestones", [(0.5, 0.8), (0.1,), (0.25, 0.5, 0.75), ()])
def test_step_equals_the_multi_step_schedule_of_torch(milestones: tuple[float, ...]) -> None:
    factor = create_schedule("step", steps=20, milestones=milestones, gamma=0.3)
    theirs = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = MultiStepLR(theirs, [round(20 * m) for m in milestones], gamma=0.3)
    for step in range(20):
        assert factor(step) == pytest.approx(theirs.param_groups[0]["lr"])
        theirs.step()
        scheduler.step()


@pytest.mark.parametrize("name", SCHEDULES)
def test_warm_up_is_linear(name: str) -> None:
    factor = create_schedule(name, steps=20, warmup=4)
    assert [factor(step) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1])
    short = create_schedule(name, steps=16)
    assert [factor(4 + step) for step in range(16)] == pytest.approx([short(step) for step in range(16)])


@given(st.sampled_from(SCHEDULES), st.integers(1, 60), st.integers(0, 60))
@settings(deadline=None, max_examples=60)
def test_every_factor_is_above_0_and_at_most_1(name: str, steps: int, warmup: int) -> None:
    factors = [create_schedule(name, steps=steps, warmup=warmup)(step) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors)
    rising, falling = factors[: warmup + 1], factors[warmup:]
    assert rising == sorted(rising) and falling == sorted(falling, reverse=True)


def test_learning_rates_are_relative_to_the_initial_ones() -> None:
    layers = nn.Linear(2, 2), nn.Linear(2, 2)
    groups = [{"params": layer.parameters(), "lr": lr} for layer, lr in zip(layers, (1.0, 0.1), strict=True)]
    optimizer = torch.optim.SGD(groups)
    for factor in (0.5, 0.5, 0.25, 1.0):
        set_learning_rates(optimizer, factor)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([factor, 0.1 * factor])


def test_learning_rates_continue_with_a_restored_optimizer() -> None:
    model = create_fcn()
    first, second = (
        create_optimizer(
            "sgd", model, lr=0.4, weight_decay=0, momentum=0, nesterov=False, factors=LrFactors(backbone=0.5)
        )
        for _ in range(2)
    )
    set_learning_rates(first, 0.5)
    second.load_state_dict(first.state_dict())
    set_learning_rates(second, 0.5)
    assert sorted(group["lr"] for group in second.param_groups) == pytest.approx([0.1, 0.2])


OPTIONS: dict[str, dict[str, Any]] = {
    "sgd": {"momentum": 0.9, "nesterov": True},
    "adam": {"betas": [0.8, 0.99]},
    "adamax": {"betas": [0.8, 0.99]},
    "adamw": {"betas": [0.8, 0.99]},
    "nadam": {"betas": [0.8, 0.99]},
    "radam": {"betas": [0.8, 0.99]},
    "rmsprop": {"momentum": 0.9, "alpha": 0.9},
}
TORCHS = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamax": torch.optim.Adamax,
    "adamw": torch.optim.AdamW,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "rmsprop": torch.optim.RMSprop,
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_recipe_creates_the_optimizer_with_its_options(name: str) -> None:
    overrides = {"name": name, "lr": 0.02, "weight_decay": 0.003, **OPTIONS[name]}
    cell = resolve({**BASE, "recipe.optimizer": overrides}, builtin(), "test")
    shapes = Shapes(train=4, val=1, test=1, height=32, width=32, seed=0)
    model = build_model(cell.variant, len(shapes.classes), seed=0)
    built = build_training(cell.recipe, model, shapes, split="train", seed=0).optimizer
    assert type(built) is TORCHS[name]
    (group,) = built.param_groups
    assert {key: list(v) if isinstance(v, tuple) else v for key, v in group.items() if key in overrides} == {
        key: value for key, value in overrides.items() if key != "name"
    }
    weights = model.head.score["32"].weight
    before = weights.clone()
    model(torch.randn(2, 3, 32, 32)).square().mean().backward()
    built.step()
    assert not torch.equal(weights, before)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_without_factors_there_is_one_parameter_group(name: str) -> None:
    model = create_fcn()
    built = create_optimizer(name, model, lr=0.1, weight_decay=0.1, factors=LrFactors())
    assert len(built.param_groups) == 1
    assert set(rates(built, model).values()) == {0.1}
    assert built.param_groups[0]["weight_decay"] == 0.1


NORMS = (nn.BatchNorm2d, nn.LayerNorm)
nets = pytest.mark.parametrize("timm", ["test_resnet", "convnext_atto"])


@nets
def test_the_learning_rate_of_a_parameter_has_the_factors_of_its_component_and_of_biases(timm: str) -> None:
    model = create_fcn(**{"backbone.timm": timm})
    factors = LrFactors(backbone=0.1, head=2.0, upsampler=3.0, bias=5.0)
    found = rates(create_optimizer("sgd", model, lr=0.01, weight_decay=0.1, factors=factors), model)
    seen = set()
    for name, rate in found.items():
        owner, _, own_name = name.rpartition(".")
        up = name.startswith(("head.fuse.", "head.upsample."))
        part = 3.0 if up else {"backbone": 0.1, "head": 2.0}[name.partition(".")[0]]
        bias = own_name == "bias" and not isinstance(model.get_submodule(owner), NORMS)
        assert rate == pytest.approx(0.01 * part * (5.0 if bias else 1.0)), name
        seen.add((part, bias))
    of_backbone = {(0.1, False)} if timm == "test_resnet" else {(0.1, False), (0.1, True)}
    assert seen == of_backbone | {(2.0, False), (2.0, True), (3.0, False), (3.0, True)}


@nets
@pytest.mark.parametrize("factors", [LrFactors(), LrFactors(backbone=0.1, bias=2.0)], ids=str)
def test_decay_weights_excludes_norms_and_biases(timm: str, factors: LrFactors) -> None:
    model = create_fcn(**{"backbone.timm": timm})
    plain, spared = (
        create_optimizer("adamw", model, lr=0.01, weight_decay=0.1, factors=factors, decay=decay)
        for decay in ("all", "weights")
    )
    assert rates(plain, model) == rates(spared, model)
    assert {group["weight_decay"] for group in plain.param_groups} == {0.1}
    for group in spared.param_groups:
        # Norms, biases and layer scales have one dimension; kernels and matrices have more.
        assert {p.ndim > 1 for p in group["params"]} == {group["weight_decay"] == 0.1}
        assert group["weight_decay"] in (0.0, 0.1)


@pytest.mark.parametrize("freeze", ["backbone", "head.score", "head.upsample", "head.fuse"])
def test_frozen_parameters_are_not_in_the_optimizer(freeze: str) -> None:
    model = create_fcn()
    model.get_submodule(freeze).requires_grad_(False)
    frozen = {id(parameter) for parameter in model.get_submodule(freeze).parameters()}
    assert frozen
    for name in OPTIMIZERS:
        built = create_optimizer(name, model, lr=0.1, weight_decay=0.1, factors=LrFactors(head=2.0), decay="weights")
        assert not frozen & {id(parameter) for group in built.param_groups for parameter in group["params"]}
        assert len(rates(built, model)) + len(frozen) == len(list(model.parameters()))


def test_a_fixed_upsampler_is_not_in_the_optimizer() -> None:
    model = create_fcn(**{"upsampler": "bilinear-fixed", "upsampler.bias": False})
    found = rates(create_optimizer("sgd", model, lr=0.1, weight_decay=0, factors=LrFactors()), model)
    assert found and not [name for name in found if name.startswith(("head.fuse.", "head.upsample."))]


def walked(model: nn.Module, average: Any, steps: int) -> list[dict[str, Tensor]]:
    """Change the weights of a model at random, update the average after each change, and return all states."""
    generator = torch.Generator().manual_seed(0)
    states = []
    for step in range(steps):
        with torch.no_grad():
            for value in model.state_dict().values():
                if value.is_floating_point():
                    value.copy_(torch.randn(value.shape, generator=generator))
                else:
                    value.fill_(7 * step)
        average.update_parameters(model)
        states.append({name: value.clone() for name, value in model.state_dict().items()})
    return states


@given(st.floats(0.01, 0.9999), st.integers(1, 25))
@settings(deadline=None, max_examples=30)
def test_the_decay_of_the_average_warms_up(decay: float, steps: int) -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))
    average = MovingAverage(model, decay)
    first, *later = walked(model, average, steps)
    expected = {name: value.double() for name, value in first.items()}
    for n, state in enumerate(later, start=1):
        kept = min(decay, (1 + n) / (10 + n))
        expected = {name: kept * value + (1 - kept) * state[name] for name, value in expected.items()}
    found = average.module.state_dict()
    assert set(found) == {"0.weight", "0.bias", *(f"1.{name}" for name in nn.BatchNorm2d(3).state_dict())}
    for name, value in found.items():
        if value.is_floating_point():
            assert torch.allclose(value.double(), expected[name], atol=1e-5)
        else:
            assert value == [first, *later][-1][name]


@pytest.mark.parametrize("channels_last", [False, True])
def test_the_average_shares_no_memory_with_the_model(channels_last: bool) -> None:
    model = create_fcn()
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    average = MovingAverage(model, 0.9)
    own = {value.data_ptr() for value in model.state_dict().values()}
    assert not own & {value.data_ptr() for value in average.module.state_dict().values()}
    before = {name: value.clone() for name, value in average.module.state_dict().items()}
    with torch.no_grad():
        for value in model.state_dict().values():
            value.add_(1)
    assert all(torch.equal(value, before[name]) for name, value in average.module.state_dict().items())


@pytest.mark.parametrize("freeze", [lambda model: None, lambda model: model.backbone.requires_grad_(False)])
def test_the_average_of_constant_weights_equals_them(freeze: Callable[[FCN], Any]) -> None:
    model = create_fcn()
    freeze(model)
    average = MovingAverage(model, 0.9)
    for _ in range(5):
        average.update_parameters(model)
    for name, value in average.module.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
