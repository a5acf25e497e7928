"""Kill the processes of a running grid at random, and check that nothing is lost, repeated or changed.

    python -m benchmarks.failures.kills --kills 200 --torn 200 --pairs 20

A grid is run undisturbed, and then again and again in new labs while its processes are killed:

- `--kills`: signals to its driver, the server that forks its workers, its workers and its trials; a driver that ends is
  started again, as a cluster does.
- `--torn`: power cuts. All processes are killed at once, and files that were written last are truncated or lose their
  last block, before the driver is started again.
- `--pairs`: two drivers run one grid, and one of them is killed, or stopped and then killed.

Each grid must then have the same table and the same counts of every image as the undisturbed one, each trial must be in
MLflow once and finished, no record may be written twice, and no process and no temporary file may be left behind. No
output may contain a traceback. Runs on Linux only, since it finds processes in /proc.
"""

from __future__ import annotations

import argparse
import os
import random
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from benchmarks.failures.killed_grid import PATIENCE, KilledGrid, compare
from benchmarks.failures.outcomes import Tally, add_json_option, report
from benchmarks.failures.torn_files import find_recent, tear
from benchmarks.failures.warm import Driver, list_session, send, wait_until_gone

TARGETS = {
    "driver": "the workers end; the next `grid run` resumes from records and checkpoints",
    "server": "workers continue; the next worker is forked from a new server",
    "worker": "another worker replaces it; the trial resumes from its checkpoint",
    "trial": "the trial resumes from its checkpoint",
}
GRACEFUL = {
    "driver": "trials pause after their epoch, exit code 130; the next `grid run` resumes",
    "server": "nothing: it ends with the driver",
    "worker": "its trial pauses after its epoch; another worker replaces it and resumes the trial",
    "trial": "the trial pauses after its epoch and is resumed",
}
ALL = "all processes"
CUTS = 20
"""Power cuts after which a grid is left to end."""

KINDS = [
    *((target, number) for target in TARGETS for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)),
    (ALL, signal.SIGTERM),
]
"""What receives which signal."""


