"""Check of a dataset: read every image and mask, and report all problems at once.

Samples are decoded as in training. If that fails, `fcnlab.data.inspection.diagnosis` examines the files one by one. The
check also finds problems of files that can be decoded: the same picture in two splits, unused bands, EXIF rotation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from fcnlab.constants import IGNORE_INDEX
from fcnlab.data.datasets.base import Dataset, FileDataset, FileSplit, Pair, Sample, Split
from fcnlab.data.datasets.folder import SPLIT, Folder
from fcnlab.data.datasets.image_file import (
    IMAGE_ERRORS,
    count_conversions,
    describe_conversion,
    open_header,
    open_image,
)
from fcnlab.data.inspection.diagnosis import (
    Problem,
    diagnose_pair,
    find_exif_rotation,
    find_masks_without_image,
    read_palette,
)
from fcnlab.data.parallel import StartProgress, map_on_all_cores
from fcnlab.errors import DataError

LabelColors = dict[int, bytes]
"""Colors of the labels in the palette of a mask, three bytes each."""


@dataclass
class CheckedSplit:
    """Result of checking one split.

    Attributes:
        split: name of the split.
        images: number of images.
        problems: problems that must be fixed.
        notes: notices that may be intended.
    """

    split: str
    images: int = 0
    problems: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)


@dataclass(frozen=True)
class _Seen:
    """Result of one sample; `digest` is the digest of its image's pixels, `conversion` the change of its bands."""

    id: str
    where: str
    digest: bytes | None = None
    colors: LabelColors = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    notes: tuple[Problem, ...] = ()
    conversion: str | None = None


def check_splits(
    dataset: Dataset, splits: Iterable[str], *, extra: Iterable[str] = (), progress: StartProgress | None = None
) -> list[CheckedSplit]:
    """Check splits one after the other.

    Args:
        dataset: the dataset.
        splits: splits that are used and must not share images; a shared image is a problem of the later split.
        extra: other splits, which may share images, as trainval of VOC does; a missing one is a note.
        progress: called when a split starts.
    """
    earlier = _Earlier()
    return [
        *(_check(dataset, name, progress, earlier) for name in splits),
        *(_absence_noted(_check(dataset, name, progress, _Earlier())) for name in extra),
    ]


@dataclass
class _Earlier:
    """Ids and pictures of the previous splits, and masks that are already reported as unpaired."""

    ids: dict[str, str] = field(default_factory=dict)
    pictures: dict[bytes, tuple[str, str, str]] = field(default_factory=dict)
    masks: set[str] = field(default_factory=set)


def _check(dataset: Dataset, name: str, progress: StartProgress | None, met: _Earlier) -> CheckedSplit:
    checked = CheckedSplit(name)
    try:
        split = dataset.split(name)
    except DataError as error:
        checked.problems.append(_closed(name, error))
        return checked
    checked.images = len(split)
    if not len(split):
        checked.problems.append(
            Problem(name, name, "empty split", "it has no images", "add images, or remove the split")
        )
    advance = progress(name, len(split)) if progress is not None else None
    seen = list(map_on_all_cores(lambda index: _look(dataset, name, split, index), len(split), advance))
    if isinstance(split, FileSplit):
        unpaired = [
            problem for problem in find_masks_without_image(name, split.pairs) if problem.where not in met.masks
        ]
        met.masks |= {problem.where for problem in unpaired}
        (checked.notes if _shares_folders(dataset) else checked.problems).extend(unpaired)
    for one in seen:
        checked.problems += one.problems
        checked.notes += one.notes
    checked.problems += [*_twice(name, seen), *_ids(name, seen, met)]
    for problem, is_problem in _pictures(name, seen, met):
        (checked.problems if is_problem else checked.notes).append(problem)
    checked.notes += [*_palettes(name, seen), *_conversions(name, seen)]
    return checked


def _shares_folders(dataset: Dataset) -> bool:
    """Return whether splits share one folder, so that an unpaired mask belongs to no split."""
    return isinstance(dataset, Folder) and SPLIT not in dataset.files.images


def _absence_noted(checked: CheckedSplit) -> CheckedSplit:
    """Turn the problems of an unused, missing split into notes."""
    if not checked.images:
        checked.notes, checked.problems = checked.notes + checked.problems, []
    return checked


def _closed(name: str, error: DataError) -> Problem:
    where, _, what = str(error).partition(": ")
    if "is empty" in what or "has no images" in what:
        return Problem(name, where, "empty split", what, "add images, or remove the split")
    return Problem(name, where, "unreadable split", what, "move the files to the expected layout")


