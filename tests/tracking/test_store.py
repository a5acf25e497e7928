"""SQLite stores in folders with unusual paths."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.engine import make_url

from fcnlab.errors import TrackingError
from fcnlab.lab import Lab
from fcnlab.runner.trackers import check_trackers
from fcnlab.tracking.store import LONGEST_PATH, check_database, convert_errors, find_database, open_client

REFUSED = ("what?", "a?b=c", "what? 100% #1 [a] 'b'", "%41", "my%20lab", "%3F", "100%25", "%%41", "???")
OPENED = (
    "a lab",
    "#1",
    "100%",
    "100% sure",
    "%zz",
    "%4",
    "a&b=c",
    "[a] 'b' \"c\"",
    "u:p@host",
    ":memory:",
    "ü 日本",
    "a\nb",
)
PUNCTUATION = "!\"#$%&'()*+,-.:;<=>@[\\]^_`{|}~ \t"


@pytest.mark.parametrize("name", [*OPENED, PUNCTUATION])
def test_the_path_of_a_lab_is_that_of_its_store(name: str) -> None:
    root = Path("/labs") / name
    uri = Lab(root).own_tracking_uri
    check_database(uri)
    assert find_database(uri) == root / "mlflow.db"
    assert make_url(uri).database == str(root / "mlflow.db")


@settings(max_examples=300, deadline=None)
@given(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0") | st.sampled_from("?%4F"), min_size=1)
)
def test_a_path_is_refused_or_is_that_of_the_store(name: str) -> None:
    root = Path("/labs") / name[:100]
    uri = Lab(root).own_tracking_uri
    assert find_database(uri) == root / "mlflow.db"
    try:
        check_database(uri)
    except TrackingError:
        assert "?" in str(root) or unquote(str(root)) != str(root)
    else:
        assert make_url(uri).database == str(root / "mlflow.db")


@pytest.mark.parametrize("name", REFUSED)
def test_a_path_that_mlflow_cannot_open_is_refused_before_a_run(name: str, tmp_path: Path) -> None:
    root = tmp_path / name
    root.mkdir()
    lab = Lab.find(root=root, trackers="mlflow")
    assert find_database(lab.tracking_uri) == root / "mlflow.db"
    for call in (lambda: check_trackers(lab), lambda: open_client(lab.tracking_uri)):
        with pytest.raises(TrackingError, match=r"mlflow\.db: MLflow cannot open .*--tracker none") as raised:
            call()
        assert str(root) in str(raised.value) and "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == [root] and not list(root.iterdir())
    check_trackers(Lab.find(root=root, trackers="none"))
    check_trackers(Lab.find(root=root, tracking_uri=f"sqlite:///{tmp_path}/other.db"))


def test_a_store_is_in_its_lab_if_the_path_is_as_long_as_sqlite_opens_and_has_all_other_characters(
    tmp_path: Path, create_mlflow_store: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fcnlab.tracking.store._create_store", create_mlflow_store)
    folder = tmp_path / f"ü日本x:y{PUNCTUATION}"
    while (missing := LONGEST_PATH - len(f"{folder}/mlflow.db".encode())) > 0:
        folder /= "x" * (missing - 1 if missing <= 200 else 150)
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    lab = Lab.find()
    experiments = open_client(lab.tracking_uri, lab.artifacts).search_experiments()
    assert len(experiments) == 1
    assert {file.name for file in tmp_path.rglob("*") if file.is_file()} <= {"mlflow.db", "mlflow.db.lock"}
    assert (folder / "mlflow.db").stat().st_size > 0
    longer = Lab.find(root=_make(folder.with_name(folder.name + "x")))
    with pytest.raises(TrackingError, match=rf"has {LONGEST_PATH + 1} bytes, and SQLite opens at .*--tracker none"):
        check_trackers(longer)
    link = tmp_path / "link"
    link.symlink_to(longer.root)
    with pytest.raises(TrackingError, match="SQLite opens at most"):  # SQLite follows links
        check_database(f"sqlite:///{link}/mlflow.db")


def _make(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("uri", "file"),
    [
        ("sqlite:///mlflow.db", "mlflow.db"),
        ("sqlite:////labs/mlflow.db?timeout=5", "/labs/mlflow.db"),
        ("sqlite:///file:/labs/mlflow.db?mode=ro&uri=true", "/labs/mlflow.db"),
        ("sqlite:///file:mlflow.db", "file:mlflow.db"),
        ("sqlite:///:memory:", None),
        ("sqlite://", None),
        ("postgresql://user@host/mlflow.db", None),
        ("https://host/mlflow.db", None),
    ],
)
def test_the_file_of_a_store_is_found_by_its_uri(uri: str, file: str | None) -> None:
    assert find_database(uri) == (None if file is None else Path(file))


def test_the_reason_of_an_error_of_the_database_follows_the_remark_of_sqlalchemy() -> None:
    raised = sqlite3.OperationalError(
        "(raised as a result of Query-invoked autoflush; consider using a session.no_autoflush block)\n"
        "(sqlite3.OperationalError) attempt to write a readonly database\n[SQL: UPDATE runs]"
    )
    with (
        pytest.raises(TrackingError, match=r"MLflow store: .*attempt to write a readonly database"),
        convert_errors("a"),
    ):
        raise raised


def test_a_group_can_write_a_store_if_the_umask_allows_it(
    tmp_path: Path, create_mlflow_store: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fcnlab.tracking.store._create_store", create_mlflow_store)
    former = os.umask(0o002)
    try:
        open_client(Lab(tmp_path).own_tracking_uri)
    finally:
        os.umask(former)
    modes = {file.name: oct(file.stat().st_mode & 0o777) for file in tmp_path.iterdir()}
    assert modes["mlflow.db"] == oct(0o664)
    assert modes["mlflow.db.lock"] == oct(0o664), "a second user opens it for writing, too"
