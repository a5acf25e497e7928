"""Connections to the databases of MLflow stores other than SQLite."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import Any

from fcnlab.errors import TrackingError

CONNECT_TIMEOUT = 10
"""Seconds to wait for a database."""

QUERY_TIMEOUT = 60
"""Seconds to wait for the answer to a query; the search in an experiment of thousands of runs takes seconds."""

_DATABASES = ("postgresql", "mysql", "mssql")

_DRIVERS = MappingProxyType(
    {
        "postgresql": "pip install 'psycopg[binary]', or pip install psycopg2-binary and write postgresql+psycopg2://",
        "mysql": "pip install pymysql and write mysql+pymysql://",
        "mssql": "pip install pyodbc and write mssql+pyodbc://",
    }
)
"""How to install a driver, by database."""

_TIMEOUTS = MappingProxyType(
    {
        "psycopg": ("connect_timeout",),
        "psycopg2": ("connect_timeout",),
        "pg8000": ("timeout",),
        "mysqldb": ("connect_timeout",),
        "pymysql": ("connect_timeout", "read_timeout"),
        "mysqlconnector": ("connection_timeout",),
        "pymssql": ("login_timeout",),
        "pyodbc": ("timeout",),
    }
)
"""Arguments of a driver that limit the time of its attempt to connect."""


_QUERY_TIMEOUTS = MappingProxyType(dict.fromkeys(("mysqldb", "pymysql"), ("read_timeout", "write_timeout")))
"""Options of a URI that limit the time of a query, by driver."""

_ENCODE = "special characters of the user and the password are written as %XX, such as %40 for @ and %2F for /"

_REMEDIES = (
    (r"Access denied|authentication failed|Login failed", f"check the user and the password of the URI; {_ENCODE}"),
    (
        r"Unknown database|database .+ does not exist|Cannot open database",
        "create the database first, in MySQL by CREATE DATABASE ... CHARACTER SET utf8mb4",
    ),
    (
        r"Can't connect|refused|could not (connect|translate)|failed to resolve|time(d )?out",
        "check the host and the port, and that the database runs there",
    ),
)
"""What helps against an error of a database, by patterns of its message; the first that matches."""


def is_database(uri: str) -> bool:
    """Return whether a store is a database that MLflow opens directly, also a SQLite file.

    Args:
        uri: tracking URI of the store.
    """
    return _get_type(uri) in (*_DATABASES, "sqlite")


def _get_type(uri: str) -> str:
    scheme, separator, _ = uri.partition("://")
    return scheme.partition("+")[0].lower() if separator else ""


def check_connection(uri: str) -> None:
    """Connect to the database of a store once: MLflow tries for minutes, with growing pauses.

    Args:
        uri: tracking URI of the store; SQLite files and other kinds of stores are not checked.

    Raises:
        TrackingError: the database cannot be reached or refuses the user, or its driver is not installed.
    """
    if _get_type(uri) not in _DATABASES:
        return
    from mlflow.store.db.utils import create_sqlalchemy_engine
    from sqlalchemy import event
    from sqlalchemy.exc import SQLAlchemyError

    _check_uri(uri)
    # Without their causes, whose tracebacks would print the URI with its password.
    try:
        engine = create_sqlalchemy_engine(uri)
        event.listen(engine, "do_connect", _limit_time)
        try:
            engine.connect().close()
        finally:
            engine.dispose()
    except ImportError as error:
        remedy = _DRIVERS[_get_type(uri)]
        raise TrackingError(f"{uri}: the Python driver of the database is not installed ({error}): {remedy}") from None
    except (SQLAlchemyError, ValueError) as error:  # an option of the URI that is no number is a ValueError
        reason = " ".join(str(getattr(error, "orig", None) or error).split())[:300]
        remedy = next((f"; {text}" for pattern, text in _REMEDIES if re.search(pattern, reason)), "")
        raise TrackingError(f"{uri}: the database cannot be opened: {reason}{remedy}") from None


def _check_uri(uri: str) -> None:
    """Check that a URI can be parsed and names a database.

    Raises:
        TrackingError: it does not; its message contains no part of the password.
    """
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(uri)
    except (ArgumentError, ValueError):  # the error quotes the part that it takes for the port
        form = f"{uri.partition('://')[0]}://USER:PASSWORD@HOST:PORT/NAME"
        raise TrackingError(
            f"{uri}: is no URI of a database; write {form}, with a number as the port; {_ENCODE}"
        ) from None
    if _get_type(uri) == "mysql" and not url.database:
        raise TrackingError(f"{uri}: names no database; append its name, as in mysql+pymysql://HOST/NAME")


def limit_queries(uri: str) -> str:
    """Return a URI with timeouts of queries: a database that hangs would otherwise never be an error.

    Args:
        uri: tracking URI of a store that `check_connection` has opened.

    Returns:
        The URI; unchanged for drivers without such options. Timeouts of the URI are kept.
    """
    if _get_type(uri) not in _DATABASES:
        return uri
    from sqlalchemy import make_url

    url = make_url(uri)
    missing = [name for name in _QUERY_TIMEOUTS.get(url.get_driver_name(), ()) if name not in url.query]
    limited = url.update_query_dict({name: str(QUERY_TIMEOUT) for name in missing})
    return limited.render_as_string(hide_password=False) if missing else uri


def _limit_time(dialect: Any, _record: object, _arguments: object, options: dict[str, Any]) -> None:
    """Add timeouts to the options of an attempt to connect, unless the URI has them."""
    for name in _TIMEOUTS.get(dialect.driver, ()):
        options.setdefault(name, CONNECT_TIMEOUT)
