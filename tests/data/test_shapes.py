"""The generated dataset: the same bytes on every machine, and the borders between its regions."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcnlab.constants import IGNORE_INDEX
from fcnlab.data.datasets.base import Sample
from fcnlab.data.datasets.shapes import Shapes
from fcnlab.errors import DataError

OPTIONS = {"train": 3, "val": 1, "test": 1, "height": 96, "width": 128, "seed": 0}


def shapes(**changed: int) -> Shapes:
    return Shapes(**(OPTIONS | changed))


def pixels(sample: Sample) -> bytes:
    return sample.image.tobytes() + sample.label.tobytes()


def test_the_bytes_of_the_scenes_are_the_same_on_every_machine() -> None:
    digest = hashlib.sha256(b"".join(pixels(sample) for sample in shapes().split("train"))).hexdigest()
    assert (
        digest == "d13e6f127a182a141ddfdcc170055bbf1d3db7ce694f2b666c16bac0d006525d"
    )  # a change needs a new VERSION, too


def test_samples_have_the_requested_size_and_can_be_read_in_any_order() -> None:
    split = shapes(height=40, width=56).split("train")
    backwards = [split[index] for index in (2, 1, 0)]
    assert [pixels(sample) for sample in reversed(backwards)] == [pixels(sample) for sample in split]
    for sample in split:
        assert sample.image.shape == (40, 56, 3) and sample.label.shape == (40, 56)
        assert sample.image.dtype == sample.label.dtype == np.uint8


def test_scenes_differ_between_seeds_and_splits() -> None:
    scenes = [
        sample for seed in (0, 1) for name in ("train", "val", "test") for sample in shapes(seed=seed).split(name)
    ]
    assert len({pixels(sample) for sample in scenes}) == len(scenes) == 10


def test_growing_a_split_keeps_its_first_samples() -> None:
    few, many = shapes().split("train"), shapes(train=5, val=4).split("train")
    assert many.ids[:3] == few.ids
    assert [pixels(many[index]) for index in range(3)] == [pixels(sample) for sample in few]


def test_ids_are_unique_over_all_splits() -> None:
    dataset = shapes(train=12, val=12, test=12)
    ids = [id_ for name in ("train", "val", "test") for id_ in dataset.split(name).ids]
    assert len(set(ids)) == 36


def test_every_class_and_void_occur_in_sixty_scenes() -> None:
    dataset = shapes(train=60, height=64, width=64)
    found = {int(label) for sample in dataset.split("train") for label in np.unique(sample.label)}
    assert found == {*range(len(dataset.classes)), IGNORE_INDEX}


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), height=st.integers(32, 96), width=st.integers(32, 96))
def test_labels_are_separated_by_a_void_border(seed: int, height: int, width: int) -> None:
    label = shapes(train=1, seed=seed, height=height, width=width).split("train")[0].label
    assert set(np.unique(label)) <= {0, 1, 2, 3, 4, 5, IGNORE_INDEX}
    for one, other in ((label[1:], label[:-1]), (label[:, 1:], label[:, :-1])):
        touching = (one != other) & (one != IGNORE_INDEX) & (other != IGNORE_INDEX)
        assert not touching.any()


@pytest.mark.parametrize("changed", [{"height": 97}, {"width": 129}, {"seed": 1}, {"train": 4}, {"test": 2}])
def test_fingerprint_differs_if_pixels_differ(changed: dict[str, int]) -> None:
    assert shapes(**changed).fingerprint(("train", "test")) != shapes().fingerprint(("train", "test"))


def test_the_fingerprint_depends_only_on_the_splits_that_are_used() -> None:
    assert shapes(val=9).fingerprint(("train", "test")) == shapes().fingerprint(("train", "test"))
    assert shapes().fingerprint(("train", "val")) != shapes().fingerprint(("train", "test"))


def test_an_unknown_split_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(DataError, match="no split 'tset'; did you mean 'test'"):
        shapes().split("tset")
