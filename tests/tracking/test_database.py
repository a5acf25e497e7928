"""Stores in databases other than SQLite, with a fake driver or a port where nothing listens."""

from __future__ import annotations

import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from mlflow.entities import Experiment
from sqlalchemy import make_url

from fcnlab.errors import TrackingError
from fcnlab.lab import Lab
from fcnlab.runner.plan import make_plan
from fcnlab.runner.progress.base import ProgressReporter
from fcnlab.runner.run import sync_grid
from fcnlab.tracking import database
from fcnlab.tracking.database import CONNECT_TIMEOUT, QUERY_TIMEOUT, check_connection, limit_queries
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


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        ("mysql+pymysql://al:p@ss:w0rd/x#@127.0.0.1:9/db", "is no URI of a database; write mysql+pymysql://USER:PASSW"),
        ("postgresql+psycopg://host:port/db", "is no URI of a database; write postgresql+psycopg://USER:PASSWORD@HOST"),
        ("mysql+pymysql://al:x@127.0.0.1:9", "names no database; append its name, as in mysql+pymysql://HOST/NAME"),
        ("mysql+pymysql://al:x@127.0.0.1:9/", "names no database; append its name"),
    ],
)
def test_a_uri_without_a_port_or_a_database_is_explained_without_the_password(uri: str, problem: str) -> None:
    Lab.find(Path(), tracking_uri=uri)  # remembers the password
    with pytest.raises(TrackingError) as refused:
        check_connection(uri)
    assert f": {problem}" in str(refused.value) and "w0rd" not in str(refused.value)
    assert ("%40 for @" in str(refused.value)) == ("is no URI" in problem)


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        ("Access denied for user 'al'@'localhost' (using password: YES)", "check the user and the password of the URI"),
        ("Unknown database 'nodb'", "create the database first"),
        (
            "Can't connect to MySQL server on '127.0.0.1' ([Errno 111] Connection refused)",
            "check the host and the port",
        ),
    ],
)
def test_an_error_of_a_database_has_a_remedy(message: str, remedy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(**_options: Any) -> None:
        raise driver.OperationalError(1, message)

    driver = fake_driver(connect)
    monkeypatch.setitem(sys.modules, "pymysql", driver)
    with pytest.raises(TrackingError) as refused:
        check_connection("mysql+pymysql://al:x@127.0.0.1:9/db")
    assert message in str(refused.value) and f"; {remedy}" in str(refused.value)


@pytest.mark.parametrize(
    "reason", ["(1366, \"Incorrect string value: '\\xE9'", '(1267, "Illegal mix of collations (latin1']
)
def test_a_character_set_without_the_characters_of_the_grid_is_an_error_with_a_remedy(reason: str) -> None:
    with pytest.raises(TrackingError, match="create another database with CHARACTER SET utf8mb4"), convert_errors("m"):
        raise OSError(f"(pymysql.err.DataError) {reason}")


def test_queries_of_a_database_have_a_timeout_unless_its_uri_has_one() -> None:
    for driver in ("mysql+pymysql", "mysql+mysqldb", "mysql"):
        limited = make_url(limit_queries(f"{driver}://al:p%40s%2Fs@host:9/db?charset=utf8mb4&read_timeout=7"))
        assert (limited.password, limited.host, limited.database) == ("p@s/s", "host", "db")
        assert limited.query == {"charset": "utf8mb4", "read_timeout": "7", "write_timeout": str(QUERY_TIMEOUT)}
    for uri in ("postgresql+psycopg://h/db", "sqlite:////a.db", "http://h"):
        assert limit_queries(uri) == uri


@dataclass
class NamedClient:
    """A store whose database finds an experiment also by a name with other accents or in another case."""

    name: str

    def get_experiment_by_name(self, _name: str) -> Any:
        return Experiment("7", self.name, "file:///a", "active")


def test_an_experiment_that_a_database_does_not_distinguish_is_an_error_that_names_both() -> None:
    client: Any = NamedClient("fcnlab/Roads")
    assert open_experiment(client, "fcnlab/Roads", "mysql://h/db", None) == "7"
    with pytest.raises(TrackingError, match=r"'fcnlab/roads' from 'fcnlab/Roads' .* rename"):
        open_experiment(client, "fcnlab/roads", "mysql://h/db", None)


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


def test_addresses_of_files_fit_the_columns_of_a_database(tmp_path: Path) -> None:
    artifacts, name = tmp_path / "mlartifacts", "fcnlab/" + "道路" * 20
    client: Any = RecordingClient()
    open_experiment(client, name, "sqlite:////a.db", artifacts)
    assert client.location == (artifacts / name).as_uri()
    open_experiment(client, name, "mysql+pymysql://h/db", artifacts)
    assert client.location is not None and len(f"{client.location}/{'0' * 32}/artifacts") <= 200
    assert find_local_folder(client.location).parent == artifacts
    first = client.location
    open_experiment(client, name + "2", "mysql+pymysql://h/db", artifacts)
    assert client.location != first
    with pytest.raises(TrackingError, match="use a lab folder with a shorter path, or `mlflow server`"):
        open_experiment(client, name, "mysql+pymysql://h/db", tmp_path / ("x" * 200))


@pytest.mark.parametrize(
    ("uri", "remedy"),
    [
        ("file:{folder}/mlruns", "MLflow does not write to folders any more; set sqlite:///"),
        ("{folder}/mlruns", "MLflow does not write to folders any more; set sqlite:///"),
        ("localhost:5600", "this is no URI; write http://localhost:5600"),
        ("mlflow.example.org:5600/ml", "this is no URI; write http://mlflow.example.org:5600/ml"),
        ("127.0.0.1:5600", "this is no URI; write http://127.0.0.1:5600"),
        ("mariadb+pymysql://host/db", "MLflow opens MariaDB by the name of MySQL; write mysql+pymysql://"),
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
