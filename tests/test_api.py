from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

import fcnlab
from fcnlab.api import variant_config
from fcnlab.errors import ConfigError, RunError
from fcnlab.lab import Lab
from fcnlab.runner.plan import make_plan
from tests.conftest import REPOSITORY
from tests.patience import patience
from tests.report.finished_grid import finished_lab


def test_importing_fcnlab_imports_no_heavy_package() -> None:
    code = "import sys, fcnlab; assert not {'numpy', 'pydantic'} & set(sys.modules); "
    code += "[getattr(fcnlab, name) for name in fcnlab.__all__]; "
    code += "assert not {'torch', 'mlflow', 'pandas', 'timm', 'altair', 'rich'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=patience())


ORDERS = (
    "import fcnlab; from fcnlab.report.html import environment",
    "import fcnlab.report.html.environment; import fcnlab",
    "import fcnlab; fcnlab.report; import fcnlab.report; import fcnlab.report.html.environment",
    "from fcnlab import report; from fcnlab.report.html.environment import render",
)
"""Orders in which the function `fcnlab.report` and the subpackage `fcnlab.report` may be imported."""


@pytest.mark.parametrize("order", ORDERS)
def test_report_is_the_function_after_any_import(order: str) -> None:
    code = f"{order}; import fcnlab; from fcnlab import report; assert fcnlab.report is report is fcnlab.api.report"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=patience())


def test_every_exported_name_exists() -> None:
    assert dir(fcnlab) == sorted(fcnlab.__all__)
    assert all(callable(getattr(fcnlab, name)) for name in fcnlab.__all__ if name != "__version__")
    with pytest.raises(AttributeError, match="no attribute 'bild_model'"):
        fcnlab.bild_model  # noqa: B018 - the access is the test


def test_a_named_variant_is_built_and_scores_at_the_images_size(lab: Lab) -> None:
    model = fcnlab.build_model("fcn8s-resnet18", num_classes=21, pretrained=False, lab=lab).eval()
    with torch.inference_mode():
        assert model(torch.zeros(1, 3, 65, 97)).shape == (1, 21, 65, 97)


def test_a_seed_decides_the_weights(lab: Lab) -> None:
    first, same, other = (fcnlab.build_model("fcn8s-tiny", 6, seed=seed, lab=lab).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_a_variant_without_an_upsampler_is_the_one_with_the_default(lab: Lab) -> None:
    assert variant_config("tiny-scratch+fcn8s", lab) == variant_config("fcn8s-tiny", lab)


def test_building_a_model_does_not_change_the_random_state(lab: Lab) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    fcnlab.build_model("fcn8s-tiny", 6, lab=lab)
    assert torch.equal(torch.rand(3), expected)


def test_an_unknown_variant_names_the_nearest(lab: Lab) -> None:
    with pytest.raises(ConfigError, match="did you mean 'fcn8s-resnet18'"):
        fcnlab.build_model("fcn8s-resnet81", 21, lab=lab)


@pytest.mark.parametrize("name", ["model.onnx", "model.pt2"])
def test_loading_a_file_of_another_format_names_the_one_to_export(name: str, lab: Lab, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    with pytest.raises(RunError, match=r"only trials and exported \.safetensors files can be loaded; export --to"):
        fcnlab.load(tmp_path / name, lab=lab)


def test_an_unknown_checkpoint_and_one_of_an_exported_file_are_refused(lab: Lab) -> None:
    with pytest.raises(RunError, match=r"^checkpoint 'first': .*valid: best, last"):
        fcnlab.load("0123", checkpoint="first", lab=lab)
    with pytest.raises(RunError, match=r"model\.safetensors: an exported file has one checkpoint"):
        fcnlab.load("model.safetensors", checkpoint="best", lab=lab)


def test_the_grids_of_the_repository_load() -> None:
    assert len(fcnlab.load_grid(REPOSITORY / "experiments" / "quickstart.yaml")) == 12


def test_a_grid_and_a_lab_can_be_given_by_their_paths(tmp_path: Path) -> None:
    grid, lab = finished_lab(tmp_path / "lab")
    pd.testing.assert_frame_equal(fcnlab.frame(grid.path), fcnlab.frame(grid, lab=lab))
    pd.testing.assert_frame_equal(fcnlab.summary(str(grid.path)), fcnlab.summary(grid))
    moved = shutil.move(grid.path, tmp_path / "elsewhere.yaml")
    assert list(fcnlab.frame(moved, lab=str(lab.root))["status"]) == 9 * ["finished"]
    assert fcnlab.load_grid(moved, lab=lab.root).path == Path(moved)
    key = make_plan(grid, lab).trials[0].key
    assert fcnlab.diff(key, key, lab=str(lab.root)).empty
    with pytest.raises(RunError, match="no such folder"):
        fcnlab.frame(grid, lab=tmp_path / "absent")
