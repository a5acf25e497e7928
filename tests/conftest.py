"""Fixtures and helpers of all tests: an empty lab, isolated from caches, data and tracking server of the user."""

from __future__ import annotations

import gc
import os
import re
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fcnlab.lab import Lab
from fcnlab.tracking import store
from tests.leftovers import OWNER, end_processes, find_changes, read_state, restore_state, set_initial_state
from tests.patience import patience

REPOSITORY = Path(__file__).resolve().parent.parent

CACHES = count()
"""Numbers of the caches of this process."""

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
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored under `nohup`, also by child processes; tests send it
    os.environ[OWNER] = str(os.getpid())
    gc.set_threshold(50_000, 20, 100)  # with Python's 700, a tenth of the time of the tests is garbage collection
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
    monkeypatch.setenv("FCNLAB_CACHE", str(create_cache(tmp_path_factory)))
    if request.node.get_closest_marker("gpu"):
        # Child processes that run pytest would hide the GPU again if nothing named it.
        every = ",".join(map(str, range(torch.cuda.device_count())))
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", os.environ.get("CUDA_VISIBLE_DEVICES", every))
    elif torch.cuda.is_available():
        monkeypatch.setenv("FCNLAB_DEVICE", "cpu")


def create_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a cache that contains only what takes seconds to make: the bundled JavaScript and the compiled kernels.

    Each cache has the kernels of the previous one, so that they are compiled once, also for the processes of a test.
    """
    base = tmp_path_factory.getbasetemp()
    number = next(CACHES)
    cache = base / "caches" / str(number)  # mktemp reads the folders of all earlier tests
    cache.mkdir(parents=True)
    scripts = base / "javascript"
    scripts.mkdir(exist_ok=True)
    (cache / "javascript").symlink_to(scripts)
    kernels = cache / f"kernels-{os.getuid()}"
    kernels.mkdir(mode=0o700)
    for library in (cache.with_name(str(number - 1)) / kernels.name).glob("*.so"):
        digest = library.with_suffix(".sha256")
        if digest.exists():
            for file in (library, digest):
                (kernels / file.name).hardlink_to(file)
    return cache


@pytest.fixture(autouse=True, scope="session")
def create_mlflow_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], None]]:
    """Copy one empty MLflow store for each lab of this process, since MLflow takes a second to create a store.

    The value is the function that creates a store, for tests of it.
    """
    create = store._create_store
    empty = tmp_path_factory.mktemp("mlflow") / "mlflow.db"

    def copy(file: Path) -> None:
        if not empty.exists():
            create(empty)
        draft = file.with_name(f".{file.name}.draft")
        shutil.copy(empty, draft)
        artifacts = (file.absolute().parent / "mlartifacts" / "0").as_uri()
        with closing(sqlite3.connect(draft)) as database, database:
            database.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = 0", (artifacts,))
        os.replace(draft, file)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "_create_store", copy)
        yield create


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
