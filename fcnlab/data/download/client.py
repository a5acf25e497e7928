"""HTTP downloads with resuming and retries."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fcnlab.data.json_cache import read_json
from fcnlab.errors import DataError
from fcnlab.paths import is_file
from fcnlab.version import __version__

PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before each retry; the sequence restarts when data arrives."""

TIMEOUT = 60.0
"""Seconds without data after which a connection is closed."""

CHUNK = 2**18

_PASSING = (408, 425, 429, 500, 502, 503, 504)

Progress = Callable[[int, int | None], object]
"""Called with the number of received bytes and the size of the file, if it is known."""


class Unreachable(Exception):
    """No address provides the file. `str(error)` is the reason."""


class _Passing(Exception):
    """A temporary error; `wait` is the delay in seconds that the server requests."""

    def __init__(self, why: str, wait: float = 0.0) -> None:
        super().__init__(why)
        self.wait = wait


def part_path(target: Path) -> Path:
    """Return the file of an incomplete download.

    Args:
        target: the complete file.
    """
    return target.with_name(f"{target.name}.part")


def origin_path(target: Path) -> Path:
    """Return the file that stores the address of a download; files without it were not downloaded.

    Args:
        target: the complete file.
    """
    return target.with_name(f"{target.name}.origin.json")


def download(
    urls: tuple[str, ...],
    target: Path,
    *,
    size: int | None = None,
    limit: int,
    has_checksum: bool,
    progress: Progress = lambda _done, _total: None,
    pauses: tuple[float, ...] = PAUSES,
    timeout: float = TIMEOUT,
) -> str:
    """Download `target.part` completely from the first address that provides it.

    A partial file is resumed if a checksum will verify the result, or if the server confirms that the file has not
    changed since.

    Args:
        urls: addresses, in the order in which they are tried.
        target: the complete file; the caller renames the part after verifying it.
        size: size of the file in bytes, if it is known.
        limit: maximum size in bytes.
        has_checksum: True if the caller verifies a checksum.
        progress: called with the number of received bytes and the size of the file.
        pauses: delays of the retries in seconds.
        timeout: seconds without data after which a connection is closed.

    Returns:
        The address that provided the file.

    Raises:
        Unreachable: no address provides the file.
        DataError: the disk cannot be written.
    """
    reasons = []
    for url in urls:
        try:
            _download_from(url, target, size, limit, has_checksum, progress, pauses, timeout)
            return url
        except Unreachable as error:
            reasons.append(f"{url}: {error}")
    raise Unreachable("; ".join(reasons))


def _download_from(
    url: str, target: Path, size: int | None, limit: int, has_checksum: bool, progress: Progress,
    pauses: tuple[float, ...], timeout: float,
) -> None:  # fmt: skip
    """Transfer until the file is complete; give up after `len(pauses)` + 1 attempts in a row without data."""
    part, idle = part_path(target), 0
    while True:
        before = _length(part)
        try:
            return _transfer(url, target, size, limit, has_checksum, progress, timeout)
        except _Passing as error:
            idle = 0 if _length(part) > before else idle + 1
            if idle > len(pauses):
                raise Unreachable(f"{error} (tried {idle} times)") from None
            time.sleep(max(pauses[max(0, idle - 1)] if pauses else 0.0, error.wait))


def _transfer(
    url: str, target: Path, size: int | None, limit: int, has_checksum: bool, progress: Progress, timeout: float
) -> None:
    """Open one connection, request the missing bytes and append them."""
    part = part_path(target)
    have = _length(part)
    if size is not None and have == size:
        return
    headers = {"User-Agent": f"fcnlab/{__version__}", "Accept-Encoding": "identity"}
    headers |= _create_range_headers(have, url, target, has_checksum)
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            start, whole = _parse_range(response, have, part)
            if size is not None and whole is not None and whole != size:
                raise Unreachable(f"the file has {whole:,} bytes instead of {size:,}")
            _save_origin(target, url, response.headers)
            _append(response, part, start, whole, limit, progress)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416:
                _check_complete(error, part, have)
                return
            if error.code in _PASSING:
                raise _Passing(f"HTTP {error.code} {error.reason}", _parse_retry_after(error)) from None
            raise Unreachable(f"HTTP {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise _classify(error.reason) from None
    except (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
        raise _Passing(f"the connection was closed: {error or type(error).__name__}") from None


def _create_range_headers(have: int, url: str, target: Path, has_checksum: bool) -> dict[str, str]:
    """Return the headers that request the missing bytes; none if the download must restart."""
    if not have:
        return {}
    origin = read_json(origin_path(target))
    unchanged = origin.get("validator") if origin.get("url") == url else None
    if unchanged:
        return {"Range": f"bytes={have}-", "If-Range": unchanged}
    return {"Range": f"bytes={have}-"} if has_checksum else {}


def _parse_range(response: Any, have: int, part: Path) -> tuple[int, int | None]:
    """Return the offset of the response in the file, and the size of the file."""
    if response.status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != have:
            part.unlink(missing_ok=True)
            raise _Passing("the server sent another range than requested")
        return have, None if match[2] == "*" else int(match[2])
    length = response.headers.get("Content-Length")
    return 0, int(length) if length is not None and length.isdecimal() else None


def _append(response: Any, part: Path, start: int, whole: int | None, limit: int, progress: Progress) -> None:
    """Append the response at offset `start`.

    Raises:
        _Passing: the response was truncated.
        Unreachable: the response is larger than `limit`.
        DataError: the disk cannot be written.
    """
    received = start
    with _open_to_write(part, "ab" if start else "wb") as file:
        progress(received, whole)
        while chunk := response.read(CHUNK):
            received += len(chunk)
            if received > limit:
                raise Unreachable(f"received more than {limit:,} bytes, the maximum size")
            try:
                file.write(chunk)
            except OSError as error:
                raise DataError(f"{part}: cannot be written: {error.strerror}") from None
            progress(received, whole)
    if whole is not None and received < whole:
        raise _Passing(f"the connection was closed after {received:,} of {whole:,} bytes")


def _open_to_write(path: Path, mode: str) -> Any:
    try:
        return path.open(mode, buffering=0)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}") from None


def _check_complete(error: urllib.error.HTTPError, part: Path, have: int) -> None:
    """Handle a range after the end: the file is complete, or it has changed on the server."""
    match = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
    if match is None or int(match[1]) != have:
        part.unlink(missing_ok=True)
        raise _Passing("the file has changed on the server; the download restarts")


def _parse_retry_after(error: urllib.error.HTTPError) -> float:
    seconds = error.headers.get("Retry-After", "")
    return min(60.0, float(seconds)) if seconds.isdecimal() else 0.0


def _classify(reason: object) -> Exception:
    """Return the error for a failed connection."""
    if isinstance(reason, socket.gaierror | ssl.SSLCertVerificationError):
        return Unreachable(str(reason.strerror or reason))
    if isinstance(reason, ConnectionError | TimeoutError | ssl.SSLError):
        return _Passing(str(getattr(reason, "strerror", None) or reason))
    return Unreachable(str(getattr(reason, "strerror", None) or reason))


def _save_origin(target: Path, url: str, headers: Any) -> None:
    """Save the URL and the validator of a partial download; the server detects a changed file by the validator."""
    tag = headers.get("ETag")
    validator = tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")
    try:
        origin_path(target).write_text(json.dumps({"url": url, "validator": validator}), encoding="utf-8")
    except OSError as error:
        raise DataError(f"{origin_path(target)}: cannot be written: {error.strerror}") from None


def _length(path: Path) -> int:
    return path.stat().st_size if is_file(path) else 0
