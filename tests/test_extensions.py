"""Extensions of a lab and of packages: the complete example of docs/extending.md, permission, errors and keys."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import fcnlab
from fcnlab import cli
from fcnlab.cli import app
from fcnlab.config.trial import Trial
from fcnlab.data.datasets.base import Sample
from fcnlab.doctor import check_installation
from fcnlab.errors import ConfigError, DataError, FcnlabError, StopRunError
from fcnlab.extensions import Extensions, fcnlab_command
from fcnlab.lab import Lab
from fcnlab.report.provenance import rerun_command
from fcnlab.runner.checks.trials import check_trials
from fcnlab.runner.executors.base import Executor
from fcnlab.runner.executors.create import check_executor
from fcnlab.runner.executors.ray.slot import needed
from fcnlab.runner.plan import make_plan
from fcnlab.runner.publisher import open_tracker
from fcnlab.settings import RunOptions
from fcnlab.training.loss_term import create_loss_term
from fcnlab.training.losses import Loss
from fcnlab.training.protocol import Protocol
from fcnlab.trial.build import build_training
from fcnlab.trial.evaluation.evaluate import (
    EvaluationTarget,
    evaluate_trial,
    evaluation_file,
    read_confusion,
    resolve_target,
)
from fcnlab.trial.find import read_finished_trial
from fcnlab.trial.run import run_trial
from fcnlab.trial.run_folder import RunFolder
from tests.cli.conftest import Call, CommandResult
from tests.conftest import REPOSITORY
from tests.patience import patience

PAGE = (REPOSITORY / "docs" / "extending.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^`([\w./-]+)`:\n\n```\w+\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
"""The complete files of the page by path."""

VARIABLE = "FCNLAB_ALLOW_EXTENSIONS"


def draw_blobs(folder: Path) -> None:
    """Write images of discs with their masks, in the layout of the page's dataset."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:64, :64]
    for split, count in (("train", 8), ("val", 3)):
        (folder / split).mkdir(parents=True)
        for number in range(count):
            y, x = rng.integers(16, 48, 2)
            mask = ((rows - y) ** 2 + (columns - x) ** 2 < 150).astype(np.uint8)
            image = rng.integers(0, 80, (64, 64, 3), dtype=np.uint8) + 150 * mask[..., None]
            Image.fromarray(image.astype(np.uint8)).save(folder / split / f"{number}.png")
            Image.fromarray(mask).save(folder / split / f"{number}_mask.png")


@pytest.fixture
def own(tmp_path: Path) -> Lab:
    """The lab of the page, with a small dataset."""
    root = tmp_path / "lab"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if name != "pyproject.toml":
            (root / name).write_text(text, encoding="utf-8")
    draw_blobs(tmp_path / "data" / "blobs")
    return Lab.find(root=root, data_root=tmp_path / "data")


@pytest.fixture
def allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "1")


def edit(lab: Lab, name: str, old: str, new: str) -> None:
    text = (lab.root / name).read_text(encoding="utf-8")
    assert old in text
    (lab.root / name).write_text(text.replace(old, new), encoding="utf-8")


