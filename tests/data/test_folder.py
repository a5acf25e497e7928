"""Datasets of type `folder`: pairing, labels, splits, hand-written entries, and the fields that enter a key."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fcnlab.config.dataset import AnyDataset, FolderDataset
from fcnlab.config.validation import validate
from fcnlab.data.cache.format import compute_cache_key
from fcnlab.data.datasets import folder as datasets_folder
from fcnlab.data.datasets.camvid import CamVid
from fcnlab.data.datasets.folder import index_pairs, list_images, match_files
from fcnlab.data.datasets.labels import ColorDecoder, IdDecoder, format_ranges
from fcnlab.data.datasets.splits import divide_ids, find_split_names
from fcnlab.data.inspection.pairing import pair_files, pair_listed
from fcnlab.errors import ConfigError, DataError, StopRunError
from fcnlab.lab import Lab
from tests.conftest import SMOKE, write_grid
from tests.data.folder_dataset import open_folder

SHAPE = (4, 5)
WHERE = Path("mask.png")


def save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def put(root: Path, ids: str, *, image: str = ".jpg", mask: str = ".png", value: int = 0) -> None:
    """Images and masks of these ids, in root/images and root/masks."""
    for id_ in ids.split():
        save(np.zeros((*SHAPE, 3), np.uint8), root / "images" / f"{id_}{image}")
        save(np.full(SHAPE, value, np.uint8), root / "masks" / f"{id_}{mask}")


# --- labels ----------------------------------------------------------------------------------------------------------

numbers = st.integers(0, 255)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[list[int]], list[int]]:
    """Numbers of each class, and ignored ones; no number twice."""
    values = draw(st.lists(numbers, min_size=3, max_size=40, unique=True))
    cut = draw(st.integers(1, len(values) - 2))
    classes = [values[i : i + 2] for i in range(0, cut, 2)]
    return classes, values[cut:]


@settings(deadline=None)
@given(table=tables(), seed=st.integers(0, 99))
def test_numbers_map_to_classes_and_255_is_ignored_unless_it_is_a_class(
    table: tuple[list[list[int]], list[int]], seed: int
) -> None:
    classes, ignored = table
    expected = dict.fromkeys([255, *ignored], 255) | {n: label for label, ns in enumerate(classes) for n in ns}
    raw = np.random.default_rng(seed).choice(np.array(sorted(expected), np.uint8), SHAPE)
    found = IdDecoder(classes, ignored).decode(Image.fromarray(raw), WHERE)
    np.testing.assert_array_equal(found, np.vectorize(expected.get)(raw))
    strange = next((n for n in range(256) if n not in expected), None)
    if strange is not None:
        raw[0, 0] = strange
        with pytest.raises(DataError, match=f"^mask.png: undefined labels: {strange} in 1 pixels: neither"):
            IdDecoder(classes, ignored).decode(Image.fromarray(raw), WHERE)


@settings(deadline=None)
@given(colors=st.lists(st.integers(0, 2**24 - 1), min_size=3, max_size=12, unique=True), seed=st.integers(0, 99))
def test_colors_map_to_classes_exactly(colors: list[int], seed: int) -> None:
    *named, ignored = colors
    expected = {c: label for label, c in enumerate(named)} | {ignored: 255}
    raw = np.random.default_rng(seed).choice(np.array(colors), SHAPE)
    rgb = np.stack([raw >> 16, raw >> 8 & 255, raw & 255], axis=-1).astype(np.uint8)
    labels = ColorDecoder([[c] for c in named], [ignored])
    np.testing.assert_array_equal(labels.decode(Image.fromarray(rgb), WHERE), np.vectorize(expected.get)(raw))
    strange = next(c for c in range(len(colors) + 1) if c not in colors)
    rgb[1, 2] = [0, 0, strange]
    with pytest.raises(DataError, match=f"^mask.png: undefined labels: #{strange:06x} in 1 pixels: neither"):
        labels.decode(Image.fromarray(rgb), WHERE)


def test_palette_masks_use_the_index_or_the_color() -> None:
    mask = Image.fromarray(np.array([[3, 7]], np.uint8))
    mask.putpalette([9] * 768)
    assert IdDecoder([[7], [3]]).decode(mask, WHERE).tolist() == [[1, 0]]
    assert ColorDecoder([[0], [0x090909]]).decode(mask, WHERE).tolist() == [[1, 1]]
    with pytest.raises(DataError, match="mode L; its classes are defined by colors, so an RGB or palette image"):
        ColorDecoder([[0], [1]]).decode(Image.new("L", (2, 1)), WHERE)


@given(st.lists(st.integers(0, 300), unique=True).map(sorted))
def test_ranges_expand_to_all_numbers(values: list[int]) -> None:
    output: list[int] = []
    for part in filter(None, format_ranges(values).split(", ")):
        first, _, last = part.partition("..")
        output += range(int(first), int(last or first) + 1)
    assert output == values


# --- pairs -----------------------------------------------------------------------------------------------------------


def test_images_and_masks_pair_by_the_path_below_their_folders(tmp_path: Path) -> None:
    put(tmp_path, "a x/a x/y/b", image="_rgb.JPG", mask="_mask.png")
    (tmp_path / "images/notes.txt").write_text("no image")
    save(np.zeros((*SHAPE, 3), np.uint8), tmp_path / "images/.cache/hidden_rgb.png")
    dataset = open_folder(tmp_path, image_suffix="_rgb", mask_suffix="_mask")
    pairs = [pair for split in ("train", "val") for pair in dataset.list_pairs(split)]
    assert sorted(pair.id for pair in pairs) == ["a", "x/a", "x/y/b"]
    for pair in pairs:
        assert pair.image == tmp_path / "images" / f"{pair.id}_rgb.JPG"
        assert pair.mask == tmp_path / "masks" / f"{pair.id}_mask.png"


def test_composed_and_decomposed_accents_are_one_name(tmp_path: Path) -> None:
    composed, decomposed = "caf\u00e9 1", "cafe\u0301 1"
    save(np.zeros((*SHAPE, 3), np.uint8), tmp_path / f"images/{decomposed}.jpg")
    save(np.zeros(SHAPE, np.uint8), tmp_path / f"masks/{composed}_mask.png")
    (tmp_path / "train.txt").write_text(composed)
    dataset = open_folder(tmp_path, mask_suffix="_mask", lists={"train": tmp_path / "train.txt"})
    (pair,) = dataset.list_pairs("train")
    assert (pair.id, pair.mask.name) == (decomposed, f"{composed}_mask.png")
    found = pair_files(str(tmp_path / "images"), str(tmp_path / "masks"))
    assert (list(found.pairs), found.mask_suffix, found.unpaired_masks) == ([f"\0{decomposed}"], "_mask", [])


def test_pairing_stops_at_suffixes_that_pair_all_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a b", mask="_mask.png")
    tried = []

    def match(*args: Any, **more: Any) -> Any:
        tried.append(args[2:])
        return match_files(*args, **more)

    monkeypatch.setattr("fcnlab.data.inspection.pairing.match_files", match)
    assert len(pair_files(str(tmp_path / "images"), str(tmp_path / "masks")).pairs) == 2
    assert tried == [("", ""), ("", "_mask")]


def test_duplicate_image_names_are_an_error_that_names_both(tmp_path: Path) -> None:
    put(tmp_path, "a b")
    save(np.zeros((*SHAPE, 3), np.uint8), tmp_path / "images/a.png")
    with pytest.raises(DataError, match=r"images/a\.png: has the same id as a\.jpg"):
        open_folder(tmp_path).split("train")


def test_images_without_a_mask_are_an_error_or_skipped(tmp_path: Path) -> None:
    put(tmp_path, "a b c")
    (tmp_path / "masks/b.png").unlink()
    lists = {"train": tmp_path / "train.txt"}
    lists["train"].write_text("a\nb\n")
    with pytest.raises(DataError, match=r"masks/b\.png: no such file"):
        open_folder(tmp_path, lists=lists).split("train")[1]
    skipping = open_folder(tmp_path, unpaired="skip")
    assert {*skipping.split("train").ids, *skipping.split("val").ids} == {"a", "c"}
    with pytest.raises(DataError, match=r"train\.txt, line 2: no image with a mask 'b'"):
        open_folder(tmp_path, lists=lists, unpaired="skip").split("train")


# --- splits ----------------------------------------------------------------------------------------------------------


@given(
    ids=st.lists(st.text("abc/1", min_size=1, max_size=6), min_size=8, max_size=60, unique=True),
    val=st.floats(0.01, 0.4),
    test=st.floats(0.01, 0.4),
    seed=st.integers(0, 2**40),
    order=st.randoms(),
)
def test_random_splits_contain_every_id_once_and_ignore_order(
    ids: list[str], val: float, test: float, seed: int, order: Any
) -> None:
    parts = {"train": 1 - val - test, "val": val, "test": test}
    divided = divide_ids(ids, parts, seed)
    assert sorted(id_ for part in divided.values() for id_ in part) == sorted(ids)
    assert all(part == sorted(part) for part in divided.values())
    for name in ("val", "test"):
        assert len(divided[name]) == max(1, round(parts[name] * len(ids)))
    order.shuffle(ids)
    assert divide_ids(ids, parts, seed) == divided


def test_random_splits_depend_only_on_ids_and_seed() -> None:
    ids = [f"{n:02d}" for n in range(12)]
    parts = {"train": 0.5, "val": 0.25, "test": 0.25}
    assert divide_ids(ids, parts, 0) == {
        "train": ["01", "04", "05", "06", "09", "11"],
        "val": ["00", "02", "07"],
        "test": ["03", "08", "10"],
    }
    assert len({str(divide_ids(ids, parts, seed)) for seed in range(5)}) == 5


def test_too_few_images_for_random_splits_are_an_error() -> None:
    with pytest.raises(DataError, match="2 images are too few for the splits train, val, test"):
        divide_ids(["a", "b"], {"train": 0.8, "val": 0.1, "test": 0.1}, 0)


def test_an_empty_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    put(tmp_path, "a")
    (tmp_path / "images/a.jpg").unlink()
    with pytest.raises(DataError, match=r"images: has no images$"):
        open_folder(tmp_path).split("train")


def test_lists_contain_ids_or_image_names_in_order(tmp_path: Path) -> None:
    put(tmp_path, "a.1 x/b c", image="_rgb.jpg")
    file = tmp_path / "train.txt"
    file.write_text("x/b\n\n  a.1_rgb.jpg \nc_rgb\n")
    assert open_folder(tmp_path, lists={"train": file}, image_suffix="_rgb").split("train").ids == ("x/b", "a.1", "c")


def test_lists_with_windows_line_endings_are_accepted(tmp_path: Path) -> None:
    put(tmp_path, "a b", image=".JPG", mask=".PNG")
    file = tmp_path / "train.txt"
    file.write_bytes(b"\xef\xbb\xbfb.JPG\r\na\r\n\r\n")
    train = open_folder(tmp_path, lists={"train": file}).split("train")
    assert train.ids == ("b", "a") and len(list(train)) == 2


@pytest.mark.parametrize(
    "form",
    [
        "{}",
        "{}_rgb.jpg",
        "./{}_rgb.jpg",
        "./images/{}_rgb.jpg",
        "images/{}",
        "/images/{}_rgb.jpg",
        "../data/images/{}_rgb.jpg",
        "data/images/{}_rgb.jpg",
        "data\\images\\{}_rgb.jpg",
        ".\\{}_rgb.jpg",
        "PATH/data/images/{}_rgb.jpg",
        "PATH/link/images/{}_rgb.jpg",
    ],
)
@pytest.mark.parametrize("suffix", ["_rgb", "_rgb.jpg"])
def test_lists_of_images_contain_names_or_paths_and_comments(tmp_path: Path, form: str, suffix: str) -> None:
    put(tmp_path / "data", "a x/b #c", image="_rgb.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "data", target_is_directory=True)
    file = tmp_path / "train.txt"
    lines = [form.replace("PATH", str(tmp_path)).format(id_) for id_ in ("x/b", "a", "#c")]
    file.write_text("\n".join(["# split of 2020", *lines, "#a.jpg", "#"]))
    assert open_folder(tmp_path / "data", lists={"train": file}, image_suffix=suffix).split("train").ids == (
        "x/b",
        "a",
        "#c",
    )


def test_folder_links_are_followed_without_cycles(tmp_path: Path) -> None:
    put(tmp_path, "a sub/b .hidden/c")
    (tmp_path / "images/Thumbs.db").write_bytes(b"x")
    (tmp_path / "images/._a.jpg").write_bytes(b"x")
    other = tmp_path / "linked"
    other.mkdir()
    (other / "day").symlink_to(tmp_path / "images", target_is_directory=True)
    (tmp_path / "images/sub/up").symlink_to(other, target_is_directory=True)
    (tmp_path / "images/gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    inside = ["a.jpg", "gone.jpg", "sub/b.jpg"]  # reading the link to a missing file is an error
    assert list_images(str(tmp_path / "images")) == [tmp_path / "images" / name for name in inside]
    assert list_images(str(other)) == [other / "day" / name for name in inside]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("image", r"image: no such folder; .* has no folder 'image', did you mean 'images'\?$"),
        ("imagse/train", r"imagse/train: no such folder; .* has no folder 'imagse', did you mean 'images'\?$"),
        ("zz", "zz: no such folder; .* has no folder 'zz', but images, masks$"),
        ("images/zz", "has no folder 'zz', nor any other$"),
        ("images/a.jpg", "a.jpg: is a file; expected a folder$"),
    ],
)
def test_missing_folder_error_names_the_nearest(tmp_path: Path, name: str, message: str) -> None:
    put(tmp_path, "a")
    with pytest.raises(DataError, match=message):
        list_images(str(tmp_path / name))


@pytest.mark.parametrize("key", ["images", "masks"])
@pytest.mark.parametrize("split", ["", "/{split}"])
def test_a_folder_that_was_renamed_is_named_with_its_key(tmp_path: Path, key: str, split: str) -> None:
    put(tmp_path, "train/a")
    (tmp_path / key).rename(tmp_path / f"{key}2")
    dataset = open_folder(tmp_path, images=f"images{split}", masks=f"masks{split}")
    message = rf"{key}: no such folder; .*, did you mean '{key}2'\?; correct '{key}' in registry/datasets\.yaml$"
    with pytest.raises(DataError, match=message):
        dataset.split("train")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda file: file.unlink(), r"train\.txt: no such file; expected a list with one id per line"),
        (
            lambda file: file.write_text("a\nzz\n"),
            r"train\.txt, line 2: no image 'zz' in .*/images, but a, b$",
        ),
        (lambda file: file.write_text("./c.jpg\n"), "no image './c.jpg' in .*/images, but a, b$"),
        (lambda file: file.write_text("/images/aa\n"), r"no image '/images/aa' in .*/images, did you mean 'a'\?$"),
        (
            lambda file: file.write_text("# name and flag\nb  1\na -1\n"),
            r"line 2: the image 'b' is followed by '1'; list only the images, .* without those whose flag -1 means ",
        ),
        (
            lambda file: file.write_text("a.jpg,640,480\n"),
            r"line 1: the image 'a\.jpg' is followed by '640,480'; list only the images, one per line, or each image",
        ),
        (
            lambda file: file.write_text(f"{file.parent}/masks/a.png\n"),
            r"line 1: '.*/masks/a\.png' is not below .*/images; correct the folder of the images, or list pairs",
        ),
        (lambda file: file.write_bytes(b"\xff\xfe"), r"train\.txt: is not UTF-8 text; save it as UTF-8"),
        (lambda file: file.write_text("\n"), r"train\.txt: the split 'train' has no images; add"),
    ],
    ids=["missing", "an unknown id", "a folder", "a path", "a flag", "columns", "outside", "no text", "empty"],
)
def test_invalid_list_error_is_one_line(tmp_path: Path, harm: Callable[[Path], object], message: str) -> None:
    put(tmp_path, "a b")
    file = tmp_path / "train.txt"
    file.write_text("a\n")
    harm(file)
    with pytest.raises(DataError, match=message) as caught:
        open_folder(tmp_path, lists={"train": file}).split("train")
    assert len(str(caught.value).splitlines()) == 1


def test_split_placeholder_selects_sub_folders(tmp_path: Path) -> None:
    for split in ("train", "val", "te[s]t"):
        save(np.zeros((*SHAPE, 3), np.uint8), tmp_path / f"in {split} set/images/{split}1.png")
        save(np.zeros(SHAPE, np.uint8), tmp_path / f"{split}annot/{split}1.png")
    folders = {"images": "in {split} set/images", "masks": "{split}annot"}
    dataset = open_folder(tmp_path, **folders)
    for path in folders.values():
        assert find_split_names(f"{tmp_path}/{path}") == ("te[s]t", "train", "val")
    assert dataset.split("te[s]t").ids == ("te[s]t1",) and dataset.split("val")[0].label.max() == 0
    with pytest.raises(DataError, match=r"no split 'vall'; did you mean 'val'\? valid: te\[s\]t, train, val"):
        dataset.split("vall")
    shutil.rmtree(tmp_path / "valannot")
    with pytest.raises(DataError, match="valannot: no such folder"):
        open_folder(tmp_path, **folders).split("val")


def test_fingerprint_depends_on_the_split_not_on_its_specification(tmp_path: Path) -> None:
    put(tmp_path, "a b c d e f")
    by_chance = open_folder(tmp_path)
    lists = {}
    for split in ("train", "val"):
        lists[split] = tmp_path / f"{split}.txt"
        lists[split].write_text("\n".join(by_chance.split(split).ids))
    used = ("train", "val")
    assert open_folder(tmp_path, lists=lists).fingerprint(used) == by_chance.fingerprint(used)
    assert open_folder(tmp_path, fractions={"val": 0.5, "seed": 3}).fingerprint(used) != by_chance.fingerprint(used)


def test_fingerprint_depends_on_values_not_on_class_names(tmp_path: Path) -> None:
    put(tmp_path, "a b")

    def of(classes: dict[str, Any], **output: Any) -> str:
        return open_folder(tmp_path, classes=classes, **output).fingerprint(("train", "val"))

    named = of({"a": 0, "b": 1})
    assert named == of({"c": 0, "d": 1})
    others = {of({"a": 1, "b": 0}), of({"a": 0, "b": [1, 2]}), of({"a": 0, "b": 1}, ignore=2)}
    assert len(others | {named}) == 4


def test_pgm_images_with_a_value_range_have_a_fingerprint_of_their_own(tmp_path: Path) -> None:
    # Extensions are in no fingerprint otherwise. Earlier, a range was that of the values that Pillow had scaled.
    found: dict[object, set[str]] = {}
    for extension in (".pgm", ".png"):
        root = tmp_path / extension
        put(root, "a b")
        for image in sorted((root / "images").iterdir()):
            image.unlink()
            image.with_suffix(extension).write_bytes(b"P5\n2 1\n4095\n\0\1\17\377")
        for value_range in (None, (0.0, 4095.0)):
            dataset = open_folder(root, channels=1, value_range=value_range)
            found.setdefault(value_range, set()).add(dataset.fingerprint(("train", "val")))
    assert {value_range: len(digests) for value_range, digests in found.items()} == {None: 1, (0.0, 4095.0): 2}


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("line", ["a", "images/a.jpg, masks/a.png"], ids=["ids", "pairs"])
def test_an_image_that_a_list_repeats_is_an_error_that_names_the_list(tmp_path: Path, split: str, line: str) -> None:
    put(tmp_path, "a b")
    lists = {name: tmp_path / f"{name}.txt" for name in ("train", "val")}
    for file in lists.values():
        file.write_text("b" if line == "a" else "images/b.jpg masks/b.png")
    lists[split].write_text(f"{line}\n" * 3)
    dataset = open_folder(tmp_path, lists)
    message = f"^{lists[split]}: '{split}' contains the image 'a' 3 times; list each image once$"
    for use in (lambda: dataset.split(split), lambda: dataset.fingerprint(("train", "val"))):
        with pytest.raises(DataError, match=message):
            use()


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders whose images and masks are listed."""
    found: list[str] = []

    def list_and_index(images: str, *output: str) -> Any:
        found.append(images)
        return index_pairs(images, *output)

    monkeypatch.setattr(datasets_folder, "index_pairs", list_and_index)
    return found


