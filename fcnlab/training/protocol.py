"""How a split is predicted beside the plain way: windows, flips, scales. Free of torch, so that a CLI may ask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fcnlab.errors import ConfigError

Size = tuple[int, int]


@dataclass(frozen=True)
class Protocol:
    """Sliding windows and test-time augmentation. As it stands without arguments, every image goes through once, whole.

    Attributes:
        scales: the image is resized by each of these factors; probabilities are averaged at the native size. Of a
            finished trial they are factors of the scale that its recipe is scored at.
        flip: each scale is also predicted from left to right.
        window: height and width of windows in pixels; what is larger is predicted window by window.
        stride: rows and columns from one window to the next; scores are averaged where windows overlap.

    Raises:
        ConfigError: a scale, window or stride that cannot be; the message names the flag.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    window: Size | None = None
    stride: Size | None = None

    def __post_init__(self) -> None:
        if not self.scales or len(set(self.scales)) < len(self.scales):
            raise ConfigError(f"--scales: each scale once, and one at least, such as 0.75,1,1.25; not {self.scales}")
        if not all(0.1 <= scale <= 10 for scale in self.scales):
            raise ConfigError(f"--scales: factors from 0.1 to 10, not {_commas(self.scales)}")
        if (self.window is None) != (self.stride is None):
            raise ConfigError("--window and --stride belong together, such as --window 512x512 --stride 341x341")
        if self.window is not None and self.stride is not None:
            if min(*self.window, *self.stride) < 1:
                raise ConfigError("--window and --stride: 1 pixel at least")
            if any(step > side for side, step in zip(self.window, self.stride, strict=True)):
                raise ConfigError(
                    f"--stride: {_times(self.stride)} leaves gaps between windows of {_times(self.window)}; "
                    "at most the window's size"
                )

    def multiply_scales(self, scale: float) -> Protocol:
        """The same for a network that is used to images resized by `scale`."""
        return replace(self, scales=tuple(scale * factor for factor in self.scales))

    @property
    def is_default(self) -> bool:
        """Whether it is the plain way."""
        return self == Protocol()

    @property
    def is_augmented(self) -> bool:
        """Whether an image is predicted more than once."""
        return self.flip or self.scales != (1.0,)

    def __str__(self) -> str:
        """A short name, such as `flip+0.75,1,1.25` or `window512x512/341x341`."""
        parts = ["flip"] if self.flip else []
        parts += [_commas(self.scales)] if self.scales != (1.0,) else []
        if self.window is not None and self.stride is not None:
            parts.append(f"window{_times(self.window)}/{_times(self.stride)}")
        return "+".join(parts) or "plain"

    @property
    def slug(self) -> str:
        """The name as part of a file's name, such as `flip+0.75_1_1.25`."""
        return str(self).replace(",", "_").replace("/", "-")


def _commas(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)


def _times(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
