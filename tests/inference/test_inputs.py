"""Search for images, and unique names for their predictions."""

from __future__ import annotations

from pathlib import Path, PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcnlab.errors import DataError
from fcnlab.inference.inputs import ImageFile, choose_output_names, find_images

NAMES = st.sampled_from(["a", "A", "b", "a.jpg", "b.tar"])
PATHS = st.builds(
    lambda folders, name, suffix: PurePath(*folders, name + suffix),
    st.lists(NAMES, max_size=2),
    NAMES,
    st.sampled_from([".jpg", ".png", ".JPG"]),
)


@given(st.lists(PATHS, max_size=8, unique_by=str))
def test_output_names_are_unique_for_any_paths(paths: list[PurePath]) -> None:
    try:
        names = choose_output_names([ImageFile(Path("/in") / path, path) for path in paths])
    except DataError:
        assert len(paths) > 1
        return
    assert len({name.lower() for name in names}) == len(paths)
    for name, path in zip(names, paths, strict=True):
        assert name in (path.with_suffix("").as_posix(), path.as_posix())


def test_names_keep_the_extension_if_two_images_differ_only_in_it() -> None:
    paths = [PurePath(name) for name in ("cat.jpg", "cat.png", "dog.jpg", "x/dog.jpg")]
    assert choose_output_names([ImageFile(Path(p), p) for p in paths]) == ["cat.jpg", "cat.png", "dog", "x/dog"]


def test_two_given_files_of_the_same_name_are_an_error() -> None:
    images = [ImageFile(Path(folder) / "cat.jpg", PurePath("cat.jpg")) for folder in ("a", "b")]
    with pytest.raises(DataError, match=r"a/cat\.jpg and b/cat\.jpg would both be written"):
        choose_output_names(images)


def test_folders_are_searched_without_hidden_files_and_the_output_folder(tmp_path: Path) -> None:
    files = ("b.png", "a/c.JPG", "a/notes.txt", ".hidden/d.png", "a/.e.png", "out/masks/b.png")
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    found = find_images([tmp_path, tmp_path / "b.png"], tmp_path / "out")
    assert [image.relative.as_posix() for image in found] == ["a/c.JPG", "b.png"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="contains no images"):
        find_images([tmp_path / "empty"], tmp_path / "out")
    with pytest.raises(DataError, match=r"absent: no such file or folder$"):
        find_images([tmp_path / "b.png", tmp_path / "absent"], tmp_path / "out")


def test_links_to_folders_and_files_are_followed_and_broken_ones_listed(tmp_path: Path) -> None:
    elsewhere, photos = tmp_path / "elsewhere", tmp_path / "photos"
    for folder in (elsewhere / "day", photos):
        folder.mkdir(parents=True)
    for file in (elsewhere / "day/a.jpg", photos / "b.jpg"):
        file.touch()
    (photos / "linked").symlink_to(elsewhere, target_is_directory=True)
    (elsewhere / "up").symlink_to(photos, target_is_directory=True)
    (photos / "again.jpg").symlink_to(photos / "b.jpg")
    (photos / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    found = find_images([photos, photos / "b.jpg", photos / "../photos"], tmp_path / "out")
    assert [image.relative.as_posix() for image in found] == ["again.jpg", "b.jpg", "gone.jpg", "linked/day/a.jpg"]


def test_a_folder_in_the_output_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").touch()
    for out in (tmp_path, tmp_path / "photos"):
        with pytest.raises(DataError, match=r"photos: is in the output folder .*; choose another --out"):
            find_images([tmp_path / "photos"], out)