def test_a_dataset_lists_its_folders_once_for_all_splits_and_uses(tmp_path: Path, listed: list[str]) -> None:
    put(tmp_path, "a b c d")
    dataset = open_folder(tmp_path, fractions={"val": 0.25, "test": 0.25})
    for split in dataset.split_names:
        dataset.split(split)
        compute_cache_key(dataset, split)
        dataset.image_digests((split,))
    assert listed == [str(tmp_path / "images")]
    open_folder(tmp_path).split("train")
    assert len(listed) == 2


def test_folds_that_a_lab_opens_once_list_their_folders_once(tmp_path: Path, listed: list[str]) -> None:
    put(tmp_path / "mine", "a b c d e f")
    lab = Lab(tmp_path, tmp_path)
    spec = entry(**FOLDS)
    prints = {lab.fingerprint_data(spec.select_fold(seed)) for seed in range(3)}
    held_out = [lab.open_dataset_once(spec.select_fold(seed)).split("val").ids for seed in range(3)]
    assert len(listed) == 1 and len(prints) == 3
    assert sorted(id_ for ids in held_out for id_ in ids) == list("abcdef")
    assert held_out == [lab.open_dataset(spec.select_fold(seed)).split("val").ids for seed in range(3)]
    assert len(listed) == 4


def test_files_that_are_added_after_the_plan_are_a_change_of_the_inputs(tmp_path: Path) -> None:
    put(tmp_path / "mine", "a b c d")
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry/datasets.yaml").write_text(yaml.safe_dump({"mine": ENTRY}))
    lab = Lab(tmp_path, tmp_path)
    grid = lab.load_grid(write_grid(tmp_path, SMOKE.replace("shapes-mini", "mine")))
    trial = next(trial for _, trial in grid.trials(lab.fingerprints))
    lab.check_inputs(trial)
    put(tmp_path / "mine", "e")
    with pytest.raises(StopRunError, match="has changed since this trial was planned"):
        lab.check_inputs(trial)


