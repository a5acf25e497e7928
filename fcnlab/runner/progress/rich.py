"""Live table of the running trials of a grid; ended trials are printed above it."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fcnlab.runner.plan import PlannedTrial
from fcnlab.runner.progress.base import ProgressReporter
from fcnlab.runner.progress.eta import Running
from fcnlab.runner.progress.plain import PlainReporter
from fcnlab.trial.record import EpochRecord

COLUMNS = {"seed": 4, "epoch": 7, "loss": 6, "val mIoU": 8, "images/s": 8, "for": 7, "left": 8}
"""Columns of the table after the cell, with their minimum widths."""

IDLE = {"idle": 5}
"""The last column of `fcnlab grid status`: the time since the last sign of progress."""

RESERVED_LINES = 5
"""Lines of the terminal for the headings, the two lines below the table, and trials that have just ended."""


class RichReporter(PlainReporter):
    """Reporter that prints ended trials and shows the running ones in a live table below."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=2, transient=True)

    def __enter__(self) -> ProgressReporter:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def on_trial_start(self, planned: PlannedTrial) -> None:
        ProgressReporter.on_trial_start(self, planned)

    def on_trial_resume(self, planned: PlannedTrial, repeated: int) -> None:
        if repeated:  # the table shows the others
            super().on_trial_resume(planned, repeated)

    def on_progress(self, planned: PlannedTrial, epochs: list[EpochRecord]) -> bool:
        return ProgressReporter.on_progress(self, planned, epochs)

    def _render(self) -> RenderableType:
        running = list(self.running.values())
        shown = running[: max(1, self._console.height - RESERVED_LINES)]
        table = create_running_table(self._console.width)
        for trial in shown:
            table.add_row(*format_row(trial, trial.time_left(self.eta.epoch_seconds(trial.planned))))
        hidden = len(running) - len(shown)
        blocks: list[RenderableType] = [table] if running else []
        blocks += [Text(f"and {hidden} more", style="dim")] if hidden else []
        return Group(*blocks, Text(self.describe_counts(), style="bold"), self._bar())

    def _bar(self) -> ProgressBar:
        return ProgressBar(total=1.0, completed=self.eta.fraction, width=min(60, self._console.width))


def create_running_table(width: int, *, idle: bool = False) -> Table:
    """Create an empty table of running trials; labels that do not fit are truncated.

    Args:
        width: columns of the terminal.
        idle: add the column of `IDLE`.
    """
    columns = COLUMNS | IDLE if idle else COLUMNS
    rest = width - sum(columns.values()) - len(columns) - 1
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("running", no_wrap=True, overflow="ellipsis", max_width=max(12, rest))
    for name, width in columns.items():
        table.add_column(name, justify="right", no_wrap=True, min_width=width)
    return table


def format_row(trial: Running, left: float | None) -> tuple[str, ...]:
    """Format a running trial as a row of `create_running_table`.

    Args:
        trial: the trial.
        left: its estimated time left in seconds, or None.
    """
    last, val_miou = trial.last, trial.val_miou
    return (
        trial.planned.cell_name,
        str(trial.planned.trial.seed),
        f"{len(trial.epochs)}/{trial.planned.trial.recipe.epochs}",
        f"{last.loss:.3f}" if last is not None else "",
        f"{100 * val_miou:.1f}" if val_miou is not None else "",
        f"{last.images_per_s:.1f}" if last is not None else "",
        format_clock(trial.seconds),
        format_clock(left),
    )


def format_clock(seconds: float | None) -> str:
    """Format a duration as on a clock, such as 0:07 or 3:20:00.

    Args:
        seconds: the duration in seconds; None for an empty text.
    """
    if seconds is None:
        return ""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
