"""The command that reproduces a result."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from fcnlab.lab import Lab
from fcnlab.report.provenance import rerun_command

GRID = """
question: does it matter?
base: {backbone: tiny-scratch, upsampler: bilinear, dataset: DATASET, recipe: standard}
product: {head: [fcn32s]}
seeds: 1
baseline: {head: fcn32s}
"""


@pytest.mark.parametrize(
    ("images", "masks", "root"),
    [("mine/i", "mine/m", True), ("/data/i", "mine/m", True), ("/data/i", "/data/m", False), ("~/i", "~/m", False)],
)
def test_folders_that_are_not_absolute_need_a_data_root(tmp_path: Path, images: str, masks: str, root: bool) -> None:
    entry = {
        "description": "mine", "type": "folder", "images": images, "masks": masks, "classes": ["a", "b"],
        "fractions": {"val": 0.2}, "nominal": {"height": 8, "width": 8},
    }  # fmt: skip
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry/datasets.yaml").write_text(yaml.safe_dump({"mine": entry}))
    assert ("--data-root DIR" in command_of(tmp_path, "mine")) == root


@pytest.mark.parametrize(("dataset", "root"), [("camvid", True), ("shapes-mini", False)])
def test_known_layouts_need_a_data_root_and_generated_data_none(tmp_path: Path, dataset: str, root: bool) -> None:
    assert ("--data-root DIR" in command_of(tmp_path, dataset)) == root


def command_of(lab: Path, dataset: str) -> str:
    file = lab / "experiments/q.yaml"
    file.parent.mkdir()
    file.write_text(GRID.replace("DATASET", dataset))
    return rerun_command(Lab.find(file).load_grid(file))
