"""File format of the cache of decoded samples: all images and labels of one split as uint8 pixels for memory-mapping.

    <cache>/decoded/<key>/pixels.bin   image [H, W, C] and label [H, W] of each sample; at the end the seal
    <cache>/decoded/<key>/index.json   offset, size and crc32 of each sample
    <cache>/decoded/<key>.partial/     a cache that is being built or removed
    <cache>/decoded/<key>.lock         lock that is held while the cache is built or removed

The channels of a pixel are adjacent, as Pillow decodes them: torchvision resizes such images about twice as fast as
separate planes. The seal is the sha256 of index.json: it proves that the index belongs to the pixels, and that the
pixels are complete. A folder is renamed to its key when all files are complete.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import features

from fcnlab.data.datasets.base import Dataset, FileDataset, Pixels
from fcnlab.paths import is_folder
from fcnlab.settings import cache_folder

VERSION = 4
"""Increased when the code decodes the same files to other values, or in another layout."""

SEAL = 32
"""Bytes of the seal."""

KEY = re.compile(r"[0-9a-f]{32}")
"""Name of the folder of a cache. Other files in the same folder are never changed."""

INDEX, PIXELS = "index.json", "pixels.bin"

CHANNELS = (1, 3, 4)
"""Valid numbers of channels of images."""

LARGEST = 2**24
"""Maximum height and width of an image, so that no sum over a foreign index overflows."""


class BrokenCacheError(Exception):
    """A cache is incomplete or inconsistent. `str(error)` is the reason."""


@dataclass(frozen=True)
class CacheIndex:
    """Index of a cache.

    Attributes:
        key: name of the cache's folder.
        dataset: name of the dataset.
        split: name of the split.
        made: time of the build, ISO 8601 in UTC.
        ids: identifiers of the samples, in order.
        places: offset in bytes, height, width and crc32 of each sample, int64 [N, 4].
        channels: number of channels of the images.
    """

    key: str
    dataset: str
    split: str
    made: str
    ids: tuple[str, ...]
    places: NDArray[np.int64]
    channels: int = 3

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Bytes of each sample: one per pixel for each channel and one for the label."""
        return (self.channels + 1) * self.places[:, 1] * self.places[:, 2]

    def dump(self) -> bytes:
        """Return the content of index.json."""
        fields = vars(self) | {"ids": list(self.ids), "places": self.places.tolist()}
        return json.dumps(fields, separators=(",", ":")).encode()


@dataclass(frozen=True)
class MappedCache:
    """An open cache.

    Attributes:
        index: index of the samples.
        pixels: bytes of pixels.bin as a copy-on-write map: changes affect neither the file nor other processes.
    """

    index: CacheIndex
    pixels: Pixels


def decoded_cache_folder() -> Path:
    """Return the folder of all caches of decoded samples."""
    return cache_folder() / "decoded"


def compute_cache_key(dataset: Dataset, split: str) -> str:
    """Return a digest of everything that determines the decoded pixels of a split.

    It covers the content of the files, the type of the dataset, its classes and label values, the version of this code,
    and the versions of Pillow and its JPEG library, which may round pixels differently.

    Args:
        dataset: the dataset.
        split: name of the split.

    Raises:
        DataError: the split or one of its files is missing.
    """
    identity = {
        "version": VERSION,
        "decoder": [PIL.__version__, features.version("jpg")],
        "dataset": f"{type(dataset).__module__}.{type(dataset).__qualname__}",
        "classes": list(dataset.classes),
        "labels": dataset.label_decoder().identity() if isinstance(dataset, FileDataset) else [],
        "split": split,
        "content": dataset.fingerprint((split,)),
    }
    if dataset.code:  # older caches may contain labels that were not checked
        identity["code"] = f"{dataset.code} checked"
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]


def seal(index: bytes) -> bytes:
    """Return the last bytes of pixels.bin.

    Args:
        index: content of index.json.
    """
    return hashlib.sha256(index).digest()


def open_cache(folder: Path) -> MappedCache:
    """Open a cache and check everything except the values of its pixels.

    Args:
        folder: folder of the cache.

    Raises:
        FileNotFoundError: there is no cache.
        BrokenCacheError: the cache is incomplete, or its key is not the name of the folder.
        OSError: the cache cannot be read or mapped.
    """
    if not is_folder(folder):
        raise FileNotFoundError(folder)
    try:
        raw = (folder / INDEX).read_bytes()
        pixels = _map(folder / PIXELS)
    except FileNotFoundError as error:
        raise BrokenCacheError(f"{Path(str(error.filename)).name} is missing") from None
    index = _parse_index(raw)
    if index.key != folder.name:
        raise BrokenCacheError(f"its index is that of {index.key[:64]}")
    _check_places(index, len(pixels))
    if pixels[-SEAL:].tobytes() != seal(raw):
        raise BrokenCacheError("its index is not that of its pixels")
    return MappedCache(index, pixels)


def is_intact(cache: MappedCache, index: int) -> bool:
    """Return whether a sample agrees with its checksum.

    Args:
        cache: the cache.
        index: index of the sample.
    """
    offset, *_, checksum = cache.index.places[index].tolist()
    return zlib.crc32(cache.pixels[offset : offset + int(cache.index.sizes[index])].data) == checksum


def _map(path: Path) -> Pixels:
    try:
        return np.memmap(path, dtype=np.uint8, mode="c")  # copy on write: never the file
    except ValueError:  # nothing in it
        raise BrokenCacheError(f"{path.name} is empty") from None


def _parse_index(raw: bytes) -> CacheIndex:
    try:
        fields = json.loads(raw)
        places = np.array(fields.pop("places"), dtype=np.int64).reshape(-1, 4)
        index = CacheIndex(ids=tuple(fields.pop("ids")), places=places, **fields)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        raise BrokenCacheError("its index is incomplete") from None
    texts = (index.key, index.dataset, index.split, index.made, *index.ids)
    complete = all(isinstance(text, str) for text in texts) and len(index.ids) == len(places)
    if not complete or index.channels not in CHANNELS:
        raise BrokenCacheError("its index is incomplete")
    return index


def _check_places(index: CacheIndex, length: int) -> None:
    offsets, extents = index.places[:, 0], index.places[:, 1:3]
    if ((extents < 1) | (extents > LARGEST)).any() or ((offsets < 0) | (offsets > length)).any():
        raise BrokenCacheError("its index contains impossible offsets or sizes")
    expected = int((offsets + index.sizes).max(initial=0)) + SEAL
    if length != expected:
        raise BrokenCacheError(f"{PIXELS} has {length} bytes and its index expects {expected}")
