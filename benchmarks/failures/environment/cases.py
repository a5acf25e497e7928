"""The cases of each failure, in the order of their report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
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
        cases: functions that try one case each and return what ended badly.
        mounts: whether file systems must be mounted, or users changed.
    """

    failure: str
    expected: str
    cases: Sequence[Try]
    mounts: bool = False

    def why_skipped(self) -> str | None:
        """Return why the cases cannot be tried on this machine; None if they can."""
        return mounts.why_not() if self.mounts else None


def list_kinds() -> list[Kind]:
    """Return all kinds of failures."""
    return [*_list_storage(), *_list_environment(), *_list_data_and_store()]


def _list_storage() -> list[Kind]:
    shares = (0.0, 0.08, 0.2, 0.4, 0.6, 0.75, 0.85, 0.95)
    return [
        Kind(
            "the disk of the lab is full at some moment",
            CLEAR,
            [*(partial(storage.fill_lab, share=share) for share in shares), _fill_store, _fill_for_workers],
            mounts=True,
        ),
        Kind(
            "no more files on the disk of the lab",
            "the same",
            [partial(storage.fill_lab_with_files, files=files) for files in (12, 30, 45)],
            mounts=True,
        ),
        Kind(
            "the disk of the cache or of TMPDIR is full",
            "one warning; the grid runs without them",
            [
                partial(storage.fill_other, variable="FCNLAB_CACHE", size=4096),
                partial(storage.fill_other, variable="FCNLAB_CACHE", size=200_000),
                partial(storage.fill_other, variable="TMPDIR", size=4096),
                partial(storage.fill_cache_while_decoding, size=200_000),
                partial(storage.fill_cache_while_decoding, size=400_000),
            ],
            mounts=True,
        ),
        Kind(
            "the quota is used up after some files",
            "one line, exit code 2; the grid resumes to the same table",
            [partial(storage.exceed_quota, writes=writes) for writes in (0, 2, 4, 6, 9, 16)],
        ),
        Kind(
            "`ulimit -f` of 64 kB to 3 MB",
            "the same",
            [partial(storage.limit_file_size, size=size) for size in (2**16, 2**20, 3 * 2**20)],
        ),
        Kind("read-only lab, cache or lab of another user", *_list_permissions(), mounts=True),
    ]


def _fill_for_workers(bench: Workbench) -> list[str]:
    return storage.fill_lab(bench, 0.6, "--executor", "process")


def _fill_store(bench: Workbench) -> list[str]:
    return storage.fill_lab(bench, 0.04, "--tracker", "mlflow")


def _list_permissions() -> tuple[str, list[Try]]:
    expected = (
        "`run` and `report`: one line, exit code 2; `status` reads; nothing is moved; a read-only cache is not written"
    )
    return expected, [
        partial(storage.read_only_lab, command=RUN, codes=(2,), finished=False),
        partial(storage.read_only_lab, command=STATUS, codes=(0,), finished=True),
        partial(storage.read_only_lab, command=REPORT, codes=(2,), finished=True),
        partial(storage.lab_of_another_user, mode=0o755, command=RUN, codes=(2,)),
        partial(storage.lab_of_another_user, mode=0o755, command=STATUS, codes=(0,)),
        partial(storage.lab_of_another_user, mode=0o700, command=STATUS, codes=(2,)),
        *(partial(storage.unreadable_file, name=name) for name in ("counts.npz", "record.json")),
        partial(storage.read_only_cache, filled=False),
        partial(storage.read_only_cache, filled=True),
    ]


def _list_environment() -> list[Kind]:
    return [
        Kind(
            "`ulimit -n` of 16 to 256",
            "128 or more: the grid runs; fewer: one line with the remedy, exit code 2",
            [
                *(partial(process.limit_open_files, files=files, executor="serial") for files in (16, 24, 64)),
                *(partial(process.limit_open_files, files=files, executor="process") for files in (32, 64, 256)),
            ],
        ),
        Kind(
            "/dev/shm missing or read-only",
            "the grid runs",
            [partial(process.without_shared_memory, executor=executor) for executor in ("serial", "process")],
            mounts=True,
        ),
        Kind(
            "TMPDIR or HOME missing",
            "the grid runs; without any home, FCNLAB_CACHE must be set",
            [
                partial(process.with_variables, executor="process", TMPDIR="/nonexistent"),
                partial(process.with_variables, executor="serial", TMPDIR="/dev/null"),
                partial(process.with_variables, executor="serial", HOME="/nonexistent"),
                partial(process.with_variables, executor="serial", HOME=None),
                process.without_home,
            ],
            mounts=True,
        ),
        Kind(
            "a locale of ASCII characters",
            "the grid runs",
            [partial(process.in_ascii, name=name) for name in ("ascii", "Straße 日本")],
        ),
        Kind(
            "the clock jumps by a day, in a run or between two",
            "the grid runs; no duration is negative",
            [
                *(
                    partial(clock.jump_in_a_run, after=after, seconds=seconds)
                    for after in (1.0, 4.0)
                    for seconds in (clock.DAY, -clock.DAY)
                ),
                *(partial(clock.jump_between_runs, seconds=seconds) for seconds in (clock.DAY, -clock.DAY)),
            ],
        ),
    ]


def _list_data_and_store() -> list[Kind]:
    cases = [(data.CHANGES[0], "inside", True), (data.CHANGES[1], "inside", False), (data.CHANGES[2], "inside", False)]
    cases += [(change, "between", True) for change in data.CHANGES]
    return [
        Kind(
            "a dataset changes in mid-grid",
            "one line, exit code 2; the next run trains every cell on the new data",
            [
                partial(data.change_in_mid_grid, change=change, moment=moment, cached=cached)
                for change, moment, cached in cases
            ],
        ),
        Kind(
            "a lab is moved, copied or reached by a link, or has an unusual path",
            "the grid runs; MLflow's files are in the lab. A path that MLflow or SQLite cannot open: one line with the "
            "remedy, exit code 2",
            [
                *(partial(moved.move, how=how) for how in ("moved", "copied", "linked")),
                *(partial(moved.use_path, path=path) for path in ODD_PATHS),
                *(partial(moved.use_refused_path, path=path) for path in REFUSED_PATHS),
            ],
        ),
        Kind(
            "MLflow's store is locked for 5 s, 60 s, or as long as the grid runs",
            "training continues, one warning; `grid sync` publishes later",
            [
                partial(store.lock_store, seconds=5.0, after=None),
                partial(store.lock_store, seconds=60.0, after=None),
                partial(store.lock_store, seconds=3600.0, after=None),
                partial(store.lock_store, seconds=5.0, after="progress.jsonl"),
                partial(store.lock_store, seconds=3600.0, after="progress.jsonl"),
                partial(store.lock_store, seconds=3600.0, after="progress.jsonl", kind="IMMEDIATE"),
            ],
        ),
    ]
