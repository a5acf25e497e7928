"""Files of a trial.

runs/<key>/
    trial.json         configuration of the trial
    progress.jsonl     one line per epoch, while the trial runs
    checkpoint.pt      state from which training resumes; removed when the trial has finished
    last.safetensors   weights of the last epoch
    best.safetensors   weights of the epoch that is best on val, if it is not the last
    counts.npz         per-image counts [N, classes, 3] of each split and of its boundaries, and the image ids
    samples/           predictions of the first images of the reported split, as palette images
    log.txt            output of the worker
    attempts.jsonl     attempts that ended without a record
    lease.<n>          claim of the driver that runs the trial
    .rendezvous        file through which the processes of a trial on several devices find each other
    record.json        the record; it is written last, and exists only if the trial has ended
    evaluations/       results of `fcnlab evaluate`: metrics (.json) and counts (.npz)
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from pydantic import ValidationError

from fcnlab.atomic_file import write_atomically
from fcnlab.errors import RunError
from fcnlab.trial.record import Attempt, EpochRecord, Record


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
        self.counts = self.path / "counts.npz"
        self.samples = self.path / "samples"
        self.log = self.path / "log.txt"
        self.attempts_file = self.path / "attempts.jsonl"
        self.weights = self.path / "last.safetensors"
        self.best_weights = self.path / "best.safetensors"
        self.evaluations = self.path / "evaluations"
        self.record = self.path / "record.json"
        self.lock = self.path / "lock"
        self.rendezvous = self.path / ".rendezvous"

    def create(self) -> None:
        """Create the folder if it does not exist.

        Raises:
            RunError: the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise RunError(
                f"{self.path.parent}: cannot be written ({error.strerror}); choose another lab folder with --lab"
            ) from None

    def read(self) -> Record | None:
        """Read the record.

        Returns:
            The record; None if the trial has not ended, or if the file is damaged, from another version of fcnlab or
            of another trial.
        """
        try:
            record = Record.model_validate_json(self.record.read_bytes())
        except (OSError, ValidationError):
            return None
        return record if record.key == self.key else None

    def finish(self, record: Record) -> None:
        """Write the record, which ends the trial, and remove the files that only a running trial needs.

        Args:
            record: the record of the trial.
        """
        write_atomically(self.record, lambda file: file.write(record.model_dump_json(indent=1).encode()))
        for file in (self.checkpoint, self.rendezvous):
            file.unlink(missing_ok=True)

    def write_progress(self, epochs: list[EpochRecord]) -> None:
        """Write all epochs up to now. The file is replaced, so a resumed trial repeats no line.

        Args:
            epochs: the finished epochs.
        """
        lines = "".join(epoch.model_dump_json() + "\n" for epoch in epochs)
        write_atomically(self.progress, lambda file: file.write(lines.encode()))

    def read_progress(self) -> list[EpochRecord]:
        """Return the epochs up to now."""
        try:
            lines = self.progress.read_text(encoding="utf-8").splitlines()
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [EpochRecord.model_validate(json.loads(line)) for line in lines]

    def attempts(self) -> list[Attempt]:
        """Return the attempts that ended without a record, in order.

        A file of another version of fcnlab is read as no attempts.
        """
        try:
            lines = self.attempts_file.read_text(encoding="utf-8").splitlines()
            return [Attempt.model_validate_json(line) for line in lines]
        except (FileNotFoundError, ValidationError):
            return []

    def add_attempt(self, attempt: Attempt) -> list[Attempt]:
        """Add an attempt that ended without a record.

        Args:
            attempt: the attempt.

        Returns:
            All attempts, in order.
        """
        attempts = [*self.attempts(), attempt]
        lines = "".join(attempt.model_dump_json() + "\n" for attempt in attempts)
        write_atomically(self.attempts_file, lambda file: file.write(lines.encode()))
        return attempts

    def restart(self) -> None:
        """Delete the record, the checkpoint and the progress, so that the trial starts at its first epoch."""
        for file in (self.record, self.checkpoint, self.progress):
            file.unlink(missing_ok=True)
        shutil.rmtree(self.samples, ignore_errors=True)

    def clear(self) -> None:
        """Delete what `restart` deletes, and the attempts."""
        self.restart()
        self.attempts_file.unlink(missing_ok=True)
