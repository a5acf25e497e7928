"""`fcnlab data add`: its classes and splits of users' folders, the entry that it writes, and its errors."""

from __future__ import annotations

import json
import re
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import ExifTags, Image

from fcnlab.config.dataset import Dataset
from fcnlab.data.datasets.labels import open_mask
from fcnlab.data.inspection import pair_contents
from fcnlab.data.inspection.pair_contents import Contents
from fcnlab.lab import Lab
from tests.cli.conftest import Call, CommandResult
from tests.cli.test_cli import refused

SHAPE = (4, 6)


def save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def fill(images: Path, masks: Path, ids: str, values: Any, *, ending: str = "_mask.png") -> None:
    """Write images and masks; each mask contains all of the values, numbers or colors."""
    for id_ in ids.split():
        noise = np.random.default_rng(zlib.crc32(f"{images}/{id_}".encode()))  # all images differ
        save(noise.integers(0, 256, (*SHAPE, 3), np.uint8), images / f"{id_}.jpg")
        pixels = np.resize(np.array(values, np.uint8), (*SHAPE, 3) if np.ndim(values) == 2 else SHAPE)
        save(pixels, masks / f"{id_}{ending}")


@pytest.fixture
def columns() -> int:
    return 250


@pytest.fixture
def call(fcnlab: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Call `fcnlab` from inside a new lab; its data are in ../mine."""
    assert fcnlab("init", "lab").code == 0
    monkeypatch.chdir(tmp_path / "lab")
    return fcnlab


def add(call: Call, *more: object, name: str = "mine") -> CommandResult:
    return call("data", "add", name, "--images", "../mine/images", "--masks", "../mine/masks", *more)


def entries() -> dict[str, Any]:
    read = yaml.safe_load(Path("registry/datasets.yaml").read_text(encoding="utf-8"))
    assert isinstance(read, dict)
    return read


TEN = "a b c d e f g h i j"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Ten images with masks of the numbers 0, 1, 2 and 255."""
    root = tmp_path / "mine"
    fill(root / "images", root / "masks", TEN, [0, 1, 2, 2, 2, 255])
    return root


@pytest.mark.parametrize(
    ("sizes", "size"),
    [
        ({(4, 6): 3, (8, 9): 2, (2, 2): 1}, (4, 6)),
        ({(2, 3): 2, (5, 5): 1, (6, 9): 1, (9, 6): 1, (8, 8): 1, (9, 9): 1}, (6, 9)),
    ],
)
def test_the_nominal_size_is_the_most_common_or_that_of_median_area(
    sizes: dict[tuple[int, int], int], size: tuple[int, int]
) -> None:
    assert Contents(sizes=Counter(sizes)).size == size


def test_a_folder_becomes_a_dataset_that_can_be_checked_and_trained_on(call: Call, mine: Path) -> None:
    output = add(call, "--classes", "ground,road,tree")
    assert (output.code, output.err) == (0, "")
    assert "10 pairs of an image and a mask (masks end in _mask)" in output.out
    assert "sizes (height x width): 4x6 (10)" in output.out and "masks: 10 of mode L" in output.out
    rows = [line.split() for line in output.out.splitlines()]
    assert rows[(first := rows.index(["value", "pixels", "%", "masks", "class"]) + 1) : first + 4] == [
        ["0", "16.67", "10", "ground"],
        ["1", "16.67", "10", "road"],
        ["2", "50.00", "10", "tree"],
        ["255", "16.67", "10", "(ignored)"],
    ]
    assert "splits: train 6, val 2, test 2" in output.out and "next: fcnlab data check mine" in output.out
    assert entries()["mine"] == {
        "description": "10 images, 3 classes",
        "type": "folder",
        "images": str(mine / "images"),
        "masks": str(mine / "masks"),
        "mask_suffix": "_mask",
        "classes": ["ground", "road", "tree"],
        "ignore": [255],
        "fractions": {"val": 0.15, "test": 0.15},
        "splits": {"test": "test"},
        "nominal": {"height": 4, "width": 6},
    }
    assert call("data", "check", "mine").code == 0
    text = Path("experiments/mine.yaml").read_text()
    assert "recipe: small-data}" in text
    assert (
        "base: {backbone: tiny-scratch, dataset: mine, recipe: quick, recipe.batch_size: 2, recipe.epochs: 100}" in text
    )
    assert output.out.splitlines()[-1] == "and: fcnlab grid run experiments/mine.yaml"
    planned = call("grid", "plan", "experiments/mine.yaml")
    assert (planned.code, planned.err) == (0, "")


def test_existing_grid_of_that_name_is_kept(call: Call, mine: Path) -> None:
    Path("experiments/mine.yaml").write_text("# mine\n")
    output = add(call)
    assert output.code == 0 and "experiments/mine.yaml exists and is kept" in output.out
    assert Path("experiments/mine.yaml").read_text() == "# mine\n"


def test_dry_run_prints_the_entry_and_writes_nothing(call: Call, mine: Path) -> None:
    dry = add(call, "--dry-run")
    assert dry.code == 0 and not Path("registry/datasets.yaml").exists()
    assert (
        "nothing is written" in dry.out and "class_2" in dry.out and "placeholders; set them with --classes" in dry.out
    )
    text = dry.out[dry.out.index("\nmine:") : dry.out.index("nothing is written")]
    assert add(call).code == 0
    assert yaml.safe_load(text) == entries()


def test_folders_below_the_data_root_are_written_relative_to_it(call: Call, mine: Path) -> None:
    hint = "the paths are absolute; with --data-root DIR, a folder above the images and masks, the entry is valid on"
    assert hint in add(call, "--dry-run").out
    output = add(call, "--data-root", "..")
    assert output.code == 0 and f"fcnlab data check mine --data-root {mine.parent}" in output.out
    assert hint not in output.out
    assert (entries()["mine"]["images"], entries()["mine"]["masks"]) == ("mine/images", "mine/masks")


def test_folders_that_the_lab_has_too_are_written_as_absolute_paths(call: Call, mine: Path) -> None:
    fill(Path("mine/images"), Path("mine/masks"), "x y", [0, 1])
    for folder in (Path("mine/lists"), mine / "lists"):
        folder.mkdir()
        for split in ("train", "val"):
            (folder / f"{split}.txt").write_text("a\n" if split == "train" else "b\n")
    output = add(call, "--lists", mine / "lists", "--data-root", "..")
    assert output.code == 0 and "splits: train 1, val 1" in output.out
    entry = entries()["mine"]
    assert (entry["images"], entry["masks"]) == (f"{mine}/images", f"{mine}/masks")
    assert entry["lists"] == {split: f"{mine}/lists/{split}.txt" for split in ("train", "val")}
    assert call("data", "check", "mine", "--data-root", "..").code == 0


def test_other_registry_entries_and_comments_are_kept(call: Call, mine: Path) -> None:
    file = Path("registry/datasets.yaml")
    size = "nominal: {height: 64, width: 64}"
    old = f"# ours\nfirst: {{type: shapes, {size}}}  # small\n\n# the last\nlast:\n  type: shapes\n  {size}\n"
    file.write_text(old)
    assert add(call, name="between").code == 0
    assert file.read_text().startswith(old) and list(entries()) == ["first", "last", "between"]
    assert add(call, "--force", name="first").code == 0
    text = file.read_text()
    assert list(entries()) == ["last", "between", "first"] and entries()["first"]["type"] == "folder"
    assert text.startswith("# ours\n") and "\n# the last\nlast:\n" in text and "# small" not in text
    assert not [path for path in Path("registry").iterdir() if path.name.startswith(".")]


def test_existing_name_is_rejected_before_reading_files(call: Call, mine: Path) -> None:
    assert add(call).code == 0
    before = Path("registry/datasets.yaml").read_bytes()
    refused(add(call), "registry/datasets.yaml: mine: already exists", "--force")
    refused(add(call, "--force", name="camvid"), "'camvid' is the name of a built-in dataset")
    refused(add(call, name="a: b"), "'a: b' is not a valid dataset name")
    assert Path("registry/datasets.yaml").read_bytes() == before


def test_registry_in_flow_style_is_not_changed(call: Call, mine: Path) -> None:
    file = Path("registry/datasets.yaml")
    file.write_text("{one: {type: shapes, nominal: {height: 64, width: 64}}}\n")
    output = add(call)
    assert output.code == 2 and "cannot be added automatically; add it by hand (see --dry-run)" in output.err
    assert list(entries()) == ["one"]


def test_error_outside_a_lab_names_fcnlab_init(call: Call, mine: Path, tmp_path: Path) -> None:
    refused(add(call, "--lab", tmp_path), f"{tmp_path}/registry: no such folder", "fcnlab init DIR")
    assert add(call, "--lab", tmp_path / "lab").code == 0


# --- classes ---------------------------------------------------------------------------------------------------------


def test_colors_are_found_and_named_by_a_yaml_file(call: Call, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    fill(mine / "images", mine / "masks", TEN, [[128, 64, 128], [0, 0, 0], [107, 142, 35]])
    assert add(call, name="raw").code == 0
    proposed = {"color_000000": "#000000", "color_6b8e23": "#6b8e23", "color_804080": "#804080"}
    assert entries()["raw"]["classes"] == proposed
    Path("classes.yaml").write_text("tree: '#6B8E23'\nroad: '#804080'\n")
    refused(add(call, "--classes", "a,b,c"), "the masks contain colors (#000000", "--classes 'a=#000000'")
    output = add(call, "--classes", "classes.yaml")
    assert output.code == 2 and "'#000000' (33.33 % of the pixels)" in output.err and "--ignore '#000000'" in output.err
    assert add(call, "--classes", "classes.yaml", "--ignore", "#000000").code == 0
    assert entries()["mine"]["classes"] == {"tree": "#6b8e23", "road": "#804080"}
    assert entries()["mine"]["ignore"] == ["#000000"]
    assert call("data", "check", "mine").code == 0


@pytest.mark.parametrize(
    ("values", "ignore", "classes", "ignored"),
    [
        ([0, 255], None, {"background": 0, "foreground": 255}, None),
        ([0, 1, 255], None, ["class_0", "class_1"], [255]),
        ([1, 4, 9], "9", {"class_1": 1, "class_4": 4}, [9]),
        ([0, 1, 255], "0", {"class_1": 1, "class_255": 255}, [0]),
    ],
)
def test_classes_are_proposed_from_mask_values(
    call: Call, tmp_path: Path, values: list[int], ignore: str | None, classes: Any, ignored: Any
) -> None:
    mine = tmp_path / "mine"
    fill(mine / "images", mine / "masks", TEN, values)
    assert add(call, *(["--ignore", ignore] if ignore else [])).code == 0
    assert (entries()["mine"]["classes"], entries()["mine"].get("ignore")) == (classes, ignored)
    assert call("data", "check", "mine").code == 0


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("names.txt", "ground\nroad \n\ntree\n"),
        ("n.yaml", "[ground, road, tree]"),
        ("n.yaml", "- ground\n- road\n- tree\n"),
    ],
)
def test_names_come_from_a_file(call: Call, mine: Path, file: str, text: str) -> None:
    Path(file).write_text(text)
    assert add(call, "--classes", file).code == 0
    assert entries()["mine"]["classes"] == ["ground", "road", "tree"]


