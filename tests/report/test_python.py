"""The functions of `import fcnlab` on a finished grid."""

from __future__ import annotations

import pytest

import fcnlab
from fcnlab.config.grid.grid import Grid
from fcnlab.errors import ConfigError, RunError
from fcnlab.lab import Lab
from fcnlab.runner.plan import make_plan
from tests.records import epochs
from tests.report.finished_grid import CLASSES, IMAGES, finished_lab


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    """Three cells with three seeds."""
    return finished_lab(tmp_path_factory.mktemp("lab"))[0]


def test_curves_have_one_row_per_trial_and_epoch(grid: Grid) -> None:
    curves = fcnlab.curves(grid)
    names = "cell head seed key epoch loss lr images_per_s seconds val_miou val_pixel_acc"
    assert list(curves.columns) == names.split() and len(curves) == 3 * 3 * 2
    assert curves["epoch"].tolist() == [1, 2] * 9 and curves["seed"].tolist() == [0, 0, 1, 1, 2, 2] * 3
    assert curves["cell"].tolist() == ["fcn32s"] * 6 + ["fcn16s"] * 6 + ["fcn8s"] * 6
    assert curves["val_miou"].tolist() == [0.1, 0.2] * 9 and curves["val_pixel_acc"].isna().all()
    assert curves.pivot_table(index="epoch", columns="head", values="loss").loc[2].tolist() == [0.5] * 3


def test_curves_contain_running_trials(grid: Grid) -> None:
    lab = Lab.find(grid.path)
    longer = fcnlab.load_grid(
        grid.file.model_dump(include={"question", "base", "product"}) | {"seeds": [2, 3]}, "longer", lab=lab
    )
    running = [planned for planned in make_plan(longer, lab).trials if planned.trial.seed == 3]
    running[0].folder.create()
    running[0].folder.progress.write_text("".join(epoch.model_dump_json() + "\n" for epoch in epochs(1)))
    curves = fcnlab.curves(longer)
    assert curves[["cell", "seed"]].drop_duplicates().to_numpy().tolist() == [
        ["fcn32s", 2],
        ["fcn32s", 3],
        ["fcn16s", 2],
        ["fcn8s", 2],
    ]
    assert curves[curves["seed"] == 3]["epoch"].tolist() == [1]


def test_compare_returns_the_difference_by_class_and_by_image(grid: Grid) -> None:
    a, b = f"{grid.path}:fcn32s", f"{grid.path}:best"
    found = fcnlab.compare(a, b)
    assert repr(found).startswith(
        "CellComparison(fcn8s scored 12.68 points of mIoU more than fcn32s: 95 % interval +12"
    )
    assert found.difference.value == pytest.approx(0.1268, abs=1e-4) and found.difference.low > 0
    assert list(found.classes["class"]) == list(CLASSES) and (found.classes["low"] < found.classes["delta"]).all()
    assert len(found.images) == IMAGES
    assert found.images["delta"].mean() == pytest.approx((found.images["b"] - found.images["a"]).mean())
    assert all(name in found._repr_html_() for name in CLASSES)


def test_diff_returns_the_fields_in_which_two_trials_differ(grid: Grid) -> None:
    found = fcnlab.diff(f"{grid.path}:fcn32s:0", f"{grid.path}:fcn8s:0").set_index("field")
    assert found.loc["head.stride", ["a", "b", "delta"]].tolist() == [32, 8, -24]
    metrics = found[found["section"] == "metrics"]
    assert len(metrics) and (metrics["delta"] > 0).all()


def test_names_that_do_not_exist_are_errors(grid: Grid) -> None:
    with pytest.raises(ConfigError, match="no cell 'fcn4s'; did you mean"):
        fcnlab.compare(f"{grid.path}:fcn4s", f"{grid.path}:best")
    with pytest.raises(RunError, match="0123456789"):
        fcnlab.diff("0123456789", f"{grid.path}:best", lab=Lab.find(grid.path))


def test_a_report_is_described_in_one_line_and_in_a_notebook(grid: Grid) -> None:
    report = fcnlab.report(grid)
    assert repr(report) == "Report(question: 9 of 9 trials finished, in results/question)"
    page = report._repr_html_()
    assert "Does it run?" in page and "fcn16s" in page and "n = 3" in page and "color" not in page