# --- the entry -------------------------------------------------------------------------------------------------------

ENTRY: dict[str, Any] = {
    "type": "folder",
    "images": "mine/images",
    "masks": "mine/masks",
    "classes": ["ground", "road"],
    "fractions": {"val": 0.5},
    "nominal": {"height": 4, "width": 5},
}


FOLDS: dict[str, Any] = {"fractions": None, "cross_validation": {"folds": 3}}


def entry(**output: Any) -> FolderDataset:
    merged = {key: value for key, value in (ENTRY | output).items() if value is not None}
    return validate(AnyDataset, merged, "datasets.yaml: mine")


def test_classes_are_parsed_from_names_numbers_or_colors() -> None:
    assert entry().classes == (("ground", (0,)), ("road", (1,)))
    assert entry() == entry(classes={"ground": 0, "road": [1]})
    assert entry(classes={"b": 9, "a": [3, 4]}).classes == (("b", (9,)), ("a", (3, 4)))
    assert entry(classes={"b": "#A0b0C0", "a": "#000000"}).classes[0] == ("b", ("#a0b0c0",))
    assert entry(ignore=7).ignore == (7,)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ({"classes": None}, "classes: missing; this key is required with type: folder"),
        ({"masks": None}, "masks: missing; this key is required with type: folder"),
        (
            {"folder": "mine"},
            "folder: unknown key with type: folder; valid: channels, classes, colors, cross_validation, ",
        ),
        ({"classes": ["a"]}, "classes: give 2 to 255 classes, not 1"),
        ({"classes": [f"c{n}" for n in range(256)]}, "classes: give 2 to 255 classes, not 256"),
        ({"classes": ["a", "b", "a"]}, "classes: the class 'a' is listed twice"),
        ({"classes": "a, b"}, "classes: give a list of names, or a mapping such as"),
        ({"classes": [1, 2]}, "classes: the name of a class is a string, not 1; write it in quotes"),
        ({"classes": [["a", 0]]}, "classes: the name of a class is a string, not ['a', 0]; write it in quotes"),
        ({"classes": {"a": None, "b": 1}}, "classes: class a: the value is empty; write a color in quotes"),
        ({"classes": {"a": [], "b": 1}}, "classes: class a: has no mask value"),
        ({"classes": {"a": 65536, "b": 1}}, "classes: class a: 65536 is neither a number from 0 to 65535 nor a color"),
        ({"classes": {"a": True, "b": 1}}, "classes: class a: True is neither"),
        ({"classes": {"a": "#12345", "b": "#123456"}}, "classes: class a: '#12345' is neither"),
        ({"classes": {"a": 1, "b": [2, 1]}}, "the value 1 belongs to class a and to class b; keep one"),
        ({"ignore": [1]}, "the value 1 belongs to class road and to ignore; keep one"),
        (
            {"ignore": ["#000000"]},
            "masks have either numbers or colors, not both: 0 (class ground) and '#000000' (ignore)",
        ),
        ({"ignore": "none"}, "ignore: 'none' is neither a number from 0 to 65535 nor a color"),
        ({"fractions": None}, "no source of splits; give one of {split} in both"),
        ({"lists": {"train": "t.txt", "val": "v.txt"}}, "more than one source of splits; give one of"),
        ({"fractions": None, "images": "a/{split}"}, "{split} must appear once in 'images' and once in 'masks'"),
        ({"fractions": None, "lists": {"train": "t.txt"}}, "splits: 'lists' has no split 'val'; it has train"),
        ({"splits": {"test": "test"}}, "splits: 'fractions' has no split 'test'; it has train, val"),
        ({"fractions": {"val": 0.1, "test": 0.1}}, "'fractions' sets a test split that is not used; add splits"),
        ({"fractions": {"val": 0.6, "test": 0.4}, "splits": {"test": "test"}}, "leave nothing to train on"),
        ({"fractions": {"vall": 0.1, "val": 0.1}}, "fractions.vall: unknown key; did you mean 'val'?"),
        ({"cross_validation": {"folds": 3}}, "more than one source of splits; give one of"),
        ({**FOLDS, "cross_validation": {"folds": 1}}, "folds: input should be greater than or equal to 2, not 1"),
        ({**FOLDS, "cross_validation": {"folds": 3, "fold": 3}}, "fold 3 is not one of 3 folds, 0 to 2"),
        (
            {**FOLDS, "cross_validation": {"folds": 2, "val": 0.5}},
            "val 0.5 and one of 2 folds leave nothing to train on",
        ),
        (
            {**FOLDS, "cross_validation": {"folds": 3, "val": 0.1}},
            "'cross_validation' sets a test split that is not used",
        ),
        ({**FOLDS, "splits": {"test": "test"}}, "splits: 'cross_validation' has no split 'test'; it has train, val"),
        ({"unpaired": "leave"}, 'unpaired: "leave" is not valid; valid: refuse, skip'),
        ({"clases": ["a"]}, "clases: unknown key with type: folder; did you mean 'classes'?"),
    ],
    ids=str,
)
def test_invalid_entry_error_is_one_line(output: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        entry(**output)
    assert str(caught.value).startswith("datasets.yaml: mine: ") and message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_the_keys_of_a_folder_are_errors_in_a_dataset_of_another_type() -> None:
    with pytest.raises(ConfigError) as caught:
        entry(type="camvid")
    first, *others = str(caught.value).splitlines()
    assert first == "datasets.yaml: mine: folder: missing; this key is required with type: camvid"
    valid = "unknown key with type: camvid; valid: description, folder, nominal, splits, type"
    assert others == [f"datasets.yaml: mine: {key}: {valid}" for key in ("images", "masks", "classes", "fractions")]


class_names = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=6)


