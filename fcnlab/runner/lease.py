"""Leases on run folders, with which the drivers of one lab divide the trials among themselves.

A driver writes a heartbeat to `.fcnlab/drivers/`, and leases a folder with a file in it that contains its id:

    .fcnlab/drivers/<driver>         a number that is incremented every HEARTBEAT_INTERVAL seconds
    .fcnlab/drivers/<driver>.lock    a file lock that the driver holds while it is alive
    runs/<key>/lease.<n>             the n-th lease of this trial; the highest number is valid
    runs/<key>/.lease.waiting        exists while the leased trial waits for its device; contains the driver

A lease is valid while its driver is alive. On the driver's own host, the file lock decides. On other hosts, a driver is
dead if its number has not changed for EXPIRY seconds of the observer's clock, so clocks of different hosts are never
compared. Files are created atomically and never overwritten (`link`), also on network file systems; therefore only one
of several drivers can take over a lease. Leases: Gray and Cheriton, SOSP 1989. File systems without hard links, such as
exFAT or the mounted storage of a notebook service, write the content after the file exists.
"""

from __future__ import annotations

import os
import re
import socket
import threading
import time
import uuid
from contextlib import suppress
from itertools import count
from pathlib import Path

from fcnlab.atomic_file import read_shared
from fcnlab.file_lock import FileLock, Timeout
from fcnlab.paths import exists

HEARTBEAT_INTERVAL = 15.0
"""Seconds between two heartbeats."""

WAITING = ".lease.waiting"
"""File of a leased trial that waits until no other trial uses its device; removed with the lease."""

EXPIRY = 180.0
"""Seconds without a heartbeat after which a driver is dead; longer than network file systems cache a file."""


WRITE_TIME = 0.5
"""Seconds in which a driver has written its id to a lease that it has created."""


