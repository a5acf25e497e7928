"""Files of a trial.

runs/<key>/
    trial.json         configuration of the trial
    progress.jsonl     one line per epoch, while the trial runs
    checkpoint.pt      state from which training resumes; removed when the trial has finished
    checkpoint.previous.pt  the state before, from which training resumes if checkpoint.pt is damaged
    last.safetensors   weights of the last epoch
    best.safetensors   weights of the epoch that is best on val, if it is not the last
    counts.npz         per-image counts [N, num_classes, 3] of each split and of its boundaries, and the image ids
    samples/           predictions of the first images of the reported split, as palette images
    log.txt            output of the worker
    attempts.jsonl     attempts that ended without a record
    lease.<n>          claim of the driver that runs the trial
    .rendezvous        file through which the processes of a trial on several devices find each other
    .heartbeat         file that a running trial touches between its steps
    record.json        the record; it is written last, and exists only if the trial has ended. It contains the SHA-256
                       of trial.json, the weights, counts.npz and the samples, and of its own content
    evaluations/       results of `fcnlab evaluate`: metrics (.json) and counts (.npz)
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from fcnlab.atomic_file import list_temporary_files, read_shared, write_atomically
from fcnlab.config.trial import Trial
from fcnlab.constants import KEY_DIGITS
from fcnlab.errors import RunError, StopRunError
from fcnlab.file_lock import FileLock, Timeout
from fcnlab.paths import exists, is_file, is_folder
from fcnlab.storage_errors import convert_storage_errors
from fcnlab.trial.record import Attempt, EpochRecord, Record
from fcnlab.trial.storage.checkpoint_file import find_checkpoint_damage
from fcnlab.trial.storage.counts_check import COUNTS_FILE, verify_result
from fcnlab.trial.storage.damage import DamageError, KeptError, UnreadableError, convert_read_error
from fcnlab.trial.storage.json_lines import read_json_lines, write_json_lines
from fcnlab.trial.storage.quarantine import move_to_quarantine
from fcnlab.trial.storage.sealed_record import (
    RECORD_FILE,
    SealedRecord,
    decode_record,
    encode_record,
    hash_result_file,
)

FileStamp = tuple[int, int, int]
_Stamp = tuple[FileStamp | None, ...]

_verified: dict[Path, tuple[_Stamp, tuple[str, str] | None]] = {}
"""Results that this process has verified, by run folder: stamps of the files, and the damaged file and its problem."""


class RunFolder:
    """Folder with the files of one trial.

    Attributes:
        key: key of the trial, which is the name of the folder.
        path: path of the folder.
    """

    def __init__(self, runs: Path, key: str) -> None:
        """Refer to the folder of a key, which need not exist.

        Args:
            runs: folder that holds the run folders of a lab.
            key: key of the trial.
        """
        self.key = key
        self.path = runs / key
        self.trial = self.path / "trial.json"
        self.progress = self.path / "progress.jsonl"
        self.checkpoint = self.path / "checkpoint.pt"
        self.previous_checkpoint = self.path / "checkpoint.previous.pt"
        self.counts = self.path / COUNTS_FILE
        self.samples = self.path / "samples"
        self.log = self.path / "log.txt"
        self.attempts_file = self.path / "attempts.jsonl"
        self.weights = self.path / "last.safetensors"
        self.best_weights = self.path / "best.safetensors"
        self.evaluations = self.path / "evaluations"
        self.record = self.path / RECORD_FILE
        self.lock = self.path / "lock"
        self.rendezvous = self.path / ".rendezvous"
        self.heartbeat = self.path / ".heartbeat"

    def create(self) -> None:
        """Create the folder if it does not exist.

        Raises:
            StopRunError: the folder cannot be written.
        """
        with convert_storage_errors(self.path.parent.parent):
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path) as file:
                file.write(b"0")  # a full disk may still create empty files

    def read(self) -> Record | None:
        """Read the record.

        Returns:
            The record; None if the trial has not ended, or if its result is damaged.
        """
        try:
            return self.load()
        except DamageError:
            return None

    def read_compatible(self) -> Record | None:
        """Read the record as `read` does, and check that no unusable file of this trial may be intact.

        Raises:
            StopRunError: a file cannot be read, or is of a newer version of fcnlab.
        """
        record, error = self.inspect()
        if isinstance(error, KeptError):
            raise StopRunError(f"{self.path / error.file}: {error.problem}")
        return record

    def load(self) -> Record | None:
        """Read the record and verify its checksum and that of the counts.

        The large files with the weights are verified when they are loaded (`verify_file`). `fcnlab lab check` computes
        the metrics again.

        Returns:
            The record; None if the trial has not ended.

        Raises:
            DamageError: the record or the counts are damaged, or are of another version of fcnlab or another trial.
        """
        sealed = self.load_sealed()
        return sealed.record if sealed is not None else None

    def load_sealed(self) -> SealedRecord | None:
        """Read and verify the record as `load` does, with the checksums of the other files.

        Raises:
            DamageError: see `load`.
        """
        while True:
            stamp = self._stamp()
            try:
                return self._load(stamp)
            except DamageError:
                if stamp == self._stamp():  # else another process was replacing the files
                    raise

    def _load(self, stamp: _Stamp) -> SealedRecord | None:
        try:
            raw = read_shared(self.record)
        except FileNotFoundError:
            return None
        except NotADirectoryError:
            raise DamageError(".", "it is a file, and not a folder") from None
        except OSError as error:
            raise convert_read_error(RECORD_FILE, error) from None
        sealed = decode_record(raw)
        if sealed.record.key != self.key:
            raise DamageError(RECORD_FILE, f"it is the record of another trial, {sealed.record.key[:KEY_DIGITS]}")
        verified_stamp, mismatch = _verified.get(self.path, (None, None))
        if verified_stamp != stamp:
            mismatch = _find_mismatch(sealed, self.path)
            _verified[self.path] = stamp, mismatch
        if mismatch is not None:
            raise DamageError(*mismatch)
        return sealed

    def _stamp(self) -> _Stamp:
        return stamp_file(self.record), stamp_file(self.counts)

    def inspect(self) -> tuple[Record | None, DamageError | None]:
        """Read the record, and find damage of files that status, plan and report read.

        Returns:
            The record, and None; or None and the first damage of the record, the counts, or the lines of a trial that
            has not ended.
        """
        try:
            record = self.load()
        except DamageError as error:
            return None, error
        if record is not None:
            return record, None
        files = (self.trial, self.log, self.lock, self.counts, self.weights, self.best_weights)
        folders = [file for file in files if is_folder(file)]
        if folders:
            return None, DamageError(folders[0].name, "it is a folder, and not a file")
        if is_file(self.samples):
            return None, DamageError(self.samples.name, "it is a file, and not a folder")
        progress = read_json_lines(self.progress, EpochRecord)[1]
        return None, progress or read_json_lines(self.attempts_file, Attempt)[1]

    def verify_file(self, path: Path) -> None:
        """Verify a file of a finished trial that is read from now on, such as weights.

        Args:
            path: path of the file.

        Raises:
            RunError: its content does not agree with the checksum in the record.
        """
        sealed = self.load_sealed()
        expected = sealed.files.get(path.relative_to(self.path).as_posix()) if sealed is not None else None
        try:
            intact = expected is None or hash_result_file(path) == expected
        except OSError as error:
            raise RunError(f"{path}: cannot be read: {error.strerror}") from None
        if not intact:
            raise RunError(
                f"{path}: its content does not agree with the checksum in {RECORD_FILE}; restore the file, or run "
                "`fcnlab lab check --repair` and then the grid again"
            )

    def repair(self, *, checkpoints: bool = False) -> list[str]:
        """Move the damaged files of this trial to `runs/.quarantine/`, so that the trial continues or runs again.

        Args:
            checkpoints: also verify the checkpoints, which are large.

        Returns:
            One line per damage: the file, the problem and the new location.

        Raises:
            StopRunError: a file cannot be read, or is of a newer version of fcnlab.
            RunError: the files cannot be moved.
        """
        lines = []
        self.read_compatible()
        while (damage := self.inspect()[1]) is not None:
            names = self._result_names() if damage.file in (RECORD_FILE, COUNTS_FILE) else [damage.file]
            lines.append(self._move(damage, names))
        if checkpoints and not exists(self.record):
            damages = [*map(find_checkpoint_damage, (self.checkpoint, self.previous_checkpoint))]
            for damage in damages:
                if isinstance(damage, KeptError):
                    raise StopRunError(f"{self.path / damage.file}: {damage.problem}")
            lines += [self._move(damage, [damage.file]) for damage in damages if damage is not None]
        return lines

    def _move(self, damage: DamageError, names: list[str]) -> str:
        target = move_to_quarantine(self.path, names)
        return f"{self.path / damage.file}: {damage.problem}; moved to {target}"

    def _result_names(self) -> list[str]:
        files = (self.record, self.counts, self.weights, self.best_weights, self.samples)
        return [file.name for file in files]

    def result_files(self) -> list[Path]:
        """Return the existing files of the result besides the record."""
        files = [self.trial, self.counts, self.weights, self.best_weights]
        samples = sorted(self.samples.iterdir()) if is_folder(self.samples) else []
        return [file for file in (*files, *samples) if is_file(file)]

    def finish(self, record: Record) -> None:
        """Write the record, which ends the trial, and remove the files that only a running trial needs.

        Args:
            record: the record of the trial.
        """
        files = self.result_files() if record.status == "finished" else []
        checksums = {file.relative_to(self.path).as_posix(): hash_result_file(file) for file in files}
        self.write_record(SealedRecord(record, checksums))
        self._unlink_leftovers()

    def list_leftovers(self) -> list[Path]:
        """Return what killed processes have left: all temporary files, and after the end what a running trial needs."""
        running = (self.checkpoint, self.previous_checkpoint, self.rendezvous, self.heartbeat)
        unneeded = [file for file in running if exists(file)] if exists(self.record) else []
        return [*list_temporary_files(self.path), *unneeded]

    def remove_leftovers(self) -> None:
        """Remove the files of `list_leftovers`, unless a process runs the trial. The caller holds the lease."""
        with suppress(Timeout), FileLock(self.lock, timeout=0):
            self._unlink_leftovers()

    def _unlink_leftovers(self) -> None:
        for file in self.list_leftovers():
            file.unlink(missing_ok=True)

    def write_record(self, sealed: SealedRecord) -> None:
        """Write the record with the checksums of the other files.

        Args:
            sealed: the record and the checksums.
        """
        content = encode_record(sealed.record, sealed.files)
        write_atomically(self.record, lambda file: file.write(content))

    def write_trial(self, trial: Trial) -> None:
        """Write the configuration.

        Args:
            trial: the trial.
        """
        write_atomically(self.trial, lambda file: file.write(trial.model_dump_json(indent=1).encode()))

    def remove_result(self) -> Path:
        """Move the record and the other files of the result to the quarantine.

        Returns:
            The folder with the moved files.

        Raises:
            RunError: they cannot be moved.
        """
        return move_to_quarantine(self.path, self._result_names())

    def write_progress(self, epochs: list[EpochRecord]) -> None:
        """Write all epochs up to now. The file is replaced, so a resumed trial repeats no line.

        Args:
            epochs: the finished epochs.
        """
        write_json_lines(self.progress, epochs)

    def read_progress(self) -> list[EpochRecord]:
        """Return the epochs up to now; those before the damage if a line is damaged."""
        return read_json_lines(self.progress, EpochRecord)[0]

    def attempts(self) -> list[Attempt]:
        """Return the attempts that ended without a record, in order; those before the damage if a line is damaged."""
        return read_json_lines(self.attempts_file, Attempt)[0]

    def add_attempt(self, attempt: Attempt) -> list[Attempt]:
        """Add an attempt that ended without a record.

        Args:
            attempt: the attempt.

        Returns:
            All attempts, in order.
        """
        attempts = [*self.attempts(), attempt]
        write_json_lines(self.attempts_file, attempts)
        return attempts

    def restart(self) -> None:
        """Delete the record, the checkpoint and the progress, so that the trial starts at its first epoch."""
        for file in (self.record, self.checkpoint, self.previous_checkpoint, self.progress, self.heartbeat):
            file.unlink(missing_ok=True)
        shutil.rmtree(self.samples, ignore_errors=True)

    def clear(self) -> None:
        """Delete what `restart` deletes, and the attempts."""
        self.restart()
        self.attempts_file.unlink(missing_ok=True)


def stamp_file(path: Path) -> FileStamp | None:
    """Return values that differ after a file has been replaced; None if it does not exist.

    Args:
        path: path of the file.
    """
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _find_mismatch(sealed: SealedRecord, folder: Path) -> tuple[str, str] | None:
    try:
        verify_result(sealed, folder)
    except UnreadableError:  # it may be readable next time
        raise
    except DamageError as damage:
        return damage.file, damage.problem
    return None