def test_invalid_classes_errors_are_one_line(call: Call, mine: Path) -> None:
    Path("bad.yaml").write_text("road: 70000\ntree: 1\n")
    for more, message in (
        (["--classes", "gone.txt"], "--classes gone.txt: cannot be read"),
        (["--classes", "bad.yaml"], "--classes bad.yaml: class road: 70000 is neither a number from 0 to 65535"),
        (["--classes", "a,b,a"], "--classes a,b,a: the class 'a' is listed twice"),
        (["--classes", "a=0,b=1"], "the masks contain 2 (50.00 % of the pixels), neither a class nor ignored"),
        (["--ignore", "none"], "--ignore none: 'none' is neither a number from 0 to 65535, nor a color"),
        (["--ignore", "0,1,2"], "which gives 1 classes; a dataset has 2 to 255"),
    ):
        refused(add(call, *more), message)


def test_the_suggested_ignored_values_are_complete(call: Call, tmp_path: Path) -> None:
    fill(tmp_path / "mine/images", tmp_path / "mine/masks", TEN, list(range(20)))
    output = add(call, "--classes", "a=0,b=1")
    assert output.code == 2 and f"pass --ignore {','.join(map(str, range(2, 20)))}" in output.err


# --- splits ----------------------------------------------------------------------------------------------------------


