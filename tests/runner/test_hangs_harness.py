"""A short run of `benchmarks/failures/hangs.py`: one trial with little address space beside one without a limit."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.failures import hangs
from fcnlab.lab import Lab
from fcnlab.runner.plan import PlannedTrial, make_plan


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds processes in /proc, which only Linux has")
def test_a_trial_with_little_memory_runs_out_of_memory_and_disturbs_no_other(tmp_path: Path) -> None:
    file = hangs.write_lab(tmp_path, "resnet18-scratch", 1)
    assert hangs.limit_memory(file, 16) is None
    lab = Lab.find(file)
    trials = make_plan(lab.load_grid(file), lab).trials
    causes = {cause: [one for one in trials if _causes(one) == cause] for cause in ("", "out_of_memory")}
    assert [len(found) for found in causes.values()] == [1, 1]
    (calm,) = causes[""]
    assert calm.record is not None and calm.record.status == "finished"


def _causes(planned: PlannedTrial) -> str:
    return " ".join(sorted({attempt.cause for attempt in planned.folder.attempts()}))
