"""Stores in databases other than SQLite, with a fake driver or a port where nothing listens."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fcnlab.errors import TrackingError
from fcnlab.lab import Lab
from fcnlab.runner.plan import make_plan
from fcnlab.runner.progress.base import ProgressReporter
from fcnlab.runner.run import sync_grid
from fcnlab.tracking import database
from fcnlab.tracking.database import CONNECT_TIMEOUT, check_connection
from fcnlab.tracking.store import convert_errors, find_local_folder, open_client, open_experiment
from tests.report.finished_grid import finished_lab

PASSWORD = "s3cr3t-w0rd"


def fake_driver(connect: Any) -> ModuleType:
    """Return a driver with the interface of PyMySQL that SQLAlchemy uses."""
    driver = ModuleType("pymysql")
    for name in ("Error", "OperationalError", "ProgrammingError", "InternalError", "InterfaceError"):
        setattr(driver, name, type(name, (Exception if name == "Error" else driver.Error,), {}))
    driver.__dict__.update(paramstyle="format", threadsafety=1, apilevel="2.0", connect=connect, version_info=(1, 1, 0))
    return driver


def test_a_database_that_is_down_is_an_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def connect(**options: Any) -> None:
        asked.append(options)
        try:
            socket.create_connection((options["host"], options["port"]), options["connect_timeout"])
        except OSError as error:
            raise driver.OperationalError(2003, f"Can't connect as {options['password']}\n({error})") from None
        raise AssertionError("a server answers")

    driver = fake_driver(connect)
    monkeypatch.setitem(sys.modules, "pymysql", driver)
    uri = f"mysql+pymysql://alice:{PASSWORD}@127.0.0.1:9/mlflow"
    Lab.find(Path(), tracking_uri=uri)  # remembers the password
    with pytest.raises(TrackingError) as refused, convert_errors(uri):
        open_client(uri)
    assert len(asked) == 1, "MLflow would try ten times"
    assert asked[0]["connect_timeout"] == asked[0]["read_timeout"] == CONNECT_TIMEOUT
    assert str(refused.value).startswith(
        "mysql+pymysql://127.0.0.1:9/mlflow: the database cannot be opened: (2003, \"Can't connect as ***"
    )
    assert PASSWORD not in str(refused.value) and "\n" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_timeout_of_the_uri_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def connect(**options: Any) -> None:
        asked.append(options)
        raise driver.OperationalError(1045, "Access denied")

    driver = fake_driver(connect)
    monkeypatch.setitem(sys.modules, "pymysql", driver)
    with pytest.raises(TrackingError, match="Access denied"):
        check_connection("mysql+pymysql://alice@127.0.0.1:9/mlflow?connect_timeout=3")
    assert asked[0]["connect_timeout"] == 3


@pytest.mark.parametrize(
    ("uri", "driver", "remedy"),
    [
        ("postgresql+psycopg://alice@127.0.0.1:9/db", "psycopg", "pip install 'psycopg[binary]', or pip install"),
        ("mysql+mysqldb://alice@127.0.0.1:9/db", "MySQLdb", "pip install pymysql and write mysql+pymysql://"),
        ("mssql+pyodbc://alice@127.0.0.1:9/db", "pyodbc", "pip install pyodbc and write mssql+pyodbc://"),
    ],
)
def test_a_missing_driver_is_named_with_its_remedy(
    uri: str, driver: str, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, driver, None)
    grid, lab = finished_lab(tmp_path)
    (reason,) = sync_grid(grid, Lab.find(root=lab.root, tracking_uri=uri), ProgressReporter()).deferred.values()
    assert reason.startswith(f"{uri}: the Python driver of the database is not installed (")
    assert driver in reason and remedy in reason and "\n" not in reason
    assert make_plan(grid, lab).remaining == []


@pytest.mark.parametrize("uri", ["postgresql+psycopg://host:port/db", "mysql+nosuch://host/db"])
def test_an_invalid_uri_of_a_database_is_one_line(uri: str) -> None:
    with pytest.raises(TrackingError) as refused:
        check_connection(uri)
    assert "\n" not in str(refused.value)


class RecordingClient:
    """Keeps the location of the experiment that is created."""

    location: str | None = None

    def get_experiment_by_name(self, _name: str) -> None: ...

    def create_experiment(self, _name: str, *, artifact_location: str | None, tags: object) -> str:
        self.location = artifact_location
        return "1"


@pytest.mark.parametrize(
    ("uri", "is_local"),
    [("postgresql+psycopg2://h/db", True), ("mysql://h/db", True), ("sqlite:////a.db", True), ("http://h", False)],
)
def test_files_of_a_database_are_in_the_lab_and_not_in_the_current_folder(
    uri: str, is_local: bool, tmp_path: Path
) -> None:
    client: Any = RecordingClient()
    open_experiment(client, "fcnlab/a b", uri, tmp_path / "mlartifacts")
    assert client.location == ((tmp_path / "mlartifacts" / "fcnlab" / "a b").as_uri() if is_local else None)
    if is_local:
        assert find_local_folder(client.location) == tmp_path / "mlartifacts" / "fcnlab" / "a b"


@pytest.mark.parametrize(
    ("uri", "remedy"),
    [
        ("file:{folder}/mlruns", "MLflow does not write to folders any more; set sqlite:///"),
        ("{folder}/mlruns", "MLflow does not write to folders any more; set sqlite:///"),
        ("localhost:5600", "this is no URI; write http://localhost:5600"),
        ("mlflow.example.org:5600/ml", "this is no URI; write http://mlflow.example.org:5600/ml"),
        ("127.0.0.1:5600", "this is no URI; write http://127.0.0.1:5600"),
        ("htp://host", "MLflow has no such kind of store; valid: http://"),
    ],
)
def test_a_uri_that_mlflow_does_not_accept_is_one_line_with_the_remedy(
    uri: str, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    monkeypatch.chdir(tmp_path)
    uri = uri.format(folder=tmp_path)
    with pytest.raises(TrackingError) as refused, convert_errors(uri):
        open_client(uri).search_experiments()
    assert str(refused.value).startswith(f"{uri}: MLflow store: {remedy}"), refused.value
    assert list(tmp_path.iterdir()) == [] and database.is_database(uri) is False


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (401, "You are not authenticated.", "the server refuses the user or the token (error 401)"),
        (403, "Permission denied", "this user or token has no permission (error 403); if the experiment belongs to"),
        (403, "Invalid Host header - possible DNS rebinding attack detected", "the server does not accept its name"),
        (404, "<!doctype html>\n<html>", "nothing of MLflow is at this address (error 404); add the path"),
    ],
)
def test_an_answer_of_a_server_is_described_with_the_remedy(
    status: int, body: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.utils.rest_utils import verify_rest_response
    from requests import Response

    response = Response()
    response.status_code, response._content = status, body.encode()
    with pytest.raises(TrackingError) as refused, convert_errors("http://host"):
        verify_rest_response(response, "/api/2.0/mlflow/experiments/get-by-name")
    assert str(refused.value).startswith(f"http://host: MLflow store: {reason}")
