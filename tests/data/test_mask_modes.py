"""Modes of masks: one bit, 8 and 16 bits, opaque alpha channels, and labels above 255."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fcnlab.config.mask_values import parse_classes
from fcnlab.data.datasets.base import Pixels
from fcnlab.data.datasets.labels import ColorDecoder, IdDecoder, LossyMaskError, open_mask
from fcnlab.errors import DataError

LABELS = np.array([[0, 1, 1], [2, 255, 0]], np.uint8)
NUMBERS = np.array([0, 7, 1000])
COLORS = [0x000000, 0x804080, 0x6B8E23]


def reopened(picture: Image.Image, path: Path) -> Image.Image:
    picture.save(path)
    with Image.open(path) as image:
        image.load()
        return image


def numbers_of(table: Any, dtype: Any) -> Any:
    """The labels as numbers of a mask; 255 stays 255."""
    return np.where(LABELS == 255, 255, np.array(table)[LABELS.clip(max=2)]).astype(dtype)


@pytest.mark.parametrize(("dtype", "ending"), [(np.uint16, "png"), (np.uint16, "tif"), (np.int32, "tif")])
def test_masks_of_16_and_32_bits_have_labels_above_255(tmp_path: Path, dtype: Any, ending: str) -> None:
    mask = reopened(Image.fromarray(numbers_of(NUMBERS, dtype)), tmp_path / f"m.{ending}")
    decoder = IdDecoder([[0], [7], [1000]])
    assert decoder.decode(mask, Path("m")).tolist() == LABELS.tolist()
    with pytest.raises(DataError, match=r"m: undefined labels: 1000 in 1 pixels: neither a class \(0, 7, 9\) nor"):
        IdDecoder([[0], [7], [9]]).decode(mask, Path("m"))


def test_mask_of_16_bits_with_small_numbers_is_decoded_as_one_of_8_bits(tmp_path: Path) -> None:
    mask = reopened(Image.fromarray(numbers_of([0, 1, 2], np.uint16)), tmp_path / "m.png")
    assert mask.mode.startswith("I")
    assert IdDecoder([[0], [1], [2]]).decode(mask, Path("m")).tolist() == LABELS.tolist()


def test_one_bit_masks_have_the_numbers_0_and_1(tmp_path: Path) -> None:
    bits = np.array([[True, False], [False, True]])
    mask = reopened(Image.fromarray(bits), tmp_path / "m.png")
    assert mask.mode == "1"
    assert IdDecoder([[0], [1]]).decode(mask, Path("m")).tolist() == [[1, 0], [0, 1]]


def with_alpha(pixels: Pixels, alpha: int) -> Image.Image:
    pixels = pixels.reshape(*LABELS.shape, -1)
    return Image.fromarray(np.concatenate([pixels, np.full((*LABELS.shape, 1), alpha, np.uint8)], axis=2))


def test_opaque_alpha_channel_is_left_out_and_a_transparent_one_refused(tmp_path: Path) -> None:
    packed = numbers_of(COLORS, np.int32)
    packed[LABELS == 255] = 0xFFFFFF
    rgb = np.stack([packed >> shift & 255 for shift in (16, 8, 0)], axis=2).astype(np.uint8)
    colors = ColorDecoder([[color] for color in COLORS], [0xFFFFFF])
    numbers = IdDecoder([[0], [1], [2]])
    for decoder, pixels in ((colors, rgb), (numbers, LABELS)):
        mask = reopened(with_alpha(pixels, 255), tmp_path / "m.png")
        assert mask.mode in ("RGBA", "LA")
        assert decoder.decode(mask, Path("m")).tolist() == LABELS.tolist()
        with pytest.raises(DataError, match=r"m: 6 pixels of the mask are transparent \(mode"):
            decoder.decode(reopened(with_alpha(pixels, 254), tmp_path / "m.png"), Path("m"))


def test_floating_point_mask_is_refused(tmp_path: Path) -> None:
    mask = reopened(Image.fromarray(LABELS.astype(np.float32)), tmp_path / "m.tif")
    with pytest.raises(DataError, match="mode F; expected class numbers: one channel of 8 or 16 bits"):
        IdDecoder([[0], [1]]).decode(mask, Path("m"))


def test_table_of_small_numbers_keeps_its_identity() -> None:
    """Caches of decoded samples stay valid."""
    decoder = IdDecoder([[0], [1]])
    assert decoder.identity() == IdDecoder([[0], [1]], [255]).identity()
    assert "(256,)" in decoder.identity()[1] and "(65536,)" in IdDecoder([[0], [256]]).identity()[1]


def test_more_than_255_classes_are_refused() -> None:
    assert len(parse_classes([f"c{n}" for n in range(255)])) == 255
    with pytest.raises(ValueError, match="give 2 to 255 classes, not 256"):
        parse_classes([f"c{n}" for n in range(256)])
    with pytest.raises(ValueError, match=r"the name of a class is a string, not \['road'\]; write it in quotes"):
        parse_classes(["ground", ["road"]])


def gray_png(values: Any, bits: int, color_type: int = 0) -> bytes:
    """Return a PNG of gray levels of any number of bits; that of color type 4 has an opaque alpha channel."""
    levels = values if color_type == 0 else np.stack([values, np.full_like(values, 2**bits - 1)], axis=2)
    rows = ["".join(f"{level:0{bits}b}" for level in row.ravel()) for row in levels]
    packed = [int(row.ljust(len(row) + -len(row) % 8, "0"), 2).to_bytes(-(-len(row) // 8)) for row in rows]
    size = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, color_type, 0, 0, 0)
    chunks = ((b"IHDR", size), (b"IDAT", zlib.compress(b"".join(b"\0" + row for row in packed))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def test_numbers_of_16_bits_with_alpha_are_refused_because_they_would_be_cut(tmp_path: Path) -> None:
    (tmp_path / "m.png").write_bytes(gray_png(np.array([[0, 1, 255, 256]], np.uint16), 16, color_type=4))
    with pytest.raises(DataError, match=r"m\.png: the mask has numbers of 16 bits with an alpha channel"):
        open_mask(tmp_path / "m.png")


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_gray_masks_of_few_bits_are_the_stored_numbers(tmp_path: Path, bits: int) -> None:
    values = np.arange(2**bits, dtype=np.uint8).repeat(3).reshape(2, -1)
    (tmp_path / "m.png").write_bytes(gray_png(values, bits))
    decoder = IdDecoder([[number] for number in range(2**bits)])
    assert decoder.decode(open_mask(tmp_path / "m.png"), Path("m")).tolist() == values.tolist()


@given(st.integers(1, 65535), st.booleans(), st.data())
@settings(deadline=None, max_examples=200)
def test_pgm_masks_are_the_stored_numbers(
    tmp_path_factory: pytest.TempPathFactory, maxval: int, plain: bool, data: st.DataObject
) -> None:
    some = data.draw(st.lists(st.integers(0, maxval), max_size=20))
    values = np.array([0, 1, maxval // 2, maxval - 1, maxval, *some])
    header = f"{'P2' if plain else 'P5'}\n# a comment\n{len(values)} 1\n{maxval}\n".encode()
    pixels = values.astype(">u1" if maxval < 256 else ">u2").tobytes()
    file = tmp_path_factory.getbasetemp() / "m.pgm"
    file.write_bytes(header + (" ".join(map(str, values)).encode() if plain else pixels))
    assert np.asarray(open_mask(file)).tolist() == [values.tolist()]


def test_a_pgm_mask_with_a_number_above_its_maximum_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.pgm").write_bytes(b"P5\n4 1\n3\n\0\1\2\xff")
    with pytest.raises(
        DataError, match=r"m\.pgm: contains the value 255, but its header gives the maximum 3; save the mask as PNG"
    ):
        open_mask(tmp_path / "m.pgm")
    (tmp_path / "m.pgm").write_bytes(b"P5\n4 1\n3\n")
    with pytest.raises(DataError, match=r"m\.pgm: cannot be decoded"):
        open_mask(tmp_path / "m.pgm")


def test_the_labels_of_a_pgm_mask_are_its_numbers(tmp_path: Path) -> None:
    (tmp_path / "m.pgm").write_bytes(b"P5\n4 1\n3\n\0\1\2\3")
    decoder = IdDecoder([[0], [1], [2], [3]])
    assert decoder.decode(open_mask(tmp_path / "m.pgm"), Path("m")).tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize(
    ("name", "options", "form"),
    [
        ("m.png", {"format": "JPEG"}, "JPEG"),
        ("m.webp", {"quality": 90}, "lossy WebP"),
        ("m.webp", {"quality": 90, "exif": Image.Exif().tobytes()}, "lossy WebP"),
        ("m.tif", {"compression": "jpeg"}, "TIFF with JPEG compression"),
        ("m.webp", {"lossless": True}, None),
        ("m.webp", {"lossless": True, "exif": Image.Exif().tobytes()}, None),
        ("m.jpg", {"format": "PNG"}, None),
    ],
)
def test_masks_with_lossy_compression_are_refused_by_their_content(
    tmp_path: Path, name: str, options: dict[str, Any], form: str | None
) -> None:
    colors = np.array([[[0, 0, 0], [128, 64, 128]], [[107, 142, 35], [128, 64, 128]]], np.uint8)
    Image.fromarray(colors).save(tmp_path / name, **options)
    if form is None:
        assert np.asarray(open_mask(tmp_path / name)).tolist() == colors.tolist()
        return
    with pytest.raises(LossyMaskError, match=f"{name}: the mask is a {form}, which changes .* pixels; save masks as"):
        open_mask(tmp_path / name)
