"""Metadata of a trained model, stored with its weights, so that it can be used without its lab."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from fcnlab.config.variant import Variant
from fcnlab.constants import CheckpointChoice, Precision
from fcnlab.data.datasets.palette import find_palette
from fcnlab.errors import ModelError
from fcnlab.models import FCN
from fcnlab.trial.find import FinishedTrial

Color = tuple[int, int, int]


class ModelDescription(BaseModel):
    """Metadata of a trained model; every exported file contains it.

    Attributes:
        format: version of this description.
        key: key of the trial.
        names: names of the trial's components, by kind; informative only.
        checkpoint: the trial's checkpoint with these weights, `last` or `best`.
        epoch: epoch of the weights.
        classes: names of the classes, by label.
        palette: RGB color of each label.
        mean: mean of each channel of images scaled to 0..1; its length is the number of channels.
        std: standard deviation of each channel, of the same images.
        value_range: values of images of more than 8 bits that become 0 and 255; None is 0 and 65535 for 16 bits.
        score_scale: factor by which an image is resized before prediction.
        precision: precision of the recipe, in which the model predicts on another type of device.
        recorded_precision: precision of the training by type of its device, in which the model predicts there.
        variant: configuration of the network.
        recipe: configuration of the training; informative only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    key: str
    names: dict[str, str]
    checkpoint: CheckpointChoice
    epoch: int
    classes: tuple[str, ...]
    palette: tuple[Color, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    value_range: tuple[float, float] | None = None
    score_scale: float
    precision: Literal["auto", Precision]
    recorded_precision: dict[str, Precision] = {}
    variant: Variant
    recipe: dict[str, Any]

    @classmethod
    def from_trial(cls, finished: FinishedTrial, network: FCN, checkpoint: CheckpointChoice) -> ModelDescription:
        """Return the description of the network of a finished trial.

        Args:
            finished: the trial.
            network: its network.
            checkpoint: the checkpoint that the network was loaded from, `last` or `best`.
        """
        trial, classes = finished.trial, finished.record.classes
        return cls(
            key=trial.key,
            names=trial.names,
            checkpoint=checkpoint,
            epoch=finished.reported_metrics(checkpoint).epoch,
            classes=classes,
            palette=tuple((r, g, b) for r, g, b in find_palette(trial.dataset, classes)[: len(classes)].tolist()),
            mean=network.backbone.mean,
            std=network.backbone.std,
            value_range=trial.dataset.image_range,
            score_scale=trial.recipe.score_scale,
            precision=trial.recipe.precision,
            recorded_precision=finished.recorded_precision,
            variant=trial.variant,
            recipe=trial.recipe.content(),
        )

    def to_metadata(self) -> dict[str, str]:
        """Return each field as JSON, by name: the metadata of safetensors and ONNX files are strings."""
        return {name: json.dumps(value) for name, value in self.model_dump(mode="json").items()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str] | None, source: str) -> ModelDescription:
        """Parse the result of `to_metadata`.

        Args:
            metadata: fields as JSON; other names are ignored.
            source: name of the file, for error messages.

        Raises:
            ModelError: the metadata contain no description, or one of another version.
        """
        if not metadata or "classes" not in metadata:
            raise ModelError(f"{source}: contains no model description; name a trial, or a file of fcnlab export")
        try:
            fields = {name: json.loads(text) for name, text in metadata.items() if name in cls.model_fields}
            return cls.model_validate(fields)
        except (ValueError, ValidationError):
            raise ModelError(
                f"{source}: the model description does not match this version of fcnlab; export the trial again"
            ) from None
