"""Check of a plan: the seeds hold out each fold of a cross-validation equally often."""

from __future__ import annotations

from collections import Counter

from fcnlab.config.grid.grid import Grid
from fcnlab.console import format_count
from fcnlab.errors import list_some

SHOWN = 5
"""Maximum number of seeds that a warning lists."""


def check_folds(grid: Grid) -> list[str]:
    """Return a warning for each dataset whose images are not held out equally often over the seeds of a grid.

    Args:
        grid: the grid.
    """
    warnings = []
    for name, cells in grid.cells_by_dataset.items():
        parts = cells[0].dataset.folds_by_seed
        if parts is not None and (result := _describe_result(grid.seeds, parts.folds)) is not None:
            seeds = f"{format_count(len(grid.seeds), 'seed')} ({list_some(grid.seeds, SHOWN)})"
            warnings.append(
                f"dataset {name}: {seeds} for {parts.folds} folds: {result}; use a multiple of {parts.folds}, such as "
                f"seeds: {parts.folds * max(1, round(len(grid.seeds) / parts.folds))}"
            )
    return warnings


def _describe_result(seeds: tuple[int, ...], folds: int) -> str | None:
    """Describe which images the seeds hold out; None if each image is held out equally often."""
    held_out = Counter(seed // folds for seed in seeds)  # number of folds by repetition, each with its own division
    partial = [count for count in held_out.values() if count < folds]
    complete = len(held_out) - len(partial)
    if not partial:
        return None
    if len(partial) > 1:
        return "some images are held out more often than others"
    if not complete:
        return f"the images of {format_count(folds - partial[0], 'fold')} are never held out"
    more, others = _count_times(complete + 1), _count_times(complete)
    return f"the images of {format_count(partial[0], 'fold')} count {more}, those of others {others}"


def _count_times(count: int) -> str:
    return "once" if count == 1 else "twice" if count == 2 else f"{count} times"
