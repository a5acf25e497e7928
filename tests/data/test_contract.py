"""Properties of every dataset, each on a tiny copy of its real layout."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from fcnlab.config.dataset import Dataset
from fcnlab.config.registry import builtin
from fcnlab.data.datasets.ade20k import Ade20k
from fcnlab.data.datasets.base import FileDataset
from fcnlab.data.datasets.camvid import CamVid
from fcnlab.data.datasets.cityscapes import Cityscapes
from fcnlab.data.datasets.table import FILE_DATASETS
from fcnlab.data.datasets.voc import Voc2012
from fcnlab.errors import DataError
from tests.data.folder_dataset import open_folder
from tests.data.images import HEIGHT, WIDTH, random_image, random_mask, save_image
from tests.data.test_matlab import damages


def write(path: Path, ids: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{id_}\n" for id_ in ids))


def save_mat(mask: np.ndarray, path: Path, field: str = "Segmentation", *, compressed: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # As SBD has it: a structure with three fields, which is compressed.
    structure = {"Boundaries": np.zeros((2, 1), dtype=object), field: mask, "CategoriesPresent": np.array([[1]])}
    savemat(path, {"GTcls": structure}, do_compression=compressed)
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(116) + path.read_bytes()[116:])  # its header has the time of day


def make_camvid(root: Path) -> FileDataset:
    for number, (split, id_) in enumerate([("train", "a1"), ("train", "a2"), ("val", "b1"), ("test", "c1")]):
        save_image(random_image(number), root / split / f"{id_}.png")
        save_image(random_mask(number, list(range(12))), root / f"{split}annot" / f"{id_}.png")
    return CamVid(root)


VOC = {"train": ["2007_01", "2007_02"], "val": ["2007_03"], "trainval": ["2007_01", "2007_02", "2007_03"]}
SBD = {"train": ["2007_02", "2008_05", "2008_04"], "val": ["2007_03", "2008_06"]}


def make_voc(root: Path) -> Voc2012:
    """Write VOC's kit to VOCdevkit/VOC2012 and SBD next to it, as their archives unpack. One image is in neither."""
    kit, sbd = root / "VOCdevkit" / "VOC2012", root / "benchmark_RELEASE" / "dataset"
    for split, ids in VOC.items():
        write(kit / "ImageSets/Segmentation" / f"{split}.txt", ids)
    for number, id_ in enumerate(sorted({*VOC["trainval"], *SBD["train"], *SBD["val"], "2009_07"})):
        save_image(random_image(number), kit / "JPEGImages" / f"{id_}.jpg")
        if id_ in VOC["trainval"]:
            save_image(random_mask(number, [*range(21), 255]), kit / "SegmentationClass" / f"{id_}.png", palette=True)
    for split, ids in SBD.items():
        write(sbd / f"{split}.txt", ids)
        for number, id_ in enumerate(ids):
            save_mat(random_mask(100 + number, list(range(21))), sbd / "cls" / f"{id_}.mat")
    write(kit / "ImageSets/Segmentation/seg11valid.txt", ["2007_03"])
    return Voc2012(kit)


CITIES = {"train": {"aachen": 2, "bochum": 1}, "val": {"frankfurt": 1}}


def make_cityscapes(root: Path) -> FileDataset:
    for split, cities in CITIES.items():
        for city, count in cities.items():
            for number in range(count):
                stem = f"{city}_{number:06d}_000019"
                fine = root / "gtFine" / split / city
                save_image(random_image(number), root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png")
                save_image(random_mask(number, list(range(34))), fine / f"{stem}_gtFine_labelIds.png")
                save_image(random_mask(number, list(range(3))), fine / f"{stem}_gtFine_instanceIds.png")  # not ours
    return Cityscapes(root)


def make_ade20k(root: Path) -> FileDataset:
    for split, ids in {"training": ["ADE_train_01", "ADE_train_02"], "validation": ["ADE_val_01"]}.items():
        for number, id_ in enumerate(ids):
            save_image(random_image(number), root / "images" / split / f"{id_}.jpg")
            save_image(random_mask(number, list(range(151))), root / "annotations" / split / f"{id_}.png")
    return Ade20k(root)


COLORS = {"road": "#804080", "tree": "#6b8e23", "void": "#000000"}


def make_folder(root: Path) -> FileDataset:
    """Numbers with gaps, one class of two numbers, masks with a suffix, folders below."""
    for split, ids in {"train": ["x/a", "x/b", "c"], "val": ["d"]}.items():
        for number, id_ in enumerate(ids):
            save_image(random_image(number), root / "images" / split / f"{id_}.jpg")
            save_image(random_mask(number, [0, 7, 9, 30, 255]), root / "masks" / split / f"{id_}_mask.png")
    folders = {"images": "images/{split}", "masks": "masks/{split}"}
    return open_folder(root, **folders, mask_suffix="_mask", classes={"ground": 0, "road": [7, 9]}, ignore=30)


def make_colored(root: Path) -> FileDataset:
    """Write RGB masks, with random splits."""
    table = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in COLORS.values()], dtype=np.uint8)
    for number in range(6):
        save_image(random_image(number), root / "images" / f"{number}.png")
        save_image(table[random_mask(number, [0, 1, 2])], root / "masks" / f"{number}.png")
    return open_folder(root, classes={"road": "#804080", "tree": "#6b8e23"}, ignore="#000000")


