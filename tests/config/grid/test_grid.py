"""Grid files: their cells and trials, and the errors of invalid ones."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fcnlab.config.dataset import Dataset, ShapesDataset
from fcnlab.config.grid.cell import Cell, InputFingerprints
from fcnlab.config.grid.grid import Grid, load
from fcnlab.config.optimizer import Sgd
from fcnlab.config.recipe import Recipe
from fcnlab.config.registry import builtin
from fcnlab.config.upsampler import TransposedUpsampler
from fcnlab.config.variant import Variant
from fcnlab.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]
BASE = {"backbone": "tiny-scratch", "upsampler": "bilinear", "dataset": "shapes", "recipe": "smoke"}
HEADS = ["fcn32s", "fcn16s", "fcn8s"]


def same_data(variant: Variant, dataset: Dataset, recipe: Recipe) -> InputFingerprints:
    return InputFingerprints("data", None, {})


def grid(folder: Path, **keys: Any) -> Grid:
    path = folder / "grid.yaml"
    keys = {"question": "Does it?", "base": BASE, "product": {"head": HEADS}, "baseline": {"head": "fcn32s"}} | keys
    path.write_text(yaml.safe_dump({key: value for key, value in keys.items() if value is not None}, sort_keys=False))
    return load(path, builtin())


def error_of(folder: Path, **keys: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        grid(folder, **keys)
    message = str(caught.value)
    assert all(line.startswith(str(folder / "grid.yaml")) for line in message.splitlines())
    return message.replace(f"{folder / 'grid.yaml'}: ", "")


def test_the_cells_are_the_product_of_the_axes(tmp_path: Path) -> None:
    upsamplers = ["bilinear", "random"]
    base = {key: value for key, value in BASE.items() if key != "upsampler"}
    found = grid(
        tmp_path,
        base=base,
        product={"head": HEADS, "upsampler": upsamplers},
        baseline={"head": "fcn32s", "upsampler": "bilinear"},
    )
    assert [tuple(cell.axes.values()) for cell in found.cells] == list(itertools.product(HEADS, upsamplers))
    assert [cell.label for cell in found.cells][:2] == ["fcn32s, bilinear", "fcn32s, random"]


@given(
    heads=st.lists(st.sampled_from(HEADS), min_size=1, unique=True),
    epochs=st.lists(st.integers(1, 99), min_size=1, max_size=4, unique=True),
    seeds=st.integers(1, 4) | st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True),
)
@settings(deadline=None, max_examples=25)
def test_a_grid_has_one_trial_for_each_cell_and_seed(
    heads: list[str], epochs: list[int], seeds: int | list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    found = grid(
        tmp_path_factory.getbasetemp(),
        product={"head": heads, "recipe.epochs": epochs},
        seeds=seeds,
        baseline={"head": heads[0], "recipe.epochs": epochs[0]},
    )
    wanted = list(range(seeds)) if isinstance(seeds, int) else seeds
    trials = [trial for _, trial in found.trials(same_data)]
    assert len(trials) == len(found) == len(heads) * len(epochs) * len(wanted)
    assert len({trial.key for trial in trials}) == len(trials)
    assert {trial.seed for trial in trials} == set(wanted)


def test_trials_are_ordered_by_seed_then_by_cell(tmp_path: Path) -> None:
    found = grid(tmp_path, seeds=[5, 3])
    order = [(trial.seed, trial.names["head"]) for _, trial in found.trials(same_data)]
    assert order == [(seed, head) for seed in (5, 3) for head in HEADS]


def test_one_seed_is_the_default(tmp_path: Path) -> None:
    assert grid(tmp_path).seeds == (0,)


def test_the_baseline_is_one_of_the_cells(tmp_path: Path) -> None:
    found = grid(tmp_path, baseline={"head": "fcn16s"})
    assert found.baseline is found.cells[1]


def test_the_baseline_is_the_first_cell_by_default(tmp_path: Path) -> None:
    found = grid(tmp_path, baseline=None, exclude=[{"head": "fcn32s"}])
    assert found.baseline is found.cells[0] and found.baseline.names["head"] == "fcn16s"


def test_the_upsampler_is_bilinear_by_default_with_the_same_keys(tmp_path: Path) -> None:
    def keys(base: dict[str, Any], **more: Any) -> list[str]:
        return [trial.key for _, trial in grid(tmp_path, base=base, **more).trials(same_data)]

    without = {axis: name for axis, name in BASE.items() if axis != "upsampler"}
    assert keys(without) == keys(BASE)
    assert keys({**without, "upsampler.bias": True}) == keys({**BASE, "upsampler.bias": True})
    assert keys(without, exclude=[{"upsampler": "bilinear", "head": "fcn16s"}]) == keys(
        BASE, exclude=[{"head": "fcn16s"}]
    )


def test_a_grid_without_axes_is_one_cell_labeled_by_its_variant(tmp_path: Path) -> None:
    base = {"variant": "fcn8s-tiny", "dataset": "shapes", "recipe": "smoke"}
    (cell,) = grid(tmp_path, base=base, product=None, baseline={}).cells
    assert cell.label == "fcn8s-tiny"


def test_exclude_removes_exactly_the_matching_cells(tmp_path: Path) -> None:
    found = grid(
        tmp_path,
        product={"head": HEADS, "recipe.epochs": [1, 2]},
        exclude=[{"head": ["fcn16s", "fcn8s"], "recipe.epochs": 2}],
        baseline={"head": "fcn32s", "recipe.epochs": 1},
    )
    assert [cell.label for cell in found.cells] == ["fcn32s, 1", "fcn32s, 2", "fcn16s, 1", "fcn8s, 1"]


def test_an_excluded_cell_may_be_invalid(tmp_path: Path) -> None:
    # Otherwise a backbone without stride 8 could not be in a product with fcn8s.
    found = grid(tmp_path, base={**BASE, "backbone.reductions": [2, 4, 16, 32]}, exclude=[{"head": "fcn8s"}])
    assert len(found) == 2


def test_an_axis_may_be_a_field_of_an_entry(tmp_path: Path) -> None:
    found = grid(tmp_path, base={**BASE, "head": "fcn8s"}, product={"recipe.epochs": [3, 7]},
                 baseline={"recipe.epochs": 3})  # fmt: skip
    assert [cell.recipe.epochs for cell in found.cells] == [3, 7]
    assert {cell.recipe.batch_size for cell in found.cells} == {4}


def test_an_axis_may_be_a_field_within_a_field(tmp_path: Path) -> None:
    found = grid(tmp_path, base={**BASE, "head": "fcn8s"}, product={"recipe.optimizer.lr": [0.1, 0.2]},
                 baseline={"recipe.optimizer.lr": 0.1})  # fmt: skip
    assert [cell.recipe.optimizer for cell in found.cells] == [
        Sgd(name="sgd", lr=0.1, momentum=0.9),
        Sgd(name="sgd", lr=0.2, momentum=0.9),
    ]


def test_a_field_inside_a_default_can_be_set(tmp_path: Path) -> None:
    base = {**BASE, "dataset.options.train": 8, "recipe.schedule.name": "poly"}
    (cell, *_) = grid(tmp_path, base=base).cells
    assert isinstance(cell.dataset, ShapesDataset) and cell.dataset.options.train == 8
    assert cell.recipe.schedule.name == "poly"


def test_overrides_do_not_change_the_registry(tmp_path: Path) -> None:
    before = builtin().get("recipe", "smoke").model_dump()
    grid(tmp_path, base={**BASE, "recipe.optimizer.lr": 0.5, "recipe.crop.height": 32})
    assert builtin().get("recipe", "smoke").model_dump() == before


def test_an_axis_overrides_a_component_of_the_variant(tmp_path: Path) -> None:
    base = {"variant": "fcn32s-tiny", "dataset": "shapes", "recipe": "smoke"}
    found = grid(tmp_path, base=base, product={"upsampler": ["bilinear", "random"]}, baseline={"upsampler": "random"})
    assert [cell.variant.upsampler.content() for cell in found.cells] == [{"init": "bilinear"}, {"init": "random"}]
    assert {cell.names["head"] for cell in found.cells} == {"fcn32s"}
    assert found.cells[1].names["variant"] == "fcn32s-tiny-scratch-random"


@pytest.mark.parametrize(
    "keys",
    [
        {"product": {"variant": ["fcn16s-resnet18"]}},
        {"cells": [{"variant": "fcn16s-resnet18"}]},
        {"blocks": [{"base": {"variant": "fcn16s-resnet18"}}]},
        {"base": {**BASE, "head": "fcn8s", "init_from": {"variant": "fcn16s-resnet18"}}},
    ],
)
def test_a_variant_overrides_the_components_of_lower_levels(tmp_path: Path, keys: dict[str, Any]) -> None:
    lower = {**BASE, "head": "fcn8s", "upsampler": "random"}
    (cell,) = grid(tmp_path, **({"base": lower, "product": None, "baseline": None} | keys)).cells
    named = cell.init_from if "base" in keys else cell
    assert isinstance(named, Cell) and named.names["variant"] == "fcn16s-resnet18"
    assert named.variant.backbone.architecture == "resnet18.tv_in1k"
    assert named.variant.head.content()["stride"] == 16
    assert named.variant.upsampler.content() == {"init": "bilinear"}


def test_a_condition_on_a_variant_applies_to_the_resolved_components(tmp_path: Path) -> None:
    base = {"variant": "fcn32s-tiny", "dataset": "shapes", "recipe": "smoke"}
    product = {"head": ["fcn32s", "fcn8s"], "recipe.ema": [None, 0.9]}
    excluded = grid(tmp_path, base=base, product=product, exclude=[{"variant": "fcn32s-tiny", "recipe.ema": 0.9}])
    assert [cell.label for cell in excluded.cells] == ["fcn32s, None", "fcn8s, None", "fcn8s, 0.9"]
    assert "variant: no cell has fcn8s-resnet18" in error_of(
        tmp_path, base=base, exclude=[{"variant": "fcn8s-resnet18"}]
    )


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"product": {"haed": HEADS}}, "haed: unknown axis; did you mean 'head'?"),
        ({"product": {"variant.head": HEADS}}, "variant.head: unknown axis"),
        ({"base": {**BASE, "lr": 0.1}}, "base.lr: unknown axis; write recipe.lr"),
        ({"base": {**BASE, "learning_rate": 0.1}}, "base.learning_rate: unknown axis; write recipe.lr"),
        ({"base": {**BASE, "batch": 3}}, "base.batch: unknown axis; write recipe.batch_size"),
        ({"base": {**BASE, "stride": 8}}, "base.stride: unknown axis; write head.stride"),
        (
            {"base": {**BASE, "recipe.learning_rate": 0.1}},
            "base.recipe.learning_rate: a recipe has no field 'learning_rate'; write recipe.lr",
        ),
        (
            {"base": {**BASE, "recipe": {"name": "quick", "epochs": 2}}},
            "recipe: give the name of an entry, not a mapping; write `recipe: quick` and `recipe.epochs: 2`",
        ),
        (
            {"base": {**BASE, "recipe": ["quick", "smoke"]}},
            "recipe: give one name, or the list under product: `product: {recipe: [quick, smoke]}`",
        ),
        ({"product": {"recipe.epoch": [1]}}, "recipe.epoch: a recipe has no field 'epoch'; did you mean 'epochs'?"),
        ({"product": {"head": ["fcn_8s"]}}, "head: no head 'fcn_8s'; did you mean 'fcn8s'?"),
        ({"base": {**BASE, "dataset": "shapez"}}, "dataset: no dataset 'shapez'; did you mean 'shapes'?"),
        ({"base": {**BASE, "variant": "fcn8s-tinny"}}, "variant: no variant 'fcn8s-tinny'; did you mean 'fcn8s-tiny'?"),
        ({"base": {**BASE, "recipe.epochs": "many"}}, 'epochs: input should be a valid integer, not "many"'),
        (
            {"base": {**BASE, "recipe.optimizer.lrr": 1}},
            "base.recipe.optimizer.lrr: recipe.optimizer has no field 'lrr'; did you mean 'lr'?",
        ),
        (
            {"base": {**BASE, "upsampler.stage_init.to2": "zero"}},
            "upsampler.stage_init has no field 'to2'; did you mean",
        ),
        (
            {"product": {"recipe.name": ["sgd"]}},
            "several fields end like this; choose one of recipe.optimizer.name, recipe.schedule.name, recipe.loss.name",
        ),
        (
            {"base": {**BASE, "recipe.lr": 1, "recipe.optimizer.lr": 2}},
            "base: recipe.lr and recipe.optimizer.lr are the same axis; keep one of them",
        ),
        ({"base": {**BASE, "recipe.optimizer.lr": 0}}, "lr: input should be greater than 0, not 0"),
        ({"base": {**BASE, "upsampler.learned": False, "upsampler": "random"}}, "use init: bilinear"),
        ({"seeds": 10**9}, "seeds: 3 cells with 1,000,000,000 seeds are more than 100,000 trials; use fewer seeds"),
        (
            {"zip": {f"recipe.{name}": [0.1] * 4000 for name in ("lr", "flip")}},
            "the grid has 12,000 cells; at most 10,000 are possible: remove values, or use sample",
        ),
        (
            {"base": {**BASE, "recipe.epochs": 1}, "exclude": [{"recipe.epochs": True}]},
            "exclude: recipe.epochs: no cell",
        ),
        ({"base": {"head": "fcn8s"}, "product": None}, "backbone: missing; name it under base or product"),
        ({"base": {"variant": "fcn8s-tiny", "recipe": "smoke"}}, "dataset: missing; name it under base or product"),
        ({"quesiton": "Why?"}, "quesiton: unknown key; did you mean 'question'?"),
        ({"question": None}, "question: missing"),
        ({"product": {"head": []}}, "product.head: give at least 1 value, not []"),
        ({"checkpoint": "bset"}, "checkpoint: \"bset\" is not valid; did you mean 'best'? valid: best, last"),
        ({"base": {**BASE, "head": "fcn8s"}}, "head: is in base and in product; keep one of them"),
        ({"seeds": [1, 2, 1]}, "seeds: a seed appears twice in [1, 2, 1]"),
        ({"seeds": 0}, "seeds"),
        ({"seeds": [-1]}, "seeds"),
        ({"product": {"head": ["fcn8s", "fcn8s"]}}, "the cells 'fcn8s' and 'fcn8s' are the same; remove one"),
        ({"exclude": [{"head": HEADS}]}, "exclude: excludes all 3 cells"),
        ({"exclude": [{"haed": "fcn8s"}]}, "exclude.0.haed: unknown axis; did you mean 'head'?"),
        ({"exclude": [{"head": "fcn_8s"}]}, "exclude: head: no cell has fcn_8s; did you mean 'fcn8s'?"),
        (
            {"exclude": [{"head": "fcn32s"}]},
            "baseline: head: no cell has fcn32s; did you mean 'fcn8s'? valid: fcn16s, fcn8s",
        ),
        ({"baseline": {"head": "fcn_32s"}}, "baseline: head: no cell has fcn_32s; did you mean 'fcn32s'?"),
        ({"baseline": {}}, "baseline: matches 3 cells; give more axes"),
        ({"baseline": {"haed": "fcn8s"}}, "baseline.haed: unknown axis; did you mean 'head'?"),
    ],
)
def test_an_invalid_grid_is_an_error_with_the_reason(tmp_path: Path, keys: dict[str, Any], expected: str) -> None:
    assert expected in error_of(tmp_path, **keys)


def test_errors_of_keys_without_cells_do_not_hide_those_of_cells(tmp_path: Path) -> None:
    keys = {"question": None, "seeds": "2, 3", "early_stopping": {"after": 1}, "labels": {"axes": {"hed": "Head"}}}
    lines = error_of(tmp_path, **keys, product={"head": ["fcn9s"]}, baseline=None).splitlines()
    starts = (
        "question: missing",
        "seeds: give an integer",
        "early_stopping: give one rule",
        "labels.axes.hed: unknown",
        "head: no head 'fcn9s'",
    )
    assert sorted(line.split(":")[0] for line in lines) == sorted(start.split(":")[0] for start in starts)
    assert all(any(line.startswith(start) for line in lines) for start in starts)


def test_cells_with_different_names_and_equal_content_are_duplicates(tmp_path: Path) -> None:
    # A table would show one experiment in two rows.
    base = {"dataset": "shapes", "recipe": "smoke", "head": "fcn8s", "upsampler": "bilinear"}
    product = {"backbone.timm": ["test_resnet", "test_resnet"]}
    message = error_of(tmp_path, base={**base, "backbone": "tiny-scratch"}, product=product, baseline={})
    assert "are the same" in message
    product = {"upsampler": ["bilinear", "bilinear-per-class"]}
    message = error_of(
        tmp_path,
        base={**{k: v for k, v in base.items() if k != "upsampler"}, "backbone": "tiny-scratch",
              "upsampler.channels": "dense"},
        product=product,
        baseline={"upsampler": "bilinear"},
    )  # fmt: skip
    assert "'bilinear' and 'bilinear-per-class' are the same" in message


FOLDER = {
    "backbone": "tiny-scratch",
    "head": "fcn8s",
    "recipe": "smoke",
    "dataset": "shapes",
    "dataset.type": "folder",
    "dataset.images": "images",
    "dataset.masks": "masks",
    "dataset.classes": ["road", "sky"],
    "dataset.lists": {"train": "train.txt", "val": "val.txt"},
    "dataset.splits": {},
    "dataset.nominal": {"height": 32, "width": 32},
}


@pytest.mark.parametrize(
    ("axis", "values"),
    [
        ("dataset.lists.train", ["few.txt", "more.txt"]),
        ("dataset.images", ["real", "synthetic"]),
        ("dataset.masks", ["clean", "noisy"]),
        ("dataset.image_suffix", ["_day", "_night"]),
        ("dataset.mask_suffix", ["_coarse", "_fine"]),
        ("dataset.unpaired", ["refuse", "skip"]),
        ("init_from", [{"dataset.masks": "clean"}, {"dataset.masks": "noisy"}]),
    ],
)
def test_cells_with_different_files_are_not_duplicates(tmp_path: Path, axis: str, values: list[Any]) -> None:
    base = {key: value for key, value in FOLDER.items() if key != axis}
    found = grid(tmp_path, base=base, product={axis: values}, baseline={axis: values[0]})
    assert len(found.cells) == 2


@pytest.mark.parametrize(
    ("axis", "values"),
    [("dataset.colors", [{}, {"sky": "#0000ff"}]), ("dataset.nominal.height", [32, 64])],
)
def test_cells_with_the_same_files_in_other_colors_are_duplicates(tmp_path: Path, axis: str, values: list[Any]) -> None:
    assert "are the same" in error_of(tmp_path, base=FOLDER, product={axis: values}, baseline={axis: values[0]})


def test_all_errors_of_a_file_are_reported_at_once(tmp_path: Path) -> None:
    untyped = error_of(tmp_path, question=None, sedes=3, product={"haed": ["fcn8s"], "recipe.epoch": [1]})
    assert len(untyped.splitlines()) == 4
    lines = error_of(
        tmp_path,
        product={"head": ["fcn8s", "fcn_16s"], "recipe.epochs": [0, 5], "dataset": ["shapes"]},
        exclude=[{"head": "fcn32s"}],
        baseline={"head": "fcn64s"},
        seeds=[1, 1],
        early_stopping={"after": 9, "margin": 5},
    ).splitlines()
    expected = [
        "dataset: is in base and in product",
        "seeds: a seed appears twice",
        "exclude: head: no cell has fcn32s",
        "head: no head 'fcn_16s'",
        "epochs: input should be greater",
        "early_stopping: after: 9",
        "baseline: head: no cell has fcn64s",
    ]
    assert [sum(part in line for line in lines) for part in expected] == [1] * len(expected) == [1] * len(lines)


def test_the_best_checkpoint_needs_a_test_split(tmp_path: Path) -> None:
    # A checkpoint selected on the reported images would bias the metrics.
    assert "'best' is selected on val, and dataset voc2012 has no test split" in error_of(
        tmp_path, base={**BASE, "dataset": "voc2012"}, checkpoint="best"
    )
    assert grid(tmp_path, checkpoint="best").file.checkpoint == "best"
    assert grid(tmp_path, base={**BASE, "dataset": "voc2012"}).file.checkpoint == "last"


@pytest.mark.parametrize(("head", "lacks"), [("fcn8s", 8), ("fcn16s", 16), ("fcn32s", 32)])
def test_a_missing_stride_of_a_backbone_is_an_error_with_its_strides(tmp_path: Path, head: str, lacks: int) -> None:
    has = [r for r in (2, 4, 8, 16, 32) if r != lacks]
    message = error_of(
        tmp_path, base={**BASE, "backbone.reductions": has}, product={"head": [head]}, baseline={"head": head}
    )
    assert f"head {head} needs stride {lacks}, which backbone tiny-scratch lacks" in message
    assert ", ".join(map(str, has)) in message


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_grid_of_the_repository_loads(path: Path) -> None:
    found = load(path, builtin())
    assert found.name == path.stem
    assert len(found.cells) > 1 and found.baseline in found.cells


def test_baseline_and_exclude_match_values_that_are_lists(tmp_path: Path) -> None:
    found = grid(
        tmp_path,
        product={"head": ["fcn32s", "fcn8s"], "recipe.scale": [[0.5, 2.0], [1.0, 1.0]]},
        baseline={"head": "fcn32s", "recipe.scale": [0.5, 2.0]},
        exclude=[{"head": "fcn8s", "recipe.scale": [1.0, 1.0]}],
    )
    assert found.baseline.recipe.scale == (0.5, 2.0)
    assert len(found.cells) == 3


def test_the_label_of_a_cell_has_the_values_of_the_file(tmp_path: Path) -> None:
    found = grid(
        tmp_path,
        product={"head": ["fcn32s"], "upsampler.learned": [True, False]},
        baseline={"upsampler.learned": True},
    )
    assert [cell.label for cell in found.cells] == ["fcn32s, true", "fcn32s, false"]


@pytest.mark.parametrize(
    ("axis", "new"),
    [
        ("start", "init_from"),
        *((f"recipe.{old}", f"recipe.{new}") for old, new in Recipe.renamed.items()),
        *((f"upsampler.{old}", f"upsampler.{new}") for old, new in TransposedUpsampler.renamed.items()),
        *((f"{kind}.about", f"{kind}.description") for kind in ("backbone", "head", "dataset")),
        ("upsampler.stages.image", "upsampler.stage_init"),
    ],
)
@pytest.mark.parametrize("key", ["base", "product", "baseline", "cells"])
def test_an_old_axis_is_one_error_with_the_new_axis(tmp_path: Path, key: str, axis: str, new: str) -> None:
    value: Any = ["random"] if key == "product" else "random"
    section: Any = [{axis: value}] if key == "cells" else {axis: value}
    (line,) = error_of(tmp_path, **{key: section}).splitlines()
    assert line.endswith(f": renamed to {new}")
