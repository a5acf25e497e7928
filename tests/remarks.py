"""A reporter of the progress of runs for tests of its remarks."""

from __future__ import annotations

from fcnlab.runner.progress.base import ProgressReporter


class RemarkRecorder(ProgressReporter):
    """Records the remarks.

    Attributes:
        remarks: the texts, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.remarks: list[str] = []

    def on_remark(self, text: str) -> None:
        self.remarks.append(text)
