"""Verification of a finished record, and of its metrics against the counts from which they were computed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from fcnlab.atomic_file import read_shared
from fcnlab.paths import exists
from fcnlab.trial.evaluation.metrics import compute_split_metrics
from fcnlab.trial.record import Record, SplitMetrics
from fcnlab.trial.storage.damage import DamageError, UnreadableError, convert_read_error
from fcnlab.trial.storage.sealed_record import RECORD_FILE, SealedRecord

COUNTS_FILE = "counts.npz"

TOLERANCE = 1e-12
"""Greatest difference between a recorded and a recomputed metric."""


def verify_result(sealed: SealedRecord, folder: Path) -> None:
    """Verify that a record is complete, and that its counts are those that were written.

    The weights and the samples are not read.

    Args:
        sealed: the record with the checksums of the other files.
        folder: run folder of the trial.

    Raises:
        DamageError: a field is missing, or the counts are missing or have another checksum.
    """
    record = sealed.record
    if record.status == "failed":
        if record.failure is None:
            raise DamageError(RECORD_FILE, "the status is `failed`, but `failure` is missing")
        return
    missing = [name for name in ("metrics", "cost") if not getattr(record, name)]
    if missing:
        raise DamageError(RECORD_FILE, f"it has no {' and no '.join(missing)}")
    expected = sealed.files.get(COUNTS_FILE)
    if expected is not None:  # else it is a record of trials that stored no counts
        _read_counts(folder / COUNTS_FILE, expected)


def verify_metrics(sealed: SealedRecord, folder: Path) -> None:
    """Compute the metrics of a record again from its counts, and verify that they agree.

    Nothing but an edited record with a new checksum, or a bug, makes them differ. All counts are decompressed, which
    takes longer than all other checks of a record.

    Args:
        sealed: the record, which `verify_result` accepts, with the checksums of the other files.
        folder: run folder of the trial.

    Raises:
        DamageError: the counts have another form, or a metric does not agree with them.
    """
    path, expected = folder / COUNTS_FILE, sealed.files.get(COUNTS_FILE)
    if sealed.record.status == "finished" and (expected is not None or exists(path)):
        _verify_metrics(sealed.record, read_arrays(path, expected))


def read_arrays(path: Path, expected: str | None) -> dict[str, np.ndarray]:
    """Read all arrays of a file of counts.

    Args:
        path: path of the file.
        expected: SHA-256 of the file; None if it is not known.

    Raises:
        UnreadableError: the file cannot be read now.
        DamageError: the file is missing, has another checksum, or is not an archive of arrays.
    """
    raw = _read_counts(path, expected)
    try:
        with np.load(BytesIO(raw)) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except Exception as error:  # noqa: BLE001 - zipfile, zlib and numpy raise errors of many types for damaged archives
        if expected is not None:  # the content is that which was written: memory, or a module of Python, is missing
            raise UnreadableError(COUNTS_FILE, error) from None
        raise DamageError(COUNTS_FILE, "it is not a complete archive of arrays") from None


def _read_counts(path: Path, expected: str | None) -> bytes:
    """Read a file of counts, and verify its checksum if that is known."""
    try:
        raw = read_shared(path)
    except FileNotFoundError:
        raise DamageError(COUNTS_FILE, "it is missing") from None
    except OSError as error:
        raise convert_read_error(COUNTS_FILE, error) from None
    if expected is not None and hashlib.sha256(raw).hexdigest() != expected:
        raise DamageError(COUNTS_FILE, "its content does not agree with the checksum in record.json")
    return raw


def _verify_metrics(record: Record, arrays: Mapping[str, np.ndarray]) -> None:
    evaluated = {f"{metrics.split}_{metrics.checkpoint}" for metrics in record.metrics}
    counted = {name for name in arrays if not name.endswith(("_ids", "_boundary"))}
    if evaluated != counted or len(evaluated) != len(record.metrics):
        problem = f"it has counts of {_join(counted)}, and the record metrics of {_join(evaluated)}"
        raise DamageError(COUNTS_FILE, problem)
    for metrics in record.metrics:
        name = f"{metrics.split}_{metrics.checkpoint}"
        counts, boundary = arrays[name], arrays.get(f"{name}_boundary")
        shape = (metrics.images, len(metrics.class_iou), 3)
        for array in (counts, boundary):
            _verify_counts(name, array, shape)
        ids = arrays.get(f"{metrics.split}_ids")
        if ids is None or ids.shape != (metrics.images,):
            raise DamageError(COUNTS_FILE, f"it does not have one image id per image of {metrics.split}")
        _compare(metrics, compute_split_metrics(metrics.split, metrics.checkpoint, metrics.epoch, counts, boundary))


def _verify_counts(name: str, array: np.ndarray | None, shape: tuple[int, int, int]) -> None:
    if array is None:
        return
    if array.dtype != np.int64 or array.shape != shape:
        raise DamageError(
            COUNTS_FILE, f"the counts '{name}' are {array.dtype} {list(array.shape)}, not int64 {list(shape)}"
        )
    if (array < 0).any():
        raise DamageError(COUNTS_FILE, f"the counts '{name}' are negative")


def _compare(recorded: SplitMetrics, computed: SplitMetrics) -> None:
    for field in ("miou", "pixel_acc", "mean_acc", "fw_iou", "boundary_iou", "class_iou"):
        if not _agree(getattr(recorded, field), getattr(computed, field)):
            raise DamageError(
                RECORD_FILE,
                f"{field} of {recorded.split} at the {recorded.checkpoint} epoch does not agree with {COUNTS_FILE}",
            )


def _agree(one: Any, other: Any) -> bool:
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(_agree, one, other))
    if one is None or other is None:
        return one is other
    return abs(one - other) <= TOLERANCE


def _join(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"
