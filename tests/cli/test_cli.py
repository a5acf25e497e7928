"""The command line: output, stream, exit code, and modules that are not loaded."""

from __future__ import annotations

import csv
import json
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import typer.main
import yaml
from PIL import Image
from torch import nn

from fcnlab import cli, load_grid
from fcnlab.config import registry
from fcnlab.config.validation import validate
from fcnlab.lab import Lab
from fcnlab.training import cost
from tests.cli.conftest import Call, CommandResult
from tests.conftest import REPOSITORY, SMOKE, write_grid
from tests.patience import patience

HEAVY = "{'torch', 'torchvision', 'timm', 'mlflow', 'pandas'}"


@pytest.fixture
def columns() -> int:
    return 250


def refused(output: CommandResult, *parts: str) -> None:
    """Check that a call was rejected in one line on standard error that contains these parts."""
    assert (output.code, output.out) == (2, "")
    assert output.err.startswith("fcnlab: error: ") and output.err.count("\n") == 1
    for part in parts:
        assert part in output.err


def python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=patience())


def verbs(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Return every command that help shows with its words, also those of groups."""
    for name, inner in getattr(command, "commands", {}).items():
        yield from verbs(inner, (*path, name))
    if not hasattr(command, "commands") and not command.hidden:
        yield path, command


VERBS = dict(verbs(typer.main.get_command(cli.app)))


# --- startup ---------------------------------------------------------------------------------------------------------


def test_registry_data_and_plan_commands_import_no_heavy_package(tmp_path: Path) -> None:
    file = write_grid(tmp_path, SMOKE)
    plan = ["grid", "plan", str(file)]
    assert (
        python(f"import sys, fcnlab.cli\nsys.argv = ['fcnlab', *{plan!r}]\nfcnlab.cli.main()", tmp_path).returncode == 0
    )
    calls = [["registry", "list"], ["data", "list"], plan, ["init", "new"]]  # its networks have been checked
    done = python(
        "import sys, fcnlab.cli\n"
        f"for arguments in {calls!r}:\n"
        "    sys.argv = ['fcnlab', *arguments]\n"
        "    try: fcnlab.cli.main()\n"
        "    except SystemExit as stop: assert not stop.code, arguments\n"
        f"    assert not {HEAVY} & set(sys.modules), (arguments, {HEAVY} & set(sys.modules))",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr


def test_a_user_error_exits_with_2_and_no_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fcnlab", "grid", "plan", "gone.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=patience())
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"fcnlab: error: gone.yaml: no such file, and no YAML file in {tmp_path}\n"


# --- help ------------------------------------------------------------------------------------------------------------


def test_a_current_folder_that_was_removed_is_one_line(tmp_path: Path) -> None:
    code = "import os, fcnlab.cli; os.rmdir(os.getcwd()); fcnlab.cli.main()"
    folder = tmp_path / "removed"
    folder.mkdir()
    done = python(code, folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "fcnlab: error: the current folder was removed; change to another folder with cd\n"


def test_the_commands_are_those_of_the_documentation() -> None:
    assert {" ".join(words) for words in VERBS} == {
        "grid plan", "grid schema", "grid run", "grid status", "grid sync", "grid reproduce",
        "registry list", "registry show",
        "data list", "data add", "data check", "data stats", "data preview", "data fetch",
        "lab check", "data cache list", "data cache make", "data cache verify", "data cache clear",
        "evaluate", "predict", "export", "diff", "compare",
        "model show", "model compare", "weights list", "weights fetch", "train", "report", "ui", "init", "doctor",
    }  # fmt: skip


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_every_command_has_help_and_a_valid_example(words: tuple[str, ...]) -> None:
    verb = VERBS[words]
    assert verb.help and verb.help.strip().endswith(".")
    assert verb.epilog.startswith("Example: fcnlab ")
    example = shlex.split(verb.epilog.removeprefix("Example: fcnlab ").split("&&")[0])
    assert example[: len(words)] == list(words)
    verb.make_context("fcnlab", example[len(words) :])  # parses; nothing is run
    undocumented = [p.name for p in verb.params if p.param_type_name == "option" and not p.help]
    assert not undocumented


def test_help_of_a_command_shows_defaults_and_its_example(fcnlab: Call) -> None:
    output = fcnlab("grid", "plan", "--help")
    assert output.code == 0 and "Example: fcnlab grid plan experiments/quickstart.yaml" in output.out
    assert "[default: (a share of the cores); x>=1]" in output.out
    assert "--all " in output.out and "<bool>" not in output.out


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("recipe: smoke", "recipe: smok", ["recipe: no recipe 'smok'; did you mean 'smoke'?"]),
        ("dataset: shapes-mini", "dataset: shape", ["dataset: no dataset 'shape'; did you mean 'shapes'?"]),
        ("backbone: tiny-scratch", "variant: fcn8s-tinny", ["no variant 'fcn8s-tinny'; did you mean 'fcn8s-tiny'?"]),
        ("seeds: 2", "seed: 2", ["seed: unknown key; did you mean 'seeds'?"]),
        ("seeds: 2", "seeds: [", ["not valid YAML"]),
    ],
)
def test_an_error_in_a_grid_file_is_one_line_with_the_file_and_the_remedy(
    fcnlab: Call, tmp_path: Path, old: str, new: str, parts: list[str]
) -> None:
    file = write_grid(tmp_path, SMOKE.replace(old, new))
    refused(fcnlab("grid", "plan", file), str(file), *parts)


def test_each_error_of_a_file_is_printed_on_one_line(fcnlab: Call, tmp_path: Path) -> None:
    file = write_grid(tmp_path, SMOKE.replace("seeds: 2", "seed: 2\nbaselin: 3"))
    output = fcnlab("grid", "plan", file)
    lines = output.err.splitlines()
    assert output.code == 2 and len(lines) == 2
    assert all(line.startswith(f"fcnlab: error: {file}: ") for line in lines)


def test_a_command_without_its_group_is_an_error_that_names_the_group(fcnlab: Call) -> None:
    for words, hint in (
        (("run", "experiments/a.yaml"), "No such command 'run'; did you mean `fcnlab grid run`?"),
        (("plan",), "No such command 'plan'; did you mean `fcnlab grid plan`?"),
        (("check",), "No such command 'check'; did you mean `fcnlab data check` or `fcnlab lab check`?"),
        (("frobnicate",), "No such command 'frobnicate'."),
    ):
        code, _, err = fcnlab(*words)
        assert code == 2 and hint in err


def test_the_name_of_a_grid_is_an_error_that_names_its_file(
    fcnlab: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_grid(tmp_path, SMOKE)
    monkeypatch.chdir(tmp_path)
    refused(fcnlab("grid", "plan", "question"), "question: no such file; write experiments/question.yaml")
    Image.new("RGB", (8, 8)).save("a.png")
    for name in ("question", "results/question"):
        hint = f"{name}: is the name of a grid, not a trial; add a cell to its file, such as experiments/question.yaml:"
        refused(fcnlab("predict", name, "a.png"), hint)


def test_a_missing_grid_file_is_an_error_that_names_the_nearest(fcnlab: Call, tmp_path: Path) -> None:
    file = write_grid(tmp_path, SMOKE)
    missing = file.with_name("qestion.yaml")
    refused(fcnlab("grid", "plan", missing), f"{missing}: no such file; did you mean 'question.yaml'?")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["registry", "list", "head5"], "unknown kind 'head5'; did you mean 'head'?"),
        (["registry", "show", "recipe", "d2"], "no recipe 'd2'; did you mean 'd2l'?"),
        (["data", "check", "camvit"], "no dataset 'camvit'; did you mean 'camvid'?"),
        (["data", "check", "camvid"], "no data root is set; pass --data-root or set FCNLAB_DATA"),
        (["data", "check", "camvid", "--data-root", "."], "camvid does not exist; --data-root (or FCNLAB_DATA)"),
        (["registry", "list", "--lab", "gone"], "gone: no such folder; make a lab with `fcnlab init gone`"),
        (["ui"], "mlflow.db: nothing is recorded yet; run a grid first"),
        (["model", "show", "fcn8s-tinny"], "no variant 'fcn8s-tinny'; did you mean 'fcn8s-tiny'?"),
        (["model", "show", "a+b"], "no backbone 'a'"),
        (["model", "show", "tiny-scratch+"], "'tiny-scratch+' is neither backbone+head nor backbone+head+upsampler"),
        (["train", "a+b+c+d", "--dataset=shapes", "--recipe=smoke"], "'a+b+c+d' is neither backbone+head nor"),
        (["model", "show", "tiny-scratch+fcn9s+bilinear"], "no head 'fcn9s'; did you mean"),
        (["model", "show", "tiny-scratch+fcn8s-paper+bilinear"], "a head of type paper crops for the padding"),
        (["model", "show", "timm:resnet18+fcn8s+bilinear"], "add timm's tag, as in timm:resnet18.tv_in1k"),
        (["model", "show", "scratch:resnet_18+fcn8s+bilinear"], "timm has no model 'resnet_18'"),
        (["model", "compare", "fcn8s-tiny", "--sort", "gmac"], "--sort: no column 'gmac'; did you mean 'gmacs'?"),
        (
            ["train", "fcn8s-tiny", "--dataset=shapes", "--recipe=smoke", "--init-from=abc"],
            "init_from: 'abc' is not the key",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_missing_object_is_an_error_with_a_remedy(fcnlab: Call, arguments: list[str], message: str) -> None:
    refused(fcnlab(*arguments), message)


def test_a_plan_with_missing_data_is_an_error(fcnlab: Call, tmp_path: Path) -> None:
    file = write_grid(tmp_path, SMOKE.replace("shapes-mini", "camvid"))
    refused(fcnlab("grid", "plan", file), "no data root is set")
    refused(fcnlab("grid", "plan", file, "--data-root", tmp_path / "gone"), str(tmp_path / "gone/camvid"))


@pytest.mark.parametrize("size", ["64", "64y64", "0x64", "64x", "-1x5", "64x64x3"])
def test_an_invalid_size_is_a_usage_error(fcnlab: Call, size: str) -> None:
    output = fcnlab("model", "show", "fcn8s-tiny", f"--size={size}")
    assert (output.code, output.out) == (2, "")
    assert "--size" in output.err and f"'{size}' is not a size; give height x width" in output.err
    assert "320x480" in output.err


# --- verbs -----------------------------------------------------------------------------------------------------------


def test_a_plan_shows_every_cell_and_the_remaining_trials(fcnlab: Call, tmp_path: Path) -> None:
    output = fcnlab("grid", "plan", write_grid(tmp_path, SMOKE))
    assert (output.code, output.err) == (0, "")
    question, heading, *rows = output.out.splitlines()
    assert question == "question: Does it run?"
    assert heading.split() == ["head", "to", "do"]
    assert [row.split() for row in rows[:2]] == [["fcn32s", "2", "baseline"], ["fcn8s", "2"]]
    assert "4 trials: 4 to do\noptimizer steps per trial: 8\n" in output.out
    assert "no estimate: no comparable trial has finished yet" in output.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["experiments"]  # looking makes nothing


def test_a_plan_of_many_cells_is_shortened_unless_all_are_requested(fcnlab: Call, tmp_path: Path) -> None:
    many = f"product: {{recipe.epochs: {list(range(1, 101))}, head: [fcn32s, fcn8s]}}"
    text = SMOKE.replace("product: {head: [fcn32s, fcn8s]}", many).replace("fcn32s}", "fcn32s, recipe.epochs: 1}")
    file = write_grid(tmp_path, text)
    short, full = fcnlab("grid", "plan", file).out, fcnlab("grid", "plan", file, "--all").out
    assert "200 cells; --all shows each" in short and len(short.splitlines()) < 12
    assert "1, 2, 3, 4, 5, 6, ..." in short
    assert len(full.splitlines()) > 200


def test_a_plan_can_be_printed_as_json(fcnlab: Call, tmp_path: Path) -> None:
    output = json.loads(fcnlab("grid", "plan", write_grid(tmp_path, SMOKE), "--json").out)
    assert output["axes"] == ["head"] and output["seeds"] == [0, 1]
    assert output["cells"] == [
        {"cell": "fcn32s", "axes": {"head": "fcn32s"}, "baseline": True, "trials": {"to do": 2}},
        {"cell": "fcn8s", "axes": {"head": "fcn8s"}, "baseline": False, "trials": {"to do": 2}},
    ]
    assert output["trials"] == {"finished": 0, "failed": 0, "pruned": 0, "started": 0, "damaged": 0, "to do": 4}
    assert (output["remaining"]["trials"], output["remaining"]["known"]) == (4, 0)


def test_the_schema_of_a_lab_has_the_names_of_its_registry(fcnlab: Call, tmp_path: Path) -> None:
    assert fcnlab("init", "mylab").code == 0
    shipped = (tmp_path / "mylab/experiments/grid.schema.json").read_text(encoding="utf-8")
    assert fcnlab("grid", "schema", "--lab", "mylab").out == shipped
    mine = "mine: {backbone: tiny-scratch, head: fcn8s, upsampler: random}\n"
    (tmp_path / "mylab/registry/variants.yaml").write_text(mine, encoding="utf-8")
    extended = json.loads(fcnlab("grid", "schema", "--lab", "mylab").out)
    assert "mine" in extended["$defs"]["variant"]["anyOf"][0]["enum"]


def test_the_registry_lists_one_kind_by_its_singular_or_plural(fcnlab: Call) -> None:
    output = fcnlab("registry", "list", "heads")
    assert output == fcnlab("registry", "list", "head")
    assert all(name in output.out for name in ("fcn32s", "fcn16s", "fcn8s")) and "recipe" not in output.out


def test_the_registry_lists_every_name_of_every_kind(fcnlab: Call) -> None:
    out = fcnlab("registry", "list").out
    rows = {tuple(line.split()[:2]) for line in out.splitlines()}
    known = registry.builtin()
    assert {(kind, name) for kind in known.entries for name in known.names(kind)} <= rows


def test_a_list_has_one_line_per_entry_and_everything_with_verbose_or_json(fcnlab: Call) -> None:
    command = ("registry", "list", "recipes", "--search", "chosen on CamVid")
    heading, *lines = fcnlab(*command).out.splitlines()
    assert heading.split() == ["kind", "name", "description"]
    (standard,) = (line for line in lines if line.split()[1] == "standard")
    assert standard.rstrip().endswith(" ...")
    assert len(lines) == len(json.loads(fcnlab(*command, "--json").out)["entries"])
    assert "Crops of 320x320" in " ".join(fcnlab(*command, "--verbose").out.split())
    assert "Crops of 320x320" in " ".join(fcnlab("registry", "show", "recipe", "standard").out.split())


def test_a_search_finds_names_and_descriptions_in_any_case(fcnlab: Call) -> None:
    by_name, by_text = (
        fcnlab("registry", "list", "--search", "VOC2012"),
        fcnlab("registry", "list", "--search", "pascal"),
    )
    assert "voc2012" in by_name.out and "voc2012" in by_text.out
    assert "camvid" not in by_name.out + by_text.out
    assert "fcn8s" not in fcnlab("registry", "list", "--search", "nothing has this").out


def test_an_entry_is_shown_as_its_yaml(fcnlab: Call) -> None:
    known = registry.builtin()
    for kind, entries in known.entries.items():
        for name, entry in entries.items():
            shown = yaml.safe_load(fcnlab("registry", "show", kind, name).out)
            assert list(shown) == [name]
            assert validate(registry.KINDS[kind], shown[name], name) == entry


def test_a_shown_entry_can_be_put_into_a_labs_registry(fcnlab: Call, tmp_path: Path) -> None:
    text = fcnlab("registry", "show", "recipe", "d2l").out
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry/recipes.yaml").write_text(text.replace("d2l:", "mine:", 1).replace("epochs: 5", "epochs: 7"))
    shown = yaml.safe_load(fcnlab("registry", "show", "recipes", "mine").out)["mine"]
    assert shown == yaml.safe_load(text)["d2l"] | {"epochs": 7}


def test_the_list_of_datasets_shows_which_are_available(fcnlab: Call) -> None:
    output = fcnlab("data", "list")
    row = {line.split()[0]: line for line in output.out.splitlines()}
    assert output.code == 0
    assert len(row) == 2 + len(json.loads(fcnlab("data", "list", "--json").out)["datasets"]), "and two other lines"
    assert "FCNLAB_DATA" in fcnlab("data", "list", "--verbose").out
    assert "missing" in row["camvid"] and "missing" in row["voc2012"]
    assert "train 16, val 4, test 6" in row["shapes-mini"]


def test_a_shown_model_has_its_maps_parameters_and_cost(fcnlab: Call) -> None:
    output = fcnlab("model", "show", "fcn8s-tiny", "--size", "64x64", "--num-classes", "6")
    assert (output.code, output.err) == (0, "")
    assert "scores (1, 6, 64, 64)" in output.out and " GMACs" in output.out
    rows = [re.split(r" {2,}", line.strip()) for line in output.out.splitlines()]
    assert ["32", "96", "2 x 2", "167", "yes"] in rows
    names = ("backbone", "head", "upsamplers", "all")
    counts = {row[0]: int(row[1].replace(",", "")) for row in rows if row[0] in names}
    assert counts["all"] == counts["backbone"] + counts["head"] + counts["upsamplers"] > 0
    assert "output stride 8" in output.out and "ms for one image" not in output.out


def test_models_are_compared_in_rows_in_the_given_order(fcnlab: Call, tmp_path: Path) -> None:
    names = ["fcn32s-tiny", "fcn8s-tiny", "scratch:test_resnet+dilated16+resize"]
    options = ("--csv", "costs.csv", "--size", "64x64", "--sort", "upsampler_params")
    output = fcnlab("model", "compare", *names, *options, "--json")
    assert (output.code, output.err) == (0, "")
    rows = list(csv.DictReader((tmp_path / "costs.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["variant"] for row in rows] == [row["variant"] for row in json.loads(output.out)["variants"]]
    assert [row["variant"] for row in rows] == [names[2], names[1], names[0]]
    assert [row["stride"] for row in rows] == ["16", "8", "32"]
    assert [int(row["upsampler_params"]) for row in rows] == [0, 21 * 21 * (16 + 16 + 256), 21 * 21 * 64 * 64]
    shown = fcnlab("model", "compare", *names, "--size", "64x64", "--measure").out
    assert "images/s" in shown and all(name in shown for name in names)


def test_speed_is_measured_with_weights_in_the_memory_layout_of_trials(
    fcnlab: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    layouts: list[bool] = []

    def measure_speed(model: nn.Module, size: tuple[int, int]) -> cost.Speed:
        layouts.extend(w.is_contiguous(memory_format=torch.channels_last) for w in model.parameters() if w.dim() == 4)
        assert size == (64, 64)
        return cost.Speed(0.5, 16.0)

    monkeypatch.setattr(cost, "measure_speed", measure_speed)
    shown = fcnlab("model", "show", "fcn8s-tiny", "--size", "64x64", "--measure").out
    assert layouts and all(layouts) and "500.0 ms for one image, 16.0 images/s" in shown


def test_timm_models_are_listed_by_the_names_that_a_grid_accepts(fcnlab: Call) -> None:
    output = fcnlab("registry", "list", "backbones", "--timm", "--search", "test_resnet")
    assert "scratch:test_resnet" in output.out and "timm:test_resnet.r160_in1k" in output.out
    assert fcnlab("model", "show", "scratch:test_resnet+fcn32s+bilinear", "--size", "64x64").code == 0


def test_init_makes_a_lab_whose_first_grid_can_be_planned(fcnlab: Call, tmp_path: Path) -> None:
    output = fcnlab("init", "mylab")
    lab = tmp_path / "mylab"
    assert output.code == 0 and "cd mylab && fcnlab grid run experiments/quickstart.yaml" in output.out
    assert len(Lab.find(root=lab).load_grid(lab / "experiments/quickstart.yaml")) > 0
    assert fcnlab("grid", "plan", "mylab/experiments/quickstart.yaml").code == 0
    assert fcnlab("registry", "list", "--lab", lab).code == 0


def test_the_first_grid_of_a_lab_has_no_conclusion_yet(fcnlab: Call, tmp_path: Path) -> None:
    fcnlab("init", "mylab")
    path = tmp_path / "mylab" / "experiments" / "quickstart.yaml"
    mine, committed = load_grid(path), load_grid(REPOSITORY / "experiments" / "quickstart.yaml")
    assert mine.file.conclusion == ""
    assert mine.file == committed.file.model_copy(update={"conclusion": ""})


def test_init_accepts_an_empty_folder_and_rejects_any_other(fcnlab: Call, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert fcnlab("init", "empty").code == 0
    refused(fcnlab("init", "empty"), "empty: already exists and is not empty")
    (tmp_path / "file").write_text("mine")
    refused(fcnlab("init", "file"), "file: already exists")
    refused(fcnlab("init", "file/lab"), "file/lab: cannot be written")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, int]]:
    """Record the store, the host and the port of the servers that `fcnlab ui` would start, without starting them."""
    servers: list[tuple[str, str, int]] = []

    @contextmanager
    def serve(uri: str, host: str, port: int, log: Path) -> Iterator[SimpleNamespace]:
        servers.append((uri, host, port))
        yield SimpleNamespace(wait_until_ready=lambda: None, wait=lambda: 0)

    monkeypatch.setattr("fcnlab.tracking.server.serve", serve)
    return servers


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_ui_refuses_a_taken_port(fcnlab: Call, tmp_path: Path, launched: list[Any]) -> None:
    (tmp_path / "mlflow.db").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused(fcnlab("ui", "--port", port), f"port {port} cannot be used", "choose another with --port")
    refused(fcnlab("ui", "--host", "no.such.name.invalid"), "--host no.such.name.invalid: no such name")
    assert launched == []


def test_ui_opens_the_labs_store_for_this_machine_only(
    fcnlab: Call, tmp_path: Path, launched: list[Any], free_port: int
) -> None:
    (tmp_path / "mlflow.db").touch()
    out = fcnlab("ui", "--port", free_port).out
    assert f"http://127.0.0.1:{free_port}" in out and f"ssh -L {free_port}:127.0.0.1:{free_port}" in out
    assert "warning" not in out
    assert launched == [(f"sqlite:///{tmp_path}/mlflow.db", "127.0.0.1", free_port)]


def test_ui_warns_that_other_hosts_have_no_authentication(
    fcnlab: Call, tmp_path: Path, launched: list[Any], free_port: int
) -> None:
    (tmp_path / "mlflow.db").touch()
    out = fcnlab("ui", "--port", free_port, "--host", "0.0.0.0").out
    assert "warning: MLflow has no authentication" in out and f"ssh -L {free_port}" in out
    assert "http://0.0.0.0" not in out, "browsers cannot open this address"
    assert launched[0][1:] == ("0.0.0.0", free_port)


def test_ui_reports_a_server_that_ends(
    fcnlab: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    (tmp_path / "mlflow.db").touch()
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho some output\necho the reason >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(broken))
    refused(fcnlab("ui", "--port", free_port), "MLflow has ended with exit code 3: the reason; its output is in")


def test_ui_points_to_a_store_that_is_a_server(fcnlab: Call, launched: list[Any]) -> None:
    output = fcnlab("ui", "--tracking-uri", "http://mlflow.example:5000")
    assert output.code == 0 and "open http://mlflow.example:5000" in output.out
    assert launched == []


def test_brackets_in_a_question_are_not_markup(fcnlab: Call, tmp_path: Path) -> None:
    file = write_grid(tmp_path, SMOKE.replace("Does it run?", "Does [/x] or [bold] run?"))
    assert "Does [/x] or [bold] run?" in " ".join(fcnlab("grid", "plan", file).out.split())


def test_a_split_that_a_generated_dataset_lacks_is_an_error(fcnlab: Call, tmp_path: Path) -> None:
    text = SMOKE.replace("dataset: shapes-mini,", "dataset: shapes-mini, dataset.splits: {test: tset},")
    refused(fcnlab("grid", "plan", write_grid(tmp_path, text)), "no split 'tset'", "did you mean 'test'?")


@pytest.mark.parametrize("words", [("grid", "run"), ("grid", "run", "--retry-failed"), ("grid", "plan")])
def test_a_missing_gpu_is_an_error_where_one_is_requested(
    fcnlab: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    result = fcnlab(*words, write_grid(tmp_path, SMOKE), "--device", "cuda")
    refused(result, "--device cuda: this machine shows no NVIDIA GPU")
    assert not list(tmp_path.glob("runs/*/record.json")), "no trial has failed"


def test_a_new_lab_ignores_the_files_of_mlflow(fcnlab: Call, tmp_path: Path) -> None:
    assert fcnlab("init", "mylab").code == 0
    ignored = (tmp_path / "mylab/.gitignore").read_text(encoding="utf-8").splitlines()
    assert {"/mlflow.db*", "/mlartifacts/", "/mlruns/", "/.fcnlab/"} <= set(ignored)
