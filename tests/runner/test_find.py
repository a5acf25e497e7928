from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from fcnlab.cli.grid.cells import create_cells_table
from fcnlab.errors import ConfigError, RunError
from fcnlab.lab import Lab
from fcnlab.runner.find import find_grid_file, find_reference, find_trial
from fcnlab.runner.plan import Plan
from tests.builders import build_plan, epoch_records, finished_record
from tests.conftest import SMOKE
from tests.patience import patience

TEXT = SMOKE.replace("{head: [fcn32s, fcn8s]}", "{head: [fcn32s, fcn8s], recipe.lr: [0.1, 0.01]}").replace(
    "baseline: {head: fcn32s}", "baseline: {head: fcn32s, recipe.lr: 0.1}"
)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return build_plan(tmp_path, TEXT)


def test_find_trial_by_label_part_of_label_and_key(plan: Plan) -> None:
    last = plan.trials[-1]
    assert (last.cell.label, last.trial.seed) == ("fcn8s, 0.01", 1)
    assert find_trial(plan, "fcn8s, 0.01", 1) == last
    assert find_trial(plan, "FCN8S, 0.01", 1) == last
    assert find_trial(plan, last.key[:9]) == last, "a key determines the seed"
    assert find_trial(plan, "fcn8s, 0.1").trial.seed == 0
    assert find_trial(plan, "fcn32s, 0.1").cell.label == "fcn32s, 0.1", "an exact label is preferred to a part"


