"""Mutations of the keys and values of a YAML file."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from fcnlab.config.yaml_file import dump

Path = tuple[Any, ...]

FREE = frozenset({"options", "conclusion", "description", "question", "labels"})
"""Keys whose content has no fixed types."""


class Mutation(NamedTuple):
    """A mutated file.

    Attributes:
        kind: kind of the mutation.
        content: content of the file.
        expected: `error`: it is refused; `effect`: it is refused or means something else; `same`: it means the same;
            `any`: one of these.
        what: the mutation in detail.
    """

    kind: str
    content: bytes
    expected: str
    what: str


class Raw(str):
    """YAML text in place of a key or value."""


NUMBERS = (0, -1, -(10**30), 10**30, 2**63, 1e-320, float("nan"), float("inf"), float("-inf"), 0.5, 1e308)
NUMBER_TEXTS = ("1e400", "0o17", "0x1F", "010", "1_000", "+5", "1.", ".5", "1e-3", "9" * 5000, "0x" + "F" * 400, "-0.0")
TEXTS = (
    "", " ", "\t", "x" * 300, "x" * 100_000, "ünïcode 日本語 👩‍🔬", "e\u0301 decomposed", "\u05d0\u05d1 right to left",
    "\u00a0", "../../outside", "~unknown-user/x", "~", "/dev/null", "/etc/passwd", "C:\\data", "{split}",
    "{split}/{split}", "a{b", "%s %d {0} {name}", "-", "--help", "#804080", "*", "None", "fcn8s",
)  # fmt: skip
ESCAPED = ('"\\0"', '"\\e[31m"', '"\\u202e"', '"\\ud800"', '"\\x7f"', '"a\\nb"', '"\\uFEFF"', '"\\r"', '"\\u2028"')
DATES = ("2024-01-01", "2024-01-01 12:00:00", "12:30:45", "2001-12-14t21:59:43.10-05:00")
TAGS = (
    "!!python/object/apply:os.system ['touch owned']", "!!python/name:os.system", "!!binary aGVsbG8=", "!!set {a, b}",
    "!!omap [a: 1]", "!!timestamp 2024-01-01", "!!int seven", "!!float x", "!!null x", "!local 3", "!!seq {a: 1}",
    "!!map [a]",
)  # fmt: skip
ALIASES = ("*missing", "&a [*a]", "&a {b: *a}", "&x 5", "{<<: 5}", "{<<: *missing}", "{<<: [{a: 1}, {a: 2}]}", "? [a]")
LOOKALIKES = {"a": "а", "e": "е", "o": "о", "p": "р", "c": "с", "s": "ѕ", "i": "і", "x": "х"}


def list_paths(value: Any, path: Path = ()) -> Iterator[Path]:
    """Yield the paths of all values inside a value.

    Args:
        value: plain values.
        path: path of the value.
    """
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield (*path, key)
            yield from list_paths(inner, (*path, key))


def to_text(value: Any) -> str:
    """Format a value as YAML, with the texts of `Raw` keys and values as they are.

    Args:
        value: plain values.
    """
    texts: list[str] = []

    def mark(item: Any) -> Any:
        if isinstance(item, Raw):
            texts.append(str(item))
            return f"RAW{len(texts) - 1:06d}RAW"
        if isinstance(item, dict):
            return {mark(key): mark(inner) for key, inner in item.items()}
        return [mark(inner) for inner in item] if isinstance(item, list) else item

    text = dump(mark(value), width=10**9)
    for index, raw in enumerate(texts):
        text = text.replace(f"RAW{index:06d}RAW", raw)
    return text


def mutate(content: dict[str, Any], chance: random.Random) -> Mutation:
    """Return a random mutation of the content of a file.

    Args:
        content: the content.
        chance: chooses the mutation and its place.
    """
    paths = list(list_paths(content))
    while True:
        kind = chance.choice(tuple(_KINDS))
        path = chance.choice(paths)
        made = chance.choice(_KINDS[kind])(content, path, chance)
        if made is not None:
            what, mutated, expected = made
            return Mutation(kind, to_text(mutated).encode("utf-8", "surrogatepass"), expected, f"{what} at {path}")


Made = tuple[str, Any, str] | None


def _get(value: Any, path: Path) -> Any:
    for key in path:
        value = value[key]
    return value


def _replace(value: Any, path: Path, new: Any) -> Any:
    """Return a copy with another value at a path."""
    result = copy.deepcopy(value)
    _get(result, path[:-1])[path[-1]] = new
    return result


def _replace_items(value: Any, path: Path, items: list[tuple[Any, Any]]) -> Any:
    """Return a copy with other keys and values in the mapping at a path."""
    return _replace(value, path, dict(items)) if path else dict(items)


def _is_typed(path: Path) -> bool:
    return not any(key in FREE or (isinstance(key, str) and "options" in key.split(".")) for key in path)


def _delete(content: Any, path: Path, _chance: random.Random) -> Made:
    result = copy.deepcopy(content)
    del _get(result, path[:-1])[path[-1]]
    return "delete", result, "any"


def _rename(content: Any, path: Path, chance: random.Random) -> Made:
    key = path[-1]
    if not isinstance(key, str):
        return None
    places = [place for place, letter in enumerate(key) if letter in LOOKALIKES]
    place = chance.choice(places) if places else None
    new = chance.choice((f"{key}x", key[1:], key.upper(), f" {key}", key.replace("_", "-"), f"{key}.x"))
    if place is not None and chance.random() < 0.4:
        new = key[:place] + LOOKALIKES[key[place]] + key[place + 1 :]
    items = _get(content, path[:-1])
    if new in items:
        return None
    renamed = [(new if name == key else name, inner) for name, inner in items.items()]
    return f"rename to {new!r}", _replace_items(content, path[:-1], renamed), "effect"


def _add_key(content: Any, path: Path, chance: random.Random) -> Made:
    inside = _get(content, path)
    if not isinstance(inside, dict):
        return None
    key = chance.choice(("unknown", "_x", "lr", "epochs", Raw("1"), Raw("null"), Raw("true"), Raw("[a, b]"), Raw("''")))
    if key in inside:
        return None
    value: Any = chance.choice((1, "x", None, [], {}))
    return f"add {key!s}", _replace_items(content, path, [*inside.items(), (key, value)]), "effect"


def _duplicate_key(content: Any, path: Path, chance: random.Random) -> Made:
    if not isinstance(path[-1], str) or not path[-1].replace(".", "").replace("_", "").isalnum():
        return None
    items = list(_get(content, path[:-1]).items())
    again = (Raw(f"{path[-1]} "), chance.choice((_get(content, path), 1)))  # the blank makes it another key of the dict
    return "duplicate", _replace_items(content, path[:-1], [*items, again]), "error"


def _move(content: Any, path: Path, chance: random.Random) -> Made:
    targets = [(), *(other for other in list_paths(content) if isinstance(_get(content, other), dict))]
    target = chance.choice(targets)
    if target[: len(path)] == path or target == path[:-1] or not isinstance(path[-1], str):
        return None
    moved, result = _get(content, path), copy.deepcopy(content)
    _get(result, target)[path[-1]] = moved
    del _get(result, path[:-1])[path[-1]]
    return f"move to {target}", result, "any"  # a default may move


def _cast(content: Any, path: Path, chance: random.Random) -> Made:
    """Write a number or truth value in a form that other programs convert silently."""
    value: Any = _get(content, path)
    if not _is_typed(path) or not isinstance(value, bool | int | float):
        return None
    if isinstance(value, bool):
        new: Any = chance.choice((Raw("yes"), Raw("no"), Raw("on"), Raw("off"), Raw("y"), 0, 1, "true", 1.0, "1"))
    else:
        new = chance.choice((str(value), value == value, Raw(f"'{value}'"), Raw(f"{value}_0")))
        if isinstance(value, int) and chance.random() < 0.4:
            new = chance.choice((value + 0.5, float(value)))
            if path[-1] not in _INTEGERS:
                return None
    return f"{value!r} as {new!r}", _replace(content, path, new), "error"


_INTEGERS = frozenset(
    {"epochs", "batch_size", "seeds", "height", "width", "stride", "hidden", "n", "patience", "train"}
)


def _swap_type(content: Any, path: Path, chance: random.Random) -> Made:
    value: Any = _get(content, path)
    choices: list[Any] = [None, [value], {"a": value}, [], {}, "", "text", 3, 0.25, True, [None], [[]]]
    choices += [Raw(chance.choice(DATES))]
    if isinstance(value, list):
        choices += [{str(index): str(item) for index, item in enumerate(value)}, *value[:1]]
    if isinstance(value, dict):
        choices += [list(value), list(value.values()), str(value)]
    new = chance.choice(choices)
    return f"{type(value).__name__} becomes {str(new)[:40]!r}", _replace(content, path, new), "any"


def _change_value(content: Any, path: Path, chance: random.Random) -> Made:
    if isinstance(_get(content, path), dict | list):
        return None
    family = chance.choice((NUMBERS, tuple(map(Raw, NUMBER_TEXTS)), TEXTS, tuple(map(Raw, ESCAPED))))
    new = chance.choice(family)
    return f"becomes {str(new)[:40]!r}", _replace(content, path, new), "any"


def _change_list(content: Any, path: Path, chance: random.Random) -> Made:
    values = _get(content, path)
    if not isinstance(values, list) or not values:
        return None
    other = _get(content, chance.choice(list(list_paths(content))))
    new = chance.choice(([*values, values[0]], [*values, other], values[::-1], values[:-1], values * 50, [values]))
    return "change a list", _replace(content, path, new), "any"


def _nest(content: Any, path: Path, chance: random.Random) -> Made:
    new = _get(content, path)
    depth = chance.choice((1, 3, 45, 60))
    for _ in range(depth):
        new = [new] if chance.random() < 0.5 else {"a": new}
    if chance.random() < 0.2:
        new = Raw("[" * 3000 + "]" * 3000)
    return f"nest {depth} levels", _replace(content, path, new), "any"


def _alias(content: Any, path: Path, chance: random.Random) -> Made:
    new = Raw(chance.choice((*ALIASES, _BOMB)))
    return f"becomes {new[:40]!r}", _replace(content, path, new), "any"


def _tag(content: Any, path: Path, chance: random.Random) -> Made:
    new = Raw(chance.choice(TAGS))
    return f"becomes {new[:40]!r}", _replace(content, path, new), "effect"


_BOMB = "[&a [x, x, x, x, x, x, x, x], " + ", ".join(
    f"&{new} [{', '.join([f'*{old}'] * 8)}]" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
_BOMB += "]"

_KINDS: dict[str, tuple[Callable[[Any, Path, random.Random], Made], ...]] = {
    "keys deleted, renamed, moved, added or duplicated": (_delete, _rename, _rename, _add_key, _duplicate_key, _move),
    "numbers and truth values in another form": (_cast,),
    "values of another type": (_swap_type, _change_list),
    "extreme numbers and texts": (_change_value,),
    "nesting, anchors and tags": (_nest, _alias, _tag),
}
