"""Datasets of files: decoding, invalid files, and the fingerprint of the content."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fcnlab.data.cache.format import compute_cache_key
from fcnlab.data.datasets import fingerprint
from fcnlab.data.datasets.base import FileDataset
from fcnlab.data.datasets.camvid import CamVid
from fcnlab.data.datasets.fingerprint import hash_file
from fcnlab.data.datasets.voc import Voc2012
from fcnlab.errors import DataError
from fcnlab.settings import cache_folder
from tests.data.folder_dataset import open_folder
from tests.data.images import HEIGHT, WIDTH, random_image, random_mask, save_image

CAMVID = {"train": ("a1", "a2", "a3"), "val": ("b1", "b2"), "test": ("c1",)}
VOC = {"train": ("2007_01", "2007_02", "2007_03"), "val": ("2007_04",)}


@pytest.fixture
def camvid(tmp_path: Path) -> CamVid:
    """Image n and mask n are `random_image(n)` and `random_mask(n, 0..11)`, numbered over all splits."""
    root = tmp_path / "camvid"
    ids = [(split, id_) for split, names in CAMVID.items() for id_ in names]
    for number, (split, id_) in enumerate(ids):
        save_image(random_image(number), root / split / f"{id_}.png")
        save_image(random_mask(number, list(range(12))), root / f"{split}annot" / f"{id_}.png")
    return CamVid(root)


@pytest.fixture
def voc(tmp_path: Path) -> Voc2012:
    """Masks are palette images with labels 0..20 and 255."""
    root = tmp_path / "VOC2012"
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for split, names in VOC.items():
        lists.joinpath(f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    for number, id_ in enumerate(id_ for names in VOC.values() for id_ in names):
        save_image(random_image(number), root / "JPEGImages" / f"{id_}.jpg")
        save_image(random_mask(number, [*range(21), 255]), root / "SegmentationClass" / f"{id_}.png", palette=True)
    return Voc2012(root)


def test_camvid_decodes_to_its_pixels_with_label_11_ignored(camvid: CamVid) -> None:
    split = camvid.split("val")
    assert split.ids == ("b1", "b2")
    for number, sample in enumerate(split, start=3):
        mask = random_mask(number, list(range(12)))
        np.testing.assert_array_equal(sample.image, random_image(number))
        np.testing.assert_array_equal(sample.label, np.where(mask == 11, 255, mask))
        assert sample.image.dtype == sample.label.dtype == np.uint8


def test_voc_decodes_palette_masks_to_their_numbers_with_void_ignored(voc: Voc2012) -> None:
    split = voc.split("train")
    assert split.ids == VOC["train"]
    for number, sample in enumerate(split):
        with Image.open(voc.root / "JPEGImages" / f"{sample.id}.jpg") as jpeg:
            np.testing.assert_array_equal(sample.image, np.asarray(jpeg))
        np.testing.assert_array_equal(sample.label, random_mask(number, [*range(21), 255]))


def test_voc_keeps_the_order_of_its_lists(voc: Voc2012) -> None:
    (voc.root / "ImageSets/Segmentation/train.txt").write_text("2007_03\n2007_01\n")
    assert voc.split("train").ids == ("2007_03", "2007_01")


def test_a_gray_or_palette_image_decodes_to_three_channels(camvid: CamVid) -> None:
    gray = random_mask(0, [0, 100, 200])
    save_image(gray, camvid.root / "train/a1.png")
    np.testing.assert_array_equal(camvid.split("train")[0].image, np.repeat(gray[:, :, None], 3, axis=2))


def test_hidden_files_in_an_image_folder_are_not_samples(camvid: CamVid) -> None:
    (camvid.root / "train/.DS_Store").write_bytes(b"x")
    assert camvid.split("train").ids == CAMVID["train"]


MASK, IMAGE = "trainannot/a2.png", "train/a2.png"
PROBLEMS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "a missing mask": (MASK, Path.unlink, "no such file"),
    "a mask of another size": (
        MASK,
        lambda path: save_image(np.zeros((5, 8), np.uint8), path),
        r"the mask is 5x8 \(height x width\), its image .*train/a2\.png is 6x8",
    ),
    "a truncated image": (IMAGE, lambda path: path.write_bytes(path.read_bytes()[:80]), "cannot be decoded"),
    "an undefined label": (
        MASK,
        lambda path: save_image(np.full((HEIGHT, WIDTH), 12, np.uint8), path),
        r"undefined labels: 12 in 48 pixels: neither a class \(0\.\.10\) nor ignored \(11, 255\)",
    ),
    "a color mask": (
        MASK,
        lambda path: save_image(random_image(0), path),
        "mode RGB; expected class numbers: one channel of 8 or 16 bits",
    ),
    "a 16-bit mask with other values": (
        MASK,
        lambda path: save_image(np.full((HEIGHT, WIDTH), 300, np.uint16), path),
        f"undefined labels: 300 in {HEIGHT * WIDTH} pixels",
    ),
    "a transparent mask": (
        MASK,
        lambda path: save_image(np.zeros((HEIGHT, WIDTH, 4), np.uint8), path),
        f"{HEIGHT * WIDTH} pixels of the mask are transparent",
    ),
    "a mask that is no image": (MASK, lambda path: path.write_bytes(b"not an image"), "cannot be decoded"),
    "an image that is no image": (IMAGE, lambda path: path.write_bytes(b"not an image"), "cannot be decoded"),
    "an empty image file": (IMAGE, lambda path: path.write_bytes(b""), "cannot be decoded"),
}


@pytest.mark.parametrize(("file", "harm", "message"), PROBLEMS.values(), ids=PROBLEMS)
def test_invalid_file_error_names_the_file(
    camvid: CamVid, file: str, harm: Callable[[Path], object], message: str
) -> None:
    path = camvid.root / file
    harm(path)
    split = camvid.split("train")
    with pytest.raises(DataError, match=rf"^{re.escape(str(path))}: .*{message}"):
        split[1]
    assert split[0].id == "a1" and split[2].id == "a3"


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 400), junk=st.binary(max_size=40), format_=st.sampled_from(["png", "jpg"]))
def test_a_cut_or_overwritten_file_decodes_or_is_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, cut: int, junk: bytes, format_: str
) -> None:
    folder = tmp_path_factory.mktemp("harmed")
    save_image(random_mask(0, [0, 1]), folder / "trainannot/x.png")
    path = folder / f"train/x.{format_}"
    save_image(random_image(0), path)
    whole = path.read_bytes()
    path.write_bytes(whole[:cut] + junk)
    try:
        assert CamVid(folder).split("train")[0].image.shape[2] == 3
    except DataError as error:
        assert str(folder) in str(error)  # noqa: PT017 - either outcome is right, another exception is not


def test_an_undefined_label_in_a_palette_mask_is_named(voc: Voc2012) -> None:
    mask = random_mask(0, [0, 1])
    mask[2, 3] = 21
    path = voc.root / "SegmentationClass/2007_04.png"
    save_image(mask, path, palette=True)
    with pytest.raises(
        DataError, match=rf"^{re.escape(str(path))}: undefined labels: 21 in 1 pixels: .*\(0\.\.20\).*\(255\)"
    ):
        voc.split("val")[0]


def test_missing_root_error_names_the_option(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: no such folder; set --data-root or FCNLAB_DATA"):
        CamVid(tmp_path / "nowhere").split("train")


def test_an_unknown_split_is_an_error_that_names_the_nearest(camvid: CamVid, voc: Voc2012) -> None:
    with pytest.raises(DataError, match="no split 'tran'; did you mean 'train'"):
        camvid.split("tran")
    with pytest.raises(DataError, match=r"no split 'test'; .*valid: .*train, trainaug, trainval, val"):
        voc.fingerprint(("test",))


def test_a_split_without_images_is_an_error_that_shows_the_layout(camvid: CamVid, voc: Voc2012) -> None:
    for path in (camvid.root / "val").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"'val' is empty; the expected layout is \{train,val,test\}/"):
        camvid.split("val")
    (voc.root / "ImageSets/Segmentation/val.txt").write_text("\n")
    with pytest.raises(DataError, match="'val' is empty; the expected layout is JPEGImages/"):
        voc.split("val")


def test_an_image_that_a_list_of_voc_repeats_is_an_error_that_names_the_list(voc: Voc2012) -> None:
    file = voc.root / "ImageSets/Segmentation/val.txt"
    file.write_text("2007_04\n2007_04\n")
    with pytest.raises(DataError, match=f"^{file}: 'val' contains the image '2007_04' 2 times; list each image once$"):
        voc.split("val")


def test_a_missing_folder_or_list_is_an_error_that_names_it(camvid: CamVid, voc: Voc2012) -> None:
    shutil.rmtree(camvid.root / "test")
    with pytest.raises(DataError, match=rf"^{re.escape(str(camvid.root / 'test'))}: no such folder"):
        camvid.split("test")
    with pytest.raises(DataError, match=r"ImageSets/Segmentation/trainval\.txt: no such file; the expected layout"):
        voc.split("trainval")


def test_fingerprint_does_not_depend_on_location(camvid: CamVid, tmp_path: Path) -> None:
    before = camvid.fingerprint(("train", "val"))
    elsewhere = shutil.copytree(camvid.root, tmp_path / "elsewhere" / "other-name")
    assert CamVid(elsewhere).fingerprint(("train", "val")) == before


@pytest.mark.parametrize("file", ["train/a2.png", "trainannot/a2.png"])
def test_the_fingerprint_changes_with_one_byte_of_the_same_size(camvid: CamVid, file: str) -> None:
    before = camvid.fingerprint(("train",))
    path = camvid.root / file
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))  # even where the clock is too coarse to show the change
    assert camvid.fingerprint(("train",)) != before


def test_the_fingerprint_changes_with_the_size_even_if_the_time_does_not(camvid: CamVid) -> None:
    before = camvid.fingerprint(("train",))
    path = camvid.root / "train/a2.png"
    status = path.stat()
    path.write_bytes(path.read_bytes() + b"\0")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert camvid.fingerprint(("train",)) != before


def test_the_fingerprint_changes_with_the_content_even_if_size_and_time_do_not(
    camvid: CamVid, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprint, "KEPT_AFTER", 0.0)  # keep the digests of new files
    before = camvid.fingerprint(("train",))
    file = camvid.root / "train/a2.png"
    status = file.stat()
    time.sleep(0.02)  # longer than the resolution of the times of a file
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    with file.open("r+b") as opened:
        opened.write(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert camvid.fingerprint(("train",)) != before


def test_the_fingerprint_changes_with_order_ids_and_membership(voc: Voc2012) -> None:
    list_files = voc.root / "ImageSets/Segmentation/train.txt"
    prints = {voc.fingerprint(("train",)), voc.fingerprint(("val",)), voc.fingerprint(("train", "val"))}
    for names in ("2007_02 2007_01 2007_03", "2007_01 2007_02", "2007_01 2007_02 2007_03 2007_04"):
        list_files.write_text(names)
        prints.add(Voc2012(voc.root).fingerprint(("train",)))
    list_files.write_text("2007_01 2007_02 renamed")
    for folder, suffix in (("JPEGImages", "jpg"), ("SegmentationClass", "png")):
        (voc.root / folder / f"2007_03.{suffix}").rename(voc.root / folder / f"renamed.{suffix}")
    prints.add(Voc2012(voc.root).fingerprint(("train",)))
    assert len(prints) == 7


def test_the_fingerprint_ignores_splits_that_are_not_used(camvid: CamVid) -> None:
    before = camvid.fingerprint(("train", "val"))
    shutil.rmtree(camvid.root / "test")
    assert camvid.fingerprint(("train", "val")) == before


def _forget() -> None:
    shutil.rmtree(cache_folder())


def _tear() -> None:
    for path in cache_folder().rglob("*.json"):
        path.write_text(path.read_text()[:30])


def _replace() -> None:
    for path in cache_folder().rglob("*.json"):
        path.write_text(json.dumps(["not", "a", "mapping"]))


@pytest.mark.parametrize("harm", [lambda: None, _forget, _tear, _replace], ids=["kept", "lost", "torn", "strange"])
def test_fingerprint_does_not_depend_on_its_cache(
    camvid: CamVid, harm: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprint, "KEPT_AFTER", 0.0)  # keep the digests of new files
    before = camvid.fingerprint(("train", "val"))
    assert list(cache_folder().rglob("*.json"))
    harm()
    assert camvid.fingerprint(("train", "val")) == before


def test_an_unchanged_file_is_not_read_again(camvid: CamVid, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "KEPT_AFTER", 0.0)  # keep the digests of new files
    before = camvid.fingerprint(("train",))
    read: list[Path] = []
    monkeypatch.setattr(fingerprint, "hash_file", read.append)
    assert camvid.fingerprint(("train",)) == before
    assert not read


@pytest.fixture
def read_files(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are read for their digests, in order. The digests of new files are kept."""
    monkeypatch.setattr(fingerprint, "KEPT_AFTER", 0.0)
    read: list[Path] = []

    def read_and_hash(path: Path) -> str:
        read.append(path)
        return hash_file(path)

    monkeypatch.setattr(fingerprint, "hash_file", read_and_hash)
    return read


