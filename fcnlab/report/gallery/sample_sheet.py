"""A sheet of the saved samples: input, ground truth and the prediction of each cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from fcnlab.constants import IGNORE_INDEX
from fcnlab.data.datasets.palette import read_palette
from fcnlab.data.inspection.font import fit_text, load_font
from fcnlab.data.inspection.preview import GAP, HEADING, WIDTH, draw_legend
from fcnlab.report.gallery.pictures import open_picture

MAX_IMAGES = 4
"""Largest number of images of a sheet."""


def draw_sample_sheet(samples: Mapping[str, Path], classes: Sequence[str]) -> Image.Image | None:
    """Draw the first `MAX_IMAGES` images that all cells have, with a legend of the classes.

    Args:
        samples: display name of a cell -> folder of samples of one of its trials.
        classes: names of the classes, by label.

    Returns:
        The sheet, or None where the cells have no image in common.
    """
    ids = _common_ids(list(samples.values()))[:MAX_IMAGES]
    if not ids:
        return None
    first = next(iter(samples.values()))
    columns: list[tuple[str, list[Image.Image]]] = [
        ("input", [_load(first / f"{id_}.image.jpg", Image.Resampling.BILINEAR) for id_ in ids]),
        ("ground truth", [_load(first / f"{id_}.label.png", Image.Resampling.NEAREST) for id_ in ids]),
    ]
    for name, folder in samples.items():
        columns.append((name, [_load(folder / f"{id_}.prediction.png", Image.Resampling.NEAREST) for id_ in ids]))
    sheet = _compose(columns)
    palette = read_palette(first / f"{ids[0]}.label.png")
    key = draw_legend([*range(len(classes)), IGNORE_INDEX], classes, sheet.width, palette)
    page = Image.new("RGB", (sheet.width, sheet.height + key.height), "white")
    page.paste(sheet, (0, 0))
    page.paste(key, (0, sheet.height))
    return page


def _common_ids(folders: Sequence[Path]) -> list[str]:
    names = [{file.name.removesuffix(".prediction.png") for file in f.glob("*.prediction.png")} for f in folders]
    return sorted(set.intersection(*names)) if names else []


def _load(path: Path, how: Image.Resampling) -> Image.Image:
    color = open_picture(path).convert("RGB")
    return color.resize((WIDTH, max(1, round(color.height * WIDTH / color.width))), how)


def _compose(columns: Sequence[tuple[str, Sequence[Image.Image]]]) -> Image.Image:
    heights = [image.height for image in columns[0][1]]
    sheet = Image.new("RGB", (len(columns) * (WIDTH + GAP) + GAP, HEADING + sum(heights) + GAP * len(heights)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, (heading, images) in enumerate(columns):
        x, y = GAP + column * (WIDTH + GAP), HEADING
        draw.text((x, 4), fit_text(heading, 14, WIDTH), fill="black", font=load_font(14))
        for image in images:
            sheet.paste(image, (x, y))
            y += image.height + GAP
    return sheet
