"""The font of texts in pictures."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from fcnlab.data.inspection import font
from fcnlab.data.inspection.font import load_font


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="the font comes with matplotlib")
@pytest.mark.parametrize("letter", "áßłЖΩ…")
def test_letters_of_european_languages_are_not_boxes(letter: str) -> None:
    missing = load_font(14).getmask("\ue000")
    assert bytes(load_font(14).getmask(letter)) != bytes(missing)


def test_without_matplotlib_it_is_the_font_of_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    load_font.cache_clear()
    monkeypatch.setattr(font, "find_spec", lambda _: None)
    try:
        assert "DejaVu" not in str(load_font(14).getname())
    finally:
        load_font.cache_clear()