@settings(deadline=None)
@given(
    st.lists(class_names, min_size=2, max_size=8, unique=True),
    st.lists(numbers, min_size=12, max_size=12, unique=True),
    st.booleans(),
)
def test_entry_round_trips_through_yaml_and_json(names: list[str], values: list[int], colors: bool) -> None:
    output: list[Any] = [f"#{value:06x}" for value in values] if colors else list(values)
    classes = {name: [output[i], output[-1]] if not i else output[i] for i, name in enumerate(names)}
    before = entry(classes=classes, ignore=output[8:10])
    assert (
        FolderDataset.model_validate(yaml.safe_load(yaml.safe_dump(before.model_dump(mode="json"), sort_keys=False)))
        == before
    )
    assert FolderDataset.model_validate_json(before.model_dump_json()) == before


def identity(**output: Any) -> dict[str, Any]:
    return entry(**output).content()


PLACES: list[dict[str, Any]] = [
    {"images": "/elsewhere/images", "masks": "/elsewhere/masks"},
    {"image_suffix": "_rgb", "mask_suffix": "_mask"},
    {"unpaired": "skip"},
    {"colors": {"road": "#804080"}},
    {"palettes": "any"},
    {"description": "another word"},
]
CONTENT: list[dict[str, Any]] = [
    {"classes": ["road", "ground"]},
    {"classes": ["ground", "street"]},
    {"classes": {"ground": 1, "road": 0}},
    {"classes": {"road": 1, "ground": 0}},
    {"classes": {"ground": 0, "road": [1, 2]}},
    {"classes": {"ground": "#000000", "road": "#000001"}},
    {"ignore": [9]},
    {"fractions": {"val": 0.4}},
    {"fractions": {"val": 0.5, "seed": 1}},
    {"fractions": {"val": 0.5, "test": 0.1}, "splits": {"test": "test"}},
    {"fractions": None, "cross_validation": {"folds": 2}},
    {"fractions": None, "cross_validation": {"folds": 2, "fold": 1}},
    {"splits": {"val": "train"}},
    {"value_range": [0, 4095]},
    {"channels": 1},
]