@pytest.fixture
def call(own: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Call the command line in this process, from the folder of the lab."""
    monkeypatch.chdir(own.root)

    def called(*arguments: str) -> CommandResult:
        monkeypatch.setattr(sys, "argv", ["fcnlab", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return CommandResult(int(end.value.code or 0), *capsys.readouterr())

    return called


def run_in_new_process(lab: Lab, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "fcnlab", *arguments]
    return subprocess.run(command, cwd=lab.root, env=environment, capture_output=True, text=True, timeout=patience())


def grid_words(lab: Lab, *options: str, allow: bool = True) -> list[str]:
    words = ["grid", "run", "experiments/own.yaml", "--data-root", str(lab.data_root), "--threads", "1", *options]
    return [*(["--allow-extensions"] if allow else []), *words]


def load_trials(lab: Lab) -> dict[str, Trial]:
    """Load the trials of the grid, by the name of the head."""
    loaded = lab.load_grid(lab.root / "experiments" / "own.yaml")
    again = Lab(lab.root, lab.data_root)  # without fingerprints of earlier calls
    return {cell.names["head"]: trial for cell, trial in loaded.trials(again.fingerprints)}


def test_the_page_has_all_files_of_the_example() -> None:
    assert FILES.keys() == {
        "registry/extensions.yaml", "registry/heads.yaml", "registry/datasets.yaml", "experiments/own.yaml",
        "registry/recipes.yaml", "extensions/shallow.py", "extensions/paired_names.py", "extensions/fresh_process.py",
        "extensions/tversky.py", "extensions/perspective.py", "extensions/weather.py", "extensions/csv_file.py",
        "pyproject.toml",
    }  # fmt: skip


@pytest.mark.parametrize("executor", ["process", "fresh_process", "ray"])
def test_the_example_runs_in_worker_processes(
    own: Lab, executor: str, allowed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if executor == "ray":
        pytest.importorskip("ray", reason="Ray is not installed; it comes with fcnlab[ray]")
    options = ("--executor", executor, "--workers", "1", "--tracker", "mlflow,csv_file")
    if executor != "ray":  # which is started from a process of its own, as a shell would
        monkeypatch.chdir(own.root)
        for name in ("OMP_NUM_THREADS", "FCNLAB_DEVICE"):  # the example sets them for its processes
            monkeypatch.setenv(name, os.environ.get(name, "1" if name == "OMP_NUM_THREADS" else "cpu"))
        result = CliRunner().invoke(app, grid_words(own, *options))
        code, text = result.exit_code, result.stdout
    else:
        done = run_in_new_process(own, *grid_words(own, *options))
        code, text = done.returncode, done.stdout
    assert code == 0, text
    assert "2 finished" in text and "0 failed" in text
    plan = make_plan(own.load_grid(own.root / "experiments" / "own.yaml"), own)
    assert {planned.status for planned in plan.trials} == {"finished"}
    trial = load_trials(own)["shallow8"]
    assert trial.extensions.keys() == {"head", "dataset", "loss", "transform"}
    model = read_finished_trial(RunFolder(own.runs, trial.key)).load_model("last")
    assert type(model.head).__name__ == "Shallow"
    assert not list(own.root.rglob("__pycache__"))
    lines = (own.root / "trials" / "own.csv").read_text().splitlines()
    assert sorted(line.split(",")[0] for line in lines) == sorted(planned.key for planned in plan.trials)
    assert "compare the runs in MLflow: fcnlab --allow-extensions ui experiments/own.yaml" in text
    readme = (own.root / "results" / "own" / "README.md").read_text(encoding="utf-8")
    assert "- loss: {type: tversky, weight: 0.5}" in readme
    assert "- transform: {type: perspective, options: {distortion: 0.4}}" in readme
    for run in open_tracker(plan.grid, own).list_trials():
        assert run["tags"]["mlflow.source.name"].startswith("fcnlab --allow-extensions grid reproduce experiments/own")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a crash has another exit code")
def test_a_head_that_crashes_is_an_error_in_one_line(own: Lab) -> None:
    edit(own, "extensions/shallow.py", "super().__init__()", "super().__init__()\n        __import__('os').abort()")
    done = run_in_new_process(own, *grid_words(own))
    assert done.returncode == 2 and not own.runs.exists()
    assert done.stderr.endswith("fcnlab: error: the process that checks the trials ended with signal 6\n"), done.stderr


@pytest.mark.usefixtures("allowed")
def test_printed_commands_have_the_permission_that_the_grid_needs(own: Lab, call: Call) -> None:
    grid = own.load_grid(own.root / "experiments" / "own.yaml")
    assert rerun_command(grid).startswith("fcnlab --allow-extensions grid run experiments/own.yaml")
    words = ["grid", "reproduce", "experiments/own.yaml:shallow8", "--data-root", str(own.data_root), "--dry-run"]
    assert call("--allow-extensions", *words).out.startswith("fcnlab --allow-extensions train ")


# --- permission ------------------------------------------------------------------------------------------------------


def test_without_permission_a_run_is_refused_in_one_line(own: Lab, call: Call) -> None:
    code, out, err = call(*grid_words(own, allow=False))
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    for part in ("extensions.yaml", "paired_names", str(own.root / "extensions/paired_names.py"), "--allow-extensions"):
        assert part in line
    assert not own.runs.exists()


def test_without_permission_a_head_a_loss_and_a_transform_can_be_planned_but_not_run(own: Lab, call: Call) -> None:
    edit(own, "experiments/own.yaml", "dataset: blobs", "dataset: shapes-mini")
    planned = call("grid", "plan", "experiments/own.yaml", "--no-probe")
    assert planned.code == 0
    for name in ("heads: shallow", "losses: tversky", "transforms: perspective"):
        assert f"{name}: not checked, because the Python files of the lab are not allowed to run" in planned.err
    assert load_trials(own)["shallow8"].extensions.keys() == {"head", "loss", "transform"}
    code, _, err = call(*grid_words(own, allow=False))
    assert code == 2
    (line,) = err.splitlines()
    assert "losses: tversky: this would run the lab's Python file" in line and VARIABLE in line
    edit(own, "registry/recipes.yaml", "  loss: {custom: {type: tversky, weight: 0.5}}\n", "")
    assert "transforms: perspective: this would run the lab's Python file" in call(*grid_words(own, allow=False)).err


@pytest.mark.parametrize("value", ["", "0", "true"])
def test_only_1_is_permission(own: Lab, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(ConfigError, match="not allowed"):
        own.extensions.load("executor", "fresh_process", Executor)  # type: ignore[type-abstract]


def test_an_executor_is_refused_before_anything_runs(own: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"executors: fresh_process: this would run"):
        check_executor(RunOptions(executor="fresh_process"), [], own)
    with pytest.raises(ConfigError, match=r"executor 'proces' is neither built in .* did you mean 'process'\?"):
        check_executor(RunOptions(executor="proces"), [], own)


def test_a_lab_with_extensions_is_usable_without_permission(own: Lab, call: Call) -> None:
    assert {"shallow8", "fcn8s"} <= set(own.registry.names("head"))
    assert call("registry", "show", "head", "shallow8").code == 0
    code, out, _ = call("data", "list")
    row = {line.split()[0]: line for line in out.splitlines()}
    assert code == 0 and row["blobs"].split()[1] == "error" and "train 16, val 4, test 6" in row["shapes-mini"]
    errors = {one["name"]: one["error"] for one in json.loads(call("data", "list", "--json").out)["datasets"]}
    assert "this would run the lab's Python file" in errors["blobs"] and errors["shapes-mini"] is None
    (check,) = (check for check in check_installation(own) if check.name == "dataset blobs")
    assert check.status == "warning" and "--allow-extensions" in check.found


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("registry/extensions.yaml", "shallow:", "skip:",
         r"head 'skip' is defined twice, built in to fcnlab and in .*extensions\.yaml: heads: skip; choose another"),
        ("registry/extensions.yaml", "fresh_process:", "ray:", r"executor 'ray' is defined twice, built in to fcnlab"),
        ("registry/extensions.yaml", "heads: {", "heads: {shallow: other.py:Other, ",
         r"the key 'shallow' appears twice"),
        ("registry/extensions.yaml", "heads:", "haeds:",
         r"extensions\.yaml: haeds: unknown key; did you mean 'heads'\?"),
        ("registry/extensions.yaml", "shallow.py:Shallow", "shallow.Shallow",
         r"heads\.shallow: .* is not FILE\.py:CLASS"),
        ("registry/extensions.yaml", "extensions/shallow.py", "../shallow.py",
         r"'../shallow\.py' is not below the lab"),
        ("registry/extensions.yaml", "shallow.py", "shalow.py", r"shalow\.py: cannot be read: No such file"),
        ("registry/extensions.yaml", ":Shallow", ":Shalow", r"shallow\.py has no 'Shalow'; did you mean 'Shallow'\?"),
        ("registry/extensions.yaml", ":Shallow", ":Mapping",
         r"Mapping is not a subclass of fcnlab\.models\.heads\.base\.Head"),
        ("registry/heads.yaml", "type: shallow", "type: shalow",
         r"head shallow8: head type 'shalow' is neither built in nor an extension; did you mean 'shallow'\?"),
        ("registry/heads.yaml", "width: 16", "widht: 16",
         r"a head of type shallow has no option 'widht'; did you mean 'width'\?"),
        ("registry/datasets.yaml", "type: paired_names", "type: paired",
         r"dataset blobs: dataset type 'paired' is neither built in nor an extension; did you mean 'paired_names'\?"),
        ("registry/datasets.yaml", "suffix: _mask", "sufix: _mask",
         r"dataset of type paired_names: its class does not take the options: got an unexpected .* 'sufix'"),
        ("extensions/paired_names.py", 'classes = ("background", "object")', "classes = tuple(map(str, range(256)))",
         r"dataset of type paired_names: its class has 256 classes; 2 to 255 are possible"),
        ("extensions/paired_names.py", '    classes = ("background", "object")\n', "",
         r"extensions\.yaml: datasets: paired_names: PairedNames: does not set `classes`; define it in the class"),
        ("extensions/paired_names.py", '    split_names = ("train", "val")\n', "",
         r"extensions\.yaml: datasets: paired_names: PairedNames: does not set `split_names`"),
        ("extensions/paired_names.py", "    expected_layout =", "    layout =",
         r"extensions\.yaml: datasets: paired_names: PairedNames: does not set `expected_layout`"),
        ("extensions/paired_names.py", "super().__init__(root)", "self.folder = root",
         r"PairedNames: does not set `root`; call `super\(\)\.__init__\(root\)` in its constructor"),
        ("extensions/paired_names.py", 'classes = ("background", "object")', 'classes = "background"',
         r"PairedNames: `classes` is 'background'; valid: a tuple of names"),
        ("extensions/paired_names.py", 'split_names = ("train", "val")', "split_names = (1, 2)",
         r"PairedNames: `split_names` is \(1, 2\); valid: a tuple of names"),
        ("extensions/paired_names.py", "super().__init__(root)", 'raise ValueError("no files\\nat all")',
         r"extensions\.yaml: datasets: paired_names: PairedNames cannot be created: ValueError: no files$"),
        ("registry/datasets.yaml", "  nominal: {height: 64, width: 64}\n", "",
         r"nominal: missing; this key is required"),
        ("registry/recipes.yaml", "type: perspective", "type: perspectiv",
         r"recipe tilted: transform type 'perspectiv' is not an extension; did you mean 'perspective'\?"),
        ("registry/recipes.yaml", "distortion: 0.4", "distrotion: 0.4",
         r"transform: perspective: its class does not take the options: got an unexpected .* 'distrotion'"),
        ("registry/recipes.yaml", "distortion: 0.4", "distortion: 4",
         r"extensions\.yaml: transforms: perspective: Perspective cannot be created: ValueError: "),
        ("extensions/perspective.py", "(TorchvisionTransform)", "",
         r"transforms: perspective: .*Perspective is not a subclass of fcnlab\.data\.transforms\.Transform"),
        ("registry/recipes.yaml", "type: tversky", "type: twersky",
         r"recipe tilted: loss type 'twersky' is not an extension; did you mean 'tversky'\?"),
        ("registry/recipes.yaml", "type: tversky,", "type: tversky, options: {beta: 0.3},",
         r"loss\.custom: tversky: its class does not take the options: got an unexpected .* 'beta'"),
        ("extensions/tversky.py", "super().__init__()", "raise ValueError('no')",
         r"extensions\.yaml: losses: tversky: Tversky cannot be created: ValueError: no$"),
        ("extensions/tversky.py", "(LossTerm)", "",
         r"Tversky is not a subclass of fcnlab\.training\.loss_term\.LossTerm"),
        ("extensions/tversky.py", "super().__init__()",
         "super().__init__(); self.a = __import__('torch').nn.Linear(1, 1)",
         r"loss\.custom: tversky: its parameter 'a\.weight' would not be trained"),
        ("extensions/tversky.py", "labels.long())", "labels.long()) * scores",
         r"cells 'fcn32s', 'shallow8': recipe\.loss\.custom: tversky: returns a tensor of shape \[2, 2, 8, 12\]"),
        ("extensions/tversky.py", "labels.long())", "labels.long()).item()",
         r"loss\.custom: tversky: returns float; return a scalar tensor"),
        ("extensions/tversky.py", "self.loss(scores", "self.loss(scores.detach()",
         r"loss\.custom: tversky: returns a value without a gradient"),
        ("extensions/tversky.py", "labels.long())", "labels.long()) / (labels != 255).sum()",
         r"loss\.custom: tversky: the value is not finite, if all pixels are ignored"),
        ("extensions/tversky.py", "self.loss(scores", "self.los(scores",
         r"loss\.custom: tversky: raises AttributeError: "),
        ("extensions/shallow.py", "from torch import Tensor, nn", "from torch import Tensor, nm",
         r"shallow\.py, line 5: ImportError: cannot import name 'nm'"),
        ("extensions/shallow.py", "from torch import Tensor, nn", "from torch import Tensor, nn\nraise SystemExit(0)",
         r"heads: shallow: /.*/shallow\.py, line 6: SystemExit: 0; put the code of a program below `if __name__ == "),
        ("extensions/tversky.py", "super().__init__()", "raise SystemExit(3)",
         r"extensions\.yaml: losses: tversky: Tversky cannot be created: SystemExit: 3$"),
        ("extensions/tversky.py", "self.loss(scores", "exit(self.loss)(scores",
         r"loss\.custom: tversky: raises SystemExit: "),
        ("extensions/paired_names.py", "        files = ", "        raise SystemExit; files = ",
         r"PairedNames\.list_pairs\('train'\) raises SystemExit$"),
        ("extensions/shallow.py", "class Shallow(Head):", "class Shallow(Head:", r"shallow\.py: SyntaxError"),
        ("extensions/shallow.py", "self.output_stride = stride", "self.stride = stride",
         r"a head of type shallow does not set `output_stride`"),
        ("extensions/shallow.py", 'stride, "image"', 'stride // 2, "image"',
         r"cell 'shallow8': the head returns scores of shape \(2, 2, 32, 32\), and not \(2, 2, 64, 64\)"),
        ("extensions/shallow.py", "nn.Conv2d(channels[stride], width, 1)", "nn.Conv2d(channels[64], width, 1)",
         r"cell 'shallow8': the network cannot be built: KeyError: 64"),
        ("extensions/paired_names.py", "def list_pairs", "def find_pairs", r"PairedNames does not define list_pairs"),
        ("extensions/paired_names.py", "        files = ", "        files = {}[split]; files = ",
         r"extensions/paired_names\.py, line 20: PairedNames\.list_pairs\('train'\) raises KeyError: 'train'$"),
        ("extensions/paired_names.py", "        files = ",
         "        raise __import__('fcnlab').errors.DataError('no files'); files = ", r"^no files$"),
        ("extensions/paired_names.py", "return [Pair(image.stem, image, ", "return [(image.stem, image, ",
         r"^PairedNames\.list_pairs returns \[\('0', .*\]; return a list of Pair$"),
    ],
)  # fmt: skip
def test_an_error_of_an_extension_is_one_line(own: Lab, file: str, old: str, new: str, message: str) -> None:
    edit(own, file, old, new)

    def use() -> None:
        file = own.root / "experiments" / "own.yaml"
        check_trials(make_plan(own.load_grid(file), own).remaining, own, file)
        fcnlab.build_model("tiny-scratch+shallow8+bilinear", 2, lab=own)

    with pytest.raises(FcnlabError, match=message) as caught:
        use()
    assert "\n" not in str(caught.value)


def test_a_package_whose_module_ends_the_process_is_one_line(package: Path) -> None:
    (package.parent / "shallow.py").write_text("import argparse\nargparse.ArgumentParser().parse_args(['--no'])\n")
    with pytest.raises(ConfigError, match=r"package fcn-shallow==1\.0: .*shallow:Shallow: SystemExit: 2; put the code"):
        Extensions().load("head", "shallow", object)


@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize("command", [("grid", "plan", "experiments/own.yaml"), ("data", "check", "blobs")])
def test_an_exception_of_a_dataset_class_ends_a_command_with_one_line(own: Lab, call: Call, command: list[str]) -> None:
    edit(own, "extensions/paired_names.py", "        files = ", "        open('missing.txt'); files = ")
    code, out, err = call(*command, "--data-root", str(own.data_root))
    assert (code, out) == (2, "")
    assert re.fullmatch(
        r"fcnlab: error: /.*/extensions/paired_names\.py, line 20: PairedNames\.list_pairs\('train'\) raises "
        r"FileNotFoundError: \[Errno 2\] No such file or directory: 'missing\.txt'\n",
        err,
    )


@pytest.mark.usefixtures("allowed")
def test_an_exception_of_the_class_of_a_split_names_the_sample(own: Lab) -> None:
    edit(own, "extensions/paired_names.py", "import FileDataset", "import FileDataset, FileSplit")
    edit(
        own,
        "extensions/paired_names.py",
        "    def list_pairs",
        "    def split(self, name):\n"
        "        return Mine(self.list_pairs(name), self.label_decoder())\n\n"
        "    def list_pairs",
    )
    with (own.root / "extensions" / "paired_names.py").open("a", encoding="utf-8") as file:
        file.write(
            "\n\nclass Mine(FileSplit):\n"
            "    def __getitem__(self, index):\n"
            "        return super().__getitem__(index) if index else 1 / 0\n"
        )
    split = own.open_dataset(load_trials(own)["fcn32s"].dataset).split("val")
    assert split[1].id == "1"
    with pytest.raises(ConfigError, match=r"py, line 30: Mine\.__getitem__\(0\) raises ZeroDivisionError: division"):
        split[0]


@pytest.mark.usefixtures("allowed")
def test_memory_that_runs_out_in_a_dataset_class_is_not_an_error_of_the_class(own: Lab) -> None:
    edit(own, "extensions/paired_names.py", "        files = ", "        raise MemoryError; files = ")
    with pytest.raises(MemoryError):
        load_trials(own)


@pytest.mark.parametrize(
    ("image", "label", "message"),
    [
        (np.zeros((4, 6, 3)), np.zeros((4, 6), np.uint8), r"image is float64 \[4, 6, 3\]"),
        (np.zeros((4, 6, 3), np.uint8), np.zeros((4, 6), np.int64), r"label int64 \[4, 6\]"),
        (np.zeros((3, 4, 6), np.uint8), np.zeros((4, 6), np.uint8), r"image is uint8 \[3, 4, 6\]"),
        (np.zeros((4, 6, 3), np.uint8), np.zeros((4, 5), np.uint8), r"label uint8 \[4, 5\]"),
    ],
)
def test_a_sample_of_another_type_or_shape_is_an_error(image: np.ndarray, label: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=f"sample a1: .*{message}.*; valid: uint8"):
        Sample("a1", image, label)


# --- keys ------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("allowed")
def test_the_key_changes_with_the_code_of_the_extensions_that_a_trial_uses(own: Lab) -> None:
    before = load_trials(own)
    assert before["shallow8"].identity()["extensions"].keys() == {"head", "dataset", "loss", "transform"}
    (own.root / "extensions" / "unrelated.py").write_text("x = 1\n")
    edit(own, "extensions/fresh_process.py", "one per slot", "a process per slot")
    assert {name: trial.key for name, trial in load_trials(own).items()} == {n: t.key for n, t in before.items()}
    edit(own, "extensions/shallow.py", "nn.ReLU()", "nn.GELU()")
    after = load_trials(own)
    assert after["shallow8"].key != before["shallow8"].key
    assert after["fcn32s"].key == before["fcn32s"].key
    edit(own, "extensions/paired_names.py", '"object"', '"disc"')
    edited = load_trials(own)["fcn32s"].key
    edit(own, "extensions/perspective.py", "bits=5", "bits=6")
    other_transform = load_trials(own)["fcn32s"].key
    edit(own, "extensions/tversky.py", "alpha: float = 0.3", "alpha: float = 0.4")
    assert len({before["fcn32s"].key, edited, other_transform, load_trials(own)["fcn32s"].key}) == 4


@pytest.mark.usefixtures("allowed")
def test_code_that_changes_after_planning_ends_the_run_without_a_record(own: Lab) -> None:
    edit(own, "experiments/own.yaml", "dataset: blobs", "dataset: shapes-mini")
    trial = load_trials(own)["shallow8"]
    edit(own, "extensions/shallow.py", "nn.ReLU()", "nn.GELU()")
    with pytest.raises(StopRunError, match="the code of the head has changed since this trial was planned; run the"):
        run_trial(trial, own)
    assert not RunFolder(own.runs, trial.key).record.exists()


@pytest.mark.usefixtures("allowed")
def test_a_trained_model_is_only_loaded_with_the_code_of_its_head(own: Lab) -> None:
    edit(own, "experiments/own.yaml", "dataset: blobs", "dataset: shapes-mini")
    trial = load_trials(own)["shallow8"]
    record = run_trial(trial, own)
    assert record is not None and record.failure is None
    edit(own, "extensions/shallow.py", "nn.ReLU()", "nn.GELU()")
    with pytest.raises(FcnlabError, match="the code of head type 'shallow' has changed since the training"):
        read_finished_trial(RunFolder(own.runs, trial.key)).load_model("last")


@pytest.mark.usefixtures("allowed")
def test_other_code_of_a_dataset_is_not_compared_with_metrics_of_the_old_code(own: Lab) -> None:
    trial = load_trials(own)["fcn32s"]
    record = run_trial(trial, own)
    assert record is not None and record.failure is None
    finished = read_finished_trial(RunFolder(own.runs, trial.key))
    train = resolve_target(finished, own, None, "train")

    def evaluate(target: EvaluationTarget | None) -> np.ndarray:
        arrays = evaluation_file(finished, Protocol(), "last", target).with_suffix(".npz")
        evaluate_trial(finished, own, Protocol(), "last", target=target)
        return read_confusion(arrays)

    evaluate(None)
    before = evaluate(train)
    swapped = (
        "    def label_decoder(self):\n"
        "        from fcnlab.data.datasets.labels import IdDecoder\n\n"
        "        return IdDecoder([[1], [0]], ignored=[])\n\n"
    )
    edit(own, "extensions/paired_names.py", "    def list_pairs", swapped + "    def list_pairs")
    assert np.array_equal(evaluate(train), before[::-1]), "the labels of the new code"
    with pytest.raises(DataError, match="the code of dataset type 'paired_names' has changed since the trial was run"):
        evaluate(None)


@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize(("permission", "capturable"), [("", False), ("    capturable = True\n\n", True)])
def test_steps_are_captured_only_if_the_class_of_the_loss_permits_it(
    own: Lab, permission: str, capturable: bool
) -> None:
    edit(own, "extensions/tversky.py", "    def __init__", f"{permission}    def __init__")
    trial = load_trials(own)["fcn32s"]
    model = fcnlab.build_model("tiny-scratch+fcn32s", 2, lab=own)
    dataset = own.open_dataset(trial.dataset)
    built = build_training(trial.recipe, model, dataset, split="train", seed=0, extensions=own.extensions)
    assert built.capturable == capturable
    scores = torch.randn(2, 2, 8, 8)
    labels = torch.randint(2, (2, 8, 8), dtype=torch.uint8)
    assert isinstance(built.loss, Loss) and built.loss.custom is not None
    expected = Loss()(scores, labels) + 0.5 * built.loss.custom(scores, labels)
    torch.testing.assert_close(built.loss(scores, labels), expected)


@pytest.mark.usefixtures("allowed")
def test_a_loss_that_changes_its_labels_changes_no_other_part_of_the_loss(own: Lab) -> None:
    edit(own, "extensions/tversky.py", "        return", "        labels[labels == 255] = 0\n        return")
    spec = load_trials(own)["fcn32s"].recipe.loss.custom
    assert spec is not None
    loss = Loss(custom=create_loss_term(spec, 2, own.extensions))
    labels = torch.randint(2, (2, 8, 8), dtype=torch.uint8)
    labels[0] = 255
    before = labels.clone()
    loss(torch.randn(2, 2, 8, 8), labels)
    assert torch.equal(labels, before)


@pytest.mark.usefixtures("allowed")
def test_a_command_has_the_permission_that_the_initial_trial_of_a_cell_needs(own: Lab) -> None:
    file = own.root / "experiments" / "own.yaml"
    text = file.read_text().replace("recipe: tilted", "recipe: smoke").replace("[fcn32s, shallow8]", "[fcn32s, fcn16s]")
    text = text.replace("dataset: blobs", "dataset: shapes-mini")
    file.write_text(text + "cells: [{head: fcn8s, init_from: {recipe.loss.custom: {type: tversky}}}]\n")
    grid = own.load_grid(file)
    assert fcnlab_command(grid.cells[0]) == "fcnlab"
    assert fcnlab_command(*grid.cells) == "fcnlab --allow-extensions"


@pytest.mark.usefixtures("allowed")
def test_samples_decoded_by_other_code_or_options_are_not_reused(own: Lab) -> None:
    seen = {own.open_dataset(load_trials(own)["fcn32s"].dataset).code}
    edit(own, "registry/datasets.yaml", "  options: {suffix: _mask}\n", "")
    fresh = Lab(own.root, own.data_root)
    seen.add(fresh.open_dataset(load_trials(fresh)["fcn32s"].dataset).code)
    edit(own, "extensions/paired_names.py", '"object"', '"disc"')
    seen.add(fresh.open_dataset(load_trials(fresh)["fcn32s"].dataset).code)
    assert len(seen) == 3


# --- other labs ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("allowed")
def test_a_working_folder_and_a_remote_node_get_the_code_of_the_extensions(own: Lab, tmp_path: Path) -> None:
    grid = own.load_grid(own.root / "experiments" / "own.yaml")
    (cell,) = (cell for cell in grid.cells if cell.names["head"] == "shallow8")
    other = own.with_workdir(tmp_path / "other")
    (trial,) = cell.trials([0], own.fingerprints)
    assert cell.trials([0], other.fingerprints)[0].key == trial.key
    names = {
        "registry/extensions.yaml", "extensions/shallow.py", "extensions/paired_names.py", "extensions/tversky.py",
        "extensions/perspective.py",
    }  # fmt: skip
    assert {file.relative_to(own.root).as_posix() for file in needed(own, trial)} == names


# --- packages --------------------------------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package with the head of the page."""
    project = tomllib.loads(FILES["pyproject.toml"])["project"]
    folder = tmp_path / "site-packages"
    info = folder / f"fcn_shallow-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (folder / "shallow.py").write_text(FILES["extensions/shallow.py"])
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = project["entry-points"].items()
    text = "".join(f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in items.items()) for group, items in groups)
    (info / "entry_points.txt").write_text(text)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "shallow", raising=False)
    return info


