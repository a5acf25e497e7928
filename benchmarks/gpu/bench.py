"""Measure fcnlab on a GPU: the parts of a training step, and training, evaluation and grids alternately with peers.

    python -m benchmarks.gpu.bench --out DIR --photos CAMVID --budget 420

DIR/bench.json is rewritten after each section, DIR/logs contains the output of the sections. Each section runs in a
separate process, which is killed with all of its children if it overruns, so an error ends only its section. With a
smaller budget the last sections are left out and the others take fewer or shorter measurements; none uses the minimum
time of a later one. `--smoke --device cpu` runs all of them at tiny sizes: the timings mean nothing, but all code runs.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.gpu.child import Child, run_child
from benchmarks.gpu.results import Outcome, Results
from benchmarks.gpu.timings import SECTIONS, Context, Section
from benchmarks.processes import child_environment, exit_on_sigterm, kill_group
from benchmarks.speed import check_peers
from fcnlab.errors import RunError

PROGRAM = ("-m", "benchmarks.gpu.bench")
"""Arguments of Python that start this program."""
PEERS = ("torchvision", "d2l", "smp")
OVERRUN = 10.0
"""Seconds beyond its allowance after which a section is ended. It reads `Context.left` and stops before that."""


def main() -> int:
    """Run the sections and return the exit code: 0 if all that ran have passed, 2 if a package is missing."""
    given = parse()
    if given.child is not None:
        return run_child(Context.read(given.child), given.section, find_section)
    exit_on_sigterm()
    chosen = plan(given.budget, given.section, given.smoke)
    try:
        check_peers(*(f"train_{name}" for name in given.peer if any(section.name == "training" for section in chosen)))
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    header = {"device": given.device, "smoke": given.smoke, "budget": given.budget}
    results = Results(given.out / "bench.json", header)
    shutil.rmtree(given.out / "logs", ignore_errors=True)  # of an earlier run
    with tempfile.TemporaryDirectory(prefix="fcnlab-gpu-bench-") as folder:
        context = Context(given.out.resolve(), Path(folder), given.device, given.smoke, peers=given.peer)
        images = start_images(context, given.photos)
        try:
            run_sections(given, chosen, context, results, images)
        finally:
            kill_group(images)
    print_tables(results)
    return results.summarize()


def find_section(name: str) -> Callable[[Context], dict[str, Any]]:
    """Import the module of a section, and return its function.

    Args:
        name: name of the section.
    """
    return import_module(f"benchmarks.gpu.timings.{name}").measure


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [section.name for section in SECTIONS]
    parser.add_argument("--out", type=Path, required=True, help="folder for bench.json and logs")
    parser.add_argument("--section", nargs="+", choices=names, default=[], help="only these")
    parser.add_argument("--budget", type=float, default=420.0, help="seconds for all sections")
    parser.add_argument("--photos", type=Path, help="folder in CamVid's layout; generated scenes without it")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--peer", nargs="*", choices=PEERS, default=PEERS, help="peers of training [default: all]")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to see that the sections run")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def plan(budget: float, names: Sequence[str], smoke: bool) -> list[Section]:
    """Return the sections to run: the named ones, or the first ones whose minimum times fit the budget.

    Args:
        budget: seconds for all sections.
        names: names of sections; if empty, all.
        smoke: run sections at tiny sizes, whatever the budget.
    """
    if names or smoke:
        return [section for section in SECTIONS if section.name in names or not names]
    chosen, needed = [], 0.0
    for section in SECTIONS:
        needed += section.minimum
        if needed > budget:
            break
        chosen.append(section)
    return chosen


def run_sections(
    given: argparse.Namespace,
    chosen: Sequence[Section],
    context: Context,
    results: Results,
    images: subprocess.Popen[bytes],
) -> None:
    """Run the planned sections, each with its share of the remaining time.

    Args:
        given: the command line.
        chosen: the planned sections.
        context: settings of all sections.
        results: gets the outcomes.
        images: process that writes the images.
    """
    for section in SECTIONS:
        if section not in chosen and not given.section:
            skip(results, section, f"a budget of {given.budget:.0f} s is too small")
    for number, section in enumerate(chosen):
        if section.images and images.wait() != 0:
            results.add(Outcome(section.name, False, 0.0, "the images were not made; see logs/images.txt"))
            continue
        left = given.budget - (time.monotonic() - context.began)
        if not given.smoke and left < section.minimum:
            skip(results, section, f"{left:.0f} s are left, {section.minimum:.0f} s are needed")
            continue
        seconds = allowance(chosen[number:], left)
        own = replace(context, name=section.name, allowance=seconds, began=time.monotonic())
        limit = context.patience * seconds + OVERRUN
        Child(own, results, float("inf"), PROGRAM).run([section.name], limit)


def allowance(sections: Sequence[Section], left: float) -> float:
    """Return the seconds of the first of the remaining sections: its share, which leaves the others their minimum.

    Args:
        sections: the remaining sections.
        left: remaining seconds.
    """
    section = sections[0]
    share = section.weight / sum(other.weight for other in sections) * left
    minimum_of_others = sum(other.minimum for other in sections[1:])
    return max(section.minimum, min(share, left - minimum_of_others))


def skip(results: Results, section: Section, why: str) -> None:
    """Record that a section was left out.

    Args:
        results: gets the outcome.
        section: the section.
        why: the reason.
    """
    results.add(Outcome(section.name, True, 0.0, f"skipped: {why}", {"skipped": why}))


def start_images(context: Context, photos: Path | None) -> subprocess.Popen[bytes]:
    """Start the process that writes the images, while sections run that need none.

    Args:
        context: settings of all sections.
        photos: folder in CamVid's layout.
    """
    sizes = context.sizes
    command = [sys.executable, "-m", "benchmarks.gpu.images", str(context.data)]
    command += ["--train", str(sizes.train), "--val", str(sizes.val)]
    command += ["--sizes", sizes.sizes] if sizes.sizes else []
    command += ["--processes", "1"] if context.smoke else []
    command += ["--photos", str(photos)] if photos else []
    with context.log("images").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=child_environment(), start_new_session=True)


def print_tables(results: Results) -> None:
    """Print the tables of the sections.

    Args:
        results: the outcomes.
    """
    for outcome in results.outcomes:
        rows = outcome.result.get("table", [])
        if rows:
            print(f"\n{outcome.section}")
        for name, value in rows:
            print(f"  {name:<58} {value}")


if __name__ == "__main__":
    raise SystemExit(main())
