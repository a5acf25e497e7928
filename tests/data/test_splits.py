"""Lists of pairs, and random splits and folds by group."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcnlab.config.dataset import CrossValidation
from fcnlab.data.datasets.splits import divide_ids, divide_into_folds, find_group, read_pairs, split_pair
from fcnlab.errors import DataError
from tests.data.folder_dataset import open_folder


@pytest.mark.parametrize(
    ("line", "pair"),
    [
        ("images/a.jpg masks/a.png", ("images/a.jpg", "masks/a.png")),
        ("/JPEGImages/a.jpg\t/Aug/a.png", ("/JPEGImages/a.jpg", "/Aug/a.png")),
        ("a b.JPG,c d.png", ("a b.JPG", "c d.png")),
        ("a.jpg.jpg a.jpg.png", ("a.jpg.jpg", "a.jpg.png")),
        ("a.jpg", None),
        ("a frame 1", None),
        ("a.png" + "\t" * 1_000_000 + "b", None),  # in minutes, if it was matched
    ],
)
def test_a_line_is_a_pair_if_it_names_two_images(line: str, pair: tuple[str, str] | None) -> None:
    assert split_pair(line) == pair


def test_paths_are_searched_below_the_folders_their_parents_and_beside_the_list(tmp_path: Path) -> None:
    for name in ("data/images/x/a.jpg", "data/masks/x/a.png", "lists/b.jpg", "lists/b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    images, masks, file = tmp_path / "data/images", tmp_path / "data/masks", tmp_path / "lists/train.txt"
    file.write_text(f"x/a.jpg x/a.png\n/images/x/a.jpg /masks/x/a.png\n\nb.jpg b.png\n{images / 'x/a.jpg'} x/a.png\n")
    pair = (images / "x/a.jpg", masks / "x/a.png")
    beside = (tmp_path / "lists/b.jpg", tmp_path / "lists/b.png")
    assert read_pairs(file, images, masks) == [("x/a", *pair), ("x/a", *pair), ("b", *beside), ("x/a", *pair)]
    file.write_text("x/a.jpg x/a.png\nx/b\n")
    with pytest.raises(DataError, match=r"line 2: 'x/b' is not a pair of an image and a mask"):
        read_pairs(file, images, masks)
    file.write_text("x/a\n")
    assert read_pairs(file, images, masks) is None


def test_lines_of_pairs_that_begin_with_a_number_sign_are_comments_unless_the_image_exists(tmp_path: Path) -> None:
    for name in ("images/a.jpg", "masks/a.png", "images/#b.jpg", "masks/#b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    file, images, masks = tmp_path / "train.txt", tmp_path / "images", tmp_path / "masks"
    file.write_text(
        f"# image mask\n# {300 * 'x'}.jpg a.png\n#a.jpg a.png\na.jpg a.png\n# images/a.jpg masks/a.png\n#b.jpg #b.png\n"
    )
    found = read_pairs(file, images, masks)
    assert found is not None and [id_ for id_, _, _ in found] == ["a", "#b"]
    file.write_text("# images/a.jpg masks/a.png\na\n")
    assert read_pairs(file, images, masks) is None


def test_ids_of_paths_with_dots_stay_below_the_folder(tmp_path: Path) -> None:
    for name in ("data/images/a.jpg", "data/masks/a.png", "other/b.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    file = tmp_path / "train.txt"
    file.write_text("../images/a.jpg a.png\n../../other/b.jpg a.png\n")
    found = read_pairs(file, tmp_path / "data/images", tmp_path / "data/masks")
    assert found is not None and [id_ for id_, _, _ in found] == ["a", "b"]


@pytest.mark.parametrize("name", [b"a\x1b[2J", b"a\nb", b"\xff", "a\u202eb".encode()])
def test_images_whose_names_cannot_be_printed_are_refused(tmp_path: Path, name: bytes) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder / "train").mkdir(parents=True)
        (tmp_path / folder / "train" / (os.fsdecode(name) + ".png")).touch()
    dataset = open_folder(tmp_path, images="images/{split}", masks="masks/{split}")
    with pytest.raises(DataError, match="rename the file") as refused:
        dataset.list_pairs("train")
    assert str(refused.value).isprintable()


@settings(deadline=None)
@given(st.lists(st.integers(1, 3), min_size=9, max_size=14), st.integers(0, 5))
def test_no_group_is_in_two_splits(sizes: list[int], seed: int) -> None:
    ids = [f"video{group}/frame{frame}" for group, size in enumerate(sizes) for frame in range(size)]
    fractions = {"train": 0.6, "val": 0.2, "test": 0.2}
    divided = divide_ids(ids, fractions, seed, r"video\d+")
    assert sorted(id_ for part in divided.values() for id_ in part) == sorted(ids)
    groups = [{find_group(id_, r"video\d+") for id_ in part} for part in divided.values()]
    assert sum(map(len, groups)) == len(sizes)
    assert all(len(divided[name]) >= round(0.2 * len(ids)) for name in ("val", "test"))
    assert divide_ids(ids[::-1], fractions, seed, r"video\d+") == divided


def test_too_few_groups_are_an_error() -> None:
    with pytest.raises(DataError, match=r"2 groups of images \('a\|b'\) are too few for the splits train, val, test"):
        divide_ids(["a1", "a2", "b1", "b2"], {"train": 0.6, "val": 0.2, "test": 0.2}, 0, "a|b")


def test_the_parentheses_of_the_expression_are_the_group() -> None:
    assert find_group("run3_left_0007", r"^(run\d)_(left|right)") == find_group("run3_left_0008", r"(run\d)_(left)")
    with pytest.raises(DataError, match="does not match the id 'other'"):
        find_group("other", r"run\d")


@settings(deadline=None)
@given(st.integers(2, 6), st.integers(12, 40), st.integers(0, 5), st.sampled_from([None, 0.1, 0.25]))
def test_each_image_is_held_out_once_and_the_other_splits_are_the_rest(
    count: int, images: int, seed: int, val: float | None
) -> None:
    ids = [f"image{index}" for index in range(images)]
    held_out = []
    for fold in range(count):
        parts = CrossValidation(folds=count, fold=fold, val=val, seed=seed)
        splits = divide_into_folds(ids, parts)
        assert splits == divide_into_folds(ids[::-1], parts)
        assert sorted(id_ for part in splits.values() for id_ in part) == sorted(ids)
        assert val is None or len(splits["val"]) == max(1, round(val * images))
        held_out.append(splits["val" if val is None else "test"])
    assert sorted(id_ for part in held_out for id_ in part) == sorted(ids)
    assert max(map(len, held_out)) - min(map(len, held_out)) <= 1


def test_the_held_out_images_do_not_depend_on_the_fraction_of_val() -> None:
    ids = list(map(str, range(20)))
    for fold in range(4):
        without, with_val = (
            divide_into_folds(ids, CrossValidation(folds=4, fold=fold, val=val, seed=3)) for val in (None, 0.2)
        )
        assert without["val"] == with_val["test"]


def test_the_division_into_folds_never_changes() -> None:
    ids = list("abcdefgh")
    assert divide_into_folds(ids, CrossValidation(folds=3)) == {
        "train": ["a", "b", "d", "f", "h"],
        "val": ["c", "e", "g"],
    }
    assert divide_into_folds(ids, CrossValidation(folds=3, fold=2, val=0.25, seed=7)) == {
        "train": ["a", "b", "d", "g"],
        "val": ["c", "f"],
        "test": ["e", "h"],
    }


@settings(deadline=None)
@given(st.lists(st.integers(1, 5), min_size=8, max_size=14), st.integers(0, 5))
def test_no_group_is_in_two_folds(sizes: list[int], seed: int) -> None:
    ids = [f"video{group}/frame{frame}" for group, size in enumerate(sizes) for frame in range(size)]
    parts = CrossValidation(folds=3, val=0.1, seed=seed, group_by=r"video\d+")
    held_out = [divide_into_folds(ids, parts.model_copy(update={"fold": fold}))["test"] for fold in range(parts.folds)]
    groups = [{find_group(id_, r"video\d+") for id_ in part} for part in held_out]
    assert sum(map(len, groups)) == len(sizes)
    assert max(map(len, held_out)) - min(map(len, held_out)) <= max(sizes)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (CrossValidation(folds=5), "4 images are too few for 5 folds"),
        (CrossValidation(folds=3, fold=1, group_by="^."), "2 groups of images ('^.') are too few for 3 folds"),
        (CrossValidation(folds=3, fold=1, val=0.66), "4 images are too few for 3 folds"),
    ],
)
def test_too_few_images_for_the_folds_are_an_error(parts: CrossValidation, message: str) -> None:
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        divide_into_folds(["a1", "a2", "b1", "b2"], parts)