def main() -> int:
    """Run all grids and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="number of signals")
    parser.add_argument("--torn", type=int, default=200, help="number of power cuts")
    parser.add_argument("--pairs", type=int, default=20, help="number of grids with two drivers")
    parser.add_argument("--seeds", type=int, default=1, help="seeds of the grids, which have six cells")
    parser.add_argument("--small", action="store_true", help="grids of two cells, for a quick run")
    parser.add_argument("--pause", type=float, default=0.7, help="mean CPU seconds of a grid between two kills")
    parser.add_argument("--chance", type=int, default=0, help="seed of the times, processes and files")
    add_json_option(parser)
    given = parser.parse_args()
    began, chance, found = time.monotonic(), random.Random(given.chance), Tally()
    with tempfile.TemporaryDirectory(prefix="fcnlab-kills-") as folder:
        os.environ["FCNLAB_CACHE"] = str(Path(folder) / "cache")
        calm = KilledGrid(Path(folder) / "calm", given.seeds, small=given.small)
        calm.run_undisturbed()
        grids = (KilledGrid(Path(folder) / f"lab{number}", given.seeds, small=given.small) for number in count())
        print(f"undisturbed: {time.monotonic() - began:.0f} s", flush=True)
        ended = list(send_signals(grids, given.kills, given.pause, chance, found))
        ended += cut_power(grids, given.torn, given.pause, chance, found)
        ended += run_pairs(grids, given.pairs, chance, found)
        for name, grid in ended:
            expected = "same table, same counts, each trial once in MLflow, no file left behind"
            found.add(name, expected, "; ".join(compare(calm, grid, weights=True) + grid.problems))
    command = shlex.join(["python", "-m", "benchmarks.failures.kills", *sys.argv[1:]])
    return report(found.outcomes(), command.partition(" --json")[0], time.monotonic() - began, given.json)


def send_signals(
    grids: Iterator[KilledGrid], wanted: int, pause: float, chance: random.Random, found: Tally
) -> Iterator[tuple[str, KilledGrid]]:
    """Send signals to the processes of grids, each of which ends before the next one is started.

    Args:
        grids: new grids.
        wanted: number of signals.
        pause: mean CPU seconds of a grid between two signals.
        chance: chooses the times and the processes.
        found: gets the cases.

    Yields:
        The name of a case and the grid that has ended.
    """
    kinds = [KINDS[number % len(KINDS)] for number in range(wanted)]
    chance.shuffle(kinds)
    while kinds:
        grid = next(grids)
        driver = grid.start()
        while driver.exit_code != 0 and not grid.is_stuck:
            if kinds:
                driver.wait_for_work(chance.expovariate(1 / pause))
                if (problems := send_signal(driver, *kinds[-1], chance)) is not None:
                    target, number = kinds.pop()
                    expected = (TARGETS if number == signal.SIGKILL else GRACEFUL).get(target, GRACEFUL["driver"])
                    problems += grid.find_rewritten()
                    found.add(
                        f"{signal.Signals(number).name} to {_with_article(target)}", expected, "; ".join(problems)
                    )
            driver = continue_grid(grid, driver, PATIENCE if not kinds else 0.0)
        grid.finish(driver)
        yield "results of a grid after signals", grid


def _with_article(target: str) -> str:
    return target if target == ALL else f"{'the' if target in ('driver', 'server') else 'a'} {target}"


def continue_grid(grid: KilledGrid, driver: Driver, seconds: float) -> Driver:
    """Start another driver if this one has ended before the grid has; retry failed trials.

    Args:
        grid: the grid.
        driver: its driver.
        seconds: time to wait for the end of the driver.

    Returns:
        The driver of the grid now.
    """
    driver.wait(seconds)
    if driver.exit_code in (None, 0):
        return driver
    grid.check_end(driver)
    return grid.start(retry_failed=driver.exit_code == 1 and grid.has_failed_trial())


def send_signal(driver: Driver, target: str, number: int, chance: random.Random) -> list[str] | None:
    """Send a signal to a process of a driver and wait for its effect.

    Args:
        driver: the driver.
        target: a key of TARGETS, or ALL.
        number: the signal.
        chance: chooses the process.

    Returns:
        One line for each problem; None if the driver has ended before it had such a process.
    """
    while not (ids := driver.find_processes("any" if target == ALL else target)):
        if driver.wait(0.05):
            return None
    chosen = ids if target == ALL else [chance.choice(ids)]
    doomed = find_doomed(driver, target, number, chosen[0])
    if not [one for one in chosen if send(one, number)]:
        return None
    left = wait_until_gone(doomed, PATIENCE)
    if target in (ALL, "driver") and driver.wait(PATIENCE):
        left = wait_until_gone([one.id for one in list_session(driver.id)], PATIENCE)
    return [f"{len(left)} processes left behind"] if left else []


def find_doomed(driver: Driver, target: str, number: int, process_id: int) -> list[int]:
    """Return the processes that a signal ends, also those that end later because of it.

    Args:
        driver: a driver.
        target: a key of TARGETS, or ALL.
        number: the signal.
        process_id: id of the process that receives it.
    """
    if target in (ALL, "driver"):
        return driver.find_processes("any")
    if target == "server":
        return [process_id] if number == signal.SIGKILL else []
    return find_below(driver, process_id)


def find_below(driver: Driver, process_id: int) -> list[int]:
    """Return a process of a driver and all processes below it.

    Args:
        driver: the driver.
        process_id: id of the process.
    """
    living, found = list_session(driver.id), [process_id]
    for parent in found:
        found += [one.id for one in living if one.parent == parent]
    return found


def cut_power(
    grids: Iterator[KilledGrid], wanted: int, pause: float, chance: random.Random, found: Tally
) -> Iterator[tuple[str, KilledGrid]]:
    """Kill all processes of grids at once and tear files before the next start.

    Args:
        grids: new grids.
        wanted: number of power cuts.
        pause: mean CPU seconds of a grid from a start to the next power cut.
        chance: chooses the times and the files.
        found: gets the cases.

    Yields:
        The name of a case and the grid that has ended.
    """
    while wanted > 0:
        grid, left = next(grids), min(CUTS, wanted)
        began, driver = time.time(), grid.start()
        while driver.exit_code != 0 and not grid.is_stuck:
            if left and not driver.wait_for_work(chance.expovariate(1 / pause)):
                driver.kill_all()
                left, wanted = left - 1, wanted - 1
                grid.check_output(driver)
                tear_files(grid, began, chance, found)
                began, driver = time.time(), grid.start()
            else:
                driver = continue_grid(grid, driver, 0.0 if left else PATIENCE)
        grid.finish(driver, repair=True)
        yield "results of a grid after power cuts", grid


def tear_files(grid: KilledGrid, began: float, chance: random.Random, found: Tally) -> None:
    """Tear one to three files of different kinds that the killed driver or its workers have written last.

    Args:
        grid: the grid, without a process.
        began: start of the driver, in seconds since the epoch.
        chance: chooses the files and the damage.
        found: gets the cases.
    """
    problem = "; ".join(grid.find_rewritten())
    recent = list(find_recent(grid.folder, Path(os.environ["FCNLAB_CACHE"]), began))
    for kind, path in chance.sample(recent, min(len(recent), chance.randint(1, 3))):
        grid.expect_repair(path)
        grid.torn.append(tear(path, chance))
        found.add(f"{kind} torn by a power cut", "found by its checksum or its form; written again", problem)


def run_pairs(
    grids: Iterator[KilledGrid], wanted: int, chance: random.Random, found: Tally
) -> Iterator[tuple[str, KilledGrid]]:
    """Run grids with two drivers each, and kill one of them.

    Args:
        grids: new grids.
        wanted: number of grids.
        chance: chooses the times and the driver.
        found: gets the cases.

    Yields:
        The name of a case and the grid that has ended.
    """
    for number in range(wanted):
        grid = next(grids)
        drivers = [grid.start(workers=1), grid.start(workers=1)]
        while not all(driver.find_processes("trial") or driver.wait(0.1) for driver in drivers):
            time.sleep(0.1)
        chance.shuffle(drivers)
        killed, other = drivers
        killed.wait_for_work(chance.uniform(0.0, 3.0))
        stops = number % 2 == 1
        if stops:
            send(killed.id, signal.SIGSTOP)
            time.sleep(chance.uniform(0.0, 4.0))
        living = killed.find_processes("any")
        had_ended = not grid.has_heartbeat(other)
        send(killed.id, signal.SIGKILL)
        left = wait_until_gone(living, PATIENCE)
        problems = [f"{len(left)} processes left behind"] if left else []
        if not other.wait(4 * PATIENCE):
            problems.append("the other driver has not ended")
            other.kill_all()
        elif other.exit_code != 0:
            problems.append(f"the other driver ended with exit code {other.exit_code}")
        if had_ended:  # the killed driver was the last one
            other = grid.start()
            other.wait(4 * PATIENCE)
        grid.finish(other)
        name = f"{'SIGSTOP and SIGKILL' if stops else 'SIGKILL'} to one of two drivers"
        problem = "; ".join(problems + grid.find_rewritten())
        found.add(name, "the other driver takes over its trials and finishes the grid", problem)
        yield "results of a grid with two drivers", grid


if __name__ == "__main__":
    sys.exit(main())
