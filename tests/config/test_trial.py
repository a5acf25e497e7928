"""The key of a trial: the settings that change it and those that do not."""

from __future__ import annotations

import inspect
import re
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcnlab.config.base import Config, models_in
from fcnlab.config.grid.cell import InputFingerprints
from fcnlab.config.grid.grid import resolve
from fcnlab.config.registry import KINDS, builtin
from fcnlab.config.trial import Trial
from tests.builders import DATA, build_trial


def trial(overrides: dict[str, Any] | None = None, **settings: Any) -> Trial:
    return build_trial({"dataset": "shapes", **(overrides or {})}, **settings)


KEY = trial().key


def test_a_key_is_64_hexadecimal_digits() -> None:
    assert re.fullmatch("[0-9a-f]{64}", KEY)


def test_the_key_of_a_known_trial_has_not_changed() -> None:
    # If this fails, every finished trial of every user would run again. If that is intended, raise NUMERICS.
    known = Trial.model_validate(
        {
            "variant": {
                "backbone": {"timm": "test_resnet"},
                "head": {"type": "skip", "stride": 8},
                "upsampler": {"init": "bilinear"},
            },
            "dataset": {"type": "shapes", "splits": {"test": "test"}, "nominal": {"height": 96, "width": 128}},
            "recipe": {
                "epochs": 2,
                "batch_size": 4,
                "crop": {"height": 64, "width": 64},
                "scale": [0.5, 2],
                "optimizer": {"name": "sgd", "lr": 0.01, "momentum": 0.9},
            },
            "seed": 1,
            "names": {},
            "data": "shapes-v1",
        }
    )
    assert known.key == "e701f63fea4750f58036aa5eef87be6ff3174ac8fc882a2278f02958a1f72e73"


def test_the_same_content_under_another_name_is_the_same_trial() -> None:
    cell = resolve({"variant": "fcn8s-tiny", "dataset": "shapes", "recipe": "smoke"}, builtin(), "test")
    (named,) = cell.trials([0], lambda *_: InputFingerprints(DATA, None, {}))
    assert named.names != trial().names
    assert named.key == KEY


def test_an_entry_and_the_equal_overrides_of_another_are_the_same_trial() -> None:
    assert trial({"upsampler": "random"}).key == trial({"upsampler.init": "random"}).key
    assert trial({"head": "fcn16s"}).key == trial({"head.stride": 16}).key
    assert trial({"dataset": "shapes-mini"}).key == trial(
        {"dataset.options": {"train": 16, "val": 4, "test": 6, "height": 64, "width": 64}}
    ).key  # fmt: skip


@pytest.mark.parametrize(
    "overrides",
    [
        {"recipe.description": "another word"},
        {"head.description": "another word"},
        {"upsampler.description": "another word"},
        {"backbone.description": "another word"},
        {"dataset.description": ""},
        {"backbone.reductions": [8, 16, 32]},
    ],
    ids=str,
)
def test_descriptions_do_not_change_the_key(overrides: dict[str, Any]) -> None:
    changed = trial(overrides)
    assert changed != trial()
    assert changed.key == KEY


def test_the_nominal_size_does_not_change_the_key() -> None:
    voc = {"dataset": "voc2012"}
    changed = trial({**voc, "dataset.nominal": {"height": 1, "width": 2}})
    assert changed != trial(voc)
    assert changed.key == trial(voc).key


def test_the_path_of_files_does_not_change_the_key() -> None:
    voc = {"dataset": "voc2012"}
    assert trial({**voc, "dataset.folder": "elsewhere"}).key == trial(voc).key
    assert trial({"backbone.weights": "a.pth"}, weights="w").key == trial(
        {"backbone.weights": "there/b.safetensors"}, weights="w"
    ).key  # fmt: skip