class DriverHeartbeat:
    """The heartbeat of this driver, and the check of other drivers' heartbeats.

    A context manager: on exit, all leases of the driver become invalid.

    Attributes:
        driver: id of this driver.
    """

    def __init__(self, folder: Path) -> None:
        """Create the id of this driver and the folder of the heartbeats.

        Args:
            folder: folder of all drivers of the lab.

        Raises:
            OSError: the folder cannot be written.
        """
        self._folder = folder
        self.driver = create_driver_id()
        self._seen: dict[str, tuple[str, float]] = {}  # drivers of other hosts: the last number and when it was new
        self._stopping = threading.Event()
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self._file(self.driver, ".lock"))

    def __enter__(self) -> DriverHeartbeat:
        self._lock.acquire()
        self._beats = count()
        try:
            self._beat()
        except OSError:
            self._release()
            raise
        self._remove_dead_drivers()
        threading.Thread(target=self._keep_beating, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._release()
        self._remove_dead_drivers()  # of this host, that have been killed since this one began

    def _release(self) -> None:
        self._lock.release()
        self._remove_files(self.driver)

    def is_alive(self, driver: str) -> bool:
        """Return whether a driver is alive, and remove the files of a dead one.

        Args:
            driver: id of this or of another driver.
        """
        if driver == self.driver:
            return True
        parts = split_driver(driver)
        if parts is None:
            return False
        is_local = parts[0] == socket.gethostname()
        is_alive = self._is_locked(driver) if is_local else self._is_beating(driver)
        if not is_alive:
            self._remove_files(driver)
        return is_alive

    def _file(self, driver: str, suffix: str = "") -> Path:
        return self._folder / f"{driver}{suffix}"

    def _beat(self) -> None:
        self._file(self.driver).write_text(str(next(self._beats)), encoding="utf-8")

    def _keep_beating(self) -> None:
        while not self._stopping.wait(HEARTBEAT_INTERVAL):
            with suppress(OSError):  # the disk may be full or unreachable for a moment; the next heartbeat may succeed
                self._beat()

    def _is_locked(self, driver: str) -> bool:
        file = self._file(driver, ".lock")
        if not exists(file):
            return False
        try:
            with FileLock(file, timeout=0):
                return False
        except Timeout:
            return True

    def _is_beating(self, driver: str) -> bool:
        try:
            number = read_shared(self._file(driver)).decode(errors="replace")
        except FileNotFoundError:
            return False
        now = time.monotonic()
        known, since = self._seen.get(driver, ("", now))
        self._seen[driver] = (number, since if number == known else now)
        return now - self._seen[driver][1] < EXPIRY

    def _remove_dead_drivers(self) -> None:
        """Remove the files of dead drivers of this host. A driver locks its file before it writes its heartbeat."""
        with suppress(OSError):  # the folder is read-only or has been removed; no driver needs these files
            for file in self._folder.iterdir():
                parts = split_driver(file.name)  # None for a lock
                if parts is not None and parts[0] == socket.gethostname():
                    self.is_alive(file.name)

    def _remove_files(self, driver: str) -> None:
        for suffix in ("", ".lock"):
            self._file(driver, suffix).unlink(missing_ok=True)


class Leases:
    """The leases of one driver on folders of the lab."""

    def __init__(self, heartbeat: DriverHeartbeat) -> None:
        """Create the leases of a driver.

        Args:
            heartbeat: the heartbeat of the driver, entered as a context.
        """
        self._heartbeat = heartbeat

    def claim(self, folder: Path) -> bool:
        """Lease a folder.

        Args:
            folder: the folder to lease.

        Returns:
            True if this driver now holds the lease, or already did; False if another living driver holds it.
        """
        holder, number = read_latest_lease(folder)
        if holder == "":  # without hard links, a lease that another driver is just writing
            time.sleep(WRITE_TIME)
            holder, number = read_latest_lease(folder)
        if holder == self._heartbeat.driver:
            return True
        if holder is not None and self._heartbeat.is_alive(holder):
            return False
        return _write_new(folder / f"lease.{number + 1}", self._heartbeat.driver)

    def holds(self, folder: Path) -> bool:
        """Return whether this driver holds the lease; another one may have taken it over after missing heartbeats.

        Args:
            folder: the leased folder.
        """
        return read_latest_lease(folder)[0] == self._heartbeat.driver

    def holder(self, folder: Path) -> str | None:
        """Return the id of the living driver that has leased a folder, if there is one.

        Args:
            folder: the folder.
        """
        driver = read_latest_lease(folder)[0]
        return driver if driver is not None and self._heartbeat.is_alive(driver) else None

    def note_waiting(self, folder: Path, waits: bool) -> None:
        """Note for `fcnlab grid status` whether the trial of a leased folder waits for its device.

        Args:
            folder: the leased folder.
            waits: whether it waits.
        """
        if waits:
            (folder / WAITING).write_text(self._heartbeat.driver, encoding="utf-8")
        else:
            (folder / WAITING).unlink(missing_ok=True)

    def release(self, folder: Path) -> None:
        """Release the lease on a folder, if this driver still holds it.

        Args:
            folder: the leased folder.
        """
        if self.holds(folder):
            for file in (*folder.glob(".lease.*"), *_list_numbered(folder)):
                file.unlink(missing_ok=True)


def create_driver_id() -> str:
    """Create an id of this process: `<host>_<process id>_<random>`, a file name on every file system."""
    return f"{socket.gethostname()}_{os.getpid()}_{uuid.uuid4().hex[:8]}"


def split_driver(text: str) -> tuple[str, int] | None:
    """Return the host and the process id of a driver.

    Args:
        text: id of the driver.

    Returns:
        The host and the process id; None if the text is no id: a power cut can leave a lease without its content.
    """
    match = re.fullmatch(r"([^/\0]+)_(\d+)_[0-9a-f]{8}", text)
    return (match[1], int(match[2])) if match else None


def is_running(process: int) -> bool:
    """Return whether a process of this host exists.

    Args:
        process: the process id.
    """
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # a process of another user, which exists
        return True
    return True


def _number(file: Path) -> int:
    return int(file.suffix[1:])


def _list_numbered(folder: Path) -> list[Path]:
    """Return the leases in the order of their numbers; a service that synchronizes folders may write other files."""
    return sorted((file for file in folder.glob("lease.*") if re.fullmatch(r"lease\.\d+", file.name)), key=_number)


def read_latest_lease(folder: Path) -> tuple[str | None, int]:
    """Return the driver and the number of a folder's highest lease.

    Args:
        folder: the folder.

    Returns:
        The id of the driver, alive or dead, and the number; (None, 0) if the folder is not leased.
    """
    for file in reversed(_list_numbered(folder)):
        with suppress(FileNotFoundError):  # released at this moment
            return read_shared(file).decode(errors="replace"), _number(file)
    return None, 0


def is_waiting(folder: Path, driver: str) -> bool:
    """Return whether the trial of a folder waits for its device, by the note of the driver that has leased it.

    Args:
        folder: the leased folder.
        driver: id of the driver; the note of an earlier one, which was killed, does not count.
    """
    with suppress(FileNotFoundError):
        return read_shared(folder / WAITING).decode(errors="replace") == driver
    return False


def _write_new(file: Path, text: str) -> bool:
    """Create a file with its content atomically; return False if it exists.

    Without hard links, it has no content for a moment, see `Leases.claim`.
    """
    draft = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    try:
        draft.write_text(text, encoding="utf-8")
        try:
            os.link(draft, file)
        except (FileExistsError, FileNotFoundError):
            raise
        except OSError:  # a file system without hard links; the errors differ: EPERM, EOPNOTSUPP, ENOSYS, EIO of rclone
            with file.open("x", encoding="utf-8") as created:
                created.write(text)
    except (FileExistsError, FileNotFoundError):  # the driver that holds the lease removes the drafts of others
        return False
    finally:
        draft.unlink(missing_ok=True)
    return True