def test_a_package_needs_no_permission_and_its_version_is_in_the_key(lab: Lab, package: Path) -> None:
    (lab.root / "registry").mkdir()
    (lab.root / "registry" / "heads.yaml").write_text(FILES["registry/heads.yaml"])
    (lab.root / "experiments").mkdir()
    grid = FILES["experiments/own.yaml"].replace("blobs, recipe: tilted", "shapes-mini, recipe: smoke")
    (lab.root / "experiments" / "own.yaml").write_text(grid)
    trial = load_trials(lab)["shallow8"]
    assert "shallow" not in sys.modules
    assert trial.extensions == {"head": "fcn-shallow==1.0"}
    assert type(fcnlab.build_model("tiny-scratch+shallow8+bilinear", 2, lab=lab).head).__name__ == "Shallow"
    assert rerun_command(lab.load_grid(lab.root / "experiments" / "own.yaml")) == "fcnlab grid run experiments/own.yaml"
    metadata = package / "METADATA"
    metadata.write_text(metadata.read_text().replace("Version: 1.0", "Version: 1.1"))
    assert load_trials(lab)["shallow8"].extensions == {"head": "fcn-shallow==1.1"}
    assert load_trials(lab)["shallow8"].key != trial.key


def test_a_name_of_a_package_and_of_the_lab_is_an_error_that_names_both(own: Lab, package: Path) -> None:
    with pytest.raises(ConfigError, match=r"head 'shallow' is defined twice, in .*extensions\.yaml: heads: shallow and "
                       r"in package fcn-shallow==1\.0: entry point fcnlab\.heads: shallow"):  # fmt: skip
        own.extensions.find("head", "shallow")


