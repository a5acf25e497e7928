"""Measure fcnlab on a GPU: the parts of a training step, and training, evaluation and grids alternately with peers.

    python -m benchmarks.gpu.bench --out DIR --photos CAMVID --budget 420

DIR/bench.json is rewritten after each section, DIR/bench.log contains the output of the sections. Each section runs in
a separate process, which is killed with all of its children if it overruns, so an error ends only its section. With a
smaller budget the last sections are left out and the others take fewer or shorter measurements; none uses the minimum
time of a later one. `--smoke --device cpu` runs all of them at tiny sizes: the timings mean nothing, but all code runs.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that the file runs without -m, too

from benchmarks.gpu.results import Outcome, Results
from benchmarks.gpu.timings import REPOSITORY, SECTIONS, SMOKE, Context, Section, Sizes
from benchmarks.processes import child_environment, end_with_parent, exit_on_sigterm
from benchmarks.speed import check_peers
from fcnlab.errors import RunError

PEERS = ("torchvision", "d2l", "smp")
LOG = "bench.log"
GRACE = 10.0
"""Seconds beyond its allowance after which a section is killed. It reads `Context.left` and stops before that."""


def main() -> int:
    """Run the sections and return the exit code: 0 if all that ran have passed, 2 if a package is missing."""
    given = parse()
    if given.child is not None:
        end_with_parent()
        return run_child(given)
    exit_on_sigterm()
    try:
        check_peers(*list_peers(plan(given.budget, given.section, given.smoke), given.peer))
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    (out / LOG).unlink(missing_ok=True)
    header = {"device": given.device, "smoke": given.smoke, "budget": given.budget}
    results = Results(out / "bench.json", header)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fcnlab-gpu-bench-", dir=given.work) as folder:
        work = Path(folder)
        images = start_images(given, work, out)
        try:
            run_sections(given, work, results, images, began)
        finally:
            end(images)
    print_tables(results)
    return results.summarize()


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        arguments: by default those of the process.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [section.name for section in SECTIONS]
    parser.add_argument("--out", type=Path, required=True, help="folder for bench.json and bench.log")
    parser.add_argument("--section", nargs="+", choices=names, default=[], help="only these")
    parser.add_argument("--budget", type=float, default=420.0, help="seconds for all sections")
    parser.add_argument("--photos", type=Path, help="folder in CamVid's layout; synthetic images without it")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--peer", nargs="*", choices=PEERS, default=PEERS, help="peers of training [default: all]")
    parser.add_argument("--work", type=Path, help="folder for temporary files [default: the system's]")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to see that the sections run")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--allowance", type=float, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


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


def list_peers(sections: Sequence[Section], peers: Sequence[str]) -> list[str]:
    """Return the modules of benchmarks/peers that sections import.

    Args:
        sections: the sections.
        peers: peers of training.
    """
    training = ["networks", *(f"train_{name}" for name in peers)]
    found = {"training": training, "augmentation": ["data"], "evaluation": ["run_one"], "grid": ["run_one"]}
    return [name for section in sections for name in found.get(section.name, ())]


def run_sections(
    given: argparse.Namespace, work: Path, results: Results, images: subprocess.Popen[bytes], began: float
) -> None:
    """Run the planned sections, each with its share of the remaining time.

    Args:
        given: the command line.
        work: folder for temporary files.
        results: gets the outcomes.
        images: process that writes the images.
        began: start of the run, by `time.monotonic`.
    """
    chosen = plan(given.budget, given.section, given.smoke)
    for section in SECTIONS:
        if section not in chosen and not given.section:
            skip(results, section, f"a budget of {given.budget:.0f} s is too small")
    for number, section in enumerate(chosen):
        if section.images and images.wait() != 0:
            results.add(Outcome(section.name, False, 0.0, "the images were not made; see bench.log"))
            continue
        left = given.budget - (time.monotonic() - began)
        if not given.smoke and left < section.minimum:
            skip(results, section, f"{left:.0f} s are left, {section.minimum:.0f} s are needed")
            continue
        results.add(run_isolated_section(given, section, work, allowance(chosen[number:], left)))


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


def start_images(given: argparse.Namespace, work: Path, out: Path) -> subprocess.Popen[bytes]:
    """Start the process that writes the images, while sections run that need none.

    Args:
        given: the command line.
        work: folder for temporary files.
        out: folder of the log.
    """
    sizes = SMOKE if given.smoke else Sizes()
    command = [sys.executable, "-m", "benchmarks.gpu.images", str(work / "data")]
    command += ["--train", str(sizes.train), "--val", str(sizes.val)]
    command += ["--sizes", sizes.sizes] if sizes.sizes else []
    command += ["--processes", "1"] if given.smoke else []
    command += ["--photos", str(given.photos)] if given.photos else []
    paths = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
    with (out / LOG).open("ab") as log:
        environment = child_environment() | {"PYTHONPATH": paths}
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)


def run_isolated_section(given: argparse.Namespace, section: Section, work: Path, allowance: float) -> Outcome:
    """Run a section in a separate process, kill the processes that remain, and return its outcome.

    Args:
        given: the command line.
        section: the section.
        work: folder for temporary files.
        allowance: seconds of the section.
    """
    answer = work / f"{section.name}.json"
    command = [sys.executable, "-m", "benchmarks.gpu.bench", "--out", str(given.out), "--section", section.name]
    command += ["--device", given.device, "--work", str(work), "--child", str(answer), "--allowance", str(allowance)]
    command += ["--peer", *given.peer]
    command += ["--smoke"] if given.smoke else []
    began = time.perf_counter()
    context = Context(section.name, given.device, given.smoke, allowance, work, answer, tuple(given.peer))
    error: str | None = None
    with (given.out / LOG).open("ab") as log:
        log.write(f"\n--- {section.name}, {allowance:.0f} s\n".encode())
        log.flush()
        environment = child_environment(context.environment())
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        try:
            process.wait(None if given.smoke else allowance + GRACE)
        except subprocess.TimeoutExpired:
            error = f"killed after {allowance + GRACE:.0f} s"
        finally:
            end(process)
    seconds = time.perf_counter() - began
    if not answer.is_file():
        found: dict[str, Any] = {"result": {}, "error": f"no result, exit code {process.returncode}"}
    else:
        found = json.loads(answer.read_text(encoding="utf-8"))
    error = error or found["error"] or (f"exit code {process.returncode}" if process.returncode else None)
    result = found["result"]
    last = str(error).strip().splitlines()[-1] if error else ""
    return Outcome(section.name, error is None, seconds, last or str(result.get("detail", "")), result, error)


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and its process group.

    Args:
        process: the leader of the group.
    """
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def run_child(given: argparse.Namespace) -> int:
    """Run one section in this process.

    Args:
        given: the command line, with one section.

    Returns:
        The exit code.
    """
    (name,) = given.section
    context = Context(name, given.device, given.smoke, given.allowance, given.work, given.child, tuple(given.peer))
    sys.path.insert(0, str(REPOSITORY / "benchmarks" / "peers"))
    os.environ.update(context.environment())
    try:
        result = importlib.import_module(f"benchmarks.gpu.timings.{name}").measure(context)
    except Exception:  # noqa: BLE001 - recorded with its traceback, beside what was measured before
        saved = json.loads(context.answer.read_text())["result"] if context.answer.is_file() else {}
        traceback.print_exc()
        context.save(saved, traceback.format_exc())
        return 1
    context.save(result)
    return 0


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
