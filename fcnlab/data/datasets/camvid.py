"""CamVid in the SegNet tutorial's layout: Brostow, Fauqueur, Cipolla, Pattern Recognition Letters 2009."""

from __future__ import annotations

from fcnlab.data.datasets.base import FileDataset, Pair, list_files


class CamVid(FileDataset):
    """367 / 101 / 233 street images of 360x480 with 11 classes; label 11 is unlabelled."""

    classes = (
        "sky", "building", "pole", "road", "pavement", "tree",
        "sign_symbol", "fence", "car", "pedestrian", "bicyclist",
    )  # fmt: skip
    layout = "{train,val,test}/*.{jpg,png} with masks of the same name in {train,val,test}annot/*.png"
    names = ("train", "val", "test")
    unlabelled = 11

    def pairs(self, split: str) -> list[Pair]:
        masks = self.root / f"{split}annot"
        images = list_files(self.root / split, self.layout)
        return [Pair(image.stem, image, masks / f"{image.stem}.png") for image in images]