def test_sub_folders_are_splits(call: Call, tmp_path: Path) -> None:
    for split, ids in {"training": "a b", "validation": "c", "testing": "d"}.items():
        fill(tmp_path / "mine/images" / split, tmp_path / "mine/masks" / split, ids, [0, 1])
    output = add(call)
    assert output.code == 0 and "splits: training 2, validation 1, testing 1" in output.out
    made = entries()["mine"]
    assert made["images"].endswith("mine/images/{split}") and "fractions" not in made
    assert made["splits"] == {"train": "training", "val": "validation", "test": "testing"}
    assert call("data", "check", "mine").code == 0
    assert add(call, "--val", "0.25", name="random").code == 0  # what is asked for comes first
    assert entries()["random"]["fractions"] == {"val": 0.25}


def test_test_split_is_used_for_validation_if_val_is_missing(call: Call, tmp_path: Path) -> None:
    for split in ("train", "test"):
        fill(tmp_path / "mine/images" / split, tmp_path / "mine/masks" / split, f"{split}1", [0, 1])
    assert add(call).code == 0
    assert entries()["mine"]["splits"] == {"val": "test"}
    spec = Lab.find().registry.get("dataset", "mine")
    assert isinstance(spec, Dataset) and spec.used_splits == ("train", "test")


def test_split_placeholder_in_folder_names(call: Call, tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        fill(tmp_path / "cv" / split, tmp_path / "cv" / f"{split}annot", f"{split}1", [0, 1], ending=".png")
    output = call("data", "add", "cv", "--images", "../cv/{split}", "--masks", "../cv/{split}annot")
    assert output.code == 0 and "splits: train 1, val 1, test 1" in output.out
    assert entries()["cv"]["masks"] == f"{tmp_path}/cv/{{split}}annot"
    assert call("data", "check", "cv").code == 0


def test_lists_are_splits(call: Call, mine: Path) -> None:
    for place in (Path("lists"), mine / "lists"):
        place.mkdir()
        (place / "train.txt").write_text("a\nb\nc\n")
        refused_ = add(call, "--lists", place)
        assert refused_.code == 2 and f"{place.resolve()}/val.txt: no such file" in refused_.err
        (place / "val.txt").write_text("d\n")
    output = add(call, "--lists", "lists")
    assert output.code == 0 and "splits: train 3, val 1" in output.out
    assert entries()["mine"]["lists"] == {"train": "lists/train.txt", "val": "lists/val.txt"}
    assert add(call, "--lists", mine / "lists", "--data-root", "..", name="other").code == 0
    assert entries()["other"]["lists"]["val"] == "mine/lists/val.txt"
    assert call("data", "check", "other", "--data-root", "..").code == 0
    third = add(call, "--lists", "lists", "--val", "0.2", name="third")
    refused(third, "--val, --test, --folds or --seed are mutually exclusive")


def test_fractions_and_seed_follow_the_options(call: Call, mine: Path) -> None:
    output = add(call, "--val", "0.3", "--seed", "4")
    assert "splits: train 7, val 3" in output.out
    assert entries()["mine"]["fractions"] == {"val": 0.3, "seed": 4} and "splits" not in entries()["mine"]
    output = add(call, "--test", "0.3", name="other")
    assert "splits: train 5, val 2, test 3" in output.out


@pytest.mark.parametrize("option", ["--folds 5", "--val 0.2", "--test 0.2", "--group-by .", "--seed 3", "--lists ."])
def test_folders_of_splits_and_options_of_other_splits_are_an_error(call: Call, tmp_path: Path, option: str) -> None:
    root = tmp_path / "mine"
    for split, ids in {"train": TEN, "val": "k l"}.items():
        fill(root / "images" / split, root / "masks" / split, ids, [0, 1])
    name, value = option.split()
    folders = ("--images", "../mine/images/{split}", "--masks", "../mine/masks/{split}")
    output = call("data", "add", "mine", *folders, name, value)
    refused(output, f"selects the splits by folder; leave out {name}")
    suggested = "or divide the images of all folders at random with --images ../mine/images --masks ../mine/masks"
    assert (suggested in output.err) == (name != "--lists")
    assert not Path("registry/datasets.yaml").exists()


def test_a_seed_divides_the_images_of_all_sub_folders_at_random(call: Call, tmp_path: Path) -> None:
    root = tmp_path / "mine"
    for split, ids in {"train": TEN, "val": "k l"}.items():
        fill(root / "images" / split, root / "masks" / split, ids, [0, 1])
    assert add(call, "--seed", 3).code == 0
    assert entries()["mine"]["fractions"] == {"val": 0.15, "test": 0.15, "seed": 3}
    refused(add(call, "--seed", 3, "--lists", ".", name="other"), "are mutually exclusive")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--val", "0.5", "--test", "0.5"),
            "--val, --test, --group-by: val 0.5 and test 0.5 leave nothing to train on",
        ),
        (("--group-by", "("), "--val, --test, --group-by: group_by: '(' is not a regular expression: missing )"),
    ],
)
def test_invalid_fractions_are_reported_before_the_masks_are_read(
    call: Call, mine: Path, options: tuple[str, ...], message: str
) -> None:
    output = add(call, *options)
    refused(output, message)
    assert "pairs of an image and a mask" not in output.out


