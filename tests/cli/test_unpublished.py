"""Reports of a lab whose MLflow store raises errors."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shlex import quote
from threading import Thread

import pytest

import fcnlab as package
from fcnlab.config.grid.grid import Grid
from fcnlab.lab import Lab
from fcnlab.runner.progress.base import ProgressReporter
from fcnlab.runner.run import sync_grid
from fcnlab.tracking.store import open_client
from tests.cli.conftest import Call
from tests.report.finished_grid import finished_lab


@pytest.fixture
def grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Grid:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return finished_lab(tmp_path)[0]


class _Failing(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(500)
        self.end_headers()

    do_POST = do_GET  # noqa: N815 - the name that the server calls

    def log_message(self, *_arguments: object) -> None: ...


@pytest.fixture
def failing_server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Failing) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def delete_experiment(lab: Path) -> str:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{lab}/mlflow.db")
    experiment = client.get_experiment_by_name("fcnlab/question").experiment_id
    client.delete_experiment(experiment)
    return str(experiment)


def test_a_deleted_experiment_does_not_stop_a_report_and_remedies_are_printed(
    fcnlab: Call, grid: Grid, tmp_path: Path
) -> None:
    lab = Lab.find(grid.path)
    assert sync_grid(grid, lab, ProgressReporter()).deferred == {}
    experiment = delete_experiment(tmp_path)
    uri = f"sqlite:///{tmp_path}/mlflow.db"

    reported = fcnlab("report", grid.path)
    assert reported.code == 0
    assert "fcn16s" in reported.out and (tmp_path / "results" / "question" / "table.md").is_file()
    lines = reported.err.splitlines()
    assert lines == [
        f"not published: {uri}: the experiment 'fcnlab/question' is deleted",
        f"restore it: MLFLOW_TRACKING_URI={uri} mlflow experiments restore -x {experiment}",
        "or delete it permanently: "
        f"MLFLOW_TRACKING_URI={uri} mlflow gc --backend-store-uri {uri} --experiment-ids {experiment}",
        "publish later with: fcnlab grid sync experiments/question.yaml",
    ]

    run = fcnlab("grid", "run", grid.path)
    assert run.code == 1, "not everything that was asked for has been done"
    assert "fcn16s" in run.out and run.err.splitlines() == lines

    shown = fcnlab("ui", grid.path)
    assert shown.code == 2
    assert [line.removeprefix("fcnlab: error: ") for line in shown.err.splitlines()] == [
        lines[0].removeprefix("not published: "),
        *lines[1:3],
    ]

    command = lines[1].partition("mlflow ")[2].split()
    restored = [sys.executable, "-m", "mlflow", *command]
    subprocess.run(restored, check=True, env={"MLFLOW_TRACKING_URI": uri, "PATH": ""}, capture_output=True)
    assert fcnlab("grid", "sync", grid.path).code == 0


@pytest.mark.parametrize("problem", ["unreachable", "500", "damaged", "locked", "read-only", "scheme"])
def test_no_error_of_the_store_stops_a_report(
    fcnlab: Call,
    grid: Grid,
    tmp_path: Path,
    problem: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fcnlab.tracking.store.LOCK_TIMEOUT", 0.1)
    database = tmp_path / "store.db"
    uri = f"sqlite:///{database}"
    if problem == "unreachable":
        uri = "http://127.0.0.1:9"  # the discard port: no server answers
    elif problem == "500":
        uri = request.getfixturevalue("failing_server")
    elif problem == "scheme":
        uri = "unknown://store"
    elif problem == "damaged":
        database.write_text("this is no database " * 100)
    else:
        open_client(uri)
        uri = f"sqlite:///file:{database}?uri=true&" + ("mode=ro" if problem == "read-only" else "timeout=0.1")
    with closing(sqlite3.connect(database)) as other:
        if problem == "locked":
            other.execute("BEGIN EXCLUSIVE")
        reported = fcnlab("report", grid.path, "--tracking-uri", uri)
    assert reported.code == 0
    assert "fcn16s" in reported.out and (tmp_path / "results" / "question" / "report.html").is_file()
    first, last = reported.err.splitlines()
    assert first.startswith("not published: ")
    assert last == f"publish later with: fcnlab grid sync experiments/question.yaml --tracking-uri {quote(uri)}"


def test_python_warns_that_only_the_lab_was_read(grid: Grid) -> None:
    lab = Lab.find(grid.path, tracking_uri="http://127.0.0.1:9")
    with pytest.warns(UserWarning, match="the server cannot be reached"):
        assert set(package.frame(grid, lab=lab)["status"]) == {"finished"}


def test_an_error_of_another_tracker_does_not_keep_the_report_from_mlflow(
    fcnlab: Call, grid: Grid, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    (tmp_path / "tensorboard").write_text("a file in the place of the folder")
    synced = fcnlab("grid", "sync", grid.path, "--tracker", "tensorboard,mlflow")
    assert synced.code == 1
    first, last = synced.err.splitlines()
    assert first.startswith(f"not published: {tmp_path}/tensorboard/question: TensorBoard's files cannot be")
    assert last == "publish later with: fcnlab grid sync experiments/question.yaml --tracker tensorboard,mlflow"
    assert "compare the runs in MLflow: " in synced.out
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("fcnlab/question").experiment_id
    (parent,) = client.search_runs([experiment], "tags.`fcnlab.role` = 'grid'")
    assert "report" in {item.path for item in client.list_artifacts(parent.info.run_id)}
