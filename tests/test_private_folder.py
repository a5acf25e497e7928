"""The folder from which compiled code is loaded."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fcnlab.kernels import build
from fcnlab.private_folder import ensure_private_folder, read_own_file
from fcnlab.settings import cache_folder


def test_a_private_folder_is_created_and_unsafe_ones_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "private"
    ensure_private_folder(folder)
    ensure_private_folder(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o770)
    with pytest.raises(PermissionError, match="writable by others"):
        ensure_private_folder(folder)
    folder.chmod(0o700)
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(PermissionError, match="symbolic link"):
        ensure_private_folder(tmp_path / "link")


def test_a_file_that_others_can_write_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "script.js"
    assert read_own_file(file) is None
    file.write_bytes(b"script")
    file.chmod(0o644)
    assert read_own_file(file) == b"script"
    file.chmod(0o666)
    assert read_own_file(file) is None


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_a_changed_library_is_compiled_again_before_it_is_loaded() -> None:
    name = min(build.KERNELS, key=lambda name: Path(build.__file__).with_name(f"{name}.c").stat().st_size)
    load = build.load_library.__wrapped__
    assert load(name) is not None
    (built,) = cache_folder().rglob(f"{name}-*.so")
    content = built.read_bytes()
    built.unlink()  # a loaded file must not be overwritten
    built.write_bytes(b"changed")
    assert load(name) is not None and built.read_bytes() == content
