"""Errors of storage are found behind other exceptions, and described in one line with a remedy."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import pytest
from safetensors import SafetensorError

from fcnlab import cli
from fcnlab.atomic_file import replace_atomically, write_atomically
from fcnlab.errors import RunError, StopRunError
from fcnlab.storage_errors import (
    convert_storage_errors,
    convert_write_errors,
    describe_storage_error,
    ensure_open_files,
    find_storage_error,
)


def _write_to_full_disk(_: object) -> None:
    """Raise the errors of `torch.save` on a full disk."""
    try:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError:
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598")  # noqa: B904


def test_errors_of_libraries_for_a_full_disk_become_errors_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(OSError, match="No space left on device") as raised:
        write_atomically(path, _write_to_full_disk)
    assert raised.value.filename == str(path)
    with pytest.raises(OSError, match="No space left on device"), replace_atomically(path):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert not list(tmp_path.iterdir()), "no temporary file is left"


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (errno.ENOSPC, r"No space left on device \(\d+\.\d MB free in .*\); make room and repeat the command"),
        (errno.EDQUOT, "quota is used up"),
        (errno.EFBIG, r"\(limit: .* bytes\).*ulimit -f"),
        (errno.EMFILE, r"\(limit: \d+\).*ulimit -n"),
        (errno.EACCES, "Permission denied; make it readable and writable"),
    ],
)
def test_a_storage_error_is_described_with_its_remedy(tmp_path: Path, code: int, text: str) -> None:
    error = OSError(code, os.strerror(code), str(tmp_path / "record.json"))
    with pytest.raises(StopRunError, match=f"record.json: .*{text}"), convert_storage_errors(tmp_path):
        raise error
    assert "\n" not in describe_storage_error(error)


def test_other_errors_are_not_converted(tmp_path: Path) -> None:
    elsewhere = PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/elsewhere/notes.txt")
    assert find_storage_error(elsewhere, tmp_path) is None
    with pytest.raises(PermissionError), convert_storage_errors(tmp_path):
        raise elsewhere
    with pytest.raises(RunError, match=r"^a message$"), convert_storage_errors(tmp_path):
        raise RunError("a message") from OSError(errno.ENOSPC, "full")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.EACCES, "Permission denied", "/other"), "Permission denied"),
        (OSError("cannot write mode F as PNG"), "cannot write mode F as PNG"),
        (OSError(), "OSError"),
    ],
)
def test_an_error_of_writing_names_the_path_and_a_reason(error: OSError, reason: str) -> None:
    with (
        pytest.raises(RunError, match=f"^/results/a.md: cannot be written: {reason}$"),
        convert_write_errors(Path("/results/a.md")),
    ):
        raise error


def test_the_command_line_prints_errors_of_storage_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def app() -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/lab/results")

    monkeypatch.setattr(cli, "app", app)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("fcnlab: error: /lab/results: Permission denied; ")


@pytest.mark.parametrize(("hard", "expected"), [(4096, 1024), (512, 512), (64, None)])
def test_a_low_limit_of_open_files_is_raised_or_refused(
    monkeypatch: pytest.MonkeyPatch, hard: int, expected: int | None
) -> None:
    limits = [(32, hard)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, limit: limits.append(limit))
    if expected is None:
        with pytest.raises(StopRunError, match=r"Too many open files \(limit: 64\); raise .*ulimit -n 1024"):
            ensure_open_files()
    else:
        ensure_open_files()
        assert limits[-1] == (expected, hard)
