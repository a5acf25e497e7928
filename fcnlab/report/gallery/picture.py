"""A sheet of predictions: input, truth, and what each cell makes of it. Figures can mislead where a look does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

WIDTH = 240
"""Pixels of one picture on the sheet."""

GAP = 6
HEADING = 24


def draw_sheet(samples: Mapping[str, Path], rows: int = 4) -> Image.Image | None:
    """Draw the first images that all cells have; `samples` gives each cell's folder of samples, by its label.

    Returns None where there is no image that all of them have.
    """
    ids = _common(list(samples.values()))[:rows]
    if not ids:
        return None
    first = next(iter(samples.values()))
    columns: list[tuple[str, list[Image.Image]]] = [
        ("input", [_load(first / f"{id_}.image.jpg", Image.Resampling.BILINEAR) for id_ in ids]),
        ("truth", [_load(first / f"{id_}.label.png", Image.Resampling.NEAREST) for id_ in ids]),
    ]
    for label, folder in samples.items():
        columns.append((label, [_load(folder / f"{id_}.prediction.png", Image.Resampling.NEAREST) for id_ in ids]))
    return _compose(columns)


def _common(folders: Sequence[Path]) -> list[str]:
    names = [{file.name.removesuffix(".prediction.png") for file in f.glob("*.prediction.png")} for f in folders]
    return sorted(set.intersection(*names)) if names else []


def _load(path: Path, how: Image.Resampling) -> Image.Image:
    with Image.open(path) as image:
        colour = image.convert("RGB")
    return colour.resize((WIDTH, max(1, round(colour.height * WIDTH / colour.width))), how)


def _compose(columns: Sequence[tuple[str, Sequence[Image.Image]]]) -> Image.Image:
    heights = [image.height for image in columns[0][1]]
    sheet = Image.new("RGB", (len(columns) * (WIDTH + GAP) + GAP, HEADING + sum(heights) + GAP * len(heights)), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=14)
    for column, (heading, images) in enumerate(columns):
        x, y = GAP + column * (WIDTH + GAP), HEADING
        draw.text((x, 4), heading, fill="black", font=font)
        for image in images:
            sheet.paste(image, (x, y))
            y += image.height + GAP
    return sheet
