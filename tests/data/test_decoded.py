"""Samples as tensors: the same from a cache as decoded on the spot, and safe from careless hands."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fcnlab.data import decoded as module
from fcnlab.data.augment import Augmentation, Jitter
from fcnlab.data.base import Dataset
from fcnlab.data.cache import cache_key, caches, open_cache
from fcnlab.data.camvid import CamVid
from fcnlab.data.decoded import DEVICE_SHARE, Decoded, DecodedSplit, DeviceSplit, MappedSplit, open_decoded
from fcnlab.data.folder import Folder, Layout
from fcnlab.data.shapes import Shapes
from fcnlab.data.voc import Voc2012

extents = st.integers(1, 20)
sizes = st.lists(st.tuples(extents, extents), min_size=1, max_size=6)
quickly = settings(max_examples=12, deadline=None)


def shapes(train: int = 3, size: tuple[int, int] = (24, 32), seed: int = 0) -> Shapes:
    return Shapes(train=train, val=1, test=1, height=size[0], width=size[1], seed=seed)


def same(one: DecodedSplit, two: DecodedSplit) -> bool:
    """Whether two splits have the same samples, in the same layout."""
    assert one.ids == two.ids and len(one) == len(two)
    for index in range(len(one)):
        a, b = one[index], two[index]
        for x, y in ((a.image, b.image), (a.label, b.label)):
            assert x.dtype == y.dtype == torch.uint8
            if x.shape != y.shape or x.stride() != y.stride() or not torch.equal(x, y):
                return False
    return True


def check(dataset: Dataset, split: str = "train") -> None:
    """The cache's samples, when it is made and when it is there, are those that are decoded directly."""
    direct = DecodedSplit(dataset.split(split))
    for _ in range(2):
        found = open_decoded(dataset, split)
        assert isinstance(found, MappedSplit)
        assert same(found, direct)
    sample, first = dataset.split(split)[0], found[0]
    np.testing.assert_array_equal(first.image.permute(1, 2, 0).numpy(), sample.image)
    np.testing.assert_array_equal(first.label.numpy(), sample.label)


@quickly
@given(sizes, st.integers(0, 2**31), st.sampled_from(["png", "jpg"]))
def test_camvid_from_the_cache_is_camvid_decoded(each: list[tuple[int, int]], seed: int, kind: str) -> None:
    draw = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as place:
        for folder in ("train", "trainannot"):
            Path(place, folder).mkdir()
        for number, size in enumerate(each):
            image, mask = draw.integers(0, 256, (*size, 3)), draw.integers(0, 12, size)
            Image.fromarray(image.astype(np.uint8)).save(Path(place, f"train/{number}.{kind}"))
            Image.fromarray(mask.astype(np.uint8)).save(Path(place, f"trainannot/{number}.png"))
        check(CamVid(Path(place)))


@quickly
@given(sizes, st.integers(0, 2**31))
def test_voc_from_the_cache_is_voc_decoded(each: list[tuple[int, int]], seed: int) -> None:
    draw = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
            (root / folder).mkdir(parents=True)
        for number, size in enumerate(each):
            Image.fromarray(draw.integers(0, 256, (*size, 3)).astype(np.uint8)).save(root / f"JPEGImages/{number}.jpg")
            mask = Image.fromarray(draw.choice([0, 3, 20, 255], size).astype(np.uint8))
            mask.putpalette([(37 * i) % 256 for i in range(768)])
            mask.save(root / f"SegmentationClass/{number}.png")
        names = "".join(f"{number}\n" for number in reversed(range(len(each))))
        (root / "ImageSets/Segmentation/train.txt").write_text(names)
        check(Voc2012(root))


def test_a_folder_from_the_cache_is_the_folder_decoded_and_its_key_follows_the_meaning_of_colours(
    tmp_path: Path,
) -> None:
    draw = np.random.default_rng(0)
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=np.uint8)
    for folder in ("images/train", "masks/train"):
        (tmp_path / folder).mkdir(parents=True)
    for number, size in enumerate([(5, 7), (3, 2), (9, 4)]):
        Image.fromarray(draw.integers(0, 256, (*size, 3)).astype(np.uint8)).save(
            tmp_path / f"images/train/{number}.png"
        )
        Image.fromarray(colours[draw.integers(0, 3, size)]).save(tmp_path / f"masks/train/{number}.png")
    layout = Layout(f"{tmp_path}/images/{{split}}", f"{tmp_path}/masks/{{split}}")
    one = Folder(layout, [("a", ["#ff0000"]), ("b", ["#00ff00"])], ["#0000ff"])
    two = Folder(layout, [("a", ["#00ff00"]), ("b", ["#ff0000"])], ["#0000ff"])
    assert cache_key(one, "train") != cache_key(two, "train")
    check(one)
    check(two)


@quickly
@given(st.integers(0, 20), st.tuples(st.integers(16, 40), st.integers(16, 40)), st.integers(0, 99))
def test_shapes_from_the_cache_are_shapes_drawn(train: int, size: tuple[int, int], seed: int) -> None:
    dataset = shapes(train, size, seed)
    if train:
        check(dataset)
    else:
        assert len(open_decoded(dataset, "train")) == 0


