"""The tutorial runs, and its saved outputs are those of its code."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.conftest import REPOSITORY


@pytest.fixture(scope="module")
def saved() -> Any:
    """The notebook of the repository."""
    return nbformat.read(REPOSITORY / "docs" / "tutorial.ipynb", as_version=4)


def kinds_of(notebook: Any) -> list[list[list[str]]]:
    """Return the types of content of each output of each cell of code."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [[sorted(output.get("data", {output.output_type: ""})) for output in cell.outputs] for cell in code]


def text_of(notebook: Any) -> str:
    return "\n".join(str(output) for cell in notebook.cells for output in cell.get("outputs", ()))


def test_the_notebook_runs_and_shows_the_saved_outputs(
    saved: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TUTORIAL_CAMVID", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    spec = importlib.util.spec_from_file_location("fill_tutorial", REPOSITORY / "docs" / "fill_tutorial.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    executed = script.run(REPOSITORY / "docs" / "tutorial.ipynb", tmp_path)
    remedy = "python docs/fill_tutorial.py"
    assert [cell.source for cell in executed.cells] == [cell.source for cell in saved.cells]
    assert kinds_of(executed) == kinds_of(saved), remedy
    shown, text = text_of(saved), text_of(executed)
    for line in (
        "splits: train 42, val 9, test 9",
        "4 trials finished",
        "4 finished (0 reused), 0 failed",
        "3: field, pond",
    ):
        assert line in text and line in shown, remedy
    keys = re.findall(r"trial ([0-9a-f]{12}), on", text)
    assert keys and keys == re.findall(r"trial ([0-9a-f]{12}), on", shown), f"keys of trials have changed; {remedy}"
    assert "error" not in text and {file.name for file in tmp_path.iterdir()} == {"mylab"}


def test_the_saved_outputs_are_small_and_have_no_path_of_a_machine(saved: Any) -> None:
    assert (REPOSITORY / "docs" / "tutorial.ipynb").stat().st_size < 200_000
    assert not re.findall(r"/(?:tmp|home|root|work|Users)\b", text_of(saved))
    assert "stderr" not in text_of(saved)
