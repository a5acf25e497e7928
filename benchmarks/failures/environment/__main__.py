"""Cause failures of the storage and the environment of a lab, and check what fcnlab makes of them.

    python -m benchmarks.failures.environment --json docs/reliability/environment.json

A case fails with a traceback, a command that hangs, a wrong table, a record that is lost or repeated, or files
that are left behind. Cases that require root are skipped, with the reason, where file systems cannot be mounted. Runs
on Linux.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import torch

import fcnlab.report.write
import fcnlab.runner.executors.worker
import fcnlab.runner.run
import fcnlab.trial.trainer  # noqa: F401 - imported before commands are forked
from benchmarks.failures.environment.cases import Kind, list_kinds
from benchmarks.failures.environment.commands import Workbench
from benchmarks.failures.outcomes import Outcome, Tally, add_json_option, report


def main() -> int:
    """Try all cases and print the outcomes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="try the failures whose name contains this text")
    parser.add_argument("--minutes", type=float, default=240, help="start no case after this time")
    add_json_option(parser)
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        bench = open_workbench(Path(folder))
        kinds = [kind for kind in list_kinds() if given.only in kind.failure]
        outcomes = try_kinds(bench, kinds, began + 60 * given.minutes)
    command = "python -m benchmarks.failures.environment"
    return report(outcomes, command, time.monotonic() - began, given.json)


def open_workbench(folder: Path) -> Workbench:
    """Make a workbench whose commands train with one thread on the CPU, so that their metrics are equal.

    Args:
        folder: an empty folder.
    """
    torch.set_num_threads(1)
    os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "FCNLAB_PROBE": "0"}
    return Workbench(folder)


def try_kinds(bench: Workbench, kinds: Sequence[Kind], deadline: float) -> list[Outcome]:
    """Try the first case of each failure, then the second of each, and so on.

    Args:
        bench: the workbench.
        kinds: the failures; those that cannot be tried on this machine are skipped.
        deadline: monotonic time after which no further case is tried.
    """
    tally = Tally()
    for kind in kinds:
        reason = kind.why_skipped()
        if reason is not None:
            print(f"{kind.failure}: skipped: {reason}")
    for number in range(max((len(kind.cases) for kind in kinds), default=0)):
        for kind in kinds:
            if number < len(kind.cases) and kind.why_skipped() is None and time.monotonic() < deadline:
                tally.add(kind.failure, kind.expected, _try_case(bench, kind, number))
    return tally.outcomes()


def _try_case(bench: Workbench, kind: Kind, number: int) -> str:
    """Return the problem of a case; an empty text if there is none."""
    started = time.monotonic()
    try:
        found = kind.cases[number](bench)
    except Exception:  # noqa: BLE001 - a case that the harness cannot try has not ended well
        found = [f"not tried: {traceback.format_exc()}"]
    print(f"{kind.failure}, case {number}: {time.monotonic() - started:.0f} s {found}", file=sys.stderr, flush=True)
    return f"case {number}: {found[0]}" if found else ""


if __name__ == "__main__":
    sys.exit(main())