def test_folders_of_splits_may_end_in_a_year(call: Call, tmp_path: Path) -> None:
    root = tmp_path / "mine"
    fill(root / "images" / "train2017", root / "masks" / "train2017", "a b c", [0, 1])
    fill(root / "images" / "val2017", root / "masks" / "val2017", "d", [0, 1])
    assert "splits: train2017 3, val2017 1" in add(call).out


def test_folders_of_one_split_are_a_warning_if_others_are_beside_it(call: Call, tmp_path: Path) -> None:
    root = tmp_path / "train" / "mine"
    for split, ids in {"train": TEN, "valid": "k l"}.items():
        fill(root / split / "images", root / split / "masks", ids, [0, 1])
    folders = ("--images", root / "train" / "images", "--masks", root / "train" / "masks")
    output = call("data", "add", "mine", *folders, "--dry-run")
    suggested = f"--images '{root}/{{split}}/images' --masks '{root}/{{split}}/masks'"
    assert "only images of 'train' are used, not those of valid beside it" in output.err and suggested in output.err
    assert "not those of" not in call("data", "add", "mine", *folders, "--val", "0.2", "--dry-run").err
    output = call("data", "add", "mine", "--images", f"{root}/{{split}}/images", "--masks", f"{root}/{{split}}/masks")
    assert "splits: train 10, valid 2" in output.out and output.err == ""


# --- files that do not fit -------------------------------------------------------------------------------------------


def test_zero_validation_fraction_error_names_the_option(call: Call, mine: Path) -> None:
    output = add(call, "--val", 0)
    assert output.code == 2 and "--val 0: the validation fraction must be above 0" in output.err
    assert not Path("registry/datasets.yaml").exists()


def test_unpaired_files_are_reported_and_images_skipped_on_request(call: Call, mine: Path) -> None:
    (mine / "masks/b_mask.png").unlink()
    (mine / "images/c.jpg").unlink()
    output = add(call)
    assert output.code == 2 and f"{mine}/images/b.jpg: has no mask (images without a mask: 1)" in output.err
    assert "unpaired: 1 images without a mask: b.jpg" in output.out
    assert "unpaired: 1 masks without an image: c_mask.png" in output.out
    output = add(call, "--skip-unpaired")
    assert output.code == 0 and "splits: train 6, val 1, test 1" in output.out
    (mine / "masks/c_mask.png").unlink()
    assert entries()["mine"]["unpaired"] == "skip" and call("data", "check", "mine").code == 0


def _noise(*paths: Path) -> None:
    for path in paths:
        save(np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8), path)


PROBLEMS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a JPEG mask": (
        lambda masks: Image.open(masks / "a_mask.png").save(masks / "a_mask.jpg") or (masks / "a_mask.png").unlink(),
        "a_mask.jpg: the mask is a JPEG, which changes the values of pixels; save masks as PNG",
    ),
    "another size": (
        lambda masks: save(np.zeros((3, 6), np.uint8), masks / "a_mask.png"),
        "a_mask.png: the mask is 3x6 (height x width), its image",
    ),
    "transparent pixels": (
        lambda masks: save(np.zeros((*SHAPE, 4), np.uint8), masks / "a_mask.png"),
        "a_mask.png: 24 pixels of the mask are transparent (mode RGBA); save the mask without transparency",
    ),
    "negative numbers": (
        lambda masks: save(np.full(SHAPE, -1, np.int32), (masks / "a_mask.png").rename(masks / "a_mask.tif")),
        "a_mask.tif: values from -1 to -1; class numbers are from 0 to 65535",
    ),
    "no image": (lambda masks: (masks / "a_mask.png").write_bytes(b"x"), "a_mask.png: cannot be decoded"),
    "numbers and colors": (
        lambda masks: save(np.zeros((*SHAPE, 3), np.uint8), masks / "a_mask.png"),
        "masks: masks with numbers and masks with colors are mixed: 9 of mode L, 1 of mode RGB",
    ),
    "photographs": (
        lambda masks: [_noise(path, masks.parent / "images" / f"{path.name[0]}.jpg") for path in masks.iterdir()],
        "_mask.png: the masks up to this one have more than 256 colors; is it a photograph?",
    ),
    "nothing": (lambda masks: [path.unlink() for path in masks.iterdir()], "masks: contains no images (.png, .jpg"),
    "other names": (
        lambda masks: [path.rename(masks / f"{n}.png") for n, path in enumerate(sorted(masks.iterdir()))],
        "no image and mask match by name; the first are a.jpg and 0.png",
    ),
}


@pytest.mark.parametrize(("harm", "message"), PROBLEMS.values(), ids=PROBLEMS)
def test_unusable_mask_errors_are_one_line_each(
    call: Call, mine: Path, harm: Callable[[Path], object], message: str
) -> None:
    harm(mine / "masks")
    output = add(call)
    assert (output.code, output.out) == (2, "")
    assert message in output.err.splitlines()[0] and len(output.err.splitlines()) == (11 if "256" in message else 1)
    assert not Path("registry/datasets.yaml").exists()


