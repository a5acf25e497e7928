"""Options and errors that commands which run or use trials share."""

from __future__ import annotations

import shlex
import signal
import sys
from pathlib import Path

import pytest
import torch

from fcnlab.cli.options import parse_hang_timeout
from fcnlab.lab import Lab
from fcnlab.report.write import create_report
from fcnlab.runner.plan import make_plan
from fcnlab.runner.run import run_grid
from tests.builders import failed_record
from tests.cli.conftest import Call
from tests.cli.test_cli import refused
from tests.conftest import SMOKE, write_grid
from tests.report.finished_grid import finished_lab


def test_a_hang_timeout_is_a_positive_number_or_off(fcnlab: Call, tmp_path: Path) -> None:
    assert [parse_hang_timeout(text) for text in ("600", "0.5", "off")] == [600.0, 0.5, None]
    file = write_grid(tmp_path, SMOKE)
    for text in ("soon", "0", "-1", "nan", "inf"):
        refused(
            fcnlab("grid", "run", file, "--hang-timeout", text), f"--hang-timeout {text}: expected a positive number"
        )
    assert not (tmp_path / "runs").exists()


def test_lack_of_memory_in_a_command_is_one_line(fcnlab: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB\nmore")

    monkeypatch.setattr(f"{run_grid.__module__}.run_grid", fail)
    result = fcnlab("grid", "run", write_grid(tmp_path, SMOKE))
    assert result.code == 2
    assert result.err == "fcnlab: error: out of memory: CUDA out of memory. Tried to allocate 9 GiB\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_report_names_the_command_that_writes_it(
    fcnlab: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    finished_lab(tmp_path)
    module = sys.modules[create_report.__module__]  # the attribute `fcnlab.report` is a function
    monkeypatch.setattr(module, "create_report", lambda *_, **__: signal.raise_signal(number))
    result = fcnlab("grid", "run", "experiments/question.yaml")
    assert result.code == 130
    assert "all trials have ended. Write the report with: fcnlab report experiments/question.yaml" in result.err


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--workers", "1", "--threads", "1"),
        ("--executor", "serial", "--device", "cpu", "--checkpoint-every", "0.5", "--log-every", "2", "--hang-timeout",
         "off", "--fail-fast", "--no-wait", "--strict"),
        ("--per-gpu", "2", "--hang-timeout", "60"),
        ("--devices-per-trial", "2"),
        ("--executor", "ray", "--address", "auto"),
    ],
)  # fmt: skip
def test_the_command_that_resumes_has_the_options_of_the_run(
    fcnlab: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    write_grid(tmp_path, SMOKE)

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"{run_grid.__module__}.run_grid", interrupt)
    result = fcnlab("grid", "run", "experiments/question.yaml", *words)
    assert result.code == 130
    command = shlex.join(("fcnlab", "grid", "run", "experiments/question.yaml", *words))
    assert result.err.endswith(f"Resume with: {command}\n")


def make_failed_grid(lab: Path, file: Path) -> None:
    """Write a grid file whose trials have failed in a lab."""
    lab.mkdir()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(SMOKE)
    for planned in make_plan(Lab.find(root=lab).load_grid(file), Lab.find(root=lab)).trials:
        planned.folder.create()
        planned.folder.finish(failed_record(planned.trial))


def read_commands(text: str) -> list[str]:
    """Return the commands that messages contain."""
    return [line[line.index("fcnlab ") :] for line in text.splitlines() if ": fcnlab " in line]


def test_printed_commands_use_the_lab_and_the_trackers_of_the_command_that_prints_them(
    fcnlab: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    lab, file = tmp_path / "my lab", tmp_path / "elsewhere" / "bad.yaml"
    make_failed_grid(lab, file)
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(file.parent)
    options = ["--lab", "../my lab", "--data-root", "../data", "--tracking-uri", "http://me:s3cr3tpw@127.0.0.1:9"]
    result = fcnlab("grid", "run", "bad.yaml", *options, "--tracker", "tensorboard,mlflow")
    assert result.code == 1
    assert "s3cr3tpw" not in result.err + result.out
    where = f"--lab '{lab}' --data-root {tmp_path}/data"
    server = "--tracking-uri http://USER:PASSWORD@127.0.0.1:9"
    sync, status, run = read_commands(result.err)
    assert sync == f"fcnlab grid sync bad.yaml {where} {server} --tracker tensorboard,mlflow"
    assert status == f"fcnlab grid status bad.yaml {where}"
    assert run == f"fcnlab grid run bad.yaml --retry-failed {where} {server} --tracker tensorboard,mlflow"
    shown = fcnlab(*shlex.split(status)[1:])
    assert "4 trials: 4 failed" in shown.out


def test_printed_commands_have_no_option_that_the_environment_sets(
    fcnlab: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab, file = tmp_path / "lab", tmp_path / "lab" / "experiments" / "bad.yaml"
    make_failed_grid(lab, file)
    monkeypatch.setenv("FCNLAB_TRACKER", "none")
    result = fcnlab("grid", "run", file)
    assert read_commands(result.err) == [
        "fcnlab grid status lab/experiments/bad.yaml",
        "fcnlab grid run lab/experiments/bad.yaml --retry-failed",
    ]
    monkeypatch.setenv("FCNLAB_LAB", str(tmp_path))
    result = fcnlab("grid", "run", file, "--lab", lab)
    assert read_commands(result.err)[0] == "fcnlab grid status lab/experiments/bad.yaml --lab lab"


def test_a_grid_file_whose_name_starts_with_a_dash_is_no_option_in_printed_commands(
    fcnlab: Call, tmp_path: Path
) -> None:
    make_failed_grid(tmp_path / "lab", tmp_path / "-x.yaml")
    result = fcnlab("grid", "run", "./-x.yaml", "--lab", "lab", "--tracker", "none")
    status = read_commands(result.err)[0]
    assert status == "fcnlab grid status ./-x.yaml --lab lab"
    assert "4 trials: 4 failed" in fcnlab(*shlex.split(status)[1:]).out
    written = (tmp_path / "lab" / "results" / "-x" / "README.md").read_text()
    assert "fcnlab grid run ./-x.yaml" in written
