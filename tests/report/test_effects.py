"""Effects of the axes of a grid in its report: frame, table, files and page."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pandas as pd
import pytest

import fcnlab
from fcnlab.lab import Lab
from fcnlab.report.report import Report, make_report
from fcnlab.report.tables.effects import describe_effects, make_effects_table
from fcnlab.report.write import write_report
from fcnlab.runner.plan import make_plan
from tests.conftest import SMOKE, write_grid
from tests.report.finished_grid import finish, finished_lab

TWO_AXES = (
    SMOKE.replace("head: [fcn32s, fcn8s]", "head: [fcn32s, fcn16s, fcn8s], upsampler: [bilinear, random]")
    .replace("upsampler: bilinear, ", "")
    .replace("{head: fcn32s}", "{head: fcn32s, upsampler: bilinear}")
    .replace("seeds: 2", "seeds: 3")
)
RIGHT = dict(
    zip(product(("fcn32s", "fcn16s", "fcn8s"), ("bilinear", "random")), (0.7, 0.68, 0.72, 0.69, 0.8, 0.7), strict=True)
)


def report_of(root: Path, text: str = TWO_AXES, left_out: tuple[tuple[str, str, int], ...] = ()) -> tuple[Report, Lab]:
    path = write_grid(root, text)
    lab = Lab.find(path)
    grid = lab.load_grid(path)
    for planned in make_plan(grid, lab).trials:
        names = (planned.trial.names["head"], planned.trial.names["upsampler"])
        if (*names, planned.trial.seed) not in left_out:
            finish(planned, RIGHT[names])
    return make_report(make_plan(grid, lab), lab, None), lab


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Lab]:
    return report_of(tmp_path_factory.mktemp("effects"))


def differences(report: Report, axis: str, value: str, reference: str) -> pd.DataFrame:
    """Return the difference for each value of the other axis (rows) and each seed (columns)."""
    other = next(name for name in report.grid.axes if name != axis)
    miou = report.trials.pivot_table(index=other, columns=[axis, "seed"], values="miou", sort=False)
    return pd.DataFrame(miou[value]) - pd.DataFrame(miou[reference])


def test_an_effect_is_the_mean_difference_of_the_cells_that_differ_in_one_axis(made: tuple[Report, Lab]) -> None:
    report, _ = made
    frame = report.effects
    assert list(zip(frame["axis"], frame["value"], frame["reference"], frame["pairs"], strict=True)) == [
        ("head", "fcn16s", "fcn32s", 2),
        ("head", "fcn8s", "fcn32s", 2),
        ("upsampler", "random", "bilinear", 3),
    ]
    for row in frame.itertuples():
        expected = differences(report, str(row.axis), str(row.value), str(row.reference))
        assert row.delta == pytest.approx(expected.to_numpy().mean())
        by_pair = expected.mean(axis=1)
        assert (row.delta_min, row.delta_max) == pytest.approx((by_pair.min(), by_pair.max()))
        assert row.delta_low < row.delta < row.delta_high and row.n == 3
        assert row.p_holm >= row.p_value and row.significant == (row.p_holm < 0.05)


def test_the_api_returns_the_frame(made: tuple[Report, Lab]) -> None:
    report, lab = made
    pd.testing.assert_frame_equal(fcnlab.effects(report.grid, lab=lab), report.effects)


def test_the_table_states_pairs_interval_range_and_significance(made: tuple[Report, Lab]) -> None:
    report, _ = made
    table = make_effects_table(report.axis_effects, report.names)
    assert table.headings == ("axis", "value", "compared with", "pairs", "n", "Δ mIoU [95 %]", "range of Δ")
    row = report.effects.iloc[2]
    low, high, least, most = (100 * row[name] for name in ("delta_low", "delta_high", "delta_min", "delta_max"))
    assert row["significant"]
    assert table.rows[2] == (
        "upsampler", "random", "bilinear", "3", "3",
        f"{100 * row['delta']:+.1f} [{low:+.1f}, {high:+.1f}]*", f"{least:+.1f} to {most:+.1f}",
    )  # fmt: skip
    assert table.group_starts == (2,)
    assert any("Holm's correction over 3 effects" in line for line in describe_effects(report.axis_effects))


def test_seeds_that_a_cell_lacks_do_not_count_and_too_few_make_no_claim(tmp_path: Path) -> None:
    report, _ = report_of(tmp_path, left_out=(("fcn8s", "random", 0),))
    frame = report.effects.set_index("value")
    assert list(frame["n"]) == [3, 2, 2] and list(frame["pairs"]) == [2, 2, 3]
    assert frame["significant"].isna().tolist() == [False, True, True]
    assert make_effects_table(report.axis_effects, report.names).rows[1][5].endswith("]°")
    notes = describe_effects(report.axis_effects)
    assert any("over 1 effect." in line for line in notes) and any("no claim" in line for line in notes)


def test_pairs_without_a_finished_cell_are_left_out(tmp_path: Path) -> None:
    left_out = tuple(("fcn16s", "random", seed) for seed in range(3))
    report, _ = report_of(tmp_path, left_out=left_out)
    assert list(zip(report.effects["value"], report.effects["pairs"], strict=True)) == [("fcn8s", 2), ("random", 2)]


def test_files_and_page_have_the_effects(made: tuple[Report, Lab]) -> None:
    report, lab = made
    write_report(report, lab, predict=False)
    readme = (report.folder / "README.md").read_text()
    assert "## Effects of the axes" in readme and "| upsampler | random | bilinear | 3 | 3 |" in readme
    written = pd.read_csv(report.folder / "effects.csv")
    assert list(written["delta"]) == pytest.approx(list(report.effects["delta"]))
    latex = (report.folder / "effects.tex").read_text()
    assert "\\label{tab:question-effects}" in latex and "upsampler & random & bilinear" in latex
    page = (report.folder / "report.html").read_text()
    assert "<h2>Effects of the axes</h2>" in page and 'download="effects.csv"' in page


def test_a_grid_with_one_axis_has_no_effects(tmp_path: Path) -> None:
    grid, lab = finished_lab(tmp_path)
    report = make_report(make_plan(grid, lab), lab, None)
    report.folder.mkdir(parents=True)
    (report.folder / "effects.csv").write_text("of an earlier form of the grid")
    assert report.axis_effects == [] and report.effects.empty
    write_report(report, lab, predict=False)
    assert not list(report.folder.glob("effects.*")) and "Effects" not in (report.folder / "README.md").read_text()
