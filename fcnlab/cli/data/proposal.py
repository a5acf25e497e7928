"""The entry that `fcnlab data add` writes: from what lies in the folders and what was said on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fcnlab.config.mask_values import ClassValues, MaskValue, check_values, parse_classes, parse_values, to_yaml_classes
from fcnlab.config.yaml_file import parse
from fcnlab.constants import IGNORE_INDEX
from fcnlab.data.datasets.folder import SPLIT, common_splits
from fcnlab.data.inspection import propose
from fcnlab.data.inspection.propose import Contents, Pairing
from fcnlab.errors import ConfigError, DataError
from fcnlab.lab import Lab

_USUAL = {("train", "train"), ("val", "val")}
"""Purposes of splits that need not be said."""


def decide_classes(contents: Contents, said: str | None, ignore: str | None) -> tuple[ClassValues, list[MaskValue]]:
    """The classes as they are said, or as they are proposed, and what does not count.

    Raises:
        ConfigError: what is said cannot be understood.
        DataError: the masks hold something else.
    """
    try:
        given = None if ignore is None else list(parse_values([_number(part) for part in _parts(ignore)]))
    except ValueError as error:
        raise ConfigError(f"--ignore {ignore}: {error}") from None
    try:
        if said is None:
            return propose.classes(contents.values, given)
        named = parse_classes(_said_classes(said))
        if not named:
            raise ValueError("no class is named")
        taken = {value for _, values in named for value in values}
        ignored: list[MaskValue] = (
            given
            if given is not None
            else [value for value in contents.values if value == IGNORE_INDEX and value not in taken]
        )
        check_values(named, ignored)
    except ValueError as error:
        raise ConfigError(f"--classes {said}: {error}" if said is not None else str(error)) from None
    propose.check_known(contents, named, ignored)
    return named, ignored


def entry_of(
    lab: Lab, folders: tuple[str, str], pairing: Pairing, named: ClassValues, ignored: Sequence[MaskValue], skip: bool
) -> dict[str, Any]:
    """The entry, without its splits and size."""
    plain = [values for _, values in named] == [(number,) for number in range(len(named))]
    entry: dict[str, Any] = {
        "description": f"{len(pairing.pairs)} images, {len(named)} classes",
        "type": "folder",
        "images": _portable(lab, folders[0]),
        "masks": _portable(lab, folders[1]),
        "image_suffix": pairing.image_suffix,
        "mask_suffix": pairing.mask_suffix,
        "unpaired": "skip" if skip else "",
        "classes": [name for name, _ in named] if plain else to_yaml_classes(named),
        "ignore": list(ignored),
    }
    return {key: value for key, value in entry.items() if value}


def listed_splits(lab: Lab, folder: Path) -> dict[str, Any]:
    """Splits by the lists train.txt, val.txt and perhaps test.txt of a folder.

    Raises:
        DataError: one of the first two is missing.
    """
    files = {split: folder.expanduser().resolve() / f"{split}.txt" for split in ("train", "val", "test")}
    there = {split: file for split, file in files.items() if file.is_file()}
    missing = [split for split in ("train", "val") if split not in there]
    if missing:
        raise DataError(f"{files[missing[0]]}: no such file; --lists is a folder with train.txt and val.txt")
    said = {
        split: str(file.relative_to(lab.root)) if file.is_relative_to(lab.root) else _portable(lab, str(file))
        for split, file in there.items()
    }
    return {"lists": said} | ({"splits": {"test": "test"}} if "test" in there else {})


def splits_of(folders: tuple[str, str], val: float | None, test: float | None, seed: int) -> dict[str, Any]:
    """Splits by sub-folders where there are any, else by chance.

    Raises:
        ConfigError: there is nothing to validate on.
        DataError: the folder's name has `{split}`, and there is none to train on and one to score on.
    """
    if SPLIT not in folders[0]:
        if val is None and test is None:
            test = 0.15
        if val == 0:
            raise ConfigError("--val 0: the share to validate on is above 0; name one, such as --val 0.1")
        shares = {"val": 0.15 if val is None else val, "test": test, "seed": seed}
        return {"fractions": {k: v for k, v in shares.items() if v}} | ({"splits": {"test": "test"}} if test else {})
    named = propose.purposes(common_splits(*folders))
    if "train" not in named or len(named) < 2:
        raise DataError(f"{folders[0]}: no folders of the splits train and val are there")
    if "val" not in named:  # then the figure is reported on the one split that is not trained on
        named["val"] = named.pop("test")
    other = {purpose: split for purpose, split in named.items() if (purpose, split) not in _USUAL}
    return {"splits": other} if other else {}


def _portable(lab: Lab, path: str) -> str:
    """A path below the data root as it is called there, so that the entry holds on other machines too."""
    root = lab.data_root
    return str(Path(path).relative_to(root)) if root and Path(path).is_relative_to(root) else path


def _said_classes(said: str) -> Any:
    """Names on the command line, or what a file says: YAML, or names one a line."""
    path = Path(said).expanduser()
    if not path.suffix and not path.is_file():
        return _parts(said)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--classes {said}: cannot be read: {error}") from None
    if path.suffix in (".yaml", ".yml"):
        is_list = text.lstrip().startswith(("-", "["))
        return parse(f"classes:\n{_indented(text)}", said)["classes"] if is_list else parse(text, said)
    return [line.strip() for line in text.splitlines() if line.strip()]


def _indented(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines())


def _parts(said: str) -> list[str]:
    return [part.strip() for part in said.split(",") if part.strip()]


def _number(said: str) -> int | str:
    return int(said) if said.isdecimal() else said
