"""Trials that have finished: found by what a person calls them, and their weights as a network again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from torch import Tensor

from fcnlab.config.trial import Trial
from fcnlab.config.variant import Variant
from fcnlab.errors import ModelError, RunError
from fcnlab.lab import Lab
from fcnlab.models import FCN
from fcnlab.models.backbones.base import read_state
from fcnlab.trial.build import build_model
from fcnlab.trial.lookup import SHORT, find_folder
from fcnlab.trial.record import Choice, Record, RunFolder, Scores


@dataclass(frozen=True)
class Finished:
    """A trial that has finished, its record and its run folder."""

    trial: Trial
    record: Record
    folder: RunFolder

    @property
    def label(self) -> str:
        """What people call it."""
        return f"{self.trial.names.get('variant', self.trial.key[:SHORT])}, seed {self.trial.seed}"

    def reported(self, choice: Choice) -> Scores:
        """What the record says of the split that is reported."""
        found = self.record.score(self.trial.report_split, choice)
        assert found is not None, "a finished trial has scored the split that it reports"
        return found

    def weights(self, choice: Choice) -> Path:
        """The file with the weights.

        Raises:
            RunError: it is no longer there.
        """
        other = choice == "best" and self.reported(choice).epoch != self.trial.recipe.epochs
        file = self.folder.best_weights if other else self.folder.weights
        if not file.is_file():
            raise RunError(f"{file}: the weights are no longer there; run the trial again to use it")
        return file

    def network(self, choice: Choice) -> FCN:
        """The network with these weights, in evaluation mode.

        Raises:
            RunError: the weights are no longer there.
            ModelError: they cannot be read, or do not fit.
        """
        file = self.weights(choice)
        return network(self.trial.variant, len(self.record.classes), read_state(file), str(file))


def network(variant: Variant, classes: int, state: Mapping[str, Tensor], source: str) -> FCN:
    """A variant with these weights, in evaluation mode. Those that its backbone started from are not asked for.

    Raises:
        ModelError: the weights do not fit; the message begins with `source`.
    """
    backbone = variant.backbone.model_copy(update={"weights": "scratch"})
    model = build_model(variant.model_copy(update={"backbone": backbone}), classes, seed=0)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(f"{source}: not weights of this variant: {str(error).splitlines()[-1].strip()}") from None
    return model.eval()


def find_finished(what: str, lab: Lab) -> Finished:
    """The finished trial of this key, of the one key that begins so, or of this run folder.

    Its data need not be there.

    Raises:
        RunError: there is no such trial or more than one, it has not finished, or it was run by a version whose trials
            are no longer understood.
    """
    folder = find_folder(what, lab)
    record = folder.read()
    if record is not None and record.failure is not None:
        raise RunError(f"{folder.path}: this trial has failed ({record.failure.message.splitlines()[0]})")
    if record is None:
        raise RunError(f"{folder.path}: this trial has not finished; `fcnlab grid run` goes on with it")
    try:
        trial = Trial.model_validate_json(folder.trial.read_bytes())
    except OSError as error:
        raise RunError(f"{folder.trial}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        raise RunError(f"{folder.trial}: not a trial as this version knows it ({error.error_count()} faults)") from None
    return Finished(trial, record, folder)