def test_reading_stops_after_ten_problems(call: Call, mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(mine / "images", mine / "masks", " ".join(f"x{number:02}" for number in range(90)), [0, 1])
    for path in (mine / "masks").glob("x*"):
        path.write_bytes(b"x")
    read = []

    def open_and_count(path: Path) -> Image.Image:
        read.append(path)
        return open_mask(path)

    monkeypatch.setattr(pair_contents, "open_mask", open_and_count)
    output = add(call)
    *problems, last = output.err.splitlines()
    assert (
        output.code == 2
        and [f"x{number:02}_mask.png: cannot be decoded" in line for number, line in enumerate(problems)] == [True] * 10
    )
    assert last == "fcnlab: error: at least 10 of 100 files cannot be used; further files were not read"
    assert len(read) < 100


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_values_are_counted(tmp_path: Path, dtype: type) -> None:
    pixels = np.random.default_rng(0).choice(np.array([0, 3, 5, 5, 255], dtype), (30, 40))
    save(pixels, tmp_path / "mask.tif")
    contents = pair_contents.read_contents({"a": (tmp_path / "mask.tif",) * 2}, lambda: None)
    values, counts = np.unique(pixels, return_counts=True)
    assert contents.pixels == dict(zip(values.tolist(), counts.tolist(), strict=True))


@pytest.mark.parametrize("ending", ["_mask.png", ".png"])
def test_swapped_folders_get_an_error_with_the_options_to_pass(call: Call, tmp_path: Path, ending: str) -> None:
    photos, masks = tmp_path / "mine" / "masks", tmp_path / "mine" / "images"
    fill(photos, masks, TEN, [0, 1, 2], ending=ending)
    output = add(call)
    assert (output.code, output.out) == (2, "")
    assert output.err.splitlines()[1:] == [
        f"fcnlab: error: --images and --masks seem to be swapped; pass --images {photos} --masks {masks}"
    ]


def test_swapped_folders_of_gray_images_get_an_error(call: Call, tmp_path: Path) -> None:
    photos, masks = tmp_path / "mine" / "masks", tmp_path / "mine" / "images"
    for id_ in TEN.split():
        save(np.arange(256, dtype=np.uint8).reshape(16, 16), photos / f"{id_}.png")
        save(np.eye(16, dtype=np.uint8), masks / f"{id_}.png")
    output = add(call)
    assert output.code == 2 and "the masks contain 256 values\nfcnlab: error: --images and --masks seem" in output.err


def test_missing_and_identical_folder_errors_are_one_line(call: Call, mine: Path) -> None:
    refused(call("data", "add", "x", "--images", "../gone", "--masks", "../mine/masks"), "gone: no such folder")
    both = call("data", "add", "x", "--images", "../mine/masks", "--masks", "../mine/masks")
    refused(both, "images and masks are in one folder, and no suffix or extension distinguishes them; pass two folders")


def test_hand_written_entry_error_names_file_and_key(call: Call, mine: Path) -> None:
    assert add(call).code == 0
    file = Path("registry/datasets.yaml")
    file.write_text(file.read_text().replace("mask_suffix", "mask_sufix"))
    refused(
        call("data", "check", "mine"),
        "registry/datasets.yaml: mine: mask_sufix: unknown key with type: folder; did you mean 'mask_suffix'?",
    )


def test_16_bit_images_get_the_range_of_their_values(call: Call, mine: Path) -> None:
    for number, file in enumerate(sorted((mine / "images").iterdir())):
        save(np.arange(24, dtype=np.uint16).reshape(SHAPE) * 100 + number, file.with_suffix(".tif"))
        file.unlink()
    output = add(call, "--classes", "ground,road,tree")
    assert (output.code, output.err) == (0, "")
    assert (
        "images: 10 images have values of more than 8 bits (mode I;16), 0..2309; 0..4095 becomes 0..255" in output.out
    )
    assert entries()["mine"]["value_range"] == [0, 4095]
    spec = Lab.find().registry.get("dataset", "mine")
    assert isinstance(spec, Dataset)
    sample = Lab.find().open_dataset(spec).split("train")[0]
    number = TEN.split().index(sample.id)
    expected = [[round((100 * i + number) / 4095 * 255)] * 3 for i in range(3)]
    assert sample.image[0, :3].tolist() == expected


def write_floats(folder: Path, change: Callable[[int, np.ndarray], object], dtype: type = np.float32) -> None:
    """Replace the images by random values in 100..600, changed by a function of the number of the image."""
    rng = np.random.default_rng(0)
    for number, file in enumerate(sorted(folder.iterdir())):
        values: np.ndarray = rng.integers(100, 601, SHAPE).astype(dtype)
        values[3, 3:5] = 100, 600
        change(number, values)
        save(values, file.with_suffix(".tif"))
        file.unlink()


def test_pixels_that_are_not_finite_are_a_warning_and_a_note(call: Call, mine: Path) -> None:
    def change(number: int, values: np.ndarray) -> None:
        if number < 2:
            values[0, :3] = np.nan, np.inf, -np.inf
        if number == 9:
            values[:] = np.nan

    write_floats(mine / "images", change)
    output = add(call, "--classes", "ground,road,tree", "--val", "0.5")
    assert output.code == 0 and entries()["mine"]["value_range"] == [100, 600]
    assert output.err == (
        f"warning: pixels that are NaN or infinite in 3 images, such as {(mine / 'images/a.tif').resolve()} "
        "(3 pixels); NaN and -inf become 0 (black), inf becomes 255\n"
    )
    checked = call("data", "check", "mine", "--json")
    notes = [note["what"] for split in json.loads(checked.out)["splits"] for note in split["notes"]]
    found = [
        re.match("NaN or infinite: ([0-9]+) pixels? in ([0-9]) images?; NaN and -inf become 0", note) for note in notes
    ]
    assert [sum(int(match[group]) for match in found if match) for group in (1, 2)] == [3 + 3 + 24, 3]
    spec = Lab.find().registry.get("dataset", "mine")
    assert isinstance(spec, Dataset)
    dataset = Lab.find().open_dataset(spec)
    sample = next(sample for name in ("train", "val") for sample in dataset.split(name) if sample.id == "a")
    assert sample.image[0, :3, 0].tolist() == [0, 255, 0]


@pytest.mark.parametrize(
    ("value", "dtype", "value_range", "levels"),
    [
        (-9999, np.float32, "[-9999, 600]", "12 levels"),
        (-3.4e38, np.float32, "[-3.4e+38, 600]", "1 level"),
        (65535, np.uint16, "[0, 65535]", "2 levels"),
        (1e20, np.float32, "[100, 1e+20]", "1 level"),
    ],
)
def test_a_value_far_from_all_others_is_a_warning_with_the_range_to_set(
    call: Call, mine: Path, value: float, dtype: type, value_range: str, levels: str
) -> None:
    def change(number: int, values: np.ndarray) -> None:
        values[0, : number % 2] = value

    write_floats(mine / "images", change, dtype)
    output = add(call, "--classes", "ground,road,tree")
    assert output.code == 0 and output.err.count("\n") == 1
    assert (
        f"{value:g} is far from all other values, 100..600, as a value of missing data (nodata) is, in 5 images"
        in output.err
    )
    assert (
        f"with value_range: {value_range}, the others have about {levels} of 256: set value_range: [100, 600]"
        in output.err
    )


@pytest.mark.parametrize("values", [(0, 600), (-500, 600), (100, 1500), (0, 0)])
def test_values_near_the_others_are_no_warning(call: Call, mine: Path, values: tuple[float, float]) -> None:
    def change(_: int, pixels: np.ndarray) -> None:
        pixels[0, :2] = values

    write_floats(mine / "images", change)
    assert add(call, "--classes", "ground,road,tree").err == ""


def test_the_range_of_pgm_images_is_of_their_stored_values(call: Call, mine: Path) -> None:
    values = np.arange(24, dtype=np.uint16).reshape(SHAPE) * 21  # up to 483
    for file in sorted((mine / "images").iterdir()):
        header = f"P5\n{SHAPE[1]} {SHAPE[0]}\n4095\n".encode()
        file.with_suffix(".pgm").write_bytes(header + values.astype(">u2").tobytes())
        file.unlink()
    output = add(call, "--classes", "ground,road,tree")
    assert (output.code, output.err) == (0, "")
    assert "values of more than 8 bits (mode I), 0..483; 0..511 becomes 0..255" in output.out
    assert entries()["mine"]["value_range"] == [0, 511]
    spec = Lab.find().registry.get("dataset", "mine")
    assert isinstance(spec, Dataset)
    image = Lab.find().open_dataset(spec).split("train")[0].image
    assert image[..., 0].tolist() == np.rint(values / 511 * 255).tolist()


def test_unused_bands_and_pages_are_reported(call: Call, mine: Path) -> None:
    for file in sorted((mine / "images").iterdir()):
        with Image.open(file) as image:
            bands = np.dstack([np.asarray(image), np.full(SHAPE, 7, np.uint8)])
        save(bands, file.with_suffix(".png"))
        file.unlink()
    output = add(call, "--dry-run")
    assert output.code == 0 and "images: 10 images have 4 bands (RGBA); the fourth is not used" in output.out
    first = mine / "images/a.png"
    with Image.open(first) as image:
        image.save(first.with_suffix(".tif"), save_all=True, append_images=[image.copy()])
    first.unlink()
    refused(add(call), f"{first.with_suffix('.tif')}: has 2 pages; save one file per page")


@pytest.mark.parametrize(
    ("val", "messages"),
    [
        ("b\n", ["/val.txt: contains ids, but ", "/train.txt contains pairs of an image and its mask"]),
        (
            "images/a.jpg masks/b_mask.png\n",
            ["/val.txt: ", "/a.jpg has two masks, ", "/a_mask.png and ", "/b_mask.png; list one of them"],
        ),
        ("# images/a.jpg masks/b_mask.png\n", ["/val.txt: the split 'val' has no images"]),
    ],
)
def test_lists_that_disagree_are_an_error(call: Call, mine: Path, val: str, messages: list[str]) -> None:
    (mine / "train.txt").write_text("images/a.jpg masks/a_mask.png\n")
    (mine / "val.txt").write_text(val)
    output = add(call, "--lists", mine)
    assert output.code == 2 and output.err.count("\n") == 1 and not Path("registry/datasets.yaml").exists()
    assert all(message in output.err for message in messages)


def test_lists_of_pairs_of_paths_are_the_splits(call: Call, mine: Path) -> None:
    lists = {"train": "abcdef", "val": "gh", "test": "ij"}
    for split, ids in lists.items():
        lines = (f"images/{id_}.jpg masks/{id_}_mask.png\n" for id_ in ids)
        (mine / f"{split}_list.txt").write_text("".join(lines), encoding="utf-8")
    output = add(call, "--lists", mine)
    assert (output.code, output.err) == (0, "") and "splits: train 6, val 2, test 2" in output.out
    assert call("data", "check", "mine").code == 0
    (mine / "val_list.txt").write_text("images/g.jpg masks/g.png\n", encoding="utf-8")
    refused(add(call, "--lists", mine, "--force"), f"{mine / 'val_list.txt'}, line 1: no file 'masks/g.png' below ")


@pytest.mark.parametrize(
    ("image", "mask", "suffixes"),
    [
        ("{}_sat.jpg", "{}_mask.png", {"image_suffix": "_sat", "mask_suffix": "_mask"}),
        ("{}.jpg", "{}_mask.png", {"mask_suffix": "_mask"}),
        ("{}.jpg", "{}.png", {"image_suffix": ".jpg", "mask_suffix": ".png"}),
        ("{}.jpg", "{}.jpg.png", {"mask_suffix": ".jpg.png"}),
    ],
)
def test_images_and_masks_may_be_in_one_folder(
    call: Call, mine: Path, image: str, mask: str, suffixes: dict[str, str]
) -> None:
    for id_ in TEN.split():
        (mine / f"images/{id_}.jpg").rename(mine / image.format(id_))
        (mine / f"masks/{id_}_mask.png").rename(mine / mask.format(id_))
    (mine / "images").rmdir()
    (mine / "masks").rmdir()
    output = call("data", "add", "mine", "--images", "../mine", "--masks", "../mine")
    assert (output.code, output.err) == (0, "")
    assert "10 pairs of an image and a mask" in output.out and "unpaired" not in output.out
    entry = entries()["mine"]
    assert {key: entry[key] for key in ("image_suffix", "mask_suffix") if key in entry} == suffixes
    assert call("data", "check", "mine").code == 0
    dataset = Lab.find().open_dataset(Lab.find().registry.get("dataset", "mine"))
    assert sorted(id_ for split in ("train", "val", "test") for id_ in dataset.split(split).ids) == TEN.split()


def test_masks_may_have_the_extension_of_the_image_in_their_names(call: Call, mine: Path) -> None:
    for id_ in TEN.split():
        (mine / f"masks/{id_}_mask.png").rename(mine / f"masks/{id_}.jpg.png")
    output = add(call)
    assert (output.code, output.err) == (0, "") and "unpaired" not in output.out
    assert call("data", "check", "mine").code == 0


def test_groups_stay_together_in_random_splits(call: Call, mine: Path) -> None:
    fill(mine / "images", mine / "masks", "v1_1 v1_2 v1_3 v2_1 v2_2 v3_1 v4_1 v5_1", [0, 1, 2, 2, 2, 255])
    for id_ in TEN.split():
        (mine / f"images/{id_}.jpg").unlink()
        (mine / f"masks/{id_}_mask.png").unlink()
    output = add(call, "--group-by", r"^(v\d)_", "--val", "0.3")
    assert (output.code, output.err) == (0, "")
    assert entries()["mine"]["fractions"] == {"val": 0.3, "group_by": r"^(v\d)_"}
    dataset = Lab.find().open_dataset(Lab.find().registry.get("dataset", "mine"))
    videos = {split: {id_[:2] for id_ in dataset.split(split).ids} for split in ("train", "val")}
    assert not videos["train"] & videos["val"] and len(videos["train"] | videos["val"]) == 5
    train, val = (len(dataset.split(split)) for split in ("train", "val"))
    assert train + val == 8 and val >= 2
    assert f"splits: train {train} ({len(videos['train'])} groups), val {val} ({len(videos['val'])} group" in output.out
    message = "group_by: 'x' does not match the id 'v1_1'"
    refused_after_output = add(call, "--group-by", "x", "--force")
    assert refused_after_output.code == 2 and message in refused_after_output.err


def test_folds_are_a_cross_validation_with_one_seed_per_fold(call: Call, mine: Path) -> None:
    output = add(call, "--folds", "5")
    assert (output.code, output.err) == (0, "") and "splits of fold 0 of 5: train 8, val 2" in output.out
    assert entries()["mine"]["cross_validation"] == {"folds": 5} and "splits" not in entries()["mine"]
    grid = Lab.find().load_grid(Path("experiments/mine.yaml"))
    folds = [trial.dataset.content()["cross_validation"]["fold"] for _, trial in grid.trials(Lab.find().fingerprints)]
    assert folds == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    output = add(call, "--folds", "2", "--val", "0.2", name="nested")
    assert "splits of fold 0 of 2: train 3, val 2, test 5" in output.out
    assert entries()["nested"]["cross_validation"] == {"folds": 2, "val": 0.2}
    assert call("data", "check", "nested").code == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--folds", "3", "--test", "0.2"), "--folds and --test are mutually exclusive"),
        (("--folds", "3", "--lists", "."), "--val, --test, --folds or --seed are mutually exclusive"),
        (("--folds", "2", "--val", "0.6"), "--folds, --val, --group-by: val 0.6 and one of 2 folds leave nothing"),
        (("--folds", "11"), "/mine/images: 10 images are too few for 11 folds"),
    ],
)
def test_invalid_folds_are_an_error(call: Call, mine: Path, options: tuple[str, ...], message: str) -> None:
    output = add(call, *options)
    assert output.code == 2 and message in output.err and not Path("registry/datasets.yaml").exists()


