"""The terminal to which the command line and the progress reports write."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def create_console() -> Console:
    """Create a console for standard output.

    Returns:
        A console without markup and highlighting: brackets in the user's names and questions are plain text.
    """
    from rich.console import Console

    return Console(markup=False, highlight=False)
