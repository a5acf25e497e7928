"""Reading of image files: one picture per file, as uint8 pixels of a fixed number of channels."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from fcnlab.data.datasets.pgm import read_maxval, remember_maxval, restore_values
from fcnlab.errors import DataError
from fcnlab.paths import check_regular_file

Pixels = NDArray[np.uint8]

IMAGE_EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".gif")
"""Extensions of images and masks, in lower case."""

PGM_EXTENSIONS = (".pgm", ".ppm")
"""Those of PGM and PPM files."""

IMAGE_ERRORS = (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError)
"""Exceptions of Pillow for invalid and truncated images."""

WIDE_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")
"""Pillow's modes of one band with more than 8 bits."""

SIXTEEN_BITS = (0, 65535)
"""Range of 16-bit values that is scaled to 0..255 by default."""

_MODES = {1: ("L",), 3: ("RGB",), 4: ("RGBA", "CMYK", "RGBX")}
"""Modes of Pillow by number of channels whose bands are used as they are."""

_NEW_SUBFILE_TYPE, _REDUCED, _MASK = 254, 0b001, 0b100
"""The tag of a TIFF page that is a thumbnail or mask of another page, and its bits."""

_RAW_MODE = "raw_mode"
"""Key of the name of the stored values in the `info` of an image that `open_image` has decoded."""

_ORDINAL = {2: "second", 4: "fourth"}


class MultiplePagesError(DataError):
    """A file contains several pictures, of which only the first would be read."""


@dataclass(frozen=True)
class ImageFormat:
    """Conversion of the images of a dataset to uint8 pixels.

    Attributes:
        channels: 1, 3 or 4 channels of the result.
        value_range: values of images with more than 8 bits that become 0 and 255; None is 0 and 65535 for 16 bits,
            and for PGM files 0 and the maximum in the header.
    """

    channels: int = 3
    value_range: tuple[float, float] | None = None


RGB = ImageFormat()
"""The default: three channels of 8 bits."""


def open_image(path: Path) -> Image.Image:
    """Open and decode an image file.

    Args:
        path: file of the image.

    Raises:
        MultiplePagesError: the file has several pages or frames.
        DataError: the file is missing, or it is not a valid image.
    """
    with open_header(path) as image:  # closes the file and keeps the pixels
        _decode(image)
        return image


def _decode(image: Image.Image) -> None:
    """Decode the pixels of an open image, and keep what Pillow discards: the names and the range of stored values."""
    raw_mode = read_raw_mode(image)
    if is_opened := bool(getattr(image, "tile", ())):
        remember_maxval(image)
    image.load()
    if is_opened:
        image.info[_RAW_MODE] = raw_mode


@contextmanager
def open_header(path: Path) -> Iterator[Image.Image]:
    """Open an image file without decoding its pixels, and close it at the end.

    Args:
        path: file of the image.

    Raises:
        MultiplePagesError: the file has several pages or frames.
        DataError: the file is missing, or it is not a valid image; also if that is found inside the `with` block.
    """
    try:
        check_regular_file(path)
        with _ignore_warnings(), Image.open(path) as image:
            _check_single_page(image, path)
            yield image
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except Image.DecompressionBombError:
        most = f"{2 * (Image.MAX_IMAGE_PIXELS or 0):,}"
        raise DataError(f"{path}: has more than {most} pixels; divide it into smaller files") from None
    except IMAGE_ERRORS as error:
        reason = _explain(path) or getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be decoded: {reason}") from None