def test_folders_in_the_lab_are_written_as_relative_paths(call: Call, mine: Path) -> None:
    mine.rename("data")
    output = call("data", "add", "mine", "--images", "data/images", "--masks", "data/masks")
    assert (output.code, output.err) == (0, "")
    assert (entries()["mine"]["images"], entries()["mine"]["masks"]) == ("data/images", "data/masks")
    moved = Path.cwd().rename(Path.cwd().parent / "moved")
    lab = Lab.find(root=moved)
    assert len(lab.open_dataset(lab.registry.get("dataset", "mine")).split("train")) == 6


@pytest.mark.parametrize("extension", [".png", ".bmp", ".tif"])
def test_palette_masks_give_the_colors_of_the_classes(call: Call, mine: Path, extension: str) -> None:
    for file in sorted((mine / "masks").iterdir()):
        with Image.open(file) as mask:
            labels = np.asarray(mask)
        picture = Image.fromarray(labels)
        picture.putpalette([10, 20, 30, 128, 64, 128, 0, 255, 0, *[0] * (3 * 253)])
        file.unlink()
        picture.save(file.with_suffix(extension))
    assert add(call, "--classes", "ground,road,tree").code == 0
    assert entries()["mine"]["colors"] == {"ground": "#0a141e", "road": "#804080", "tree": "#00ff00"}