@pytest.mark.parametrize("output", PLACES, ids=str)
def test_identity_ignores_locations_and_suffixes(output: dict[str, Any]) -> None:
    assert entry(**output) != entry() and identity(**output) == identity()


def test_every_field_is_a_location_or_part_of_the_identity() -> None:
    output = {field for change in [*PLACES, *CONTENT] for field in change}
    assert output | {"type", "lists", "nominal"} == set(FolderDataset.model_fields)


def test_fields_that_change_labels_or_splits_are_part_of_the_identity() -> None:
    seen = [identity(), *(identity(**output) for output in CONTENT)]
    assert all(seen.count(one) == 1 for one in seen)


def test_ids_of_lists_are_part_of_the_fingerprint() -> None:
    one, other = ({"train": f"{where}/t.txt", "val": f"{where}/v.txt"} for where in ("a", "b"))
    assert identity(fractions=None, lists=one) == identity(fractions=None, lists=other)


def test_the_seed_of_a_trial_selects_the_fold_that_it_holds_out(tmp_path: Path) -> None:
    put(tmp_path / "mine", "a b c d e f g")
    lab, spec = Lab.find(root=tmp_path), entry(**FOLDS)
    held_out = [lab.open_dataset(spec.select_fold(seed)).split("val").ids for seed in range(4)]
    assert sorted(id_ for ids in held_out[:3] for id_ in ids) == list("abcdefg")
    assert held_out[3] != held_out[0], "a repetition has another division"
    again = [lab.open_dataset(spec.select_fold(seed)).split("val").ids for seed in (3, 4, 5)]
    assert sorted(id_ for ids in again for id_ in ids) == list("abcdefg")
    fixed = entry(fractions=None, cross_validation={"folds": 3, "fold": 1})
    assert fixed.select_fold(2) == fixed and lab.open_dataset(fixed).split("val").ids == held_out[1]
    assert (spec.folds_by_seed, fixed.folds_by_seed) == (spec.cross_validation, None)
    assert entry().select_fold(1) == entry() and entry().folds_by_seed is None


