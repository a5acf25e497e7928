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

from fcnlab.config.augmentation import ColorJitter
from fcnlab.data import resident as module
from fcnlab.data.augmentation import Augmentation
from fcnlab.data.cache.format import SEAL, compute_cache_key, decoded_cache_folder, open_cache
from fcnlab.data.datasets.base import Dataset
from fcnlab.data.datasets.camvid import CamVid
from fcnlab.data.datasets.shapes import Shapes
from fcnlab.data.datasets.voc import Voc2012
from fcnlab.data.decoded import DecodedSplit, MappedSplit, open_decoded
from fcnlab.data.resident import DEVICE_SHARE, DeviceSplit, move_to_device, release_resident_splits
from fcnlab.kernels.inputs import DecodedSample
from tests.data.folder_dataset import open_folder

extents = st.integers(1, 20)
sizes = st.lists(st.tuples(extents, extents), min_size=1, max_size=6)
quickly = settings(max_examples=12, deadline=None)


def shapes(train: int = 3, size: tuple[int, int] = (24, 32), seed: int = 0) -> Shapes:
    return Shapes(train=train, val=1, test=1, height=size[0], width=size[1], seed=seed)


def same(one: DecodedSplit, two: DecodedSplit) -> bool:
    """Return whether two splits have the same samples, in the same layout."""
    assert one.ids == two.ids and len(one) == len(two)
    for index in range(len(one)):
        a, b = one[index], two[index]
        for x, y in ((a.image, b.image), (a.label, b.label)):
            assert x.dtype == y.dtype == torch.uint8
            if x.shape != y.shape or x.stride() != y.stride() or not torch.equal(x, y):
                return False
    return True


def check(dataset: Dataset, split: str = "train") -> None:
    """Check that the samples of a new and of an existing cache equal those that are decoded directly."""
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
def test_cached_camvid_equals_decoded(each: list[tuple[int, int]], seed: int, kind: str) -> None:
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
def test_cached_voc_equals_decoded(each: list[tuple[int, int]], seed: int) -> None:
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


def test_cached_folder_equals_decoded_and_key_depends_on_colors(
    tmp_path: Path,
) -> None:
    draw = np.random.default_rng(0)
    colors = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=np.uint8)
    for folder in ("images/train", "masks/train"):
        (tmp_path / folder).mkdir(parents=True)
    for number, size in enumerate([(5, 7), (3, 2), (9, 4)]):
        Image.fromarray(draw.integers(0, 256, (*size, 3)).astype(np.uint8)).save(
            tmp_path / f"images/train/{number}.png"
        )
        Image.fromarray(colors[draw.integers(0, 3, size)]).save(tmp_path / f"masks/train/{number}.png")
    folders = {"images": "images/{split}", "masks": "masks/{split}"}
    one = open_folder(tmp_path, **folders, classes={"a": "#ff0000", "b": "#00ff00"}, ignore="#0000ff")
    two = open_folder(tmp_path, **folders, classes={"a": "#00ff00", "b": "#ff0000"}, ignore="#0000ff")
    assert compute_cache_key(one, "train") != compute_cache_key(two, "train")
    check(one)
    check(two)


@quickly
@given(st.integers(0, 20), st.tuples(st.integers(16, 40), st.integers(16, 40)), st.integers(0, 99))
def test_cached_shapes_equal_generated(train: int, size: tuple[int, int], seed: int) -> None:
    dataset = shapes(train, size, seed)
    if train:
        check(dataset)
    else:
        assert len(open_decoded(dataset, "train")) == 0


def test_samples_and_batches_are_the_same_without_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = open_decoded(shapes(), "train")
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("FCNLAB_CACHE", str(tmp_path / "file"))
    without = open_decoded(shapes(), "train")
    assert isinstance(cached, MappedSplit) and not isinstance(without, MappedSplit)
    assert same(cached, without)
    augment = Augmentation(
        (20, 28), (0.5, 2.0), 0.5, (1, 2, 3), ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
    )
    for index in range(3):
        a, b = (augment(split[index], np.random.default_rng(index)) for split in (cached, without))
        assert torch.equal(a.image, b.image) and torch.equal(a.label, b.label)


