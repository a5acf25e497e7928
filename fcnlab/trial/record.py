"""The run folder of a trial, and the record that says that it is finished.

runs/<key>/
    trial.json         what is run
    progress.jsonl     a line an epoch, while it runs
    checkpoint.pt      where to go on after an interruption; gone once the trial is finished
    last.safetensors   the weights of the last epoch, and of the best on val where that is another
    best.safetensors
    counts.npz         per-image counts [N, classes, 3] of each scored split, those of its boundaries, and the ids
    samples/           predictions of the first images of the reported split, as palette images
    log.txt            what the worker printed
    attempts.jsonl     what was tried without a figure, where something was
    lease.<n>          which driver runs it now
    .meeting           where the processes of a trial on several devices find each other
    record.json        last and atomically: it is there if and only if the trial has ended
    scores/            what `fcnlab score` and `fcnlab evaluate` add later: figures (.json) and counts (.npz)
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from fcnlab.config.trial import Trial
from fcnlab.errors import RunError

Choice = Literal["last", "best"]
"""Which epoch of a trial is scored, and whose weights: its last, or the one that was best on val."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")


class EpochRecord(_Value):
    """One epoch: mean loss a step, last learning rate, images/s, and figures on val where it was scored."""

    epoch: int
    loss: float
    lr: float
    images_per_s: float
    seconds: float
    val_miou: float | None = None
    val_pixel_acc: float | None = None


class Scores(_Value):
    """The figures of one split at one epoch, fractions of 1; None where nothing counts.

    `split` is what the split is for, `val` or `test`; of one that is for neither it is its name.
    """

    split: str
    choice: Choice
    epoch: int
    images: int
    miou: float | None
    pixel_acc: float | None
    mean_acc: float | None
    fw_iou: float | None
    class_iou: tuple[float | None, ...]
    boundary_iou: float | None = None  # records of earlier versions are without it


class Cost(_Value):
    """What the model costs, and what the trial cost: wall-clock seconds, and at most so many bytes of its device."""

    params: int
    trainable_params: int
    gmacs: float
    gmacs_size: tuple[int, int]
    train_seconds: float
    evaluate_seconds: float
    images_per_s: float
    peak_memory: int | None = None  # records of earlier versions are without it


class Environment(_Value):
    """Where and with what the trial ran; `device` and `threads` are those of each of its `devices`.

    Attributes:
        device: what people call the device, such as `NVIDIA H200` or `AMD EPYC (2 threads)`.
        precision: of the forward pass, as it was used.
        threads: of the CPU.
        repeatable: whether the same trial on the same machine gives the same figures bit for bit.
        system: operating system, processor type and Python.
        versions: of the packages that figures depend on.
        commit: of fcnlab, with `+` where files differed from it; None outside a checkout.
        devices: how many devices trained the trial together.
        kind: `cpu` or `cuda`; records of earlier versions are without it, and all of them are of CPUs.
        sharing: how many trials shared the device at the same time.
        cuda, cudnn, driver: versions, on CUDA.
    """

    device: str
    precision: Literal["fp32", "tf32", "bf16", "fp16"]
    threads: int
    repeatable: bool
    system: str
    versions: dict[str, str]
    commit: str | None
    devices: int = 1
    kind: Literal["cpu", "cuda"] = "cpu"
    sharing: int = 1
    cuda: str | None = None
    cudnn: str | None = None
    driver: str | None = None

    @property
    def hardware(self) -> str:
        """What trained the trial, such as `NVIDIA H200` or `2 x NVIDIA H200`."""
        return self.device if self.devices == 1 else f"{self.devices} x {self.device}"


Cause = Literal["exception", "diverged", "lost", "out_of_memory"]


class Failure(_Value):
    """Why a trial did not finish."""

    cause: Cause
    message: str
    traceback: str = ""


class Attempt(_Value):
    """An attempt at a trial that ended without a figure, and how it was run; `epoch` is how many it had done."""

    cause: Literal["lost", "out_of_memory"]
    message: str
    epoch: int
    parts: int = 1
    alone: bool = False


