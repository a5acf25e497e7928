"""Trials as event files of TensorBoard: `tensorboard/<grid>/<cell>, seed <n>/` of the lab.

The files of a trial are written again from its first epoch by each driver that runs it. All epochs are at hand then,
and no point is repeated, also after a driver was killed while it wrote.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from fcnlab.atomic_file import read_shared, write_atomically
from fcnlab.errors import TrackingError
from fcnlab.paths import fold_name, is_folder
from fcnlab.tracking.base import TrackedGrid, TrackedTrial, Tracker
from fcnlab.tracking.fields import extract_final_metrics, extract_params, extract_points
from fcnlab.trial.record import EpochRecord, Record

if TYPE_CHECKING:
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

FOLDER = "tensorboard"
"""Folder of the event files in a lab."""

NOTE = "fcnlab.json"
"""File in the folder of a trial with its key, and the end of its record if that is published."""

MAX_NAME = 120
"""Maximum length of the name of a trial's folder in bytes."""


def is_installed() -> bool:
    """Return whether tensorboard can be imported, without importing it."""
    return importlib.util.find_spec("tensorboard") is not None


class TensorboardTracker(Tracker):
    """Writes event files: curves, hyperparameters, final metrics, and the predictions of the first images."""

    def __init__(self, grid: TrackedGrid) -> None:
        """Create the folder of a grid.

        Args:
            grid: the grid.

        Raises:
            TrackingError: TensorBoard is not installed, or the folder cannot be created.
        """
        if not is_installed():
            raise TrackingError("TensorBoard is not installed; install it with: pip install 'fcnlab[tensorboard]'")
        self._grid = grid
        self._folder = grid.lab.output / FOLDER / grid.name
        occurrences = Counter(map(fold_name, grid.display_names))
        self._ambiguous = {cell for cell in grid.display_names if occurrences[fold_name(cell)] > 1}
        self._published: dict[str, str] = {}
        self._writers: dict[str, EventFileWriter] = {}
        self._num_epochs: dict[str, int] = {}
        with _convert_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)

    def start_grid(self, keys: Collection[str]) -> None:  # noqa: ARG002 - part of the interface
        """Read which records are published."""
        with _convert_errors(self._folder):
            notes = [_read_note(file) for file in self._folder.glob(f"*/{NOTE}")]
        self._published = {note["key"]: note["published"] for note in notes if {"key", "published"} <= note.keys()}

    def is_published(self, record: Record) -> bool:
        """Return whether a record is published.

        Args:
            record: record of a trial.
        """
        return self._published.get(record.key) == record.ended

    def start_trial(self, trial: TrackedTrial) -> None:
        """Begin a new event file of a trial, with its hyperparameters.

        Args:
            trial: the trial.
        """
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.plugins.hparams.plugin_data_pb2 import SessionStartInfo
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        folder = self._find_folder(trial)
        with _convert_errors(folder):
            if trial.key in self._writers:  # its epochs were discarded
                self._writers.pop(trial.key).close()
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            self._write_note(trial, {})
            writer = self._writers[trial.key] = EventFileWriter(str(folder))
            self._num_epochs[trial.key] = 0
            # A TensorBoard that shows the former file drops its points.
            writer.add_event(Event(wall_time=time.time(), step=0, session_log=SessionLog(status=SessionLog.START)))
            start = SessionStartInfo(start_time_secs=trial.started)
            for name, text in extract_params(trial.trial, trial.axes).items():
                start.hparams[name].CopyFrom(_parse(text))
            self._add(trial, _summarize_session(session_start_info=start), 0)
            writer.flush()

    def log_epochs(self, trial: TrackedTrial, epochs: Sequence[EpochRecord]) -> None:
        """Write the epochs that the event file does not have.

        Args:
            trial: the trial.
            epochs: all epochs up to now.
        """
        new = epochs[self._num_epochs[trial.key] :]
        with _convert_errors(self._folder):
            for step, values in sorted(extract_points(new).items()):
                self._add_scalars(trial, values, step)
            self._writers[trial.key].flush()
        self._num_epochs[trial.key] += len(new)

    def log_record(self, trial: TrackedTrial, record: Record, *, samples: bool) -> None:
        """Write a record, and close the event file.

        Args:
            trial: the trial.
            record: its record.
            samples: whether to write the predictions of the first images.
        """
        self.log_epochs(trial, record.epochs)
        with _convert_errors(self._folder):
            last = len(record.epochs)
            self._add_scalars(trial, extract_final_metrics(record, self._grid.checkpoint), last)
            if samples and is_folder(trial.folder.samples):
                for file in sorted(trial.folder.samples.iterdir()):
                    self._add_image(trial, file, last)
            self._end(trial, "SUCCESS" if record.status == "finished" else "FAILURE")
            self._write_note(trial, {"published": record.ended})
        self._published[trial.key] = record.ended

    def pause_trial(self, trial: TrackedTrial, *, pruned_after: int | None) -> None:
        """Close the event file of a trial without a record.

        Args:
            trial: the trial.
            pruned_after: epoch after which early stopping ended the trial; None if it was interrupted.
        """
        self.log_epochs(trial, trial.folder.read_progress())
        with _convert_errors(self._folder):
            self._end(trial, "UNKNOWN" if pruned_after is None else "SUCCESS")

    def close(self, *, complete: bool) -> None:  # noqa: ARG002 - part of the interface
        """Close the event files that are open."""
        with _convert_errors(self._folder):
            for writer in self._writers.values():
                writer.close()
        self._writers.clear()

    def _find_folder(self, trial: TrackedTrial) -> Path:
        """Return the folder of a trial.

        A replaced name gets the first digits of the trial's key, and so do cells whose labels differ only in case: on
        some file systems they would have one folder.
        """
        original = f"{trial.cell}, seed {trial.trial.seed}"  # not the display name, which may change between two runs
        name = re.sub(r"[^\w.,=+{}\[\]: -]", "_", original)
        if name != original or trial.cell in self._ambiguous or len(name.encode()) > MAX_NAME:
            name = f"{name.encode()[:MAX_NAME].decode(errors='ignore')} {trial.key[:8]}"
        return self._folder / name

    def _write_note(self, trial: TrackedTrial, fields: Mapping[str, str]) -> None:
        text = json.dumps({"key": trial.key, **fields})
        write_atomically(self._find_folder(trial) / NOTE, lambda file: file.write(text.encode()))

    def _add(self, trial: TrackedTrial, summary: Any, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._writers[trial.key].add_event(Event(wall_time=time.time(), step=step, summary=summary))

    def _add_scalars(self, trial: TrackedTrial, values: Mapping[str, float], step: int) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._add(trial, Summary(value=scalars), step)

    def _add_image(self, trial: TrackedTrial, file: Path, step: int) -> None:
        """Write a file of `samples/`, such as `ID.prediction.png`, as it is."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        with Image.open(file) as image:
            width, height = image.size
        picture = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=file.read_bytes())
        image_id, kind, _ = file.name.rsplit(".", 2)
        self._add(trial, Summary(value=[Summary.Value(tag=f"samples/{image_id}/{kind}", image=picture)]), step)

    def _end(self, trial: TrackedTrial, status: str) -> None:
        from tensorboard.plugins.hparams.api_pb2 import Status
        from tensorboard.plugins.hparams.plugin_data_pb2 import SessionEndInfo

        end = SessionEndInfo(status=Status.Value(f"STATUS_{status}"), end_time_secs=time.time())
        self._add(trial, _summarize_session(session_end_info=end), 0)
        self._writers.pop(trial.key).close()


def _read_note(file: Path) -> dict[str, str]:
    """Return the fields of a note; none if its content is damaged, so that the trial is written again."""
    try:
        note = json.loads(read_shared(file))
    except ValueError:
        return {}
    return note if isinstance(note, dict) else {}


def _summarize_session(**info: Any) -> Any:
    """Return a summary for the HParams page. The functions of TensorBoard for this import TensorFlow.

    Args:
        info: `session_start_info` or `session_end_info`.
    """
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.plugins.hparams import metadata
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    tag = metadata.SESSION_START_INFO_TAG if "session_start_info" in info else metadata.SESSION_END_INFO_TAG
    content = HParamsPluginData(version=metadata.PLUGIN_DATA_VERSION, **info).SerializeToString()
    plugin = SummaryMetadata.PluginData(plugin_name=metadata.PLUGIN_NAME, content=content)
    return Summary(value=[Summary.Value(tag=tag, metadata=SummaryMetadata(plugin_data=plugin))])


def _parse(text: str) -> Any:
    """Return a parameter as a protobuf value: a truth value or a number where it is one."""
    from google.protobuf.struct_pb2 import Value

    if text in ("true", "false"):
        return Value(bool_value=text == "true")
    try:
        return Value(number_value=float(text))
    except ValueError:
        return Value(string_value=text)


@contextmanager
def _convert_errors(folder: Path) -> Iterator[None]:
    """Convert errors of the file system to a `TrackingError` of one line."""
    try:
        yield
    except OSError as error:
        raise TrackingError(f"{folder}: TensorBoard's files cannot be read or written: {error}") from error