def test_splits_folds_and_cache_keys_of_a_dataset_read_each_file_once(
    camvid: CamVid, tmp_path: Path, read_files: list[Path]
) -> None:
    camvid.fingerprint(("train", "val", "test"))
    for split in CAMVID:
        compute_cache_key(camvid, split)
        camvid.image_digests((split,))
    assert sorted(read_files) == sorted({*read_files}) and len(read_files) == 12

    read_files.clear()
    for number in range(6):
        save_image(random_image(number), tmp_path / f"grouped/images/video_{number % 3}/{number}.png")
        save_image(random_mask(number, [0, 1]), tmp_path / f"grouped/masks/video_{number % 3}/{number}.png")
    for fold in range(3):
        parts = {"folds": 3, "group_by": "video_[0-9]+", "fold": fold}
        dataset = open_folder(tmp_path / "grouped", cross_validation=parts)
        dataset.fingerprint(("train", "val"))
        compute_cache_key(dataset, "val")
    assert sorted(read_files) == sorted({*read_files}) and len(read_files) == 12


def test_digests_that_another_process_keeps_meanwhile_are_not_lost(
    camvid: CamVid, read_files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    read_and_hash = fingerprint.hash_file

    def other_process(path: Path) -> str:
        monkeypatch.setattr(fingerprint, "hash_file", read_and_hash)
        CamVid(camvid.root).fingerprint(("val",))
        return read_and_hash(path)

    monkeypatch.setattr(fingerprint, "hash_file", other_process)
    camvid.fingerprint(("train",))
    assert len(read_files) == 10
    camvid.fingerprint(("train", "val"))
    assert len(read_files) == 10


def test_unwritable_fingerprint_cache_is_ignored(
    camvid: CamVid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = camvid.fingerprint(("train",))
    blocked = tmp_path / "a-file"
    blocked.write_text("no folder")
    monkeypatch.setenv("FCNLAB_CACHE", str(blocked))
    assert camvid.fingerprint(("train",)) == before
    assert blocked.read_text() == "no folder"


def test_the_fingerprint_of_a_dataset_with_a_missing_mask_is_an_error_that_names_it(camvid: CamVid) -> None:
    path = camvid.root / "trainannot/a2.png"
    path.unlink()
    with pytest.raises(DataError, match=rf"^{re.escape(str(path))}: cannot be read"):
        camvid.fingerprint(("train",))


def test_the_digest_of_a_file_is_its_sha256(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert hash_file(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    with pytest.raises(DataError, match="gone: cannot be read: No such file"):
        hash_file(tmp_path / "gone")


@pytest.mark.parametrize("dataset", [CamVid, Voc2012])
def test_class_names_are_unique_and_have_the_published_number(dataset: type[FileDataset]) -> None:
    assert len(set(dataset.classes)) == len(dataset.classes) == {CamVid: 11, Voc2012: 21}[dataset]
