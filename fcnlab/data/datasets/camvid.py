"""CamVid in the layout of the SegNet tutorial (Brostow et al., Pattern Recognition Letters 2009)."""

from __future__ import annotations

from fcnlab.data.datasets.base import FileDataset, Pair, list_files


class CamVid(FileDataset):
    """CamVid: 367 training, 101 validation and 233 test street images of 360x480, 11 classes."""

    classes = (
        "sky", "building", "pole", "road", "pavement", "tree",
        "sign_symbol", "fence", "car", "pedestrian", "bicyclist",
    )  # fmt: skip
    expected_layout = "{train,val,test}/*.{jpg,png} with masks of the same name in {train,val,test}annot/*.png"
    split_names = ("train", "val", "test")
    ignored_value = 11

    def list_pairs(self, split: str) -> list[Pair]:
        masks = self.root / f"{split}annot"
        images = list_files(self.root / split, self.expected_layout)
        return [Pair(image.stem, image, masks / f"{image.stem}.png") for image in images]
