"""`fcnlab grid plan`: the cells of a grid, its remaining trials and their estimated cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from fcnlab.cli.options import DataRoot, DeviceOption, GridFile, LabOption, PerGpu, Threads, Workers
from fcnlab.cli.output import AsJson, print_json
from fcnlab.console import create_console, format_bytes, format_count
from fcnlab.settings import RunOptions

if TYPE_CHECKING:
    from collections import Counter

    from fcnlab.lab import Lab
    from fcnlab.runner.checks.trials import OpenedData
    from fcnlab.runner.cost.estimate import CostEstimate
    from fcnlab.runner.plan import Plan
    from fcnlab.settings import Device

MAX_REPORTS = 3
"""Maximum number of reports that are named."""

EXAMPLE = "Example: fcnlab grid plan experiments/quickstart.yaml"


def plan(
    file: GridFile,
    probe: Annotated[
        bool,
        typer.Option(
            "--probe/--no-probe",
            envvar="FCNLAB_PROBE",
            help="Measure a few steps of each kind of trial of which no comparable trial has finished",
        ),
    ] = True,
    every: Annotated[bool, typer.Option("--all", help="List every cell of a large grid")] = False,
    as_json: AsJson = False,
    workers: Workers = RunOptions.workers,
    threads: Threads = RunOptions.threads,
    per_gpu: PerGpu = RunOptions.per_gpu,
    device: DeviceOption = RunOptions.device,
    lab: LabOption = None,
    data_root: DataRoot = None,
) -> None:
    """Check a grid file, and estimate the cost of its remaining trials.

    Lists the cells and the states of their trials. No trial is run, except for a few steps to measure its cost; the
    measurements are cached.
    """
    from fcnlab.lab import Lab
    from fcnlab.runner.changed_inputs import describe_changed_inputs
    from fcnlab.runner.checks.class_presence import check_class_presence
    from fcnlab.runner.checks.folds import check_folds
    from fcnlab.runner.checks.repeated_images import check_repeated_images
    from fcnlab.runner.checks.trials import OpenedData, check_trials
    from fcnlab.runner.executors.call_process import create_call
    from fcnlab.runner.executors.create import worker_environment
    from fcnlab.runner.plan import check_plan_weights, make_plan

    options = RunOptions(workers=workers, threads=threads, per_gpu=per_gpu, device=device)
    lab_ = Lab.find(file, root=lab, data_root=data_root)
    grid_plan = make_plan(lab_.load_grid(file), lab_)
    data = OpenedData(lab_)
    environment = worker_environment(options, grid_plan.grid.recipes) if grid_plan.remaining else None
    with create_call(environment, _report_check_start) as call:
        warnings = check_trials(grid_plan.remaining, lab_, file, data, call)
    remarks = [*check_plan_weights(grid_plan, lab_), *describe_changed_inputs(grid_plan, lab_)]
    warnings += check_class_presence(grid_plan, lab_, data)
    warnings += [*check_repeated_images(grid_plan, lab_), *check_folds(grid_plan.grid)]
    cost = _estimate(grid_plan, lab_, options, probe) if grid_plan.remaining else None
    if as_json:
        _print_values(grid_plan, cost, warnings, remarks, lab_)
    else:
        _print(grid_plan, cost, lab_, data, every, device)
        for text in remarks:
            typer.echo(text)
        for warning in warnings:
            typer.echo(f"warning: {warning}", err=True)


def _report_check_start() -> None:
    from fcnlab.runner.progress.plain import CHECK_START

    typer.echo(CHECK_START, err=True)


def _estimate(plan: Plan, lab: Lab, options: RunOptions, probe: bool) -> CostEstimate:
    from fcnlab.runner.cost.estimate import estimate_cost
    from fcnlab.runner.cost.history import find_workloads, read_cost_rates
    from fcnlab.runner.cost.probe import probe as measure
    from fcnlab.runner.executors.slots import max_trials_per_gpu, plan_slots

    workloads = find_workloads(plan)
    slots = plan_slots(plan.grid.recipes, options)
    trials_per_device = max_trials_per_gpu(slots, len(plan.remaining))
    rates = read_cost_rates(plan, lab, workloads, trials_per_device, slots[0])
    if probe:
        rates |= measure(plan, lab, workloads, slots, lambda line: typer.echo(f"probe: {line}", err=True), rates)
    return estimate_cost(plan, lab, workloads, rates, len(slots), trials_per_device)


def _print(plan: Plan, cost: CostEstimate | None, lab: Lab, data: OpenedData, every: bool, device: Device) -> None:
    from fcnlab.cli.grid.cells import MAX_ROWS, create_axes_table, create_cells_table
    from fcnlab.config.grid.labels import Labels

    terminal = create_console()
    terminal.print(f"{plan.grid.name}: {plan.grid.file.question}", style="bold", soft_wrap=True)
    if every or len(plan.grid.cells) <= MAX_ROWS:
        terminal.print(create_cells_table(plan, plan.states, terminal.width))
        if plan.grid.unchanged is not None:
            terminal.print(Labels().describe_unchanged(plan.grid.unchanged), soft_wrap=True)
    else:
        terminal.print(create_axes_table(plan, terminal.width))
        terminal.print(f"{format_count(len(plan.grid.cells), 'cell')}; --all shows each", soft_wrap=True)
    for line in (*_describe_trials(plan, lab, data), *(_describe_cost(cost, plan, device) if cost is not None else ())):
        terminal.print(line, soft_wrap=True)


def _describe_trials(plan: Plan, lab: Lab, data: OpenedData) -> list[str]:
    """Describe the existing and the remaining trials."""
    from fcnlab.runner.plan import count_reported

    counts = plan.counts()
    numbers = ", ".join(f"{count:,} {state}" for state, count in counts.items() if count)
    lines = [f"{format_count(len(plan.all_trials), 'trial')}: {numbers}"]
    if plan.remaining:
        lines.append(_describe_steps(plan, data))
    if plan.prerequisites:
        lines.append(f"{len(plan.prerequisites)} of them belong to no cell: others are initialized from them")
    if counts["finished"]:
        reports = _describe_reports(count_reported(plan, lab))
        lines.append(
            f"reused: {format_count(counts['finished'], 'finished trial')} in {lab.runs}"
            + (f"; {reports}" if reports else "")
        )
    return lines


def _describe_steps(plan: Plan, data: OpenedData) -> str:
    """Describe the optimizer steps of the remaining trials."""
    steps = sorted({data.count_steps(planned.trial) for planned in plan.remaining})
    return f"optimizer steps per trial: {steps[0]:,}" + (f" to {steps[-1]:,}" if len(steps) > 1 else "")


def _describe_reports(counts: Counter[str]) -> str:
    """Describe the reports with the most finished trials, and count the others."""
    shown = [f"{count} of them in results/{name}" for name, count in counts.most_common(MAX_REPORTS)]
    more = len(counts) - len(shown)
    return ", ".join(shown) + (f" and in {format_count(more, 'other report')}" if more else "")


def _describe_cost(cost: CostEstimate, plan: Plan, device: Device) -> list[str]:
    """Describe the estimated cost and its sources."""
    from fcnlab.runner.progress.base import format_duration

    if not cost.known:
        return [
            f"remaining: {format_count(cost.trials, 'trial')}, {cost.slots} at a time; no estimate: no comparable "
            "trial has finished yet, and none was measured",
            _describe_memory(cost, plan, device),
        ]
    may_stop = any(recipe.stop_on_plateau is not None for recipe in plan.grid.recipes)
    bound = "at most " if plan.grid.file.early_stopping is not None or may_stop else "about "
    lines = [
        f"remaining: {bound}{format_duration(cost.seconds)} ({format_duration(cost.low)} to "
        f"{format_duration(cost.high)}) with {format_count(cost.slots, 'trial')} at a time, "
        f"{_format_hours(cost.device_seconds / 3600)} device-hours for {cost.known} of "
        f"{format_count(cost.trials, 'trial')}, estimated from {', '.join(cost.sources)}"
    ]
    if cost.from_gmacs:
        lines.append(f"{cost.from_gmacs} of these are estimated from other networks or sizes in proportion to GMACs")
    if cost.extrapolated:
        lines.append(
            f"{cost.trials_per_device} trials share a GPU; no measurement with {cost.trials_per_device} trials per GPU "
            f"for {cost.extrapolated} of these, which are assumed to be no faster than in sequence"
        )
    if cost.known < cost.trials:
        lines.append(f"no estimate for {format_count(cost.trials - cost.known, 'trial')}")
    return [*lines, f"{_describe_memory(cost, plan, device)}; disk: about {format_bytes(cost.disk)}"]


def _format_hours(hours: float) -> str:
    return f"{hours:.2g}" if hours < 10 else f"{hours:,.0f}"


def _describe_memory(cost: CostEstimate, plan: Plan, device: Device) -> str:
    from fcnlab.runner.executors.gpus import select_gpus
    from fcnlab.runner.executors.slots import estimate_memory

    if cost.memory is not None:
        return f"memory: up to {format_bytes(cost.memory)} per trial"
    if select_gpus(device):
        return "memory: not measured"
    most = max(estimate_memory(planned.trial.recipe) for planned in plan.remaining)
    return f"memory: not measured; {format_bytes(most)} per trial are reserved, by the size of its batches"


def _print_values(plan: Plan, cost: CostEstimate | None, warnings: list[str], remarks: list[str], lab: Lab) -> None:
    import dataclasses

    from fcnlab.cli.grid.cells import to_json
    from fcnlab.runner.plan import count_reported

    values = {
        "grid": plan.grid.name,
        "question": plan.grid.file.question,
        "axes": list(plan.grid.axes),
        "seeds": list(plan.grid.seeds),
        "cells": to_json(plan),
        "trials": plan.counts(),
        "prerequisites": len(plan.prerequisites),
        "reported": dict(count_reported(plan, lab)),
        "remaining": dataclasses.asdict(cost) if cost is not None else None,
        "warnings": warnings,
        "remarks": remarks,
    }
    print_json(values)
