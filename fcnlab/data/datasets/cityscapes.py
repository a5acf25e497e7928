"""Cityscapes with fine annotations (Cordts et al., CVPR 2016); the label table is that of cityscapesScripts."""

from __future__ import annotations

from fcnlab.data.datasets.base import FileDataset, Pair, list_files
from fcnlab.data.datasets.labels import IdDecoder, LabelDecoder
from fcnlab.errors import DataError
from fcnlab.paths import is_folder

_EVALUATED = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light",
    20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car",
    27: "truck", 28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle",
}  # fmt: skip
"""Evaluated label ids, in the order of their train ids 0..18."""

_LABELS = range(34)
"""All label ids of the masks; those that are not evaluated are ignored."""

_IMAGE, _MASK = "_leftImg8bit.png", "_gtFine_labelIds.png"


class Cityscapes(FileDataset):
    """Cityscapes: 2,975 training and 500 validation street images of 1024x2048, 19 classes.

    The labels of the test split are not public.
    """

    classes = tuple(_EVALUATED.values())
    expected_layout = (
        "leftImg8bit/{train,val}/<city>/*_leftImg8bit.png with masks in gtFine/{train,val}/<city>/*_gtFine_labelIds.png"
    )
    split_names = ("train", "val")

    def label_decoder(self) -> LabelDecoder:
        """Return a decoder from label ids to train ids."""
        return IdDecoder(
            [[number] for number in _EVALUATED], [number for number in _LABELS if number not in _EVALUATED]
        )

    def _list_checked_pairs(self, split: str) -> list[Pair]:
        if split == "test":
            raise DataError("Cityscapes has no public labels for 'test'; use val")
        return super()._list_checked_pairs(split)

    def list_pairs(self, split: str) -> list[Pair]:
        images, masks = self.root / "leftImg8bit" / split, self.root / "gtFine" / split
        if not is_folder(images):
            raise DataError(f"{images}: no such folder; the expected layout is {self.expected_layout}")
        cities = sorted(path for path in images.iterdir() if is_folder(path))
        files = [
            path for city in cities for path in list_files(city, self.expected_layout) if path.name.endswith(_IMAGE)
        ]
        ids = [path.name.removesuffix(_IMAGE) for path in files]
        return [
            Pair(id_, path, masks / path.parent.name / f"{id_}{_MASK}") for id_, path in zip(ids, files, strict=True)
        ]
