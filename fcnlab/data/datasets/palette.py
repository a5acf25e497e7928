"""Colors of labels: the published palettes of known datasets, those of a registry entry, and generated ones."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fcnlab.config.dataset import Dataset, FolderDataset
from fcnlab.constants import IGNORE_INDEX
from fcnlab.data.datasets.image_file import Pixels

CAMVID = (
    "808080 800000 c0c080 804080 3c28de 808000 c08080 404080 400080 404000 0080c0"
)  # fmt: skip
"""Colors of SegNet's 11 classes of CamVid, in the order of the labels."""

CITYSCAPES = (
    "804080 f423e8 464646 66669c be9999 999999 faaa1e dcdc00 6b8e23 98fb98 4682b4 dc143c ff0000 00008e 000046 003c64 "
    "005064 0000e6 770b20"
)
"""Colors of the 19 evaluated classes of Cityscapes, in the order of the train ids."""

ADE20K = (
    "787878 b47878 06e6e6 503232 04c803 787850 8c8c8c cc05ff e6e6e6 04fa07 e005ff ebff07 96053d 787846 08ff33 ff0652 "
    "8fff8c ccff04 ff3307 cc4603 0066c8 3de6fa ff0633 0b66ff ff0747 ff09e0 0907e6 dcdcdc ff095c 7009ff 08ffd6 07ffe0 "
    "ffb806 0aff47 ff290a 07ffff e0ff08 6608ff ff3d06 ffc207 ff7a08 00ff14 ff0829 ff0599 0633ff eb0cff a09614 00a3ff "
    "8c8c8c fa0a0f 14ff00 1fff00 ff1f00 ffe000 99ff00 0000ff ff4700 00ebff 00adff 1f00ff 0bc8c8 ff5200 00fff5 003dff "
    "00ff70 00ff85 ff0000 ffa300 ff6600 c2ff00 008fff 33ff00 0052ff 00ff29 00ffad 0a00ff adff00 00ff99 ff5c00 ff00ff "
    "ff00f5 ff0066 ffad00 ff0014 ffb8b8 001fff 00ff3d 0047ff ff00cc 00ffc2 00ff52 000aff 0070ff 3300ff 00c2ff 007aff "
    "00ffa3 ff9900 00ff0a ff7000 8fff00 5200ff a3ff00 ffeb00 08b8aa 8500ff 00ff5c b800ff ff001f 00b8ff 00d6ff ff0070 "
    "5cff00 00e0ff 70e0ff 46b8a0 a300ff 9900ff 47ff00 ff00a3 ffcc00 ff008f 00ffeb 85ff00 ff00eb f500ff ff007a fff500 "
    "0abed4 d6ff00 00ccff 1400ff ffff00 0099ff 0029ff 00ffcc 2900ff 29ff00 ad00ff 00f5ff 4700ff 7a00ff 00ffb8 005cff "
    "b8ff00 0085ff ffd600 19c2c2 66ff00 5c00ff"
)
"""Colors of the 150 classes of ADE20K's scene parsing benchmark; two classes have the same gray."""

OKABE_ITO = "000000 e69f00 56b4e9 009e73 f0e442 0072b2 d55e00 cc79a7"
"""Colors that people with any color vision distinguish (Okabe and Ito, 2002), the first of generated palettes."""

_PUBLISHED = {"camvid": CAMVID, "cityscapes": CITYSCAPES, "ade20k": ADE20K}

_LEVELS = 7
"""Levels of red, green and blue among which colors are generated."""

_LMS = np.array([[0.31399, 0.63951, 0.04650], [0.15537, 0.75789, 0.08670], [0.01775, 0.10945, 0.87257]])
"""Linear RGB to the responses of the long, middle and short cones."""

_DEFICIENCIES = (
    np.array([[0.0, 1.05118, -0.05116], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]),  # without long cones
    np.array([[1.0, 0.0, 0.0], [0.95131, 0.0, 0.04867], [0.0, 0.0, 1.0]]),  # without middle cones
)
"""Responses of the cones in protanopia and deuteranopia (Viénot, Brettel and Mollon, 1999)."""

