"""Add entries to a lab's registry files; the rest of a file, comments included, stays as it is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from fcnlab.atomic_file import write_atomically
from fcnlab.config.yaml_file import dump, find_key_lines, parse
from fcnlab.errors import ConfigError
from fcnlab.file_lock import FileLock, Timeout
from fcnlab.paths import exists

LOCK_TIMEOUT = 30.0
"""Seconds to wait for another process that writes an entry."""


def to_yaml(name: str, entry: dict[str, Any]) -> str:
    """Format an entry as YAML; innermost mappings and lists are written on one line.

    Args:
        name: name of the entry.
        entry: its fields as plain values.

    Returns:
        The YAML text.
    """
    text = dump({name: entry}, flow=None)
    return dump({name: entry}) if text.startswith("{") else text  # an entry without inner mappings


def write_entry(file: Path, name: str, entry: dict[str, Any], *, lock: Path, replace: bool = False) -> None:
    """Add an entry to a registry file, or replace it; the file is written completely or not at all.

    Args:
        file: is created if it does not exist.
        name: name of the entry.
        entry: its fields as plain values.
        lock: file that is locked meanwhile, so that the entries of several processes are all kept.
        replace: allow the name to exist.

    Raises:
        ConfigError: the name exists, the file cannot be read, extended or written, or another process holds the lock.
    """
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock, timeout=LOCK_TIMEOUT):
            before = file.read_text(encoding="utf-8") if exists(file) else ""
            after = add_entry(before, name, entry, str(file), replace=replace)
            write_atomically(file, lambda opened: opened.write(after.encode()), keep_mode=True)
    except Timeout:
        raise ConfigError(f"{file}: another process is writing it (lock {lock}); run the command again") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read and written: {error}") from None


def add_entry(text: str, name: str, entry: dict[str, Any], where: str, *, replace: bool = False) -> str:
    """Add an entry to the text of a registry file, or replace it.

    Args:
        text: text of the file.
        name: name of the entry.
        entry: its fields as plain values.
        where: start of error messages.
        replace: allow the name to exist.

    Returns:
        The new text.

    Raises:
        ConfigError: the name exists, or the text cannot be parsed or extended.
    """
    known = parse(text, where)
    if name in known and not replace:
        raise ConfigError(f"{where}: {name}: already exists; choose another name, or pass --force to replace it")
    kept = (_remove_entry(text, name) if name in known else text).rstrip("\n")
    result = (f"{kept}\n\n" if kept else "") + to_yaml(name, entry)
    if _parse_or_none(result) != {**{k: v for k, v in known.items() if k != name}, name: entry}:
        raise ConfigError(f"{where}: the entry cannot be added automatically; add it by hand (see --dry-run)")
    return result


def _parse_or_none(text: str) -> dict[str, Any] | None:
    try:
        return parse(text, "")
    except ConfigError:
        return None


def _remove_entry(text: str, name: str) -> str:
    """Remove the lines of a top-level key; comments before the next key stay."""
    first_lines = find_key_lines(text)
    lines = text.splitlines(keepends=True)
    index = next(i for i, (key, _) in enumerate(first_lines) if key == name)
    begin = first_lines[index][1]
    end = first_lines[index + 1][1] if index + 1 < len(first_lines) else len(lines)
    while end > begin + 1 and re.match(r"(#.*)?$", lines[end - 1].rstrip("\n")):
        end -= 1
    return "".join(lines[:begin] + lines[end:])
