from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from fcnlab.config.grid.file import EarlyStopping
from fcnlab.lab import Lab
from fcnlab.runner.pruning import Curve, prune, prune_grid, read_curve
from fcnlab.trial.record import Plateau
from fcnlab.trial.run_folder import RunFolder
from tests.builders import build_plan, build_trial, epoch_records, finished_record

COARSE_TO_FINE = ("fcn32s", "fcn16s", "fcn8s")
CELLS = ["a", "b", "c", "d", "e"]
curves = st.fixed_dictionaries(
    {cell: st.lists(st.lists(st.floats(0, 1), min_size=6, max_size=6), min_size=1, max_size=3) for cell in CELLS}
)


def of(curves: Mapping[str, Sequence[Sequence[float | None]]], failed: Collection[str] = ()) -> dict[str, list[Curve]]:
    """Return curves by cell; the last trial of the `failed` cells has failed."""
    found = {cell: [Curve(miou) for miou in trials] for cell, trials in curves.items()}
    for cell in failed:
        found[cell][-1] = replace(found[cell][-1], has_failed=True)
    return found


stops = st.one_of(
    st.builds(lambda points: EarlyStopping(after=3, margin=points), st.integers(0, 50)),
    st.builds(lambda keep: EarlyStopping(after=[1, 2, 4], keep=keep), st.floats(0.05, 0.95)),
)


def test_cells_far_below_the_best_are_pruned_and_the_baseline_is_not() -> None:
    rule = EarlyStopping(after=2, margin=5)
    curves = of({"base": [[0.1, 0.1]], "best": [[0.1, 0.50]], "near": [[0.1, 0.46]], "far": [[0.1, 0.44]]})
    assert prune(rule, curves, "base").pruned == {"far": 2}
    assert prune(rule, curves, "base").pause_after is None


def test_a_decision_waits_until_every_trial_has_reached_the_epoch() -> None:
    rule = EarlyStopping(after=[1, 2], keep=0.5)
    curves = of({"base": [[0.3], [0.3]], "x": [[0.1], []], "y": [[0.2], [0.2]]})
    assert prune(rule, curves, "base").pause_after == 1
    curves["x"][1] = Curve([0.1])
    after = prune(rule, curves, "base")
    assert after.pruned == {"x": 1}
    assert after.pause_after == 2


def test_a_trial_that_has_failed_before_the_epoch_is_ignored() -> None:
    rule = EarlyStopping(after=1, keep=0.5)
    curves = {"base": [[0.55]], "lucky": [[0.9], [0.1]], "even": [[0.6], []]}
    assert prune(rule, of(curves), "base").pause_after == 1
    assert prune(rule, of(curves, failed=["even"]), "base").pruned == {"lucky": 1}


def test_halving_keeps_the_better_half_at_each_epoch() -> None:
    rule = EarlyStopping(after=[1, 2, 3], keep=0.5)
    curves = of({str(rank): [[rank / 10, rank / 10, rank / 10]] for rank in range(8)})
    assert prune(rule, curves, "7").pruned == {"0": 1, "1": 1, "2": 1, "3": 1, "4": 2, "5": 2, "6": 3}


TWO_DATASETS = """
question: Which head is best on each dataset?
base: {backbone: tiny-scratch, recipe: quick, recipe.validate_every: 2}
product: {dataset: [shapes, shapes-mini], head: [fcn32s, fcn16s, fcn8s]}
baseline: {dataset: shapes-mini, head: fcn16s}
early_stopping: {after: 2, margin: 10}
"""


def test_cells_are_compared_within_their_dataset_only(tmp_path: Path) -> None:
    grid = build_plan(tmp_path, TWO_DATASETS).grid
    miou = {"shapes": {"fcn32s": 0.3, "fcn16s": 0.1, "fcn8s": 0.15}, "shapes-mini": dict.fromkeys(COARSE_TO_FINE, 0.9)}
    curves = {cell.label: [[0.0, miou[cell.names["dataset"]][cell.names["head"]]]] for cell in grid.cells}
    decisions = prune_grid(grid, of(curves))
    assert {dataset: dict(one.pruned) for dataset, one in decisions.items()} == {
        "shapes-mini": {},
        "shapes": {"shapes, fcn8s": 2},  # fcn16s is the counterpart of the baseline
    }


def test_decisions_on_a_dataset_do_not_wait_for_another_one(tmp_path: Path) -> None:
    grid = build_plan(tmp_path, TWO_DATASETS).grid
    curves = {cell.label: [[0.1, 0.1] if cell.names["dataset"] == "shapes" else []] for cell in grid.cells}
    assert {dataset: one.pause_after for dataset, one in prune_grid(grid, of(curves)).items()} == {
        "shapes-mini": 2,
        "shapes": None,
    }


def test_a_trial_that_stopped_on_a_plateau_keeps_its_last_miou_for_later_comparisons(lab: Lab) -> None:
    record = finished_record(build_trial(epochs=4))
    plateau = Plateau(epoch=2, best_epoch=1, validations=1, min_delta=0.0)
    record = record.model_copy(update={"epochs": tuple(epoch_records(2, miou=0.3)), "plateau": plateau})
    curve = read_curve(RunFolder(lab.runs, record.key), record)
    assert curve == Curve([0.3] * 4)
    rule = EarlyStopping(after=3, keep=0.5)
    others = of({"base": [[0.1, 0.1, 0.5]], "y": [[0.1, 0.1, 0.4]]})
    assert prune(rule, others | {"x": [curve]}, "base").pruned == {"x": 3}


@given(stops, curves, st.sampled_from(CELLS), st.sets(st.sampled_from(CELLS)), st.randoms(use_true_random=False))
def test_decisions_do_not_depend_on_the_order_of_cells_or_later_epochs_or_later_failures(
    rule: EarlyStopping,
    curves: dict[str, list[list[float]]],
    baseline: str,
    failed: set[str],
    chance: random.Random,
) -> None:
    final = prune(rule, of(curves), baseline)
    assert final.pause_after is None and baseline not in final.pruned
    assert len(final.pruned) < len(curves)
    for epochs in range(7):  # what is decided early is decided for good
        so_far = {cell: [miou[:epochs] for miou in trials] for cell, trials in curves.items()}
        early = prune(rule, of(so_far), baseline)
        assert early.pruned.items() <= final.pruned.items()
        assert early.pause_after is None or early.pause_after > epochs
        assert early.pruned.items() <= prune(rule, of(so_far, failed), baseline).pruned.items()
    metrics = {value for trials in curves.values() for miou in trials for value in miou}
    if len(metrics) == sum(len(trials) for trials in curves.values()) * 6:  # no ties
        shuffled = list(curves.items())
        chance.shuffle(shuffled)
        assert prune(rule, of(dict(shuffled)), baseline) == final
