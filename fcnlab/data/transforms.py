"""Base class of transforms from a user's own package or lab, and classes for those of albumentations and torchvision.

See `docs/extending.md`.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision import tv_tensors

Pixels = NDArray[np.uint8]


class Transform(ABC):
    """Base class of transforms of a training image and its mask, before the recipe's augmentation.

    An object is created once per trial with the `options` of the recipe as keyword arguments, and called for each
    sample of each batch.
    """

    @abstractmethod
    def __call__(self, image: Pixels, mask: Pixels, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
        """Return a transformed image and its mask.

        Args:
            image: uint8 [H, W, C], a copy that may be changed.
            mask: uint8 [H, W], a copy that may be changed: labels, or 255 for ignored pixels.
            rng: the only source of random numbers; it depends on the trial's seed, the sample and the number
                of times that it was used before.

        Returns:
            Image, uint8 [h, w, C], and mask, integers [h, w], of any size.
        """


class AlbumentationsTransform(Transform):
    """Transform by a pipeline of albumentations 2, which receives a seed for each sample."""

    def __init__(self, pipeline: Any) -> None:
        """Create a transform.

        Args:
            pipeline: an `albumentations.Compose`, or a single transform of albumentations.

        Raises:
            TypeError: the pipeline cannot be seeded, as before albumentations 2.
        """
        if not hasattr(pipeline, "set_random_seed"):
            raise TypeError(f"{type(pipeline).__name__} has no set_random_seed; use albumentations 2 or newer")
        self._pipeline = pipeline
        if (opencv := sys.modules.get("cv2")) is not None:
            opencv.setNumThreads(torch.get_num_threads())  # by default, OpenCV uses all cores in each worker

    def __call__(self, image: Pixels, mask: Pixels, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
        """Return the transformed image and mask.

        Args:
            image: uint8 [H, W, C].
            mask: uint8 [H, W].
            rng: source of the seed of the pipeline.
        """
        self._pipeline.set_random_seed(int(rng.integers(2**32)))
        result = self._pipeline(image=image, mask=mask)
        return result["image"], result["mask"]


class TorchvisionTransform(Transform):
    """Transform by a pipeline of `torchvision.transforms.v2`, which uses a seeded state of torch's random generator.

    The state of the generator is restored, so that the random numbers of training do not depend on the transform.
    """

    def __init__(self, pipeline: Callable[..., Any]) -> None:
        """Create a transform.

        Args:
            pipeline: a `torchvision.transforms.v2.Compose`, or a single transform. It is called with a
                `tv_tensors.Image` uint8 [C, H, W] and a `tv_tensors.Mask` uint8 [H, W], and returns both.
        """
        self._pipeline = pipeline

    def __call__(self, image: Pixels, mask: Pixels, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
        """Return the transformed image and mask.

        Args:
            image: uint8 [H, W, C].
            mask: uint8 [H, W].
            rng: source of the seed of torch's random generator.
        """
        planes = tv_tensors.Image(torch.from_numpy(image).permute(2, 0, 1))
        generator = torch.default_generator  # not torch.manual_seed, which also seeds the GPUs
        state = generator.get_state()
        try:
            generator.manual_seed(int(rng.integers(2**63)))
            planes, labels = self._pipeline(planes, tv_tensors.Mask(torch.from_numpy(mask)))
        finally:
            generator.set_state(state)
        return planes.permute(1, 2, 0).numpy(), labels.numpy()
