"""Reading of image files: files of several pages, bands and depths of every mode."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcnlab.data.datasets.image_file import (
    RGB,
    ImageFormat,
    MultiplePagesError,
    describe_conversion,
    open_image,
    read_pixels,
    to_pixels,
)
from fcnlab.errors import DataError

RAMP = np.arange(48, dtype=np.uint16).reshape(6, 8) * 1365
NOISE = np.random.default_rng(0).integers(0, 255, (6, 8, 4), dtype=np.uint8)


def pages(count: int) -> list[Image.Image]:
    return [Image.fromarray(np.full((6, 8), 40 * page, np.uint8)) for page in range(count)]


@pytest.mark.parametrize(
    ("name", "unit"), [("stack.tif", "page"), ("a.gif", "frame"), ("a.png", "frame"), ("a.webp", "frame")]
)
def test_files_of_several_pictures_are_refused(tmp_path: Path, name: str, unit: str) -> None:
    first, *others = pages(5)
    first.save(tmp_path / name, save_all=True, append_images=others)
    with pytest.raises(MultiplePagesError) as error:
        open_image(tmp_path / name)
    assert str(error.value) == f"{tmp_path / name}: has 5 {unit}s; save one file per {unit}"


@pytest.mark.parametrize("name", ["a.tif", "a.gif", "a.png", "a.webp"])
def test_a_file_of_one_picture_is_read(tmp_path: Path, name: str) -> None:
    (picture,) = pages(1)
    picture.save(tmp_path / name)
    assert to_pixels(open_image(tmp_path / name), RGB).shape == (6, 8, 3)


def write_tiff(path: Path, kinds: dict[tuple[int, int], int]) -> None:
    """Write an uncompressed TIFF file of black pages, given the NewSubfileType of each by its (width, height)."""
    content, place = bytearray(b"II*\0\0\0\0\0"), 4
    for (width, height), kind in kinds.items():
        content[place : place + 4] = struct.pack("<I", len(content))
        strip = len(content) + 2 + 8 * 12 + 4
        entries = [(254, kind), (256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, strip)]
        entries += [(279, width * height)]
        content += struct.pack("<H", len(entries))
        content += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
        place = len(content)
        content += bytes(4 + width * height)
    path.write_bytes(content)


def test_overviews_of_a_tiff_are_not_pages(tmp_path: Path) -> None:
    write_tiff(tmp_path / "geo.tif", {(8, 6): 0, (4, 3): 1})  # 1: an image of reduced size
    with Image.open(tmp_path / "geo.tif") as both:
        assert both.n_frames == 2  # type: ignore[attr-defined]
    assert open_image(tmp_path / "geo.tif").size == (8, 6)
    write_tiff(tmp_path / "pages.tif", {(8, 6): 0, (4, 3): 0})
    with pytest.raises(MultiplePagesError, match="has 2 pages"):
        open_image(tmp_path / "pages.tif")


def test_previews_of_a_camera_file_are_not_pages(tmp_path: Path) -> None:
    first, preview = (page.convert("RGB") for page in pages(2))
    first.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[preview])
    with Image.open(tmp_path / "a.jpg") as both:
        assert both.n_frames == 2  # type: ignore[attr-defined]
    assert np.array_equal(open_image(tmp_path / "a.jpg"), np.zeros((6, 8, 3)))


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bits_are_scaled_and_not_clipped(tmp_path: Path, name: str) -> None:
    Image.fromarray(RAMP).save(tmp_path / name)
    image = open_image(tmp_path / name)
    assert np.array_equal(to_pixels(image, RGB), np.repeat(np.round(RAMP[..., None] / 257), 3, 2))
    twelve_bits = to_pixels(image, ImageFormat(1, (0, 4095)))
    assert twelve_bits[..., 0].tolist() == np.round(RAMP / 4095 * 255).clip(0, 255).tolist()


def write_pgm(path: Path, values: np.ndarray, maxval: int, *, plain: bool = False, kind: int = 5) -> None:
    """Write a PGM file of kind 5, or a PPM file of kind 6; `plain` writes decimal numbers."""
    height, width = values.shape[:2]
    pixels = " ".join(map(str, values.ravel())).encode() if plain else values.astype(">u2").tobytes()
    path.write_bytes(f"P{kind - 3 * plain}\n{width} {height}\n{maxval}\n".encode() + pixels)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("maxval", [1000, 4095, 65535])
def test_the_value_range_is_of_the_stored_values_of_pgm_files(tmp_path: Path, maxval: int, plain: bool) -> None:
    file, values = tmp_path / "a.pgm", np.linspace(0, maxval, 48).reshape(6, 8).astype(np.uint16)
    write_pgm(file, values, maxval, plain=plain)
    Image.fromarray(values).save(tmp_path / "a.png")
    some = ImageFormat(1, (100, 2000))
    expected = read_pixels(tmp_path / "a.png", some)
    assert len(np.unique(expected)) > 2
    with Image.open(file) as opened:
        pixels = [read_pixels(file, some), to_pixels(open_image(file), some), to_pixels(opened, some)]
        pixels.append(to_pixels(opened, some))  # once more, after its pixels were decoded
    assert all(np.array_equal(one, expected) for one in pixels)
    assert np.array_equal(read_pixels(file, ImageFormat(1)), read_pixels(file, ImageFormat(1, (0, maxval))))
    text = f"have values of more than 8 bits (mode I); 0..{maxval} becomes 0..255"
    with Image.open(file) as opened:
        assert describe_conversion(opened, RGB) == text


def test_a_pgm_image_of_which_only_scaled_values_are_known_has_no_value_range(tmp_path: Path) -> None:
    write_pgm(tmp_path / "a.pgm", RAMP // 16, 4095)
    with Image.open(tmp_path / "a.pgm") as image:
        image.load()
        assert to_pixels(image, RGB).max() == 250
        with pytest.raises(DataError, match=r"already decoded by Pillow, which scales its values.*pass the path"):
            to_pixels(image, ImageFormat(1, (0, 4095)))


def test_ppm_files_of_more_than_8_bits_have_no_value_range(tmp_path: Path) -> None:
    file = tmp_path / "a.ppm"
    write_pgm(file, NOISE[..., :3], 1000, kind=6)
    with Image.open(file) as image:
        assert describe_conversion(image, RGB) == "have 16 bits per band (RGB); 0..1000 becomes 0..255"
    assert np.array_equal(read_pixels(file, RGB), np.rint(NOISE[..., :3] / 1000 * 255))
    with pytest.raises(DataError, match=r"a\.ppm: has 16 bits per band \(RGB\).*remove 'value_range'"):
        read_pixels(file, ImageFormat(3, (0, 1000)))
    file.write_bytes(b"P6\n1 1\n15\n\0\7\17")
    assert read_pixels(file, ImageFormat(3, (0, 1000))).tolist() == [[[0, 119, 255]]]


def test_floating_point_values_need_a_range() -> None:
    image = Image.fromarray(np.array([[-1.0, 0.0, 0.5, 1.0, 9.0, np.nan]], np.float32))
    with pytest.raises(DataError, match="mode F: the values have no fixed range; set 'value_range"):
        to_pixels(image, RGB)
    assert to_pixels(image, ImageFormat(1, (0, 1)))[0, :, 0].tolist() == [0, 0, 128, 255, 255, 0]


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "LA", "RGBA", "YCbCr"])
def test_8_bit_modes_are_converted_as_by_pillow(mode: str) -> None:
    image = Image.fromarray(NOISE[..., :3]).convert("L" if mode == "LA" else "RGB").convert(mode)
    assert np.array_equal(to_pixels(image, RGB), np.asarray(image.convert("RGB")))
    assert np.array_equal(to_pixels(image, ImageFormat(1))[..., 0], np.asarray(image.convert("L")))


def test_lab_images_are_converted_to_colors_and_to_gray(tmp_path: Path) -> None:
    # L* of 50 without color is a gray of about 119 in sRGB.
    Image.new("LAB", (8, 6), (128, 128, 128)).save(tmp_path / "a.tif")
    image = open_image(tmp_path / "a.tif")
    assert image.mode == "LAB"
    colors, gray = to_pixels(image, RGB), to_pixels(image, ImageFormat(1))
    assert colors.shape == (6, 8, 3) and gray.shape == (6, 8, 1)
    assert np.abs(colors.astype(int) - 119).max() <= 2
    assert np.abs(gray.astype(int) - colors).max() <= 1


def test_an_image_that_pillow_does_not_convert_is_an_error() -> None:
    with pytest.raises(DataError, match=r"mode La: conversion from La to L not supported; save the image as"):
        to_pixels(Image.new("La", (8, 6)), RGB)


def test_four_channels_are_the_bands_of_the_file() -> None:
    four = ImageFormat(4)
    assert np.array_equal(to_pixels(Image.fromarray(NOISE), four), NOISE)
    assert np.array_equal(to_pixels(Image.fromarray(NOISE, "CMYK"), four), NOISE)
    for image in (Image.fromarray(NOISE[..., :3]), Image.fromarray(RAMP)):
        with pytest.raises(DataError, match="but the dataset has 'channels: 4'"):
            to_pixels(image, four)


def test_conversions_that_lose_a_band_are_described() -> None:
    opaque = np.dstack([NOISE[..., :3], np.full((6, 8), 255, np.uint8)])
    picture = Image.fromarray(NOISE[..., :3])
    transparent = picture.convert("P")
    transparent.info["transparency"] = transparent.getpixel((0, 0))
    described = [
        describe_conversion(image, RGB)
        for image in (picture, Image.fromarray(opaque), Image.fromarray(NOISE), picture.convert("CMYK"), transparent)
    ]
    assert described == [
        None,
        None,
        "have 4 bands (RGBA); the fourth is not used",
        "have 4 bands (CMYK) and are converted to RGB",
        "have a palette with transparency, which is not used",
    ]
    assert describe_conversion(picture.convert("L"), RGB) == "have 1 band (L), which is used for all three channels"
    assert describe_conversion(picture.convert("L"), ImageFormat(1)) is None
    assert describe_conversion(Image.fromarray(NOISE), ImageFormat(4)) is None


def test_16_bits_of_colors_are_described_and_have_no_value_range(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + NOISE.astype(">u2").tobytes()[i * 64 : i * 64 + 48] for i in range(6))  # no filter, 8 pixels
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 6, 16, 2, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(b"".join(rows)))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b""))
    with Image.open(tmp_path / "a.png") as image:
        assert describe_conversion(image, RGB) == "have 16 bits per band (RGB); the upper 8 bits are used"
    assert read_pixels(tmp_path / "a.png", RGB).shape == (6, 8, 3)
    with pytest.raises(DataError, match=r"a\.png: has 16 bits per band \(RGB\).*remove 'value_range'"):
        read_pixels(tmp_path / "a.png", ImageFormat(3, (0, 4095)))
    with pytest.raises(DataError, match="remove 'value_range'"):
        to_pixels(open_image(tmp_path / "a.png"), ImageFormat(3, (0, 4095)))


def test_four_channels_with_associated_alpha_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.tif"
    Image.fromarray(NOISE).save(file)
    assert np.array_equal(read_pixels(file, ImageFormat(4)), NOISE)
    raw = file.read_bytes()
    entry = raw.index(struct.pack("<HHI", 338, 3, 1))  # ExtraSamples
    file.write_bytes(raw[: entry + 8] + struct.pack("<H", 1) + raw[entry + 10 :])
    with pytest.raises(DataError, match=r"a\.tif: has an associated alpha band"):
        read_pixels(file, ImageFormat(4))


def test_a_tiff_with_other_bands_names_the_supported_ones(tmp_path: Path) -> None:
    file = tmp_path / "five.tif"
    Image.fromarray(NOISE).save(file)
    with Image.open(file) as image:
        tags = image.tag_v2  # type: ignore[attr-defined]
        assert tags[277] == 4  # SamplesPerPixel
    raw = file.read_bytes()
    entry = raw.index((277).to_bytes(2, "little") + (3).to_bytes(2, "little"))
    file.write_bytes(raw[: entry + 8] + (7).to_bytes(2, "little") + raw[entry + 10 :])
    with pytest.raises(DataError, match="unsupported number or type of bands"):
        open_image(file)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("channels", [1, 3])
def test_palettes_with_several_transparent_colors_are_read_without_a_warning(tmp_path: Path, channels: int) -> None:
    colors = np.array([[10, 20, 30], [200, 100, 0], [0, 255, 7], [90, 90, 91]], np.uint8)
    image = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4) % 4)
    image.putpalette(colors.tobytes())
    image.save(tmp_path / "a.png", transparency=bytes([0, 99, 255, 0]))
    expected = Image.fromarray(colors[np.arange(16).reshape(4, 4) % 4])
    pixels = to_pixels(open_image(tmp_path / "a.png"), ImageFormat(channels))
    reference = np.asarray(expected if channels == 3 else expected.convert("L")).reshape(pixels.shape)
    assert np.array_equal(pixels, reference)
