"""Run folders and finished trials, found by key or path."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from fcnlab.atomic_file import read_shared
from fcnlab.config.trial import Trial
from fcnlab.constants import KEY_DIGITS, CheckpointChoice, Precision
from fcnlab.errors import ModelError, RunError
from fcnlab.extensions import Extensions
from fcnlab.lab import Lab
from fcnlab.paths import is_file, relative_to_cwd, resolve_path
from fcnlab.trial.record import Record, SplitMetrics
from fcnlab.trial.run_folder import RunFolder
from fcnlab.trial.storage.damage import DamageError, KeptError
from fcnlab.trial.storage.quarantine import list_keys

if TYPE_CHECKING:
    from fcnlab.models import FCN


@dataclass(frozen=True)
class FinishedTrial:
    """A trial that has finished, with its weights.

    Attributes:
        trial: configuration of the trial.
        record: its record.
        folder: its run folder.
    """

    trial: Trial
    record: Record
    folder: RunFolder

    @property
    def label(self) -> str:
        """The name of the variant, or the key if it has none, and the seed."""
        return f"{self.trial.names.get('variant', self.trial.key[:KEY_DIGITS])}, seed {self.trial.seed}"

    @property
    def recorded_precision(self) -> dict[str, Precision]:
        """The precision of the training by type of its device; empty if the record does not contain it."""
        environment = self.record.environment
        return {environment.kind: environment.precision} if environment is not None else {}

    def reported_metrics(self, checkpoint: CheckpointChoice) -> SplitMetrics:
        """Return the recorded metrics of the reported split.

        Args:
            checkpoint: the evaluated checkpoint, `last` or `best`.

        Returns:
            The metrics.
        """
        metrics = self.record.find_metrics(self.trial.report_split, checkpoint)
        assert metrics is not None, "a finished trial has metrics of the reported split"
        return metrics

    def weights_file(self, checkpoint: CheckpointChoice) -> Path:
        """Return the path of the weights.

        Args:
            checkpoint: the checkpoint, `last` or `best`.

        Returns:
            Path of a safetensors file.

        Raises:
            RunError: the file does not exist.
        """
        file = self._locate_weights(checkpoint)
        if not is_file(file):
            raise RunError(
                f"{file}: the weights are missing; to train the trial again, remove the folder "
                f"{relative_to_cwd(self.folder.path)}, then run its grid with `fcnlab grid run FILE`"
            )
        return file

    def has_weights(self, checkpoint: CheckpointChoice) -> bool:
        """Return whether the file with the weights exists.

        Args:
            checkpoint: the checkpoint, `last` or `best`.
        """
        return is_file(self._locate_weights(checkpoint))

    def _locate_weights(self, checkpoint: CheckpointChoice) -> Path:
        is_best = (
            checkpoint == "best" and self.reported_metrics(checkpoint).epoch != self.reported_metrics("last").epoch
        )
        return self.folder.best_weights if is_best else self.folder.weights

    def load_model(self, checkpoint: CheckpointChoice) -> FCN:
        """Load the trained model.

        Args:
            checkpoint: the checkpoint to load, `last` or `best`.

        Returns:
            The model in evaluation mode.

        Raises:
            RunError: the file with the weights does not exist or is damaged.
            ModelError: the weights cannot be read or do not fit the variant, or the code of its head has changed.
        """
        from fcnlab.models.backbones.weights_file import read_tensors  # late: a trial is found without importing torch
        from fcnlab.trial.build import restore_model

        file = self.weights_file(checkpoint)
        extensions = Extensions(self.folder.path.parent.parent)
        head = self.trial.variant.head
        if extensions.fingerprints(head).get("head") != self.trial.extensions.get("head"):
            raise ModelError(f"{self.folder.path}: the code of head type '{head.type}' has changed since the training")
        self.folder.verify_file(file)
        return restore_model(
            self.trial.variant,
            len(self.record.classes),
            read_tensors(file),
            source=str(file),
            extensions=extensions,
            in_channels=self.trial.dataset.image_channels,
        )


def find_run_folder(name: str, lab: Lab) -> RunFolder:
    """Find the run folder of a trial.

    Args:
        name: a key, the unique beginning of a key, or the path of a run folder.
        lab: the lab in whose `runs/` keys are looked up.

    Returns:
        The run folder.

    Raises:
        RunError: no key or more than one key begins with `name`, or `name` is a grid file without a cell.
    """
    path = Path(name)
    if is_file(path / "trial.json"):
        return RunFolder(resolve_path(path).parent, resolve_path(path).name)
    if is_file(path) and path.suffix in (".yaml", ".yml"):
        raise RunError(f"{name}: is a grid file; add a cell, such as {name}:best")
    if path.suffix:  # not a key
        problem = "is neither a grid file nor a run folder" if is_file(path) else "no such file or run folder"
        raise RunError(f"{name}: {problem}")
    grid = _find_grid_file(path, lab)
    if grid is not None:
        raise RunError(f"{name}: is the name of a grid, not a trial; add a cell to its file, such as {grid}:best")
    keys = list_keys(lab.runs)
    if not keys:
        raise RunError(
            f"{lab.runs}: contains no trials; set the folder of the lab with --lab (in Python, lab=...), or pass a run "
            "folder"
        )
    matches = [key for key in keys if key.startswith(name.lower())] if name else []
    if len(matches) == 1:
        return RunFolder(lab.runs, matches[0])
    if matches:
        raise RunError(f"{lab.runs}: {len(matches)} keys begin with '{name}': {_join_keys(matches)}; give more digits")
    nearest = get_close_matches(name[:KEY_DIGITS], [key[:KEY_DIGITS] for key in keys], n=3, cutoff=0.0)
    raise RunError(f"{lab.runs}: no key of a trial begins with '{name}'; nearest: {_join_keys(nearest)}")


def _find_grid_file(path: Path, lab: Lab) -> Path | None:
    """Return the grid file whose name or folder of results is given; None if there is none."""
    results = resolve_path(lab.root / "results")
    target = resolve_path(path)
    name = target.relative_to(results) if target.is_relative_to(results) else path
    files = [lab.root / "experiments" / f"{name}{suffix}" for suffix in (".yaml", ".yml")]
    return next((relative_to_cwd(file) for file in files if is_file(file)), None)


def read_finished_trial(folder: RunFolder) -> FinishedTrial:
    """Read a finished trial.

    Args:
        folder: its run folder.

    Returns:
        The trial.

    Raises:
        RunError: the trial has failed or has not finished, or is of an incompatible version of fcnlab.
    """
    try:
        record = folder.load()
    except DamageError as damage:
        remedy = "" if isinstance(damage, KeptError) else "; `fcnlab grid run` runs the trial again"
        raise RunError(f"{folder.path / damage.file}: {damage.problem}{remedy}") from None
    if record is not None and record.failure is not None:
        raise RunError(f"{folder.path}: this trial has failed ({record.failure.message.splitlines()[0]})")
    if record is None:
        raise RunError(
            f"{folder.path}: this trial has not finished, or is of another version of fcnlab; "
            "`fcnlab grid run` continues unfinished trials; after a change of the grid, a component or the data, name "
            "an earlier trial by its key"
        )
    return FinishedTrial(read_trial(folder), record, folder)


def read_trial(folder: RunFolder) -> Trial:
    """Read the configuration of a trial.

    Args:
        folder: its run folder.

    Returns:
        The configuration.

    Raises:
        RunError: it cannot be read, or is of an incompatible version of fcnlab.
    """
    try:
        return Trial.model_validate_json(read_shared(folder.trial))
    except OSError as error:
        raise RunError(f"{folder.trial}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        count = error.error_count()
        raise RunError(f"{folder.trial}: not a valid trial of this version of fcnlab ({count} errors)") from None


def _join_keys(keys: list[str]) -> str:
    return ", ".join(key[:KEY_DIGITS] for key in keys[:5]) + (", ..." if len(keys) > 5 else "")
