"""Check on a GPU that training, evaluation and grids give the same results as on the CPU.

    python -m benchmarks.gpu.accept --out DIR --data-root DATA

Each section checks one property: CUDA against the CPU, no hidden synchronization, determinism, resumption, shared GPUs,
exhausted memory. A section that fails or hangs ends only itself. DIR/accept.json is rewritten after each section,
DIR/logs contains the output of the sections. The exit code is 0 only if all sections passed.

Sections run in separate processes, several at a time, because most of them check correctness and wait for the host.
Sections that measure time or fill the GPU's memory run one at a time. `--resume` runs only the sections that have not
passed before. `--smoke --device cpu` runs all but the sections that need a GPU, at tiny sizes.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.gpu.child import Child, run_child
from benchmarks.gpu.results import Results, read_passed
from benchmarks.gpu.sections import GROUPS, Group, find_section
from benchmarks.gpu.sections.settings import JOBS, AcceptSettings

PROGRAM = ("-m", "benchmarks.gpu.accept")
"""Arguments of Python that start this program."""

RESERVED = 0.3
"""Largest share of the budget that is kept for the sections of later phases."""


def main() -> int:
    """Run the sections and return the exit code."""
    given = parse()
    if given.child is not None:
        return run_child(AcceptSettings.read(given.child), given.section, find_section)
    file = given.out / "accept.json"
    passed = read_passed(file) if given.resume else []
    if not given.resume:
        shutil.rmtree(given.out / "logs", ignore_errors=True)  # of an earlier run
    results = Results(file, {"device": given.device, "smoke": given.smoke}, passed)
    deadline = time.monotonic() + given.budget
    groups = selected(given.section, given.device, {outcome.section for outcome in passed})
    if given.jobs == 1:
        groups = merge_phases(groups)
    with TemporaryDirectory(prefix="fcnlab-accept-", ignore_cleanup_errors=True) as scratch:
        data_root = given.data_root.resolve() if given.data_root is not None else None
        settings = AcceptSettings(given.out.resolve(), Path(scratch), given.device, given.smoke, data_root, given.jobs)
        for phase in sorted({group.phase for group in groups}):
            later = settings.patience * sum(group.limit for group in groups if group.phase > phase)
            until = deadline - min(later, RESERVED * given.budget)
            with ThreadPoolExecutor(given.jobs) as pool:
                for group in groups:
                    if group.phase == phase:
                        limit = settings.patience * group.limit
                        pool.submit(Child(settings, results, until, PROGRAM).run, list(group.sections), limit)
    return results.summarize()


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [name for group in GROUPS for name in group.sections]
    parser.add_argument("--out", type=Path, required=True, help="folder for accept.json, logs and the lab's archive")
    parser.add_argument("--section", nargs="+", choices=names, default=[], help="only these")
    parser.add_argument("--budget", type=float, default=300.0, help="seconds for all sections")
    parser.add_argument("--data-root", type=Path, help="folder that holds camvid/; generated images without it")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to see that the sections run")
    parser.add_argument("--jobs", type=int, default=JOBS, help="sections at once")
    parser.add_argument("--resume", action="store_true", help="keep the passed sections of DIR/accept.json")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def selected(names: list[str], device: str, passed: Collection[str] = ()) -> list[Group]:
    """Return the groups with the named sections, or with all that can run on the device.

    Args:
        names: names of sections; if empty, all.
        device: `cpu` or `cuda`.
        passed: sections that have passed before and are left out.
    """
    found = []
    for group in GROUPS:
        chosen = (name for name in group.sections if (name in names if names else group.runs_on(device)))
        wanted = tuple(name for name in chosen if name not in passed)
        if wanted:
            found.append(Group(wanted, group.phase, group.limit, group.needs_gpu))
    return found


def merge_phases(groups: Sequence[Group]) -> list[Group]:
    """Return one group per phase, for sections that run one at a time: each process imports torch.

    Args:
        groups: the groups; a section that crashes or hangs still ends only itself.
    """
    merged: dict[int, Group] = {}
    for group in groups:
        before = merged.get(group.phase, Group((), group.phase, 0.0))
        sections, limit = before.sections + group.sections, max(before.limit, group.limit)
        merged[group.phase] = Group(sections, group.phase, limit, before.needs_gpu or group.needs_gpu)
    return list(merged.values())


if __name__ == "__main__":
    sys.exit(main())
