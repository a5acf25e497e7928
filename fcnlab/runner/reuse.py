"""Where finished trials of a grid have been reported already: a record does not say for which grid it was run."""

from __future__ import annotations

import json
from collections import Counter

from fcnlab.lab import Lab
from fcnlab.runner.plan import Plan


def reported(plan: Plan, lab: Lab) -> Counter[str]:
    """How many of a plan's finished trials stand in the results of each grid of the lab."""
    finished = {planned.key for planned in plan.everything if planned.status == "finished"}
    found: Counter[str] = Counter()
    for file in sorted(lab.results.glob("*/provenance.json")) if finished else ():
        trials = json.loads(file.read_text(encoding="utf-8"))["trials"]
        found[file.parent.name] = sum(trial["key"] in finished for trial in trials)
    return +found
