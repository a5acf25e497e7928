"""Models in MLflow's format and in its registry."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fcnlab.errors import TrackingError

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient
    from torch import nn


def save_model(model: nn.Module, num_classes: int, path: Path, channels: int) -> None:
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
    logging.getLogger("mlflow.pytorch").setLevel(logging.ERROR)  # docs/mlflow.md warns of pickle
    mlflow.pytorch.save_model(model, path, signature=signature, pip_requirements=requirements, **options)


def register_version(client: MlflowClient, name: str, run_id: str, source: str, tags: Mapping[str, str]) -> str | None:
    """Register a logged model as a new version of a model in MLflow's registry.

    Args:
        client: client of the store.
        name: name of the registered model; it is created if it does not exist.
        run_id: id of the run that has the model.
        source: address of the model's files.
        tags: tags of the version by name.

    Returns:
        The number of the version; None if the newest version is of this run.

    Raises:
        TrackingError: the name contains a character that separates the parts of an address of MLflow. Newer versions of
            MLflow refuse it too; older ones register a model that cannot be loaded by its name.
    """
    if "/" in name or ":" in name:
        raise TrackingError(f"model name '{name}': MLflow permits no '/' and no ':'; try '{re.sub('[/:]', '-', name)}'")
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    versions = client.search_model_versions(f"name = '{name}'")
    newest = max(versions, key=lambda version: int(version.version), default=None)
    if newest is not None and newest.run_id == run_id:
        return None
    return str(client.create_model_version(name, source, run_id, dict(tags)).version)
