"""Access to an MLflow store: the client, the experiment of a grid, and errors of the store as one line."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

from fcnlab.errors import TrackingError
from fcnlab.file_lock import FileLock, Timeout
from fcnlab.paths import exists
from fcnlab.redaction import mask_login, redact
from fcnlab.tracking.database import check_connection, is_database, limit_queries
from fcnlab.tracking.names import shorten_experiment_name
from fcnlab.tracking.relocate import relocate_artifacts

# MLflow reads these variables when it is imported.
for _variable, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # an unreachable server must not block a grid
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",  # a server can ask for hours
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # programs may parse the standard output of a grid
}.items():
    os.environ.setdefault(_variable, _value)

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


LOCK_TIMEOUT = 10.0
"""Seconds to wait for another process that locks a store in a file; publishing is deferred then."""


LONGEST_PATH = 497
"""Bytes of the longest path of a database: SQLite opens 504, and a store is created as `.<name>.draft`."""

LONGEST_LOCATION = 200 - len(f"/{'0' * 32}/artifacts")
"""Characters of the address of the files of an experiment; a database stores 200 for those of a run."""

_SQLITE = "sqlite:///"

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)

_ESCAPED = re.compile("%[0-9A-Fa-f]{2}")


def is_installed() -> bool:
    """Return whether mlflow can be imported, without importing it."""
    return importlib.util.find_spec("mlflow") is not None


def import_client() -> None:
    """Import MLflow's client, which takes seconds."""
    import mlflow.tracking  # noqa: F401


def find_database(uri: str) -> Path | None:
    """Return the SQLite file of a store.

    Args:
        uri: tracking URI of the store.

    Returns:
        The file, which need not exist; None for another kind of store.
    """
    path, _, options = uri.removeprefix(_SQLITE).partition("?")
    if not uri.startswith(_SQLITE) or path in ("", ":memory:"):
        return None
    if "uri" in parse_qs(options):
        path = path.removeprefix("file:")
    return Path(unquote(path))


def check_database(uri: str) -> None:
    """Check that MLflow can open the SQLite file of a store, so that no run ends without a store.

    MLflow creates the folder of the file by its escaped path, and only some versions of SQLAlchemy decode it.

    Args:
        uri: tracking URI of the store; other kinds of stores are not checked.

    Raises:
        TrackingError: the path of the file has a character that must be escaped in a URI, or is too long.
    """
    file = find_database(uri)
    if file is None:
        return
    remedy = "add `--tracker none`, set MLFLOW_TRACKING_URI to another store, or use a folder with another path"
    if _ESCAPED.search(uri.partition("?")[0]):
        raise TrackingError(
            f"{file}: MLflow cannot open a SQLite file whose path contains '?', or '%' before two hexadecimal digits; "
            f"{remedy}"
        )
    length = len(os.fsencode(file.resolve()))
    if length > LONGEST_PATH:
        raise TrackingError(
            f"{str(file)[:80]}...: the path of this MLflow store has {length} bytes, and SQLite opens at most "
            f"{LONGEST_PATH}; {remedy}"
        )


def open_client(uri: str, artifacts: Path | None = None) -> MlflowClient:
    """Open an MLflow store, and create it if it is a SQLite file that does not exist.

    Args:
        uri: tracking URI of the store.
        artifacts: a lab's folder of artifacts. If the store is that lab's, and the lab was copied or moved, the
            locations of its artifacts are corrected.

    Returns:
        A client of the store.

    Raises:
        TrackingError: see `check_database` and `check_connection`.
    """
    check_database(uri)
    for logger in ("mlflow", "alembic"):
        logging.getLogger(logger).setLevel(logging.WARNING)
    # It logs the traceback of each error that it also raises.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    from mlflow.tracking import MlflowClient

    file = find_database(uri)
    if file is None:
        check_connection(uri)
        return MlflowClient(limit_queries(uri))
    # Two processes that create the schema at the same time would corrupt the store.
    with FileLock(file.with_name(file.name + ".lock"), timeout=LOCK_TIMEOUT):
        if "?" not in uri:  # with options, MLflow creates the store
            _remove_drafts(file)  # of a process that was killed
            if not exists(file):
                _create_store(file)
        _check_unlocked(file)
        if artifacts is not None and file.resolve().parent == artifacts.resolve().parent:
            relocate_artifacts(file, artifacts)
        if "?" in uri:
            return _connect(uri)
    return _connect(uri)


def _connect(uri: str) -> MlflowClient:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    client.search_experiments(max_results=1)
    return client


