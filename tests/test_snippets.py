"""The Python code in the README and the documentation runs, in one lab with a finished grid."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import fcnlab
from fcnlab.inference.export import export
from tests.conftest import REPOSITORY, create_cache

SNIPPET = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)

PAGES = {
    path.relative_to(REPOSITORY).as_posix(): SNIPPET.findall(path.read_text(encoding="utf-8"))
    for path in [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
}

RUN = ("README.md", "docs/using-a-model.md")
"""Pages whose code runs, in the order of the page and with the names of the code before it."""

COMPILED = {
    "docs/data.md": "it needs pycocotools and a file of annotations",
    "docs/extending.md": "tests/test_extensions.py trains with these classes",
    "docs/mlflow.md": "it needs the id of a run of the reader",
}
"""Pages whose code is only compiled."""

GRID = """
question: Does the code run?
base: {backbone: tiny-scratch, dataset: shapes-mini, recipe: smoke}
cells: [{head: fcn8s}]
"""

REPLACED = {"num_classes=21)": "num_classes=21, pretrained=False)"}
"""Parts of the code that would download something."""


@pytest.fixture(scope="module")
def lab_of_readers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A lab with a short quickstart that has finished, an image, and an exported model, as the current folder."""
    root = tmp_path_factory.mktemp("lab")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FCNLAB_CACHE", str(create_cache(tmp_path_factory)))
        patch.chdir(root)
        Path("experiments").mkdir()
        Path("experiments/quickstart.yaml").write_text(GRID, encoding="utf-8")
        Image.linear_gradient("L").convert("RGB").resize((90, 70)).save("photo.jpg")
        fcnlab.run_grid(fcnlab.load_grid("experiments/quickstart.yaml"), executor="serial", quiet=True)
        export(fcnlab.load("experiments/quickstart.yaml:best"), "onnx", Path("best.onnx"))
        yield root


@pytest.mark.parametrize("page", RUN)
def test_the_code_of_a_page_runs(page: str, lab_of_readers: Path) -> None:
    names: dict[str, Any] = {}
    for number, code in enumerate(PAGES[page], 1):
        for part, other in REPLACED.items():
            code = code.replace(part, other)
        exec(compile(code, f"{page}, block {number}", "exec"), names)
    assert names["labels"].shape == (70, 90)


@pytest.mark.parametrize("page", [page for page in PAGES if page not in RUN and PAGES[page]])
def test_the_code_of_other_pages_is_python(page: str) -> None:
    assert page in COMPILED, "run it, or state why it is only compiled"
    for number, code in enumerate(PAGES[page], 1):
        compile(code, f"{page}, block {number}", "exec")


def test_the_keys_in_sample_outputs_are_those_of_the_quickstart() -> None:
    page = (REPOSITORY / "docs" / "using-a-model.md").read_text(encoding="utf-8")
    trials = (REPOSITORY / "results" / "quickstart" / "trials.csv").read_text(encoding="utf-8")
    keys = set(re.findall(r"\b[0-9a-f]{12}\b", page))
    assert keys and all(f"\n{key}" in trials for key in keys)
