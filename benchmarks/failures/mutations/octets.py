"""Mutations of the bytes of a text file."""

from __future__ import annotations

import random
from collections.abc import Callable

from benchmarks.failures.mutations.values import Mutation

KIND = "bytes, encodings and line ends"

Made = tuple[str, bytes, str]


def mutate_text(content: bytes, chance: random.Random) -> Mutation:
    """Return a random mutation of the bytes of a text file.

    Args:
        content: the file, UTF-8 without a byte order mark.
        chance: chooses the mutation and its place.
    """
    what, mutated, expected = chance.choice(_MUTATIONS)(content, chance)
    return Mutation(KIND, mutated, expected, what)


def _truncate(content: bytes, chance: random.Random) -> Made:
    return "truncate", content[: chance.randrange(len(content))], "any"


def _flip(content: bytes, chance: random.Random) -> Made:
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 3))):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return "flip bits", bytes(changed), "any"


def _insert(content: bytes, chance: random.Random) -> Made:
    parts = (
        b"\0", b"\xff", b"\xc3", b"\x1b[2J", b"\x0c", b"\xe2\x80\xae", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x85",
    )  # fmt: skip
    new, place = chance.choice(parts), chance.randrange(len(content) + 1)
    return f"insert {new!r}", content[:place] + new + content[place:], "any"


def _insert_text(content: bytes, chance: random.Random) -> Made:
    new = chance.choice(
        (b"---\n", b"...\n", b"%YAML 1.1\n", b"? a\n", b"- x\n", b"}\n", b'"\n', b"&a *a\n", b"\t\n", b"x: |\n")
    )
    lines = content.splitlines(keepends=True)
    lines.insert(chance.randrange(len(lines) + 1), new)
    return f"insert the line {new!r}", b"".join(lines), "any"


def _end_lines(content: bytes, chance: random.Random) -> Made:
    end, name = chance.choice(((b"\r\n", "CRLF"), (b"\r", "CR")))
    return f"line ends {name}", content.replace(b"\n", end), "same"


def _encode(content: bytes, chance: random.Random) -> Made:
    text = content.decode()
    encoding = chance.choice(("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be", "utf-7", "cp500"))
    return f"encode as {encoding}", text.encode(encoding), "same" if encoding == "utf-8-sig" else "any"


def _to_latin(content: bytes, chance: random.Random) -> Made:
    lines = content.splitlines(keepends=True)
    lines.insert(
        chance.randrange(len(lines) + 1), "# Größe\n".encode(chance.choice(("latin-1", "cp1252", "mac_roman")))
    )
    return "a line in Latin-1", b"".join(lines), "any"


def _indent(content: bytes, chance: random.Random) -> Made:
    new = chance.choice((b"\t", b"\xc2\xa0\xc2\xa0", b"\xe2\x80\x83", b" ", b"   "))
    return f"indent by {new!r}", content.replace(b"  ", new), "any"


def _change_lines(content: bytes, chance: random.Random) -> Made:
    lines = content.splitlines(keepends=True)
    first, second = chance.randrange(len(lines)), chance.randrange(len(lines))
    match chance.randrange(3):
        case 0:
            del lines[first]
        case 1:
            lines.insert(second, lines[first])
        case _:
            lines[first], lines[second] = lines[second], lines[first]
    return "change lines", b"".join(lines), "any"


def _replace_all(content: bytes, chance: random.Random) -> Made:
    random_bytes = bytes(chance.randrange(256) for _ in range(300))
    contents = (
        b"", b"\n", b"\xef\xbb\xbf", b"\0" * 64, random_bytes, b"\x89PNG\r\n\x1a\n" + random_bytes, b"{}", b"[]",
        b"null", b"# only a comment\n", content + b"# padding\n" * 120_000, b"a" * 500_000, content * 2,
    )  # fmt: skip
    return "replace the content", chance.choice(contents), "any"


_MUTATIONS: tuple[Callable[[bytes, random.Random], Made], ...] = (
    _truncate, _flip, _flip, _insert, _insert_text, _end_lines, _encode, _to_latin, _indent, _change_lines,
    _replace_all,
)  # fmt: skip