@pytest.mark.parametrize(
    ("name", "seed", "message"),
    [
        ("fcn8s, 0.001", None, "no cell 'fcn8s, 0.001'; the closest cells are 'fcn8s, 0.01'; 'fcn8s, 0.1'; "),
        ("fcn8s", None, "'fcn8s' matches 2 cells: 'fcn8s, 0.1'; 'fcn8s, 0.01'; give more of the label"),
        ("fcn8s, 0.01", 7, "no seed 7; the seeds are 0, 1"),
    ],
)
def test_find_trial_rejects_unknown_names_and_suggests_the_nearest(
    plan: Plan, name: str, seed: int | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        find_trial(plan, name, seed)


@pytest.mark.parametrize("name", ["..", "../..", "/", "*", "[0-9", ".quarantine", "../runs", "%00", "\x1b[2J", "~"])
def test_names_of_trials_are_no_paths_and_no_patterns(plan: Plan, name: str) -> None:
    lab = Lab.find(plan.grid.path)
    plan.trials[0].folder.create()
    (lab.runs / ".quarantine").mkdir()
    with pytest.raises(RunError, match="no key of a trial begins with") as refused:
        find_reference(name, lab)
    assert str(refused.value).isprintable()


def test_find_record_by_key_and_by_file_cell_and_seed(plan: Plan) -> None:
    path, lab = plan.grid.path, Lab.find(plan.grid.path)
    with pytest.raises(RunError, match="contains no trials"):
        find_reference("abc", lab).read_record()
    for planned in plan.trials[:2]:
        planned.folder.create()
        planned.folder.finish(finished_record(planned.trial))
    one = plan.trials[1]
    assert find_reference(one.key[:10], lab).read_record().key == one.key
    assert find_reference(f"{path}:{one.cell.label}", lab).read_record().key == one.key
    with pytest.raises(RunError, match="this trial has not ended"):
        find_reference(f"{path}:{one.cell.label}:1", lab).read_record()
    with pytest.raises(RunError, match="no key of a trial begins with 'fcn8s'"):
        find_reference("fcn8s", lab).read_record()
    with pytest.raises(RunError, match=rf"is a grid file; add a cell, such as {path}:best"):
        find_reference(str(path), lab)
    twin = one.folder.path.with_name(one.key[:10] + 54 * "0")
    twin.mkdir()
    with pytest.raises(RunError, match="2 keys begin with"):
        find_reference(one.key[:10], lab).read_record()
    assert find_grid_file(one.key, "a/b.yaml:fcn8s:1") == Path("a/b.yaml")
    assert find_grid_file(one.key) is None


def test_best_is_the_cell_with_the_greatest_mean_over_its_finished_seeds(plan: Plan) -> None:
    path, lab = plan.grid.path, Lab.find(plan.grid.path)
    with pytest.raises(RunError, match=r"question\.yaml:best: none of the trials has finished"):
        find_reference(f"{path}:best", lab)
    miou = {("fcn32s, 0.1", 0): 0.9, ("fcn32s, 0.1", 1): 0.1, ("fcn8s, 0.01", 1): 0.6}
    for planned in plan.trials:
        if (planned.cell.label, planned.trial.seed) in miou:
            planned.folder.create()
            planned.folder.finish(finished_record(planned.trial, miou=miou[planned.cell.label, planned.trial.seed]))
    found = find_reference(f"{path}:best", lab)
    assert found.planned is not None
    assert (found.planned.cell.label, found.planned.trial.seed) == ("fcn8s, 0.01", 1), "its first finished seed"
    assert found.seed is None, "a comparison takes all seeds"
    assert found.checkpoint == "last"
    assert found.note == "best of 2 cells: fcn8s, 0.01, 60.0 % mIoU on test, last epoch, mean of 1 finished seed"
    named = find_reference(f"{path}:best:0", lab).planned
    assert named is not None and (named.cell.label, named.trial.seed) == ("fcn8s, 0.01", 0)


def test_best_is_neither_a_pruned_cell_nor_on_another_dataset_than_the_baseline(tmp_path: Path) -> None:
    text = SMOKE.replace("dataset: shapes-mini, ", "").replace("recipe: smoke", "recipe: smoke, recipe.epochs: 3")
    text = text.replace("product: {", "product: {dataset: [shapes, shapes-mini], ")
    text = text.replace("{head: fcn32s}", "{dataset: shapes-mini, head: fcn16s}")
    text = text.replace("[fcn32s,", "[fcn16s, fcn32s,")
    plan = build_plan(tmp_path, text + "early_stopping: {after: 1, margin: 1}\n")
    path, lab = plan.grid.path, Lab.find(plan.grid.path)
    miou = {"fcn16s": 0.3, "fcn32s": 0.9, "fcn8s": 0.2}
    for planned in plan.trials:
        if planned.cell.names["dataset"] == "shapes":
            planned.folder.create()
            planned.folder.finish(finished_record(planned.trial, miou=miou[planned.cell.names["head"]]))
    with pytest.raises(RunError, match="none of the trials on shapes-mini has finished"):
        find_reference(f"{path}:best", lab)
    for planned in plan.trials:
        if planned.cell.names["dataset"] == "shapes-mini":
            record = finished_record(planned.trial, miou=miou[planned.cell.names["head"]])
            if planned.cell.names["head"] == "fcn32s":  # pruned after the first epoch here; finished in another grid
                record = record.model_copy(update={"epochs": tuple(epoch_records(3, miou=0.01))})
            planned.folder.create()
            planned.folder.finish(record)
    found = find_reference(f"{path}:best", lab)
    assert found.planned is not None and found.planned.cell.label == "shapes-mini, fcn16s"
    assert found.note is not None
    assert found.note.startswith("best of 2 cells on shapes-mini: shapes-mini, fcn16s, 30.0 %")


def test_a_label_can_be_written_without_spaces(plan: Plan) -> None:
    lab = Lab.find(plan.grid.path)
    found = find_reference(f"{plan.grid.path}:fcn8s,0.01:1", lab)
    assert found.planned == plan.trials[-1] and found.seed == 1


def test_a_cell_has_its_display_name_in_output_and_can_be_named_by_it(tmp_path: Path) -> None:
    labels = "labels: {values: {head: {fcn32s: FCN 32}}, cells: {fcn8s: fcn32s ours}}\n"
    plan = build_plan(tmp_path, SMOKE + labels)
    assert [one.description for one in plan.trials if one.trial.seed == 0] == ["FCN 32, seed 0", "fcn32s ours, seed 0"]
    for name, label in (("FCN 32", "fcn32s"), ("fcn32", "fcn32s"), ("OURS", "fcn8s"), ("fcn32s", "fcn32s")):
        assert find_trial(plan, name).cell.label == label, "a label precedes a display name that contains it"
    console = Console(width=80)
    with console.capture() as output:
        console.print(create_cells_table(plan, plan.states, 80))
    assert [line.partition("  ")[0] for line in output.get().splitlines()] == ["head", "FCN 32", "fcn8s (fcn32s ours)"]


def test_a_trial_without_a_grid_has_the_cell_of_its_configuration(plan: Plan) -> None:
    planned, lab = plan.trials[-1], Lab.find(plan.grid.path)
    planned.folder.create()
    planned.folder.trial.write_text(planned.trial.model_dump_json())
    found = find_reference(planned.key[:8], lab).as_planned()
    assert (found.trial, found.key, found.folder.path) == (planned.trial, planned.key, planned.folder.path)
    assert found.cell.trials([1], lab.fingerprints)[0].key == planned.key


SCRIPT = """
import sys
from fcnlab import cli, load
from fcnlab.errors import FcnlabError
for words in ("predict NAME image.png", "export NAME --to onnx", "evaluate NAME", "compare NAME NAME", "diff NAME NAME",
              "grid reproduce NAME"):
    for name in (sys.argv[1] + ":nocell", "abcdef0"):
        sys.argv[:] = ["fcnlab", *words.replace("NAME", name).split()]
        try:
            cli.main()
        except SystemExit as ended:
            assert ended.code == 2, words
        try:
            load(name)
        except FcnlabError:
            pass
        sys.argv[1:] = [FILE]
assert not {"torch", "mlflow", "timm"} & set(sys.modules)
"""


def test_a_wrong_name_is_refused_without_importing_torch(plan: Plan) -> None:
    script = SCRIPT.replace("FILE]", f"{str(plan.grid.path)!r}]")
    (plan.grid.path.parent.parent / "image.png").touch()
    done = subprocess.run(
        [sys.executable, "-c", script, str(plan.grid.path)],
        cwd=plan.grid.path.parent.parent,
        capture_output=True,
        text=True,
        timeout=patience(),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("no cell 'nocell'") == 6 and "Traceback" not in done.stderr
