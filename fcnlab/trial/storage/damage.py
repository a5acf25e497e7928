"""The errors of a file of a trial that cannot be used: it is damaged, or of a newer version of fcnlab."""

from __future__ import annotations

from pydantic import ValidationError


class DamageError(Exception):
    """A file of a trial does not have the content that was written.

    Attributes:
        file: name of the file in the run folder; `.` for the folder itself.
        problem: description of what is wrong.
    """

    def __init__(self, file: str, problem: str) -> None:
        """Describe the damage.

        Args:
            file: name of the file in the run folder.
            problem: description of what is wrong.
        """
        super().__init__(f"{file}: {problem}")
        self.file = file
        self.problem = problem


class VersionError(DamageError):
    """A file of a trial was written by a newer version of fcnlab. It is intact, and must not be moved or replaced."""

    def __init__(self, file: str, difference: str) -> None:
        """Describe the difference.

        Args:
            file: name of the file in the run folder.
            difference: what this version does not know.
        """
        problem = f"it was written by a newer version of fcnlab ({difference}); update fcnlab, or use another lab"
        super().__init__(file, problem)


def find_unknown(error: ValidationError) -> str | None:
    """Return the first field or value of valid JSON that this version does not know; None if there is none.

    Args:
        error: the error of a model that forbids other fields.
    """
    for found in error.errors():
        where = ".".join(map(str, found["loc"]))
        if found["type"] == "extra_forbidden":
            return f"unknown field '{where}'"
        if found["type"] == "literal_error":
            return f"unknown value of '{where}'"
    return None
