"""What a cache of decoded samples is: every image and label of one split as uint8 pixels that can be mapped.

    <cache>/decoded/<key>/pixels.bin   of each sample its image [H, W, 3] and then its label [H, W]; at the end the seal
    <cache>/decoded/<key>/index.json   where each sample lies, its size and the crc32 of its bytes
    <cache>/decoded/<key>.partial/     one that is being made or removed
    <cache>/decoded/<key>.lock         held by whoever makes or removes it

The channels of an image lie together, as Pillow decodes them: torchvision resizes such uint8 images about twice as fast
as planes. The seal is the sha256 of index.json, so an index is known to be that of the pixels beside it, and pixels
without a seal are not complete. A folder with the bare name of a key came into being by one rename, when all was there.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import features

from fcnlab.data.datasets.base import Dataset, FileDataset, Pixels
from fcnlab.settings import cache_folder

VERSION = 1
"""Raised by hand when the code decodes the same files to other values, or lays them out differently."""

SEAL = 32
"""Bytes of the seal."""

KEY = re.compile(r"[0-9a-f]{32}")
"""What the folder of a cache is called. Nothing else that lies beside is touched, ever."""

INDEX, PIXELS = "index.json", "pixels.bin"

LARGEST = 2**24
"""Pixels that an image may be high or wide; so no sum of an index that others wrote overflows."""


class BrokenCacheError(Exception):
    """A cache that is not whole or not what its name says. `str(error)` is the reason."""


@dataclass(frozen=True)
class CacheIndex:
    """Where the samples of a cache lie.

    Attributes:
        key: the name of the cache's folder.
        dataset: what people call the dataset.
        split: its split.
        made: when, in UTC, ISO 8601.
        ids: of the samples, in order.
        places: offset in bytes, height, width and crc32 of each sample, int64 [N, 4].
    """

    key: str
    dataset: str
    split: str
    made: str
    ids: tuple[str, ...]
    places: NDArray[np.int64]

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Bytes of each sample: three of the image and one of the label a pixel."""
        return 4 * self.places[:, 1] * self.places[:, 2]

    def dump(self) -> bytes:
        """The content of index.json."""
        setting = vars(self) | {"ids": list(self.ids), "places": self.places.tolist()}
        return json.dumps(setting, separators=(",", ":")).encode()


@dataclass(frozen=True)
class MappedCache:
    """A cache that is open: the index, and the bytes of pixels.bin as a map that is private to this process.

    What is written into the map changes neither the file nor what other processes see.
    """

    index: CacheIndex
    pixels: Pixels


def decoded_cache_folder() -> Path:
    """The folder that holds all caches of decoded samples."""
    return cache_folder() / "decoded"


def compute_cache_key(dataset: Dataset, split: str) -> str:
    """Names what a split decodes to: by the content of its files and by all that decides the values of its pixels.

    That is the kind of dataset, its classes, what the values of its masks mean, this code's version, and the versions
    of Pillow and its JPEG library, since two of these may round a pixel differently.

    Raises:
        DataError: the split or one of its files is missing.
    """
    setting = {
        "version": VERSION,
        "decoder": [PIL.__version__, features.version("jpg")],
        "dataset": f"{type(dataset).__module__}.{type(dataset).__qualname__}",
        "classes": list(dataset.classes),
        "labels": dataset.label_decoder().identity() if isinstance(dataset, FileDataset) else [],
        "split": split,
        "content": dataset.fingerprint((split,)),
    }
    return hashlib.sha256(json.dumps(setting, sort_keys=True).encode()).hexdigest()[:32]


def seal(index: bytes) -> bytes:
    """What pixels.bin ends with, when index.json holds these bytes."""
    return hashlib.sha256(index).digest()


def open_cache(folder: Path) -> MappedCache:
    """Open a cache. The values of its pixels are not looked at; all else is checked.

    Raises:
        FileNotFoundError: there is none.
        Broken: it is torn, or not what the folder's name says.
        OSError: it cannot be read or mapped.
    """
    if not folder.is_dir():
        raise FileNotFoundError(folder)
    try:
        raw = (folder / INDEX).read_bytes()
        pixels = _map(folder / PIXELS)
    except FileNotFoundError as error:
        raise BrokenCacheError(f"{Path(str(error.filename)).name} is missing") from None
    index = _parsed(raw)
    if index.key != folder.name:
        raise BrokenCacheError(f"its index is that of {index.key[:64]}")
    _check_places(index, len(pixels))
    if pixels[-SEAL:].tobytes() != seal(raw):
        raise BrokenCacheError("its index is not that of its pixels")
    return MappedCache(index, pixels)


def _map(path: Path) -> Pixels:
    try:
        return np.memmap(path, dtype=np.uint8, mode="c")  # copy on write: never the file
    except ValueError:  # nothing in it
        raise BrokenCacheError(f"{path.name} is empty") from None


def _parsed(raw: bytes) -> CacheIndex:
    try:
        setting = json.loads(raw)
        places = np.array(setting.pop("places"), dtype=np.int64).reshape(-1, 4)
        index = CacheIndex(ids=tuple(setting.pop("ids")), places=places, **setting)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        raise BrokenCacheError("its index is torn") from None
    texts = (index.key, index.dataset, index.split, index.made, *index.ids)
    if not all(isinstance(text, str) for text in texts) or len(index.ids) != len(places):
        raise BrokenCacheError("its index is torn")
    return index


def _check_places(index: CacheIndex, length: int) -> None:
    offsets, extents = index.places[:, 0], index.places[:, 1:3]
    if ((extents < 1) | (extents > LARGEST)).any() or ((offsets < 0) | (offsets > length)).any():
        raise BrokenCacheError("its index names places that cannot be")
    expected = int((offsets + index.sizes).max(initial=0)) + SEAL
    if length != expected:
        raise BrokenCacheError(f"{PIXELS} has {length} bytes and its index speaks of {expected}")
