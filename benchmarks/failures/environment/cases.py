"""The cases of each failure, in the order of their report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import NamedTuple

from benchmarks.failures.environment import clock, data, mounts, moved, process, storage, store
from benchmarks.failures.environment.commands import FILE, Workbench

RUN = ("grid", "run", FILE, "--executor", "serial", "--threads", "1", "--tracker", "none")
STATUS = ("grid", "status", FILE)
REPORT = ("report", FILE)
CLEAR = "one line with the path and the free space, exit code 2; after room is made, the grid resumes to the same table"
ODD_PATHS = ("with spaces/ü and 日本", "100% #1 [a] 'b' & \"c\"")
REFUSED_PATHS = ("what? 100% #1 [a] 'b'", "a%20b", moved.LONG)

Try = Callable[[Workbench], list[str]]


class Kind(NamedTuple):
    """The cases of one failure.

    Attributes:
        failure: name of the failure, as in a table.
        expected: expected behavior of fcnlab.
        cases: functions that try one case each and return its problem.
        mounts: whether file systems must be mounted, or users changed.
    """

    failure: str
    expected: str
    cases: Sequence[Try]
    mounts: bool = False

    def why_skipped(self) -> str | None:
        """Return why the cases cannot be tried on this machine; None if they can."""
        return mounts.why_not() if self.mounts else None


def vary(case: Callable[..., list[str]], **values: Sequence[object]) -> list[Try]:
    """Return a case with each combination of values of its arguments.

    Args:
        case: tries a case.
        **values: values of each argument.
    """
    return [partial(case, **dict(zip(values, chosen, strict=True))) for chosen in product(*values.values())]


def list_kinds() -> list[Kind]:
    """Return all kinds of failures."""
    return [*_list_storage(), *_list_environment(), *_list_data_and_store()]


def _list_storage() -> list[Kind]:
    shares = (0.0, 0.08, 0.2, 0.4, 0.6, 0.75, 0.85, 0.95)
    return [
        Kind(
            "the disk of the lab is full at some moment",
            CLEAR,
            [*vary(storage.fill_lab, share=shares), _fill_store, _fill_for_workers],
            mounts=True,
        ),
        Kind(
            "no more files on the disk of the lab",
            "the same",
            vary(storage.fill_lab_with_files, files=(12, 30, 45)),
            mounts=True,
        ),
        Kind(
            "the disk of the cache or of TMPDIR is full",
            "one warning; the grid runs without them",
            [
                *vary(storage.fill_other, variable=("FCNLAB_CACHE",), size=(4096, 200_000)),
                *vary(storage.fill_other, variable=("TMPDIR",), size=(4096,)),
                *vary(storage.fill_cache_while_decoding, size=(200_000, 400_000)),
            ],
            mounts=True,
        ),
        Kind(
            "the quota is used up after some files",
            "one line, exit code 2; the grid resumes to the same table",
            vary(storage.exceed_quota, writes=(0, 2, 4, 6, 9, 16)),
        ),
        Kind("`ulimit -f` of 64 kB to 3 MB", "the same", vary(storage.limit_file_size, size=(2**16, 2**20, 3 * 2**20))),
        Kind(
            "read-only lab, cache or lab of another user",
            "`run` and `report`: one line, exit code 2; `status` reads; nothing is moved; a read-only cache is not "
            "written",
            [
                partial(storage.read_only_lab, command=RUN, codes=(2,), finished=False),
                partial(storage.read_only_lab, command=STATUS, codes=(0,), finished=True),
                partial(storage.read_only_lab, command=REPORT, codes=(2,), finished=True),
                partial(storage.lab_of_another_user, mode=0o755, command=RUN, codes=(2,)),
                partial(storage.lab_of_another_user, mode=0o755, command=STATUS, codes=(0,)),
                partial(storage.lab_of_another_user, mode=0o700, command=STATUS, codes=(2,)),
                *vary(storage.unreadable_file, name=("counts.npz", "record.json")),
                *vary(storage.read_only_cache, filled=(False, True)),
            ],
            mounts=True,
        ),
    ]


def _fill_for_workers(bench: Workbench) -> list[str]:
    return storage.fill_lab(bench, 0.6, "--executor", "process")


def _fill_store(bench: Workbench) -> list[str]:
    return storage.fill_lab(bench, 0.04, "--tracker", "mlflow")


def _list_environment() -> list[Kind]:
    return [
        Kind(
            "`ulimit -n` of 16 to 256",
            "128 or more: the grid runs; fewer: one line with the remedy, exit code 2",
            [
                *vary(process.limit_open_files, files=(16, 24, 64), executor=("serial",)),
                *vary(process.limit_open_files, files=(32, 64, 256), executor=("process",)),
            ],
        ),
        Kind(
            "/dev/shm missing or read-only",
            "the grid runs",
            vary(process.without_shared_memory, executor=("serial", "process")),
            mounts=True,
        ),
        Kind(
            "TMPDIR or HOME missing",
            "the grid runs; without any home, FCNLAB_CACHE must be set",
            [
                partial(process.with_variables, executor="process", TMPDIR="/nonexistent"),
                partial(process.with_variables, executor="serial", TMPDIR="/dev/null"),
                *vary(process.with_variables, executor=("serial",), HOME=("/nonexistent", None)),
                process.without_home,
            ],
            mounts=True,
        ),
        Kind("a locale of ASCII characters", "the grid runs", vary(process.in_ascii, name=("ascii", "Straße 日本"))),
        Kind(
            "the clock jumps by a day, in a run or between two",
            "the grid runs; no duration is negative",
            [
                *vary(clock.jump_in_a_run, after=(1.0, 4.0), seconds=(clock.DAY, -clock.DAY)),
                *vary(clock.jump_between_runs, seconds=(clock.DAY, -clock.DAY)),
            ],
        ),
    ]


def _list_data_and_store() -> list[Kind]:
    first, *later = data.CHANGES[:3]
    return [
        Kind(
            "a dataset changes in mid-grid",
            "one line, exit code 2; the next run trains every cell on the new data",
            [
                *vary(data.change_in_mid_grid, change=(first,), moment=("inside",), cached=(True,)),
                *vary(data.change_in_mid_grid, change=later, moment=("inside",), cached=(False,)),
                *vary(data.change_in_mid_grid, change=data.CHANGES, moment=("between",), cached=(True,)),
            ],
        ),
        Kind(
            "a lab is moved, copied or reached by a link, or has an unusual path",
            "the grid runs; MLflow's files are in the lab. A path that MLflow or SQLite cannot open: one line with the "
            "remedy, exit code 2",
            [
                *vary(moved.move, how=("moved", "copied", "linked")),
                *vary(moved.use_path, path=ODD_PATHS),
                *vary(moved.use_refused_path, path=REFUSED_PATHS),
            ],
        ),
        Kind(
            "MLflow's store is locked for 5 s, 60 s, or as long as the grid runs",
            "training continues, one warning; `grid sync` publishes later",
            [
                *vary(store.lock_store, seconds=(5.0, 60.0, 3600.0), after=(None,)),
                *vary(store.lock_store, seconds=(5.0, 3600.0), after=("progress.jsonl",)),
                partial(store.lock_store, seconds=3600.0, after="progress.jsonl", kind="IMMEDIATE"),
            ],
        ),
    ]
