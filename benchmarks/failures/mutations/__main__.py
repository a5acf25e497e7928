"""Try many mutations; see the package."""

from __future__ import annotations

import argparse
import resource
import shlex
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from benchmarks.failures.mutations.tally import run_family
from benchmarks.failures.outcomes import add_json_option, report

SPAWN = get_context("spawn")

MEMORY = 6 * 2**30
"""Bytes of memory of each process; torch takes about one gigabyte of it, and a case that needs more fails."""


def main() -> int:
    """Try the mutations and print the outcomes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000, help="number of mutated text files")
    parser.add_argument("--pictures", type=int, default=2_000, help="number of mutated images and masks")
    parser.add_argument("--command-lines", type=int, default=2_000, help="number of random command lines")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--processes", type=int, default=2, help="number of families of cases that run at the same time"
    )
    add_json_option(parser)
    given = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    half, began = given.files // 2, time.monotonic()
    counts = {
        "grids": half,
        "files": given.files - half,
        "pictures": given.pictures,
        "command lines": given.command_lines,
    }
    jobs: dict[str, int | None] = {**counts, "names": None}
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(given.processes, SPAWN) as pool:
        root = Path(folder).resolve()
        running = [pool.submit(run_family, root / name, name, count, given.seed) for name, count in jobs.items()]
        tallies = [job.result() for job in running]
    command = "python -m benchmarks.failures.mutations"
    changed = [word for word in sys.argv[1:] if not word.endswith(".json") and word != "--json"]
    line = shlex.join([*command.split(), *changed])
    return report(
        (outcome for tally in tallies for outcome in tally.outcomes()), line, time.monotonic() - began, given.json
    )


if __name__ == "__main__":
    sys.exit(main())