@contextmanager
def _ignore_warnings() -> Iterator[None]:
    """Print no warning of Pillow about damaged EXIF data, which does not affect the pixels, or about large images."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", "Corrupt EXIF data")
        yield


def _check_single_page(image: Image.Image, path: Path) -> None:
    # The further pictures of an MPO file, such as previews and depth maps of cameras, belong to the first.
    if image.format == "MPO" or getattr(image, "n_frames", 1) == 1:
        return
    unit, count = "frame", getattr(image, "n_frames", 1)
    if image.format == "TIFF":
        unit, count = "page", _count_full_pages(image, count)
    if count > 1:
        raise MultiplePagesError(f"{path}: has {count} {unit}s; save one file per {unit}")


def _count_full_pages(image: Image.Image, count: int) -> int:
    """Return the number of pages of a TIFF file without overviews of reduced size and transparency masks."""
    full = 0
    for page in range(count):
        image.seek(page)
        kind = getattr(image, "tag_v2", {}).get(_NEW_SUBFILE_TYPE, 0)
        full += not kind & (_REDUCED | _MASK)
    image.seek(0)
    return full


def _explain(path: Path) -> str | None:
    """Return the reason if a TIFF file is valid, but has bands or types of values that Pillow does not read."""
    if path.suffix.lower() not in (".tif", ".tiff"):
        return None
    try:
        check_regular_file(path)
        with _ignore_warnings(), path.open("rb") as file:
            TiffImagePlugin.TiffImageFile(file)
    except SyntaxError as error:
        if "pixel" in str(error):  # an unknown mode, or too many samples
            return (
                "it has an unsupported number or type of bands; supported are 1, 3 or 4 bands of 8 or 16 bits, "
                "and 1 band of 32 bits or of floating-point values"
            )
    except (OSError, ValueError, LookupError):  # not a TIFF file: the first error is reported
        pass
    return None


def read_pixels(path: Path, image_format: ImageFormat) -> Pixels:
    """Read an image file and convert it to the channels of a dataset; see `to_pixels`.

    Args:
        path: file of the image.
        image_format: the result's channels, and the range of values.

    Returns:
        uint8 [H, W, channels].

    Raises:
        DataError: the file is missing, is not a valid image of one page, or cannot be converted.
    """
    with open_header(path) as image:
        try:
            return to_pixels(image, image_format)
        except DataError as error:
            raise DataError(f"{path}: {error}") from None


def to_pixels(image: Image.Image, image_format: ImageFormat) -> Pixels:
    """Convert an image to the channels of a dataset.

    One band of more than 8 bits is scaled linearly from the value range to 0..255, rounded, and clipped at both ends.
    The range is of the values in the file; without one, it is 0 to the maximum in the header of a PGM file.
    Other images are converted by Pillow: gray is repeated for three channels, colors become luma (ITU-R 601) for one
    channel, and an alpha band is left out. Four channels are the four bands of the file, unchanged.

    Args:
        image: the image.
        image_format: the result's channels, and the range of values.

    Returns:
        uint8 [H, W, channels].

    Raises:
        DataError: the image has no range of values, a mode that Pillow does not convert, or bands that do not fit the
            dataset. The message does not name the file.
    """
    channels = image_format.channels
    check_bands(image, image_format)
    _decode(image)
    if image.mode in WIDE_MODES:
        gray = _scale(image, image_format)
        return np.repeat(gray[..., None], channels, axis=2)
    if image.mode == "P" and isinstance(image.info.get("transparency"), bytes):
        image = image.convert("RGBA")  # the same colors, without a warning of Pillow
    mode = image.mode if image.mode in _MODES[channels] else _MODES[channels][0]
    try:
        if image.mode == "LAB":  # Pillow converts it to RGB only
            image = image.convert("RGB")
        pixels = np.asarray(image.convert(mode))
    except ValueError as error:
        raise DataError(f"mode {image.mode}: {error}; save the image as RGB or gray") from None
    return pixels if pixels.ndim == 3 else pixels[..., None]


def check_bands(image: Image.Image, image_format: ImageFormat) -> None:
    """Check that the bands of an image can be converted to the channels of a dataset without a change of their values.

    Args:
        image: the image; one that Pillow has decoded without `open_image` is not checked for its stored values.
        image_format: the channels of the dataset, and the range of values.

    Raises:
        DataError: the dataset has four channels and the image other bands, or a range of values applies to bands of
            which Pillow reads only 8 bits. The message does not name the file.
    """
    if image_format.value_range is not None and _has_wide_bands(image):
        raise DataError(
            f"has 16 bits per band ({image.mode}), of which Pillow keeps only 8, so that 'value_range' does "
            "not apply; scale the bands to 8 bits, or remove 'value_range'"
        )
    if image_format.channels != 4:
        return
    if read_raw_mode(image).startswith("RGBa"):
        raise DataError(
            "has an associated alpha band, by which Pillow divides the other bands; save the fourth band without this "
            "meaning (unassociated alpha), or set 'channels' to 3"
        )
    if image.mode not in _MODES[4]:
        bands = len(image.getbands())
        raise DataError(
            f"has {bands} {'band' if bands == 1 else 'bands'} (mode {image.mode}), but the dataset has 'channels: 4'; "
            "save all images with 4 bands, or set 'channels' to 3 or 1"
        )


def _has_wide_bands(image: Image.Image) -> bool:
    """Return whether a file has several bands of 16 bits. (`BGR;16` of BMP files has 16 bits per pixel.)"""
    if image.mode == "RGB" and (read_maxval(image) or 0) > 255:  # a PPM file
        return True
    return read_raw_mode(image).startswith(("LA;16", "RGB;16", "RGBA;16", "RGBX;16", "RGBa;16", "CMYK;16"))


def _scale(image: Image.Image, image_format: ImageFormat) -> Pixels:
    bounds, values = image_format.value_range, np.asarray(image)
    if bounds is not None:
        values = read_values(image)
    else:
        if not _has_16_bits(image):
            raise DataError(
                f"mode {image.mode}: the values have no fixed range; set 'value_range: [LOW, HIGH]' of the dataset, "
                "the values that become 0 and 255; for a prediction, pass --value-range LOW HIGH"
            )
        bounds = SIXTEEN_BITS
    low, high = bounds
    scaled = (values.astype(np.float64) - low) * (255 / (high - low))
    return np.nan_to_num(scaled, nan=0.0).clip(0, 255).round().astype(np.uint8)


def read_values(image: Image.Image) -> NDArray[np.generic]:
    """Return the values of one band of more than 8 bits as its file contains them.

    Args:
        image: an image of one of `WIDE_MODES`.

    Returns:
        Integers or floating-point numbers, [H, W].

    Raises:
        DataError: it is a PGM image that was decoded without `open_image` or `to_pixels`. The message does not name the
            file.
    """
    _decode(image)
    if image.format == "PPM" and image.mode == "I" and _RAW_MODE not in image.info:
        raise DataError(
            "the pixels of this PGM image were already decoded by Pillow, which scales its values, so that "
            "'value_range' does not apply; pass the path of the file"
        )
    maxval = read_maxval(image)
    values: NDArray[np.generic] = restore_values(image, maxval) if maxval is not None else np.asarray(image)
    return values


def find_range(image: Image.Image, image_format: ImageFormat) -> tuple[float, float] | None:
    """Return the values of an image of one band of more than 8 bits that `to_pixels` converts to 0 and 255.

    Args:
        image: an image of one of `WIDE_MODES`.
        image_format: the range of values of the dataset.

    Returns:
        The lowest and the highest value of the range; None if the image has no fixed one.
    """
    if image_format.value_range is not None:
        return image_format.value_range
    return (0, read_maxval(image) or SIXTEEN_BITS[1]) if _has_16_bits(image) else None


def _has_16_bits(image: Image.Image) -> bool:
    # Pillow reads 16-bit gray of these two formats as 32-bit integers.
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))


def to_display(pixels: Pixels) -> Image.Image:
    """Return an RGB picture of an image with any number of channels: one is gray, of four the first three are shown.

    Args:
        pixels: uint8 [H, W, C].
    """
    shown = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels[..., :3]
    return Image.fromarray(np.ascontiguousarray(shown))


def describe_conversion(image: Image.Image, image_format: ImageFormat) -> str | None:
    """Describe how `to_pixels` changes the bands of an image; None if it keeps them.

    Args:
        image: an image that was opened; its pixels are decoded if it has an alpha band.
        image_format: the result's channels, and the range of values.

    Returns:
        The end of a sentence about several images, such as "have 4 bands (RGBA); the fourth is not used".

    Example:
        >>> describe_conversion(Image.new("LA", (2, 2)), RGB)
        'have 2 bands (LA); the second is not used'
    """
    parts = [text for text in (describe_depth(image, image_format), _describe_bands(image, image_format)) if text]
    return "; they ".join(parts) or None


def count_conversions(count: int, conversion: str) -> str:
    """Return the sentence about a number of images.

    Args:
        count: number of the images.
        conversion: a result of `describe_conversion`.

    Example:
        >>> count_conversions(1, "have 2 bands (LA); the second is not used")
        '1 image has 2 bands (LA); the second is not used'
    """
    if count != 1:
        return f"{count} images {conversion}"
    return f"1 image {conversion.replace('have ', 'has ', 1).replace('and are', 'and is', 1)}"


def describe_depth(image: Image.Image, image_format: ImageFormat) -> str | None:
    """Describe how `to_pixels` scales bands of more than 8 bits; None if the image has none.

    Args:
        image: an image that was opened.
        image_format: the range of values of the dataset.

    Returns:
        The end of a sentence about several images, such as "have 16 bits per band (RGB); the upper 8 bits are used".
    """
    if image.mode in WIDE_MODES:
        low, high = image_format.value_range or (0, read_maxval(image) or SIXTEEN_BITS[1])
        return f"have values of more than 8 bits (mode {image.mode}); {low:g}..{high:g} becomes 0..255"
    if _has_wide_bands(image):
        maxval = read_maxval(image)
        change = "the upper 8 bits are used" if maxval is None else f"0..{maxval} becomes 0..255"
        return f"have 16 bits per band ({image.mode}); {change}"
    return None


def read_raw_mode(image: Image.Image) -> str:
    """Return Pillow's name of the stored values of an image, such as `L;4` for gray of 4 bits.

    Args:
        image: an image that was opened.

    Returns:
        The name; empty if Pillow has decoded the pixels without `open_image`.
    """
    for tile in getattr(image, "tile", ()):
        return str(tile[3] if isinstance(tile[3], str) else (tile[3] or [""])[0])
    return str(image.info.get(_RAW_MODE, ""))


def _describe_bands(image: Image.Image, image_format: ImageFormat) -> str | None:
    mode, channels, bands = image.mode, image_format.channels, len(image.getbands())
    if mode in _MODES[channels] or mode in WIDE_MODES:
        return None
    if mode == "P" and "transparency" in image.info:
        return None if _is_opaque(image.convert("RGBA")) else "have a palette with transparency, which is not used"
    if mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        return None if _is_opaque(image) else f"have {bands} bands ({mode}); the {_ORDINAL[bands]} is not used"
    if mode in ("L", "1"):
        return f"have 1 band ({mode}), which is used for all three channels" if channels == 3 else None
    if mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        return f"have {bands} bands ({mode}) and are converted to {'RGB' if channels == 3 else 'gray'}"
    return f"have colors (mode {mode}) and are converted to gray" if channels == 1 else None


def _is_opaque(image: Image.Image) -> bool:
    return image.getchannel(image.getbands()[-1]).getextrema() == (255, 255)
