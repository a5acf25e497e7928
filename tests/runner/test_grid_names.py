"""Names of grids in folders below `experiments/`, and the commands that name their files."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import pytest

from fcnlab.config.grid.name import find_lab_folder, name_grid, path_in_lab
from fcnlab.errors import ConfigError
from fcnlab.lab import Lab
from fcnlab.report.report import make_report
from fcnlab.report.write import create_report, write_report
from fcnlab.runner.commands import train_words
from fcnlab.runner.find import find_grid_file
from fcnlab.runner.grid_state import claim_results, noted_experiments
from fcnlab.runner.plan import count_reported, make_plan
from fcnlab.runner.progress.base import ProgressReporter
from fcnlab.runner.publisher import OptionalTracker
from fcnlab.runner.run import sync_grid
from tests.conftest import SMOKE
from tests.report.finished_grid import finish


def write(lab: Path, name: str, text: str = SMOKE) -> Path:
    (lab / "registry").mkdir(parents=True, exist_ok=True)
    file = lab / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def test_a_grid_is_named_by_its_path_below_experiments(tmp_path: Path) -> None:
    file = write(tmp_path, "experiments/heads (v2)/a.b/quick.yaml")
    assert name_grid(file) == "heads (v2)/a.b/quick"
    assert path_in_lab(file) == "experiments/heads (v2)/a.b/quick.yaml"
    assert Lab.find(file).root == tmp_path.resolve()
    assert name_grid(write(tmp_path, "experiments/quick.yaml")) == "quick"


def test_a_folder_named_experiments_is_of_a_lab_only_beside_a_registry(tmp_path: Path) -> None:
    file = write(tmp_path / "lab", "experiments/elsewhere/quick.yaml")
    (tmp_path / "lab" / "registry").rmdir()
    assert find_lab_folder(file) is None
    assert (name_grid(file), path_in_lab(file)) == ("quick", str(file))
    assert find_lab_folder(file.rename(file.parent.parent / "quick.yaml")) == (tmp_path / "lab").resolve()


def test_grids_of_one_file_name_in_two_folders_have_results_and_experiments_of_their_own(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    files = [write(tmp_path, f"experiments/{name}.yaml") for name in ("heads", "heads/quick", "more (v2)/quick")]
    lab = Lab.find(files[0])
    for file in files:
        grid = lab.load_grid(file)
        for planned in make_plan(grid, lab).trials:
            finish(planned, 0.7)
        assert sync_grid(grid, lab, ProgressReporter()).deferred == {}
        tracker = OptionalTracker(grid, lab)
        create_report(grid, lab, tracker, predict=False)
        assert tracker.error is None
        command = json.loads((lab.results / grid.name / "provenance.json").read_text())["command"]
        assert (lab.root / shlex.split(command)[3]) == file
    (lab.results / "heads" / "plots" / ".seeds.png.0123456789ab").write_text("of a killed report")
    tracker = OptionalTracker(lab.load_grid(files[0]), lab)
    create_report(lab.load_grid(files[0]), lab, tracker, predict=False)
    assert not list(lab.results.glob("heads/**/.*"))
    (lab.results / "heads" / ".table.csv.0123456789ab").write_text("that another driver is writing")
    tracker.call(lambda store: store.log_report(lab.results / "heads", "the report", None))

    names = ["heads", "heads/quick", "more (v2)/quick"]
    assert sorted(noted_experiments(lab)) == names
    assert sorted(count_reported(make_plan(lab.load_grid(files[0]), lab), lab)) == names
    client = MlflowClient(lab.tracking_uri)
    for file, name in zip(files, names, strict=True):
        experiment = client.get_experiment_by_name(f"fcnlab/{name}")
        runs = client.search_runs([experiment.experiment_id], "tags.`fcnlab.role` = 'trial'")
        for run in runs:
            words = shlex.split(run.data.tags["mlflow.source.name"])
            assert words[:3] == ["fcnlab", "grid", "reproduce"]
            assert find_grid_file(words[3]) == file.relative_to(lab.root)
    (grid_run,) = client.search_runs([client.get_experiment_by_name("fcnlab/heads").experiment_id],
                                     "tags.`fcnlab.role` = 'grid'")  # fmt: skip
    uploaded = {item.path for item in client.list_artifacts(grid_run.info.run_id, "report")}
    assert "report/report.html" in uploaded and "report/plots" in uploaded
    assert "report/quick" not in uploaded, "the report of another grid"
    assert not [path for path in uploaded if path.startswith("report/.")]


def test_a_second_file_with_the_name_is_refused_before_it_writes_anything(tmp_path: Path) -> None:
    first, second = write(tmp_path, "experiments/quick.yaml"), write(tmp_path, "experiments/quick.yml")
    lab = Lab.find(first)
    claim_results(lab.load_grid(first), lab)
    grid = lab.load_grid(second)
    with pytest.raises(ConfigError) as refused:
        write_report(make_report(make_plan(grid, lab), lab, None), lab, predict=False)
    assert str(first) in str(refused.value) and str(second) in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not lab.results.exists()
    with pytest.raises(ConfigError, match="rename one of the two files"):
        sync_grid(grid, lab, ProgressReporter())
    first.unlink()
    claim_results(grid, lab)  # the file was renamed: its results are kept


def test_a_grid_can_have_the_name_of_any_file_in_the_state_of_another(tmp_path: Path) -> None:
    names = ["heads", "heads/file", "heads/experiment", "heads/lease.1"]
    files = [write(tmp_path, f"experiments/{name}.yaml") for name in names]
    lab = Lab.find(files[0])
    for _ in range(2):
        for file in files:
            assert sync_grid(lab.load_grid(file), lab, ProgressReporter()).deferred == {}
    assert sorted(noted_experiments(lab)) == sorted(names)
    for file in files:
        with pytest.raises(ConfigError, match="rename one of the two files"):
            claim_results(lab.load_grid(write(tmp_path, str(file.with_suffix(".yml")))), lab)


def test_a_file_can_be_in_a_folder_whose_name_is_not_utf8(tmp_path: Path) -> None:
    file = write(tmp_path, os.fsdecode(b"caf\xe9/quick.yaml"))
    lab = Lab.find(file, root=tmp_path)
    claim_results(lab.load_grid(file), lab)
    claim_results(lab.load_grid(file), lab)  # it is known as the same file
    with pytest.raises(ConfigError, match="rename one of the two files"):
        claim_results(lab.load_grid(write(tmp_path, "other/quick.yaml")), lab)
    grid = lab.load_grid(file)
    finish(make_plan(grid, lab).trials[0], 0.7)
    assert sync_grid(grid, lab, ProgressReporter()).deferred == {}
    tracker = OptionalTracker(grid, lab)
    create_report(grid, lab, tracker, predict=False)
    assert tracker.error is None
    assert r"caf\udce9/quick.yaml" in (lab.results / "quick" / "report.html").read_text(encoding="utf-8")


def test_a_copied_lab_is_not_taken_for_a_second_file(tmp_path: Path) -> None:
    import shutil

    file = write(tmp_path / "lab", "experiments/quick.yaml")
    lab = Lab.find(file)
    claim_results(lab.load_grid(file), lab)
    shutil.copytree(tmp_path / "lab", tmp_path / "copy")
    copy = Lab.find(tmp_path / "copy" / "experiments" / "quick.yaml")
    claim_results(copy.load_grid(copy.root / "experiments" / "quick.yaml"), copy)


def test_the_command_of_a_trial_without_a_file_trains_it(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    text = SMOKE.replace("recipe: smoke", "recipe: smoke, recipe.lr: 0.5")
    words = train_words(lab.load_grid(write(tmp_path, "experiments/quick.yaml", text)).cells[0], 3, lab.registry)
    assert words[:3] == ["fcnlab", "train", "tiny-scratch+fcn32s+bilinear"]
    assert words[-4:] == ["--set", "recipe.optimizer.lr=0.5", "--seed", "3"]
