"""The errors of a file of a trial that cannot be used: it is damaged, not readable, or of a newer version of fcnlab."""

from __future__ import annotations

from pydantic import ValidationError

from fcnlab.storage_errors import find_remedy


class DamageError(Exception):
    """A file of a trial does not have the content that was written.

    Attributes:
        file: name of the file in the run folder; `.` for the folder itself.
        problem: description of the problem.
    """

    def __init__(self, file: str, problem: str) -> None:
        """Describe the damage.

        Args:
            file: name of the file in the run folder.
            problem: description of the problem.
        """
        super().__init__(f"{file}: {problem}")
        self.file = file
        self.problem = problem


class KeptError(DamageError):
    """A file of a trial cannot be used here and now, but may be intact: it must not be moved or replaced."""


class UnreadableError(KeptError):
    """A file of a trial cannot be read: this user may not, the disk has an error, or a resource is used up."""

    def __init__(self, file: str, error: Exception) -> None:
        """Describe the error.

        Args:
            file: name of the file in the run folder.
            error: the error that reading the file has raised.
        """
        if isinstance(error, OSError):
            problem = f"{error.strerror or error}; {find_remedy(error)}"
        else:
            problem = f"{type(error).__name__}: {error}"
        super().__init__(file, f"it cannot be read: {problem}")


def convert_read_error(file: str, error: OSError) -> DamageError:
    """Convert an error of reading a file that exists.

    Args:
        file: name of the file in the run folder.
        error: the error.

    Returns:
        An error that allows the file to be moved only if it is certainly not the one that was written: a folder.
    """
    if isinstance(error, IsADirectoryError):
        return DamageError(file, "it is a folder, and not a file")
    return UnreadableError(file, error)


class VersionError(KeptError):
    """A file of a trial was written by a newer version of fcnlab. It is intact."""

    def __init__(self, file: str, difference: str) -> None:
        """Describe the difference.

        Args:
            file: name of the file in the run folder.
            difference: the content that is unknown to this version.
        """
        problem = f"it was written by a newer version of fcnlab ({difference}); update fcnlab, or use another lab"
        super().__init__(file, problem)


def find_unknown(error: ValidationError) -> str | None:
    """Return the first field or value of valid JSON that this version does not know; None if there is none.

    Args:
        error: the error of a model that forbids other fields.
    """
    for detail in error.errors():
        where = ".".join(map(str, detail["loc"]))
        if detail["type"] == "extra_forbidden":
            return f"unknown field '{where}'"
        if detail["type"] == "literal_error":
            return f"unknown value of '{where}'"
    return None