class Record(_Value):
    """All that one trial produced, also when it failed.

    `trial` is what was run, in full, as plain values: it documents and is not read back as a `Trial`, so that records
    stay valid when the types of the configuration grow. Which trial it is, the key says.

    `parts` above 1 says that memory ran out, and each batch was cut into so many more parts than the recipe says:
    the same gradient, but for what depends on the whole batch, as the statistics of batch norm do.
    """

    key: str
    status: Literal["finished", "failed"]
    trial: dict[str, Any]
    classes: tuple[str, ...] = ()
    epochs: tuple[EpochRecord, ...] = ()
    scores: tuple[Scores, ...] = ()
    cost: Cost | None = None
    environment: Environment | None = None
    failure: Failure | None = None
    parts: int = 1
    ended: str

    @classmethod
    def of(cls, trial: Trial, status: Literal["finished", "failed"], **produced: Any) -> Record:
        """The record of a trial that ends now."""
        ended = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(key=trial.key, status=status, trial=trial.model_dump(mode="json"), ended=ended, **produced)

    @property
    def report_split(self) -> str:
        """The split on which the figure is reported: test, or val where there is no test."""
        return "test" if any(score.split == "test" for score in self.scores) else "val"

    def score(self, split: str, choice: str) -> Scores | None:
        """The figures of a split at the last or best epoch, where they are."""
        return next((s for s in self.scores if (s.split, s.choice) == (split, choice)), None)


class RunFolder:
    """The folder of one trial."""

    def __init__(self, runs: Path, key: str) -> None:
        self.key = key
        self.path = runs / key
        self.trial = self.path / "trial.json"
        self.progress = self.path / "progress.jsonl"
        self.checkpoint = self.path / "checkpoint.pt"
        self.counts = self.path / "counts.npz"
        self.samples = self.path / "samples"
        self.log = self.path / "log.txt"
        self.tried = self.path / "attempts.jsonl"
        self.weights = self.path / "last.safetensors"
        self.best_weights = self.path / "best.safetensors"
        self.scores = self.path / "scores"
        self.record = self.path / "record.json"
        self.lock = self.path / "lock"
        self.meeting = self.path / ".meeting"

    def make(self) -> None:
        """Make the folder.

        Raises:
            RunError: it cannot be written.
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
        """The record, if the trial has ended; one that is torn or of another trial does not count."""
        try:
            record = Record.model_validate_json(self.record.read_bytes())
        except (OSError, ValidationError):
            return None
        return record if record.key == self.key else None

    def finish(self, record: Record) -> None:
        """Write the record, whole or not at all; with it the trial has ended."""
        write_whole(self.record, lambda file: file.write(record.model_dump_json(indent=1).encode()))
        for file in (self.checkpoint, self.meeting):
            file.unlink(missing_ok=True)

    def write_progress(self, epochs: list[EpochRecord]) -> None:
        """Write the epochs so far, whole: a trial that goes on from a checkpoint repeats none of them."""
        lines = "".join(epoch.model_dump_json() + "\n" for epoch in epochs)
        write_whole(self.progress, lambda file: file.write(lines.encode()))

    def read_progress(self) -> list[EpochRecord]:
        """The epochs so far."""
        try:
            lines = self.progress.read_text(encoding="utf-8").splitlines()
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [EpochRecord.model_validate(json.loads(line)) for line in lines]

    def attempts(self) -> list[Attempt]:
        """The attempts that ended without a figure, in order."""
        try:
            lines = self.tried.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        return [Attempt.model_validate_json(line) for line in lines]

    def add_attempt(self, attempt: Attempt) -> list[Attempt]:
        """Note an attempt that ended without a figure; returns all of them."""
        attempts = [*self.attempts(), attempt]
        lines = "".join(attempt.model_dump_json() + "\n" for attempt in attempts)
        write_whole(self.tried, lambda file: file.write(lines.encode()))
        return attempts

    def start_anew(self) -> None:
        """Forget a failed record and the epochs so far, so that the trial runs again from its start."""
        for file in (self.record, self.checkpoint, self.progress):
            file.unlink(missing_ok=True)
        shutil.rmtree(self.samples, ignore_errors=True)

    def forget(self) -> None:
        """Forget a failed record and what was tried before it."""
        self.start_anew()
        self.tried.unlink(missing_ok=True)


def write_whole(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file atomically: readers see the old content or the new, never a part, also after a crash."""
    with tempfile.NamedTemporaryFile("wb", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            write(file)
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