def test_images_that_viewers_rotate_are_a_warning_or_explain_another_size(call: Call, mine: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    for name in ("a", "c"):
        Image.open(mine / f"images/{name}.jpg").save(mine / f"images/{name}.jpg", exif=exif)
    output = add(call, "--dry-run")
    assert output.code == 0 and f"viewers rotate or mirror 2 images, such as {mine / 'images/a.jpg'} (6)" in output.err
    save(np.zeros(SHAPE[::-1], np.uint8), mine / "masks/a_mask.png")
    refused(add(call), "a.jpg is 4x6 as stored, with EXIF orientation 6; rotate the stored pixels")


def test_palettes_that_differ_between_masks_are_a_warning(call: Call, mine: Path) -> None:
    for file in (mine / "masks").iterdir():
        mask = Image.open(file)
        colors = {0: (9, 9, 9), 1: (200, 0, 0), 2: (0, 90, 0)}
        if file.name.startswith("b"):
            colors[2] = (1, 2, 3)
        mask.putpalette([channel for number in range(256) for channel in colors.get(number, (0, 0, 0))])
        mask.save(file)
    output = add(call, "--dry-run", "--classes", "a,b,c")
    assert output.code == 0
    assert "warning: 1 palette masks assign another color to a number than earlier masks: 2 is (0, 90, 0)" in output.err


@pytest.fixture
def quantized(mine: Path) -> Path:
    """The masks as palette images, whose palettes contain the colors in the order in which they occur in each mask."""
    color_of = {0: (0, 0, 0), 1: (200, 0, 0), 2: (0, 90, 0), 255: (255, 255, 255)}
    for number, file in enumerate(sorted((mine / "masks").iterdir())):
        rgb = [color_of[int(value)] for value in np.roll(np.asarray(Image.open(file)), number).flat]
        occurring = list(dict.fromkeys(rgb))
        mask = Image.fromarray(np.array([occurring.index(color) for color in rgb], np.uint8).reshape(SHAPE))
        mask.putpalette([channel for color in occurring for channel in color])
        mask.save(file)
    return mine


def test_colors_with_other_numbers_in_each_palette_mask_are_an_error(call: Call, quantized: Path) -> None:
    output = add(call)
    refused(output, "4 of 4 colors of the palette masks have several numbers", "pass them: --classes 'color_000000=#0")
    option = "ground=#000000,road=#c80000,tree=#005a00"
    assert add(call, "--classes", option, "--ignore", "#ffffff").code == 0
    entry = entries()["mine"]
    assert entry["classes"] == {"ground": "#000000", "road": "#c80000", "tree": "#005a00"}
    assert entry["ignore"] == ["#ffffff"] and "palettes" not in entry
    checked = call("data", "check", "mine")
    assert (checked.code, "palette" in checked.out) == (0, False)
    split = Lab(Path.cwd()).open_dataset(Lab(Path.cwd()).registry.get("dataset", "mine")).split("train")
    for index, id_ in enumerate(split.ids):
        colors = np.asarray(Image.open(quantized / f"masks/{id_}_mask.png").convert("RGB"))
        assert np.array_equal(split[index].label == 1, (colors == (200, 0, 0)).all(-1))
        assert np.array_equal(split[index].label == 255, (colors == 255).all(-1))


def test_the_numbers_of_differing_palettes_can_be_the_classes(call: Call, quantized: Path) -> None:
    assert add(call, "--any-palette").code == 0
    assert entries()["mine"]["palettes"] == "any"
    assert call("data", "check", "mine").code == 0
    file = Path("registry/datasets.yaml")
    file.write_text(file.read_text().replace("palettes: any", "palettes: same"))
    checked = call("data", "check", "mine", "--json")
    assert checked.code == 2 and "write `palettes: any`" in checked.out
    lab = Lab(Path.cwd())
    spec = lab.registry.get("dataset", "mine")
    assert spec.content() == spec.model_copy(update={"palettes": "any"}).content(), "the key of a trial is the same"


def test_a_list_that_repeats_an_image_is_refused(call: Call, mine: Path, tmp_path: Path) -> None:
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "train.txt").write_text("a\nb\na\n")
    (lists / "val.txt").write_text("d\ne\n")
    output = add(call, "--lists", lists)
    assert output.code == 2
    assert f"{lists / 'train.txt'}: 'train' contains the image 'a' 2 times; list each image once" in output.err
    assert "mine" not in Lab(Path.cwd()).registry.names("dataset")