@dataclass(frozen=True)
class Case:
    make: Callable[[Path], FileDataset]
    splits: tuple[str, ...]
    bad_mask: Callable[[], np.ndarray]


def out_of_range() -> np.ndarray:
    return np.full((HEIGHT, WIDTH), 200, dtype=np.uint8)


CASES: dict[str, Case] = {
    "camvid": Case(make_camvid, ("train", "val", "test"), out_of_range),
    "voc2012": Case(make_voc, ("train", "val", "trainval", "trainaug", "sbdtrain", "seg11valid"), out_of_range),
    "cityscapes": Case(make_cityscapes, ("train", "val"), out_of_range),
    "ade20k": Case(make_ade20k, ("training", "validation"), out_of_range),
    "folder": Case(make_folder, ("train", "val"), out_of_range),
    "folder of colors": Case(make_colored, ("train", "val"), lambda: random_image(77)),
}
cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def test_every_dataset_with_files_has_a_case() -> None:
    assert FILE_DATASETS.keys() <= CASES.keys()


@cases
def test_ids_are_unique_and_the_same_each_time(case: Case, tmp_path: Path) -> None:
    dataset = case.make(tmp_path / "data")
    for name in case.splits:
        ids = dataset.split(name).ids
        assert ids and len(set(ids)) == len(ids)
        assert case.make(tmp_path / "data").split(name).ids == ids


@cases
def test_samples_are_images_with_labels_of_the_classes(case: Case, tmp_path: Path) -> None:
    dataset = case.make(tmp_path / "data")
    labels = {*range(len(dataset.classes)), 255}
    for name in case.splits:
        split = dataset.split(name)
        assert [sample.id for sample in split] == list(split.ids) and len(split) == len(split.ids)
        for sample in split:
            assert sample.image.shape == (HEIGHT, WIDTH, 3) and sample.label.shape == (HEIGHT, WIDTH)
            assert sample.image.dtype == sample.label.dtype == np.uint8
            assert {*np.unique(sample.label).tolist()} <= labels
    assert len({*dataset.classes}) == len(dataset.classes) and all(dataset.classes)


@cases
def test_train_and_val_share_no_image(case: Case, tmp_path: Path) -> None:
    dataset = case.make(tmp_path / "data")
    train, val = (dataset.split(name).ids for name in case.splits[:2])
    assert not {*train} & {*val}


@cases
def test_fingerprint_depends_on_content_not_on_location(case: Case, tmp_path: Path) -> None:
    dataset = case.make(tmp_path / "data")
    before = dataset.fingerprint(case.splits)
    assert dataset.fingerprint(case.splits) == before
    shutil.copytree(tmp_path / "data", tmp_path / "elsewhere/other")
    shutil.rmtree(tmp_path / "data")
    assert case.make(tmp_path / "elsewhere/other").fingerprint(case.splits) == before


@cases
@pytest.mark.parametrize("role", ["image", "mask"])
def test_the_fingerprint_changes_with_every_file(case: Case, role: str, tmp_path: Path) -> None:
    dataset = case.make(tmp_path / "data")
    seen = {dataset.fingerprint(case.splits)}
    paths = {getattr(pair, role) for split in case.splits for pair in dataset.list_pairs(split)}
    for path in sorted(paths):
        path.write_bytes(path.read_bytes() + b"\0")
        os.utime(path, ns=(1, 1))
        seen.add(dataset.fingerprint(case.splits))
    assert len(seen) == len(paths) + 1


