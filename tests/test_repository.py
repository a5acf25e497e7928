"""The files of the repository equal those that the code writes: committed results, the README's table, the wheel."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from fcnlab.lab import Lab
from tests.conftest import REPOSITORY
from tests.patience import patience

GRIDS = sorted(path.stem for path in (REPOSITORY / "experiments").glob("*.yaml"))


@pytest.mark.parametrize(
    ("page", "script", "blocks"), [("README.md", "fill_readme", 2), ("docs/gpu.md", "fill_gpu", 4)]
)
def test_the_generated_blocks_of_a_page_are_current(page: str, script: str, blocks: int) -> None:
    spec = importlib.util.spec_from_file_location(script, REPOSITORY / "docs" / f"{script}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    assert text.count("<!-- generated: ") == blocks
    assert module.fill_blocks(text) == text, f"python docs/{script}.py"


@pytest.mark.parametrize("name", GRIDS)
def test_every_grid_of_the_repository_has_complete_results(name: str) -> None:
    facts = json.loads((REPOSITORY / "results" / name / "provenance.json").read_text(encoding="utf-8"))
    grid = Lab.find(REPOSITORY / "experiments" / f"{name}.yaml").load_grid(REPOSITORY / "experiments" / f"{name}.yaml")
    assert facts["question"] == grid.file.question
    assert {trial["status"] for trial in facts["trials"]} == {"finished"}
    assert {(t["cell"], t["seed"]) for t in facts["trials"]} == {(c.label, s) for c in grid.cells for s in grid.seeds}
    page = (REPOSITORY / "results" / name / "README.md").read_text(encoding="utf-8")
    assert facts["command"] in page
    assert (REPOSITORY / "results" / name / "table.md").read_text(encoding="utf-8") in page


def test_the_results_of_the_quickstart_have_the_current_trial_keys() -> None:
    path = REPOSITORY / "experiments" / "quickstart.yaml"
    lab = Lab.find(path)
    keys = {trial.key for _, trial in lab.load_grid(path).trials(lab.fingerprints)}
    facts = json.loads((REPOSITORY / "results" / "quickstart" / "provenance.json").read_text(encoding="utf-8"))
    assert {trial["key"] for trial in facts["trials"]} == keys


@pytest.mark.parametrize("name", [name for name in GRIDS if name != "quickstart"])
def test_the_results_on_real_data_have_the_current_trial_keys(name: str, real_data: Path) -> None:
    path = REPOSITORY / "experiments" / f"{name}.yaml"
    lab = Lab.find(path, data_root=real_data)
    keys = {trial.key for _, trial in lab.load_grid(path).trials(lab.fingerprints)}
    facts = json.loads((REPOSITORY / "results" / name / "provenance.json").read_text(encoding="utf-8"))
    assert {trial["key"] for trial in facts["trials"]} == keys


def test_the_wheel_contains_registry_and_quickstart(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path)]
    subprocess.run([*command, str(REPOSITORY)], check=True, timeout=patience(), capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for source, place in (("registry", "fcnlab/registry"), ("experiments", "fcnlab/experiments")):
        for file in (REPOSITORY / source).glob("*.yaml"):
            assert f"{place}/{file.name}" in names
    for file in (REPOSITORY / "fcnlab").rglob("*.py"):
        assert str(file.relative_to(REPOSITORY)) in names, "a package is missing from pyproject.toml"
    assert {name.partition("/")[0] for name in names} == {"fcnlab", "fcnlab-0.1.0.dist-info"}
