"""An isolated lab has the files that trials read, and none of the records of the original lab."""

from __future__ import annotations

from pathlib import Path

import pytest

from fcnlab.config.grid.cell import Cell
from fcnlab.errors import RunError
from fcnlab.lab import Lab
from fcnlab.runner.isolated_lab import isolated_lab
from tests.builders import build_cell
from tests.conftest import SMOKE, write_grid

MINE = {"backbone": "mine"}
"""Override with the backbone of the lab."""


def cell(lab: Lab, **more: object) -> Cell:
    (lab.root / "registry").mkdir(exist_ok=True)
    (lab.root / "registry/backbones.yaml").write_text("mine: {timm: test_resnet, weights: weights/mine.pth}\n")
    return build_cell(MINE | more, registry=lab.registry)


def test_weights_and_the_trial_of_init_from_are_found_in_the_isolated_lab(lab: Lab, tmp_path: Path) -> None:
    (lab.root / "weights").mkdir()
    (lab.root / "weights/mine.pth").write_bytes(b"weights")
    (lab.runs / ("a" * 64)).mkdir(parents=True)
    (lab.runs / ("b" * 64)).mkdir()
    there = cell(lab, init_from="a" * 64)
    for _ in range(2):  # a second time changes nothing
        made = isolated_lab(lab, there, tmp_path / "again")
    found = made.find_weights_file(there.variant.backbone)
    assert found is not None and found.read_bytes() == b"weights"
    assert [path.name for path in made.runs.iterdir()] == ["a" * 64]
    assert made.tracking_uri == f"sqlite:///{tmp_path / 'again' / 'mlflow.db'}"
    assert made.data_root == lab.data_root


def test_files_of_the_first_trial_of_a_chain_are_found_in_the_isolated_lab(lab: Lab, tmp_path: Path) -> None:
    (lab.root / "weights").mkdir()
    (lab.root / "weights/mine.pth").write_bytes(b"weights")
    chained = cell(lab, backbone="tiny-scratch", init_from={"backbone": "mine"})
    assert chained.variant.backbone.weights_file is None
    isolated_lab(lab, chained, tmp_path / "again")
    assert (tmp_path / "again/weights/mine.pth").read_bytes() == b"weights"


def test_the_lab_itself_and_a_file_are_rejected(lab: Lab, tmp_path: Path) -> None:
    path = write_grid(tmp_path, SMOKE)
    (only,) = lab.load_grid(path).cells[:1]
    with pytest.raises(RunError, match="this is the lab itself"):
        isolated_lab(lab, only, lab.root)
    with pytest.raises(RunError, match="cannot be written"):
        isolated_lab(lab, only, path)


def test_no_link_is_made_outside_of_the_isolated_lab(lab: Lab, tmp_path: Path) -> None:
    (lab.root.parent / "mine.pth").write_bytes(b"weights")
    (lab.root / "registry").mkdir()
    (lab.root / "registry/backbones.yaml").write_text("mine: {timm: test_resnet, weights: ../mine.pth}\n")
    outside = build_cell(MINE, registry=Lab.find(root=lab.root).registry)
    with pytest.raises(RunError, match="outside of the lab"):
        isolated_lab(lab, outside, tmp_path / "deep" / "again")
    assert not (tmp_path / "deep" / "mine.pth").exists()
