from __future__ import annotations

import math
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from fcnlab.report.best import add_best, find_best
from fcnlab.report.dataset_groups import DatasetGroup
from fcnlab.report.frame import cells_frame as bare_cells_frame
from fcnlab.report.significance import Significance, add_differences
from fcnlab.report.tables.cells import make_cell_table
from fcnlab.report.tables.formats import to_markdown, to_terminal
from fcnlab.report.trial_records import TrialRecords
from fcnlab.tracking.names import ACCURACIES
from tests.report.finished_grid import plain_latex, raw_names


def trials(**values_by_cell: list[float]) -> pd.DataFrame:
    """Return a row for each seed of each cell; nan is a failed trial."""
    rows = [
        {
            "cell": cell,
            "head": cell,
            "seed": seed,
            "status": "failed" if math.isnan(value) else "finished",
            "miou": value,
            "test_miou": value,
            "test_miou_best": value,
            "report_split": "test",
            "pruned_after": math.nan,
            "peak_memory": math.nan,
            "device_hours": 0.01,
            **dict.fromkeys(ACCURACIES[1:], value / 2),
            "params": 1e6,
            "gmacs": 2.0,
            "train_seconds": 30.0,
            "images_per_s": 5.0,
        }
        for cell, values in values_by_cell.items()
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def cells_frame(frame: pd.DataFrame, axes: list[str], baseline: str) -> pd.DataFrame:
    """Cells without counts, so without intervals."""
    cells = tuple(frame["cell"].unique())
    group = DatasetGroup("shapes", baseline, cells, "", frozenset(), ())
    significance = Significance({}, {}, 0)
    frame = add_differences(bare_cells_frame(frame, axes, dict.fromkeys(cells, baseline)), significance)
    return add_best(frame, find_best(frame, TrialRecords({}, {}, "last"), [group], significance))


def test_a_cell_is_its_mean_and_sample_deviation_over_finished_seeds() -> None:
    cells = cells_frame(trials(a=[0.2, 0.4], b=[0.5, math.nan]), ["head"], "a")
    assert cells["miou"][0] == pytest.approx(0.3)
    assert cells["miou_std"][0] == pytest.approx(math.sqrt(0.02))
    assert (cells["n"][1], cells["planned"][1], cells["failed"][1]) == (1, 2, 1)
    assert math.isnan(cells["miou_std"][1]), "one seed has no spread"


def test_differences_are_paired_by_seed_over_the_common_seeds() -> None:
    cells = cells_frame(trials(a=[0.1, 0.5, 0.9], b=[0.2, math.nan, 0.8]), ["head"], "a")
    assert cells["delta_n"][1] == 2
    assert cells["delta"][1] == pytest.approx((0.1 - 0.1) / 2)
    assert cells["delta_std"][1] == pytest.approx(np.std([0.1, -0.1], ddof=1))


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.floats(-0.5, 0.5))
def test_a_constant_difference_is_exact_for_any_seeds(values: list[float], shift: float) -> None:
    cells = cells_frame(trials(a=values, b=[value + shift for value in values]), ["head"], "a")
    assert cells["delta"][1] == pytest.approx(shift, abs=1e-9)
    assert cells["delta_std"][1] == pytest.approx(0, abs=1e-9)


def test_an_incomplete_cell_is_visible_in_the_table() -> None:
    cells = cells_frame(trials(a=[0.2, 0.4], b=[math.nan, math.nan]), ["head"], "a")
    table = make_cell_table(cells, raw_names(cells, ["head"]))
    assert table.rows[0][1:4] == ("2", "30.0 ± 14.1", "baseline")
    assert table.rows[1][1:4] == ("0 of 2, 2 failed", "–", "–")


def test_costs_and_p_values_above_zero_are_not_shown_as_zero() -> None:
    cells = cells_frame(trials(a=[0.2, 0.4], b=[math.nan, math.nan]), ["head"], "a")
    cells = cells.assign(device_hours=cells["device_hours"] / 10, p_value=[1e-9, 0.0])
    table = make_cell_table(cells, raw_names(cells, ["head"]), columns=("device_hours", "p_value"))
    assert table.rows == (("a", "<0.01", "<0.0001"), ("b", "–", "0.0000")), "b has no finished trial"


def test_one_seed_has_no_standard_deviation() -> None:
    cells = cells_frame(trials(a=[0.2], b=[0.25]), ["head"], "a")
    table = make_cell_table(cells, raw_names(cells, ["head"]))
    assert table.rows[1][2:4] == ("25.0", "+5.0")


def test_without_a_finished_baseline_there_are_no_differences() -> None:
    cells = cells_frame(trials(a=[math.nan], b=[0.25]), ["head"], "a")
    table = make_cell_table(cells, raw_names(cells, ["head"]))
    assert table.rows[1][3] == "–"


def test_markdown_has_as_many_fields_in_each_row_and_escapes_bars() -> None:
    cells = cells_frame(trials(**{"a|b": [0.2], "c": [0.3]}), ["head"], "c")
    lines = to_markdown(make_cell_table(cells, raw_names(cells, ["head"]))).splitlines()
    fields = {len(re.findall(r"(?<!\\)\|", line)) for line in lines}
    assert len(fields) == 1
    assert "a\\|b" in lines[2]
    assert lines[3].startswith("| c | 1 | **30.0** | baseline |")


def test_latex_escapes_special_characters() -> None:
    cells = cells_frame(trials(**{"a_b & 50% #1 {x} ~^\\": [0.2]}), ["head"], "a_b & 50% #1 {x} ~^\\")
    latex = plain_latex(make_cell_table(cells, raw_names(cells, ["head"])), "Is it 50% better?")
    row = next(line for line in latex.splitlines() if line.startswith("a"))
    escaped = r"a\_b \& 50\% \#1 \{x\} \textasciitilde{}\textasciicircum{}\textbackslash{} &"
    assert row.startswith(escaped)
    assert r"\caption{Is it 50\% better?}" in latex
    assert "±" not in latex


def test_latex_keeps_names_of_every_script_and_lists_their_characters() -> None:
    cells = cells_frame(trials(**{"快速": [0.2], "標準 αβ": [0.3], "größer": [0.4]}), ["head"], "快速")
    latex = plain_latex(make_cell_table(cells, raw_names(cells, ["head"])), "Δ to 快速")
    names = {line.partition(" &")[0] for line in latex.splitlines()}
    assert {"快速", "標準 αβ", "größer"} <= names
    assert "?" not in latex
    (listed,) = (line for line in latex.splitlines() if line.startswith("% compile with LuaLaTeX or XeLaTeX"))
    assert set(listed.partition(": ")[2]) == set("快速標準αβ")
    one = cells_frame(trials(a=[0.2]), ["head"], "a")
    assert "LuaLaTeX" not in plain_latex(make_cell_table(one, raw_names(one, ["head"])), "ü ± Δ")


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_a_narrow_terminal_breaks_no_number_and_lists_the_omitted_columns(width: int) -> None:
    cells = cells_frame(trials(a=[0.2, 0.4], b=[0.3, 0.4]), ["head"], "a")
    table = make_cell_table(cells, raw_names(cells, ["head"]))
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(to_terminal(table, "Question?", width))
    console.file.close()
    text = " ".join(console.export_text().split())
    assert "30.0 ± 14.1" in text
    words = set(re.split(r"[\s/,-]+", text))
    for heading in table.headings:
        assert set(re.split(r"[\s/-]+", heading)) <= words, heading
