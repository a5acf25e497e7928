"""Verification of all files of a lab, as `fcnlab lab check` prints it: run folders, tracking store, decoded caches."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace

from pydantic import ValidationError

from fcnlab.config.trial import Trial
from fcnlab.data.cache.maintenance import CacheInfo, find_problems, list_caches, remove_cache
from fcnlab.lab import Lab
from fcnlab.paths import exists, is_folder
from fcnlab.runner.lease import Leases
from fcnlab.runner.run import hold_leases
from fcnlab.tracking.store import find_database
from fcnlab.trial.run_folder import RunFolder
from fcnlab.trial.storage.checkpoint_file import find_checkpoint_damage
from fcnlab.trial.storage.counts_check import verify_metrics
from fcnlab.trial.storage.damage import DamageError, KeptError, convert_read_error
from fcnlab.trial.storage.quarantine import list_keys, move_to_quarantine
from fcnlab.trial.storage.sealed_record import SealedRecord, hash_result_file


@dataclass(frozen=True)
class Problem:
    """A damaged file of a lab.

    Attributes:
        path: path of the file.
        problem: description of the problem.
        repair: description of the repair; empty if there was none.
    """

    path: str
    problem: str
    repair: str = ""


@dataclass
class LabCheck:
    """Result of the verification of a lab.

    Attributes:
        trials: number of verified run folders.
        caches: number of verified decoded caches.
        problems: the damaged files.
    """

    trials: int = 0
    caches: int = 0
    problems: list[Problem] = field(default_factory=list)


def check_lab(lab: Lab, *, repair: bool = False) -> LabCheck:
    """Read and verify all files of a lab, also the large ones.

    Args:
        lab: the lab.
        repair: move damaged files to `runs/.quarantine/`, and remove damaged decoded caches. Trials that a driver runs
            are not changed.

    Returns:
        The result.

    Raises:
        RunError: the lab cannot be written, with `repair`.
        DataError: the folder of the decoded caches cannot be read.
    """
    check = LabCheck()
    for name in list_keys(lab.runs):
        folder = RunFolder(lab.runs, name)
        check.trials += exists(folder.trial) or exists(folder.record)
        damages, sealed = _find_damages(folder)
        repair_text = ""
        if damages and repair:
            with hold_leases(lab) as leases:
                repair_text = _repair_trial(folder, damages, sealed, leases)
        check.problems += [Problem(str(folder.path / damage.file), damage.problem, repair_text) for damage in damages]
    check.problems += _check_store(lab, repair=repair)
    for cache in list_caches():
        if cache.state not in ("being built", "interrupted"):
            check.caches += 1
            check.problems += _check_cache(cache, repair=repair)
    return check


def _find_damages(folder: RunFolder) -> tuple[list[DamageError], SealedRecord | None]:
    """Return all damaged files of a run folder, also large ones, and its record if it is intact."""
    _, damage = folder.inspect()
    if damage is not None:
        return [damage], None
    sealed = folder.load_sealed()
    if sealed is None:
        checkpoints = map(find_checkpoint_damage, (folder.checkpoint, folder.previous_checkpoint))
        return [damage for damage in checkpoints if damage is not None], None
    return [*_compare_files(folder, sealed.files), *_compare_metrics(folder, sealed)], sealed


def _compare_metrics(folder: RunFolder, sealed: SealedRecord) -> Iterator[DamageError]:
    try:
        verify_metrics(sealed, folder.path)
    except DamageError as damage:
        yield damage


def _compare_files(folder: RunFolder, files: Mapping[str, str]) -> Iterator[DamageError]:
    for name, expected in files.items():
        try:
            if hash_result_file(folder.path / name) != expected:
                yield DamageError(name, "its content does not agree with the checksum in record.json")
        except FileNotFoundError:
            yield DamageError(name, "it is missing")
        except OSError as error:
            yield convert_read_error(name, error)


def _repair_trial(folder: RunFolder, damages: list[DamageError], sealed: SealedRecord | None, leases: Leases) -> str:
    """Repair a run folder, and describe the repair."""
    if any(isinstance(damage, KeptError) for damage in damages):
        return "not changed"
    if is_folder(folder.path) and not leases.claim(folder.path):
        return "not changed, because a driver runs the trial"
    small = (folder.trial.name, folder.samples.name)
    try:
        if sealed is None:
            folder.repair(checkpoints=True)
            return f"moved to {folder.path.parent / '.quarantine'}"
        if any(damage.file.partition("/")[0] not in small for damage in damages):
            moved = folder.remove_result()
            return f"result moved to {moved}; the next `fcnlab grid run` runs the trial again"
        moved = move_to_quarantine(folder.path, [damage.file for damage in damages])
        folder.write_record(_replace_files(folder, sealed))
        return f"moved to {moved}"
    finally:
        if is_folder(folder.path):
            leases.release(folder.path)


def _replace_files(folder: RunFolder, sealed: SealedRecord) -> SealedRecord:
    """Return a record with the checksums of the files that remain, after small files were moved.

    A missing `trial.json` is written again from the record.
    """
    files = {name: checksum for name, checksum in sealed.files.items() if exists(folder.path / name)}
    if not exists(folder.trial):
        try:
            folder.write_trial(Trial.model_validate(sealed.record.trial))
        except ValidationError:  # of another version of fcnlab: there is nothing to write
            return sealed._replace(files=files)
        files[folder.trial.name] = hash_result_file(folder.trial)
    return sealed._replace(files=files)


def _check_store(lab: Lab, *, repair: bool) -> Iterator[Problem]:
    """Verify an MLflow store in an SQLite file with SQLite's own check."""
    file = find_database(lab.tracking_uri)
    if file is None or not exists(file):
        return
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as store:
            rows = [str(row[0]) for row in store.execute("PRAGMA quick_check")]
    except sqlite3.Error as error:
        rows = [str(error)]
    if rows == ["ok"]:
        return
    description = ""
    if repair and lab.tracking_uri == lab.own_tracking_uri:
        names = [file.name, f"{file.name}-wal", f"{file.name}-shm", f"{file.name}-journal"]
        moved = move_to_quarantine(file.parent, names, runs=lab.runs)
        description = f"moved to {moved}; `fcnlab grid sync FILE` publishes each grid again"
    yield Problem(str(file), rows[0].splitlines()[0], description)


def _check_cache(cache: CacheInfo, *, repair: bool) -> Iterator[Problem]:
    problems = [Problem(str(cache.folder), text.partition(": ")[2]) for text in find_problems(cache)]
    if problems and repair:
        is_removed = remove_cache(cache)
        repair_text = "removed; the next trial decodes it again" if is_removed else "not changed: it is being built"
        problems = [replace(problem, repair=repair_text) for problem in problems]
    yield from problems
