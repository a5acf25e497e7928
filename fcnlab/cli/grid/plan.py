"""`fcnlab grid plan`: what a grid has, what is left of it, what that may cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fcnlab.cli.grid.states import states
from fcnlab.cli.options import DataRoot, GridFile, LabOption, console

if TYPE_CHECKING:
    from fcnlab.execute.plan import Plan

EXAMPLE = "Example: fcnlab grid plan experiments/quickstart.yaml"


def plan(file: GridFile, lab: LabOption = None, data_root: DataRoot = None) -> None:
    """Check a grid and show its cells: what is finished, what is left, how long it may take."""
    from fcnlab.execute.plan import make_plan
    from fcnlab.places import Lab

    place = Lab.find(file, lab=lab, data_root=data_root)
    made = make_plan(place.grid(file), place)
    terminal = console()
    terminal.print(states(made))
    terminal.print(_estimate(made))


def _estimate(plan: Plan) -> str:
    from fcnlab.execute.process import plan_slots
    from fcnlab.execute.watch import duration

    costs = [record.cost for _, record in plan.ended if record.cost is not None]
    ended = f"{plan.count('finished')} finished, {plan.count('failed')} failed"
    text = f"{len(plan.everything)} trials: {ended}, {len(plan.left)} to run"
    if not plan.left:
        return text
    slots = min(len(plan_slots(plan.grid.recipes)), len(plan.left))
    if not costs:
        return f"{text}, {slots} at once; no trial of this grid has finished yet to tell how long one takes"
    each = sum(cost.train_seconds + cost.evaluate_seconds for cost in costs) / len(costs)
    return f"{text}, {slots} at once; about {duration(each * len(plan.left) / slots)} by the trials that finished"
