"""Connections to the databases of MLflow stores other than SQLite."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from fcnlab.errors import TrackingError

CONNECT_TIMEOUT = 10
"""Seconds to wait for a database."""

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
    except (SQLAlchemyError, ValueError) as error:  # a port that is no number is a ValueError
        reason = " ".join(str(getattr(error, "orig", None) or error).split())[:300]
        raise TrackingError(f"{uri}: the database cannot be opened: {reason}") from None


def _limit_time(dialect: Any, _record: object, _arguments: object, options: dict[str, Any]) -> None:
    """Add timeouts to the options of an attempt to connect, unless the URI has them."""
    for name in _TIMEOUTS.get(dialect.driver, ()):
        options.setdefault(name, CONNECT_TIMEOUT)