def test_without_a_cache_samples_and_what_is_made_of_them_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = open_decoded(shapes(), "train")
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("FCNLAB_CACHE", str(tmp_path / "file"))
    without = open_decoded(shapes(), "train")
    assert isinstance(cached, MappedSplit) and not isinstance(without, MappedSplit)
    assert same(cached, without)
    augment = Augmentation((20, 28), (0.5, 2.0), 0.5, (1, 2, 3), Jitter(0.4, 0.4, 0.4, 0.1))
    for index in range(3):
        a, b = (augment(split[index], np.random.default_rng(index)) for split in (cached, without))
        assert torch.equal(a.image, b.image) and torch.equal(a.label, b.label)


def test_the_layout_changes_no_value_of_an_augmented_sample() -> None:
    augment = Augmentation((20, 28), (0.5, 2.0), 0.5, (1, 2, 3), Jitter(0.4, 0.4, 0.4, 0.1))
    split = open_decoded(shapes(8), "train")
    for index in range(8):
        planes = Decoded(split[index].image.contiguous(), split[index].label)
        a, b = (augment(sample, np.random.default_rng(index)) for sample in (split[index], planes))
        assert torch.equal(a.image, b.image) and torch.equal(a.label, b.label)


def test_mapped_samples_are_views_of_one_map() -> None:
    split = open_decoded(shapes(), "train")
    assert split[0].image.data_ptr() == split[0].image.data_ptr()
    places = {sample.untyped_storage().data_ptr() for i in range(3) for sample in (split[i].image, split[i].label)}
    assert len(places) == 1


def test_a_careless_change_in_place_reaches_nobody_else() -> None:
    dataset = shapes()
    split, direct = open_decoded(dataset, "train"), DecodedSplit(dataset.split("train"))
    pixels = caches() / cache_key(dataset, "train") / "pixels.bin"
    before = pixels.read_bytes()
    split[0].image.fill_(7)
    split[1].label.mul_(0)
    split[2].image.numpy()[:] = 9
    assert pixels.read_bytes() == before
    assert same(open_decoded(dataset, "train"), direct)


def test_samples_stay_when_the_cache_is_gone() -> None:
    dataset = shapes()
    split, direct = open_decoded(dataset, "train"), DecodedSplit(dataset.split("train"))
    folder = caches() / cache_key(dataset, "train")
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    assert same(split, direct)


def test_a_sample_that_is_not_there_is_an_index_error() -> None:
    split = open_decoded(shapes(), "train")
    with pytest.raises(IndexError):
        split[3]


META = torch.device("meta")
"""A device that every machine has: its tensors have a shape and no content."""


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize(("fitting", "kept"), [(0, 0), (2, 2), (2.9, 2), (3, 3), (9, 3)])
def test_what_fits_into_a_share_of_the_free_memory_stays_on_the_device(cached: bool, fitting: float, kept: int) -> None:
    dataset = shapes()
    split = open_decoded(dataset, "train") if cached else DecodedSplit(dataset.split("train"))
    free = int(fitting * split[0].nbytes / DEVICE_SHARE)
    moved = split.to(META, free=free)
    assert moved.ids == split.ids and len(moved) == 3
    first = [moved[index] for index in range(3)]
    assert all(sample.image.device == sample.label.device == META for sample in first)
    assert [sample.image.shape for sample in first] == [split[index].image.shape for index in range(3)]
    assert sum(moved[index] is first[index] for index in range(3)) == kept


def test_a_device_whose_memory_cannot_be_asked_keeps_nothing() -> None:
    moved = open_decoded(shapes(), "train").to(META)
    assert moved[0] is not moved[0]


def test_on_the_cpu_nothing_moves_and_a_device_split_has_the_same_samples() -> None:
    split = open_decoded(shapes(), "train")
    assert split.to(torch.device("cpu"), free=10**9) is split
    assert same(DeviceSplit(split, torch.device("cpu"), 10**9), split)


@given(st.lists(st.integers(0, 2), max_size=12), st.integers(0, 4))
@quickly
def test_samples_ahead_come_in_the_order_asked_for(order: list[int], count: int) -> None:
    split = open_decoded(shapes(), "train")
    for index, sample in zip(order, split.ahead(order, count), strict=True):
        assert torch.equal(sample.image, split[index].image)


def test_no_more_is_made_ahead_than_asked_and_nothing_after_the_end() -> None:
    asked: list[int] = []

    def indices() -> Iterator[int]:
        for index in (0, 1, 2, 0, 1, 2):
            asked.append(index)
            yield index

    samples = open_decoded(shapes(), "train").ahead(indices(), 2)
    next(samples)
    assert asked == [0, 1, 2]
    samples.close()
    assert asked == [0, 1, 2]


def test_what_fails_ahead_is_raised_where_it_is_used() -> None:
    samples = open_decoded(shapes(), "train").ahead([0, 7], 4)
    next(samples)
    with pytest.raises(IndexError):
        next(samples)


def test_the_real_validation_images_from_the_cache_are_those_decoded(real_data: Path) -> None:
    dataset = CamVid(real_data / "camvid")
    found, direct = open_decoded(dataset, "val"), DecodedSplit(dataset.split("val"), budget=0)
    assert isinstance(found, MappedSplit) and found.ids == direct.ids
    for index in range(0, len(direct), 10):
        a, b = found[index], direct[index]
        assert torch.equal(a.image, b.image) and torch.equal(a.label, b.label)


def test_the_map_is_that_of_the_whole_file() -> None:
    dataset = shapes()
    open_decoded(dataset, "train")
    found = open_cache(caches() / cache_key(dataset, "train"))
    assert len(found.pixels) == (caches() / found.index.key / "pixels.bin").stat().st_size
    assert module.MappedSplit(found).ids == dataset.split("train").ids
