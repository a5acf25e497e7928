"""The files of a trial are verified when they are read, and damaged ones are moved and not deleted."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fcnlab.errors import RunError, StopRunError
from fcnlab.lab import Lab
from fcnlab.lab_check import check_lab
from fcnlab.paths import fold_name
from fcnlab.trial.record import EpochRecord
from fcnlab.trial.run_folder import RunFolder
from fcnlab.trial.storage.checkpoint_file import find_checkpoint_damage, write_checkpoint
from fcnlab.trial.storage.damage import DamageError
from fcnlab.trial.storage.sample_name import name_sample, name_samples
from fcnlab.trial.storage.sealed_record import compute_checksum, hash_result_file
from tests.builders import epoch_records
from tests.report.finished_grid import finished_lab


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """The run folder of a finished trial."""
    _, lab = finished_lab(tmp_path)
    return _folder_of(lab)


def _folder_of(lab: Lab) -> RunFolder:
    return RunFolder(lab.runs, min(path.name for path in lab.runs.iterdir()))


def _edit(folder: RunFolder, *, seal: bool = False, **fields: object) -> None:
    """Change fields of a record, and its checksum if `seal` is set."""
    content = json.loads(folder.record.read_bytes()) | fields
    if seal:
        del content["checksum"]
        content["checksum"] = compute_checksum(content)
    folder.record.write_text(json.dumps(content))


def test_a_record_contains_the_checksums_of_the_result(folder: RunFolder) -> None:
    content = json.loads(folder.record.read_bytes())
    assert {"trial.json", "counts.npz"} < content["files"].keys()
    assert any(name.startswith("samples/") for name in content["files"])
    assert folder.load() is not None


def _check(folder: RunFolder) -> str:
    """Return the only problem that `fcnlab lab check` finds."""
    (problem,) = check_lab(Lab(folder.path.parent.parent)).problems
    return f"{Path(problem.path).name}: {problem.problem}"


def test_a_changed_metric_is_damage_also_for_the_check_of_a_lab_with_a_corrected_checksum(folder: RunFolder) -> None:
    metrics = json.loads(folder.record.read_bytes())["metrics"]
    metrics[0]["miou"] = 0.46
    _edit(folder, metrics=metrics)
    with pytest.raises(DamageError, match=r"does not agree with its checksum"):
        folder.load()
    assert folder.read() is None
    _edit(folder, seal=True)
    assert _check(folder) == "record.json: miou of test at the last epoch does not agree with counts.npz"
    (repaired,) = check_lab(Lab(folder.path.parent.parent), repair=True).problems
    assert "the next `fcnlab grid run` runs the trial again" in repaired.repair and folder.load() is None


def test_a_record_without_checksums_is_damage(folder: RunFolder) -> None:
    content = json.loads(folder.record.read_bytes())
    del content["checksum"]
    folder.record.write_text(json.dumps(content))
    with pytest.raises(DamageError, match=r"does not agree with its checksum"):
        folder.load()
    del content["files"]
    folder.record.write_text(json.dumps(content | {"checksum": compute_checksum(content)}))
    with pytest.raises(DamageError, match=r"its checksums are not those of files"):
        folder.load()


def test_changed_counts_are_damage_also_for_the_check_of_a_lab_with_a_corrected_checksum(folder: RunFolder) -> None:
    with np.load(folder.counts) as stored:
        arrays = dict(stored)
    arrays["test_last"] = arrays["test_last"][:-1]
    np.savez(folder.counts, **arrays)
    with pytest.raises(DamageError, match=r"checksum in record.json"):
        folder.load()
    files = json.loads(folder.record.read_bytes())["files"]
    _edit(folder, seal=True, files=files | {"counts.npz": hash_result_file(folder.counts)})
    assert "int64 [39, 3, 3], not int64 [40, 3, 3]" in _check(folder)


def test_a_record_is_read_without_decompressing_its_counts(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object, **_options: object) -> object:
        raise AssertionError("counts are decompressed")

    monkeypatch.setattr(np, "load", refuse)
    assert folder.load() is not None


def test_deleted_counts_are_damage(folder: RunFolder) -> None:
    folder.counts.unlink()
    with pytest.raises(DamageError, match=r"counts.npz: it is missing"):
        folder.load()


@pytest.mark.parametrize("name", ["record.json", "counts.npz", "progress.jsonl", "attempts.jsonl", "checkpoint.pt"])
@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EMFILE])
def test_a_file_that_cannot_be_read_is_not_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    _, lab = finished_lab(tmp_path)
    folder = _folder_of(lab)
    if name not in ("record.json", "counts.npz"):
        folder.record.unlink()
        (folder.path / name).write_text("this is damaged\n")
    before = _read_contents(lab.runs)
    open_ = Path.open

    def fail(path: Path, *arguments: Any, **options: Any) -> Any:
        if path == folder.path / name:
            raise OSError(number, os.strerror(number), str(path))
        return open_(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", fail)
    problem = f"{name}: it cannot be read: {os.strerror(number)}; "
    with pytest.raises(StopRunError, match=rf"{problem}.*(and repeat the command)"):
        folder.repair(checkpoints=True)
    (found,) = check_lab(lab, repair=True).problems
    assert f"{found.path}: {found.problem}".startswith(f"{folder.path}/{problem}") and found.repair == "not changed"
    monkeypatch.undo()
    assert _read_contents(lab.runs) == before
    assert (folder.load() is None) == (name not in ("record.json", "counts.npz"))


@pytest.mark.parametrize("error", [MemoryError("no memory"), LookupError("unknown encoding: cp437"), ImportError()])
def test_counts_as_they_were_written_are_not_damage(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_arguments: object, **_options: object) -> object:
        raise error

    monkeypatch.setattr(np, "load", fail)
    problems = check_lab(Lab(folder.path.parent.parent), repair=True).problems
    assert str(folder.counts) in {found.path for found in problems}
    for found in problems:
        assert found.problem.startswith(f"it cannot be read: {type(error).__name__}: ")
        assert found.repair == "not changed"
    monkeypatch.undo()
    assert folder.load() is not None


def _read_contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_repair_moves_the_result_and_deletes_nothing(folder: RunFolder) -> None:
    before = folder.record.read_bytes()[:-40]
    folder.record.write_bytes(before)
    (line,) = folder.repair()
    assert line.startswith(f"{folder.record}: it is truncated or not JSON; moved to ")
    moved = Path(line.rpartition(" ")[2])
    assert moved.parent == folder.path.parent / ".quarantine"
    assert {path.name for path in moved.iterdir()} == {"record.json", "counts.npz", "samples"}
    assert (moved / "record.json").read_bytes() == before
    assert folder.inspect()[1] is None and folder.load() is None


def test_weights_are_verified_when_they_are_loaded(folder: RunFolder) -> None:
    record = folder.load()
    assert record is not None
    folder.weights.write_bytes(b"weights")
    folder.finish(record)
    folder.verify_file(folder.weights)
    folder.weights.write_bytes(b"Weights")
    assert folder.load() is not None, "the weights are not read for a report"
    with pytest.raises(RunError, match=r"does not agree with the checksum in record.json"):
        folder.verify_file(folder.weights)


@pytest.mark.parametrize("torn", [b'{"epoch": 3, "lo', b"\0\0\0\0", b""])
def test_a_torn_last_line_is_left_out(tmp_path: Path, torn: bytes) -> None:
    folder = RunFolder(tmp_path, "0" * 64)
    folder.create()
    folder.write_progress(epoch_records(2))
    folder.progress.write_bytes(folder.progress.read_bytes() + torn)
    assert folder.read_progress() == epoch_records(2)
    assert folder.inspect()[1] is None


def test_a_broken_line_in_the_middle_is_damage(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "0" * 64)
    folder.create()
    folder.write_progress(epoch_records(3))
    lines = folder.progress.read_bytes().splitlines()
    folder.progress.write_bytes(b"\n".join([lines[0], lines[1][:9], lines[2], b""]))
    assert folder.read_progress() == [EpochRecord.model_validate_json(lines[0])]
    assert str(folder.inspect()[1]) == "progress.jsonl: line 2 is damaged"
    assert folder.repair() and folder.inspect()[1] is None and folder.read_progress() == []


def test_each_flipped_byte_of_a_checkpoint_is_found(tmp_path: Path) -> None:
    file, previous = tmp_path / "checkpoint.pt", tmp_path / "previous.pt"
    for epoch in (1, 2):
        write_checkpoint(file, previous, {"epoch": epoch})
    assert find_checkpoint_damage(file) is None and find_checkpoint_damage(previous) is None
    content = file.read_bytes()
    for offset in range(0, len(content), 97):
        file.write_bytes(content[:offset] + bytes([content[offset] ^ 1]) + content[offset + 1 :])
        assert find_checkpoint_damage(file) is not None, offset
        file.write_bytes(content[:offset])
        assert find_checkpoint_damage(file) is not None, offset


@pytest.mark.parametrize("name", ["samples/../../../question.txt", "../../question.txt", "/etc/passwd", "a//b", "a\0"])
def test_a_record_that_names_files_outside_of_its_folder_is_damaged_and_no_file_is_moved(
    folder: RunFolder, name: str
) -> None:
    outside = folder.path.parent.parent / "question.txt"
    outside.write_text("keep")
    _edit(folder, seal=True, files={name: "0" * 64})
    with pytest.raises(DamageError, match="not those of files in the run folder"):
        folder.load()
    assert check_lab(Lab(folder.path.parent.parent), repair=True).problems
    assert outside.read_text() == "keep"


@pytest.mark.parametrize("files", [["a"], {"a": 1}, "a"])
def test_checksums_of_another_type_are_damage(folder: RunFolder, files: object) -> None:
    _edit(folder, seal=True, files=files)
    with pytest.raises(DamageError, match="checksums"):
        folder.load()


def test_files_of_samples_have_names_that_every_file_system_allows() -> None:
    long = "道路/" * 100
    names = [name_sample(id_) for id_ in (long + "a", long + "b", "x" * 400, "a/b", "a_b", "a")]
    assert len(set(names)) == 6 and names[4:] == ["a_b", "a"]
    assert all("/" not in name and len(f"{name}.prediction.png".encode()) <= 255 for name in names)


def test_files_of_samples_have_different_names_where_case_and_accents_are_ignored() -> None:
    ids = ["A", "a", "b", "Caf\u00e9", "Cafe\u0301", "x/A", "X/a", "d"]
    names = name_samples(ids)
    assert len({fold_name(name) for name in names.values()}) == len(ids)
    assert (names["b"], names["d"]) == ("b", "d") and names["A"].startswith("A-") and "/" not in "".join(names.values())


def _refuse_to_rename(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def rename(source: object, target: object) -> None:
        raise OSError(number, os.strerror(number), str(source), None, str(target))

    monkeypatch.setattr(os, "rename", rename)


def test_damaged_files_on_another_disk_are_moved(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {file.name for file in folder.path.iterdir()} - {folder.trial.name}
    folder.record.write_bytes(b"damaged")
    folder.samples.mkdir(exist_ok=True)
    folder.weights.write_bytes(b"weights")
    _refuse_to_rename(monkeypatch, errno.EXDEV)  # the run folder is a link to a folder of another disk
    (line,) = folder.repair()
    target = Path(line.rpartition("; moved to ")[2])
    moved = {file.name for file in target.iterdir()}
    assert {folder.record.name, folder.counts.name, folder.weights.name, folder.samples.name} <= moved
    assert not moved & {file.name for file in folder.path.iterdir()}
    assert names <= moved | {file.name for file in folder.path.iterdir()}, "no file is lost"
    assert (target / folder.record.name).read_bytes() == b"damaged"


def test_no_empty_folder_is_left_if_damaged_files_cannot_be_moved(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.record.write_bytes(b"damaged")
    _refuse_to_rename(monkeypatch, errno.EACCES)
    with pytest.raises(RunError, match=r"cannot be moved to .*: Permission denied"):
        folder.repair()
    assert folder.record.read_bytes() == b"damaged"
    quarantine = folder.path.parent / ".quarantine"
    assert not quarantine.exists() or not any(quarantine.iterdir())