@pytest.mark.parametrize(
    "default",
    [
        {"recipe.flip": 0.0},
        {"recipe.flip": 0},
        {"recipe.scale": None},
        {"recipe.precision": "fp32"},
        {"recipe.validate_every": 1},
        {"recipe.schedule": {}},
        {"recipe.schedule": {"name": "constant"}},
        {"recipe.schedule.power": 0.9},
        {"recipe.loss": {"name": "cross_entropy", "reduction": "pixel_mean"}},
        {"recipe.optimizer.nesterov": False},
        {"recipe.optimizer.weight_decay": 0},
        {"recipe.jitter": {}},
        {"recipe.jitter": {"brightness": 0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}},
        {"recipe.lr_factors": {"backbone": 1, "head": 1.0, "upsampler": 1.0, "bias": 1.0}},
        {"recipe.decay": "all"},
        {"recipe.grad_accum_steps": 1},
        {"recipe.grad_clip_norm": None},
        {"recipe.ema": None},
        {"recipe.batch_norm": "train"},
        {"recipe.freeze": "none"},
        {"recipe.activation_checkpointing": "none"},
        {"recipe.schedule": {"milestones": [0.6, 0.85], "gamma": 0.1}},
        {"recipe.loss": {"class_weights": "none", "label_smoothing": 0, "focal": 0, "ohem": None}},
        {"recipe.loss": {"weight": 1, "dice": 0, "lovasz": 0.0, "auxiliary": 0.4}},
        {"head.at_once": False},
        {"head.fusion": "sum"},
        {"upsampler.type": "transposed"},
        {"upsampler.stage_init": {}},
        {"upsampler.stage_init.to16": None},
        {"backbone.paper": None},
        {"upsampler.learned": True},
        {"upsampler.channels": "dense"},
        {"upsampler.bias": False},
        {"backbone.weights": "scratch"},
        {"dataset.splits.train": "train"},
    ],
    ids=str,
)
def test_an_explicit_default_does_not_change_the_key(default: dict[str, Any]) -> None:
    assert trial(default).key == KEY


@pytest.mark.parametrize(
    ("overrides", "default"),
    [
        ({"head": "dilated8"}, {"head.dropout": 0.1, "head.convs": 1, "head.auxiliary": None}),
        ({"head.type": "custom_head"}, {"head.output_stride": 32}),
        ({"head.type": "custom_head"}, {"head.options": {}}),
        ({"head.type": "custom_head"}, {"head.reads": [8, 32]}),
        ({"dataset": "shapes-mini"}, {"dataset.options.seed": 0}),
        ({"dataset": "camvid"}, {"dataset.splits.train": "train"}),
    ],
    ids=str,
)
def test_an_explicit_default_of_another_type_does_not_change_its_key(
    overrides: dict[str, Any], default: dict[str, Any]
) -> None:
    assert trial({**overrides, **default}).key == trial(overrides).key != KEY


FOLDER: dict[str, Any] = {
    "dataset.type": "folder",
    "dataset.splits.test": None,
    "dataset.images": "images",
    "dataset.masks": "masks",
    "dataset.classes": ["a", "b"],
    "dataset.fractions.val": 0.5,
}
"""A dataset of folders, as overrides of `shapes`."""

FOLDS: dict[str, Any] = {
    **{key: value for key, value in FOLDER.items() if not key.startswith("dataset.fractions")},
    "dataset.cross_validation.folds": 3,
}
"""The same with a cross-validation."""

