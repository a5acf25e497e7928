"""Mutated images and masks of a dataset, and mutated images to predict."""

from __future__ import annotations

import os
import random
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.failures.mutations.problem import find_problem
from benchmarks.failures.mutations.sandbox import Sandbox
from benchmarks.failures.mutations.yaml_files import make_street

ENTRY = """
street:
  type: folder
  images: street/images
  masks: street/masks
  mask_suffix: _mask
  classes: [ground, road, thing, tree]
  ignore: [11]
  fractions: {val: 0.25}
  nominal: {height: 24, width: 32}
"""

FORMATS = {"PNG": ".png", "JPEG": ".jpg", "TIFF": ".tif", "BMP": ".bmp", "GIF": ".gif", "WEBP": ".webp", "PPM": ".ppm"}
MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK", "YCbCr"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I", "F"),
}

Mutate = Callable[[Path, random.Random], str]
"""Writes a mutated file in place of another, and returns what it did."""


def run_cases(sandbox: Sandbox, model: Path, count: int, chance: random.Random) -> Iterator[tuple[str, str]]:
    """Try mutated images and masks.

    Args:
        sandbox: the lab.
        model: file of an exported model.
        count: number of mutations.
        chance: chooses the mutations.

    Yields:
        The kind of each mutation, and the problem if it failed, else an empty text.
    """
    street, original = sandbox.lab / "street", sandbox.root / "original"
    make_street(original)
    (sandbox.lab / "registry" / "datasets.yaml").write_text(ENTRY, encoding="utf-8")
    for _ in range(count):
        shutil.rmtree(street, ignore_errors=True)
        shutil.rmtree(sandbox.out, ignore_errors=True)
        shutil.copytree(original, street)
        file = street / chance.choice(("images/a3.png", "masks/a3_mask.png"))
        kind = chance.choice(tuple(_KINDS))
        what = chance.choice(_KINDS[kind])(file, chance)
        command = chance.choice(_list_commands(model, street, file, sandbox.out))
        result = sandbox.call(*command)
        codes = (0, 1, 2) if command[0] == "predict" else (0, 2)
        problem = find_problem(result, [file.stem, str(file.parent), "street"], codes)
        shown = f"{file.name}: {what}; {' '.join(command[:2])}: {problem}" if problem else ""
        yield f"images and masks: {kind}", shown


def _list_commands(model: Path, street: Path, file: Path, out: Path) -> list[tuple[str, ...]]:
    changed = sorted(path for path in file.parent.iterdir() if path.name.startswith("a3"))
    options = ("--out", str(out), "--overwrite", "--overlay")
    predict = [("predict", str(model), str(path), *options) for path in (*changed[:1], file.parent)]
    folders = ("--images", str(street / "images"), "--masks", str(street / "masks"))
    return [
        ("data", "check", "street"),
        ("data", "stats", "street"),
        ("data", "cache", "make", "street"),
        ("data", "add", "new", *folders, "--dry-run"),
        *predict,
    ]


def _read(file: Path) -> Image.Image:
    with Image.open(file) as image:
        image.load()
        return image


def _encode(image: Image.Image, format_: str) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format=format_)
    return buffer.getvalue()


def _write(file: Path, content: bytes, suffix: str) -> None:
    file.unlink()
    file.with_suffix(suffix).write_bytes(content)


def _damage(file: Path, chance: random.Random) -> str:
    format_ = chance.choice(tuple(FORMATS))
    content = bytearray(_encode(_read(file), format_))
    how = chance.choice(("truncated", "flipped", "zeros", "doubled", "header only"))
    place = chance.randrange(len(content))
    if how == "truncated":
        content = content[:place]
    elif how == "flipped":
        for _ in range(chance.choice((1, 4, 30))):
            content[chance.randrange(min(len(content), 200))] ^= 1 << chance.randrange(8)
    elif how == "zeros":
        content[place : place + 40] = bytes(len(content[place : place + 40]))
    elif how == "doubled":
        content = content * 2
    else:
        content = content[: chance.choice((2, 8, 16, 33))]
    _write(file, bytes(content), FORMATS[format_])
    return f"{format_} {how} at {place}"


