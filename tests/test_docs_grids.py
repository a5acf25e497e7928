"""What docs/grids.md shows of its questions is what fcnlab says of them."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest

from tests.conftest import REPOSITORY


@pytest.fixture(scope="module")
def fill() -> ModuleType:
    """The script that fills the page."""
    spec = importlib.util.spec_from_file_location("fill_grids", REPOSITORY / "docs" / "fill_grids.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_example_has_the_cells_or_the_faults_that_the_page_shows(fill: ModuleType) -> None:
    page = fill.PAGE.read_text(encoding="utf-8")
    assert len(fill.EXAMPLE.findall(page)) == page.count("```yaml") == page.count("```text")
    assert fill.filled(page) == page, "python docs/fill_grids.py"


def test_only_the_examples_of_faults_have_any(fill: ModuleType) -> None:
    page = fill.PAGE.read_text(encoding="utf-8")
    faulty = [found["said"] for found in fill.EXAMPLE.finditer(page) if "fcnlab: error" in found["said"]]
    assert len(faulty) == 2
    assert all(said.splitlines() and "question.yaml: " in said for said in faulty)
