from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from fcnlab.config.grid.file import EarlyStopping
from fcnlab.runner.pruning import Curve, standing

CELLS = ["a", "b", "c", "d", "e"]
curves = st.fixed_dictionaries(
    {cell: st.lists(st.lists(st.floats(0, 1), min_size=6, max_size=6), min_size=1, max_size=3) for cell in CELLS}
)
stops = st.one_of(
    st.builds(lambda points: EarlyStopping(after=3, margin=points), st.integers(0, 50)),
    st.builds(lambda keep: EarlyStopping(after=[1, 2, 4], keep=keep), st.floats(0.05, 0.95)),
)


def test_cells_far_below_the_best_are_stopped_and_the_baseline_is_not() -> None:
    said = EarlyStopping(after=2, margin=5)
    curves: dict[str, list[Curve | None]] = {
        "base": [[0.1, 0.1]],
        "best": [[0.1, 0.50]],
        "near": [[0.1, 0.46]],
        "far": [[0.1, 0.44]],
    }
    assert standing(said, curves, "base").stopped == {"far": 2}
    assert standing(said, curves, "base").until is None


def test_nothing_is_decided_before_every_trial_has_come_that_far() -> None:
    said = EarlyStopping(after=[1, 2], keep=0.5)
    curves: dict[str, list[Curve | None]] = {"base": [[0.3], [0.3]], "x": [[0.1], []], "y": [[0.2], [0.2]]}
    assert standing(said, curves, "base").until == 1
    curves["x"][1] = [0.1]
    after = standing(said, curves, "base")
    assert after.stopped == {"x": 1}
    assert after.until == 2


def test_a_cell_is_judged_by_all_of_its_seeds_that_have_not_failed() -> None:
    said = EarlyStopping(after=1, keep=0.5)
    curves: dict[str, list[Curve | None]] = {"base": [[0.55]], "lucky": [[0.9], [0.1]], "even": [[0.6], None]}
    assert standing(said, curves, "base").stopped == {"lucky": 1}


def test_halving_keeps_the_better_part_each_time() -> None:
    said = EarlyStopping(after=[1, 2, 3], keep=0.5)
    curves: dict[str, list[Curve | None]] = {str(rank): [[rank / 10, rank / 10, rank / 10]] for rank in range(8)}
    assert standing(said, curves, "7").stopped == {"0": 1, "1": 1, "2": 1, "3": 1, "4": 2, "5": 2, "6": 3}


@given(stops, curves, st.sampled_from(CELLS), st.randoms(use_true_random=False))
def test_decisions_stand_whatever_the_order_of_cells_and_however_much_is_known_later(
    said: EarlyStopping, curves: dict[str, list[Curve | None]], baseline: str, chance: random.Random
) -> None:
    final = standing(said, curves, baseline)
    assert final.until is None and baseline not in final.stopped
    assert len(final.stopped) < len(curves)
    for epochs in range(7):  # what is decided early is decided for good
        early = standing(
            said, {cell: [c[:epochs] for c in trials if c is not None] for cell, trials in curves.items()}, baseline
        )
        assert early.stopped.items() <= final.stopped.items()
        assert early.until is None or early.until > epochs
    figures = {c[epoch] for trials in curves.values() for c in trials if c for epoch in range(6) for c in [c]}
    if len(figures) == sum(len(trials) for trials in curves.values()) * 6:  # no ties
        shuffled = list(curves.items())
        chance.shuffle(shuffled)
        assert standing(said, dict(shuffled), baseline) == final