def _look(dataset: Dataset, name: str, split: Split, index: int) -> _Seen:
    """Decode one sample as in training, and return the result."""
    id_ = split.ids[index]
    pair = split.pairs[index] if isinstance(split, FileSplit) else None
    where = str(pair.image) if pair is not None else id_
    try:
        sample = split[index]
    except DataError as error:
        if pair is None:
            return _Seen(id_, where, problems=(Problem(name, id_, "unreadable sample", str(error), "fix the sample"),))
        labels = dataset.label_decoder() if isinstance(dataset, FileDataset) else None
        open_mask = split.open_mask if isinstance(split, FileSplit) else open_image
        return _Seen(id_, where, problems=tuple(diagnose_pair(name, pair, error, labels, open_mask)))
    if pair is None:
        return _Seen(id_, where, _digest(sample))
    with open_header(pair.image) as image:
        notes = tuple(find_exif_rotation(name, pair.image, image))
        conversion = describe_conversion(image, dataset.image_format)
    return _Seen(id_, where, _digest(sample), _colors(pair, sample), notes=notes, conversion=conversion)


def _digest(sample: Sample) -> bytes:
    """Return a digest of the pixels, which does not change when a picture is saved again without loss."""
    shape = repr(sample.image.shape).encode()
    return hashlib.blake2b(shape + np.ascontiguousarray(sample.image).tobytes(), digest_size=16).digest()


def _colors(pair: Pair, sample: Sample) -> LabelColors:
    try:
        with Image.open(pair.mask) as mask:
            palette = read_palette(mask)
    except IMAGE_ERRORS:  # the split has its own reader of masks
        return {}
    if palette is None:
        return {}
    labels = np.flatnonzero(np.bincount(sample.label.ravel(), minlength=256))
    return {int(v): palette[3 * v : 3 * v + 3] for v in labels if v != IGNORE_INDEX}


def _twice(name: str, seen: list[_Seen]) -> Iterator[Problem]:
    met: set[str] = set()
    for one in seen:
        if one.id in met:
            yield Problem(name, one.id, "id twice", f"occurs twice in {name}", "remove one of them")
        met.add(one.id)


def _ids(name: str, seen: list[_Seen], met: _Earlier) -> Iterator[Problem]:
    """Yield a problem for each id of an earlier split."""
    for id_ in dict.fromkeys(one.id for one in seen):
        before = met.ids.setdefault(id_, name)
        if before != name:
            yield Problem(
                name, id_, "id in two splits", f"occurs in {before} and again in {name}", "keep it in one split"
            )


def _pictures(name: str, seen: list[_Seen], met: _Earlier) -> Iterator[tuple[Problem, bool]]:
    """Yield equal pictures with different ids, and whether they are a problem (two splits) or a note (one split)."""
    for one in seen:
        if one.digest is None:
            continue
        split, id_, where = met.pictures.setdefault(one.digest, (name, one.id, one.where))
        if id_ == one.id:
            continue  # the sample itself, or a repeated id, which is reported as such
        what = f"the same picture as {id_} in {split} ({where})"
        if split != name:
            yield (
                Problem(name, one.where, "picture in two splits", what, "remove one of them: metrics would be biased"),
                True,
            )
        else:
            yield Problem(name, one.where, "picture twice", what, "keep both only if that is intended"), False


def _palettes(name: str, seen: list[_Seen]) -> list[Problem]:
    """Return a note if palette masks assign different colors to one number.

    Drawing programs renumber the colors in each file, so the classes may be the colors and not the numbers.
    """
    first: dict[int, tuple[bytes, str]] = {}
    other: dict[str, tuple[int, bytes]] = {}
    for one in seen:
        for label, color in one.colors.items():
            if color != first.setdefault(label, (color, one.id))[0]:
                other.setdefault(one.id, (label, color))
    if not other:
        return []
    id_, (label, color) = next(iter(other.items()))
    before, of = first[label]
    what = (
        f"{len(other)} palette masks assign another color to a number than earlier masks: {label} is "
        f"{tuple(before)} in {of} and {tuple(color)} in {id_}"
    )
    return [Problem(name, id_, "palettes differ", what, "if the classes are colors, convert them to class numbers")]


def _conversions(name: str, seen: list[_Seen]) -> Iterator[Problem]:
    """Yield one note per kind of images whose bands are changed."""
    found: dict[str, list[str]] = {}
    for one in seen:
        if one.conversion is not None:
            found.setdefault(one.conversion, []).append(one.where)
    for conversion, where in found.items():
        what = count_conversions(len(where), conversion)
        yield Problem(name, where[0], "converted images", what, "nothing if this is intended")
