"""The real images, where they are there: what is decoded agrees with the frequencies that their README documents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fcnlab.data.base import FileDataset
from fcnlab.data.camvid import CamVid
from fcnlab.data.check import check_splits
from fcnlab.data.voc import Voc2012

# Per cent of all pixels, by label, the ignored ones last. `voc2012` is the split of 713 images of the official val.
CAMVID_VAL = "9.18 25.96 0.56 28.95 8.72 16.34 0.89 3.08 1.75 0.65 2.22 1.70"
VOC_VAL = (
    "69.06 0.74 0.35 0.89 0.54 0.46 1.99 2.09 1.92 0.79 0.57 0.42 2.40 1.05 0.91 5.67 0.50 0.77 1.38 1.69 0.34 5.46"
)


@pytest.mark.parametrize(
    ("type_", "folder", "images", "documented"),
    [(CamVid, "camvid", 101, CAMVID_VAL), (Voc2012, "VOCdevkit/VOC2012", 150, VOC_VAL)],
    ids=["camvid", "voc2012"],
)
def test_the_validation_split_is_sound_and_has_the_documented_frequencies(
    real_data: Path, type_: type[FileDataset], folder: str, images: int, documented: str
) -> None:
    dataset = type_(real_data / folder)
    (checked,) = check_splits(dataset, ["val"])
    assert checked.faults == [] and checked.images == images
    shares = 100 * checked.pixels[[*range(len(dataset.classes)), 255]] / checked.pixels.sum()
    np.testing.assert_allclose(shares, [float(share) for share in documented.split()], rtol=0, atol=0.0051)


def test_the_splits_have_the_documented_numbers_of_images(real_data: Path) -> None:
    camvid, voc = CamVid(real_data / "camvid"), Voc2012(real_data / "VOCdevkit/VOC2012")
    assert [len(camvid.split(name)) for name in ("train", "val", "test")] == [367, 101, 233]
    assert [len(voc.split(name)) for name in ("train", "val")] == [563, 150]
    assert not set(voc.split("train").ids) & set(voc.split("val").ids)


def test_real_images_decode_to_their_published_size(real_data: Path) -> None:
    sample = CamVid(real_data / "camvid").split("test")[0]
    assert sample.image.shape == (360, 480, 3) and sample.label.shape == (360, 480)