CHANGES: list[dict[str, Any]] = [
    {"recipe.epochs": 3},
    {"recipe.steps_per_epoch": 7},
    {"recipe.train_size": 0.5},
    {"recipe.train_size": 5},
    {"recipe.batch_size": 5},
    {"recipe.crop.height": 65},
    {"recipe.crop.width": 65},
    {"recipe.scale": [0.5, 2]},
    {"recipe.scale": [0.5, 1]},
    {"recipe.flip": 0.5},
    {"recipe.loss.custom": {"type": "tversky"}},
    {"recipe.loss.custom": {"type": "tversky", "weight": 0.5}},
    {"recipe.loss.custom": {"type": "tversky", "options": {"alpha": 0.3}}},
    {"recipe.transform": {"type": "weather"}},
    {"recipe.transform": {"type": "perspective"}},
    {"recipe.transform": {"type": "weather", "options": {"scale": [0.5, 2]}}},
    {"recipe.stop_on_plateau": {"patience": 3}},
    {"recipe.stop_on_plateau": {"patience": 3, "min_delta": 0.5}},
    {"recipe.optimizer.lr": 0.02},
    {"recipe.optimizer.momentum": 0.8},
    {"recipe.optimizer.weight_decay": 0.1},
    {"recipe.optimizer.nesterov": True},
    {"recipe.optimizer": {"name": "adamw", "lr": 0.01}},
    {"recipe.optimizer": {"name": "adamw", "lr": 0.01, "betas": [0.8, 0.999]}},
    {"recipe.optimizer": {"name": "adam", "lr": 0.01}},
    {"recipe.optimizer": {"name": "adam", "lr": 0.01, "weight_decay": 0.01}},
    {"recipe.optimizer": {"name": "adamax", "lr": 0.01}},
    {"recipe.optimizer": {"name": "nadam", "lr": 0.01}},
    {"recipe.optimizer": {"name": "radam", "lr": 0.01}},
    {"recipe.optimizer": {"name": "rmsprop", "lr": 0.01}},
    {"recipe.optimizer": {"name": "rmsprop", "lr": 0.01, "alpha": 0.9}},
    {"recipe.optimizer": {"name": "rmsprop", "lr": 0.01, "momentum": 0.9}},
    {"recipe.jitter.brightness": 0.1},
    {"recipe.jitter.contrast": 0.1},
    {"recipe.jitter.saturation": 0.1},
    {"recipe.jitter.hue": 0.1},
    {"recipe.cat_max_ratio": 0.75},
    {"recipe.rotate": 10},
    {"recipe.blur": {"probability": 0.5}},
    {"recipe.blur": {"probability": 0.1}},
    {"recipe.blur": {"probability": 0.1, "sigma": [0.5, 1]}},
    {"recipe.lr_factors.backbone": 0.1},
    {"recipe.lr_factors.head": 0.1},
    {"recipe.lr_factors.upsampler": 0.1},
    {"recipe.lr_factors.bias": 0.1},
    {"recipe.decay": "weights"},
    {"recipe.grad_accum_steps": 2},
    {"recipe.grad_clip_norm": 1.0},
    {"recipe.ema": 0.99},
    {"recipe.fused": "off"},
    {"recipe.batch_norm": "eval"},
    {"recipe.batch_norm": "frozen"},
    *({"recipe.freeze": what} for what in ("stride2", "stride4", "stride8", "stride16", "backbone")),
    *({"recipe.activation_checkpointing": what} for what in ("stride2", "stride4", "stride8", "stride16", "backbone")),
    {"recipe.schedule.name": "step"},
    {"recipe.schedule": {"name": "step", "milestones": [0.5]}},
    {"recipe.schedule": {"name": "step", "gamma": 0.5}},
    {"recipe.schedule.name": "poly"},
    {"recipe.schedule": {"name": "poly", "power": 2}},
    {"recipe.schedule.name": "cosine"},
    {"recipe.schedule.warmup_epochs": 1},
    {"recipe.loss.reduction": "image_mean_sum"},
    {"recipe.loss.reduction": "pixel_sum"},
    {"recipe.loss.class_weights": "median_frequency"},
    {"recipe.loss.label_smoothing": 0.1},
    {"recipe.loss.focal": 2.0},
    {"recipe.loss.ohem": {}},
    {"recipe.loss.ohem": {"threshold": 0.6}},
    {"recipe.loss.ohem": {"keep": 0.1}},
    {"recipe.loss.weight": 0.5},
    {"recipe.loss.dice": 1.0},
    {"recipe.loss.lovasz": 1.0},
    {"recipe.loss.auxiliary": 0.5},
    {"recipe.precision": "bf16"},
    {"recipe.score_scale": 0.5},
    {"recipe.precision": "auto"},
    {"recipe.precision": "tf32"},
    {"recipe.precision": "fp16"},
    {"recipe.deterministic": True},
    {"recipe.compile": True},
    {"recipe.validate_every": 2},
    {"head": "fcn16s"},
    {"head": "fcn32s"},
    {"head.stride": 4},
    {"head.at_once": True},
    {"head.fusion": "concat"},
    {"head": "dilated8"},
    {"head": "dilated8", "head.output_stride": 16},
    {"head": "dilated8", "head.hidden": 64},
    {"head.hidden": 64},
    {"head.hidden": 64, "head.context": True},
    {"head": "dilated8", "head.convs": 2},
    {"head": "dilated8", "head.concat_input": True},
    {"head": "dilated8", "head.dropout": 0.2},
    {"head": "dilated8", "head.auxiliary": 16},
    {"head.type": "custom_head"},
    {"head.type": "custom_head", "head.options": {"width": 3}},
    {"head.type": "custom_head", "head.output_stride": 8},
    {"head.type": "smp", "head.decoder": "unet"},
    {"head.type": "smp", "head.decoder": "fpn"},
    {"head.type": "smp", "head.decoder": "fpn", "head.options": {"dropout": 0.1}},
    {"upsampler.init": "random"},
    {"upsampler.learned": False},
    {"upsampler.channels": "per_class"},
    {"upsampler.bias": True},
    {"upsampler": "interpolate"},
    {"upsampler": "interpolate", "upsampler.mode": "nearest"},
    {"upsampler": "interpolate", "upsampler.type": "resize"},
    {"upsampler": "random-diagonal"},
    *({"upsampler.init": start} for start in ("xavier", "kaiming", "normal", "zero")),
    *({f"upsampler.stage_init.{stage}": "random"} for stage in ("to16", "to8", "to4", "image")),
    {"upsampler.stage_init.image": "zero"},
    {"backbone.timm": "resnet18"},
    {"backbone.weights": "timm"},
    {"backbone.tail": True},
    {"dataset.options.train": 10},
    {"dataset.options.seed": 1},
    {"dataset.splits.val": "test"},
    {"dataset": "camvid"},
    FOLDER,
    {**FOLDER, "dataset.classes": {"a": 1, "b": 0}},
    {**FOLDER, "dataset.ignore": [7]},
    {**FOLDER, "dataset.fractions.val": 0.4},
    {**FOLDER, "dataset.fractions.seed": 1},
    {**FOLDER, "dataset.fractions.test": 0.1, "dataset.splits.test": "test"},
    {**FOLDS},
    {**FOLDS, "dataset.cross_validation.folds": 4},
    {**FOLDS, "dataset.cross_validation.fold": 1},
    {**FOLDS, "dataset.cross_validation.seed": 1},
    {**FOLDS, "dataset.cross_validation.val": 0.1, "dataset.splits.test": "test"},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_every_setting_of_a_run_changes_the_key(change: dict[str, Any]) -> None:
    assert trial(change).key != KEY


def test_the_keys_of_different_trials_are_all_different() -> None:
    assert len({trial(change).key for change in CHANGES}) == len(CHANGES)


def _paths(value: Any, path: str) -> set[str]:
    """Return the paths of the fields that a change sets."""
    if not isinstance(value, dict) or not value:
        return {path}
    return {path}.union(*(_paths(inner, f"{path}.{name}") for name, inner in value.items()))


def _fields(model: type[Config], path: str) -> set[str]:
    """Return the paths of all fields that may enter the key, also inside other configurations."""
    found: set[str] = set()
    for name, field in model.model_fields.items():
        if name in model.not_in_key:
            continue
        inner = [m for m in (field.annotation, *get_args(field.annotation)) if inspect.isclass(m)]
        models = [m for m in inner if issubclass(m, Config)]
        found |= {f"{path}.{name}"}.union(*(_fields(m, f"{path}.{name}") for m in models))
    return found


@pytest.mark.parametrize("component", ["recipe", "head", "upsampler"])
def test_every_field_of_a_component_is_among_the_changes(component: str) -> None:
    # A field that is added to one of them must be shown to enter the key.
    changed = {path for change in CHANGES for axis, value in change.items() for path in _paths(value, axis)}
    prefixes = {".".join(path.split(".")[:n]) for path in changed for n in range(1, path.count(".") + 2)}
    fields = set().union(*(_fields(model, component) for model in models_in(KINDS[component])))
    assert fields - prefixes == ({"recipe.loss.name"} if component == "recipe" else set())  # it has only one value


def test_every_field_of_a_recipe_is_among_the_changes() -> None:
    # A field that is added to the recipe must be shown to enter the key.
    fields = set(type(trial().recipe).model_fields) - {"description"}
    assert {axis.split(".")[1] for change in CHANGES for axis in change if axis.startswith("recipe.")} == fields


@given(st.integers(0, 2**40), st.integers(0, 2**40))
@settings(deadline=None, max_examples=30)
def test_keys_are_equal_if_and_only_if_seeds_are(a: int, b: int) -> None:
    assert (trial(seed=a).key == trial(seed=b).key) == (a == b)


@given(st.text(max_size=8), st.text(max_size=8))
@settings(deadline=None, max_examples=30)
def test_keys_are_equal_if_and_only_if_data_are(a: str, b: str) -> None:
    assert (trial(data=a).key == trial(data=b).key) == (a == b)


def test_the_content_of_a_weights_file_changes_the_key() -> None:
    local = {"backbone.weights": "a.pth"}
    assert len({trial(local, weights="w1").key, trial(local, weights="w2").key, KEY}) == 3


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "recipe.epochs": st.integers(1, 1000),
            "recipe.optimizer.lr": st.floats(1e-9, 10),
            "recipe.scale": st.none() | st.tuples(st.floats(0.1, 1), st.floats(1, 3)).map(list),
            "recipe.schedule.name": st.sampled_from(["constant", "poly", "cosine"]),
            "recipe.flip": st.floats(0, 1),
            "upsampler": st.sampled_from(builtin().names("upsampler")),
            "dataset": st.sampled_from(["shapes", "shapes-mini", "voc2012", "camvid"]),
        },
    ),
    st.integers(0, 2**31),
)
@settings(deadline=None, max_examples=40)
def test_a_trial_is_equal_after_writing_and_reading(overrides: dict[str, Any], seed: int) -> None:
    written = trial(overrides, seed=seed)
    read = Trial.model_validate_json(written.model_dump_json())
    assert read == written
    assert read.key == written.key


def test_the_identity_has_only_plain_values() -> None:
    def plain(value: Any) -> bool:
        if isinstance(value, dict):
            return all(isinstance(key, str) and plain(item) for key, item in value.items())
        if isinstance(value, list):
            return all(map(plain, value))
        return value is None or isinstance(value, str | int | float)

    identity = trial({"recipe": "standard", "dataset": "shapes-mini"}).identity()
    assert type(identity) is dict and plain(identity)


def test_metrics_are_reported_on_test_or_else_on_val() -> None:
    assert trial().report_split == "test"
    assert trial({"dataset": "voc2012"}).report_split == "val"


def test_explicit_default_options_are_the_same_dataset() -> None:
    shapes = builtin().get("dataset", "shapes")
    stated = type(shapes).model_validate(shapes.model_dump(exclude={"options"}) | {"options": {}})
    assert stated.content() == shapes.content()


def test_a_training_size_of_one_is_the_whole_split() -> None:
    assert trial({"recipe.train_size": 1}).key == trial({"recipe.train_size": 1.0}).key == KEY
