"""`fcnlab grid plan`: what a grid has, what is left of it, what that may cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from fcnlab.cli.options import DataRoot, DeviceOption, GridFile, LabOption, PerGpu, Threads, Workers
from fcnlab.console import create_console

if TYPE_CHECKING:
    from fcnlab.lab import Lab
    from fcnlab.runner.cost.estimate import Estimate
    from fcnlab.runner.plan import Plan
    from fcnlab.settings import Device

EXAMPLE = "Example: fcnlab grid plan experiments/quickstart.yaml"


def plan(
    file: GridFile,
    probe: Annotated[
        bool, typer.Option("--probe", help="Measure a few steps of each kind of trial that is left")
    ] = False,
    every: Annotated[bool, typer.Option("--all", help="Show every cell, however many there are")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For machines: everything as JSON")] = False,
    workers: Workers = None,
    threads: Threads = None,
    per_gpu: PerGpu = 1,
    device: DeviceOption = "auto",
    lab: LabOption = None,
    data_root: DataRoot = None,
) -> None:
    """Check a grid and show its cells: what is finished, what is left, what it may cost. Nothing is run but a probe."""
    from fcnlab.lab import Lab
    from fcnlab.runner.plan import make_plan

    place = Lab.find(file, root=lab, data_root=data_root)
    made = make_plan(place.load_grid(file), place)
    judged = _judged(made, place, probe, workers, threads, per_gpu, device) if made.remaining else None
    if as_json:
        _print_json(made, judged, place)
    else:
        _print(made, judged, place, every, device)


def _judged(
    plan: Plan, lab: Lab, probe: bool, workers: int | None, threads: int | None, per_gpu: int, device: Device
) -> Estimate:
    from fcnlab.runner.cost.estimate import estimate
    from fcnlab.runner.cost.history import recorded, shapes_of
    from fcnlab.runner.cost.probe import probe as measure
    from fcnlab.runner.executors.process import max_trials_per_gpu, plan_slots

    shapes = shapes_of(plan)
    slots = plan_slots(plan.grid.recipes, workers, threads, per_gpu, device=device)
    sharing = max_trials_per_gpu(slots, len(plan.remaining))
    if probe:
        paces = measure(plan, lab, shapes, slots[0], lambda what: typer.echo(f"probe: {what}", err=True))
    else:
        paces = recorded(plan, lab, shapes, sharing)
    return estimate(plan, shapes, paces, len(slots), sharing)


def _print(plan: Plan, judged: Estimate | None, lab: Lab, every: bool, device: Device) -> None:
    from fcnlab.cli.grid.cells import SHOWN, cells, in_short

    terminal = create_console()
    terminal.print(f"{plan.grid.name}: {plan.grid.file.question}", style="bold", soft_wrap=True)
    if every or len(plan.grid.cells) <= SHOWN:
        terminal.print(cells(plan))
    else:
        terminal.print(in_short(plan))
        terminal.print(f"{len(plan.grid.cells)} cells; --all shows each", soft_wrap=True)
    for line in (*_stock(plan, lab), *(_cost(judged, plan, device) if judged is not None else ())):
        terminal.print(line, soft_wrap=True)


def _stock(plan: Plan, lab: Lab) -> list[str]:
    """What there is already, and what is left."""
    from fcnlab.cli.grid.cells import STATES
    from fcnlab.runner.plan import count_reported

    total = len(plan.all_trials)
    counts = ", ".join(f"{count} {state}" for state in STATES if (count := plan.count(state)))
    lines = [f"{total} trials: {counts}"]
    if plan.prerequisites:
        lines.append(f"{len(plan.prerequisites)} of them are no cells: others start from them")
    finished = plan.count("finished")
    if finished:
        where = ", ".join(f"{count} of them in results/{name}" for name, count in count_reported(plan, lab).items())
        lines.append(f"reused: {finished} that finished before in {lab.runs}" + (f"; {where}" if where else ""))
    return lines


def _cost(judged: Estimate, plan: Plan, device: Device) -> list[str]:
    """What is left costs about, and by what that is known."""
    from fcnlab.runner.progress.base import duration

    if not judged.known:
        return [
            f"left: {judged.trials} trials, {judged.slots} at once; how long they take cannot be told, for none like "
            "them has finished in this lab: --probe measures it",
            _memory(judged, plan, device),
        ]
    bound = "at most " if plan.grid.file.early_stopping is not None else "about "
    lines = [
        f"left: {bound}{duration(judged.seconds)} with {judged.slots} at once, "
        f"{judged.device_seconds / 3600:.2g} device-hours for {judged.known} of {judged.trials} trials, "
        f"by {', '.join(judged.by)}"
    ]
    if judged.alike:
        lines.append(f"{judged.alike} of these are judged by other variants on the same data with the same sizes")
    if judged.derived:
        lines.append(
            f"{judged.sharing} trials share a GPU; their speed together is not measured for {judged.derived} of these, "
            "which are taken to be no faster than one after the other"
        )
    if judged.known < judged.trials:
        lines.append(f"of {judged.trials - judged.known} trials nothing is known: --probe measures them")
    return [*lines, f"{_memory(judged, plan, device)}; disk: about {_bytes(judged.disk)}"]


def _memory(judged: Estimate, plan: Plan, device: Device) -> str:
    from fcnlab.runner.executors.gpus import select_gpus
    from fcnlab.runner.executors.process import estimate_memory

    if judged.memory is not None:
        return f"memory: up to {_bytes(judged.memory)} a trial"
    if select_gpus(device):
        return "memory: not measured"
    most = max(estimate_memory(planned.trial.recipe) for planned in plan.remaining)
    return f"memory: not measured; {_bytes(most)} are set aside for a trial, by the size of its batches"


def _bytes(count: int) -> str:
    """Bytes as people say them."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def _print_json(plan: Plan, judged: Estimate | None, lab: Lab) -> None:
    import dataclasses
    import json

    from fcnlab.cli.grid.cells import STATES, as_values
    from fcnlab.runner.plan import count_reported

    said = {
        "grid": plan.grid.name,
        "question": plan.grid.file.question,
        "axes": list(plan.grid.axes),
        "seeds": list(plan.grid.seeds),
        "cells": as_values(plan),
        "trials": {state: plan.count(state) for state in STATES},
        "before": len(plan.prerequisites),
        "reported": dict(count_reported(plan, lab)),
        "left": dataclasses.asdict(judged) if judged is not None else None,
    }
    typer.echo(json.dumps(said, indent=1))
