"""The race between the cells of a grid that runs, where its file has a `stop`."""

from __future__ import annotations

from collections.abc import Iterable

from fcnlab.runner.plan import Plan, Planned
from fcnlab.runner.pruning import Curve, Standing, curve_of, standing


class Race:
    """Keeps what the trials have shown so far, and makes each decision once it can be made."""

    def __init__(self, plan: Plan) -> None:
        assert plan.grid.file.early_stopping is not None, "only a grid that stops has a race"
        self._stop = plan.grid.file.early_stopping
        self._baseline = plan.grid.baseline.label
        self._trials = {planned.key: planned for planned in plan.trials}
        self._curves: dict[str, dict[str, Curve | None]] = {}
        for planned in plan.trials:
            self._note(planned)
        self._standing = self._stand()

    def until(self, planned: Planned) -> int | None:
        """The epoch after which a trial pauses, for a decision about its cell."""
        return self._standing.until if planned.key in self._trials else None

    def waits(self, planned: Planned) -> bool:
        """Whether a trial has come as far as it may before the next decision."""
        until = self.until(planned)
        curve = self._curves[planned.cell.label][planned.key] if until is not None else None
        return until is not None and curve is not None and len(curve) >= until

    def decide(self, reached: Iterable[Planned]) -> list[tuple[Planned, int]]:
        """Take in how far some trials have come; gives the trials that are stopped by that, each with its epoch."""
        for planned in reached:
            if planned.key in self._trials:
                self._note(planned)
        before, self._standing = self._standing, self._stand()
        new = {cell: epoch for cell, epoch in self._standing.stopped.items() if cell not in before.stopped}
        return [(planned, new[planned.cell.label]) for planned in self._trials.values() if planned.cell.label in new]

    def _note(self, planned: Planned) -> None:
        curve = curve_of(planned.folder, planned.folder.read())
        self._curves.setdefault(planned.cell.label, {})[planned.key] = curve

    def _stand(self) -> Standing:
        trials = {cell: list(curves.values()) for cell, curves in self._curves.items()}
        return standing(self._stop, trials, self._baseline)
