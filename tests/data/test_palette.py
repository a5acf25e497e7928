"""Colors of labels: published, of the entry, of the masks, generated; the same in all pictures."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcnlab.config.dataset import AnyDataset, Dataset, FolderDataset
from fcnlab.config.registry import builtin
from fcnlab.config.validation import validate
from fcnlab.data.datasets.ade20k import Ade20k
from fcnlab.data.datasets.camvid import CamVid
from fcnlab.data.datasets.cityscapes import Cityscapes
from fcnlab.data.datasets.palette import find_palette, generate_colors, read_palette, to_palette_image, voc_palette
from fcnlab.data.datasets.voc import Voc2012
from fcnlab.errors import ConfigError


def folder(**fields: object) -> FolderDataset:
    entry = {"type": "folder", "images": "i", "masks": "m", "fractions": {"val": 0.5}} | fields
    made = validate(AnyDataset, entry | {"nominal": {"height": 8, "width": 8}}, "test")
    assert isinstance(made, FolderDataset)
    return made


@pytest.mark.parametrize(
    ("name", "classes", "expected"),
    [
        ("voc2012", Voc2012.classes, {"aeroplane": [128, 0, 0], "person": [192, 128, 128]}),
        ("camvid", CamVid.classes, {"sky": [128, 128, 128], "road": [128, 64, 128], "bicyclist": [0, 128, 192]}),
        ("cityscapes", Cityscapes.classes, {"road": [128, 64, 128], "car": [0, 0, 142], "bicycle": [119, 11, 32]}),
        ("ade20k", Ade20k.classes, {"wall": [120, 120, 120], "sky": [6, 230, 230], "flag": [92, 0, 255]}),
    ],
)
def test_known_datasets_have_their_published_colors(
    name: str, classes: tuple[str, ...], expected: dict[str, list[int]]
) -> None:
    spec = builtin().get("dataset", name)
    assert isinstance(spec, Dataset)
    palette = find_palette(spec, classes)
    assert {one: palette[classes.index(one)].tolist() for one in expected} == expected
    repeated = 1 if name == "ade20k" else 0  # in the published list
    assert len({tuple(color) for color in palette[: len(classes)].tolist()}) == len(classes) - repeated
    assert palette[255].tolist() == [255, 255, 255]


def test_a_folder_dataset_has_the_colors_of_its_entry_its_masks_or_generated_ones() -> None:
    names = ("ground", "road", "tree")
    colored = folder(classes={"ground": "#010203", "road": ["#804080", "#000000"], "tree": "#00ff00"})
    assert find_palette(colored, names)[:3].tolist() == [[1, 2, 3], [128, 64, 128], [0, 255, 0]]
    own = folder(classes=list(names), colors={"road": "#FF0000"})
    assert find_palette(own, names)[:3].tolist() == [[0, 0, 0], [255, 0, 0], generate_colors(3)[2].tolist()]
    with pytest.raises(ConfigError, match="colors: no class 'raod'; did you mean 'road'"):
        folder(classes=list(names), colors={"raod": "#ff0000"})
    with pytest.raises(ConfigError, match=r"colors\.road"):
        folder(classes=list(names), colors={"road": "red"})


def test_generated_colors_are_distinct_and_a_greater_count_begins_with_them() -> None:
    colors = generate_colors(255)
    assert len({tuple(color) for color in colors.tolist()}) == 255 and [255, 255, 255] not in colors.tolist()
    assert np.array_equal(colors[:20], generate_colors(20)) and np.array_equal(colors[:2], generate_colors(2))
    assert colors[:3].tolist() == [[0, 0, 0], [230, 159, 0], [86, 180, 233]]


def test_generated_colors_differ_without_red_or_green_cones() -> None:
    # In both deficiencies, colors differ in lightness or between blue and yellow.
    colors = generate_colors(16).astype(float)
    light, blue = colors @ [0.3, 0.6, 0.1], colors[:, 2] - colors[:, :2].mean(1)
    for i, j in itertools.combinations(range(16), 2):
        assert abs(light[i] - light[j]) + abs(blue[i] - blue[j]) > 12, (i, j)


def test_a_palette_image_keeps_labels_and_colors(tmp_path: Path) -> None:
    labels = np.array([[0, 1, 255]], np.uint8)
    to_palette_image(labels, voc_palette()).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert np.array_equal(np.asarray(image), labels)
        assert np.array_equal(np.asarray(image.convert("RGB")), voc_palette()[labels])
    assert np.array_equal(read_palette(tmp_path / "a.png"), voc_palette())
