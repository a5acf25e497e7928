"""Exceptions of the methods of a user's class, reported in one line as errors that a user can fix."""

from __future__ import annotations

import functools
import inspect
import reprlib
import traceback
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any

from fcnlab.errors import ConfigError, FcnlabError, describe_error


def guard_methods(cls: type, names: Iterable[str]) -> None:
    """Convert the exceptions of methods that a user's class defines, or inherits from another class of the user.

    They become a `ConfigError` that names the file, the line, the method and the exception. `FcnlabError` and
    `MemoryError` are not converted: the first has a message for the user, and trials that run out of memory are
    retried. Methods of fcnlab are left as they are.

    Args:
        cls: the class, whose methods are replaced.
        names: names of the methods; those that the class does not have are ignored.
    """
    for name in names:
        method = inspect.getattr_static(cls, name, None)
        if isinstance(method, FunctionType) and not method.__module__.startswith("fcnlab."):
            setattr(cls, name, _guard(method, f"{cls.__name__}.{name}"))


USER_ERRORS = (Exception, SystemExit)
"""What the code of a user may raise: also the end of the process, by `sys.exit` or by a parser of arguments."""


def describe_import_error(error: BaseException) -> str:
    """Describe an exception of a user's module that is imported, in one line.

    Args:
        error: the exception, one of `USER_ERRORS`.
    """
    text = describe_error(error)
    if isinstance(error, SystemExit):
        return (
            f'{text}; put the code of a program below `if __name__ == "__main__":`, so that an import does not run it'
        )
    return text


def find_line(error: BaseException, file: str) -> int | None:
    """Return the line of a file that raised an exception, or called the code that raised it.

    Args:
        error: the exception.
        file: path of the file, as in tracebacks.

    Returns:
        The last such line; None if the exception did not pass through the file.
    """
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return lines[-1] if lines else None


def _guard(method: FunctionType, name: str) -> Callable[..., Any]:
    code = inspect.unwrap(method).__code__

    @functools.wraps(method)
    def guarded(*arguments: Any, **options: Any) -> Any:
        try:
            return method(*arguments, **options)
        except (FcnlabError, MemoryError):
            raise
        except USER_ERRORS as error:
            where = f"{code.co_filename}, line {find_line(error, code.co_filename) or code.co_firstlineno}"
            call = f"{name}({', '.join(map(reprlib.repr, arguments[1:]))})"
            raise ConfigError(f"{where}: {call} raises {describe_error(error)}") from error

    return guarded
