"""Fonts for characters that the font of all charts lacks, such as Chinese names of recipes."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

DEFAULT = "DejaVu Sans"
"""Font of all charts; it is included in matplotlib, so all machines draw the same."""


def add_fallback_fonts(figures: Iterable[Figure]) -> None:
    """Let the texts of figures use installed fonts for characters that the font of all charts lacks.

    Warns once, with the characters that no installed font has.

    Args:
        figures: the figures.
    """
    texts = [text for figure in figures for text in figure.findobj(Text) if isinstance(text, Text)]
    needed = {character for text in texts for character in text.get_text() if not character.isspace()}
    missing = needed - _characters(font_manager.findfont(DEFAULT))
    if not missing:
        return
    names, missing = _find_fonts(missing)
    for text in texts:
        text.set_fontfamily([DEFAULT, *names])
    if missing:
        listing = "".join(sorted(missing))
        warnings.warn(f"no installed font has these characters, charts show boxes instead: {listing}", stacklevel=2)


def _find_fonts(wanted: set[str]) -> tuple[list[str], set[str]]:
    """Return the names of installed fonts that have the wanted characters, and the characters that none has."""
    names: list[str] = []
    for font in sorted(font_manager.fontManager.ttflist, key=lambda entry: (entry.style != "normal", entry.name)):
        if wanted and font.name not in names and wanted & _characters(font.fname):
            wanted = wanted - _characters(font.fname)
            names.append(font.name)
    return names, wanted


def _characters(file: str) -> set[str]:
    try:
        return set(map(chr, FT2Font(file).get_charmap()))
    except (OSError, RuntimeError):  # a font that was removed or is damaged
        return set()
