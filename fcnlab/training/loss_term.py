"""A term of the loss from a user's own package or lab.

See `docs/extending.md`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from fcnlab.config.loss import CustomLoss
from fcnlab.constants import IGNORE_INDEX
from fcnlab.errors import ConfigError, describe_error
from fcnlab.extensions import Extensions
from fcnlab.extensions.guard import USER_ERRORS


class LossTerm(nn.Module, ABC):
    """Base class of loss terms from a user's own package or lab: see `docs/extending.md`.

    An object is created with the number of classes, and the `options` of the recipe as keyword arguments. Its buffers
    are on the device of the scores. Its result depends on the arguments of `forward` only: a resumed trial creates a
    new object.

    Attributes:
        capturable: true if `forward` runs the same operators in each call and none of them waits for the host, so that
            a step can be captured as a CUDA graph. A subclass may set it.
    """

    capturable: bool = False

    @abstractmethod
    def forward(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Compute the term for a batch.

        Args:
            scores: float32 [B, num_classes, H, W], before the softmax.
            labels: uint8 [B, H, W], 255 for ignored.

        Returns:
            A scalar; finite also if all pixels are ignored.
        """


def create_loss_term(spec: CustomLoss, num_classes: int, extensions: Extensions) -> LossTerm:
    """Create the loss term of a recipe.

    Args:
        spec: configuration of the term.
        num_classes: number of classes of the dataset.
        extensions: extensions that contain the class.

    Raises:
        ConfigError: there is no such class, it cannot be imported, it refuses the options, or it has parameters, which
            no optimizer would train.
    """
    where = f"recipe.loss.custom: {spec.type}"
    loaded = extensions.load("loss", spec.type, LossTerm)  # type: ignore[type-abstract]
    term = extensions.create("loss", spec.type, loaded, num_classes, options=spec.options, where=where)
    trainable = [name for name, parameter in term.named_parameters() if parameter.requires_grad]
    if trainable:
        raise ConfigError(f"{where}: its parameter '{trainable[0]}' would not be trained; register it as a buffer")
    return term


def find_problem(term: LossTerm, num_classes: int) -> str | None:
    """Compute a loss term for small batches, and return the reason for which its result is invalid.

    Args:
        term: the term, on the CPU.
        num_classes: number of classes.

    Returns:
        The reason; None if the results are finite scalars with finite gradients.
    """
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, num_classes, 8, 12, generator=generator)
    labels = torch.randint(num_classes, (2, 8, 12), generator=generator, dtype=torch.uint8)
    labels[:, :2] = IGNORE_INDEX
    problem = _find_problem(term, scores, labels)
    if problem is None:
        problem = _find_problem(term, scores, torch.full_like(labels, IGNORE_INDEX))
        return problem and f"{problem}, if all pixels are ignored"
    return problem


def _find_problem(term: LossTerm, scores: Tensor, labels: Tensor) -> str | None:
    scores = scores.clone().requires_grad_()
    try:
        loss = term(scores, labels)
        if not isinstance(loss, Tensor) or loss.ndim != 0:
            found = f"a tensor of shape {list(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            return f"returns {found}; return a scalar tensor"
        if loss.grad_fn is None:
            return "returns a value without a gradient; compute it from the scores by differentiable operators"
        loss.backward()
    except USER_ERRORS as error:
        return f"raises {describe_error(error)}"
    for name, values in (("value", loss), ("gradient", scores.grad)):
        if values is None or not values.isfinite().all():
            return f"the {name} is not finite"
    return None
