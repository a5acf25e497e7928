"""The live table of a grid that runs: what has ended scrolls by above it."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fcnlab.runner.plan import PlannedTrial
from fcnlab.runner.progress.base import PlainReporter, ProgressReporter, format_duration
from fcnlab.runner.progress.eta import Running
from fcnlab.trial.record import EpochRecord

COLUMNS = {"seed": 4, "epoch": 7, "loss": 6, "val mIoU": 8, "images/s": 8, "for": 7, "left": 8}
"""What is shown of a trial that runs, besides its cell, and how wide it is at least."""

AROUND = 5
"""Lines of a terminal that trials leave free: headings, the two lines below, and what has just ended."""


class RichReporter(PlainReporter):
    """Ended trials scroll by; those that run stand in a table below."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._live = Live(console=console, get_renderable=self._picture, refresh_per_second=2, transient=True)

    def __enter__(self) -> ProgressReporter:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def started(self, planned: PlannedTrial) -> None:
        ProgressReporter.started(self, planned)

    def progress(self, planned: PlannedTrial, epochs: list[EpochRecord]) -> bool:
        return ProgressReporter.progress(self, planned, epochs)

    def _picture(self) -> RenderableType:
        running = list(self.running.values())
        shown = running[: max(1, self._console.height - AROUND)]
        table = running_table(self._console.width)
        for one in shown:
            table.add_row(*trial_row(one, one.time_left(self.outlook.epoch(one.planned))))
        unseen = len(running) - len(shown)
        parts: list[RenderableType] = [table] if running else []
        parts += [Text(f"and {unseen} more", style="dim")] if unseen else []
        return Group(*parts, Text(self._counts(), style="bold"), self._bar())

    def _counts(self) -> str:
        """How the grid stands, in a line."""
        left = self.time_left if self.running else None  # of what others run, only the end is seen
        parts = [
            f"{self.done}/{self.total} trials",
            f"{self.failed} failed",
            f"{self.hopeless} stopped" if self.hopeless else "",
            f"{self.run_elsewhere} run elsewhere" if self.run_elsewhere and self.running else "",
            self.idle or "",
            f"about {format_duration(left)} left" if left else "",
        ]
        return ", ".join(filter(None, parts))

    def _bar(self) -> ProgressBar:
        return ProgressBar(total=1.0, completed=self.outlook.fraction, width=min(60, self._console.width))


def running_table(width: int) -> Table:
    """An empty table for trials that run, in a terminal of `width` columns; what does not fit of a label is cut."""
    rest = width - sum(COLUMNS.values()) - len(COLUMNS) - 1
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("running", no_wrap=True, overflow="ellipsis", max_width=max(12, rest))
    for name, width in COLUMNS.items():
        table.add_column(name, justify="right", no_wrap=True, min_width=width)
    return table


def trial_row(one: Running, left: float | None) -> tuple[str, ...]:
    """A trial that runs, with so many seconds left, as a row of `running_table`."""
    last, scored = one.last, one.val_miou
    return (
        one.planned.cell.label,
        str(one.planned.trial.seed),
        f"{len(one.epochs)}/{one.planned.trial.recipe.epochs}",
        f"{last.loss:.3f}" if last is not None else "",
        f"{100 * scored:.1f}" if scored is not None else "",
        f"{last.images_per_s:.1f}" if last is not None else "",
        clock(one.seconds),
        clock(left),
    )


def clock(seconds: float | None) -> str:
    """Seconds as a clock shows them, such as 0:07 or 3:20:00; nothing for none."""
    if seconds is None:
        return ""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
