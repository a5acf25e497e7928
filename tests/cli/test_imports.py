"""Packages that commands do not import: importing torch, MLflow and pandas takes seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.conftest import SMOKE, write_grid

HEAVY = ("torch", "torchvision", "timm", "mlflow", "pandas", "altair", "scipy", "matplotlib")

LIGHT = (
    "--version", "--help", "grid run --help", "grid status FILE", "grid schema", "registry list",
    "data list", "data cache list",
)  # fmt: skip
"""Commands that need none of these packages."""

ERRORS = (
    "--nope", "grid nope", "grid run gone.yaml", "grid run BAD", "grid run FILE --workers none",
    "grid status gone.yaml", "grid sync gone.yaml", "grid reproduce FILE:fcn9:0",
    "report gone.yaml", "report BAD",
    "report FILE --format nope", "compare FILE:fcn9 FILE:fcn8s", "diff FILE:fcn9:0 FILE:fcn8s:0", "evaluate gone.yaml",
    "evaluate FILE", "evaluate FILE:fcn9", "predict FILE:fcn9 photo.jpg", "predict FILE:fcn8s:0 photo.jpg",
    "export FILE:fcn9 --to torch", "train fcn99-resnet18 --dataset shapes --recipe smoke",
    "train fcn8s-tiny --dataset gone --recipe smoke", "train fcn8s-tiny --dataset camvid --recipe smoke",
    "model show fcn99", "model show fcn8s-tiny --size 3", "model compare fcn8s-tiny fcn99",
    "model compare fcn8s-tiny --sort nope", "registry show head gone", "data check gone", "data check camvid",
    "data stats camvid", "data preview camvid", "data add x --images gone --masks gone", "data fetch gone",
    "weights fetch gone.yaml", "weights fetch gone", "weights list gone.yaml", "ui gone.yaml", "lab check --lab gone",
)  # fmt: skip
"""Errors of the user that the command line, the YAML files or the names of files show."""

PROGRAM = """
import json, sys
import fcnlab
heavy = {heavy!r}
assert not {{"numpy", "pydantic", "typer", *heavy}} & set(sys.modules), "import fcnlab"
import fcnlab.cli
for words, wanted in {calls!r}:
    sys.argv = ["fcnlab", *words]
    code = 0
    try:
        fcnlab.cli.main()
    except SystemExit as stop:
        code = stop.code or 0
    print(json.dumps([words, code == wanted, code, sorted(set(heavy) & set(sys.modules))]), file=sys.__stderr__)
"""


def run(folder: Path, calls: list[tuple[list[str], int]]) -> None:
    """Run commands in one process and check their exit codes; none may import a heavy package."""
    code = PROGRAM.format(heavy=HEAVY, calls=calls)
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("[[")]
    assert len(lines) == len(calls)
    assert [line for line in lines if not line[1] or line[3]] == []


def test_commands_and_errors_of_the_user_import_no_heavy_package(tmp_path: Path) -> None:
    write_grid(tmp_path, SMOKE)
    write_grid(tmp_path, SMOKE.replace("fcn8s", "fcn9s"), "bad")
    calls = [(call, 0) for call in LIGHT] + [(call, 2) for call in ERRORS]
    replaced = [(call.replace("FILE", "experiments/question.yaml"), code) for call, code in calls]
    words = [(call.replace("BAD", "experiments/bad.yaml").split(), code) for call, code in replaced]
    run(tmp_path, words)
