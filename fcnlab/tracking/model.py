"""Models in MLflow's format."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def save_model(model: nn.Module, num_classes: int, path: Path, channels: int = 3) -> None:
    """Save a model in MLflow's format, with its signature and its requirements.

    Args:
        model: a model from uint8 [B, channels, H, W] to float32 [B, num_classes, H, W].
        num_classes: number of classes.
        path: folder that is created.
        channels: channels of the images.
    """
    from importlib.metadata import version

    import mlflow.pytorch
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    from fcnlab.version import __version__

    images = TensorSpec(np.dtype("uint8"), (-1, channels, -1, -1))
    outputs = TensorSpec(np.dtype("float32"), (-1, num_classes, -1, -1))
    signature = ModelSignature(Schema([images]), Schema([outputs]))
    requirements = [f"fcnlab=={__version__}"]
    requirements += [f"{name}=={version(name)}" for name in ("torch", "torchvision", "timm")]
    # The other format traces the model for one image size. Older versions of MLflow know only pickle.
    has_formats = "serialization_format" in inspect.signature(mlflow.pytorch.save_model).parameters
    options = {"serialization_format": "pickle"} if has_formats else {}
    mlflow.pytorch.save_model(model, path, signature=signature, pip_requirements=requirements, **options)