def _change_mode(file: Path, chance: random.Random) -> str:
    format_ = chance.choice(tuple(MODES))
    mode = chance.choice(MODES[format_])
    gray = _read(file)
    if mode in ("I;16", "I", "F"):
        scale = chance.choice((1, 257, 1000))
        values = np.asarray(gray).astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]) * scale
        image = Image.fromarray(
            np.where(values == 0, np.float32(chance.choice((0, np.nan, np.inf))), values) if mode == "F" else values
        )
    elif mode == "LAB":
        image = Image.fromarray(np.stack([np.asarray(gray)] * 3, axis=2), "LAB")
    else:
        image = gray.convert(mode)
        if mode in ("LA", "RGBA") and chance.random() < 0.5:
            image.putalpha(chance.randrange(256))
    content = _encode(image, format_)
    _write(file, content, FORMATS[format_])
    return f"{format_} of mode {mode}"


def _add_variants(file: Path, chance: random.Random) -> str:
    """Save with an orientation, as a progressive file, with a palette, or with several pictures."""
    image, buffer = _read(file), BytesIO()
    how = chance.choice(("EXIF", "progressive", "palette", "frames", "pages", "bad EXIF", "upper case"))
    suffix = ".png"
    if how in ("EXIF", "bad EXIF"):
        exif = Image.Exif()
        exif[274] = chance.choice((0, 3, 6, 9, 77))
        damaged = b"Exif\0\0" + bytes(chance.randrange(256) for _ in range(60))
        image.save(buffer, "JPEG", exif=exif.tobytes() if how == "EXIF" else damaged)
        suffix = ".jpeg"
    elif how == "progressive":
        image.save(buffer, "JPEG", progressive=True)
        suffix = ".jpg"
    elif how == "palette":
        palette = image.convert("P")
        palette.putpalette([chance.randrange(256) for _ in range(3 * chance.choice((1, 3, 200)))])
        palette.save(buffer, "PNG", transparency=chance.choice((0, b"\0\1\2", 255)))
    elif how in ("frames", "pages"):
        format_, suffix = (
            chance.choice((("GIF", ".gif"), ("PNG", ".png"), ("WEBP", ".webp")))
            if how == "frames"
            else ("TIFF", ".tiff")
        )
        image.convert("L").save(
            buffer, format_, save_all=True, append_images=[image.transpose(Image.Transpose.ROTATE_180)] * 2
        )
    else:
        image.save(buffer, "PNG")
        suffix = ".PNG"
    _write(file, buffer.getvalue(), suffix)
    return how


def _rename(file: Path, chance: random.Random) -> str:
    format_, suffix = chance.choice(tuple(FORMATS)), chance.choice((*FORMATS.values(), ".txt", "", ".png.png", ".jpg "))
    others = (b"not an image", b"<html>", b"version https://git-lfs.github.com/spec/v1\n")
    content = chance.choice((_encode(_read(file), format_), *others))
    file.unlink()
    file.with_name(f"{file.stem}{suffix}").write_bytes(content)
    return f"{content[:8]!r} as '{suffix}'"


def _resize(file: Path, chance: random.Random) -> str:
    size = chance.choice(((1, 1), (32, 24), (31, 24), (33, 24), (1, 24), (300, 2), (2, 900), (24, 32)))
    _write(file, _encode(_read(file).resize(size), "PNG"), ".png")
    return f"size {size}"


