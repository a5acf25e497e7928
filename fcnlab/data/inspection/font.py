"""The font of texts in pictures."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont


@cache
def load_font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return DejaVu Sans, which has the letters of European languages and comes with matplotlib, which MLflow requires.

    Without matplotlib it is Pillow's own font, which has the letters of English.

    Args:
        size: size in pixels.
    """
    matplotlib = find_spec("matplotlib")  # not imported, which takes half a second
    if matplotlib is not None and matplotlib.origin is not None:
        file = Path(matplotlib.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        try:
            return ImageFont.truetype(file, size)
        except OSError:  # a distribution may keep its fonts elsewhere
            pass
    return ImageFont.load_default(size=size)


def fit_text(text: str, size: int, width: int, *, keep_end: bool = False) -> str:
    """Shorten a text to a width in pixels with an ellipsis.

    Args:
        text: the text.
        size: size of its font in pixels.
        width: largest width of the text in pixels.
        keep_end: shorten it on the left.
    """
    font, shown = load_font(size), text
    while len(shown) > 2 and font.getlength(shown) > width:
        shown = f"…{shown.removeprefix('…')[1:]}" if keep_end else f"{shown.removesuffix('…')[:-1]}…"
    return shown
