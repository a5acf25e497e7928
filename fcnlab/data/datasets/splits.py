"""Division of images into splits: folders, text files of ids, file names or pairs of paths, and random splits."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from fcnlab.config.dataset import CrossValidation
from fcnlab.data.datasets.image_file import IMAGE_EXTENSIONS
from fcnlab.errors import DataError
from fcnlab.paths import check_regular_file, is_file
from fcnlab.seeding import derive_seed

SPLIT = "{split}"
"""Placeholder for the name of a split in the path of a folder."""

_NAME = rf"\S.*?(?:{'|'.join(re.escape(extension) for extension in IMAGE_EXTENSIONS)})"
_PAIR = re.compile(rf"({_NAME})(?:\s*[,;\t]\s*|\s+)({_NAME})", re.IGNORECASE)
"""Two names of images, separated by a comma, a semicolon or blanks."""

LONGEST_PAIR = 4096
"""Characters of the longest line with two names, as of a path on Linux; matching takes quadratic time."""

LONGEST_NAME = 255
"""Bytes of the longest name of a file, as on Linux."""


def find_split_names(folder: str) -> tuple[str, ...]:
    """Return the splits of which a folder exists, sorted.

    Args:
        folder: path; without `{split}` there are no splits.
    """
    if SPLIT not in folder:
        return ()
    before, _, after = folder.partition(SPLIT)
    pattern = f"{glob.escape(before)}*{glob.escape(after)}/"
    found = sorted(glob.glob(pattern))  # noqa: PTH207 - the split may be a part of a folder's name
    whole = re.compile(f"{re.escape(before)}([^/]+){re.escape(after)}/?")
    return tuple(match[1] for path in found if (match := whole.fullmatch(path)))


def common_splits(images: str, masks: str) -> tuple[str, ...]:
    """Return the splits of which both a folder of images and one of masks exist.

    Args:
        images: path of the images with `{split}`.
        masks: path of the masks with `{split}`.
    """
    mask_splits = find_split_names(masks)
    return tuple(split for split in find_split_names(images) if split in mask_splits)


def read_list(
    file: Path, remedy: str = "expected a list with one id per line, or an image and its mask"
) -> list[tuple[int, str]]:
    """Return the lines of a text file that are not empty, with their numbers from 1.

    Args:
        file: the list.
        remedy: end of the error if the file is missing.

    Raises:
        DataError: the file is missing or is not text in UTF-8.
    """
    try:
        check_regular_file(file)
        lines = file.read_text(encoding="utf-8-sig").splitlines()  # editors on Windows write a byte order mark
    except FileNotFoundError:
        raise DataError(f"{file}: no such file; {remedy}") from None
    except UnicodeDecodeError:
        raise DataError(f"{file}: is not UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from None
    return [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]


def is_comment(line: str) -> bool:
    """Return whether a line of a list is a comment, unless it is the name of an image that begins with `#`.

    Args:
        line: the line.
    """
    return line.startswith("#")


def paths_below(name: str, folder: Path, file: Path) -> Iterator[str]:
    """Yield the paths in a folder that a path in a list may mean, relative to the folder.

    A relative path may begin below the folder, below its parent, or next to the list, with `/` or backslashes between
    its parts. A slash at its beginning is left out, unless it leads to the folder.

    Args:
        name: path of an image, with or without extension.
        folder: the folder.
        file: the list.
    """
    written = name.replace("\\", "/")
    places, roots = _list_places(name, folder, file), [folder]
    if written.startswith("/"):
        real = Path(os.path.realpath(Path(written).parent)) / Path(written).name  # a folder above may be a link
        places, roots = [Path(written), real, *places], [folder, Path(os.path.realpath(folder))]
    found = dict.fromkeys(Path(os.path.normpath(place)) for place in places)
    for root in map(Path, map(os.path.normpath, roots)):
        yield from (path.relative_to(root).as_posix() for path in found if path.is_relative_to(root) and path != root)


def split_pair(line: str) -> tuple[str, str] | None:
    """Return the paths of an image and its mask in a line of a list; None if the line is one id or name.

    Args:
        line: a line such as `images/a.jpg masks/a.png`.

    >>> split_pair("images/a 1.jpg, masks/a 1.png")
    ('images/a 1.jpg', 'masks/a 1.png')
    """
    found = _PAIR.fullmatch(line) if len(line) <= LONGEST_PAIR else None
    return (found[1], found[2]) if found is not None else None


def read_pairs(file: Path, images: Path, masks: Path, image_suffix: str = "") -> list[tuple[str, Path, Path]] | None:
    """Return the pairs in a list of pairs of paths; None if it is a list of ids.

    A path is searched below the folder of the images or masks, below its parent, and next to the list; a slash at its
    beginning is left out, unless it is the path of a file.

    Args:
        file: the list.
        images: folder of the images.
        masks: folder of the masks.
        image_suffix: suffix of the images' names before the extension.

    Returns:
        Id, image and mask of each line. The id is the path of the image in its folder without suffix and extension.

    Raises:
        DataError: the list cannot be read, a file is missing, or only some lines are pairs.
    """
    lines = [(number, line, split_pair(line)) for number, line in read_list(file)]
    lines = [(n, line, pair) for n, line, pair in lines if not is_comment(line) or _is_found(file, pair, images)]
    if not any(pair for _, _, pair in lines):
        return None
    pairs = []
    for number, line, pair in lines:
        if pair is None:
            raise DataError(f"{file}, line {number}: '{line}' is not a pair of an image and a mask like other lines")
        image = _find(file, number, pair[0], images)
        pairs.append((_id(image, images, image_suffix), image, _find(file, number, pair[1], masks)))
    return pairs


def _is_found(file: Path, pair: tuple[str, str] | None, images: Path) -> bool:
    """Return whether the image of a pair exists; text that is longer than any name of a file is none."""
    if pair is None or any(len(os.fsencode(part)) > LONGEST_NAME for part in Path(pair[0]).parts):
        return False
    return _search(file, pair[0], images) is not None


def _search(file: Path, name: str, folder: Path) -> Path | None:
    """Return the file that a path in a list of pairs means; None if there is none."""
    places = _list_places(name, folder, file) + ([Path(name)] if Path(name).is_absolute() else [])
    return next((path for path in places if is_file(path)), None)


def _list_places(name: str, folder: Path, file: Path) -> list[Path]:
    """Return a path in a list below the folder, below its parent and next to the list, in this order."""
    relative = name.replace("\\", "/").lstrip("/")
    return [place / relative for place in (folder, folder.parent, file.parent)]


def _find(file: Path, number: int, name: str, folder: Path) -> Path:
    found, places = _search(file, name, folder), (folder, folder.parent, file.parent)
    if found is None:
        listed = ", ".join(dict.fromkeys(map(str, places)))
        raise DataError(f"{file}, line {number}: no file '{name}' below {listed}")
    return found


def _id(image: Path, folder: Path, suffix: str) -> str:
    """Return the id of an image; `..` in its path is resolved first, so that no id leads outside of a folder."""
    image, folder = (Path(os.path.normpath(path)) for path in (image, folder))
    below = next((place for place in (folder, folder.parent) if image.is_relative_to(place)), image.parent)
    return image.relative_to(below).with_suffix("").as_posix().removesuffix(suffix)


def divide_ids(
    ids: Sequence[str], fractions: Mapping[str, float], seed: int, group_by: str | None = None
) -> dict[str, list[str]]:
    """Divide ids into random splits, independently of the order of the ids.

    Args:
        ids: unique ids.
        fractions: fraction of each split, which is rounded to at least one id or group. The first split gets the rest.
        seed: seed of the division.
        group_by: regular expression; ids with the same match are in the same split. See `find_group`.

    Returns:
        The sorted ids of each split.

    Raises:
        DataError: there are too few ids or groups, or an id has no group.
    """
    shuffled = _shuffle_groups(ids, seed, group_by)
    remaining = iter(shuffled)
    first, *others = fractions
    divided: dict[str, list[str]] = {first: []}
    for name in others:
        divided[name] = sorted(_take(remaining, max(1, round(fractions[name] * len(ids)))))
    divided[first] = sorted(id_ for group in remaining for id_ in group)
    if not divided[first]:
        raise DataError(_describe_too_few(shuffled, group_by, f"the splits {', '.join(fractions)}"))
    return divided


def divide_into_folds(ids: Sequence[str], parts: CrossValidation) -> dict[str, list[str]]:
    """Divide ids into folds, and these into the splits of the fold that is held out.

    The folds do not depend on the order of the ids, nor on the fold that is held out. Their sizes differ by one id at
    most; with groups, each group in order of size is added to the smallest fold.

    Args:
        ids: unique ids.
        parts: the cross-validation; without `fold`, the fold 0 is held out.

    Returns:
        The sorted ids of each split.

    Raises:
        DataError: there are too few ids or groups, or an id has no group.
    """
    shuffled = _shuffle_groups(ids, parts.seed, parts.group_by)
    divided: list[list[list[str]]] = [[] for _ in range(parts.folds)]
    sizes = [0] * parts.folds
    for group in sorted(shuffled, key=len, reverse=True):
        smallest = sizes.index(min(sizes))
        divided[smallest].append(group)
        sizes[smallest] += len(group)
    fold = parts.fold or 0
    held_out = divided.pop(fold)
    others = [group for groups in divided for group in groups]
    splits = {"val" if parts.val is None else "test": held_out}
    if parts.val is not None:
        order = _permute(len(others), parts.seed, f"val of fold {fold}")
        remaining = iter([others[i] for i in order])
        splits["val"] = [_take(remaining, max(1, round(parts.val * len(ids))))]
        others = list(remaining)
    splits["train"] = others
    result = {name: sorted(id_ for group in splits[name] for id_ in group) for name in parts.split_names}
    if not all(result.values()) or not all(divided):
        raise DataError(_describe_too_few(shuffled, parts.group_by, f"{parts.folds} folds"))
    return result


def _shuffle_groups(ids: Sequence[str], seed: int, group_by: str | None) -> list[list[str]]:
    """Return the sorted ids of each group, or each id by itself, in a random order."""
    groups: dict[str, list[str]] = {}
    for id_ in sorted(ids):
        groups.setdefault(id_ if group_by is None else find_group(id_, group_by), []).append(id_)
    names = sorted(groups)
    return [groups[names[i]] for i in _permute(len(groups), seed, "split")]


def _permute(count: int, seed: int, name: str) -> list[int]:
    order: list[int] = np.random.RandomState(derive_seed(seed, name) % 2**32).permutation(count).tolist()
    return order


def _describe_too_few(groups: Sequence[Sequence[str]], group_by: str | None, parts: str) -> str:
    noun, verb = ("image", "is") if len(groups) == 1 else ("images", "are")
    if group_by is not None:
        noun = f"{'group' if len(groups) == 1 else 'groups'} of images ('{group_by}')"
    return f"{len(groups)} {noun} {verb} too few for {parts}"


def _take(groups: Iterator[list[str]], count: int) -> list[str]:
    """Take groups until they have at least the number of ids."""
    taken: list[str] = []
    while len(taken) < count:
        group = next(groups, None)
        if group is None:
            break
        taken += group
    return taken


def find_group(id_: str, group_by: str) -> str:
    """Return the group of an id: the groups of the regular expression in parentheses, or else its whole match.

    Args:
        id_: the id.
        group_by: regular expression, which may match anywhere in the id.

    Raises:
        DataError: the id does not match.

    >>> find_group("video_07/frame_003", "video_[0-9]+")
    'video_07'
    """
    match = re.search(group_by, id_)
    if match is None:
        raise DataError(f"group_by: '{group_by}' does not match the id '{id_}', which is thus in no group")
    return "\0".join(group or "" for group in match.groups()) if match.groups() else match[0]
