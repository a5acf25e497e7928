"""PASCAL VOC segmentation (Everingham et al., IJCV 2010) and the Semantic Boundaries Dataset (SBD).

SBD (Hariharan et al., ICCV 2011) consists of 11,355 images of VOC with masks of the same classes, as MATLAB files.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from fcnlab.data.datasets.base import FileDataset, FileSplit, Pair, Split
from fcnlab.data.datasets.matlab import MatFileError, read_structure_field
from fcnlab.data.datasets.splits import read_list
from fcnlab.errors import DataError
from fcnlab.paths import check_regular_file, is_file, is_folder


class Voc2012(FileDataset):
    """PASCAL VOC 2012: 20 classes and background; the void border (255) is ignored. The masks are palette images.

    The splits are the lists of the development kit, and three more that need SBD:

    - `trainaug`, 10,582 images: train and val of SBD and train of VOC, without val of VOC. The masks are those of VOC
      where they exist, otherwise those of SBD. If `ImageSets/Segmentation` contains this list, it is used.
    - `sbdtrain`, 8,498 images: the train list and masks of SBD, the training set of Long et al. (CVPR 2015).
    - `seg11valid`, 736 images: val of VOC 2011 without train of SBD, the validation set of Long et al.

    The masks of SBD are images in the folder `SegmentationClassAug` of the kit, or MATLAB files in SBD's archive, which
    is unpacked as `benchmark_RELEASE` beside the kit.
    """

    classes = (
        "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
        "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
    )  # fmt: skip
    expected_layout = "JPEGImages/*.jpg, SegmentationClass/*.png and ImageSets/Segmentation/{train,val,trainval}.txt"
    split_names = ("train", "val", "trainval", "trainaug", "sbdtrain", "seg11valid")

    def split(self, name: str) -> Split:
        return _VocSplit(self._checked_pairs(name), self.label_decoder())

    def list_pairs(self, split: str) -> list[Pair]:
        images, own = self.root / "JPEGImages", self.root / "SegmentationClass"
        if split == "trainaug":
            ids, masks = self._find_trainaug()
        elif split == "sbdtrain":
            ids = _read_ids(self._require_sbd(split) / "train.txt", "it is in the archive of SBD")
            masks = {id_: self._require_sbd(split) / "cls" / f"{id_}.mat" for id_ in ids}
        else:
            ids, masks = self._read_seg11valid() if split == "seg11valid" else self._read_list(split), {}
        return [Pair(id_, images / f"{id_}.jpg", masks.get(id_, own / f"{id_}.png")) for id_ in ids]

    def _find_source(self, split: str) -> Path:
        file = self._require_sbd(split) / "train.txt" if split == "sbdtrain" else self._list_file(split)
        return file if is_file(file) else self.root

    def _list_file(self, split: str) -> Path:
        return self.root / "ImageSets" / "Segmentation" / f"{split}.txt"

    def _read_list(self, split: str) -> list[str]:
        return _read_ids(self._list_file(split), f"the expected layout is {self.expected_layout}")

    def _find_trainaug(self) -> tuple[list[str], dict[str, Path]]:
        """Return the ids of `trainaug`, and the masks of the ids that have no mask in VOC."""
        added = self.root / "SegmentationClassAug"
        if is_folder(added):
            folder, suffix = added, "png"
            sbd_ids = sorted(path.stem for path in added.glob("*.png"))
        else:
            sbd = self._require_sbd("trainaug")
            folder, suffix = sbd / "cls", "mat"
            sbd_ids = [
                id_
                for name in ("train", "val")
                for id_ in _read_ids(sbd / f"{name}.txt", "it is in the archive of SBD")
            ]
        if is_file(self._list_file("trainaug")):
            ids = self._read_list("trainaug")
        else:
            ids = sorted({*sbd_ids, *self._read_list("train")} - {*self._read_list("val")})
        own = {path.stem for path in (self.root / "SegmentationClass").glob("*.png")} | {*self._read_list("train")}
        return ids, {id_: folder / f"{id_}.{suffix}" for id_ in ids if id_ not in own}

    def _read_seg11valid(self) -> list[str]:
        """Return the ids of the list, or else of val of VOC 2011 without train of SBD."""
        file = self._list_file("seg11valid")
        val = self.root.parent / "VOC2011" / "ImageSets" / "Segmentation" / "val.txt"
        sbd = self._find_sbd()
        if not is_file(file) and is_file(val) and sbd is not None:
            excluded = {*_read_ids(sbd / "train.txt", "it is in the archive of SBD")}
            return [id_ for id_ in _read_ids(val, "it is in the kit of VOC 2011") if id_ not in excluded]
        return _read_ids(
            file,
            "copy data/pascal/seg11valid.txt of github.com/shelhamer/fcn.berkeleyvision.org to it; or put the kit of "
            "VOC 2011 and the archive of SBD beside this kit",
        )

    def _find_sbd(self) -> Path | None:
        beside = (folder / "benchmark_RELEASE" / "dataset" for folder in (self.root.parent, self.root.parent.parent))
        return next((folder for folder in beside if is_folder(folder)), None)

    def _require_sbd(self, split: str) -> Path:
        folder = self._find_sbd()
        if folder is None:
            kit = self.root.parent
            beside = (kit.parent if kit.name == "VOCdevkit" else kit) / "benchmark_RELEASE" / "dataset"
            images = f", nor is {self.root / 'SegmentationClassAug'}" if split == "trainaug" else ""
            raise DataError(
                f"{beside}: no such folder{images}; the split '{split}' needs the Semantic Boundaries Dataset, whose "
                "archive unpacks to benchmark_RELEASE/dataset/{train.txt,val.txt,cls}"
            )
        return folder


class _VocSplit(FileSplit):
    """A split whose masks may be MATLAB files of SBD."""

    def open_mask(self, path: Path) -> Image.Image:
        return _read_sbd_mask(path) if path.suffix == ".mat" else super().open_mask(path)


def _read_sbd_mask(path: Path) -> Image.Image:
    """Return the mask in a file of SBD: the field `Segmentation` of its structure `GTcls`."""
    try:
        check_regular_file(path)
        mask = read_structure_field(path.read_bytes(), "GTcls", "Segmentation")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, MatFileError) as error:
        raise DataError(
            f"{path}: cannot be read as a mask of SBD (GTcls.Segmentation, 8-bit class numbers): {error}"
        ) from None
    return Image.fromarray(np.ascontiguousarray(mask))


def _read_ids(file: Path, remedy: str) -> list[str]:
    return [id_ for _, line in read_list(file, remedy) for id_ in line.split()]
