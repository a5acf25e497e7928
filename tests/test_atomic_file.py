"""Atomic writing of files and their permissions."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fcnlab.atomic_file import replace_atomically, write_atomically
from fcnlab.config.registry_writer import write_entry
from fcnlab.data.json_cache import write_json


@pytest.fixture(params=[0o022, 0o002, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_files_have_the_permissions_of_the_umask(tmp_path: Path, umask: int) -> None:
    write_atomically(tmp_path / "a", lambda file: file.write(b"1"))
    with replace_atomically(tmp_path / "b") as temporary:
        save_file({"w": torch.zeros(1)}, temporary)  # creates private files
    write_json(tmp_path / "c", {})
    write_entry(tmp_path / "d.yaml", "own", {"type": "paper"})
    assert {mode(path) for path in tmp_path.iterdir()} == {0o666 & ~umask}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c", "d.yaml"]


def test_a_registry_file_keeps_its_permissions_and_its_link(tmp_path: Path) -> None:
    file, link = tmp_path / "datasets.yaml", tmp_path / "link.yaml"
    file.write_text("# mine\n")
    file.chmod(0o640)
    link.symlink_to(file)
    write_entry(link, "own", {"type": "paper"})
    assert link.is_symlink() and file.read_text().startswith("# mine\n")
    assert "own:" in file.read_text()
    assert mode(file) == 0o640


def test_an_error_leaves_the_old_content_and_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_atomically(path, lambda file: file.write(b"old"))

    def fail(file: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, fail)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
