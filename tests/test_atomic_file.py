"""Atomic writing of files and their permissions."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from safetensors.torch import save_file

from fcnlab.atomic_file import READ_ATTEMPTS, read_shared, replace_atomically, write_atomically
from fcnlab.config import registry_writer
from fcnlab.config.registry_writer import write_entry
from fcnlab.config.yaml_file import read
from fcnlab.data.json_cache import write_json
from fcnlab.errors import ConfigError
from fcnlab.runner.lease import read_latest_lease
from fcnlab.trial.record import Attempt
from fcnlab.trial.storage.json_lines import read_json_lines, write_json_lines


@pytest.fixture(params=[0o022, 0o002, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def lock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state") / "registry.lock"


def test_files_have_the_permissions_of_the_umask(tmp_path: Path, umask: int, lock: Path) -> None:
    write_atomically(tmp_path / "a", lambda file: file.write(b"1"))
    with replace_atomically(tmp_path / "b") as temporary:
        save_file({"w": torch.zeros(1)}, temporary)  # creates private files
    write_json(tmp_path / "c", {})
    write_entry(tmp_path / "d.yaml", "own", {"type": "paper"}, lock=lock)
    assert {mode(path) for path in tmp_path.iterdir()} == {0o666 & ~umask}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c", "d.yaml"]


def test_a_registry_file_keeps_its_permissions_and_its_link(tmp_path: Path, lock: Path) -> None:
    file, link = tmp_path / "datasets.yaml", tmp_path / "link.yaml"
    file.write_text("# mine\n")
    file.chmod(0o640)
    link.symlink_to(file)
    write_entry(link, "own", {"type": "paper"}, lock=lock)
    assert link.is_symlink() and file.read_text().startswith("# mine\n")
    assert "own:" in file.read_text()
    assert mode(file) == 0o640


def test_entries_that_are_written_at_the_same_time_are_all_kept(
    tmp_path: Path, lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, has_read, has_written = tmp_path / "datasets.yaml", threading.Event(), threading.Event()
    original = registry_writer.add_entry

    def add_slowly(text: str, name: str, *others: Any, **options: Any) -> str:
        if name == "first":  # without a lock, the second entry would be written now, and then be overwritten
            has_read.set()
            has_written.wait(0.3)
        return original(text, name, *others, **options)

    monkeypatch.setattr(registry_writer, "add_entry", add_slowly)
    thread = threading.Thread(target=write_entry, args=(file, "first", {"type": "paper"}), kwargs={"lock": lock})
    thread.start()
    has_read.wait()
    write_entry(file, "second", {"type": "paper"}, lock=lock)
    has_written.set()
    thread.join()
    assert list(read(file)) == ["first", "second"]


def test_a_registry_file_that_another_process_writes_is_an_error(
    tmp_path: Path, lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_writer, "LOCK_TIMEOUT", 0.0)
    with FileLock(lock), pytest.raises(ConfigError, match=r"datasets\.yaml: another process is writing it \(lock "):
        write_entry(tmp_path / "datasets.yaml", "own", {"type": "paper"}, lock=lock)


def test_an_error_leaves_the_old_content_and_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_atomically(path, lambda file: file.write(b"old"))

    def fail(file: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, fail)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def replaced(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function: the next times that a file is read, another machine replaces it on NFS meanwhile."""
    read_bytes = Path.read_bytes

    def replace(times: int) -> None:
        remaining = [ESTALE] * times

        def read(path: Path) -> bytes:
            if remaining:
                raise OSError(remaining.pop(), os.strerror(ESTALE), str(path))
            return read_bytes(path)

        monkeypatch.setattr(Path, "read_bytes", read)

    return replace


ESTALE = errno.ESTALE


def test_a_file_that_another_machine_replaces_is_read_again(tmp_path: Path, replaced: Any) -> None:
    (tmp_path / "a").write_bytes(b"new")
    replaced(READ_ATTEMPTS - 1)
    assert read_shared(tmp_path / "a") == b"new"
    replaced(READ_ATTEMPTS)
    with pytest.raises(OSError, match="Stale") as raised:
        read_shared(tmp_path / "a")
    assert raised.value.errno == ESTALE
    with pytest.raises(FileNotFoundError):
        read_shared(tmp_path / "missing")


def test_the_attempts_and_the_lease_of_another_machine_are_read_while_it_replaces_them(
    tmp_path: Path, replaced: Any
) -> None:
    attempts = [Attempt(cause="lost", message="killed", epoch=2, micro_batches=1, exclusive=False)]
    write_json_lines(tmp_path / "attempts.jsonl", attempts)
    (tmp_path / "lease.1").write_text("node_7_0123abcd")
    replaced(1)
    assert read_json_lines(tmp_path / "attempts.jsonl", Attempt) == (attempts, None)
    replaced(1)
    assert read_latest_lease(tmp_path) == ("node_7_0123abcd", 1)


def test_an_error_of_an_open_file_names_the_file(tmp_path: Path) -> None:
    def fail(file: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))  # of a mount without random access, such as of rclone

    with pytest.raises(PermissionError) as raised:
        write_atomically(tmp_path / "a", fail)
    assert raised.value.filename == str(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
