"""Context of the page's gallery: rows of images with the ground truth, predictions and error maps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from fcnlab.data.datasets.base import Pixels
from fcnlab.report.gallery.pictures import encode_error_map, encode_label_map, encode_photo
from fcnlab.report.gallery.selection import Gallery, GalleryCell

WIDTHS = (640, 480, 320, 224)
"""Widths of the pictures in pixels: the largest with which a page stays below `BUDGET`."""

BUDGET = 7_000_000
"""Largest number of characters of the pictures of a page."""

MIN_COLUMN_WIDTH = 175
"""Least width in pixels of a picture and the gap beside it, where a page has more than two pictures in a row."""

MARGINS = 100
"""Width in pixels of the margins of a page."""

Row = dict[str, Any]


def make_gallery(gallery: Gallery, classes: Sequence[str], palette: Pixels, budget: int) -> dict[str, Any]:
    """Return the variables of the gallery's template.

    Args:
        gallery: images of the gallery.
        classes: names of the classes, by label.
        palette: one color per label, uint8 [256, 3].
        budget: largest number of characters of the pictures.
    """
    seeds = " and ".join(str(seed) for seed in sorted({cell.seed for cell in gallery.cells}))
    notes = [f"Predictions of seed {seeds}; the mIoU of a single image is the mean over the classes labeled in it."]
    groups = _make_groups(gallery, palette, WIDTHS[0])
    for width in WIDTHS[1:]:
        if _count_characters(groups) <= budget:
            break
        groups = _make_groups(gallery, palette, width)
    return {
        "notes": [*notes, *([f"{gallery.note}."] if gallery.note else [])],
        "legend": list(zip(classes, name_colors(palette, len(classes)), strict=True)),
        "groups": groups,
    }


def make_columns_style(gallery: dict[str, Any]) -> str:
    """Return the style that divides the pictures of an image into rows of about equal length at each width of the page.

    Args:
        gallery: variables of the gallery's template.
    """
    rules = []
    for count in sorted({len(row["pairs"]) for group in gallery["groups"] for row in group["rows"]}):
        for fitting in range(3, count + 1):
            columns = math.ceil(count / math.ceil(count / fitting))
            width = fitting * MIN_COLUMN_WIDTH + MARGINS
            rules.append(
                f"@media screen and (min-width: {width}px) "
                f"{{ .tiles.of{count} {{ grid-template-columns: repeat({columns}, 1fr); }} }}\n"
            )
    return "".join(rules)


def name_colors(palette: Pixels, count: int) -> list[str]:
    """Return the first colors of a palette as `#rrggbb`.

    Args:
        palette: one color per label, uint8 [256, 3].
        count: number of colors.
    """
    return ["#" + bytes(color).hex() for color in palette[:count].tolist()]


def _count_characters(groups: Sequence[dict[str, Any]]) -> int:
    pairs = (pair for group in groups for row in group["rows"] for pair in row["pairs"])
    return sum(len(tile["source"]) for pair in pairs for tile in pair)


def _make_groups(gallery: Gallery, palette: Pixels, width: int) -> list[dict[str, Any]]:
    groups = [
        {"title": "Best image of each cell", "rows": _extreme_rows(gallery, 0, palette, width)},
        {"title": "Worst image of each cell", "rows": _extreme_rows(gallery, 1, palette, width)},
    ]
    if gallery.disagreements:
        rows = [_make_row(id_, gallery.cells, id_, palette, width) for id_ in gallery.disagreements]
        groups.insert(0, {"title": "Largest disagreement between cells", "rows": rows})
    return groups


def _extreme_rows(gallery: Gallery, index: int, palette: Pixels, width: int) -> list[Row]:
    """Return one row per image that is the best (index 0) or worst (1) one of any cell."""
    by_id: dict[str, list[GalleryCell]] = {}
    for cell in gallery.cells:
        if cell.label in gallery.extremes:
            by_id.setdefault(gallery.extremes[cell.label][index], []).append(cell)
    kind = ("best", "worst")[index]
    return [
        _make_row(id_, cells, f"{id_}, {kind} of {_join(cell.name for cell in cells)}", palette, width)
        for id_, cells in by_id.items()
    ]


def _join(names: Iterable[str]) -> str:
    """Join names, with a semicolon if a name contains a comma."""
    listed = list(names)
    return ("; " if any("," in name for name in listed) else ", ").join(listed)


def _make_row(id_: str, cells: Sequence[GalleryCell], caption: str, palette: Pixels, width: int) -> Row:
    """Return an image with its ground truth, and the prediction and error map of each cell."""
    image, label = cells[0].find_picture(id_, "image.jpg"), cells[0].find_picture(id_, "label.png")
    assert image is not None and label is not None, "they are saved together with the prediction"
    truth = encode_label_map(label, palette, width)
    pairs = [(_make_tile("photo", "input", encode_photo(image, width)), _make_tile("truth", "ground truth", truth))]
    for cell in cells:
        prediction = cell.find_picture(id_, "prediction.png")
        assert prediction is not None, "the gallery selects only images with predictions"
        colors, errors = encode_label_map(prediction, palette, width), encode_error_map(prediction, label, width)
        miou = f"mIoU {100 * cell.miou[id_]:.0f} %"
        pairs.append(
            (_make_tile("prediction", cell.name, colors, miou), _make_tile("error", cell.name, errors, "errors"))
        )
    return {"caption": caption, "pairs": pairs}


def _make_tile(kind: str, name: str, source: str, note: str = "") -> dict[str, str]:
    """Return a picture: its kind (photo, truth, prediction or error), its cell or name, its data URI and a note."""
    return {"kind": kind, "name": name, "note": note, "source": source}
