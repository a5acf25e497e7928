"""A probe: a few steps of a trial in a process of its own, to see how long they take and how much memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping

from fcnlab.config.trial import Trial
from fcnlab.errors import RunError
from fcnlab.lab import Lab
from fcnlab.runner.cost.history import Pace, Shape
from fcnlab.runner.executors.process import Slot
from fcnlab.runner.plan import Plan

STEPS = 4
"""Steps that are timed, after as many that are not: the first of all are slower."""

SCORED = 8
"""Images whose scoring is timed, after as many that are not."""


def probe(
    plan: Plan, lab: Lab, shapes: Mapping[str, Shape], slot: Slot, told: Callable[[str], None]
) -> dict[Shape, Pace]:
    """Measure a trial of each shape that is left, one after the other, as it would run in a slot.

    `told` hears of each before it begins.

    Raises:
        RunError: a trial cannot be probed; the message has the last line of what its process said.
    """
    paces: dict[Shape, Pace] = {}
    for planned in plan.remaining:
        shape = shapes[planned.key]
        if shape not in paces:
            told(f"{planned.trial.names['variant']} on {planned.trial.names['dataset']}")
            paces[shape] = _probed(planned.trial, lab, slot)
    return paces


def _probed(trial: Trial, lab: Lab, slot: Slot) -> Pace:
    command = [sys.executable, "-m", "fcnlab.runner.cost.probe_worker", str(lab.root), str(lab.data_root or "")]
    done = subprocess.run(
        [*command, str(slot.threads)],
        input=trial.model_dump_json(),
        capture_output=True,
        text=True,
        env={**os.environ, **slot.environment},
    )
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"its process ended with {done.returncode}"]
        raise RunError(f"--probe: {trial.names['variant']}: {said[-1]}")
    return Pace(**json.loads(done.stdout.splitlines()[-1]))
