"""ADE20K in the release of the Scene Parsing Challenge 2016 (Zhou et al., CVPR 2017)."""

from __future__ import annotations

from fcnlab.data.datasets.base import FileDataset, Pair, list_files
from fcnlab.data.datasets.labels import IdDecoder, LabelDecoder


class Ade20k(FileDataset):
    """ADE20K: 20,210 training and 2,000 validation images, 150 classes.

    In the masks, 1..150 are the classes and 0 is unlabeled. Class names are the first name of each class in the
    archive's `objectInfo150.txt`.
    """

    classes = (
        "wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed", "windowpane", "grass", "cabinet",
        "sidewalk", "person", "earth", "door", "table", "mountain", "plant", "curtain", "chair", "car", "water",
        "painting", "sofa", "shelf", "house", "sea", "mirror", "rug", "field", "armchair", "seat", "fence", "desk",
        "rock", "wardrobe", "lamp", "bathtub", "railing", "cushion", "base", "box", "column", "signboard",
        "chest of drawers", "counter", "sand", "sink", "skyscraper", "fireplace", "refrigerator", "grandstand",
        "path", "stairs", "runway", "case", "pool table", "pillow", "screen door", "stairway", "river", "bridge",
        "bookcase", "blind", "coffee table", "toilet", "flower", "book", "hill", "bench", "countertop", "stove",
        "palm", "kitchen island", "computer", "swivel chair", "boat", "bar", "arcade machine", "hovel", "bus",
        "towel", "light", "truck", "tower", "chandelier", "awning", "streetlight", "booth", "television", "airplane",
        "dirt track", "apparel", "pole", "land", "bannister", "escalator", "ottoman", "bottle", "buffet", "poster",
        "stage", "van", "ship", "fountain", "conveyer belt", "canopy", "washer", "plaything", "swimming pool",
        "stool", "barrel", "basket", "waterfall", "tent", "bag", "minibike", "cradle", "oven", "ball", "food", "step",
        "tank", "trade name", "microwave", "pot", "animal", "bicycle", "lake", "dishwasher", "screen", "blanket",
        "sculpture", "hood", "sconce", "vase", "traffic light", "tray", "ashcan", "fan", "pier", "crt screen",
        "plate", "monitor", "bulletin board", "shower", "radiator", "glass", "clock", "flag",
    )  # fmt: skip
    expected_layout = (
        "images/{training,validation}/*.jpg with masks of the same name in annotations/{training,validation}/*.png"
    )
    split_names = ("training", "validation")

    def label_decoder(self) -> LabelDecoder:
        """Return a decoder from the numbers 1..150 to the labels 0..149."""
        return IdDecoder([[number] for number in range(1, len(self.classes) + 1)], [0])

    def list_pairs(self, split: str) -> list[Pair]:
        masks = self.root / "annotations" / split
        images = list_files(self.root / "images" / split, self.expected_layout)
        return [Pair(image.stem, image, masks / f"{image.stem}.png") for image in images]
