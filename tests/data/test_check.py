"""Problems of datasets: every kind, all of them at once, and none in a valid dataset."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from fcnlab.data.datasets.base import Dataset, FileDataset, Pixels, Sample, Split
from fcnlab.data.datasets.camvid import CamVid
from fcnlab.data.datasets.labels import LabelDecoder
from fcnlab.data.datasets.shapes import Shapes
from fcnlab.data.datasets.voc import Voc2012
from fcnlab.data.decoded import open_decoded
from fcnlab.data.inspection.check import CheckedSplit, check_splits
from fcnlab.data.inspection.preview import create_rows
from fcnlab.data.inspection.stats import compute_split_stats
from fcnlab.data.parallel import map_on_all_cores
from fcnlab.errors import DataError
from tests.data.folder_dataset import open_folder

HEIGHT, WIDTH = 6, 8
CAMVID = {"train": ("a1", "a2", "a3"), "val": ("b1", "b2"), "test": ("c1",)}
SPLITS = tuple(CAMVID)
CLASSES = list("abcdefghijkl")


def image_of(seed: int) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def mask_of(seed: int, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Pixels:
    return np.random.default_rng(seed).integers(0, 12, size, dtype=np.uint8)


def every_class(seed: int, num_classes: int = 21) -> Pixels:
    labels = np.arange(HEIGHT * WIDTH) % num_classes
    return np.random.default_rng(seed).permutation(labels).reshape(HEIGHT, WIDTH).astype(np.uint8)


def save(pixels: np.ndarray, path: Path, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def palette_mask(path: Path, labels: Pixels, palette: list[int]) -> None:
    image = Image.fromarray(labels)
    image.putpalette(palette)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def turned(pixels: Pixels, path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    save(pixels, path, exif=exif)


@pytest.fixture
def camvid(tmp_path: Path) -> CamVid:
    """Image n and mask n are `image_of(n)` and `mask_of(n)`, numbered over all splits."""
    root = tmp_path / "camvid"
    for number, (split, id_) in enumerate((split, id_) for split, ids in CAMVID.items() for id_ in ids):
        save(image_of(number), root / split / f"{id_}.png")
        save(mask_of(number), root / f"{split}annot" / f"{id_}.png")
    return CamVid(root)


@pytest.fixture
def voc(tmp_path: Path) -> Voc2012:
    """Two splits and their union; masks with one palette, each with a pixel of every class."""
    root = tmp_path / "VOC2012"
    lists = root / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    for split, ids in {"train": "1\n2\n3\n", "val": "4\n5\n", "trainval": "1\n2\n3\n4\n5\n"}.items():
        (lists / f"{split}.txt").write_text(ids)
    for number in range(1, 6):
        save(image_of(number), root / f"JPEGImages/{number}.jpg")
        palette_mask(root / f"SegmentationClass/{number}.png", every_class(number), list(range(256)) * 3)
    return Voc2012(root)


def kinds(checked: list[CheckedSplit]) -> list[tuple[str, str, str]]:
    """(split, file or id, kind) of every problem."""
    return [(f.split, Path(f.where).name, f.kind) for c in checked for f in c.problems]


def test_valid_dataset_has_no_problems_or_notes(camvid: CamVid) -> None:
    checked = check_splits(camvid, SPLITS)
    assert [(c.split, c.images, c.problems, c.notes) for c in checked] == [
        ("train", 3, [], []), ("val", 2, [], []), ("test", 1, [], []),
    ]  # fmt: skip


def test_generated_scenes_are_valid() -> None:
    shapes = Shapes(train=4, val=2, test=2, height=64, width=64, seed=0)
    assert [(c.images, c.problems) for c in check_splits(shapes, SPLITS)] == [(4, []), (2, []), (2, [])]


MASK, IMAGE = "trainannot/a2.png", "train/a2.png"
HARMS: dict[str, tuple[str, Callable[[Path], object], str, str]] = {
    "truncated image": (
        IMAGE,
        lambda p: p.write_bytes(p.read_bytes()[: len(p.read_bytes()) // 2]),
        "truncated image",
        "truncated",
    ),
    "image that is none": (IMAGE, lambda p: p.write_bytes(b"no image"), "unreadable image", "cannot identify"),
    "mask that is none": (MASK, lambda p: p.write_bytes(b"no image"), "unreadable mask", "cannot identify"),
    "missing mask": (MASK, Path.unlink, "missing mask", "no such file"),
    "size mismatch": (MASK, lambda p: save(mask_of(0, (5, 8)), p), "size mismatch", "the mask is 5x8 .*a2.png is 6x8"),
    "undefined labels": (
        MASK,
        lambda p: save(np.array([[12] * 8, [200] * 8, *[[3] * 8] * 4], np.uint8), p),
        "undefined label",
        r"12 in 8 pixels, 200 in 8 pixels: neither a class \(0\.\.10\) nor ignored \(11, 255\)",
    ),
    "many undefined labels": (
        MASK,
        lambda p: save(np.arange(48, dtype=np.uint8).reshape(6, 8) + 100, p),
        "undefined label",
        "100 in 1 pixels, .*105 in 1 pixels and 42 more",
    ),
    "color mask": (MASK, lambda p: save(image_of(0), p), "color mask", "mode RGB"),
    "16-bit mask": (MASK, lambda p: save(np.full((6, 8), 300, np.uint16), p), "undefined label", "300 in 48 pixels"),
    "transparent mask": (
        MASK,
        lambda p: save(np.zeros((6, 8, 4), np.uint8), p),
        "transparent mask",
        "48 pixels of the mask are transparent",
    ),
    "image without a range of values": (
        IMAGE,
        lambda p: Image.fromarray(np.full((6, 8), 0.5, np.float32)).save(p, format="TIFF"),
        "image mode",
        "mode F: the values have no fixed range",
    ),
    "image of several pages": (
        IMAGE,
        lambda p: Image.fromarray(image_of(0)).save(
            p, format="TIFF", save_all=True, append_images=[Image.fromarray(image_of(1))]
        ),
        "multi-page image",
        "has 2 pages",
    ),
    "mask of several frames": (
        MASK,
        lambda p: Image.fromarray(mask_of(0)).save(
            p, format="GIF", save_all=True, append_images=[Image.fromarray(mask_of(i)) for i in (1, 2)]
        ),
        "multi-page mask",
        "has 3 frames",
    ),
    "mask in CMYK": (
        MASK,
        lambda p: Image.new("CMYK", (8, 6)).save(p, format="TIFF"),
        "mask mode",
        "mode CMYK; expected class numbers: one channel of 8 or 16 bits",
    ),
}


@pytest.mark.parametrize(("file", "harm", "kind", "message"), HARMS.values(), ids=HARMS)
def test_invalid_file_is_one_problem_that_names_it(
    camvid: CamVid, file: str, harm: Callable[[Path], object], kind: str, message: str
) -> None:
    import re

    harm(camvid.root / file)
    checked = check_splits(camvid, SPLITS)
    (problem,) = checked[0].problems
    assert (problem.split, problem.where, problem.kind) == ("train", str(camvid.root / file), kind)
    assert re.search(message, problem.what) and problem.remedy
    assert [c.images for c in checked] == [3, 2, 1] and not checked[1].problems


def test_problems_of_all_splits_are_reported_at_once(camvid: CamVid) -> None:
    root = camvid.root
    (root / "trainannot/a1.png").unlink()
    save(image_of(0), root / "trainannot/a3.png")
    (root / "val/b2.png").write_bytes(b"garbage")
    save(mask_of(0, (3, 3)), root / "valannot/b2.png")
    shutil.rmtree(root / "test")
    assert kinds(check_splits(camvid, SPLITS)) == [
        ("train", "a1.png", "missing mask"),
        ("train", "a3.png", "color mask"),
        ("val", "b2.png", "unreadable image"),
        ("test", "test", "unreadable split"),
    ]


def test_mask_without_image_is_a_problem(camvid: CamVid) -> None:
    (camvid.root / IMAGE).unlink()
    (camvid.root / "trainannot/.hidden.png").write_bytes(b"x")
    (camvid.root / "trainannot/notes.txt").write_text("x")
    train, val = check_splits(camvid, ["train", "val"])
    (problem,) = train.problems
    assert (problem.where, problem.kind) == (str(camvid.root / MASK), "missing image")
    assert (train.images, val.problems) == (2, [])


def test_unlisted_pair_is_not_a_problem(voc: Voc2012) -> None:
    (voc.root / "ImageSets/Segmentation/train.txt").write_text("1\n2\n")
    assert kinds(check_splits(voc, ["train", "val"])) == []


def test_unpaired_mask_is_a_note_with_random_splits(tmp_path: Path) -> None:
    for number in range(6):
        save(image_of(number), tmp_path / f"images/{number}.png")
        save(mask_of(number), tmp_path / f"masks/{number}.png")
    (tmp_path / "images/0.png").unlink()
    dataset = open_folder(tmp_path, classes=CLASSES, fractions={"val": 0.25, "test": 0.25})
    checked = check_splits(dataset, ["train", "val", "test"])
    assert [split.problems for split in checked] == [[], [], []]
    (note,) = [note for split in checked for note in split.notes]
    assert (note.split, note.where, note.kind) == ("", str(tmp_path / "masks/0.png"), "missing image")


def test_unpaired_mask_in_a_folder_of_several_splits_is_one_note_without_a_split(voc: Voc2012) -> None:
    shutil.copy(voc.root / "SegmentationClass/1.png", voc.root / "SegmentationClass/6.png")
    checked = check_splits(voc, ["train", "val"], extra=["trainval"])
    assert kinds(checked) == []
    (note,) = [note for split in checked for note in split.notes]
    assert (note.split, Path(note.where).name, note.kind) == ("", "6.png", "missing image")


def test_missing_image_is_reported_only_for_the_split_that_lists_it(voc: Voc2012) -> None:
    (voc.root / "JPEGImages/4.jpg").unlink()
    checked = check_splits(voc, ["train", "val"])
    assert kinds(checked) == [("val", "4.jpg", "missing image")]
    assert [note.kind for split in checked for note in split.notes] == []


def test_image_extension_does_not_matter_for_pairs(tmp_path: Path) -> None:
    for number in range(6):
        save(image_of(number), tmp_path / f"images/{number}{'.png' if number % 2 else '.BMP'}")
        save(mask_of(number), tmp_path / f"masks/{number}_mask.png")
    fractions = {"val": 0.2, "test": 0.2}
    dataset = open_folder(tmp_path, classes=CLASSES, mask_suffix="_mask", fractions=fractions)
    checked = check_splits(dataset, ["train", "val", "test"])
    assert [(split.problems, split.notes) for split in checked] == [([], [])] * 3


def test_unpaired_mask_is_a_problem_with_split_folders(tmp_path: Path) -> None:
    for number, split in enumerate(["train", "train", "val"]):
        save(image_of(number), tmp_path / f"images/{split}/{number}.png")
        save(mask_of(number), tmp_path / f"masks/{split}/{number}.png")
    (tmp_path / "images/train/0.png").unlink()
    dataset = open_folder(tmp_path, classes=CLASSES, images="images/{split}", masks="masks/{split}")
    train, val = check_splits(dataset, ["train", "val"])
    assert [problem.kind for problem in train.problems] == ["missing image"] and val.problems == []


class _UncheckedDecoder(LabelDecoder):
    """A decoder that ignores 11 and does not check the other values, as an extension may have one."""

    def decode(self, mask: Image.Image, file: Path) -> Pixels:
        raw = np.asarray(mask)
        return np.where(raw == 11, np.uint8(255), raw)

    def identity(self) -> list[str]:
        return ["unchecked"]


class _Unchecked(CamVid):
    def label_decoder(self) -> LabelDecoder:
        return _UncheckedDecoder()


class _Generated(Dataset):
    """Two splits without files; the second one has labels of a class that does not exist."""

    classes = ("a", "b", "c")
    code = "generated"

    def split(self, name: str) -> Split:
        return _GeneratedSplit(name)

    def fingerprint(self, splits: tuple[str, ...]) -> str:
        return repr(splits)


class _GeneratedSplit(Split):
    def __init__(self, name: str) -> None:
        self.ids = (f"{name}1", f"{name}2")

    def __getitem__(self, index: int) -> Sample:
        label = np.array([[0, 1, 2], [255, 254 if self.ids[index] == "val2" else 1, 3 if self.ids[0] == "val1" else 2]])
        return Sample(self.ids[index], image_of(hash(self.ids[index]) % 1000)[:2, :3], label.astype(np.uint8))


def test_labels_of_an_unchecked_decoder_that_are_no_classes_are_problems(camvid: CamVid) -> None:
    mask = mask_of(1)
    mask[0, :3] = (12, 254, 255)
    save(mask, camvid.root / MASK)
    train, val = check_splits(_Unchecked(camvid.root), ["train", "val"])
    (problem,) = train.problems
    assert (problem.where, problem.kind) == (str(camvid.root / MASK), "undefined label")
    assert problem.what == "12 in 1 pixels, 254 in 1 pixels: neither a class (0..10) nor ignored (255)"
    assert val.problems == []


def test_labels_of_generated_samples_that_are_no_classes_are_problems() -> None:
    checked = check_splits(_Generated(), ["train", "val"])
    assert kinds(checked) == [("val", "val1", "undefined label"), ("val", "val2", "undefined label")]
    assert checked[1].problems[1].what == "3 in 1 pixels, 254 in 1 pixels: neither a class (0..2) nor ignored (255)"


@pytest.mark.parametrize("budget", ["4", "0"])
def test_samples_with_labels_that_are_no_classes_are_not_read(budget: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FCNLAB_CACHE_BUDGET", budget)
    train = open_decoded(_Generated(), "train")
    assert train.from_cache == (budget != "0") and train[1].label.max() == 255
    with pytest.raises(DataError, match=r"sample val1: undefined labels: 3 in 1 pixels: neither .* \(0\.\.2\) nor"):
        open_decoded(_Generated(), "val")[0]
    with pytest.raises(DataError, match="sample val1: undefined labels"):
        compute_split_stats(_Generated(), ["val"])
    with pytest.raises(DataError, match="sample val2: undefined labels"):
        create_rows(_Generated().split("val"), [1], 3)


def test_both_files_of_a_pair_are_checked(camvid: CamVid) -> None:
    (camvid.root / IMAGE).write_bytes(b"no image")
    save(image_of(0), camvid.root / MASK)
    assert kinds(check_splits(camvid, ["train"])) == [
        ("train", "a2.png", "unreadable image"), ("train", "a2.png", "color mask"),
    ]  # fmt: skip


def test_empty_split_is_a_problem(camvid: CamVid, voc: Voc2012) -> None:
    (camvid.root / "test/c1.png").unlink()
    assert kinds(check_splits(camvid, SPLITS)) == [("test", "camvid", "empty split")]
    (voc.root / "ImageSets/Segmentation/val.txt").write_text("\n")
    assert kinds(check_splits(voc, ["train", "val"])) == [("val", "VOC2012", "empty split")]


def test_listed_id_without_files_is_reported(voc: Voc2012) -> None:
    (voc.root / "ImageSets/Segmentation/val.txt").write_text("4\n6\n")
    (_, val) = check_splits(voc, ["train", "val"])
    (problem,) = val.problems
    assert (problem.where, problem.kind, problem.what) == ("6", "id without files", "there is neither 6.jpg nor 6.png")


def test_id_in_two_splits_is_a_problem_of_the_later_split(voc: Voc2012) -> None:
    (voc.root / "ImageSets/Segmentation/val.txt").write_text("2\n4\n")
    train, val = check_splits(voc, ["train", "val"])
    assert train.problems == []
    assert [(f.where, f.kind, f.what) for f in val.problems] == [
        ("2", "id in two splits", "occurs in train and again in val")
    ]


def test_duplicate_id_in_a_split_is_a_problem(voc: Voc2012) -> None:
    file = voc.root / "ImageSets/Segmentation/val.txt"
    file.write_text("4\n5\n4\n")
    _, val = check_splits(voc, ["train", "val"])
    (problem,) = val.problems
    assert (problem.where, problem.kind) == (str(file), "id twice")
    assert (problem.what, problem.remedy) == ("'val' contains the image '4' 2 times", "list each image once")


def test_extra_splits_may_share_images_with_other_splits(voc: Voc2012) -> None:
    checked = check_splits(voc, ["train", "val"], extra=["trainval"])
    assert [(c.split, c.images, c.problems) for c in checked] == [("train", 3, []), ("val", 2, []), ("trainval", 5, [])]
    assert kinds(check_splits(voc, ["trainval", "val"])) == [
        ("val", "4", "id in two splits"), ("val", "5", "id in two splits"),
    ]  # fmt: skip


def test_equal_picture_in_two_splits_is_a_problem_also_after_saving_again(camvid: CamVid) -> None:
    save(image_of(0), camvid.root / "val/b1.png", compress_level=0)
    assert (camvid.root / "val/b1.png").read_bytes() != (camvid.root / "train/a1.png").read_bytes()
    _, val, _ = check_splits(camvid, SPLITS)
    (problem,) = val.problems
    assert (problem.where, problem.kind) == (str(camvid.root / "val/b1.png"), "picture in two splits")
    assert f"the same picture as a1 in train ({camvid.root}/train/a1.png)" in problem.what


def test_blank_images_are_one_note_per_split_and_not_repeated_pictures(camvid: CamVid) -> None:
    for file in ("train/a1", "train/a2", "val/b1"):
        save(np.zeros((HEIGHT, WIDTH, 3), np.uint8), camvid.root / f"{file}.png")
    checked = check_splits(camvid, SPLITS)
    assert kinds(checked) == []
    notes = [(note.split, Path(note.where).name, note.kind, note.what) for c in checked for note in c.notes]
    assert notes == [
        ("train", "a1.png", "blank images", "all pixels have the same color in 2 images"),
        ("val", "b1.png", "blank images", "all pixels have the same color in 1 image"),
    ]


def test_a_mask_of_several_images_is_a_note_also_over_splits(tmp_path: Path) -> None:
    for number, id_ in enumerate("abcde"):
        save(image_of(number), tmp_path / f"images/{id_}.png")
        save(mask_of(number), tmp_path / f"masks/{id_}.png")
    lists = {"train": "a a\nb a\nc c\n", "val": "d a\n", "test": "e e\n"}
    for split, text in lists.items():
        lines = [line.split() for line in text.splitlines()]
        (tmp_path / f"{split}.txt").write_text("".join(f"images/{i}.png masks/{m}.png\n" for i, m in lines))
    dataset = open_folder(
        tmp_path,
        lists={split: tmp_path / f"{split}.txt" for split in lists},
        classes=[f"class {value}" for value in range(12)],
    )
    checked = check_splits(dataset, SPLITS)
    assert kinds(checked) == []
    image, mask = (f"{tmp_path}/{kind}/a.png" for kind in ("images", "masks"))
    assert [(note.split, note.where, note.kind, note.what) for c in checked for note in c.notes] == [
        ("train", mask, "shared mask", f"1 mask of several images, such as {mask} of 2 images: {image}, "
         f"{tmp_path}/images/b.png"),
        ("val", mask, "shared mask", f"1 mask of several images, such as {mask} of 3 images: {image}, "
         f"{tmp_path}/images/b.png and 1 more"),
    ]  # fmt: skip


def test_one_picture_twice_in_a_split_is_a_note(camvid: CamVid) -> None:
    save(image_of(0), camvid.root / "train/a3.png")
    train, *_ = check_splits(camvid, SPLITS)
    assert train.problems == []
    assert [(Path(n.where).name, n.kind) for n in train.notes] == [("a3.png", "picture twice")]


@pytest.mark.parametrize("format_", ["jpg", "png"])
def test_exif_rotation_is_a_problem_if_the_mask_has_the_rotated_size(camvid: CamVid, format_: str) -> None:
    (camvid.root / IMAGE).unlink()
    turned(image_of(1), camvid.root / f"train/a2.{format_}", orientation=6)
    save(mask_of(1, (WIDTH, HEIGHT)), camvid.root / MASK)
    (problem,) = check_splits(camvid, ["train"])[0].problems
    assert (Path(problem.where).name, problem.kind) == (f"a2.{format_}", "EXIF rotation")
    assert "the mask is 8x6 (height x width), its image" in problem.what and "EXIF orientation 6" in problem.what


@pytest.mark.parametrize("orientation", [2, 3, 6, 8])
def test_exif_rotation_is_a_note_if_the_mask_has_the_stored_size(camvid: CamVid, orientation: int) -> None:
    turned(image_of(1), camvid.root / IMAGE, orientation)
    (train,) = check_splits(camvid, ["train"])
    assert train.problems == []
    assert [(Path(n.where).name, n.kind) for n in train.notes] == [("a2.png", "EXIF rotation")]
    assert f"EXIF orientation {orientation}" in train.notes[0].what


def test_normal_or_damaged_exif_tag_is_ignored(camvid: CamVid) -> None:
    turned(image_of(1), camvid.root / IMAGE, orientation=1)
    save(image_of(2), camvid.root / "train/a3.jpg", exif=b"Exif\0\0damaged")
    (camvid.root / "train/a3.png").unlink()
    (train,) = check_splits(camvid, ["train"])
    assert (train.problems, train.notes) == ([], [])


def test_different_palettes_are_one_note(voc: Voc2012) -> None:
    for number in (2, 3):
        palette_mask(voc.root / f"SegmentationClass/{number}.png", every_class(number), list(range(255, -1, -1)) * 3)
    (train,) = check_splits(voc, ["train"])
    (note,) = train.notes
    assert train.problems == [] and note.kind == "palettes differ"
    assert "2 palette masks assign another color to a number" in note.what and note.where == "2"


def test_palettes_are_compared_by_the_numbers_of_masks_over_all_splits(tmp_path: Path) -> None:
    for split, blue in (("train", 1), ("val", 2)):
        save(image_of(blue), tmp_path / f"images/{split}/{split}.png")
        labels = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH) % 2 * 10
        palette_mask(tmp_path / f"masks/{split}/{split}.png", labels, [0] * 32 + [blue])
    dataset = open_folder(tmp_path, classes={"x": 0, "y": 10}, images="images/{split}", masks="masks/{split}")
    train, val = check_splits(dataset, ["train", "val"])
    assert train.notes == [] and [note.kind for note in val.notes] == ["palettes differ"]
    assert "10 is (0, 0, 1) in train and (0, 0, 2) in val" in val.notes[0].what


def test_colors_under_other_numbers_are_one_problem(voc: Voc2012) -> None:
    colors = np.random.default_rng(0).permutation(255)[:, None].repeat(3, 1)
    for number, shift in ((1, 0), (2, 3)):
        palette = np.roll(colors[:21], shift, 0).flatten().tolist()
        palette_mask(voc.root / f"SegmentationClass/{number}.png", every_class(number), palette)
    train, val = check_splits(voc, ["train", "val"])
    (problem,) = train.problems
    assert (problem.kind, train.notes, val.problems, val.notes) == ("palettes differ", [], [], [])
    assert "colors of the palette masks have several numbers: #" in problem.what
    assert problem.remedy.endswith("if the numbers are the classes, write `palettes: any`")
    assert check_splits(voc, ["train"], any_palette=True)[0].problems == []


def test_palette_colors_of_absent_labels_are_ignored(voc: Voc2012) -> None:
    palette_mask(voc.root / "SegmentationClass/2.png", mask_of(2), (list(range(256)) * 3)[:36] + [9] * 732)
    assert check_splits(voc, ["train"])[0].notes == []


def test_progress_advances_once_per_sample(camvid: CamVid) -> None:
    moved: dict[str, int] = {}

    def start(split: str, count: int) -> Callable[[], object]:
        assert count == len(CAMVID[split])
        moved[split] = 0
        return lambda: moved.__setitem__(split, moved[split] + 1)

    check_splits(camvid, SPLITS, progress=start)
    assert moved == {"train": 3, "val": 2, "test": 1}


def test_parallel_map_keeps_order_and_stops_at_the_first_error() -> None:
    assert list(map_on_all_cores(lambda i: i * i, 100)) == [i * i for i in range(100)]

    def fail(index: int) -> int:
        if index == 3:
            raise DataError("three")
        return index

    with pytest.raises(DataError, match="three"):
        list(map_on_all_cores(fail, 1000))


@pytest.mark.parametrize(
    ("type_", "folder", "splits"),
    [(CamVid, "camvid", {"val": 101}), (Voc2012, "VOCdevkit/VOC2012", {"val": 150})],
    ids=["camvid", "voc2012"],
)
def test_real_validation_images_are_valid(
    real_data: Path, type_: type[FileDataset], folder: str, splits: dict[str, int]
) -> None:
    checked = check_splits(type_(real_data / folder), splits)
    assert {c.split: c.images for c in checked} == splits
    assert [(c.problems, c.notes) for c in checked] == [([], [])]


def test_images_whose_bands_are_changed_are_one_note_per_kind(camvid: CamVid) -> None:
    rng = np.random.default_rng(0)
    for id_ in ("a1", "a2"):
        save(rng.integers(0, 255, (HEIGHT, WIDTH, 4), dtype=np.uint8), camvid.root / f"train/{id_}.png")
    opaque = np.dstack([image_of(3), np.full((HEIGHT, WIDTH), 255, np.uint8)])
    save(opaque, camvid.root / "val/b1.png")
    save(rng.integers(0, 2**16, (HEIGHT, WIDTH), dtype=np.uint16), camvid.root / "val/b2.png")
    train, val, _ = check_splits(camvid, SPLITS)
    assert not train.problems and not val.problems
    assert [note.what for note in train.notes] == ["2 images have 4 bands (RGBA); the fourth is not used"]
    (note,) = val.notes
    assert note.what == "1 image has values of more than 8 bits (mode I;16); 0..65535 becomes 0..255"