def test_the_layout_changes_no_value_of_an_augmented_sample() -> None:
    augment = Augmentation(
        (20, 28), (0.5, 2.0), 0.5, (1, 2, 3), ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
    )
    split = open_decoded(shapes(8), "train")
    for index in range(8):
        planes = DecodedSample(split[index].image.contiguous(), split[index].label)
        a, b = (augment(sample, np.random.default_rng(index)) for sample in (split[index], planes))
        assert torch.equal(a.image, b.image) and torch.equal(a.label, b.label)


def test_mapped_samples_are_views_of_one_map() -> None:
    split = open_decoded(shapes(), "train")
    assert split[0].image.data_ptr() == split[0].image.data_ptr()
    places = {sample.untyped_storage().data_ptr() for i in range(3) for sample in (split[i].image, split[i].label)}
    assert len(places) == 1


def test_in_place_changes_stay_in_the_process() -> None:
    dataset = shapes()
    split, direct = open_decoded(dataset, "train"), DecodedSplit(dataset.split("train"))
    pixels = decoded_cache_folder() / compute_cache_key(dataset, "train") / "pixels.bin"
    before = pixels.read_bytes()
    split[0].image.fill_(7)
    split[1].label.mul_(0)
    split[2].image.numpy()[:] = 9
    assert pixels.read_bytes() == before
    assert same(open_decoded(dataset, "train"), direct)


def test_samples_remain_after_the_cache_is_removed() -> None:
    dataset = shapes()
    split, direct = open_decoded(dataset, "train"), DecodedSplit(dataset.split("train"))
    folder = decoded_cache_folder() / compute_cache_key(dataset, "train")
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    assert same(split, direct)


def test_missing_index_is_an_index_error() -> None:
    split = open_decoded(shapes(), "train")
    with pytest.raises(IndexError):
        split[3]


META = torch.device("meta")
"""A device that every machine has: its tensors have a shape and no content."""


CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def nothing_resident() -> Iterator[None]:
    release_resident_splits()
    yield
    release_resident_splits()


