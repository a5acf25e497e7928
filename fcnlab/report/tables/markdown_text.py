"""Texts in Markdown: names and sentences of the user stay plain text, without links, images, HTML and formulas."""

from __future__ import annotations

import re

from fcnlab.redaction import escape_control_characters

_INLINE = re.compile(
    r"[\\`*|~$]"
    r"|<(?=\S)"  # HTML and links in angle brackets
    r"|&(?=#?\w+;)"
    r"|\](?=[(\[:])"  # links, images and their definitions
    r"|(?<![^\W_])_|_(?![^\W_])"  # not within a word, where an underscore has no meaning
)
_ALTERNATIVE = re.compile(rf"[\[\]]|{_INLINE.pattern}")
_BLOCK = re.compile(r"^(?=[#>=+-])")
_NUMBERED = re.compile(r"^(\d+)(?=[.)])")


def escape_markdown(text: str) -> str:
    r"""Escape a text as part of a line of Markdown. Line breaks become spaces.

    Args:
        text: any text.

    >>> escape_markdown("fcn_8s [+1.0, +2.0] *")
    'fcn_8s [+1.0, +2.0] \\*'
    >>> escape_markdown("![x](http://host) <b>")
    '![x\\](http://host) \\<b>'
    """
    return _escape(_INLINE, text)


def escape_markdown_lines(text: str) -> str:
    r"""Escape a text of one or more paragraphs that starts a line of Markdown.

    Args:
        text: any text; empty lines separate paragraphs.

    >>> escape_markdown_lines("# a\n1. b")
    '\\# a\n1\\. b'
    """
    lines = [escape_markdown(line) for line in text.strip().splitlines()]
    return "\n".join(_NUMBERED.sub(r"\1\\", _BLOCK.sub(r"\\", line)) for line in lines)


def escape_alternative(text: str) -> str:
    """Escape the alternative text of an image.

    Args:
        text: any text.
    """
    return _escape(_ALTERNATIVE, text)


def _escape(pattern: re.Pattern[str], text: str) -> str:
    return pattern.sub(r"\\\g<0>", escape_control_characters(" ".join(text.split())))
