"""Locks on files, also on file systems without locks."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from fcnlab.errors import StopRunError
from fcnlab.file_lock import FileLock, Timeout
from fcnlab.lab import Lab
from fcnlab.runner.run import hold_leases


def test_a_lock_is_held_until_it_is_released(tmp_path: Path) -> None:
    one, other = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock", timeout=0)
    with one, pytest.raises(Timeout), other:
        raise AssertionError("two hold the lock")
    with other, pytest.raises(Timeout):
        one.acquire(timeout=0)
    one.acquire(timeout=0)
    with pytest.raises(Timeout):
        other.acquire()
    one.release()
    with other:
        pass


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_one_line_with_a_remedy_and_leaves_no_lock(
    tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_file: int, _operation: int) -> None:
        raise OSError(code, os.strerror(code))  # as Linux does, without the name of the file

    monkeypatch.setattr(fcntl, "flock", refuse)
    missing = os.strerror(errno.ENOLCK)
    with pytest.raises(OSError, match=missing) as raised:
        FileLock(tmp_path / "lock").acquire()
    assert (raised.value.errno, raised.value.filename) == (errno.ENOLCK, str(tmp_path / "lock"))
    lab = Lab.find(root=tmp_path)
    with pytest.raises(StopRunError) as stopped, hold_leases(lab):
        raise AssertionError("a driver without a lock runs")
    line = str(stopped.value)
    assert line.startswith(f"{lab.state}/drivers/") and missing in line and "\n" not in line
    assert "NFS: start rpc.statd" in line and "Lustre: mount with flock" in line
