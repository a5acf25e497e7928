"""Check of a dataset: read every image and mask, and report all problems at once.

Samples are decoded as in training. If that fails, `fcnlab.data.inspection.diagnosis` examines the files one by one. The
check also finds problems of files that can be decoded: the same picture in two splits, unused bands, EXIF rotation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from fcnlab.constants import IGNORE_INDEX
from fcnlab.data.cache.format import compute_cache_key
from fcnlab.data.cache.label_counts import Counts, count_labels, no_counts, save_label_counts
from fcnlab.data.datasets.base import Dataset, EmptySplitError, FileDataset, FileSplit, Pair, Sample, Split
from fcnlab.data.datasets.folder import Folder
from fcnlab.data.datasets.image_file import IMAGE_ERRORS, describe_conversion, open_header
from fcnlab.data.datasets.splits import SPLIT
from fcnlab.data.inspection.absent_classes import CONSEQUENCE, REMEDY, describe_absence, find_absent_classes
from fcnlab.data.inspection.diagnosis import (
    Problem,
    diagnose_pair,
    find_exif_rotation,
    find_masks_without_image,
    read_mask_palette,
    select_colors,
)
from fcnlab.data.inspection.mixed_masks import describe_mixed_masks, find_foreground, suggest_names
from fcnlab.data.inspection.sample_facts import EarlierSplits, LabelColors, SampleFacts, compare_samples
from fcnlab.data.parallel import StartProgress, map_on_all_cores
from fcnlab.errors import DataError

REFILL = "add images, or remove the split"
"""Remedy of an empty split."""


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


def check_splits(
    dataset: Dataset, splits: Iterable[str], *, extra: Iterable[str] = (), progress: StartProgress | None = None
) -> list[CheckedSplit]:
    """Check splits one after the other.

    Args:
        dataset: the dataset.
        splits: splits that are used, the training split first. They must not share images; a shared image is a problem
            of the later split.
        extra: other splits, which may share images, as trainval of VOC does; a missing one is a note.
        progress: called when a split starts.
    """
    earlier = EarlierSplits()
    used = [_check_split(dataset, name, progress, earlier) for name in splits]
    _add_absent_classes(dataset, used, earlier.counts)
    _add_mixed_masks(dataset, used, earlier.label_sets)
    others = [_check_split(dataset, name, progress, EarlierSplits()) for name in extra]
    for checked in others:
        if not checked.images:  # missing
            checked.notes, checked.problems = checked.notes + checked.problems, []
    return [*used, *others]


def _check_split(dataset: Dataset, name: str, progress: StartProgress | None, earlier: EarlierSplits) -> CheckedSplit:
    checked = CheckedSplit(name)
    try:
        split = dataset.split(name)
    except DataError as error:
        where, _, what = str(error).partition(": ")
        kind, remedy = "unreadable split", "move the files, or correct the entry in registry/datasets.yaml"
        if isinstance(error, EmptySplitError):
            kind, remedy = "empty split", REFILL
        checked.problems.append(Problem(name, where, kind, what, remedy))
        return checked
    checked.images = len(split)
    if not len(split):
        checked.problems.append(Problem(name, name, "empty split", "it has no images", REFILL))
    advance = progress(name, len(split)) if progress is not None else None
    facts = list(map_on_all_cores(lambda index: _examine_sample(dataset, name, split, index), len(split), advance))
    if isinstance(split, FileSplit):
        unpaired = [
            problem for problem in find_masks_without_image(name, split.pairs) if problem.where not in earlier.masks
        ]
        earlier.masks |= {problem.where for problem in unpaired}
        (checked.notes if _shares_folders(dataset) else checked.problems).extend(unpaired)
    for sample in facts:
        checked.problems += sample.problems
        checked.notes += sample.notes
    problems, notes = compare_samples(name, facts, earlier)
    checked.problems += problems
    checked.notes += notes
    _keep_label_counts(dataset, name, facts, earlier)
    return checked


def _keep_label_counts(dataset: Dataset, name: str, facts: list[SampleFacts], earlier: EarlierSplits) -> None:
    """Keep the label counts of a split if all of its samples could be decoded, also for later plans."""
    counts = [sample.counts for sample in facts if sample.counts is not None]
    if facts and len(counts) == len(facts):
        earlier.counts[name] = sum(counts, no_counts())
        save_label_counts(compute_cache_key(dataset, name), earlier.counts[name])


def _add_absent_classes(dataset: Dataset, used: list[CheckedSplit], counts: Mapping[str, Counts]) -> None:
    """Add a problem about classes without a pixel in the first split, and a note about those of other splits."""
    by_name = {checked.split: checked for checked in used}
    for splits, names in find_absent_classes(dataset.classes, counts).items():
        is_problem = splits[0] == used[0].split
        what, remedy = describe_absence(names, splits), REMEDY if is_problem else CONSEQUENCE
        problem = Problem(", ".join(splits), names[0], "absent class", what, remedy)
        checked = by_name[splits[0]]
        (checked.problems if is_problem else checked.notes).append(problem)


def _add_mixed_masks(dataset: Dataset, used: list[CheckedSplit], label_sets: Mapping[frozenset[int], int]) -> None:
    """Add a note if 255 is ignored in masks in which it may be the foreground."""
    foreground = find_foreground(dataset.values, dataset.ignore) if isinstance(dataset, Folder) else None
    if foreground is None:
        return
    value_of = {0: 0, 1: foreground, IGNORE_INDEX: IGNORE_INDEX}
    value_sets = {frozenset(value_of[label] for label in labels): count for labels, count in label_sets.items()}
    what = describe_mixed_masks(value_sets, foreground)
    if what is not None:
        background, other = suggest_names(dataset.classes, foreground)
        remedy = f"if it is, write `classes: {{{background}: 0, {other}: [{foreground}, 255]}}`"
        splits, where = ", ".join(checked.split for checked in used), ", ".join(dataset.classes)
        used[0].notes.append(Problem(splits, where, "mixed masks", what, remedy))


def _shares_folders(dataset: Dataset) -> bool:
    """Return whether splits share one folder, so that an unpaired mask belongs to no split."""
    return isinstance(dataset, Folder) and SPLIT not in dataset.files.images


def _examine_sample(dataset: Dataset, name: str, split: Split, index: int) -> SampleFacts:
    """Decode one sample as in training, and return the result."""
    id_ = split.ids[index]
    if not isinstance(split, FileSplit):
        try:
            sample = split[index]
        except DataError as error:
            problem = Problem(name, id_, "unreadable sample", str(error), "fix the sample")
            return SampleFacts(id_, id_, problems=(problem,))
        return SampleFacts(id_, id_, _hash_pixels(sample), counts=count_labels(sample.label))
    pair = split.pairs[index]
    where = str(pair.image)
    try:
        sample = split[index]
    except DataError as error:
        labels = dataset.label_decoder() if isinstance(dataset, FileDataset) else None
        return SampleFacts(id_, where, problems=tuple(diagnose_pair(name, pair, error, labels, split.open_mask)))
    with open_header(pair.image) as image:
        notes = tuple(find_exif_rotation(name, pair.image, image))
        conversion = describe_conversion(image, dataset.image_format)
    counts = count_labels(sample.label)
    return SampleFacts(
        id_, where, _hash_pixels(sample), _read_label_colors(pair), notes=notes, counts=counts, conversion=conversion
    )


def _hash_pixels(sample: Sample) -> bytes:
    """Return a digest of the pixels, which does not change when a picture is saved again without loss."""
    shape = repr(sample.image.shape).encode()
    return hashlib.blake2b(shape + np.ascontiguousarray(sample.image).tobytes(), digest_size=16).digest()


def _read_label_colors(pair: Pair) -> LabelColors:
    try:
        with Image.open(pair.mask) as mask:
            palette = read_mask_palette(mask)
            numbers = [] if palette is None else np.flatnonzero(mask.histogram()).tolist()
    except IMAGE_ERRORS:  # the split has its own reader of masks
        return {}
    return select_colors(palette or b"", numbers)