def _create_store(file: Path) -> None:
    """Create a store beside its final name: MLflow cannot complete one whose creation was interrupted."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    draft, complete = _name_drafts(file)
    try:
        # By default the files of its first experiment are in the current folder, whose quotes MLflow does not escape.
        SqlAlchemyStore(f"{_SQLITE}{draft}", (file.absolute().parent / "mlartifacts").as_uri())
        # MLflow keeps the draft open. SQLite creates files that a group cannot write, whatever the umask allows.
        shutil.copyfile(draft, complete)
        os.replace(complete, file)
    finally:
        _remove_drafts(file)


def _name_drafts(file: Path) -> tuple[Path, Path]:
    """Return the paths of a store that is being created, and of its complete copy."""
    return file.with_name(f".{file.name}.draft"), file.with_name(f".{file.name}.complete")


def _remove_drafts(file: Path) -> None:
    draft, complete = _name_drafts(file)
    for left in (draft, draft.with_name(f"{draft.name}-journal"), complete):
        left.unlink(missing_ok=True)


def _check_unlocked(file: Path) -> None:
    """Raise an error of SQLite if another process locks a store: MLflow would try to open it for half an hour."""
    with closing(sqlite3.connect(file, timeout=LOCK_TIMEOUT)) as store:
        store.execute("SELECT count(*) FROM sqlite_master").fetchone()


def open_experiment(client: MlflowClient, name: str, uri: str, artifacts: Path | None) -> str:
    """Return the id of an experiment, and create it if it does not exist.

    Args:
        client: client of the store.
        name: name of the experiment; a database stores a long one shortened.
        uri: tracking URI of the store.
        artifacts: folder for the files of a store that is a database; a server stores files itself.

    Returns:
        The id.

    Raises:
        TrackingError: the experiment has been deleted, the store takes its name for that of another one, or the path of
            the lab is too long for a database.
    """
    experiment = _find_experiment(client, name, uri)
    if experiment is not None:
        return experiment
    local = _locate_files(artifacts, name, uri) if artifacts is not None and is_database(uri) else None
    # MLflow's UI shows experiments of this kind as training runs, others as traces of language models.
    tags = {"mlflow.experimentKind": "custom_model_development"}
    return str(client.create_experiment(shorten_experiment_name(name), artifact_location=local, tags=tags))


def _locate_files(artifacts: Path, name: str, uri: str) -> str:
    """Return the address of the files of an experiment in a database.

    Raises:
        TrackingError: the path of the lab is too long: a SQLite file stores any address, and other databases do not.
    """
    location = (artifacts / name).as_uri()
    if find_database(uri) is not None or len(location) <= LONGEST_LOCATION:
        return location
    location = (artifacts / hashlib.sha256(name.encode()).hexdigest()[:12]).as_uri()
    if len(location) > LONGEST_LOCATION:
        raise TrackingError(
            f"{uri}: this database stores at most {LONGEST_LOCATION} characters of the address of the files of a grid, "
            f"and {location} has {len(location)}; use a lab folder with a shorter path, or `mlflow server`"
        )
    return location


def _find_experiment(client: MlflowClient, name: str, uri: str) -> str | None:
    """Return the id of an experiment; None if it does not exist.

    Raises:
        TrackingError: it is deleted, or the store takes its name for that of another experiment.
    """
    stored = shorten_experiment_name(name)
    experiment = client.get_experiment_by_name(stored)
    if experiment is None:
        return None
    if experiment.name != stored:  # MySQL and SQL Server compare texts without regard to case and accents
        raise TrackingError(
            f"{uri}: this database does not distinguish the experiment '{name}' from '{experiment.name}' of another "
            "grid; rename the grid file, or give the database a collation that does, such as utf8mb4_bin"
        )
    if experiment.lifecycle_stage != "active":
        raise TrackingError(_describe_deleted(uri, name, str(experiment.experiment_id)))
    return str(experiment.experiment_id)


def _describe_deleted(uri: str, name: str, experiment: str) -> str:
    """Return an error with the commands that restore a deleted experiment or free its name, one line per command."""
    shown = mask_login(uri)
    mlflow = f"MLFLOW_TRACKING_URI={quote(shown)} mlflow"
    lines = [
        f"{uri}: the experiment '{name}' is deleted",
        f"restore it: {mlflow} experiments restore -x {experiment}",
    ]
    if not uri.startswith(("http://", "https://")):  # a server deletes its files where it runs
        remove = f"{mlflow} gc --backend-store-uri {quote(shown)} --experiment-ids {experiment}"
        lines.append(f"or delete it permanently: {remove}")
    return redact("\n".join(lines))


def find_local_folder(location: str) -> Path | None:
    """Return the folder of an address of artifacts.

    Args:
        location: address of the artifacts of an experiment or a run.

    Returns:
        The folder, which need not exist on this machine; None for another kind of address.
    """
    parts = urlsplit(location)
    return Path(unquote(parts.path)) if parts.scheme == "file" else Path(location) if parts.scheme == "" else None


def check_experiment(uri: str, name: str, artifacts: Path) -> None:
    """Check that an experiment can be shown.

    Args:
        uri: tracking URI of the store.
        name: name of the experiment.
        artifacts: see `open_client`.

    Raises:
        TrackingError: the experiment is deleted, or the store cannot be reached.
    """
    with convert_errors(uri):
        _find_experiment(open_client(uri, artifacts), name, uri)


_REASONS = (
    (
        r"error code 401 != 200|\b401 Client Error",
        "the server refuses the user or the token (error 401); set MLFLOW_TRACKING_USERNAME and "
        "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
    ),
    (
        r"error code 403 != 200.*Invalid Host header",
        "the server does not accept its name in this address (error 403); start it with --allowed-hosts NAME:PORT",
    ),
    (
        r"error code 403 != 200|\b403 Client Error",
        "this user or token has no permission (error 403); if the experiment belongs to another user, ask for the "
        "permission EDIT, or rename the grid file to publish to an experiment of its own",
    ),
    (
        r"error code 404 != 200|\b404 Client Error",
        "nothing of MLflow is at this address (error 404); add the path of the server's pages, such as "
        "http://HOST:PORT/mlflow",
    ),
    (
        r"\(1366, .Incorrect string value|\(1267, .Illegal mix of collations",
        "the character set of the database cannot store the characters of this grid; create another database with "
        "CHARACTER SET utf8mb4, and publish to it",
    ),
    (r"timed out", "the server does not answer in time"),
    (r"Max retries exceeded", "the server cannot be reached"),
)
"""Descriptions of errors of a server, by patterns of their messages; the first that matches."""


@contextmanager
def convert_errors(uri: str) -> Iterator[None]:
    """Convert errors of the store to a `TrackingError` of one line.

    Args:
        uri: tracking URI of the store.
    """
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except Timeout as error:
        raise TrackingError(f"{uri}: MLflow store: another process holds {error.lock_file}; try again") from None
    except (MlflowException, RequestException, SQLAlchemyError, sqlite3.Error, OSError) as error:
        # Without the cause, whose traceback would print the URI with its password.
        raise TrackingError(f"{uri}: MLflow store: {_describe(error, uri)}") from None


def _describe(error: Exception, uri: str) -> str:
    """Return the reason of an error of the store, and what helps, in one line."""
    text = redact(str(error)).strip()
    answer = re.search(r"too many (\d+) error responses", text)
    if answer is not None:
        return f"the server answers with error {answer[1]}"
    for pattern, reason in _REASONS:
        if re.search(pattern, text, re.DOTALL):
            return reason
    if "unsupported URI" in text or "maintenance mode" in text:
        return _describe_kind(uri)
    strange = re.search(r"not in a valid JSON format. Response body: '(.{,60})", text)
    if strange is not None:
        return f"the server does not answer as MLflow does, but with '{strange[1]}'; check its address and your login"
    if isinstance(error, ValueError):  # the list of files is not JSON
        return "the server does not answer as MLflow does; check its address and your login"
    lines = [line for line in text.splitlines() if not line.startswith("(raised as a result of")]  # of SQLAlchemy
    return next(iter(lines), type(error).__name__)[:300]


def _describe_kind(uri: str) -> str:
    """Return what to set instead of a URI that MLflow does not accept."""
    if re.match(r"[\w.-]+(:\d+)?(/|$)", uri) and ":" in uri:
        return f"this is no URI; write http://{uri}"
    if uri.startswith("mariadb"):
        return "MLflow opens MariaDB by the name of MySQL; write mysql+pymysql://"
    if _SCHEME.match(uri) and not uri.startswith("file:"):
        return "MLflow has no such kind of store; valid: http://, https://, sqlite:///, postgresql://, mysql://"
    return (
        "MLflow does not write to folders any more; set sqlite:///PATH/mlflow.db, to which `mlflow migrate-filestore` "
        "copies the runs, or MLFLOW_ALLOW_FILE_STORE=true"
    )
