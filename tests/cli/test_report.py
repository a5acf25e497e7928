"""`fcnlab report` and `fcnlab compare`, on records without training."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest

from fcnlab.config.grid.grid import Grid
from fcnlab.runner.plan import make_plan
from tests.cli.conftest import Call
from tests.conftest import write_grid
from tests.report.finished_grid import RIGHT, THREE, finish, finished_lab


@pytest.fixture
def grid(tmp_path: Path) -> Grid:
    return finished_lab(tmp_path)[0]


def test_data_is_printed_to_standard_output_and_messages_to_standard_error(fcnlab: Call, grid: Grid) -> None:
    output = fcnlab("report", grid.path, "--format", "json", "--columns", "n,miou,delta", "--sort", "-miou")
    assert output.code == 0
    cells = json.loads(output.out)["cells"]
    assert [cell["cell"] for cell in cells] == ["fcn8s", "fcn16s", "fcn32s"]
    assert cells[0]["delta_low"] > 0
    page = grid.path.parent.parent / "results" / "question" / "report.html"
    assert f"report: {page}" in output.err
    assert page.is_file()


def test_charts_are_written_as_pdf_on_request(fcnlab: Call, grid: Grid) -> None:
    assert fcnlab("report", grid.path, "--pdf").code == 0
    folder = grid.path.parent.parent / "results" / "question" / "plots"
    assert (folder / "seeds.pdf").read_bytes().startswith(b"%PDF-")


def test_planning_is_labeled_as_planning(fcnlab: Call, grid: Grid) -> None:
    output = fcnlab("report", grid.path, "--power", "0.5")
    assert (output.code, output.err) == (0, "")
    assert "Planning, not evidence" in output.out
    assert "more for 0.5 points" in output.out


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--columns", "n,moiu"], "--columns: the table has no 'moiu'; did you mean 'miou'?"),
        (["--pivot", "head", "upsampler"], "--pivot: the table has no 'upsampler'; valid: head"),
        (["--decimals", "9"], "--decimals 9: expected a number from 0 to 6"),
        (["--power", "0"], "--power 0: expected points of mIoU above 0 and up to 100, such as 0.5"),
        (["--power", "-1"], "--power -1: expected points of mIoU above 0 and up to 100, such as 0.5"),
        (["--power", "nan"], "--power nan: expected points of mIoU above 0 and up to 100, such as 0.5"),
    ],
)
def test_an_invalid_view_is_a_one_line_error_and_writes_nothing(
    fcnlab: Call, grid: Grid, options: list[str], problem: str
) -> None:
    output = fcnlab("report", grid.path, *options)
    assert (output.code, output.out) == (2, "")
    assert problem in output.err
    assert output.err.count("\n") == 1
    assert not (grid.path.parent.parent / "results").exists()


def test_strict_rejects_cells_that_are_not_comparable(fcnlab: Call, grid: Grid) -> None:
    from fcnlab.lab import Lab

    planned = make_plan(grid, Lab.find(grid.path)).trials[1]
    finish(planned, RIGHT[planned.trial.names["head"]], micro_batches=2)
    output = fcnlab("report", grid.path, "--strict")
    assert output.code == 2
    assert "fcn16s: micro-batches: memory ran out" in output.err


def test_two_cells_are_compared_overall_by_class_and_by_image(fcnlab: Call, grid: Grid) -> None:
    output = fcnlab("compare", f"{grid.path}:fcn32s", f"{grid.path}:fcn8s")
    assert (output.code, output.err) == (0, "")
    assert "fcn8s scored" in output.out and "more than fcn32s" in output.out
    assert all(name in output.out for name in ("background", "disc", "box", "scene_0"))
    wrong = fcnlab("compare", f"{grid.path}:fcn32s", f"{grid.path}:fcn9s")
    assert wrong.code == 2
    assert "no cell 'fcn9s'; the closest cells are 'fcn8s'; " in wrong.err


def test_the_command_line_accepts_classes_with_commas_and_reports_errors_in_one_line(
    fcnlab: Call, tmp_path: Path
) -> None:
    grid, lab = finished_lab(tmp_path / "lab")
    for planned in make_plan(grid, lab).trials:
        finish(planned, RIGHT[planned.trial.names["head"]], classes=("road", "car, parked", "sky"))
    for names, message in {
        "iou:cra": "no class 'cra'; valid: car, parked, road, sky",
        'n,iou:"sky': "no closing quotation in 'n,iou:\"sky'",
    }.items():
        output = fcnlab("report", grid.path, "--columns", names)
        assert (output.code, output.out, output.err.count("\n")) == (2, "", 1) and message in output.err
        assert not lab.results.exists()
    output = fcnlab("report", grid.path, "--columns", 'dice:"car, parked",iou:sky', "--sort", "-iou:car, parked")
    assert output.code == 0
    lines = output.out.splitlines()
    assert "head" in lines[1] and "Dice car, parked" in lines[1] and "sky" in lines[1]
    assert [line.split()[0] for line in lines[2:5]] == ["fcn8s", "fcn16s", "fcn32s"]
    assert "iou:" not in (lab.results / "question" / "table.csv").read_text(encoding="utf-8")


def test_means_over_images_are_printed_with_their_definition_or_the_reason_why_they_are_missing(
    fcnlab: Call, grid: Grid
) -> None:
    output = fcnlab("report", grid.path, "--columns", "image_dice,image_iou:disc", "--sort", "-image_iou:disc")
    assert (output.code, output.err) == (0, "")
    text = " ".join(output.out.split())
    assert "head Dice per image % IoU per image, disc" in text and text.index("fcn8s") < text.index("fcn32s")
    assert "IoU per image of a class: mean over the images that contain it (40 images)" in text
    wrong = fcnlab("report", grid.path, "--columns", "image_dice:dics")
    assert (wrong.code, wrong.out, wrong.err.count("\n")) == (2, "", 1) and "did you mean 'disc'?" in wrong.err

    from fcnlab.lab import Lab

    planned = make_plan(grid, Lab.find(grid.path)).trials[0]
    record = planned.record
    assert record is not None
    planned.folder.counts.unlink()
    planned.folder.finish(record)
    output = fcnlab("report", grid.path, "--columns", "image_dice:disc", "--format", "csv")
    assert output.code == 0 and "fcn32s,fcn32s,,," in output.out
    assert "No metrics per image of fcn32s: counts.npz of 1 trial is missing.\n" in output.err


def test_several_grids_are_one_table_in_csv(fcnlab: Call, grid: Grid) -> None:
    other = write_grid(grid.path.parent.parent, THREE.replace("[fcn32s, fcn16s, fcn8s]", "[fcn32s, fcn8s]"), "other")
    output = fcnlab("report", grid.path, other, "--columns", "n,miou", "--sort", "-miou", "--format", "csv")
    assert output.code == 0
    frame = pd.read_csv(StringIO(output.out))
    assert list(frame.columns[:4]) == ["grid", "cell", "head", "n"] and "miou_std" in frame
    assert list(frame["grid"]) == ["question"] * 3 + ["other"] * 2
    assert list(frame["cell"]) == ["fcn8s", "fcn16s", "fcn32s", "fcn8s", "fcn32s"]


def test_markers_are_explained_below_a_table_in_markdown(fcnlab: Call, grid: Grid) -> None:
    printed = fcnlab("report", grid.path, "--columns", "n,miou,delta", "--format", "markdown").out
    results = grid.path.parent.parent / "results" / "question"
    written = (results / "table.md").read_text(encoding="utf-8")
    for text in (printed, written):
        assert "]\\* |" in text and "\n\\*: significant at 5 %" in text and "\nBold: the highest mean mIoU" in text
    assert "GMACs for one image" in written and "GMACs" not in printed
    assert written in (results / "README.md").read_text(encoding="utf-8")
