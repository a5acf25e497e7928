"""The error of a damaged file of a trial."""

from __future__ import annotations


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
