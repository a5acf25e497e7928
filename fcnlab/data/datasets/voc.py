"""PASCAL VOC segmentation: Everingham et al., IJCV 2010; and the Semantic Boundaries Dataset on its images (SBD).

SBD is Hariharan et al., ICCV 2011: 11,355 images of VOC with masks of the same classes, as MATLAB files.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from fcnlab.data.datasets.base import FileDataset, FileSplit, Pair, Split
from fcnlab.errors import DataError


class Voc2012(FileDataset):
    """20 classes and background; the void border, 255, does not count. The masks are palette images.

    The splits are the development kit's lists, and three more that need SBD:

    - `trainaug`, 10,582 images: SBD's train and val and VOC's train, without VOC's val. A mask is VOC's own where
      there is one, otherwise SBD's. The list is made by this rule unless `ImageSets/Segmentation` has it.
    - `sbdtrain`, 8,498 images: SBD's own train list and masks, on which Long et al. (CVPR 2015) trained.
    - `seg11valid`, 736 images, on which they reported: VOC 2011's val without SBD's train.

    SBD's masks lie in `SegmentationClassAug` of the kit as images, or in SBD's own archive, unpacked as
    `benchmark_RELEASE` beside the kit.
    """

    classes = (
        "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
        "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
    )  # fmt: skip
    layout = "JPEGImages/*.jpg, SegmentationClass/*.png and ImageSets/Segmentation/{train,val,trainval}.txt"
    names = ("train", "val", "trainval", "trainaug", "sbdtrain", "seg11valid")

    def split(self, name: str) -> Split:
        return _VocSplit(self._pairs(name), self.labels())

    def pairs(self, split: str) -> list[Pair]:
        images, own = self.root / "JPEGImages", self.root / "SegmentationClass"
        if split == "trainaug":
            ids, masks = self._trainaug()
        elif split == "sbdtrain":
            ids = _ids(self._sbd(split) / "train.txt", "it comes with SBD's archive")
            masks = {id_: self._sbd(split) / "cls" / f"{id_}.mat" for id_ in ids}
        else:
            ids, masks = self._seg11valid() if split == "seg11valid" else self._listed(split), {}
        return [Pair(id_, images / f"{id_}.jpg", masks.get(id_, own / f"{id_}.png")) for id_ in ids]

    def _list(self, split: str) -> Path:
        return self.root / "ImageSets" / "Segmentation" / f"{split}.txt"

    def _listed(self, split: str) -> list[str]:
        return _ids(self._list(split), f"the expected layout is {self.layout}")

    def _trainaug(self) -> tuple[list[str], dict[str, Path]]:
        """The ids of `trainaug`, and the masks of those that VOC has none for."""
        added = self.root / "SegmentationClassAug"
        if added.is_dir():
            folder, suffix = added, "png"
            theirs = sorted(path.stem for path in added.glob("*.png"))
        else:
            sbd = self._sbd("trainaug")
            folder, suffix = sbd / "cls", "mat"
            theirs = [id_ for name in ("train", "val") for id_ in _ids(sbd / f"{name}.txt", "it comes with SBD")]
        if self._list("trainaug").is_file():
            ids = self._listed("trainaug")
        else:
            ids = sorted({*theirs, *self._listed("train")} - {*self._listed("val")})
        own = {path.stem for path in (self.root / "SegmentationClass").glob("*.png")} | {*self._listed("train")}
        return ids, {id_: folder / f"{id_}.{suffix}" for id_ in ids if id_ not in own}

    def _seg11valid(self) -> list[str]:
        """The list as a file, or made of VOC 2011's val and SBD's train where both are there."""
        file = self._list("seg11valid")
        val = self.root.parent / "VOC2011" / "ImageSets" / "Segmentation" / "val.txt"
        sbd = self._find_sbd()
        if not file.is_file() and val.is_file() and sbd is not None:
            without = {*_ids(sbd / "train.txt", "it comes with SBD's archive")}
            return [id_ for id_ in _ids(val, "it comes with VOC 2011") if id_ not in without]
        return _ids(
            file,
            "put data/pascal/seg11valid.txt of github.com/shelhamer/fcn.berkeleyvision.org there; or put VOC 2011's "
            "kit and SBD's archive beside this kit, of which it is made",
        )

    def _find_sbd(self) -> Path | None:
        beside = (folder / "benchmark_RELEASE" / "dataset" for folder in (self.root.parent, self.root.parent.parent))
        return next((folder for folder in beside if folder.is_dir()), None)

    def _sbd(self, split: str) -> Path:
        found = self._find_sbd()
        if found is None:
            kit = self.root.parent
            beside = (kit.parent if kit.name == "VOCdevkit" else kit) / "benchmark_RELEASE" / "dataset"
            images = f", nor is {self.root / 'SegmentationClassAug'}" if split == "trainaug" else ""
            raise DataError(
                f"{beside}: no such folder{images}; the split '{split}' needs the Semantic Boundaries Dataset, whose "
                "archive unpacks to benchmark_RELEASE/dataset/{train.txt,val.txt,cls}"
            )
        return found


class _VocSplit(FileSplit):
    """A split of which some masks may be SBD's MATLAB files."""

    def open_mask(self, path: Path) -> Image.Image:
        return _sbd_mask(path) if path.suffix == ".mat" else super().open_mask(path)


def _sbd_mask(path: Path) -> Image.Image:
    """The mask of SBD's file: the field `Segmentation` of its structure `GTcls`.

    Raises:
        DataError: the file is missing, no MATLAB file, or holds something else.
    """
    from scipy.io import loadmat  # type: ignore[import-untyped]
    from scipy.io.matlab import MatReadError  # type: ignore[import-untyped]

    problems = (OSError, ValueError, TypeError, LookupError, EOFError, ArithmeticError, MemoryError, AttributeError)
    try:
        mask = loadmat(str(path), variable_names=["GTcls"])["GTcls"][0, 0]["Segmentation"]
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (*problems, NotImplementedError, UnicodeError, MatReadError, struct.error, zlib.error) as error:
        raise DataError(f"{path}: cannot be read as a mask of SBD (GTcls.Segmentation): {error}") from None
    if not isinstance(mask, np.ndarray) or mask.dtype != np.uint8 or mask.ndim != 2 or not mask.size:
        raise DataError(f"{path}: GTcls.Segmentation is expected as one 8-bit channel of class numbers")
    return Image.fromarray(np.ascontiguousarray(mask))


def _ids(file: Path, remedy: str) -> list[str]:
    """The ids in a list, one a line.

    Raises:
        DataError: the list is missing or unreadable.
    """
    try:
        return file.read_text(encoding="utf-8").split()
    except FileNotFoundError:
        raise DataError(f"{file}: no such file; {remedy}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read: {error}") from None
