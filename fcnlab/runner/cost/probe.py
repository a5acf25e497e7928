"""Probes: a few steps of each workload in separate processes, to measure its cost. The results are cached."""

from __future__ import annotations

import dataclasses
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from multiprocessing.connection import wait
from typing import cast

from fcnlab.config.trial import Trial
from fcnlab.console import format_count
from fcnlab.data.json_cache import cache_file, read_json, write_json
from fcnlab.errors import RunError
from fcnlab.lab import Lab
from fcnlab.processor import get_processor_name
from fcnlab.runner.cost.history import Workload
from fcnlab.runner.cost.rate import CostRate
from fcnlab.runner.executors.call_process import CallProcess
from fcnlab.runner.executors.slots import Slot
from fcnlab.runner.plan import Plan

BUDGET = 60.0
"""Seconds after which no further workload is measured; the others are estimated by GMACs."""

LIMIT = 2 * BUDGET
"""Seconds after which the processes are ended, even if a network is not built yet or in its first step."""

MAX_NAMES = 3
"""Maximum number of variants that one line names."""

VERSION = 4
"""Increased when rates are measured in another way, or have other fields."""


def probe(
    plan: Plan,
    lab: Lab,
    workloads: Mapping[str, Workload],
    slots: Sequence[Slot],
    report: Callable[[str], None],
    known: Mapping[Workload, CostRate] | None = None,
) -> dict[Workload, CostRate]:
    """Measure one trial of each remaining workload, in as many processes at once as trials will run.

    Every process measures the workloads in another order, so that they slow each other down as trials do.

    Args:
        plan: the plan of the grid.
        lab: the lab of the data and weights files.
        workloads: the workload of each trial of the plan, by key.
        slots: the slots of the executor.
        report: called with a line for the user before the probe, for each workload that cannot be measured, and for
            those for which there was no time.
        known: rates of workloads that are not measured.

    Returns:
        The rate of each measured or cached workload.
    """
    trials: dict[Workload, Trial] = {}
    for planned in plan.remaining:
        if workloads[planned.key] not in (known or {}):
            trials.setdefault(workloads[planned.key], planned.trial)
    on_gpu = slots[0].gpu is not None
    together = sum(slot.gpu == slots[0].gpu for slot in slots) if on_gpu else len(slots)
    together = max(1, min(together, len(plan.remaining)))
    files = {workload: cache_file("cost", _identity(workload, slots[0], together)) for workload in trials}
    rates = {workload: CostRate(**content) for workload, file in files.items() if (content := read_json(file))}
    missing = [workload for workload in trials if workload not in rates]
    if missing:
        report(f"measuring {_count_kinds(missing)}, at most about {BUDGET:.0f} s (--no-probe: leave it out)")
        measured, errors = _measure([trials[workload] for workload in missing], lab, slots[0], together)
        for index, rate in measured.items():
            rates[missing[index]] = rate
            write_json(files[missing[index]], dataclasses.asdict(rate))
        for index, error in errors.items():
            if index not in measured:
                report(f"not measured: {trials[missing[index]].names['variant']}: {error}")
        late = [workload for index, workload in enumerate(missing) if index not in measured and index not in errors]
        if late:
            report(f"not measured in this time: {_name_kinds([trials[workload] for workload in late])}")
    return rates


def _count_kinds(kinds: Sequence[object]) -> str:
    return f"{format_count(len(kinds), 'kind')} of trials"


def _name_kinds(trials: Sequence[Trial]) -> str:
    """Name the variants of a few kinds of trials, and count the others."""
    names = list(dict.fromkeys(trial.names["variant"] for trial in trials))
    others = f" and {len(names) - MAX_NAMES} other variants" if len(names) > MAX_NAMES else ""
    return f"{_count_kinds(trials)} ({', '.join(names[:MAX_NAMES])}{others})"


def _identity(workload: Workload, slot: Slot, together: int) -> list[object]:
    machine = [socket.gethostname(), get_processor_name(), version("torch"), slot.gpu is not None]
    return [VERSION, dataclasses.asdict(workload), machine, slot.threads, together]


def _measure(
    trials: Sequence[Trial], lab: Lab, slot: Slot, together: int
) -> tuple[dict[int, CostRate], dict[int, str]]:
    """Return the mean rates and the errors of the trials, by their index."""
    # A process decodes a few images only, which must not replace the cache of the whole split.
    environment = {**os.environ, **slot.environment, "FCNLAB_CACHE_BUDGET": "0"}
    deadline, end = time.monotonic() + BUDGET, time.monotonic() + LIMIT
    rates: dict[int, list[CostRate]] = {}
    errors: dict[int, str] = {}
    with ExitStack() as stack:
        measuring: dict[CallProcess, deque[int]] = {}
        for number in range(together):
            process = stack.enter_context(CallProcess(environment, purpose="measures it"))
            first = number * len(trials) // together
            measuring[process] = deque([*range(first, len(trials)), *range(first)])
            process.start(_try_measure, trials[first], lab, slot.threads, deadline)
        while by_file := {process.fileno(): process for process in measuring}:
            ready = wait(list(by_file), max(0.0, end - time.monotonic()))
            if not ready:
                break
            for process in (by_file[file] for file in cast(list[int], ready)):
                remaining = measuring.pop(process)
                index = remaining.popleft()
                try:
                    answer = process.receive()
                except RunError as error:
                    errors[index] = str(error)
                    continue
                if isinstance(answer, CostRate):
                    rates.setdefault(index, []).append(answer)
                else:
                    errors[index] = str(answer)
                if remaining and time.monotonic() <= deadline:
                    process.start(_try_measure, trials[remaining[0]], lab, slot.threads, deadline)
                    measuring[process] = remaining
    return {index: CostRate.mean(several) for index, several in rates.items()}, errors


def _try_measure(trial: Trial, lab: Lab, threads: int, deadline: float) -> CostRate | str:
    from fcnlab.runner.cost.measure import try_measure  # imports torch

    return try_measure(trial, lab, threads, deadline)
