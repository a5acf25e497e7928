"""The selection of the lab, and the locations of its data, weights and store."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fcnlab.config.dataset import Dataset, KnownDataset
from fcnlab.config.variant import Backbone
from fcnlab.errors import DataError, ModelError, RunError
from fcnlab.lab import Lab
from fcnlab.settings import cache_folder
from tests.conftest import SMOKE, write_grid


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four folders; the current one is `here`, and `around` has a grid file."""
    for name in ("named", "environment", "around", "here"):
        (tmp_path / name).mkdir()
    write_grid(tmp_path / "around", SMOKE)
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def test_the_lab_is_found_by_option_then_variable_then_grid_file_then_current_folder(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = folders / "around/experiments/question.yaml"
    assert Lab.find().root == folders / "here"
    assert Lab.find(file).root == folders / "around"
    monkeypatch.setenv("FCNLAB_LAB", str(folders / "environment"))
    assert Lab.find(file).root == folders / "environment"
    assert Lab.find(file, root=folders / "named").root == folders / "named"


def test_a_grid_file_outside_experiments_does_not_select_the_lab(folders: Path) -> None:
    assert Lab.find(folders / "around/question.yaml").root == folders / "here"


def test_a_lab_named_relatively_stays_where_it_is_when_the_current_folder_changes(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Lab.find(Path("../around/experiments/question.yaml"), data_root=Path("../named"))
    monkeypatch.chdir("/")
    assert lab.root == folders / "around" and lab.data_root == folders / "named"
    assert lab.runs == folders / "around/runs" and lab.results == folders / "around/results"


def test_a_tilde_is_the_home_folder_also_where_no_shell_replaces_it(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in {"HOME": str(folders), "FCNLAB_LAB": "~/around", "FCNLAB_DATA": "~/named"}.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("FCNLAB_CACHE", "~/environment")
    (folders / "w.pth").touch()
    lab = Lab.find()
    assert (lab.root, lab.data_root, cache_folder()) == tuple(
        folders / name for name in ("around", "named", "environment")
    )
    assert lab.find_weights_file(Backbone(timm="resnet18", weights="~/w.pth")) == folders / "w.pth"


def test_an_empty_variable_is_an_unset_one(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("FCNLAB_LAB", "FCNLAB_DATA", "MLFLOW_TRACKING_URI"):
        monkeypatch.setenv(variable, "")
    lab = Lab.find()
    assert (lab.root, lab.data_root) == (folders / "here", None) and lab.tracking_uri.startswith("sqlite:")


@pytest.mark.parametrize("by", ["option", "environment"])
def test_a_missing_lab_is_an_error_that_names_fcnlab_init(
    folders: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    if by == "environment":
        monkeypatch.setenv("FCNLAB_LAB", str(folders / "gone"))
    with pytest.raises(RunError, match=r"/gone: no such folder; make a lab with `fcnlab init gone`"):
        Lab.find(root=folders / "gone" if by == "option" else None)


def test_the_data_root_is_found_by_option_then_variable(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Lab.find().data_root is None
    monkeypatch.setenv("FCNLAB_DATA", str(folders / "environment"))
    assert Lab.find().data_root == folders / "environment"
    assert Lab.find(data_root=folders / "named").data_root == folders / "named"


def test_the_store_is_found_by_option_then_variable_then_in_the_lab(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Lab.find(root=Path("../named")).tracking_uri == f"sqlite:///{folders / 'named' / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert Lab.find().tracking_uri == "http://127.0.0.1:5000"
    assert Lab.find(tracking_uri="sqlite:///other.db").tracking_uri == "sqlite:///other.db"


def test_a_working_folder_has_the_output_and_the_lab_the_inputs(folders: Path) -> None:
    lab = Lab.find(root=folders / "named", data_root=folders / "here", trackers="mlflow,mine")
    there = lab.with_workdir(folders / "new/there")
    assert {there.runs.parent, there.state.parent, there.results.parent, there.artifacts.parent} == {there.output}
    assert there.output == folders / "new/there" and there.output.is_dir()
    assert there.tracking_uri == f"sqlite:///{folders / 'new/there/mlflow.db'}"
    assert (there.root, there.data_root, there.trackers) == (lab.root, lab.data_root, ("mlflow",))
    assert lab.output == lab.root and not list(lab.root.iterdir())


def test_a_trial_of_the_lab_is_found_from_a_working_folder_unless_it_is_there_too(folders: Path) -> None:
    lab = Lab(folders / "named")
    there = lab.with_workdir(folders / "here")
    assert there.find_runs("key") == lab.find_runs("key") == lab.runs
    (there.runs / "key").mkdir(parents=True)
    assert there.find_runs("key") == there.runs != lab.find_runs("key")


def test_the_lab_itself_and_a_file_are_refused_as_working_folders(folders: Path) -> None:
    lab = Lab(folders / "around")
    with pytest.raises(RunError, match=r"--workdir \.\./around: this is the lab itself; name another folder"):
        lab.with_workdir(Path("../around"))
    with pytest.raises(RunError, match=r"question\.yaml: cannot be created \(File exists\)"):
        lab.with_workdir(folders / "around/experiments/question.yaml")


def backbone(weights: str) -> Backbone:
    return Backbone(timm="resnet18", weights=weights)


def test_a_weights_file_is_looked_up_in_the_lab_and_then_under_the_data_root(folders: Path) -> None:
    lab = Lab.find(data_root=folders / "named")
    (folders / "named/w.pth").write_bytes(b"data")
    assert lab.find_weights_file(backbone("w.pth")) == folders / "named/w.pth"
    (folders / "here/w.pth").write_bytes(b"lab")
    assert lab.find_weights_file(backbone("w.pth")) == folders / "here/w.pth"


def test_a_missing_weights_file_is_an_error_that_names_both_places(folders: Path) -> None:
    with pytest.raises(ModelError) as caught:
        Lab.find(data_root=folders / "named").find_weights_file(backbone("w.pth"))
    assert str(folders / "here/w.pth") in str(caught.value) and str(folders / "named/w.pth") in str(caught.value)


@pytest.mark.parametrize("weights", ["scratch", "timm"])
def test_a_backbone_without_a_file_needs_none(folders: Path, weights: str) -> None:
    assert Lab.find().find_weights_file(backbone(weights)) is None


def file_dataset(folder: str) -> KnownDataset:
    return KnownDataset.model_validate({"type": "camvid", "folder": folder, "nominal": {"height": 6, "width": 8}})


def test_a_dataset_needs_a_data_root_that_holds_its_folder(folders: Path) -> None:
    with pytest.raises(DataError, match=r"no data root is set; pass --data-root or set FCNLAB_DATA .* contains camvid"):
        Lab.find().open_dataset(file_dataset("camvid"))
    with pytest.raises(DataError, match=r"/named/camvid does not exist; --data-root \(or FCNLAB_DATA\)"):
        Lab.find(data_root=folders / "named").open_dataset(file_dataset("camvid"))


def test_the_fingerprint_of_a_weights_file_follows_its_content(folders: Path) -> None:
    cell = Lab.find().load_grid(folders / "around/experiments/question.yaml").cells[0]
    variant = cell.variant.model_copy(update={"backbone": backbone("w.pth")})
    shapes = Lab.find().registry.get("dataset", "shapes-mini")
    assert isinstance(shapes, Dataset)
    seen = set()
    for content in (b"one", b"two", b"one"):
        Path("w.pth").write_bytes(content)
        os.utime("w.pth", ns=(1, 1))
        data, weights, _ = Lab.find().fingerprints(variant, shapes, cell.recipe)
        seen.add((data, weights))
    assert len(seen) == 2


def test_the_registry_of_the_lab_extends_the_built_in_one(folders: Path) -> None:
    (folders / "here/registry").mkdir()
    (folders / "here/registry/heads.yaml").write_text("mine: {type: skip, stride: 16}")
    assert {"mine", "fcn8s"} <= set(Lab.find().registry.names("head"))
    assert "mine" not in Lab.find(root=folders / "named").registry.names("head")
