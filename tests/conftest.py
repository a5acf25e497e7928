"""Fixtures and helpers of all tests: an empty lab, isolated from caches, data and tracking server of the user."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fcnlab.lab import Lab
from tests.leftovers import OWNER, end_processes, find_changes, read_state, restore_state, set_initial_state
from tests.patience import patience

REPOSITORY = Path(__file__).resolve().parent.parent

TESTS = count()
"""Numbers of the tests of this process."""

HIDDEN = pytest.StashKey[bool]()
"""Whether this run hides the machine's GPUs."""


def pytest_configure(config: pytest.Config) -> None:
    """Hide GPUs from the run and its child processes, before CUDA is initialized, unless `-m gpu` selects GPU tests.

    An existing value of CUDA_VISIBLE_DEVICES is kept. Then tests without the mark still train on the CPU.
    """
    wanted = re.search(r"(?<!not )\bgpu\b", config.getoption("markexpr") or "")
    config.stash[HIDDEN] = wanted is None and "CUDA_VISIBLE_DEVICES" not in os.environ
    if config.stash[HIDDEN]:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ[OWNER] = str(os.getpid())
    set_initial_state()  # fixtures of modules run before those of tests


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the tests marked `gpu` where torch finds no GPU."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked or torch.cuda.is_available():
        return
    reason = "GPUs are hidden; run pytest -m gpu" if config.stash[HIDDEN] else "torch finds no CUDA GPU"
    for item in marked:
        item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True, scope="module")
def _no_processes_left() -> Iterator[None]:
    """Fail after the last test of a module whose tests have left processes, and kill these."""
    yield
    if Path("/proc/self/task").is_dir():
        left = end_processes()
        assert not left, f"processes were left: {left}"


@pytest.fixture
def _no_state_left() -> Iterator[None]:
    """Fail after a test that leaves changed settings of the process, and restore these."""
    set_initial_state()
    before = read_state()
    yield
    changes = find_changes(before)
    if changes:
        restore_state(before)
    assert not changes, "; ".join(changes)


@pytest.fixture(autouse=True)
def _isolate(
    _no_state_left: None,
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Isolate tests from the user's settings, and from the GPU unless they are marked `gpu`."""
    monkeypatch.setenv("FCNLAB_ALLOW_EXTENSIONS", "")  # so that it is restored after a test that sets it by a flag
    for variable in ("FCNLAB_DATA", "FCNLAB_LAB", "FCNLAB_DEVICE", "FCNLAB_TRACKER", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("FCNLAB_PROBE", "0")
    cache = tmp_path_factory.getbasetemp() / "cache" / str(next(TESTS))  # mktemp reads the folders of all earlier tests
    cache.mkdir(parents=True)
    (cache / "javascript").symlink_to(_shared_scripts(tmp_path_factory))
    monkeypatch.setenv("FCNLAB_CACHE", str(cache))
    if request.node.get_closest_marker("gpu"):
        # Child processes that run pytest would hide the GPU again if nothing named it.
        every = ",".join(map(str, range(torch.cuda.device_count())))
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", os.environ.get("CUDA_VISIBLE_DEVICES", every))
    elif torch.cuda.is_available():
        monkeypatch.setenv("FCNLAB_DEVICE", "cpu")


def _shared_scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the page's bundled JavaScript, which takes two seconds and is shared by all tests."""
    folder = tmp_path_factory.getbasetemp() / "javascript"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """An empty lab."""
    return Lab.find(root=tmp_path)


@pytest.fixture
def real_data() -> Path:
    """Return the folder with real CamVid and VOC images; the test is skipped if it does not exist."""
    root = Path(os.environ.get("FCNLAB_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"the real images are not at {root}; set FCNLAB_TEST_DATA to their folder")
    return root


@contextmanager
def browser() -> Iterator[Any]:
    """Open a page in headless Chromium; the test is skipped if it is not installed.

    FCNLAB_TEST_CHROMIUM is the path of a Chromium that is not on the PATH.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="the browser is driven by Playwright")
    named = os.environ.get("FCNLAB_TEST_CHROMIUM")
    executable = named or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("no Chromium on this machine; install it or set FCNLAB_TEST_CHROMIUM")
    switches = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=executable, args=switches)
        page = chromium.new_page(viewport={"width": 1500, "height": 1000})
        page.set_default_timeout(1000 * patience())
        yield page
        chromium.close()


def arrays_of(file: Path) -> dict[str, Any]:
    """Read the arrays of a .npz file by name."""
    with np.load(file) as arrays:
        return dict(arrays)


def write_grid(folder: Path, text: str, name: str = "question") -> Path:
    """Write a grid file to a lab's experiments/."""
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
