from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcnlab.errors import RunError
from fcnlab.runner.executors.ray import transfer
from fcnlab.runner.executors.ray.transfer import FileChunk, IncomingFiles, read_chunks

names = st.sampled_from(["record.json", "samples/one.png", "samples/two.png", "log.txt", "last.safetensors"])


@given(files=st.dictionaries(names, st.binary(max_size=40)), size=st.integers(1, 16))
def test_files_arrive_as_they_were_sent_in_pieces_of_bounded_size(files: dict[str, bytes], size: int) -> None:
    with tempfile.TemporaryDirectory() as base, pytest.MonkeyPatch.context() as patch:
        patch.setattr(transfer, "CHUNK_BYTES", size)
        there, here = Path(base, "there"), Path(base, "here")
        for name, content in files.items():
            (there / name).parent.mkdir(parents=True, exist_ok=True)
            (there / name).write_bytes(content)
        arrivals = IncomingFiles(here)
        for batch in read_chunks(there, [*files, "never written"]):
            assert sum(len(piece.content) for piece in batch) <= size
            arrivals.receive(batch)
        arrivals.commit()
        assert {file.relative_to(here).as_posix(): file.read_bytes() for file in _files(here)} == files


@pytest.mark.parametrize("name", ["../record.json", "/etc/passwd", "a/../../b", "", "a\0b", "..\\b"])
def test_a_name_that_leads_outside_is_refused(tmp_path: Path, name: str) -> None:
    arrivals = IncomingFiles(tmp_path / "here")
    with pytest.raises(RunError, match="leads outside of its folder"):
        arrivals.receive([FileChunk(name, b"x")])
    assert not list(_files(tmp_path))


def test_incomplete_files_are_not_visible(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "record.json").write_text("new")
    here = tmp_path / "here"
    here.mkdir()
    (here / "record.json").write_text("old")
    arrivals = IncomingFiles(here)
    for batch in read_chunks(tmp_path / "there", ["record.json"]):
        arrivals.receive(batch)
    assert (here / "record.json").read_text() == "old"
    again = IncomingFiles(here)  # the driver was killed, and another takes over
    again.commit()
    assert [file.read_text() for file in _files(here)] == ["old"]


def _files(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file()]
