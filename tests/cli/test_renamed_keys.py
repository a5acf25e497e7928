"""Old keys: the command line exits with 2 and one error line with the new key."""

from __future__ import annotations

from pathlib import Path

import pytest

from fcnlab.config.grid.grid import GridFile
from fcnlab.config.recipe import Recipe
from fcnlab.config.upsampler import TransposedUpsampler
from tests.cli.conftest import Call, CommandResult
from tests.conftest import SMOKE, write_grid

RECIPE = "batch_size: 4, epochs: 1, crop: {height: 64, width: 64}, optimizer: {name: sgd, lr: 1}"


def check(result: CommandResult, old: str, new: str) -> None:
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("fcnlab: error: ") and result.err.endswith(f"{old}: renamed to {new}\n")
    assert result.err.count("\n") == 1


@pytest.mark.parametrize(("old", "new"), GridFile.renamed.items())
def test_renamed_key_of_a_grid_file(fcnlab: Call, tmp_path: Path, old: str, new: str) -> None:
    check(fcnlab("grid", "plan", write_grid(tmp_path, f"{SMOKE}{old}: best\n")), old, new)


def test_renamed_key_of_early_stopping(fcnlab: Call, tmp_path: Path) -> None:
    file = write_grid(tmp_path, f"{SMOKE}early_stopping: {{after: 1, below: best - 5}}\n")
    check(fcnlab("grid", "plan", file), "early_stopping.below", "early_stopping.margin")


AXES = [
    ("start", "init_from"),
    *((f"recipe.{old}", f"recipe.{new}") for old, new in Recipe.renamed.items()),
    *((f"upsampler.{old}", f"upsampler.{new}") for old, new in TransposedUpsampler.renamed.items()),
]


@pytest.mark.parametrize(("old", "new"), AXES)
def test_renamed_key_of_an_axis(fcnlab: Call, tmp_path: Path, old: str, new: str) -> None:
    check(fcnlab("train", "fcn8s-tiny", "--dataset=shapes", "--recipe=smoke", "--set", f"{old}=1"), old, new)
    file = write_grid(tmp_path, SMOKE.replace("product: {", f"product: {{{old}: [1], "))
    check(fcnlab("grid", "plan", file), f"product.{old}", new)


@pytest.mark.parametrize(("old", "new"), Recipe.renamed.items())
def test_renamed_key_of_a_recipe_in_the_registry(fcnlab: Call, tmp_path: Path, old: str, new: str) -> None:
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry" / "recipes.yaml").write_text(f"mine: {{{RECIPE.replace('batch_size: 4, ', '')}, {old}: 4}}")
    if new != "batch_size":
        (tmp_path / "registry" / "recipes.yaml").write_text(f"mine: {{{RECIPE}, {old}: 4}}")
    check(fcnlab("registry", "list", "--lab", tmp_path), old, new)
