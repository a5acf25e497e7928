"""The UI of MLflow on a lab's store in a browser, with a finished grid."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fcnlab
from tests.conftest import SMOKE, browser, write_grid

START_UP = 60
"""Seconds that a machine under load is given; on an idle one it takes less than ten."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of the comparison of a finished grid, and the process that serves it."""
    pytest.importorskip("playwright", reason="the browser is driven by Playwright")
    path = write_grid(tmp_path_factory.mktemp("ui"), SMOKE)
    assert fcnlab.run_grid(fcnlab.load_grid(path), workers=2, threads=1, quiet=True).finished == 4
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "fcnlab", "ui", str(path), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        output = [process.stdout.readline() for _ in range(2)]
        assert f"http://127.0.0.1:{port}" in output[0]
        _wait_until_ready(f"http://127.0.0.1:{port}/health")
        yield output[1].split(": ", 1)[1].strip(), process
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def _wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + START_UP
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"MLflow did not answer at {url}")


def test_the_grids_comparison_shows_cells_side_by_side(served: tuple[str, Any]) -> None:
    with browser() as page:
        page.goto(served[0])
        page.get_by_text("Group: fcn8s").wait_for(timeout=60_000)
        page.get_by_text("Group: fcn32s").wait_for()
        page.get_by_text("Cells, averaged over seeds").wait_for()
        page.locator(".js-plotly-plot").first.wait_for(timeout=60_000)
        assert page.get_by_text("fcn8s, seed 1").count() == 1


def test_two_runs_are_compared(served: tuple[str, Any]) -> None:
    with browser() as page:
        page.goto(served[0].replace("compareRunsMode=CHART&", ""))
        page.get_by_text("Group: fcn8s").wait_for(timeout=60_000)
        for run in ("fcn8s, seed 0", "fcn32s, seed 0"):
            row = page.get_by_role("row").filter(has_text=run)
            row.get_by_role("checkbox", name=re.compile("toggle row selection")).check()
        page.get_by_role("button", name="Compare").click()
        page.get_by_text("Comparing 2 Runs").wait_for(timeout=60_000)
        assert page.get_by_text("pixel_acc").count() > 0


def test_the_server_has_few_processes_on_the_loopback_interface(served: tuple[str, Any]) -> None:
    if not Path("/proc").is_dir():
        pytest.skip("counts processes in /proc, which only Linux has")
    assert len(list(_family(served[1].pid))) <= 3
    listening = Path("/proc/net/tcp").read_text()
    port = int(served[0].split(":")[2].split("/")[0])
    assert f"0100007F:{port:04X}" in listening and f"00000000:{port:04X}" not in listening


def _family(process: int) -> Iterator[int]:
    yield process
    for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
        yield from _family(int(child))
