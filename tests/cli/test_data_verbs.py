"""The `data` commands: output, stream and exit code."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcnlab.data.download import sources
from fcnlab.data.download.fetch import ARCHIVES
from fcnlab.data.download.sources import Archive, Source
from tests.cli.conftest import Call, CommandResult


@pytest.fixture
def columns() -> int:
    return 250


@pytest.fixture
def fcnlab(fcnlab: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    """Call `fcnlab data` with the data below the current folder."""
    monkeypatch.setenv("FCNLAB_DATA", str(tmp_path))
    return partial(fcnlab, "data")


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    """One image a split; label s in split number s, and the unlabeled 11 in the first row."""
    for number, split in enumerate(("train", "val", "test")):
        label = np.full((4, 6), number, np.uint8)
        label[0] = 11
        for folder, pixels in ((split, np.full((4, 6, 3), 51 * number, np.uint8)), (f"{split}annot", label)):
            path = tmp_path / "camvid" / folder / f"{split}0.png"
            path.parent.mkdir(parents=True)
            Image.fromarray(pixels).save(path)
    return tmp_path / "camvid"


def label_all_classes(camvid: Path) -> None:
    """Give every mask a pixel of each class; the first row stays unlabeled."""
    for mask in camvid.glob("*annot/*.png"):
        label = (np.arange(24, dtype=np.uint8) % 11).reshape(4, 6)
        label[0] = 11
        Image.fromarray(label).save(mask)


def cells(output: CommandResult) -> list[list[str]]:
    """The columns of each line of a table, which have two or more spaces between them."""
    return [re.split(r" {2,}", line.strip()) for line in output.out.splitlines()]


def test_valid_dataset_prints_one_line_and_exits_with_0(fcnlab: Call, camvid: Path) -> None:
    label_all_classes(camvid)
    for number, image in enumerate(camvid.glob("*/*0.png")):
        if not image.parent.name.endswith("annot"):
            Image.fromarray(np.arange(number, number + 72, dtype=np.uint8).reshape(4, 6, 3)).save(image)
    output = fcnlab("check", "camvid")
    assert (output.code, output.err) == (0, "")
    assert output.out == (
        f"train: 1 image, 0 problems; val: 1 image, 0 problems; test: 1 image, 0 problems, below {camvid}\n"
    )  # fmt: skip


def harm(camvid: Path) -> None:
    """A missing mask, an undefined label, and a mask of another size."""
    label_all_classes(camvid)
    (camvid / "trainannot/train0.png").unlink()
    Image.fromarray(np.full((4, 6), 99, np.uint8)).save(camvid / "valannot/val0.png")
    Image.fromarray(np.zeros((3, 6), np.uint8)).save(camvid / "testannot/test0.png")


def test_invalid_dataset_prints_all_problems_and_exits_with_2(fcnlab: Call, camvid: Path) -> None:
    harm(camvid)
    output = fcnlab("check", "camvid")
    assert (output.code, output.err) == (2, "fcnlab: error: dataset camvid: 3 problems in 3 images\n")
    rows = [row for row in cells(output) if row[0] in ("train", "val", "test")]
    assert [row[:3] for row in rows] == [
        ["train", "trainannot/train0.png", "missing mask"],
        ["val", "valannot/val0.png", "undefined label"],
        ["test", "testannot/test0.png", "size mismatch"],
    ]
    assert "99 in 24 pixels" in rows[1][3] and all(row[4] for row in rows)


def test_check_prints_json(fcnlab: Call, camvid: Path) -> None:
    harm(camvid)
    output = fcnlab("check", "camvid", "--json")
    found = json.loads(output.out)
    assert output.code == 2 and found["dataset"] == "camvid" and found["sound"] is False
    assert [(s["split"], s["images"], len(s["problems"])) for s in found["splits"]] == [
        ("train", 1, 1), ("val", 1, 1), ("test", 1, 1),
    ]  # fmt: skip
    problem = found["splits"][0]["problems"][0]
    assert problem["kind"] == "missing mask" and problem["where"] == str(camvid / "trainannot/train0.png")
    assert problem.keys() == {"split", "where", "kind", "what", "remedy"}


def test_generated_data_is_checked_and_counted_too(fcnlab: Call) -> None:
    output = fcnlab("check", "shapes-mini")
    assert output.out == "train: 16 images, 0 problems; val: 4 images, 0 problems; test: 6 images, 0 problems\n"
    assert json.loads(fcnlab("stats", "shapes-mini", "--json").out)["splits"][0]["images"] == 16


@pytest.mark.parametrize("verb", ["check", "stats", "preview"])
def test_missing_dataset_folder_error_is_one_line(fcnlab: Call, tmp_path: Path, verb: str) -> None:
    output = fcnlab(verb, "camvid")
    assert (output.code, output.out) == (2, "") and output.err.count("\n") == 1
    assert f"{tmp_path / 'camvid'} does not exist; --data-root (or FCNLAB_DATA)" in output.err


def test_all_splits_are_read_on_request(fcnlab: Call, tmp_path: Path) -> None:
    root = tmp_path / "VOCdevkit/VOC2012"
    for id_ in ("1", "2"):
        for folder, pixels in (
            ("JPEGImages", np.full((4, 6, 3), int(id_), np.uint8)),
            ("SegmentationClass", np.arange(24, dtype=np.uint8).reshape(4, 6) % 21),
        ):
            path = root / folder / f"{id_}.{'jpg' if folder == 'JPEGImages' else 'png'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    for split, ids in {"train": "1", "val": "2", "trainval": "1\n2"}.items():
        (root / f"ImageSets/Segmentation/{split}.txt").write_text(ids)
    assert "trainval" not in fcnlab("check", "voc2012").out
    output = fcnlab("check", "voc2012", "--all-splits")
    assert output.code == 0 and "trainval: 2 images, 0 problems" in output.out


def test_statistics_agree_in_table_csv_and_json(fcnlab: Call, camvid: Path, tmp_path: Path) -> None:
    output = fcnlab("stats", "camvid", "--csv", "classes.csv")
    assert (output.code, output.err) == (0, "")
    row = {cell[0]: cell[1:] for cell in cells(output)}
    assert row["train"] == ["1", "4", "6", "1", "0.0000 0.0000 0.0000", "0.0000 0.0000 0.0000"]
    assert row["val"][4] == "0.2000 0.2000 0.2000"
    assert row["sky"] == ["75.00", "1", "1.00", "0.00", "0", "0.00", "0"], "only the training split has weights"
    assert row["(ignored)"] == ["25.00"] * 3
    found = json.loads(fcnlab("stats", "camvid", "--json").out)["splits"]
    with (tmp_path / "classes.csv").open(encoding="utf-8") as file:
        written = list(csv.DictReader(file))
    assert len(written) == 3 * 12
    assert {row["split"] for row in written if row["weight"]} == {"train"}
    assert [split["classes"][0]["weight"] for split in found] == [1.0, None, None]
    for split in found:
        assert split["ignored_per_cent"] == 25 and split["distinct_sizes"] == 1
        rows = [row for row in written if row["split"] == split["split"] and row["class"] != "(ignored)"]
        assert [
            (int(r["label"]), r["class"], int(r["pixels"]), float(r["per_cent"]), int(r["images"])) for r in rows
        ] == [(c["label"], c["class"], c["pixels"], c["per_cent"], c["images"]) for c in split["classes"]]


def test_statistics_of_an_invalid_dataset_refer_to_the_check(fcnlab: Call, camvid: Path) -> None:
    (camvid / "valannot/val0.png").unlink()
    output = fcnlab("stats", "camvid")
    assert (output.code, output.out) == (2, "")
    assert f"{camvid}/valannot/val0.png: no such file; `fcnlab data check camvid` lists all problems" in output.err


def test_unwritable_file_error_is_one_line(fcnlab: Call, camvid: Path) -> None:
    for arguments in (["stats", "camvid", "--csv", "gone/x.csv"], ["preview", "camvid", "--out", "gone/x.png"]):
        output = fcnlab(*arguments)
        assert output.code == 2 and output.err.count("\n") == 1
        assert f"{arguments[2]}: {arguments[3]} cannot be written: No such file" in output.err


def test_a_preview_is_a_png_of_the_split(fcnlab: Call, camvid: Path, tmp_path: Path) -> None:
    output = fcnlab("preview", "camvid")
    assert (output.code, output.err) == (0, "") and output.out == "camvid-train.png: 1 of 1 images of camvid train\n"
    with Image.open(tmp_path / "camvid-train.png") as page:
        assert page.format == "PNG" and page.width > 480
    output = fcnlab("preview", "shapes-mini", "--split", "val", "--count", 3, "--out", "mine.png")
    assert output.out == "mine.png: 3 of 4 images of shapes-mini val\n" and (tmp_path / "mine.png").is_file()


def test_preview_with_a_recipe_shows_augmented_versions(fcnlab: Call, tmp_path: Path) -> None:
    assert fcnlab("preview", "shapes-mini", "--out", "plain.png").code == 0
    output = fcnlab("preview", "shapes-mini", "--recipe", "standard", "--out", "augmented.png")
    assert (output.code, output.err) == (0, "")
    with Image.open(tmp_path / "plain.png") as plain, Image.open(tmp_path / "augmented.png") as augmented:
        assert augmented.width > 3 * plain.width
    first = (tmp_path / "augmented.png").read_bytes()
    fcnlab("preview", "shapes-mini", "--recipe", "standard", "--out", "augmented.png")
    assert (tmp_path / "augmented.png").read_bytes() == first
    fcnlab("preview", "shapes-mini", "--recipe", "standard", "--out", "augmented.png", "--seed", 1)
    assert (tmp_path / "augmented.png").read_bytes() != first


def test_preview_with_an_unknown_recipe_names_the_nearest(fcnlab: Call) -> None:
    output = fcnlab("preview", "shapes-mini", "--recipe", "standart")
    assert output.code == 2 and "no recipe 'standart'; did you mean 'standard'?" in output.err


def test_preview_of_an_unknown_split_names_the_nearest(fcnlab: Call, camvid: Path) -> None:
    output = fcnlab("preview", "camvid", "--split", "vall")
    assert output.code == 2 and "no split 'vall'; did you mean 'val'?" in output.err


def test_fetch_without_a_known_source_is_rejected(fcnlab: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    output = fcnlab("fetch", "camvit")
    assert output.code == 2 and "no dataset 'camvit' has a known source; did you mean 'camvid'?" in output.err
    output = fcnlab("fetch", "shapes")
    assert output.code == 2 and "dataset shapes: type shapes has no known source" in output.err
    monkeypatch.delenv("FCNLAB_DATA")
    output = fcnlab("fetch", "camvid")
    assert output.code == 2 and "no data root is set" in output.err


def test_fetch_of_cityscapes_lists_its_archives_in_one_line(fcnlab: Call, tmp_path: Path) -> None:
    output = fcnlab("fetch", "cityscapes")
    assert output.code == 2 and output.err.count("\n") == 1
    for part in (
        "leftImg8bit_trainvaltest.zip",
        "gtFine_trainvaltest.zip",
        f"Put the files into {tmp_path / ARCHIVES}/",
    ):
        assert part in output.err


def test_fetch_never_overwrites_an_existing_folder(fcnlab: Call, camvid: Path) -> None:
    output = fcnlab("fetch", "camvid")
    assert output.code == 2 and f"{camvid}: already exists but differs from camvid (1 instead of 367" in output.err


def put(root: Path, name: str, files: dict[str, bytes]) -> Archive:
    """Put an archive among the others, as a user would."""
    path = root / ARCHIVES / f"{name}.zip"
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w") as zipped:
        for file, content in files.items():
            zipped.writestr(f"{name}/{file}", content)
    return Archive(path.name, (), name, checksum=f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}")


def test_existing_archive_is_unpacked_and_the_dataset_is_valid(
    fcnlab: Call, camvid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    label_all_classes(camvid)
    files = {str(p.relative_to(camvid)): p.read_bytes() for p in camvid.rglob("*.png")}
    archive = put(tmp_path, "CamVid", files)
    camvid.rename(tmp_path / "away")
    monkeypatch.setitem(
        vars(sources), "SOURCES", {"camvid": Source("camvid", (archive,), {"*/*.png": 6}, 10**6, "mine", "page")}
    )
    output = fcnlab("fetch", "camvid")
    assert (output.code, output.err) == (0, "")
    assert output.out.splitlines()[0] == "camvid: mine. page"
    assert output.out.splitlines()[-1] == f"next: fcnlab data check camvid --data-root {tmp_path}"
    assert fcnlab("check", "camvid").code == 0
    assert "is already complete" in fcnlab("fetch", "camvid").out


def test_fetch_downloads_the_extra_source_of_a_split(
    fcnlab: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit, sbd = put(tmp_path, "kit", {"a.txt": b"kit"}), put(tmp_path, "sbd", {"b.txt": b"sbd"})
    known = {
        "voc2012": Source("VOCdevkit/VOC2012", (kit,), {"*.txt": 1}, 10**6, "", ""),
        "sbd": Source("benchmark_RELEASE", (sbd,), {"*.txt": 1}, 10**6, "", ""),
    }
    monkeypatch.setitem(vars(sources), "SOURCES", known)
    assert fcnlab("fetch", "voc2012").code == 0
    assert (tmp_path / "VOCdevkit/VOC2012/a.txt").is_file() and not (tmp_path / "benchmark_RELEASE").exists()
    assert fcnlab("fetch", "voc2012-trainaug").code == 0
    assert (tmp_path / "benchmark_RELEASE/b.txt").read_bytes() == b"sbd"
