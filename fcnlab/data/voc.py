"""PASCAL VOC 2012 segmentation: Everingham et al., IJCV 2010."""

from __future__ import annotations

from fcnlab.data.base import FileDataset, Pair
from fcnlab.errors import DataError


class Voc2012(FileDataset):
    """20 classes and background; the void border, 255, does not count. The masks are palette images."""

    classes = (
        "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
        "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
    )  # fmt: skip
    layout = "JPEGImages/*.jpg, SegmentationClass/*.png and ImageSets/Segmentation/{train,val,trainval}.txt"
    names = ("train", "val", "trainval")

    def pairs(self, split: str) -> list[Pair]:
        file = self.root / "ImageSets" / "Segmentation" / f"{split}.txt"
        try:
            ids = file.read_text(encoding="utf-8").split()
        except FileNotFoundError:
            raise DataError(f"{file}: no such file; the expected layout is {self.layout}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{file}: cannot be read: {error}") from None
        images, masks = self.root / "JPEGImages", self.root / "SegmentationClass"
        return [Pair(id_, images / f"{id_}.jpg", masks / f"{id_}.png") for id_ in ids]
