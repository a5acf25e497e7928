"""The outputs in docs/grids.md are those of fcnlab."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest

from tests.conftest import REPOSITORY


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script that fills the page."""
    spec = importlib.util.spec_from_file_location("fill_grids", REPOSITORY / "docs" / "fill_grids.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_example_has_the_output_that_the_page_shows(script: ModuleType) -> None:
    page = script.PAGE.read_text(encoding="utf-8")
    assert len(script.EXAMPLE.findall(page)) == page.count("```yaml") == page.count("```text")
    assert script.fill(page) == page, "python docs/fill_grids.py"


def test_only_the_examples_of_errors_have_errors(script: ModuleType) -> None:
    page = script.PAGE.read_text(encoding="utf-8")
    errors = [found["output"] for found in script.EXAMPLE.finditer(page) if "fcnlab: error" in found["output"]]
    assert len(errors) == 2
    assert all(output.splitlines() and "grid.yaml: " in output for output in errors)
