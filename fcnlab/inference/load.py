"""Load trained models from finished trials and from safetensors files, and write such files."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from fcnlab.constants import CheckpointChoice
from fcnlab.errors import ModelError
from fcnlab.extensions import Extensions
from fcnlab.inference.description import ModelDescription
from fcnlab.inference.model import TrainedModel
from fcnlab.models.fcn import separate_tensors
from fcnlab.paths import check_regular_file
from fcnlab.trial.build import restore_model
from fcnlab.trial.find import FinishedTrial


def load_trial(finished: FinishedTrial, checkpoint: CheckpointChoice) -> TrainedModel:
    """Load the model of a finished trial. The data of the trial are not required.

    Args:
        finished: the trial.
        checkpoint: weights of the last epoch, or of the epoch that is best on val.

    Raises:
        RunError: the trial has no weights.
        ModelError: the weights do not fit the network.
    """
    network = finished.load_model(checkpoint)
    return TrainedModel(network, ModelDescription.from_trial(finished, network, checkpoint))


def read_safetensors(path: Path, extensions: Extensions = Extensions()) -> TrainedModel:  # noqa: B008 - frozen
    """Read a file of `write_safetensors`.

    Args:
        path: path of the file.
        extensions: heads of the user's packages and lab, for a network with such a head.

    Raises:
        ModelError: the file does not exist, cannot be read, or contains no model description.
    """
    try:
        check_regular_file(path)
        with safe_open(path, framework="pt") as file:
            metadata, state = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file") from None
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: cannot be read as safetensors: {error}") from None
    description = ModelDescription.from_metadata(metadata, str(path))
    num_classes, channels = len(description.classes), len(description.mean)
    network = restore_model(
        description.variant, num_classes, state, str(path), extensions=extensions, in_channels=channels
    )
    return TrainedModel(network, description)


def write_safetensors(model: TrainedModel, path: Path) -> None:
    """Write the weights as safetensors, with the description as metadata.

    Args:
        model: the model.
        path: path of the file.

    Raises:
        OSError: the file cannot be written.
    """
    state = {name: value.cpu() for name, value in model.network.state_dict().items()}
    path.write_bytes(save(separate_tensors(state), metadata=model.description.to_metadata()))