def test_a_package_that_cannot_be_imported_is_one_line(package: Path) -> None:
    (package.parent / "shallow.py").write_text("import no_such_module_here\n")
    with pytest.raises(ConfigError, match=r"package fcn-shallow==1\.0: .*shallow:Shallow: ModuleNotFoundError"):
        Extensions().load("head", "shallow", object)


# --- transforms ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("allowed")
def test_the_example_with_albumentations_repeats_and_is_shown_by_data_preview(own: Lab) -> None:
    pytest.importorskip("albumentations", reason="albumentations is not installed")
    edit(own, "registry/recipes.yaml", "type: perspective, options: {distortion: 0.4}", "type: weather")
    file = own.root / "experiments" / "own.yaml"
    assert check_trials(make_plan(own.load_grid(file), own).remaining, own, file) == []
    for name in ("weather", "weather again", "plain"):
        recipe = "smoke" if name == "plain" else "tilted"
        out = own.root / f"{name}.png"
        words = ["--recipe", recipe, "--out", str(out), "--lab", str(own.root), "--data-root", str(own.data_root)]
        assert CliRunner().invoke(app, ["data", "preview", "blobs", *words]).exit_code == 0
    shown = [(own.root / f"{name}.png").read_bytes() for name in ("weather", "weather again", "plain")]
    assert shown[0] == shown[1] != shown[2]