@cases
@pytest.mark.parametrize("role", ["image", "mask"])
@pytest.mark.parametrize("harm", ["missing", "garbage", "empty"])
def test_invalid_file_error_is_one_line_and_other_samples_decode(
    case: Case, role: str, harm: str, tmp_path: Path
) -> None:
    dataset = case.make(tmp_path / "data")
    for name in case.splits:
        split = dataset.split(name)
        path = getattr(dataset.list_pairs(name)[0], role)
        whole = path.read_bytes()
        path.unlink() if harm == "missing" else path.write_bytes(b"garbage" if harm == "garbage" else b"")
        with pytest.raises(DataError, match=rf"^{re.escape(str(path))}: ") as caught:
            split[0]
        assert len(str(caught.value).splitlines()) == 1
        assert [split[i].id for i in range(1, len(split))] == list(split.ids[1:])
        path.write_bytes(whole)


@cases
def test_wrong_mask_size_or_value_error_is_one_line(case: Case, tmp_path: Path) -> None:
    dataset = case.make(tmp_path / "data")
    name = case.splits[0]
    path = dataset.list_pairs(name)[0].mask
    for pixels, message in (
        (case.bad_mask()[:5], r"the mask is 5x8 \(height x width\), its image .* is 6x8"),
        (case.bad_mask(), "neither a class"),
    ):
        save_image(pixels, path)
        with pytest.raises(DataError, match=rf"^{re.escape(str(path))}: .*{message}") as caught:
            dataset.split(name)[0]
        assert len(str(caught.value).splitlines()) == 1


@cases
def test_unknown_split_and_missing_folder_errors_are_one_line(case: Case, tmp_path: Path) -> None:
    dataset = case.make(tmp_path / "data")
    with pytest.raises(DataError, match=f"no split 'tran'; .*valid: .*{case.splits[0]}"):
        dataset.split("tran")
    shutil.rmtree(tmp_path / "data")
    for name in case.splits:
        with pytest.raises(DataError, match=str(tmp_path)) as caught:
            dataset.split(name)
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", [n for n in builtin().names("dataset") if not n.startswith("shapes")])
def test_splits_of_built_in_entries_exist(name: str, tmp_path: Path) -> None:
    entry = builtin().get("dataset", name)
    assert isinstance(entry, Dataset)
    dataset = CASES[entry.type].make(tmp_path)
    assert all(len(dataset.split(split)) for split in entry.used_splits)


# --- VOC with SBD ----------------------------------------------------------------------------------------------------


def masks_of(dataset: Voc2012, split: str) -> dict[str, str]:
    return {pair.id: str(pair.mask.relative_to(dataset.root.parents[1])) for pair in dataset.list_pairs(split)}


AUG = ["2007_01", "2007_02", "2008_04", "2008_05", "2008_06"]


def test_trainaug_is_sbd_and_voc_train_without_voc_val_and_prefers_masks_of_voc(tmp_path: Path) -> None:
    own, sbd = "VOCdevkit/VOC2012/SegmentationClass", "benchmark_RELEASE/dataset/cls"
    expected = {id_: f"{own}/{id_}.png" if id_ < "2008" else f"{sbd}/{id_}.mat" for id_ in AUG}
    assert masks_of(make_voc(tmp_path), "trainaug") == expected


def test_trainaug_is_the_same_with_masks_of_sbd_as_images(tmp_path: Path) -> None:
    voc = make_voc(tmp_path)
    shutil.rmtree(tmp_path / "benchmark_RELEASE")
    for id_ in [*AUG, *VOC["val"]]:  # as the archive has it: val too
        save_image(random_mask(0, [0, 5]), voc.root / "SegmentationClassAug" / f"{id_}.png")
    assert list(masks_of(voc, "trainaug")) == AUG
    folders = {id_: Path(mask).parent.name for id_, mask in masks_of(voc, "trainaug").items()}
    assert folders == {id_: "SegmentationClass" if id_ < "2008" else "SegmentationClassAug" for id_ in AUG}
    assert voc.split("trainaug")[4].label.max() == 5


def test_trainaug_list_of_the_kit_is_used_unchanged(tmp_path: Path) -> None:
    voc = make_voc(tmp_path)
    write(voc.root / "ImageSets/Segmentation/trainaug.txt", ["2008_06", "2007_01"])
    assert voc.split("trainaug").ids == ("2008_06", "2007_01")


def test_sbdtrain_has_the_list_and_the_masks_of_sbd(tmp_path: Path) -> None:
    split = make_voc(tmp_path).split("sbdtrain")
    assert split.ids == tuple(SBD["train"])
    for number, sample in enumerate(split):
        np.testing.assert_array_equal(sample.label, random_mask(100 + number, list(range(21))))


