from __future__ import annotations

import errno
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fcnlab.runner import lease
from fcnlab.runner.lease import DriverHeartbeat, Leases
from tests.patience import wait_until


@pytest.fixture(params=[None, errno.EPERM, errno.EOPNOTSUPP, errno.EIO], ids=["hard links", "exFAT", "SMB", "rclone"])
def _file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test also as on file systems without hard links, whose errors differ."""

    def refuse(source: Path, target: Path) -> None:
        raise OSError(request.param, os.strerror(request.param), str(source), None, str(target))

    if request.param is not None:
        monkeypatch.setattr("fcnlab.runner.lease.os.link", refuse)


@pytest.mark.usefixtures("_file_system")
def test_lease_is_exclusive_until_released(tmp_path: Path) -> None:
    (tmp_path / "lease.1 (conflicted copy)").write_text("of a service that synchronizes folders")
    with DriverHeartbeat(tmp_path / "drivers") as one, DriverHeartbeat(tmp_path / "drivers") as other:
        first, second = Leases(one), Leases(other)
        assert first.claim(tmp_path)
        assert first.claim(tmp_path), "claiming a held lease succeeds"
        assert not second.claim(tmp_path)
        assert second.holder(tmp_path) == one.driver
        first.release(tmp_path)
        assert second.holder(tmp_path) is None
        assert second.claim(tmp_path)
        first.release(tmp_path)
        assert second.holds(tmp_path), "a driver does not release the lease of another"


def test_exit_invalidates_leases_and_removes_files(tmp_path: Path) -> None:
    drivers = tmp_path / "drivers"
    with DriverHeartbeat(drivers) as gone:
        assert Leases(gone).claim(tmp_path)
    assert list(drivers.iterdir()) == []
    with DriverHeartbeat(drivers) as here:
        leases = Leases(here)
        assert leases.claim(tmp_path)
        leases.release(tmp_path)
    assert list(tmp_path.glob("lease.*")) == []


def test_lease_of_killed_process_can_be_claimed_immediately(tmp_path: Path) -> None:
    held = (
        "import os, sys; from pathlib import Path; from fcnlab.runner.lease import DriverHeartbeat, Leases\n"
        "folder = Path(sys.argv[1])\n"
        "with DriverHeartbeat(folder / 'drivers') as driver:\n"
        "    print(Leases(driver).claim(folder), flush=True)\n"
        "    sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", held, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdin is not None
    assert process.stdout.readline() == "True\n"
    with DriverHeartbeat(tmp_path / "drivers") as here:
        assert not Leases(here).claim(tmp_path)
        process.kill()
        process.wait()
        assert Leases(here).claim(tmp_path)
    process.stdout.close()
    process.stdin.close()


def test_driver_on_another_host_is_alive_while_its_heartbeat_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("fcnlab.runner.lease.time.monotonic", lambda: clock[0])
    drivers = tmp_path / "drivers"
    with DriverHeartbeat(drivers) as here:
        far = "elsewhere_1_abcdef12"
        (drivers / far).write_text("1")
        (tmp_path / "lease.1").write_text(far)
        leases = Leases(here)
        assert not leases.claim(tmp_path), "first observation"
        clock[0] = lease.EXPIRY - 1
        assert not leases.claim(tmp_path)
        (drivers / far).write_text("2")
        clock[0] = lease.EXPIRY + 1
        assert not leases.claim(tmp_path), "the number has changed"
        clock[0] += lease.EXPIRY
        assert leases.claim(tmp_path)
        assert leases.holds(tmp_path)


@pytest.mark.usefixtures("_file_system")
def test_only_one_of_concurrent_claims_succeeds(tmp_path: Path) -> None:
    (tmp_path / "lease.1").write_text("elsewhere_1_abcdef12")  # of a dead driver
    drivers = [DriverHeartbeat(tmp_path / "drivers").__enter__() for _ in range(8)]
    start, claimed = threading.Barrier(8), []

    def claim(driver: DriverHeartbeat) -> None:
        start.wait()
        claimed.append(Leases(driver).claim(tmp_path))

    threads = [threading.Thread(target=claim, args=(driver,)) for driver in drivers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == [False] * 7 + [True]
    for driver in drivers:
        driver.__exit__()


def test_files_of_a_driver_have_names_that_every_file_system_accepts(tmp_path: Path) -> None:
    with DriverHeartbeat(tmp_path) as here:
        assert Leases(here).claim(tmp_path)
        names = [file.name for file in tmp_path.iterdir()]
    assert len(names) == 3 and not any(re.search(r'[<>:"|?*\\]', name) for name in names)


def test_heartbeat_file_changes_periodically(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_INTERVAL", 0.01)
    with DriverHeartbeat(tmp_path) as here:
        seen: set[str] = set()
        wait_until(
            lambda: seen.add((tmp_path / here.driver).read_text()) or len(seen) == 3, "three heartbeats", pause=0
        )


@pytest.mark.parametrize("content", ["", "\0" * 20, "vm_12"])
def test_lease_that_a_power_cut_has_left_without_its_content_can_be_claimed(tmp_path: Path, content: str) -> None:
    (tmp_path / "lease.4").write_text(content)
    with DriverHeartbeat(tmp_path / "drivers") as here:
        leases = Leases(here)
        assert leases.holder(tmp_path) is None
        assert leases.claim(tmp_path) and leases.holds(tmp_path)
        leases.release(tmp_path)
    assert list(tmp_path.glob("lease.*")) == []


def test_new_driver_removes_the_files_of_dead_drivers_of_its_host(tmp_path: Path) -> None:
    host = socket.gethostname()
    for name in (f"{host}_1_12345678", "elsewhere_1_12345678"):
        (tmp_path / name).write_text("7")
        (tmp_path / f"{name}.lock").touch()
    with DriverHeartbeat(tmp_path) as living, DriverHeartbeat(tmp_path):
        assert (tmp_path / living.driver).exists()
        assert not list(tmp_path.glob(f"{host}_1_12345678*"))
        assert len(list(tmp_path.glob("elsewhere_*"))) == 2
        (tmp_path / f"{host}_2_12345678").write_text("of a driver that was killed meanwhile")
    assert not list(tmp_path.glob(f"{host}_*"))
