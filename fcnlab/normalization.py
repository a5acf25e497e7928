"""Mean and standard deviation of the channels of images, for normalization."""

from __future__ import annotations

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def adapt_normalization(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Return the mean or standard deviation of each channel for another number of channels than red, green and blue.

    Args:
        values: values of red, green and blue.
        channels: one channel gets the average of the three, and a fourth too.
    """
    if channels == len(values):
        return values
    average = sum(values) / len(values)
    return (average,) * channels if channels < len(values) else (*values, *(average,) * (channels - len(values)))
