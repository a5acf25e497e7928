"""Entries written into a lab's own registry: what stands in the file, comments included, is kept."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import yaml

from fcnlab.config.yaml_file import parse
from fcnlab.errors import ConfigError


def as_yaml(name: str, entry: dict[str, Any]) -> str:
    """One entry as the YAML that says it; what holds no mappings or lists of its own stands on one line."""
    text = yaml.safe_dump({name: entry}, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True)
    if text.startswith("{"):  # an entry without inner mappings
        text = yaml.safe_dump({name: entry}, sort_keys=False, default_flow_style=False, width=110, allow_unicode=True)
    return text


def put(file: Path, name: str, entry: dict[str, Any], *, replace: bool = False) -> None:
    """Add an entry to a file of the registry, or replace it; the file is written whole or not at all.

    Raises:
        ConfigError: the name is taken and `replace` is not set, or the file cannot be read, understood or written.
    """
    try:
        before = file.read_text(encoding="utf-8") if file.exists() else ""
        after = with_entry(before, name, entry, str(file), replace=replace)
        new = file.with_name(f".{file.name}.{os.getpid()}")
        try:
            new.write_text(after, encoding="utf-8")
            os.replace(new, file)
        finally:
            new.unlink(missing_ok=True)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read and written: {error}") from None


def with_entry(text: str, name: str, entry: dict[str, Any], where: str, *, replace: bool = False) -> str:
    """The text of a file of the registry with an entry more, or with another one under its name.

    Raises:
        ConfigError: as `put`.
    """
    known = parse(text, where)
    if name in known and not replace:
        raise ConfigError(f"{where}: {name}: stands there already; choose another name, or pass --force to replace it")
    kept = _without(text, name) if name in known else text
    kept = kept.rstrip("\n")
    result = (f"{kept}\n\n" if kept else "") + as_yaml(name, entry)
    if parse_or_none(result) != {**{k: v for k, v in known.items() if k != name}, name: entry}:
        raise ConfigError(f"{where}: written in a way that this verb cannot extend; add the entry by hand (--dry-run)")
    return result


def parse_or_none(text: str) -> dict[str, Any] | None:
    """The mapping that a text says, or None where it is no sound YAML."""
    try:
        return parse(text, "")
    except ConfigError:
        return None


def _without(text: str, name: str) -> str:
    """The text without the lines of a top-level key; comments that stand before the next one stay."""
    top = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(top, yaml.MappingNode)
    starts = [(str(key.value), key.start_mark.line) for key, _ in top.value]
    lines = text.splitlines(keepends=True)
    place = next(i for i, (key, _) in enumerate(starts) if key == name)
    start = starts[place][1]
    end = starts[place + 1][1] if place + 1 < len(starts) else len(lines)
    while end > start + 1 and re.match(r"(#.*)?$", lines[end - 1].rstrip("\n")):
        end -= 1
    return "".join(lines[:start] + lines[end:])
