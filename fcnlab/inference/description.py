"""What must be known of a trained network to use it without the lab it was trained in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from fcnlab.config.variant import Variant
from fcnlab.data.datasets.palette import voc_palette
from fcnlab.errors import ModelError
from fcnlab.models import FCN
from fcnlab.trial.find import FinishedTrial
from fcnlab.trial.record import CheckpointChoice

Colour = tuple[int, int, int]


class Description(BaseModel):
    """Travels with the weights in every exported file.

    `mean` and `std` are of RGB images scaled to 0..1, by channel; `score_scale` is the factor by which an image is
    resized before the network sees it. `recipe`, `names` and `dataset` document; nothing is built from them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    key: str
    names: dict[str, str]
    checkpoint: CheckpointChoice
    epoch: int
    classes: tuple[str, ...]
    palette: tuple[Colour, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    score_scale: float
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"]
    variant: Variant
    recipe: dict[str, Any]

    @classmethod
    def of(cls, finished: FinishedTrial, network: FCN, checkpoint: CheckpointChoice) -> Description:
        """Describe a finished trial's network."""
        trial, classes = finished.trial, finished.record.classes
        return cls(
            key=trial.key,
            names=trial.names,
            checkpoint=checkpoint,
            epoch=finished.reported_metrics(checkpoint).epoch,
            classes=classes,
            palette=tuple((r, g, b) for r, g, b in voc_palette()[: len(classes)].tolist()),
            mean=network.backbone.mean,
            std=network.backbone.std,
            score_scale=trial.recipe.score_scale,
            precision=trial.recipe.precision,
            variant=trial.variant,
            recipe=trial.recipe.content(),
        )

    def metadata(self) -> dict[str, str]:
        """The same as texts by name, each of them JSON: what safetensors and ONNX keep beside weights."""
        return {name: json.dumps(value) for name, value in self.model_dump(mode="json").items()}

    @classmethod
    def read(cls, metadata: Mapping[str, str] | None, source: str) -> Description:
        """Read what `metadata` wrote.

        Raises:
            ModelError: there is nothing of the kind; the message begins with `source`.
        """
        if not metadata or "classes" not in metadata:
            raise ModelError(
                f"{source}: does not say what its weights are of; name a trial, or a file of fcnlab export"
            )
        try:
            return cls.model_validate({name: json.loads(text) for name, text in metadata.items() if name in FIELDS})
        except (ValueError, ValidationError):
            raise ModelError(f"{source}: not described as this version knows it; export the trial again") from None


FIELDS = frozenset(Description.model_fields)
