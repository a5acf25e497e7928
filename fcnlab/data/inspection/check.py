"""Read every pair of a dataset and say all that is wrong with it, at once.

A sample is sound if its split decodes it, which is what training does. Only where that fails are its files looked at
one by one (`fcnlab.data.inspection.diagnosis`). Beside that, things are found that decode and are wrong all the same:
the same picture in two splits, 16-bit pictures, pictures that viewers turn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from fcnlab.constants import IGNORE_INDEX
from fcnlab.data.datasets.base import Dataset, FileDataset, FileSplit, Pair, Sample, Split, open_image
from fcnlab.data.datasets.folder import SPLIT, Folder
from fcnlab.data.inspection.diagnosis import IMAGE_ERRORS, Problem, deep, diagnose, palette_of, turned, without_image
from fcnlab.data.parallel import StartProgress, map_on_all_cores
from fcnlab.errors import DataError

LabelColors = dict[int, bytes]
"""Label -> the colour that a palette mask shows it in."""


@dataclass
class CheckedSplit:
    """What one split holds: how many images, and what is wrong with them. `notes` deserve a look and are no faults."""

    split: str
    images: int = 0
    problems: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)


@dataclass(frozen=True)
class _Seen:
    """What was found in one sample; `digest` is that of its image's pixels."""

    id: str
    where: str
    digest: bytes | None = None
    colours: LabelColors = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    notes: tuple[Problem, ...] = ()


def check_splits(
    dataset: Dataset, splits: Iterable[str], *, extra: Iterable[str] = (), progress: StartProgress | None = None
) -> list[CheckedSplit]:
    """Check each split in turn.

    `splits` serve a purpose and must not share images: what two of them share is a fault of the later. `extra` ones
    serve none: they may share with all others, as VOC's trainval does with train and val, and that one of them is not
    there is a note.
    """
    apart = _Met()
    return [
        *(_check(dataset, name, progress, apart) for name in splits),
        *(_absence_noted(_check(dataset, name, progress, _Met())) for name in extra),
    ]


@dataclass
class _Met:
    """The ids and pictures of the splits so far, where each was first, and the masks that are said to stand alone."""

    ids: dict[str, str] = field(default_factory=dict)
    pictures: dict[bytes, tuple[str, str, str]] = field(default_factory=dict)
    masks: set[str] = field(default_factory=set)


def _check(dataset: Dataset, name: str, progress: StartProgress | None, met: _Met) -> CheckedSplit:
    checked = CheckedSplit(name)
    try:
        split = dataset.split(name)
    except DataError as error:
        checked.problems.append(_closed(name, error))
        return checked
    checked.images = len(split)
    if not len(split):
        checked.problems.append(
            Problem(name, name, "empty split", "it has no images", "name its images, or do without it")
        )
    advance = progress(name, len(split)) if progress is not None else None
    seen = list(map_on_all_cores(lambda index: _look(dataset, name, split, index), len(split), advance))
    if isinstance(split, FileSplit):
        alone = [problem for problem in without_image(name, split.pairs) if problem.where not in met.masks]
        met.masks |= {problem.where for problem in alone}
        (checked.notes if _shares_folders(dataset) else checked.problems).extend(alone)
    for one in seen:
        checked.problems += one.problems
        checked.notes += one.notes
    checked.problems += [*_twice(name, seen), *_ids(name, seen, met)]
    for problem, is_fault in _pictures(name, seen, met):
        (checked.problems if is_fault else checked.notes).append(problem)
    checked.notes += _palettes(name, seen)
    return checked


def _shares_folders(dataset: Dataset) -> bool:
    """Whether images are divided among the splits by chance or by lists: a mask that stands alone is then of none."""
    return isinstance(dataset, Folder) and SPLIT not in dataset.files.images


def _absence_noted(checked: CheckedSplit) -> CheckedSplit:
    """A split that nothing uses and that is not there is no fault."""
    if not checked.images:
        checked.notes, checked.problems = checked.notes + checked.problems, []
    return checked


def _closed(name: str, error: DataError) -> Problem:
    where, _, what = str(error).partition(": ")
    if "is empty" in what or "has no images" in what:
        return Problem(name, where, "empty split", what, "name its images, or do without it")
    return Problem(name, where, "unreadable split", what, "put the files where the layout has them")


