"""The UI of MLflow on a lab's store in a browser, with a finished grid."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fcnlab
from tests.conftest import SMOKE, browser, write_grid
from tests.patience import patience


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
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    try:
        output = [process.stdout.readline() for _ in range(3)]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=patience()):
            pass  # it answers when its address is printed
        assert output[0].strip() == f"MLflow: http://127.0.0.1:{port} (Ctrl-C ends it)"
        assert f"ssh -L {port}:127.0.0.1:{port}" in output[2]
        yield output[1].split(": ", 1)[1].strip(), process
    finally:
        process.terminate()
        rest = process.communicate(timeout=patience())[0]
    assert rest == "", "the log of MLflow is not printed"


def test_the_grids_comparison_shows_cells_side_by_side(served: tuple[str, Any]) -> None:
    with browser() as page:
        page.goto(served[0])
        page.get_by_text("Group: fcn8s").wait_for()
        page.get_by_text("Group: fcn32s").wait_for()
        page.get_by_text("Cells, averaged over seeds").wait_for()
        page.locator(".js-plotly-plot").first.wait_for()
        for chart in ("val/miou", "train/loss", "cost/gmacs"):
            page.get_by_text(chart, exact=True).first.wait_for()
        assert page.get_by_text("fcn8s, seed 1").count() == 1


def test_two_runs_are_compared(served: tuple[str, Any]) -> None:
    with browser() as page:
        page.goto(served[0].replace("compareRunsMode=CHART&", ""))
        page.get_by_text("Group: fcn8s").wait_for()
        for run in ("fcn8s, seed 0", "fcn32s, seed 0"):
            row = page.get_by_role("row").filter(has_text=run)
            row.get_by_role("checkbox", name=re.compile("toggle row selection")).first.check()
        page.get_by_role("button", name="Compare").click()
        page.get_by_text("Comparing 2 Runs").wait_for()
        page.get_by_text("backbone.timm").first.wait_for()
        page.get_by_text("cost/gmacs").first.wait_for()


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
