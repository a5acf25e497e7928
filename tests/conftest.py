"""What tests share: a lab of their own, away from the user's caches, data and tracking server."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fcnlab.places import Lab

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _own_places(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes what belongs to the user."""
    for variable in ("FCNLAB_DATA", "FCNLAB_LAB", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("FCNLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", os.environ.get("CUDA_VISIBLE_DEVICES", ""))


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """An empty lab."""
    return Lab.find(lab=tmp_path)


@pytest.fixture
def real_data() -> Path:
    """The folder with the real CamVid and VOC images, where it is there."""
    root = Path(os.environ.get("FCNLAB_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"the real images are not at {root}; set FCNLAB_TEST_DATA to their folder")
    return root


@contextmanager
def browser() -> Iterator[Any]:
    """A page of a headless Chromium; the test is skipped where there is none.

    FCNLAB_TEST_CHROMIUM names one that is not on the path.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="the browser is driven by Playwright")
    named = os.environ.get("FCNLAB_TEST_CHROMIUM")
    executable = named or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("no Chromium on this machine; install it or set FCNLAB_TEST_CHROMIUM")
    switches = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=executable, args=switches)
        yield chromium.new_page(viewport={"width": 1500, "height": 1000})
        chromium.close()


def arrays_of(file: Path) -> dict[str, Any]:
    """The arrays of a .npz file by name, read and closed."""
    with np.load(file) as arrays:
        return dict(arrays)


def write_grid(folder: Path, text: str, name: str = "question") -> Path:
    """Write a grid file into a lab's experiments/."""
    path = folder / "experiments" / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


SMOKE = """
question: Does it run?
base: {backbone: tiny-scratch, upsampler: bilinear, dataset: shapes-mini, recipe: smoke}
product: {head: [fcn32s, fcn8s]}
seeds: 2
baseline: {head: fcn32s}
"""
"""A grid of four trials that take seconds."""