# --- in a lab --------------------------------------------------------------------------------------------------------


def test_a_hand_written_entry_is_opened_below_the_data_root(tmp_path: Path) -> None:
    put(tmp_path / "data/mine", "a b c d", value=1)
    dataset = Lab.find(root=tmp_path, data_root=tmp_path / "data").open_dataset(entry())
    assert dataset.classes == ("ground", "road") and len(dataset.split("val")) == 2
    assert {int(value) for sample in dataset.split("train") for value in np.unique(sample.label)} == {1}


def test_absolute_folders_need_no_data_root_and_relative_ones_do(tmp_path: Path) -> None:
    put(tmp_path / "mine", "a b")
    lab = Lab.find(root=tmp_path)
    there = entry(images=f"{tmp_path}/mine/images", masks=f"{tmp_path}/mine/masks")
    assert lab.open_dataset(there).split("train").ids
    assert lab.open_dataset(entry()).split("train").ids  # in the lab
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match=r"no data root is set; pass --data-root .* that holds mine/images"):
        Lab.find(root=tmp_path / "other").open_dataset(entry())


def test_lists_are_found_in_the_lab_or_below_the_data_root(tmp_path: Path) -> None:
    put(tmp_path / "data/mine", "a b c")
    spec = entry(fractions=None, lists={"train": "lists/t.txt", "val": "lists/v.txt"})
    lab = Lab.find(root=tmp_path, data_root=tmp_path / "data")
    for place, ids in (("data/lists", "a"), ("lists", "b")):
        (tmp_path / place).mkdir()
        for name in ("t", "v"):
            (tmp_path / place / f"{name}.txt").write_text(ids)
        assert lab.open_dataset(spec).split("train").ids == (ids,)
    with pytest.raises(DataError, match=f"^{tmp_path}/gone.txt: no such file"):
        Lab.find(root=tmp_path).open_dataset(
            entry(fractions=None, images=f"{tmp_path}/data/mine/images", masks=f"{tmp_path}/data/mine/masks",
                  lists={"train": "gone.txt", "val": "gone.txt"})
        ).split("train")  # fmt: skip