def split_of(dataset: Shapes, cached: bool) -> DecodedSplit:
    return open_decoded(dataset, "train") if cached else DecodedSplit(dataset.split("train"))


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize(("fitting", "resident"), [(0, False), (1, False), (2.9, False), (3, True), (9, True)])
@pytest.mark.parametrize("trials_per_device", [1, 4])
def test_a_split_stays_on_the_device_if_it_fits_into_a_trials_share_of_the_free_memory(
    cached: bool, fitting: float, resident: bool, trials_per_device: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = split_of(shapes(), cached)
    free = round(fitting * trials_per_device * split[0].nbytes / DEVICE_SHARE)
    monkeypatch.setattr(module, "_free_memory", lambda device: free)
    moved = move_to_device(split, META, trials_per_device)
    assert isinstance(moved, DeviceSplit) and move_to_device(moved, META) is moved
    assert moved.resident == resident and moved.ids == split.ids and len(moved) == 3
    for index in range(3):
        image, label = moved[index].image, moved[index].label
        assert image.device == label.device == META
        assert (image.shape, image.stride()) == (split[index].image.shape, split[index].image.stride())
        assert label.shape == split[index].label.shape


def test_device_with_unknown_memory_keeps_no_split() -> None:
    moved = move_to_device(open_decoded(shapes(), "train"), META)
    assert isinstance(moved, DeviceSplit) and not moved.resident


def test_split_larger_than_its_budget_is_not_resident() -> None:
    split = DecodedSplit(shapes().split("train"), budget=2 * 4 * 24 * 32)
    moved = DeviceSplit(split, CPU, 10**9)
    assert not moved.resident and same(moved, split)


def test_split_on_the_cpu_is_returned_unchanged() -> None:
    split = open_decoded(shapes(), "train")
    assert move_to_device(split, CPU) is split


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("budget", [0, 10**9])
@pytest.mark.parametrize("piece", [100, 2500, 64 * 2**20])
def test_a_device_split_has_the_samples_of_its_source(
    cached: bool, budget: int, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "UPLOAD_BUFFER_BYTES", piece)
    split = split_of(shapes(), cached)
    moved = DeviceSplit(split, CPU, budget)
    assert moved.resident == (budget > 0) and moved.source is split
    assert same(moved, split)
    order = [2, 0, 2]
    for sample, index in zip(moved.gather(order).samples(), order, strict=True):
        assert torch.equal(sample.image, split[index].image) and torch.equal(sample.label, split[index].label)


def test_an_empty_split_can_be_moved() -> None:
    assert len(DeviceSplit(open_decoded(shapes(0), "train"), CPU, 10**9)) == 0


def place_of(split: DecodedSplit) -> int:
    return split[0].image.untyped_storage().data_ptr()


def resident(seed: int = 0, budget: int = 10**9) -> DeviceSplit:
    return DeviceSplit(open_decoded(shapes(seed=seed), "train"), CPU, budget)


def test_a_later_trial_uses_the_split_that_is_resident() -> None:
    one = resident()
    place = place_of(one)
    del one
    again = resident()
    assert place_of(again) == place and place_of(resident(seed=1)) != place
    assert place_of(resident(budget=0)) == place  # it takes no more memory


def test_released_splits_are_uploaded_again_and_stay_valid_for_their_users() -> None:
    one = resident()
    release_resident_splits()
    two = resident()
    assert place_of(one) != place_of(two) and same(one, two)


def test_only_unused_splits_are_evicted() -> None:
    nbytes = 3 * 4 * 24 * 32
    kept = resident(seed=0)
    assert not resident(seed=1, budget=2 * nbytes - 1).resident  # the first one is in use
    assert resident(seed=1, budget=2 * nbytes).resident
    assert resident(seed=2, budget=2 * nbytes).resident  # instead of the second one, which is idle
    assert not DeviceSplit(open_decoded(shapes(seed=1), "train"), CPU, 0).resident
    assert DeviceSplit(open_decoded(shapes(seed=0), "train"), CPU, 0).resident
    assert place_of(kept) == place_of(resident(seed=0))


def test_split_used_only_by_garbage_is_evicted() -> None:
    cycle: list[object] = [resident(seed=0)]
    cycle.append(cycle)
    del cycle
    assert resident(seed=1, budget=3 * 4 * 24 * 32).resident


def test_few_splits_are_kept_and_the_least_recently_used_goes_first() -> None:
    for seed in range(module.MAX_RESIDENT_SPLITS):
        resident(seed)
    resident(0)
    resident(module.MAX_RESIDENT_SPLITS)
    found = [DeviceSplit(open_decoded(shapes(seed=seed), "train"), CPU, 0).resident for seed in range(5)]
    assert found == [True, False, True, True, True]


def test_cached_real_validation_images_equal_decoded(real_data: Path) -> None:
    dataset = CamVid(real_data / "camvid")
    found, direct = open_decoded(dataset, "val"), DecodedSplit(dataset.split("val"), budget=0)
    assert isinstance(found, MappedSplit) and found.ids == direct.ids
    for index in range(0, len(direct), 10):
        a, b = found[index], direct[index]
        assert torch.equal(a.image, b.image) and torch.equal(a.label, b.label)


def test_map_covers_the_whole_file() -> None:
    dataset = shapes()
    open_decoded(dataset, "train")
    found = open_cache(decoded_cache_folder() / compute_cache_key(dataset, "train"))
    assert len(found.pixels) == (decoded_cache_folder() / found.index.key / "pixels.bin").stat().st_size
    assert MappedSplit(found, dataset.split("train")).ids == dataset.split("train").ids


def test_a_damaged_sample_is_decoded_again_and_restored_in_the_cache() -> None:
    expected = DecodedSplit(shapes(4).split("train"))
    open_decoded(shapes(4), "train")
    (file,) = decoded_cache_folder().glob("*/pixels.bin")
    intact = file.read_bytes()
    damaged = bytearray(intact)
    damaged[7] ^= 16
    file.write_bytes(damaged)
    split = open_decoded(shapes(4), "train")
    assert same(split, expected)
    assert file.read_bytes() == intact
    file.write_bytes(damaged)
    pieces = torch.cat(list(open_decoded(shapes(4), "train").pieces()))
    assert pieces.numpy().tobytes() == intact[:-SEAL]
