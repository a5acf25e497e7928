"""Comparability of cells: flagged differences, and differences that the grid varies by an axis."""

from __future__ import annotations

import pytest

from fcnlab.config.trial import NUMERICS, compute_key
from fcnlab.trial.comparability import check_comparability, find_numerics
from fcnlab.trial.record import Plateau, Record
from tests.builders import build_trial, finished_record


def cells(other: list[Record]) -> dict[str, list[Record]]:
    return {"base": [finished_record(build_trial(seed=seed)) for seed in (0, 1)], "other": other}


def test_comparable_cells_have_no_flag() -> None:
    assert check_comparability(cells([finished_record(build_trial({"head": "fcn32s"}))]), "base", ["head"]) == {}


@pytest.mark.parametrize(
    ("other", "name", "message"),
    [
        (
            finished_record(build_trial(data="sha256:" + 64 * "b")),
            "data",
            "sha256:bbbbbbbbbbbb; the baseline has sha256:aaaa",
        ),
        (
            finished_record(build_trial({"recipe.score_scale": 0.5})),
            "protocol",
            "split test at scale 0.5; the baseline has",
        ),
        (finished_record(build_trial({"recipe.epochs": 9})), "epochs", "epochs: 9; the baseline has 2"),
        (
            finished_record(build_trial()).model_copy(
                update={"plateau": Plateau(epoch=1, best_epoch=1, validations=0, min_delta=0)}
            ),
            "epochs",
            "epochs: 1 of 2; the baseline has 2",
        ),
        (finished_record(build_trial(), precision="bf16"), "precision", "bf16; the baseline has fp32"),
        (finished_record(build_trial(), kind="cuda"), "hardware", "GPU; the baseline has CPU"),
        (finished_record(build_trial(), kind="cuda", devices=2), "hardware", "2 x GPU; the baseline has CPU"),
        (
            finished_record(build_trial()).model_copy(update={"micro_batches": 4}),
            "micro-batches",
            "1 of 1 trials; 4 per batch, so batch norms in training mode, if the network has any, saw smaller",
        ),
        (  # the mode of the recipe is that of the backbone; this head has batch norms of its own
            finished_record(build_trial({"head": "dilated8", "recipe.batch_norm": "frozen"})).model_copy(
                update={"micro_batches": 4}
            ),
            "micro-batches",
            "1 of 1 trials; 4 per batch, so batch norms in training mode, if the network has any, saw smaller",
        ),
        (
            finished_record(build_trial(batch_size=8, grad_accum_steps=2)).model_copy(update={"micro_batches": 4}),
            "micro-batches",
            "1 of 1 trials; 8 per batch, so batch norms",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_a_cell_that_differs_from_the_baseline_is_flagged_with_both_values(
    other: Record, name: str, message: str
) -> None:
    found = check_comparability(cells([other]), "base", ["head"])
    assert [flag.name for flag in found["other"]] == [name] and list(found) == ["other"]
    assert message in found["other"][0].footnote


@pytest.mark.parametrize("axis", ["recipe", "recipe.epochs"])
def test_a_difference_in_an_axis_is_not_flagged(axis: str) -> None:
    assert (
        check_comparability(cells([finished_record(build_trial({"recipe.epochs": 9}))]), "base", ["head", axis]) == {}
    )
    assert (
        check_comparability(cells([finished_record(build_trial({"recipe.epochs": 9}))]), "base", ["recipe.epoch"]) != {}
    )


def test_a_cell_whose_own_trials_differ_is_flagged_also_without_a_baseline() -> None:
    mixed = [finished_record(build_trial()), finished_record(build_trial(seed=1), precision="bf16")]
    (flag,) = check_comparability({"other": mixed}, "base", [])["other"]
    assert flag.footnote == "precision: its trials differ, bf16 and fp32"
    both = check_comparability({"base": mixed, "other": mixed[:1]}, "base", [])
    assert "its trials differ" in both["base"][0].footnote and "; the baseline has" in both["other"][0].footnote


def test_the_numerics_version_follows_from_the_key() -> None:
    record = finished_record(build_trial())
    assert find_numerics(record) == NUMERICS
    other = compute_key({**build_trial().identity(), "numerics": NUMERICS + 1})
    assert find_numerics(record.model_copy(update={"key": other})) is None
    assert find_numerics(record.model_copy(update={"trial": {**record.trial, "recipe": {}}})) is None
