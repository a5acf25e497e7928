"""The acceptance run for GPUs: its sections in their small form on the CPU, and failing sections."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

import fcnlab
from benchmarks.gpu.child import Child
from benchmarks.gpu.results import Results, SectionFailed, run_section
from benchmarks.gpu.settings import Settings
from tests.conftest import REPOSITORY
from tests.patience import patience, start_seconds


def accept(out: Path, *options: str, device: str = "cpu") -> tuple[int, dict[str, Any]]:
    """Run the kit and return its exit code and output."""
    command = [sys.executable, "-m", "benchmarks.gpu.accept", "--out", str(out), "--device", device, "--smoke"]
    command += ["--budget", str(10 * patience()), *options]
    # Two threads of OpenMP: a forked child of a process that has used them would hang.
    environment = os.environ | ({"OMP_NUM_THREADS": "2"} if "determinism" in options else {})
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=11 * patience(), env=environment, cwd=REPOSITORY
    )
    written = out / "accept.json"
    assert written.is_file(), done.stderr
    return done.returncode, json.loads(written.read_text())


SECTIONS = (
    "environment", "determinism", "losses", "augmentation", "counts", "steps", "grid", "export", "resume", "agreement",
    "distributed", "per_gpu",
)  # fmt: skip
"""The sections that need no GPU."""


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, dict[str, Any]]:
    """Run all sections that need no GPU; return the folder of the output, the exit code and the output."""
    out = tmp_path_factory.mktemp("accept")
    return out, *accept(out, "--section", *SECTIONS, "--jobs", "1")


def test_the_run_passes_on_the_cpu(on_cpu: tuple[Path, int, dict[str, Any]]) -> None:
    _, code, found = on_cpu
    assert code == 0 and found["passed"] and set(found["sections"]) == set(SECTIONS)


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_passes_on_the_cpu(on_cpu: tuple[Path, int, dict[str, Any]], section: str) -> None:
    outcome = on_cpu[2]["sections"][section]
    assert outcome["passed"], outcome["error"]
    assert outcome["detail"]


def test_the_lab_of_a_machine_without_mlflow_is_published_by_another_one(
    on_cpu: tuple[Path, int, dict[str, Any]], tmp_path: Path
) -> None:
    with tarfile.open(on_cpu[0] / "lab.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    file = tmp_path / "lab" / "experiments" / "gpu.yaml"
    command = [sys.executable, "-m", "fcnlab", "grid", "sync", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=patience())
    assert done.returncode == 0, done.stderr
    frame = fcnlab.frame(fcnlab.load_grid(file))
    assert len(frame) == 4 and set(frame["status"]) == {"finished"}


def test_a_resumed_run_keeps_the_passed_sections_and_runs_the_others(tmp_path: Path) -> None:
    accept(tmp_path, "--section", "environment")
    written = tmp_path / "accept.json"
    before = json.loads(written.read_text())
    before["sections"]["environment"]["detail"] = "kept"
    before["sections"]["steps"] = before["sections"]["environment"] | {"section": "steps", "passed": False}
    written.write_text(json.dumps(before))
    code, found = accept(tmp_path, "--section", "environment", "steps", "--resume")
    assert code == 0 and found["sections"]["environment"]["detail"] == "kept"
    assert found["sections"]["steps"]["passed"] and found["sections"]["steps"]["detail"] != "kept"


def test_sections_without_a_gpu_fail_separately_with_their_traceback(tmp_path: Path) -> None:
    code, found = accept(tmp_path, "--section", "environment", "steps", device="cuda")
    assert code == 1 and not found["passed"]
    assert {name: outcome["passed"] for name, outcome in found["sections"].items()} == {
        "environment": False,
        "steps": False,
    }
    assert "Traceback" in found["sections"]["steps"]["error"]


def test_sections_that_the_budget_leaves_no_time_for_are_failures(tmp_path: Path) -> None:
    code, found = accept(tmp_path, "--section", "steps", "losses", "--budget", "0")
    assert code == 1
    assert {outcome["detail"] for outcome in found["sections"].values()} == {"not started: the budget is spent"}


PROGRAM = """
import json, os, signal, sys, time

pipe = os.fdopen(int(os.environ["FCNLAB_SECTION_PIPE"]), "w")
for name in sys.argv[sys.argv.index("--section") + 1:]:
    print("running", name, flush=True)
    if name == "crashes":
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "hangs":
        with open("result-hangs.json", "w") as file:
            file.write('{"half": 1}')
        time.sleep(600)
    print(json.dumps({"section": name, "passed": True, "seconds": 0.0, "detail": ""}), file=pipe, flush=True)
"""
"""A program that runs sections as the kit does, of which one ends its process and one never ends."""


def test_a_section_that_crashes_or_hangs_ends_only_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    results = Results(tmp_path / "accept.json")
    settings = Settings(tmp_path, tmp_path, "cpu")
    limit = max(1.0, 20 * start_seconds("import json"))  # a section that does not hang starts a process within it
    child = Child(settings, results, time.monotonic() + 10 * patience(), [str(program)], grace=1.0)
    child.run(["first", "crashes", "second", "hangs", "third"], limit=limit)
    outcomes = json.loads((tmp_path / "accept.json").read_text())["sections"]
    assert {name: outcome["passed"] for name, outcome in outcomes.items()} == {
        "first": True,
        "crashes": False,
        "second": True,
        "hangs": False,
        "third": True,
    }
    assert outcomes["crashes"]["detail"] == "its process ended with exit code -9"
    assert "no result within its time limit" in outcomes["hangs"]["detail"]
    assert "running hangs" in outcomes["hangs"]["error"]
    assert outcomes["hangs"]["result"] == {"half": 1}


def test_a_failed_check_keeps_what_was_measured(tmp_path: Path) -> None:
    def fails() -> dict[str, Any]:
        raise SectionFailed("too far off", {"error": 0.5})

    def hangs() -> dict[str, Any]:
        time.sleep(60)
        return {}

    kept = Results(tmp_path / "file.json", {"device": "none"})
    kept.add(run_section("good", lambda: {"detail": "all equal"}))
    kept.add(run_section("bad", fails))
    kept.add(run_section("slow", hangs, limit=0.2))
    assert kept.summarize() == 1
    found = json.loads((tmp_path / "file.json").read_text())
    assert found["device"] == "none"
    assert found["sections"]["good"]["result"] == {"detail": "all equal"}
    assert found["sections"]["bad"]["result"] == {"error": 0.5}
    assert found["sections"]["bad"]["detail"] == "SectionFailed: too far off"
    assert found["sections"]["slow"]["detail"].startswith("SectionTimeout")
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]
