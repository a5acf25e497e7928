"""Texts in LaTeX: escaping, places to break a line, and the width when printed."""

from __future__ import annotations

import re

from fcnlab import console

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "[": "{[}", "]": "{]}", "<": "$<$", ">": "$>$",
    "|": r"\textbar{}", '"': "''", "±": r"$\pm$", "Δ": r"$\Delta$", "×": r"$\times$",
    "≤": r"$\leq$", "≥": r"$\geq$", "µ": r"$\mu$", "μ": r"$\mu$", "→": r"$\rightarrow$", "−": "$-$", "*": "$^{*}$",
    "°": r"$^{\circ}$", "†": r"$^{\dagger}$", "’": "'", "‘": r"\textquoteleft{}", "“": "``", "”": "''",
    "…": r"\ldots{}", "`": r"\textasciigrave{}", "–": r"\textendash{}", "—": r"\textemdash{}",
}  # fmt: skip

_T1 = frozenset("„‚‹›«»ÐÞðþĄąĐđĘęĮįŊŋŲų")
"""Characters of Latin scripts, and quotes, that pdfLaTeX has in the font encoding T1, but not in OT1, its default."""

_NOT_IN_LATEX = frozenset("ĦħĸĿŀŉŦŧſ")
"""Characters of Latin scripts that pdfLaTeX does not have."""

_WIDTHS = {
    0.278: "!',.:;[]`il", 0.306: "fj", 0.333: " ", 0.361: "I", 0.389: "()t", 0.394: "rs", 0.444: "cez*°†", 0.514: "J",
    0.528: "kqvxy", 0.556: "Sbdhnpu–", 0.611: "Z", 0.625: "L", 0.653: "F", 0.681: "EP", 0.708: "B", 0.722: "CTw",
    0.75: "RAHNUVXY", 0.764: "D", 0.778: "&+-−=@KOQ±<>\\~", 0.785: "G", 0.833: "#%mΔ", 0.917: "M", 1.028: "W—",
}  # fmt: skip
_EM = {character: width for width, characters in _WIDTHS.items() for character in characters}
"""Width of characters of Computer Modern Roman in em at 10 pt; digits and other lower-case letters have 0.5."""

RELATIVE = {10: 1.0, 9: 1.028, 8: 1.063, 7: 1.139, 5: 1.361}
"""Width in em relative to that at 10 pt, by the size in points: small sizes are wider."""

BOLD = 1.15
"""Width of bold relative to regular text."""

MAX_PIECE = 16
"""Most characters without a place to break a line."""


def escape_latex(text: str, *, breakable: bool = False) -> str:
    """Escape a text for LaTeX. Characters of other scripts are kept, for LuaLaTeX and XeLaTeX.

    Args:
        text: any text.
        breakable: whether lines may be broken within words at the places of `split_pieces`.
    """
    text = re.sub(r'(?<![^\s(\[])"(?=\S)', "“", text)
    pieces = split_pieces(text) if breakable else [text]
    escaped = [_escape_piece(piece) for piece in pieces]
    lines = [piece if piece.endswith(" ") or n == len(escaped) - 1 else f"{piece}\\allowbreak{{}}"
             for n, piece in enumerate(escaped)]  # fmt: skip
    return "".join(lines)


def _escape_piece(text: str) -> str:
    minus = re.sub(r"(?<![\w.-])-(?=\d)", "$-$", "".join(map(_character, text)))
    hyphens = re.sub(r"-(?=-)", "-{}", minus)  # two hyphens in sequence would be a dash
    return hyphens.replace(r" $\pm$ ", r"\,$\pm$\,")


def split_pieces(text: str) -> list[str]:
    """Split a text at the places where a line may be broken, and long words after `MAX_PIECE` characters.

    Args:
        text: any text.
    """
    pieces = console.split_pieces(text)
    return [piece[i : i + MAX_PIECE] for piece in pieces for i in range(0, len(piece), MAX_PIECE)]


def measure(text: str, size: int) -> float:
    """Return the width of a text in points, in Computer Modern Roman, which is wider than Times.

    Args:
        text: text before it is escaped.
        size: size of the font in points, one of `RELATIVE`.
    """
    narrow = text.replace(" ± ", "±").strip()
    em = sum(_EM.get(character, 0.5 if ord(character) < 0x180 else 1.0) for character in narrow)
    return size * RELATIVE[size] * (em + (0.333 if narrow != text.strip() else 0.0))


def list_other_scripts(text: str) -> str:
    """Return the characters of a text that pdfLaTeX cannot print.

    Args:
        text: any text.
    """
    return "".join(sorted({character for character in text if not _is_in_latex(character)}))


def list_t1_characters(text: str) -> str:
    """Return the characters of a text for which pdfLaTeX needs the font encoding T1.

    Args:
        text: any text.
    """
    return "".join(sorted(_T1.intersection(text)))


def _character(character: str) -> str:
    if character.isspace() or not character.isprintable():
        return " "
    return _LATEX.get(character, character)


def _is_in_latex(character: str) -> bool:
    if character in _NOT_IN_LATEX:
        return False
    return character in _LATEX or character in _T1 or ord(character) < 0x180 or not character.isprintable()
