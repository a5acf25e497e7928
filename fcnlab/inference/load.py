"""A model from a finished trial, or from a file that `fcnlab export` wrote; and the latter's format."""

from __future__ import annotations

import os
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from fcnlab.errors import ModelError
from fcnlab.extensions import Extensions
from fcnlab.inference.description import Description
from fcnlab.inference.model import TrainedModel
from fcnlab.lab import Lab
from fcnlab.trial.find import find_finished_trial, restore_model
from fcnlab.trial.record import CheckpointChoice


def load(
    what: str | os.PathLike[str], *, checkpoint: CheckpointChoice = "last", lab: Lab | None = None
) -> TrainedModel:
    """The model of a trial, by its key, the beginning of its key or its run folder, or of an exported .safetensors.

    Args:
        what: which; neither the trial's data nor, for a file, a lab is needed.
        checkpoint: the weights of the last epoch or of the one that is best on val; a file has its own.
        lab: where trials are looked up, by default as the command line does.

    Raises:
        RunError: no such trial, or one that has not finished or whose weights are gone.
        ModelError: a file that is not from `fcnlab export`, or weights that do not fit.
    """
    if Path(what).suffix == ".safetensors":
        return read_file(Path(what), Extensions(lab.root if lab is not None else Path.cwd()))
    finished = find_finished_trial(os.fspath(what), lab or Lab.find())
    fcn = finished.load_model(checkpoint)
    return TrainedModel(fcn, Description.of(finished, fcn, checkpoint))


def read_file(path: Path, extensions: Extensions = Extensions()) -> TrainedModel:  # noqa: B008 - frozen
    """Read what `write_file` wrote.

    Raises:
        ModelError: it cannot be read, or is another kind of file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata, state = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file") from None
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: cannot be read as safetensors: {error}") from None
    description = Description.read(metadata, str(path))
    fcn = restore_model(description.variant, len(description.classes), state, str(path), extensions)
    return TrainedModel(fcn, description)


def write_file(model: TrainedModel, path: Path) -> None:
    """Write the weights as safetensors, with the description as metadata."""
    state = {name: value.cpu().contiguous() for name, value in model.network.state_dict().items()}
    path.write_bytes(save(state, metadata=model.description.metadata()))
