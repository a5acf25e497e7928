"""Progress bars on a terminal; without a terminal, nothing is printed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from fcnlab.console import create_console


@contextmanager
def sample_bars() -> Iterator[Callable[[str, int], Callable[[], object]]]:
    """Yield a function that starts a bar on standard error: (label, total) -> a function that advances it by one."""
    screen = create_console(stderr=True)
    if not screen.is_terminal:  # a disabled `Progress` prints an empty line with rich 13.9 to 14.2
        yield lambda *_: _advance_nothing
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen, transient=True) as bars:

        def start(label: str, total: int) -> Callable[[], object]:
            return partial(bars.advance, bars.add_task(label, total=total))

        yield start


def _advance_nothing() -> None:
    """Do nothing, where no bar is shown."""