def test_masks_that_are_mostly_ignored_are_a_warning(call: Call, tmp_path: Path) -> None:
    root = tmp_path / "mine"
    fill(root / "images", root / "masks", TEN, [0, 1, 255, 255, 255, 255])
    output = add(call, "--classes", "ground,road")
    assert output.code == 0
    assert "% of all pixels are ignored (255), so they are neither trained nor evaluated" in output.err


def test_a_mask_of_several_images_is_a_warning(call: Call, mine: Path) -> None:
    (mine / "train.txt").write_text("".join(f"images/{id_}.jpg masks/a_mask.png\n" for id_ in "abcdefg"))
    (mine / "val.txt").write_text("images/h.jpg masks/h_mask.png\n")
    output = add(call, "--lists", mine)
    a, b = (mine / f"images/{id_}.jpg" for id_ in "ab")
    what = f"1 mask of several images, such as {mine / 'masks/a_mask.png'} of 7 images: {a}, {b} and 5 more; correct"
    assert (output.code, output.err.count("\n")) == (0, 1) and what in output.err
    checked = call("data", "check", "mine")
    assert checked.code == 0 and "shared mask" in checked.out


def test_images_in_two_splits_or_in_none_are_a_warning(call: Call, mine: Path, tmp_path: Path) -> None:
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "train.txt").write_text("a\nb\nc\nd\n")
    (lists / "val.txt").write_text("d\ne\n")
    output = add(call, "--lists", lists, "--dry-run")
    assert output.code == 0
    assert f"1 image in two splits, such as {mine / 'images/d.jpg'} in train and val: metrics are biased" in output.err
    for number, file in enumerate(sorted(mine.glob("*/*"))):
        folder = file.parent / ("train", "val", "more", "", "train")[number % 10 % 5]
        folder.mkdir(exist_ok=True)
        file.rename(folder / file.name)
    output = add(call, "--dry-run")
    assert output.code == 0 and "splits: train 4, val 2" in output.out
    assert "4 images outside of the sub-folders train, val, not used, such as " in output.err
