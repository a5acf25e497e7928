"""Content of `record.json`: a record, the SHA-256 of each other file of the result, and the SHA-256 of all of this."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from fcnlab.trial.record import Record
from fcnlab.trial.storage.damage import DamageError, VersionError, find_unknown

RECORD_FILE = "record.json"

FORMAT = 1
"""Version of the content of `record.json`; raise it with a change that older versions would misread."""


class SealedRecord(NamedTuple):
    """A record as it is stored.

    Attributes:
        record: the record.
        files: SHA-256 of each other file of the result, by its path in the run folder.
    """

    record: Record
    files: Mapping[str, str]


def encode_record(record: Record, files: Mapping[str, str]) -> bytes:
    """Return the content of `record.json`.

    Args:
        record: the record.
        files: SHA-256 of each other file of the result, by its path in the run folder.
    """
    content = json.loads(record.model_dump_json()) | {"format": FORMAT, "files": dict(sorted(files.items()))}
    return json.dumps(content | {"checksum": compute_checksum(content)}, indent=1, ensure_ascii=False).encode()


def decode_record(raw: bytes) -> SealedRecord:
    """Read the content of `record.json` and verify its checksum.

    Args:
        raw: content of the file.

    Returns:
        The record and the checksums of the other files.

    Raises:
        VersionError: it is intact and of a newer version of fcnlab.
        DamageError: it is not a record, or its checksum is missing or differs.
    """
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError):
        raise DamageError(RECORD_FILE, "it is truncated or not JSON" if raw else "it is empty") from None
    if not isinstance(content, dict):
        raise DamageError(RECORD_FILE, "it is not a record")
    if content.pop("checksum", None) != compute_checksum(content):
        raise DamageError(RECORD_FILE, "its content does not agree with its checksum")
    files = content.pop("files", None)
    format_ = content.pop("format", FORMAT)
    if not isinstance(format_, int) or format_ > FORMAT:
        raise VersionError(RECORD_FILE, f"format {format_}, and this version reads {FORMAT}")
    if not _are_checksums(files):
        raise DamageError(RECORD_FILE, "its checksums are not those of files in the run folder")
    try:
        record = Record.model_validate_json(json.dumps(content))
    except ValidationError as error:
        unknown = find_unknown(error)
        if unknown is not None:
            raise VersionError(RECORD_FILE, unknown) from None
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DamageError(
            RECORD_FILE, f"it is not a record of this version of fcnlab ({where}: {first['msg']})"
        ) from None
    return SealedRecord(record, files)


def _are_checksums(files: object) -> bool:
    """Return whether these are texts by names of files in the run folder; the names are hashed and moved later."""
    return isinstance(files, dict) and all(
        isinstance(checksum, str) and not {"", ".", ".."}.intersection(name.split("/")) and "\0" not in name
        for name, checksum in files.items()
    )


def compute_checksum(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the canonical JSON of values, in hexadecimal digits.

    Args:
        content: values of JSON.
    """
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def hash_result_file(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits.

    Args:
        path: path of the file.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
