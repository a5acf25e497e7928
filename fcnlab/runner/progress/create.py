"""Choice of the progress reporter for an output."""

from __future__ import annotations

from rich.console import Console

from fcnlab.runner.progress.base import ProgressReporter
from fcnlab.runner.progress.notebook import NotebookReporter
from fcnlab.runner.progress.plain import PlainReporter
from fcnlab.runner.progress.rich import RichReporter


def create_reporter(console: Console) -> ProgressReporter:
    """Create the reporter for a console: HTML in a notebook, a live table in a terminal, else one line per event.

    Args:
        console: console of standard output.
    """
    if console.is_jupyter:
        return NotebookReporter()
    return RichReporter(console) if console.is_terminal else PlainReporter(console)
