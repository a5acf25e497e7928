"""The statistics of a dataset compared with numpy, with the weights of training, and with documented values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fcnlab.constants import IGNORE_INDEX
from fcnlab.data.datasets.base import Dataset, FileDataset, Sample, Split
from fcnlab.data.datasets.camvid import CamVid
from fcnlab.data.datasets.voc import Voc2012
from fcnlab.data.inspection.stats import compute_split_stats, median_frequency_weights
from fcnlab.errors import DataError
from fcnlab.training import losses

SIZES = [(4, 5), (7, 3), (4, 5), (10, 10)]


class _Some(Split):
    def __init__(self, samples: list[Sample]) -> None:
        self.samples = samples
        self.ids = tuple(sample.id for sample in samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


class _Given(Dataset):
    """Random images of `SIZES` with labels 0..2 and ignored pixels; label 3 does not occur."""

    classes = ("a", "b", "c", "d")

    def split(self, name: str) -> _Some:
        rng = np.random.default_rng(len(name))
        return _Some(
            [
                Sample(
                    str(n),
                    rng.integers(0, 256, (*size, 3), dtype=np.uint8),
                    rng.choice(np.array([0, 1, 2 if n else 0, IGNORE_INDEX], dtype=np.uint8), size),
                )
                for n, size in enumerate(SIZES)
            ]
        )

    def fingerprint(self, splits: tuple[str, ...]) -> str:
        return "none"


def test_statistics_equal_numpy_on_all_pixels() -> None:
    (found,) = compute_split_stats(_Given(), ["train"])
    samples = list(_Given().split("train"))
    pixels = np.concatenate([s.image.reshape(-1, 3) for s in samples]) / 255
    labels = np.concatenate([s.label.ravel() for s in samples])
    np.testing.assert_allclose(found.mean, pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.std, pixels.std(0), rtol=1e-12)
    np.testing.assert_allclose(found.share, [(labels == c).mean() for c in range(4)], rtol=1e-12)
    assert found.ignored == pytest.approx((labels == IGNORE_INDEX).mean())
    assert found.share.sum() + found.ignored == pytest.approx(1)
    assert list(found.image_counts) == [sum((s.label == c).any() for s in samples) for c in range(4)]
    assert found.image_counts[2] == 3 and found.image_counts[3] == 0
    assert found.images == 4 and found.distinct_sizes == 3
    assert (found.height.min, found.height.median, found.height.max) == (4, 5.5, 10)
    assert (found.width.min, found.width.median, found.width.max) == (3, 5, 10)


def test_weights_equal_those_of_training() -> None:
    (found,) = compute_split_stats(_Given(), ["train"])
    used = losses.compute_class_weights((torch.tensor(s.label) for s in _Given().split("train")), 4)
    np.testing.assert_allclose(found.weights, used.numpy(), rtol=1e-6)
    assert found.weights[3] == 1


@given(arrays.arrays(np.int64, st.tuples(st.integers(1, 5), st.integers(1, 6)), elements=st.integers(0, 9)))
def test_weights_from_counts_equal_those_from_pixels(pixels: np.ndarray) -> None:
    labels = [torch.tensor(np.repeat(np.arange(pixels.shape[1]), row), dtype=torch.uint8) for row in pixels]
    used = losses.compute_class_weights(labels, pixels.shape[1])
    np.testing.assert_allclose(median_frequency_weights(pixels), used.numpy(), rtol=1e-6)


def test_a_sample_that_does_not_decode_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train/a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"train/a\.png: cannot be decoded"):
        compute_split_stats(CamVid(tmp_path), ["train"])


# Per cent of all pixels, by label, the ignored ones last. `voc2012` is the split of 713 images of the official val.
DOCUMENTED = {
    "camvid train": "16.85 23.26 0.98 31.66 4.49 9.72 1.17 1.13 5.87 0.64 0.29 3.95",
    "camvid val": "9.18 25.96 0.56 28.95 8.72 16.34 0.89 3.08 1.75 0.65 2.22 1.70",
    "camvid test": "17.07 24.61 1.18 25.81 9.27 11.25 1.01 1.18 3.97 0.63 0.19 3.83",
    "voc2012 train": "69.80 0.81 0.38 0.79 0.63 0.63 1.98 1.43 2.25 0.39 1.21 0.83 2.07 1.32 0.94 4.76 0.38 0.68 1.00 "
    "1.33 0.69 5.68",
    "voc2012 val": "69.06 0.74 0.35 0.89 0.54 0.46 1.99 2.09 1.92 0.79 0.57 0.42 2.40 1.05 0.91 5.67 0.50 0.77 1.38 "
    "1.69 0.34 5.46",
}
FOLDERS: dict[str, tuple[type[FileDataset], str]] = {
    "camvid": (CamVid, "camvid"), "voc2012": (Voc2012, "VOCdevkit/VOC2012"),
}  # fmt: skip


@pytest.mark.parametrize("documented", DOCUMENTED)
def test_the_real_images_have_the_documented_frequencies_to_the_printed_digits(
    real_data: Path, documented: str
) -> None:
    name, split = documented.split()
    type_, folder = FOLDERS[name]
    (found,) = compute_split_stats(type_(real_data / folder), [split])
    shown = " ".join(f"{100 * share:.2f}" for share in (*found.share, found.ignored))
    assert shown == DOCUMENTED[documented]
