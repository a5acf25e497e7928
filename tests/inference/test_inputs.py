"""What is predicted, and under which names: none may stand for two images."""

from __future__ import annotations

from pathlib import Path, PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcnlab.errors import DataError
from fcnlab.inference.inputs import Source, find_images, names

PARTS = st.sampled_from(["a", "A", "b", "a.jpg", "b.tar"])
PATHS = st.builds(
    lambda folders, name, suffix: PurePath(*folders, name + suffix),
    st.lists(PARTS, max_size=2),
    PARTS,
    st.sampled_from([".jpg", ".png", ".JPG"]),
)


@given(st.lists(PATHS, max_size=8, unique_by=str))
def test_names_never_collide_whatever_the_paths(paths: list[PurePath]) -> None:
    try:
        made = names([Source(Path("/in") / path, path) for path in paths])
    except DataError:
        assert len(paths) > 1
        return
    assert len({name.lower() for name in made}) == len(paths)
    for name, path in zip(made, paths, strict=True):
        assert name in (path.with_suffix("").as_posix(), path.as_posix())


def test_an_extension_stays_where_it_tells_two_apart() -> None:
    paths = [PurePath(name) for name in ("cat.jpg", "cat.png", "dog.jpg", "x/dog.jpg")]
    assert names([Source(Path(p), p) for p in paths]) == ["cat.jpg", "cat.png", "dog", "x/dog"]


def test_two_files_of_one_name_that_are_named_singly_are_refused() -> None:
    sources = [Source(Path(folder) / "cat.jpg", PurePath("cat.jpg")) for folder in ("a", "b")]
    with pytest.raises(DataError, match=r"a/cat\.jpg and b/cat\.jpg would both be written"):
        names(sources)


def test_folders_are_gone_through_and_what_is_written_is_left_out(tmp_path: Path) -> None:
    files = ("b.png", "a/c.JPG", "a/notes.txt", ".hidden/d.png", "a/.e.png", "out/masks/b.png")
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    found = find_images([tmp_path, tmp_path / "b.png", tmp_path / "absent"], tmp_path / "out")
    assert [source.below.as_posix() for source in found] == ["a/c.JPG", "b.png", "absent"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        find_images([tmp_path / "empty"], tmp_path / "out")
