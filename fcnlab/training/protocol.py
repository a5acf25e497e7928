"""Protocol of prediction: sliding windows and test-time augmentation. Imports no torch, so that the CLI starts fast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from fcnlab.console import format_size
from fcnlab.errors import ConfigError

Size = tuple[int, int]


@dataclass(frozen=True)
class Protocol:
    """Configuration of prediction. By default every image is predicted once, as a whole.

    Attributes:
        scales: factors by which images are resized; probabilities are averaged at native size. For a finished trial
            they multiply the scale at which its recipe is evaluated.
        flip: predict each scale also flipped horizontally, and average.
        window: height and width of windows in pixels; larger images are predicted window by window.
        stride: vertical and horizontal distance of windows; scores are averaged where windows overlap.

    Raises:
        ConfigError: a scale, window or stride is invalid; the message names the command-line option.

    Example:
        >>> str(Protocol(scales=(0.75, 1, 1.25), flip=True))
        'flip+0.75,1,1.25'
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    window: Size | None = None
    stride: Size | None = None

    def __post_init__(self) -> None:
        if not self.scales or len(set(self.scales)) < len(self.scales):
            raise ConfigError(f"--scales: give one or more different scales, such as 0.75,1,1.25; not {self.scales}")
        if not _are_valid(self.scales):
            raise ConfigError(f"--scales: must be factors from 0.1 to 10, not {_join_values(self.scales)}")
        if (self.window is None) != (self.stride is None):
            raise ConfigError("--window and --stride must be given together, such as --window 512x512 --stride 341x341")
        if self.window is not None and self.stride is not None:
            if min(*self.window, *self.stride) < 1:
                raise ConfigError("--window and --stride: must be at least 1 pixel")
            if any(step > side for side, step in zip(self.window, self.stride, strict=True)):
                raise ConfigError(
                    f"--stride: {format_size(self.stride)} leaves gaps between windows of "
                    f"{format_size(self.window)}; it can be at most the size of the window"
                )

    def multiply_scales(self, scale: float) -> Protocol:
        """Return a copy with all scales multiplied.

        Args:
            scale: factor by which images are resized for a network that was trained on resized images.

        Raises:
            ConfigError: a product is not from 0.1 to 10.
        """
        products = tuple(scale * factor for factor in self.scales)
        if not _are_valid(products):
            raise ConfigError(
                f"--scales: {_join_values(self.scales)} times the recipe's score_scale, {scale:g}, must be from 0.1 to "
                f"10, not {_join_values(products)}"
            )
        return replace(self, scales=products)

    @property
    def is_augmented(self) -> bool:
        """True if an image is predicted more than once, flipped or at several scales."""
        return self.flip or self.scales != (1.0,)

    def __str__(self) -> str:
        """Return a short name, such as `flip+0.75,1,1.25` or `window512x512/341x341`."""
        parts = ["flip"] if self.flip else []
        parts += [_join_values(self.scales)] if self.scales != (1.0,) else []
        if self.window is not None and self.stride is not None:
            parts.append(f"window{format_size(self.window)}/{format_size(self.stride)}")
        return "+".join(parts) or "plain"

    @property
    def slug(self) -> str:
        """The name as part of a file name, such as `flip+0.75_1_1.25`."""
        return str(self).replace(",", "_").replace("/", "-")


def scale_size(size: Size, scale: float) -> Size:
    """Return the height and width of a resized image, rounded half to even and at least 1.

    The factor counts as the decimal number that a recipe contains, so that exported programs, which compute in
    integers, give the same size.

    Args:
        size: height and width of the image.
        scale: factor of both.
    """
    exact = Fraction(str(scale))
    return max(1, round(exact * size[0])), max(1, round(exact * size[1]))


def _are_valid(scales: Sequence[float]) -> bool:
    return all(0.1 <= scale <= 10 for scale in scales)


def _join_values(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)