_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def find_palette(spec: Dataset, classes: Sequence[str]) -> Pixels:
    """Return the colors of a dataset's labels.

    A known dataset has its published palette. In a dataset of folders, a class has the color of the entry's `colors`,
    or else that of its color masks, or else a generated one. Ignored pixels are white.

    Args:
        spec: configuration of the dataset.
        classes: names of the classes, by label.

    Returns:
        One color per label, uint8 [256, 3].
    """
    if spec.type == "voc2012":
        return voc_palette()
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[: len(classes)] = generate_colors(len(classes))
    palette[IGNORE_INDEX] = 255
    if spec.type in _PUBLISHED:
        published = parse_colors(_PUBLISHED[spec.type])
        palette[: len(published)] = published
    if isinstance(spec, FolderDataset):
        own = {name: values[0] for name, values in spec.classes if isinstance(values[0], str)} | spec.colors
        for label, name in enumerate(classes):
            if name in own:
                palette[label] = parse_colors(str(own[name]).removeprefix("#"))[0]
    return palette


def parse_colors(text: str) -> Pixels:
    """Return colors that are written as hexadecimal numbers with blanks between them, uint8 [N, 3].

    Args:
        text: such as `ff0000 00ff00`.

    >>> parse_colors("ff0000 00ff00").tolist()
    [[255, 0, 0], [0, 255, 0]]
    """
    return np.frombuffer(bytes.fromhex(text.replace(" ", "")), dtype=np.uint8).reshape(-1, 3)


def voc_palette() -> Pixels:
    """Return the color map of PASCAL VOC for 256 labels, uint8 [256, 3]; ignored pixels are white."""
    labels = np.arange(256)
    colors = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            colors[:, channel] |= (((labels >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    colors[IGNORE_INDEX] = 255
    return colors


@cache
def generate_colors(count: int) -> Pixels:
    """Return colors that differ for people with any color vision, uint8 [count, 3].

    The first eight are those of Okabe and Ito. Each further one is the color of a regular grid with the greatest
    distance to all colors before it and to white, in CIELAB; the distance is the least one of normal vision, protanopia
    and deuteranopia. A greater count begins with the same colors.

    Args:
        count: number of colors.
    """
    levels = np.linspace(0, 255, _LEVELS).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    chosen = [tuple(color) for color in parse_colors(OKABE_ITO)[:count].tolist()]
    views = [_to_lab(grid, deficiency) for deficiency in (None, *_DEFICIENCIES)]

    def distance(color: NDArray[np.uint8]) -> NDArray[np.float64]:
        seen = (_to_lab(color[None], deficiency) for deficiency in (None, *_DEFICIENCIES))
        return np.min([np.linalg.norm(view - one, axis=1) for view, one in zip(views, seen, strict=True)], axis=0)

    nearest = np.min([distance(np.array(color, dtype=np.uint8)) for color in [*chosen, (255, 255, 255)]], axis=0)
    while len(chosen) < count:
        new = grid[int(nearest.argmax())]
        chosen.append(tuple(new.tolist()))
        nearest = np.minimum(nearest, distance(new))
        nearest[(grid == new).all(1)] = -1.0
    return np.array(chosen, dtype=np.uint8).reshape(-1, 3)


def _to_lab(colors: Pixels, deficiency: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """Return colors as they are seen with a deficiency of color vision, in CIELAB, [N, 3]."""
    scaled = colors / 255
    linear = np.where(scaled <= 0.04045, scaled / 12.92, ((scaled + 0.055) / 1.055) ** 2.4)
    if deficiency is not None:
        linear = (linear @ (np.linalg.inv(_LMS) @ deficiency @ _LMS).T).clip(0, 1)
    ratio = linear @ _XYZ.T / np.array([0.9505, 1.0, 1.089])
    root = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    x, y, z = root[:, 0], root[:, 1], root[:, 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


def to_palette_image(labels: Pixels, palette: Pixels) -> Image.Image:
    """Return labels as a palette image, whose indices are the labels.

    Args:
        labels: uint8 [H, W].
        palette: colors of the labels, uint8 [256, 3].
    """
    picture = Image.fromarray(labels)
    picture.putpalette(palette.tobytes())
    return picture


def read_palette(path: Path) -> Pixels:
    """Return the colors of the labels in a palette image, uint8 [256, 3]; missing ones are black.

    Args:
        path: file of the image.
    """
    with Image.open(path) as picture:
        colors = np.array(picture.getpalette() or [], dtype=np.uint8).reshape(-1, 3)
    return np.vstack([colors, np.zeros((256 - len(colors), 3), dtype=np.uint8)])