def test_seg11valid_follows_its_definition_or_its_list_is_requested(tmp_path: Path) -> None:
    voc = make_voc(tmp_path)
    file = voc.root / "ImageSets/Segmentation/seg11valid.txt"
    file.unlink()
    with pytest.raises(DataError) as caught:
        voc.split("seg11valid")
    output = str(caught.value)
    assert output.startswith(f"{file}: no such file; ") and len(output.splitlines()) == 1
    assert "data/pascal/seg11valid.txt of github.com/shelhamer/fcn.berkeleyvision.org" in output
    write(tmp_path / "VOCdevkit/VOC2011/ImageSets/Segmentation/val.txt", ["2007_02", "2007_03", "2009_07"])
    assert voc.split("seg11valid").ids == ("2007_03", "2009_07")


@pytest.mark.parametrize("split", ["trainaug", "sbdtrain"])
def test_missing_sbd_error_names_its_folder(split: str, tmp_path: Path) -> None:
    voc = make_voc(tmp_path)
    shutil.rmtree(tmp_path / "benchmark_RELEASE")
    with pytest.raises(DataError, match=f"^{tmp_path}/benchmark_RELEASE/dataset: no such folder.*'{split}' needs"):
        voc.split(split)
    assert len(voc.split("train")) == 2


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: save_mat(random_mask(0, [1]), path, field="Other"),
        lambda path: savemat(path, {"GTinst": {"Segmentation": random_mask(0, [1])}}),
        lambda path: savemat(path, {"GTcls": random_mask(0, [1])}),
        lambda path: save_mat(random_mask(0, [1]).astype(np.float64), path),
        lambda path: save_mat(random_image(0), path),
    ],
    ids=["another field", "another variable", "no structure", "floats", "three channels"],
)
def test_an_invalid_matlab_file_is_a_one_line_error(harm: Callable[[Path], None], tmp_path: Path) -> None:
    voc = make_voc(tmp_path)
    path = voc.list_pairs("sbdtrain")[0].mask
    harm(path)
    with pytest.raises(DataError, match=rf"^{re.escape(str(path))}: .*GTcls") as caught:
        voc.split("sbdtrain")[0]
    assert len(str(caught.value).splitlines()) == 1


@settings(max_examples=80, deadline=None)
@given(damage=damages(st.binary(max_size=40)), compressed=st.booleans())
def test_a_damaged_matlab_file_decodes_or_is_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, damage: Callable[[bytes], bytes], compressed: bool
) -> None:
    voc = make_voc(tmp_path_factory.mktemp("harmed"))
    path = voc.list_pairs("sbdtrain")[0].mask
    save_mat(random_mask(100, list(range(21))), path, compressed=compressed)
    path.write_bytes(damage(path.read_bytes()))
    try:
        assert voc.split("sbdtrain")[0].label.shape == (HEIGHT, WIDTH)
    except DataError as error:
        assert str(path) in str(error)  # noqa: PT017 - either outcome is right, another exception is not


# --- tables of labels ------------------------------------------------------------------------------------------------


def decoded(dataset: FileDataset, split: str, values: range, path: Path) -> list[int]:
    """Return the labels of these values of a mask."""
    pair = dataset.list_pairs(split)[0]
    save_image(np.zeros((1, len(values), 3), dtype=np.uint8), pair.image)
    save_image(np.array([values], dtype=np.uint8), pair.mask)
    return dataset.split(split)[0].label[0].tolist()


def test_cityscapes_maps_label_ids_to_the_19_train_ids(tmp_path: Path) -> None:
    dataset = make_cityscapes(tmp_path)
    known = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    expected = [known.index(number) if number in known else 255 for number in range(34)]
    assert decoded(dataset, "train", range(34), tmp_path) == expected
    assert len(dataset.classes) == 19
    assert [dataset.classes[i] for i in (0, 5, 10, 13, 18)] == ["road", "pole", "sky", "car", "bicycle"]


def test_cityscapes_test_error_explains_missing_labels(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no public labels for 'test'; use val"):
        make_cityscapes(tmp_path).split("test")


def test_ade20k_counts_classes_from_1_and_ignores_0(tmp_path: Path) -> None:
    dataset = make_ade20k(tmp_path)
    assert decoded(dataset, "training", range(151), tmp_path) == [255, *range(150)]
    assert len(dataset.classes) == 150
    assert [dataset.classes[i] for i in (0, 1, 12, 66, 149)] == ["wall", "building", "person", "flower", "flag"]