def test_camvid_as_a_folder_dataset_equals_camvid(real_data: Path) -> None:
    root = real_data / "camvid"
    known = CamVid(root)
    own = open_folder(root, images="{split}", masks="{split}annot", classes=list(known.classes), ignore=11)
    for name in ("train", "val", "test"):
        assert own.split(name).ids == known.split(name).ids
        ours, theirs = own.split(name)[0], known.split(name)[0]
        np.testing.assert_array_equal(ours.image, theirs.image)
        np.testing.assert_array_equal(ours.label, theirs.label)


def test_two_images_of_a_list_with_one_id_are_an_error_that_names_both(tmp_path: Path) -> None:
    for sequence in ("s0", "s1"):
        put(tmp_path / sequence, "000")
    lines = [f"{tmp_path}/{name}/images/000.jpg {tmp_path}/{name}/masks/000.png" for name in ("s0", "s1")]
    lists = {"train": tmp_path / "train.txt", "val": tmp_path / "val.txt"}
    lists["train"].write_text("\n".join(lines))
    lists["val"].write_text(lines[0])
    message = (
        rf"{tmp_path}/s1/images/000.jpg: has the same id '000' as {tmp_path}/s0/images/000.jpg; ids are paths below"
    )
    narrow = open_folder(tmp_path / "s0", lists=lists)
    for use in (lambda: narrow.split("train"), lambda: narrow.fingerprint(("train", "val"))):
        with pytest.raises(DataError, match=message):
            use()
    with pytest.raises(DataError, match=message):
        pair_listed(lists.values(), str(tmp_path / "s0/images"), str(tmp_path / "s0/masks"))
    wide = open_folder(tmp_path, lists, images="", masks="")
    assert wide.split("train").ids == ("s0/images/000", "s1/images/000")
    assert narrow.split("val").ids == ("000",)
