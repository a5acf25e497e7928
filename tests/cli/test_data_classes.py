"""Classes of a user's own masks: their values, and classes that are missing in a split."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.cli.conftest import Call, CommandResult
from tests.cli.test_cli import refused
from tests.cli.test_data_add import TEN, add, entries, fill, save

Make = Callable[[Any], None]


@pytest.fixture
def columns() -> int:
    return 250


@pytest.fixture
def call(fcnlab: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Call `fcnlab` from inside a new lab."""
    assert fcnlab("init", "lab").code == 0
    monkeypatch.chdir(tmp_path / "lab")
    return fcnlab


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Make ten images whose masks all contain the same values."""
    return lambda values: fill(tmp_path / "mine/images", tmp_path / "mine/masks", TEN, values)


@pytest.mark.parametrize(
    ("values", "option", "classes", "ignored"),
    [
        ([0, 255], "background,road", {"background": 0, "road": 255}, None),
        ([[0, 0, 0], [255, 255, 255]], "background,road", {"background": "#000000", "road": "#ffffff"}, None),
        ([0, 128, 255], "ground,car,road", {"ground": 0, "car": 128, "road": 255}, None),
        ([0, 7, 9], "ground,car,road", {"ground": 0, "car": 7, "road": 9}, None),
        ([0, 1, 255], "ground,car", ["ground", "car"], [255]),
        ([0, 1, 2, 2, 255], "ground=0,car=1+2", {"ground": 0, "car": [1, 2]}, [255]),
        ([0, 1, 255], "ground=0,car=1+255", {"ground": 0, "car": [1, 255]}, None),
        ([[9, 9, 9], [0, 0, 255]], "a=b=#090909,car=#0000FF", {"a=b": "#090909", "car": "#0000ff"}, None),
    ],
)
def test_names_are_assigned_to_the_values_of_the_masks(
    call: Call, make: Make, values: Any, option: str, classes: Any, ignored: Any
) -> None:
    make(values)
    output = add(call, "--classes", option)
    assert (output.code, output.err) == (0, "")
    assert (entries()["mine"]["classes"], entries()["mine"].get("ignore")) == (classes, ignored)
    assert ("assigned to the values in ascending order" in output.out) == ("=" not in option and ignored is None)
    assert call("data", "check", "mine").code == 0


@pytest.mark.parametrize(
    ("classes", "remedy"),
    [("a,b,c", "or pass --ignore 3,9; only "), ("a=0,b=1,c=2", "or pass --ignore 3,9; only ")],
)
def test_a_mask_with_a_value_of_its_own_is_named(
    call: Call, make: Make, tmp_path: Path, classes: str, remedy: str
) -> None:
    make([0, 1, 2, 3])
    mask = tmp_path / "mine/masks" / f"{TEN.split()[4]}_mask.png"
    pixels = np.array(Image.open(mask))
    pixels[0, 0] = 9
    save(pixels, mask)
    refused(add(call, "--classes", classes, "--ignore", 3), f"{remedy}{mask} contains 9")


def test_binary_masks_of_an_rgb_image_are_background_and_foreground(call: Call, make: Make) -> None:
    make([[0, 0, 0], [255, 255, 255]])
    assert add(call).code == 0
    assert entries()["mine"]["classes"] == {"background": "#000000", "foreground": "#ffffff"}


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (
            [0, 1, 2],
            ["--classes", "a,b"],
            "--classes lists 2 names (a, b), and the masks contain 3 values: 0, 1, 2; name every value, give a class "
            "several values, such as --classes a=0,b=1+2, or pass --ignore 2",
        ),
        (
            [0, 2, 255],
            ["--classes", "a,b,c,d"],
            "--classes lists 4 names (a, b, c, d), and the masks contain 2 values besides the ignored 255: 0, 2; no "
            "mask contains 1 (b), 3 (d); name the values that occur: --classes a=0,c=2",
        ),
        (
            [0, 255],
            ["--classes", "a,b,c"],
            "3 names (a, b, c), and the masks contain 2 values: 0, 255; assign the values that occur, such as "
            "--classes a=0,b=255",
        ),
        (
            [0, 255],
            ["--classes", "road"],
            "--classes lists 1 name (road), and the masks contain 2 values: 0, 255; a dataset needs at least two "
            "classes, such as --classes background=0,road=255",
        ),
        (
            [0, 2, 255],
            ["--classes", "a,b,c"],
            "--classes lists 3 names (a, b, c), and the masks contain 2 values besides the ignored 255: 0, 2; no mask "
            "contains 1 (b); name the values that occur: --classes a=0,c=2; if 255 is a class, pass --classes "
            "a=0,b=2,c=255 without --ignore",
        ),
        ([0, 1, 255], ["--classes", "a,b,c"], "if 255 is a class, pass --classes a=0,b=1,c=255 without --ignore"),
        (
            [0, 255],
            ["--classes", "ground,road", "--ignore", 255],
            "if 255 is a class, pass --classes ground=0,road=255 without --ignore",
        ),
        (
            [0, 255],
            ["--classes", "ground=0,road=255", "--ignore", 255],
            "the value 255 belongs to class road and to ignore; keep one of them",
        ),
        ([0, 1], ["--classes", "a=0,b"], "'b' has no value; write name=value for each class"),
        ([0, 1], ["--classes", "a=0,a=1"], "the class 'a' is listed twice; write its values as a=0+1"),
        ([0, 1], ["--classes", "a=0,b=1,c=2"], "c: no pixel in train, val, test; a class needs pixels to train on"),
    ],
)
def test_names_that_do_not_fit_the_values_are_refused_with_a_remedy(
    call: Call, make: Make, values: Any, options: list[object], message: str
) -> None:
    make(values)
    output = add(call, *options)
    assert output.code == 2 and output.err.startswith("fcnlab: error: ") and output.err.count("\n") == 1
    assert message in output.err
    assert not Path("registry/datasets.yaml").exists()


@pytest.mark.parametrize(
    ("levels", "options", "message"),
    [
        (
            [0, 0, 0, 128, 255, 255],
            ["--classes", "a,b"],
            "or give a class several values, such as --classes a=0,b=128+255",
        ),
        ([0, 0, 0, 128, 255, 255], ["--classes", "b"], "such as --classes background=0,b=128+255"),
        ([0, 0, 0, 1, 1, 2], ["--classes", "a=0,b=2"], "1 (33.33 % of the pixels), neither a class nor ignored; add a"),
        ([0] * 12 + [255] * 11 + [1], ["--classes", "a,b"], "such as --classes a=0,b=1+255"),
    ],
)
def test_no_suggestion_ignores_the_most_frequent_value_beside_the_background(
    call: Call, make: Make, levels: list[int], options: list[object], message: str
) -> None:
    make(levels)
    output = add(call, *options)
    assert output.code == 2 and message in output.err and "pass --ignore" not in output.err


def test_frequent_white_is_a_class_among_gray_levels_and_a_border_among_labels(call: Call, make: Make) -> None:
    make([0, 0, 0, 128, 255, 255])
    assert add(call).code == 0
    assert entries()["mine"]["classes"] == {"class_0": 0, "class_128": 128, "class_255": 255}
    make([0, 0, 0, 1, 255, 255])
    assert add(call, "--classes", "a,b", "--force").code == 0
    assert entries()["mine"]["classes"] == ["a", "b"] and entries()["mine"]["ignore"] == [255]


def blurred(folder: Path, colors: np.ndarray) -> None:
    """Replace the masks by discs on a background that are resized with interpolation."""
    y, x = np.mgrid[:40, :40]
    for number, mask in enumerate(sorted((folder / "masks").iterdir())):
        disc = colors[((y - 20) ** 2 + (x - 12 - number) ** 2 < 100).astype(int)]
        Image.fromarray(disc).resize((60, 60), Image.Resampling.BICUBIC).save(mask)
        Image.new("RGB", (60, 60), (20 * number, 0, 0)).save(
            folder / f"images/{mask.name.replace('_mask.png', '.jpg')}"
        )


BLURRED = "the masks were probably resized with interpolation, antialiased or saved as JPEG: besides "


@pytest.mark.parametrize("options", [[], ["--classes", "a,b"], ["--classes", "a=0,b=255"], ["--ignore", "255"]])
def test_masks_that_were_interpolated_are_refused(call: Call, make: Make, tmp_path: Path, options: list[str]) -> None:
    make([0, 255])
    blurred(tmp_path / "mine", np.array([0, 255], np.uint8))
    output = add(call, *options)
    assert output.code == 2 and output.err.count("\n") == 1
    assert f"{BLURRED}0, 255, they contain " in output.err and "nearest-neighbor" in output.err
    assert "b=" not in output.err and not Path("registry/datasets.yaml").exists()


def test_color_masks_that_were_interpolated_are_refused(call: Call, make: Make, tmp_path: Path) -> None:
    make([[0, 0, 0], [255, 0, 0]])
    blurred(tmp_path / "mine", np.array([[0, 0, 0], [220, 20, 60]], np.uint8))
    for options in ([], ["--classes", "a=#000000,b=#dc143c"]):
        refused(add(call, *options), f"{BLURRED}#000000, #dc143c, they contain ")


def test_interpolated_masks_of_a_hand_written_entry_are_named_by_check(call: Call, make: Make, tmp_path: Path) -> None:
    make([0, 255])
    assert add(call, "--classes", "a,b").code == 0
    blurred(tmp_path / "mine", np.array([0, 255], np.uint8))
    output = call("data", "check", "mine", "--json")
    problems = [problem for split in json.loads(output.out)["splits"] for problem in split["problems"]]
    assert output.code == 2 and len(problems) == len(TEN.split())
    for problem in problems:
        assert problem["kind"] == "undefined label" and "resized with interpolation" in problem["what"]
        assert "nearest-neighbor" in problem["remedy"]


def test_interpolated_values_can_be_assigned_explicitly(call: Call, make: Make, tmp_path: Path) -> None:
    make([0, 255])
    blurred(tmp_path / "mine", np.array([0, 255], np.uint8))
    grays = sorted(
        {
            value
            for path in (tmp_path / "mine/masks").iterdir()
            for value in np.unique(np.asarray(Image.open(path))).tolist()
        }
    )
    low, high = ([str(value) for value in grays if (value < 128) is is_low] for is_low in (True, False))
    assert add(call, "--classes", f"a={'+'.join(low)},b={'+'.join(high)}").code == 0
    assert add(call, "--classes", "a,b", "--ignore", ",".join([*low[1:], *high[:-1]]), "--force").code == 0
    assert entries()["mine"]["classes"] == {"a": 0, "b": 255}
    assert call("data", "check", "mine").code == 0


def test_class_of_a_list_is_ignored_by_its_name(call: Call, make: Make) -> None:
    make([0, 1, 11, 255])
    Path("names.txt").write_text("0: sky\n1: road\n11: void\n")
    output = add(call, "--classes", "names.txt", "--ignore", "void")
    assert (output.code, output.err) == (0, "")
    assert entries()["mine"]["classes"] == ["sky", "road"] and entries()["mine"]["ignore"] == [255, 11]
    more = ["--classes", "names.txt", "--force", "--ignore"]
    refused(add(call, *more, "viod"), "'viod' is neither a number", "nor a class; did you mean 'void'?")
    refused(add(call, *more, "void,road"), "--ignore void,road: leaves 1 classes")
    output = add(call, *more, "11")
    assert output.code == 2 and "the value 11 belongs to class void and to ignore; keep one of them" in output.err


@pytest.mark.parametrize(("void", "option"), [("Void", "void"), ("void", "VOID"), ("Ödland", "ödland")])
def test_ignored_class_can_be_written_in_another_case(call: Call, make: Make, void: str, option: str) -> None:
    make([0, 1, 11])
    output = add(call, "--classes", f"sky=0,road=1,{void}=11", "--ignore", option)
    assert (output.code, output.err) == (0, "")
    assert entries()["mine"]["classes"] == ["sky", "road"] and entries()["mine"]["ignore"] == [11]


def test_ignored_class_that_differs_from_another_in_case_is_written_exactly(call: Call, make: Make) -> None:
    make([0, 1, 2, 11])
    classes = ["--classes", "sky=0,road=1,Road=2,void=11"]
    refused(add(call, *classes, "--ignore", "ROAD"), "several classes differ only in case; write one of road, Road")
    assert add(call, *classes, "--ignore", "Road").code == 0
    assert entries()["mine"]["classes"] == {"sky": 0, "road": 1, "void": 11}


def test_ignored_value_that_no_mask_contains_is_a_warning(call: Call, make: Make) -> None:
    make([0, 1])
    output = add(call, "--ignore", "11,255")
    assert output.code == 0
    assert output.err.splitlines() == [
        "warning: --ignore 11: no mask contains this value",
        "warning: --ignore 255: no mask contains this value",
    ]


def test_masks_of_16_bits_and_rgba_masks_become_datasets(call: Call, tmp_path: Path) -> None:
    for name, dtype, pixels in (
        ("wide", np.uint16, [0, 7, 1000]),
        ("rgba", np.uint8, [[0, 0, 0, 255], [9, 8, 7, 255]]),
    ):
        for id_ in TEN.split():
            noise = np.random.default_rng(ord(id_)).integers(0, 256, (4, 6, 3), np.uint8)
            save(noise, tmp_path / "mine/images" / f"{id_}.png")
            shape = (4, 6, 4) if name == "rgba" else (4, 6)
            save(np.resize(np.array(pixels, dtype), shape), tmp_path / "mine/masks" / f"{id_}.png")
        assert add(call, name=name).code == 0
        assert call("data", "check", name).code == 0
    assert entries()["wide"]["classes"] == {"class_0": 0, "class_7": 7, "class_1000": 1000}
    assert entries()["rgba"]["classes"] == {"color_000000": "#000000", "color_090807": "#090807"}


def test_masks_of_object_numbers_are_refused(call: Call, tmp_path: Path) -> None:
    for index, id_ in enumerate(TEN.split()):
        save(np.full((6, 50, 3), index, np.uint8), tmp_path / "mine/images" / f"{id_}.png")
        save(np.arange(300, dtype=np.uint16).reshape(6, 50), tmp_path / "mine/masks" / f"{id_}.png")
    output = add(call)
    assert output.code == 2 and "more than 256 values; are these numbers of objects, or depths?" in output.err


NUMBERED = {"road": 3, "tree": 7}
COLORED = {"road": "#804080", "tree": "#6b8e23"}
FORMS: dict[str, tuple[str, Any, Any]] = {
    "names.txt": ("# classes\n\nroad\n  tree \n", [3, 7], NUMBERED),
    "no-ending": ("\ufeffroad, tree\n", [3, 7], NUMBERED),
    "labelme.txt": ("__ignore__\n_background_\ncat\n", [0, 1, 255], ["_background_", "cat"]),
    "labelme-binary.txt": ("__ignore__\n_background_\ncat\n", [0, 1], ["_background_", "cat"]),
    "numbers.txt": ("7: tree\n3: road\n255: unlabeled\n", [3, 7, 255], NUMBERED),
    "spaces.txt": ("3 road\n7 tree\n", [3, 7], NUMBERED),
    "after.txt": ("road: 3\ntree: 7\n", [3, 7], NUMBERED),
    "index.csv": ("id,name\n3,road\n7,tree\n", [3, 7], NUMBERED),
    "colors.csv": ("name,r,g,b\nroad,128,64,128\ntree,107,142,35\n", [[128, 64, 128], [107, 142, 35]], COLORED),
    "no-heading.csv": ("road,128,64,128\ntree,107,142,35\n", [[128, 64, 128], [107, 142, 35]], COLORED),
    "label_colors.txt": ("128 64 128\troad\n107 142 35\ttree\n", [[128, 64, 128], [107, 142, 35]], COLORED),
    "labelmap.txt": ("# label:color_rgb:parts:actions\nroad:128,64,128::\ntree:107,142,35::\n",
                     [[128, 64, 128], [107, 142, 35]], COLORED),
    "both.csv": ("id;name;color\n3;road;#804080\n7;tree;#6b8e23\n", [3, 7], NUMBERED),
    "both-colors.csv": ("id;name;color\n3;road;#804080\n7;tree;#6b8e23\n", [[128, 64, 128], [107, 142, 35]], COLORED),
    "yolo.yaml": ("path: ../data\nnames: {3: road, 7: tree}\n", [3, 7], NUMBERED),
    "inverted.yml": ("3: road\n7: tree\n", [3, 7], NUMBERED),
    "list.json": ('["road", "tree"]', [3, 7], NUMBERED),
    "coco.json": ('{"categories": [{"id": 3, "name": "road"}, {"id": 7, "name": "tree"}]}', [3, 7], NUMBERED),
    "tabs.json": ('{\n\t"\\ud83d\\ude97 road": 3,\n\t"tree": 7\n}\n', [3, 7], {"\U0001f697 road": 3, "tree": 7}),
    "quoted.txt": ("\"road\"\n'tree'\n", [3, 7], NUMBERED),
    "id2label.json": ('{"3": "road", "7": "tree"}', [3, 7], NUMBERED),
}  # fmt: skip


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("car:1,bg:0", "'car:1' is not a name; pass --classes car=1,bg=0, or a YAML or JSON file"),
        ("bg: 0, car: 1+255", "'bg: 0' is not a name; pass --classes bg=0,car=1+255, or"),
        ("1:car,0:bg", "'1:car' is not a name; pass --classes car=1,bg=0, or"),
        ("{bg: 0, car: 1}", "'{bg: 0' is not a name; pass --classes bg=0,car=1, or"),
        ('{"bg": 0, "car": 1}', "pass --classes bg=0,car=1, or"),
        ("{bg: '#000000', car: '#0000ff'}", "pass --classes 'bg=#000000,car=#0000ff', or"),
        ("{bg: 0, car: [1, 255]}", "'{bg: 0' is not a name; write a,b,c or a=0,b=1+255, or a YAML or JSON file"),
        ("[bg,road,car]", "'[bg' is not a name; pass --classes bg,road,car, or"),
        ("'bg','car'", "is not a name; pass --classes bg,car, or"),
        ('"bg"=0,"car"=1', "is not a name; pass --classes bg=0,car=1, or"),
    ],
)
def test_options_in_the_form_of_a_file_are_refused_with_the_option_to_pass(
    call: Call, make: Make, option: str, message: str
) -> None:
    make([0, 1])
    refused(add(call, "--classes", option), message)
    assert not Path("registry/datasets.yaml").exists()


@pytest.mark.parametrize("option", ["9:30 o'clock=0,cars (parked)=1", "driver's seat,lane 2"])
def test_names_may_contain_colons_parentheses_and_apostrophes(call: Call, make: Make, option: str) -> None:
    make([0, 1])
    assert add(call, "--classes", option).code == 0
    assert [*entries()["mine"]["classes"]] == [part.partition("=")[0] for part in option.split(",")]


@pytest.mark.parametrize("file", FORMS)
def test_class_lists_of_other_programs_are_understood(call: Call, make: Make, file: str) -> None:
    text, values, classes = FORMS[file]
    Path(file).write_text(text, encoding="utf-8")
    make(values)
    output = add(call, "--classes", file)
    assert (output.code, output.err) == (0, "")
    assert entries()["mine"]["classes"] == classes
    assert entries()["mine"].get("ignore") == ([255] if 255 in values else None)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("long.txt", "a" * 500_000, "'aaaaaaaaaaaaaaaaaaaa'... has 500,000 characters; a class has at most 200"),
        ("blanks.txt", "a" + "\t" * 500_000 + "b", "has 500,002 characters; a class has at most 200"),
        ("mixed.txt", "0: road\ntree\n", "line 2: 'tree' has another form than the first line, '0: road'"),
        ("mixed.txt", "road\n1: tree\n", "line 2: '1: tree' has another form than the first line, 'road'"),
        ("late.txt", "road\n__ignore__\n", "__ignore__ is only valid in the first line, where it means 255"),
        ("map.pbtxt", "item {\n  id: 1\n}\n", "line 1: 'item {' is not a class; valid: name, `0: name`, `name: 0`"),
        ("empty.txt", "# nothing\n", "no class is listed"),
        ("bad.csv", "name,r,g,b\nroad,1,2,300\ntree,0,0,0\n", "row 2: 1, 2, 300 is not a color"),
        ("colors.csv", "name,r,g,b\nroad,1,2,3\ntree,0,0,0\n", "pass the numbers, such as --classes road=0,tree=1"),
        ("one.yaml", "3", "expected a list of names, or a mapping"),
        ("odd.yaml", "[road, 3]", "expected a list of names, or a mapping such as {road: 0}"),
        ("odd.json", '["road",\n"tree",]', "line 2: not valid JSON: "),
        ("deep.json", "[" * 100_000, "not valid JSON: "),
        ("twice.json", '{"road": 0, "tree": 1, "road": 2}', "the key 'road' appears twice"),
        ("bell.json", '{"road\\u0007": 0, "tree": 1}', "the name of a class contains '\\x07'"),
        ("ignored.txt", "__ignore__\n", "give 2 to 255 classes, not 0"),
    ],
)
def test_unknown_class_lists_are_refused_in_one_line(
    call: Call, make: Make, file: str, text: str, message: str
) -> None:
    Path(file).write_text(text)
    make([0, 1])
    refused(add(call, "--classes", file), f"--classes {file}", message)


def test_a_list_of_colors_for_many_numbers_names_ten_and_counts_the_others(call: Call, make: Make) -> None:
    Path("colors.csv").write_text("name,r,g,b\nroad,1,2,3\ntree,0,0,0\n")
    make(list(range(12)))
    refused(add(call, "--classes", "colors.csv"), "the masks contain the numbers 0, 1, 2,", ", 8, 9 and 2 more; pass")


@pytest.mark.parametrize(
    ("options", "classes"),
    [
        ([], ("background", "foreground")),
        (["--classes", "ground,road"], ("ground", "road")),
    ],
)
def test_masks_of_1_and_masks_of_255_are_reported_with_the_classes_to_write(
    call: Call, tmp_path: Path, options: list[str], classes: tuple[str, str]
) -> None:
    for ids, value in (("a c e g i", 1), ("b d f h j", 255)):
        fill(tmp_path / "mine/images", tmp_path / "mine/masks", ids, [0, 0, value])
    question = (
        "no mask contains both 1 and 255: 5 masks contain only 0 and 255, 5 contain 0 and 1: is 255 the foreground"
    )
    output = add(call, *options)
    assert output.code == 0
    option = f"--classes {classes[0]}=0,{classes[1]}=1+255"
    assert question in output.err and option in output.err
    checked = call("data", "check", "mine")
    assert checked.code == 0 and "mixed masks" in checked.out
    text = " ".join(checked.out.split())
    assert "5 masks contain only 0 and 255, 5 contain 0 and 1" in text
    assert f"{{{classes[0]}: 0, {classes[1]}: [1, 255]}}" in text
    assert add(call, "--force", *option.split()).err == ""
    assert entries()["mine"]["classes"] == {classes[0]: 0, classes[1]: [1, 255]}
    assert "mixed masks" not in call("data", "check", "mine").out


def test_void_borders_around_objects_are_not_reported(call: Call, make: Make, tmp_path: Path) -> None:
    make([0, 0, 1, 255])
    fill(tmp_path / "mine/images", tmp_path / "mine/masks", "k", [0, 255])
    assert add(call).err == "" and "mixed masks" not in call("data", "check", "mine").out
    assert add(call, "--force", "--ignore", 255).err == ""


GRID = {
    "question": "Does it run?",
    "base": {"variant": "fcn8s-tiny", "dataset": "mine", "recipe": "smoke", "recipe.batch_size": 2},
    "product": {"recipe.epochs": [1, 2]},
}


def split_folders(root: Path, train: list[int], others: list[int]) -> None:
    for split, values in {"train": train, "val": others, "test": others}.items():
        fill(root / "images" / split, root / "masks" / split, f"{split}1 {split}2", values)


def outputs(call: Call) -> dict[str, CommandResult]:
    """Results of the commands that know the classes after the masks have been read."""
    Path("experiments/mine.yaml").write_text(yaml.safe_dump(GRID))
    return {
        "check": call("data", "check", "mine"),
        "plan": call("grid", "plan", "experiments/mine.yaml"),
        "json": call("grid", "plan", "experiments/mine.yaml", "--json"),
    }


def test_class_without_a_pixel_in_val_and_test_is_a_warning_of_every_command(call: Call, tmp_path: Path) -> None:
    split_folders(tmp_path / "mine", train=[0, 1, 2], others=[0, 1])
    added = add(call, "--classes", "ground,car,truck")
    assert added.code == 0 and "warning: truck: no pixel in val, test" in added.err
    found = outputs(call)
    assert {name: output.code for name, output in found.items()} == {"check": 0, "plan": 0, "json": 0}
    assert "truck: no pixel in val, test" in found["check"].out and "absent class" in found["check"].out
    assert "warning: dataset mine: truck: no pixel in val, test" in found["plan"].err
    assert "truck: no pixel in val, test" in found["json"].out


def test_class_without_a_pixel_in_train_is_refused_by_every_command(call: Call, tmp_path: Path) -> None:
    split_folders(tmp_path / "mine", train=[0, 1], others=[0, 1, 2])
    refusal = "truck, bus: no pixel in train; a class needs pixels to train on"
    fill(tmp_path / "mine/images/val", tmp_path / "mine/masks/val", "val1", [0, 1, 2, 3])
    fill(tmp_path / "mine/images/test", tmp_path / "mine/masks/test", "test1", [0, 1, 2, 3])
    added = add(call, "--classes", "ground,car,truck,bus")
    assert added.code == 2 and refusal in added.err and not Path("registry/datasets.yaml").exists()
    entry = {
        "type": "folder",
        "images": f"{tmp_path}/mine/images/{{split}}",
        "masks": f"{tmp_path}/mine/masks/{{split}}",
        "mask_suffix": "_mask",
        "classes": ["ground", "car", "truck", "bus"],
        "nominal": {"height": 4, "width": 6},
        "splits": {"test": "test"},
    }
    Path("registry/datasets.yaml").write_text(yaml.safe_dump({"mine": entry}))
    found = outputs(call)
    assert {name: output.code for name, output in found.items()} == {"check": 2, "plan": 2, "json": 2}
    assert "truck, bus: no pixel in train" in found["check"].out
    refused(found["plan"], "dataset mine: " + refusal)


def test_run_refuses_a_class_without_training_pixels_before_the_first_trial(call: Call, tmp_path: Path) -> None:
    split_folders(tmp_path / "mine", train=[0, 1], others=[0, 1])
    assert add(call, "--classes", "ground,car").code == 0
    text = Path("registry/datasets.yaml").read_text().replace("[ground, car]", "[ground, car, truck]")
    Path("registry/datasets.yaml").write_text(text)
    Path("experiments/mine.yaml").write_text(yaml.safe_dump(GRID))
    unknown = call("grid", "plan", "experiments/mine.yaml")  # the masks have not been read with these classes
    assert (unknown.code, unknown.err) == (0, "")
    output = call("grid", "run", "experiments/mine.yaml", "--workers", 1)
    assert output.code == 2 and "dataset mine: truck: no pixel in train, val, test" in output.err
    assert "decode mine train: " in output.out
    assert "mine/images" in call("data", "cache", "list").out
    assert not list(Path("runs").glob("*/record.json"))


# --- splits ----------------------------------------------------------------------------------------------------------


def number_separately(root: Path) -> None:
    for number, split in enumerate(("train", "val")):
        for index in range(3):
            pixels = np.full((4, 6, 3), 10 * number + index, np.uint8)
            pixels[0, 0] = 200  # pictures of one color are not compared
            save(pixels, root / "images" / split / f"{index:04d}.png")
            save((np.arange(24) % 2).reshape(4, 6).astype(np.uint8), root / "masks" / split / f"{index:04d}.png")


def test_equal_names_in_split_folders_are_one_note(call: Call, tmp_path: Path) -> None:
    number_separately(tmp_path / "mine")
    assert add(call).code == 0
    output = call("data", "check", "mine")
    assert output.code == 0 and output.out.count("id in two splits") == 1
    assert "3 ids also occur in train, with other pictures, such as 0000" in output.out


def test_equal_pixels_in_split_folders_are_a_problem_also_under_equal_names(call: Call, tmp_path: Path) -> None:
    number_separately(tmp_path / "mine")
    images = tmp_path / "mine/images"
    (images / "val/0001.png").write_bytes((images / "train/0001.png").read_bytes())
    assert add(call).code == 0
    output = call("data", "check", "mine")
    assert output.code == 2 and "mine: 1 problem in 6 images" in output.err
    assert "picture in two splits" in output.out and "the same picture as 0001 in train" in output.out
