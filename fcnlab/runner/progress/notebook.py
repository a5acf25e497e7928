"""Live table of the running trials of a grid in a notebook: one output that is replaced."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from fcnlab.notebook import render_html
from fcnlab.runner.plan import PlannedTrial
from fcnlab.runner.progress.base import ProgressReporter
from fcnlab.runner.progress.plain import describe_result
from fcnlab.runner.progress.rich import COLUMNS, format_row
from fcnlab.trial.record import Attempt, Record

INTERVAL = 0.5
"""Seconds between two updates."""

MAX_MESSAGES = 10
"""Most messages that are shown, the latest ones."""


class NotebookReporter(ProgressReporter):
    """Reporter that shows the counts, a progress bar, the running trials and messages as HTML.

    Args:
        show: function that shows HTML, replacing its previous output; by default in the output of the cell.
    """

    def __init__(self, show: Callable[[str], Any] | None = None) -> None:
        super().__init__()
        self._show = show or _create_output()
        self._messages: list[str] = []
        self._shown = float("-inf")
        self._is_closed = False

    @property
    def idle(self) -> str | None:
        """The reason why no trial runs in this driver; None while one does, and after the end."""
        return None if self._is_closed else super().idle

    def __exit__(self, *_: object) -> None:
        self._is_closed = True
        self.running.clear()  # none runs after an interrupt
        self._update(force=True)

    def on_remark(self, text: str) -> None:
        self._add_message(text)

    def on_trial_end(self, planned: PlannedTrial, record: Record) -> None:
        super().on_trial_end(planned, record)
        if record.status == "failed":
            self._add_message(describe_result(planned, record))

    def on_trial_retry(self, planned: PlannedTrial, attempt: Attempt, remedy: str) -> None:
        super().on_trial_retry(planned, attempt, remedy)
        self._add_message(f"retry {planned.description}: {attempt.message}; {remedy}")

    def on_publishing_deferred(self, why: str) -> None:
        self._add_message(f"publishing is deferred: {why.splitlines()[0]}")

    def _add_message(self, text: str) -> None:
        self._messages.append(text)
        self._update(force=True)

    def _update(self, *, force: bool = False) -> None:
        """Show the current state, at most once in INTERVAL seconds unless it is forced."""
        now = time.monotonic()
        if force or now - self._shown >= INTERVAL:
            self._shown = now
            self._show(self._render())

    def _render(self) -> str:
        rows = [
            format_row(trial, trial.time_left(self.eta.epoch_seconds(trial.planned))) for trial in self.running.values()
        ]
        bar = f'<progress max="1" value="{self.eta.fraction:.4f}" style="width: 30em"></progress>'
        table = render_html(self.describe_counts(), headings=("running", *COLUMNS), rows=rows)
        return table + bar + "".join(render_html("", note=text) for text in self._messages[-MAX_MESSAGES:])


def _create_output() -> Callable[[str], Any]:
    """Create an output in the current cell of a notebook, and return the function that replaces its HTML."""
    from IPython.display import HTML, DisplayHandle

    handle = DisplayHandle()
    handle.display(HTML(""))
    return lambda html: handle.update(HTML(html))
