"""Real images, if available: their documented number and their published size."""

from __future__ import annotations

from pathlib import Path

from fcnlab.data.datasets.camvid import CamVid
from fcnlab.data.datasets.voc import Voc2012


def test_the_splits_have_the_documented_numbers_of_images(real_data: Path) -> None:
    camvid, voc = CamVid(real_data / "camvid"), Voc2012(real_data / "VOCdevkit/VOC2012")
    assert [len(camvid.split(name)) for name in ("train", "val", "test")] == [367, 101, 233]
    assert [len(voc.split(name)) for name in ("train", "val")] == [563, 150]
    assert not set(voc.split("train").ids) & set(voc.split("val").ids)


def test_real_images_decode_to_their_published_size(real_data: Path) -> None:
    sample = CamVid(real_data / "camvid").split("test")[0]
    assert sample.image.shape == (360, 480, 3) and sample.label.shape == (360, 480)