def _look(dataset: Dataset, name: str, split: Split, index: int) -> _Seen:
    """Decode one sample as training does, and say what is wrong or odd."""
    id_ = split.ids[index]
    pair = split.pairs[index] if isinstance(split, FileSplit) else None
    where = str(pair.image) if pair is not None else id_
    try:
        sample = split[index]
    except DataError as error:
        if pair is None:
            return _Seen(id_, where, problems=(Problem(name, id_, "unreadable sample", str(error), "put it right"),))
        labels = dataset.label_decoder() if isinstance(dataset, FileDataset) else None
        open_mask = split.open_mask if isinstance(split, FileSplit) else open_image
        return _Seen(id_, where, problems=tuple(diagnose(name, pair, error, labels, open_mask)))
    if pair is None:
        return _Seen(id_, where, _digest(sample))
    with Image.open(pair.image) as image:
        problems, notes = deep(name, pair.image, image), turned(name, pair.image, image)
    return _Seen(id_, where, _digest(sample), _colours(pair, sample), tuple(problems), tuple(notes))


def _digest(sample: Sample) -> bytes:
    """Of the pixels and not of the file, so that a picture that was saved again without loss is still the same."""
    shape = repr(sample.image.shape).encode()
    return hashlib.blake2b(shape + np.ascontiguousarray(sample.image).tobytes(), digest_size=16).digest()


def _colours(pair: Pair, sample: Sample) -> LabelColors:
    try:
        with Image.open(pair.mask) as mask:
            palette = palette_of(mask)
    except IMAGE_ERRORS:  # the split read the mask in a way of its own
        return {}
    if palette is None:
        return {}
    labels = np.flatnonzero(np.bincount(sample.label.ravel(), minlength=256))
    return {int(v): palette[3 * v : 3 * v + 3] for v in labels if v != IGNORE_INDEX}


def _twice(name: str, seen: list[_Seen]) -> Iterator[Problem]:
    met: set[str] = set()
    for one in seen:
        if one.id in met:
            yield Problem(name, one.id, "id twice", f"stands twice in {name}", "name it once")
        met.add(one.id)


def _ids(name: str, seen: list[_Seen], met: _Met) -> Iterator[Problem]:
    """Ids that an earlier split has."""
    for id_ in dict.fromkeys(one.id for one in seen):
        before = met.ids.setdefault(id_, name)
        if before != name:
            yield Problem(
                name, id_, "id in two splits", f"stands in {before} and again in {name}", "keep it in one split"
            )


def _pictures(name: str, seen: list[_Seen], met: _Met) -> Iterator[tuple[Problem, bool]]:
    """The same pixels under two ids: a fault where an earlier split has them, a note within the split."""
    for one in seen:
        if one.digest is None:
            continue
        split, id_, where = met.pictures.setdefault(one.digest, (name, one.id, one.where))
        if id_ == one.id:
            continue  # itself, or an id that stands twice and is a fault as such
        what = f"the same picture as {id_} in {split} ({where})"
        if split != name:
            yield (
                Problem(name, one.where, "picture in two splits", what, "take one of them out: figures would leak"),
                True,
            )
        else:
            yield Problem(name, one.where, "picture twice", what, "keep both only if it is meant"), False


def _palettes(name: str, seen: list[_Seen]) -> list[Problem]:
    """One note where palette masks show one number in different colours: then colours may have been meant.

    A palette whose numbers are the classes is the same in every mask; a drawing program that saves colours numbers
    them anew in each file.
    """
    first: dict[int, tuple[bytes, str]] = {}
    other: dict[str, tuple[int, bytes]] = {}
    for one in seen:
        for label, colour in one.colours.items():
            if colour != first.setdefault(label, (colour, one.id))[0]:
                other.setdefault(one.id, (label, colour))
    if not other:
        return []
    id_, (label, colour) = next(iter(other.items()))
    before, of = first[label]
    what = (
        f"{len(other)} palette masks show a number in another colour than those before: {label} is {tuple(before)} in "
        f"{of} and {tuple(colour)} in {id_}"
    )
    return [Problem(name, id_, "palettes differ", what, "if colours were meant, translate them to class numbers")]
