"""HTTP downloads with resuming and retries."""

from __future__ import annotations

import http.client
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fcnlab.paths import is_file
from fcnlab.version import __version__

PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before each retry; the sequence restarts when data arrives."""

TIMEOUT = 60.0
"""Seconds without data after which a connection is closed."""

CHUNK = 2**18

_TEMPORARY_STATUSES = (408, 425, 429, 500, 502, 503, 504)

Progress = Callable[[int, int | None], object]
"""Called with the number of received bytes and the size of the file, if it is known."""


class Unreachable(Exception):
    """No address provides the file. `str(error)` is the reason."""


class _TemporaryError(Exception):
    """An error that a retry may remove; `wait` is the delay in seconds that the server requests."""

    def __init__(self, why: str, wait: float = 0.0) -> None:
        super().__init__(why)
        self.wait = wait


def part_path(target: Path) -> Path:
    """Return the file of an incomplete download.

    Args:
        target: the complete file.
    """
    return target.with_name(f"{target.name}.part")


def download(
    urls: tuple[str, ...],
    target: Path,
    *,
    size: int | None = None,
    limit: int,
    has_checksum: bool,
    progress: Progress = lambda _done, _total: None,
) -> str:
    """Download `target.part` completely from the first address that provides it.

    A partial file is resumed if a checksum will verify the result; otherwise the download restarts, since the file may
    have changed on the server.

    Args:
        urls: addresses, in the order in which they are tried.
        target: the complete file; the caller renames the part after verifying it.
        size: size of the file in bytes, if it is known.
        limit: maximum size in bytes.
        has_checksum: True if the caller verifies a checksum.
        progress: called with the number of received bytes and the size of the file.

    Returns:
        The address that provided the file.

    Raises:
        Unreachable: no address provides the file.
        OSError: the disk cannot be written.
    """
    reasons = []
    for url in urls:
        try:
            _download_from(url, part_path(target), size, limit, has_checksum, progress)
            return url
        except Unreachable as error:
            reasons.append(f"{url}: {error}")
    raise Unreachable("; ".join(reasons))


def _download_from(url: str, part: Path, size: int | None, limit: int, resume: bool, progress: Progress) -> None:
    """Transfer until the file is complete; give up after `len(PAUSES)` + 1 attempts in a row without data."""
    idle = 0
    while True:
        before = _length(part)
        try:
            return _transfer(url, part, size, limit, resume, progress)
        except _TemporaryError as error:
            idle = 0 if _length(part) > before else idle + 1
            if idle > len(PAUSES):
                raise Unreachable(f"{error} (tried {idle} times)") from None
            time.sleep(max(PAUSES[max(0, idle - 1)], error.wait))


def _transfer(url: str, part: Path, size: int | None, limit: int, resume: bool, progress: Progress) -> None:
    """Open one connection, request the missing bytes and append them."""
    have = _length(part)
    if size is not None and have == size:
        return
    headers = {"User-Agent": f"fcnlab/{__version__}", "Accept-Encoding": "identity"}
    if have and resume:
        headers["Range"] = f"bytes={have}-"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as response:
            start, whole = _parse_range(response, have, part)
            if size is not None and whole is not None and whole != size:
                raise Unreachable(f"the file has {whole:,} bytes instead of {size:,}")
            _append(response, part, start, whole, limit, progress)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416:  # no bytes are missing: the checksum shows whether the file is right
                return
            reason = f"HTTP {error.code} {error.reason}"
            if error.code in _TEMPORARY_STATUSES:
                raise _TemporaryError(reason, _parse_retry_after(error)) from None
            raise Unreachable(reason) from None
    except urllib.error.URLError as error:
        raise _classify(error.reason) from None
    except (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
        raise _TemporaryError(f"the connection was closed: {error or type(error).__name__}") from None


def _parse_range(response: Any, have: int, part: Path) -> tuple[int, int | None]:
    """Return the offset of the response in the file, and the size of the file."""
    if response.status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != have:
            part.unlink(missing_ok=True)
            raise _TemporaryError("the server sent another range than requested")
        return have, None if match[2] == "*" else int(match[2])
    length = response.headers.get("Content-Length")
    return 0, int(length) if length is not None and length.isdecimal() else None


def _append(response: Any, part: Path, start: int, whole: int | None, limit: int, progress: Progress) -> None:
    """Append the response at offset `start`.

    Raises:
        _TemporaryError: the response was truncated.
        Unreachable: the response is larger than `limit`.
    """
    received = start
    with part.open("ab" if start else "wb") as file:
        progress(received, whole)
        while chunk := response.read(CHUNK):
            received += len(chunk)
            if received > limit:
                raise Unreachable(f"received more than {limit:,} bytes, the maximum size")
            file.write(chunk)
            progress(received, whole)
    if whole is not None and received < whole:
        raise _TemporaryError(f"the connection was closed after {received:,} of {whole:,} bytes")


def _parse_retry_after(error: urllib.error.HTTPError) -> float:
    seconds = error.headers.get("Retry-After", "")
    return min(60.0, float(seconds)) if seconds.isdecimal() else 0.0


def _classify(reason: object) -> Exception:
    """Return the error for a failed connection."""
    why = str(getattr(reason, "strerror", None) or reason)
    is_temporary = isinstance(reason, ConnectionError | TimeoutError | ssl.SSLError)
    if is_temporary and not isinstance(reason, ssl.SSLCertVerificationError):
        return _TemporaryError(why)
    return Unreachable(why)


def _length(path: Path) -> int:
    return path.stat().st_size if is_file(path) else 0
