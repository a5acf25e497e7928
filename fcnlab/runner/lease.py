"""Leases: which driver runs what, so that drivers of one lab share its work instead of doubling it.

A driver shows a sign of life in `.fcnlab/drivers/`, and leases a folder by a file in it that names the driver:

    .fcnlab/drivers/<driver>         a number that grows every BEAT seconds
    .fcnlab/drivers/<driver>.lock    held by the kernel for as long as the driver lives
    runs/<key>/lease.<n>             the n-th lease of this trial; the highest counts

A lease lasts as long as its driver. On the driver's own host the kernel knows whether that is so; elsewhere, a driver
whose number has not grown for EXPIRY seconds of the observer's clock is taken for dead, so that no two clocks are ever
compared. A file is made whole or not at all and never over another (`link`), which holds on network file systems too;
so of several who take over a lease one succeeds. Gray and Cheriton, SOSP 1989, is where leases come from.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from itertools import count
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

BEAT = 15.0
"""Seconds between two signs of life."""

EXPIRY = 180.0
"""Seconds without a sign of life; more than network file systems keep what they have read."""


class Presence:
    """This driver among those of a lab. Used as a context; leaving it gives up every lease."""

    def __init__(self, folder: Path) -> None:
        """`folder` is that of all drivers of the lab; OSError where it cannot be written."""
        self._folder = folder
        self.driver = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._seen: dict[str, tuple[str, float]] = {}  # of other hosts: the last number, and since when
        self._leaving = threading.Event()
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self._file(self.driver, ".lock"))

    def __enter__(self) -> Presence:
        self._lock.acquire()
        self._beats = count()
        self._beat()
        threading.Thread(target=self._keep_beating, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving.set()
        self._lock.release()
        self._clear_away(self.driver)

    def is_alive(self, driver: str) -> bool:
        """Whether a driver, this one or another, still holds its leases."""
        if driver == self.driver:
            return True
        here = driver.partition(":")[0] == socket.gethostname()
        alive = self._holds_its_lock(driver) if here else self._beats_on(driver)
        if not alive:
            self._clear_away(driver)
        return alive

    def _file(self, driver: str, suffix: str = "") -> Path:
        return self._folder / f"{driver}{suffix}"

    def _beat(self) -> None:
        self._file(self.driver).write_text(str(next(self._beats)), encoding="utf-8")

    def _keep_beating(self) -> None:
        while not self._leaving.wait(BEAT):
            with suppress(OSError):  # a disk that is full or away for a moment; the next beat may go through
                self._beat()

    def _holds_its_lock(self, driver: str) -> bool:
        file = self._file(driver, ".lock")
        if not file.exists():
            return False
        try:
            with FileLock(file, timeout=0):
                return False
        except Timeout:
            return True

    def _beats_on(self, driver: str) -> bool:
        try:
            number = self._file(driver).read_text(encoding="utf-8")
        except FileNotFoundError:
            return False
        now = time.monotonic()
        known, since = self._seen.get(driver, ("", now))
        self._seen[driver] = (number, since if number == known else now)
        return now - self._seen[driver][1] < EXPIRY

    def _clear_away(self, driver: str) -> None:
        for suffix in ("", ".lock"):
            self._file(driver, suffix).unlink(missing_ok=True)


class Leases:
    """What this driver has leased, and what others have."""

    def __init__(self, presence: Presence) -> None:
        self._presence = presence

    def claim(self, folder: Path) -> bool:
        """Lease a folder; False if a living driver has it, or was faster."""
        holder, number = latest(folder)
        if holder == self._presence.driver:
            return True
        if holder is not None and self._presence.is_alive(holder):
            return False
        return _write_new(folder / f"lease.{number + 1}", self._presence.driver)

    def holds(self, folder: Path) -> bool:
        """Whether the lease is this driver's; it may have been taken for dead meanwhile."""
        return latest(folder)[0] == self._presence.driver

    def holder(self, folder: Path) -> str | None:
        """The living driver that has leased a folder, if there is one."""
        driver = latest(folder)[0]
        return driver if driver is not None and self._presence.is_alive(driver) else None

    def release(self, folder: Path) -> None:
        """Give a lease back, if it still is this driver's."""
        if self.holds(folder):
            for file in sorted(folder.glob("lease.*"), key=_number):
                file.unlink(missing_ok=True)


def _number(file: Path) -> int:
    return int(file.suffix[1:])


def latest(folder: Path) -> tuple[str | None, int]:
    """Who holds the highest lease of a folder, and its number; (None, 0) where there is none."""
    for file in sorted(folder.glob("lease.*"), key=_number, reverse=True):
        with suppress(FileNotFoundError):  # given back at this moment
            return file.read_text(encoding="utf-8"), _number(file)
    return None, 0


def _write_new(file: Path, text: str) -> bool:
    """Make a file with its content in one step; False if it is there already."""
    draft = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    draft.write_text(text, encoding="utf-8")
    try:
        os.link(draft, file)
    except FileExistsError:
        return False
    finally:
        draft.unlink()
    return True