def _declare_size(file: Path, chance: random.Random) -> str:
    """Write a file whose header declares a size that its content does not have."""
    sides = (0, 1, 24, 12_000, 60_000, 2**31 - 1, 2**32 - 1)
    width, height = chance.choice(sides), chance.choice(sides)
    kind = chance.choice(("PNG", "BMP", "PPM", "GIF", "TIFF"))
    pixels = zlib.compress(bytes(100_000))
    if kind == "PNG":
        header = struct.pack(">IIBBBBB", width, height, 8, chance.choice((0, 2, 3, 6)), 0, 0, chance.choice((0, 1)))
        chunks = [(b"IHDR", header)]
        chunks += [(b"zTXt", b"a\0\0" + zlib.compress(bytes(60_000_000)))] if chance.random() < 0.1 else []
        chunks += [(b"IDAT", pixels), (b"IEND", b"")]
        content = b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in chunks
        )
    elif kind == "PPM":
        content = f"P{chance.choice((5, 6))} {width} {height} {chance.choice((255, 65535, 0))}\n".encode() + bytes(3000)
    else:
        edited = bytearray(_encode(_read(file), kind))
        if kind == "BMP":
            edited[18:26] = struct.pack("<II", width, height)
        elif kind == "GIF":
            edited[6:10] = struct.pack("<HH", width % 2**16, height % 2**16)
        else:
            edited = _edit_tiff(edited, width, height)
        content = bytes(edited)
    _write(file, content, FORMATS[kind])
    return f"{kind} that declares {width}x{height}"


def _edit_tiff(content: bytearray, width: int, height: int) -> bytearray:
    """Replace the width and height in the first directory of a little-endian TIFF file."""
    start = struct.unpack_from("<I", content, 4)[0]
    for entry in range(struct.unpack_from("<H", content, start)[0]):
        place = start + 2 + 12 * entry
        tag = struct.unpack_from("<H", content, place)[0]
        if tag in (256, 257):
            struct.pack_into("<HII", content, place + 2, 4, 1, width if tag == 256 else height)
    return content


def _change_labels(file: Path, chance: random.Random) -> str:
    values = np.asarray(_read(file)).copy()
    new = chance.choice((4, 7, 11, 200, 254, 255))
    share = chance.choice((0.01, 0.5, 1.0))
    values[np.random.default_rng(chance.randrange(2**32)).random(values.shape) < share] = new
    mode = chance.choice(("L", "P", "I;16", "RGB"))
    image = Image.fromarray(values.astype(np.uint16)) if mode == "I;16" else Image.fromarray(values).convert(mode)
    if mode == "P":
        image = Image.fromarray(values)
        image.putpalette([chance.randrange(256) for _ in range(768)])
    _write(file, _encode(image, "PNG"), ".png")
    return f"value {new} in {share:.0%}, mode {mode}"


def _make_special(file: Path, chance: random.Random) -> str:
    content = file.read_bytes()
    file.unlink()
    kinds = (
        "empty", "folder", "loop", "broken link", "FIFO", "link to a FIFO", "no permission", "/dev/zero", "/dev/null",
        "link", "linked folder", "removed",
    )  # fmt: skip
    what = chance.choice(kinds)
    targets = {
        "loop": file,
        "broken link": Path("missing"),
        "/dev/zero": Path("/dev/zero"),
        "/dev/null": Path("/dev/null"),
        "linked folder": file.parent,
    }
    if what == "empty":
        file.touch()
    elif what == "folder":
        (file / "inside.png").mkdir(parents=True)
    elif what in targets:
        file.symlink_to(targets[what])
    elif what == "FIFO":
        os.mkfifo(file)
    elif what == "link to a FIFO":
        os.mkfifo(file.with_name(".pipe"))
        file.symlink_to(".pipe")
    elif what == "no permission":
        file.write_bytes(content)
        file.chmod(0)
    elif what == "link":
        file.with_suffix(".data").write_bytes(content)
        file.symlink_to(file.with_suffix(".data"))
    return what


_KINDS: dict[str, tuple[Mutate, ...]] = {
    "truncated or damaged": (_damage,),
    "other modes and variants": (_change_mode, _add_variants),
    "wrong extensions": (_rename,),
    "other sizes": (_resize, _declare_size, _declare_size),
    "other labels": (_change_labels,),
    "folders, links, pipes, missing files": (_make_special,),
}
