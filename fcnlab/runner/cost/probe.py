"""Probes: a few steps of a trial in a separate process, to measure its cost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping

from fcnlab.config.trial import Trial
from fcnlab.errors import RunError
from fcnlab.lab import Lab
from fcnlab.runner.cost.history import CostRate, Workload
from fcnlab.runner.executors.slots import Slot
from fcnlab.runner.plan import Plan

STEPS = 4
"""Number of timed training steps, after the same number of warm-up steps."""

IMAGES = 8
"""Number of images of the timed evaluation, after a warm-up evaluation of the same images."""


def probe(
    plan: Plan, lab: Lab, workloads: Mapping[str, Workload], slot: Slot, on_start: Callable[[str], None]
) -> dict[Workload, CostRate]:
    """Measure one trial of each remaining workload, one after the other, with the settings of a slot.

    Args:
        plan: the plan of the grid.
        lab: the lab of the data and weights files.
        workloads: the workload of each trial of the plan, by key.
        slot: threads and GPUs of the probe.
        on_start: called with the name of the variant and the dataset before each probe.

    Returns:
        The cost rate of each remaining workload.

    Raises:
        RunError: a trial cannot be probed; the message ends with the last line of its process.
    """
    rates: dict[Workload, CostRate] = {}
    for planned in plan.remaining:
        workload = workloads[planned.key]
        if workload not in rates:
            on_start(f"{planned.trial.names['variant']} on {planned.trial.names['dataset']}")
            rates[workload] = _run_probe(planned.trial, lab, slot)
    return rates


def _run_probe(trial: Trial, lab: Lab, slot: Slot) -> CostRate:
    command = [sys.executable, "-m", "fcnlab.runner.cost.probe_worker", str(lab.root), str(lab.data_root or "")]
    done = subprocess.run(
        [*command, str(slot.threads)],
        input=trial.model_dump_json(),
        capture_output=True,
        text=True,
        env={**os.environ, **slot.environment},
    )
    if done.returncode != 0:
        errors = done.stderr.strip().splitlines() or [f"the process exited with code {done.returncode}"]
        raise RunError(f"--probe: {trial.names['variant']}: {errors[-1]}")
    return CostRate(**json.loads(done.stdout.splitlines()[-1]))
