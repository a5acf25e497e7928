"""Probes: a few steps of each workload in separate processes, to measure its cost. The results are cached."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from importlib.metadata import version

from fcnlab.config.trial import Trial
from fcnlab.console import format_count
from fcnlab.data.json_cache import cache_file, read_json, write_json
from fcnlab.lab import Lab
from fcnlab.processor import get_processor_name
from fcnlab.runner.cost.history import Workload
from fcnlab.runner.cost.rate import CostRate
from fcnlab.runner.executors.slots import Slot
from fcnlab.runner.plan import Plan

BUDGET = 60.0
"""Seconds after which no further workload is measured; the others are estimated by GMACs."""

LIMIT = 2 * BUDGET
"""Seconds after which the processes are ended, even if a network is not built yet or in its first step."""

MAX_NAMES = 3
"""Maximum number of variants that one line names."""

VERSION = 3
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
    command = [sys.executable, "-m", "fcnlab.runner.cost.probe_worker", str(lab.root), str(lab.data_root or "")]
    command += [str(slot.threads), str(time.monotonic()), str(time.monotonic() + BUDGET)]
    # The worker decodes a few images only, which must not replace the cache of the whole split.
    environment = {**os.environ, **slot.environment, "FCNLAB_CACHE_BUDGET": "0"}
    rates: dict[int, list[CostRate]] = {}
    errors: dict[int, str] = {}
    with ExitStack() as stack:
        processes = []
        for number in range(together):
            first = number * len(trials) // together
            order = [*range(first, len(trials)), *range(first)]
            content = json.dumps([[index, trials[index].model_dump(mode="json")] for index in order])
            processes.append(_start_process(command, content, environment))
            stack.callback(processes[-1].kill)  # if the probe is interrupted
        ends = time.monotonic() + LIMIT
        for process in processes:
            output, cut_off = _read_output(process, ends)
            for line in output.splitlines():
                answer = json.loads(line)
                if "error" in answer:
                    errors[answer["index"]] = answer["error"]
                else:
                    rates.setdefault(answer.pop("index"), []).append(CostRate(**answer))
            if process.returncode != 0 and not cut_off:
                unanswered = [index for index in range(len(trials)) if index not in rates and index not in errors]
                errors |= dict.fromkeys(unanswered[:1], f"its process ended with exit code {process.returncode}")
    return {index: CostRate.mean(several) for index, several in rates.items()}, errors


def _start_process(command: Sequence[str], content: str, environment: Mapping[str, str]) -> subprocess.Popen[str]:
    """Start a process whose standard input is a text.

    The text is in a file, because writing a long one to a pipe waits until the process has imported torch, and fails if
    the process ends before.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
        file.write(content)
        file.seek(0)
        return subprocess.Popen(
            command, stdin=file, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
        )


def _read_output(process: subprocess.Popen[str], ends: float) -> tuple[str, bool]:
    """Return the lines of a process, and whether it was killed because it had not ended at a time."""
    try:
        return process.communicate(timeout=max(0.0, ends - time.monotonic()))[0], False
    except subprocess.TimeoutExpired:
        process.kill()
        output = process.communicate()[0]
        return output[: output.rfind("\n") + 1], True
