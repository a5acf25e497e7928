"""The transform of a recipe, applied to decoded samples: it checks the results and provides the random numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fcnlab.config.augmentation import CustomTransform
from fcnlab.constants import IGNORE_INDEX
from fcnlab.data.transforms import Transform
from fcnlab.errors import DataError
from fcnlab.extensions import Extensions
from fcnlab.kernels.inputs import DecodedSample
from fcnlab.seeding import derive_seed


@dataclass(frozen=True)
class SampleTransform:
    """A transform of decoded samples.

    Attributes:
        name: the `type` of the transform, for error messages.
        transform: transforms an image and its mask.
        num_classes: number of classes.
    """

    name: str
    transform: Transform
    num_classes: int

    def __call__(self, sample: DecodedSample, seed: int, pass_index: int, index: int) -> DecodedSample:
        """Return a transformed copy of a sample.

        The random numbers depend only on the arguments, and are independent of those of the recipe's augmentation.

        Args:
            sample: the sample, on the CPU.
            seed: seed of the trial.
            pass_index: number of the pass over the training images, from 0.
            index: position of the sample in its split.

        Raises:
            DataError: the result is not an image of uint8 with a mask of labels of the same size.
        """
        rng = np.random.default_rng(derive_seed(seed, "transform", pass_index, index))
        image, mask = sample.image.permute(1, 2, 0).numpy().copy(), sample.label.numpy().copy()
        result = self.transform(image, mask, rng)
        problem = _find_problem(result, image.shape[2], self.num_classes)
        if problem is not None:
            raise DataError(f"recipe.transform: {self.name}: {problem}")
        image, mask = result
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
        return DecodedSample(pixels, torch.from_numpy(np.ascontiguousarray(mask, dtype=np.uint8)))


def create_sample_transform(
    spec: CustomTransform | None, num_classes: int, extensions: Extensions
) -> SampleTransform | None:
    """Create the transform of a recipe.

    Args:
        spec: configuration of the transform.
        num_classes: number of classes of the dataset.
        extensions: extensions that may contain the transform.

    Returns:
        The transform; None if the recipe has none.

    Raises:
        ConfigError: there is no such transform, it cannot be imported, or its class refuses the options.
    """
    if spec is None:
        return None
    loaded = extensions.load("transform", spec.type, Transform)  # type: ignore[type-abstract]
    where = f"recipe.transform: {spec.type}"
    transform = extensions.create("transform", spec.type, loaded, options=spec.options, where=where)
    return SampleTransform(spec.type, transform, num_classes)


def _find_problem(result: Any, channels: int, num_classes: int) -> str | None:
    """Return the reason for which a result of a transform is invalid; None if it is valid."""
    if not isinstance(result, tuple) or len(result) != 2:
        return f"returned {type(result).__name__}; return a tuple of image and mask"
    image, mask = result
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        return (
            f"the image is {_describe(image)}, not a NumPy array of uint8; leave out the conversion to tensors and the "
            "normalization, which follow the transform"
        )
    if image.ndim != 3 or image.shape[2] != channels or 0 in image.shape:
        return f"the image has the shape {list(image.shape)}, not [height, width, {channels}]"
    if not isinstance(mask, np.ndarray) or not np.issubdtype(mask.dtype, np.integer):
        return f"the mask is {_describe(mask)}, not a NumPy array of integers; resample masks to the nearest pixel"
    if mask.shape != image.shape[:2]:
        return f"the mask has the shape {list(mask.shape)}, and the image {list(image.shape)}"
    invalid = mask[((mask < 0) | (mask >= num_classes)) & (mask != IGNORE_INDEX)]
    if invalid.size:
        return (
            f"the mask contains {invalid[0]}, which is neither a label (0 to {num_classes - 1}) nor {IGNORE_INDEX}; "
            f"resample masks to the nearest pixel and fill them with {IGNORE_INDEX}"
        )
    return None


def _describe(value: Any) -> str:
    kind = f"{type(value).__module__}.{type(value).__name__}"
    return f"{kind} of {value.dtype}" if hasattr(value, "dtype") else kind
