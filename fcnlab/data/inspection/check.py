"""Check of a dataset: read every image and mask, and report all problems at once.

Samples are decoded as in training. If that fails, `fcnlab.data.inspection.diagnosis` examines the files one by one. The
check also finds problems of files that can be decoded: the same picture in two splits, unused bands, EXIF rotation.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from fcnlab.constants import IGNORE_INDEX
from fcnlab.data.cache.format import compute_cache_key
from fcnlab.data.cache.label_counts import LabelCounts, count_labels, no_counts, save_label_counts
from fcnlab.data.datasets.base import (
    Dataset,
    EmptySplitError,
    FileDataset,
    FileSplit,
    Pair,
    RepeatedIdError,
    Sample,
    Split,
    UndefinedLabelError,
    read_sample,
)
from fcnlab.data.datasets.folder import Folder
from fcnlab.data.datasets.image_file import IMAGE_ERRORS, describe_conversion, open_header
from fcnlab.data.datasets.labels import ColorDecoder
from fcnlab.data.datasets.splits import SPLIT
from fcnlab.data.inspection.absent_classes import CONSEQUENCE, REMEDY, describe_absence, find_absent_classes
from fcnlab.data.inspection.diagnosis import (
    LABEL_REMEDY,
    Problem,
    diagnose_pair,
    find_exif_rotation,
    find_masks_without_image,
    read_mask_palette,
    select_colors,
)
from fcnlab.data.inspection.image_contents import count_non_finite
from fcnlab.data.inspection.mixed_masks import describe_mixed_masks, find_foreground, suggest_names
from fcnlab.data.inspection.palettes import LabelColors
from fcnlab.data.inspection.sample_facts import EarlierSplits, SampleFacts, compare_samples
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
    dataset: Dataset,
    splits: Iterable[str],
    *,
    extra: Iterable[str] = (),
    progress: StartProgress | None = None,
    any_palette: bool = False,
) -> list[CheckedSplit]:
    """Check splits one after the other.

    Args:
        dataset: the dataset.
        splits: splits that are used, the training split first. They must not share images; a shared image is a problem
            of the later split.
        extra: other splits, which may share images, as trainval of VOC does; a missing one is a note.
        progress: called when a split starts.
        any_palette: do not compare the palettes of masks, whose numbers are the classes.
    """
    compare = not any_palette and not _has_color_classes(dataset)
    earlier = EarlierSplits()
    pairs: dict[str, Sequence[Pair]] = {}
    used = [_check_split(dataset, name, progress, earlier, pairs, compare) for name in splits]
    shared = _find_shared_folders(dataset, pairs)
    _add_absent_classes(dataset, used, earlier.counts)
    _add_mixed_masks(dataset, used, earlier.label_sets)
    others = [_check_split(dataset, name, progress, EarlierSplits(), pairs, compare) for name in extra]
    _add_unpaired_masks([*used, *others], pairs, shared)
    for checked in others:
        if not checked.images:  # missing
            checked.notes, checked.problems = checked.notes + checked.problems, []
    return [*used, *others]


def _check_split(
    dataset: Dataset,
    name: str,
    progress: StartProgress | None,
    earlier: EarlierSplits,
    pairs: dict[str, Sequence[Pair]],
    compare_palettes: bool,
) -> CheckedSplit:
    """Check one split, and add its pairs of files to those of other splits."""
    checked = CheckedSplit(name)
    try:
        split = dataset.split(name)
    except DataError as error:
        where, _, what = str(error).partition(": ")
        kind, remedy = "unreadable split", "move the files, or correct the entry in registry/datasets.yaml"
        if isinstance(error, EmptySplitError):
            kind, remedy = "empty split", REFILL
        elif isinstance(error, RepeatedIdError):
            kind, (what, _, remedy) = "id twice", what.rpartition("; ")
        checked.problems.append(Problem(name, where, kind, what, remedy))
        return checked
    checked.images = len(split)
    if not len(split):
        checked.problems.append(Problem(name, name, "empty split", "it has no images", REFILL))
    advance = progress(name, len(split)) if progress is not None else None
    facts = list(map_on_all_cores(lambda index: _examine_sample(dataset, name, split, index), len(split), advance))
    if isinstance(split, FileSplit):
        pairs[name] = split.pairs
    if not compare_palettes:
        facts = [replace(sample, colors={}) for sample in facts]
    for sample in facts:
        checked.problems += sample.problems
        checked.notes += sample.notes
    problems, notes = compare_samples(name, facts, earlier)
    checked.problems += problems
    checked.notes += notes
    _keep_label_counts(dataset, name, facts, earlier)
    return checked


def _has_color_classes(dataset: Dataset) -> bool:
    """Return whether the classes of a dataset are the colors of its masks."""
    return isinstance(dataset, FileDataset) and isinstance(dataset.label_decoder(), ColorDecoder)


def _keep_label_counts(dataset: Dataset, name: str, facts: list[SampleFacts], earlier: EarlierSplits) -> None:
    """Keep the label counts of a split if all of its samples could be decoded, also for later plans."""
    counts = [sample.counts for sample in facts if sample.counts is not None]
    if facts and len(counts) == len(facts):
        earlier.counts[name] = sum(counts, no_counts())
        save_label_counts(compute_cache_key(dataset, name), earlier.counts[name])


def _add_absent_classes(dataset: Dataset, used: list[CheckedSplit], counts: Mapping[str, LabelCounts]) -> None:
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


def _find_shared_folders(dataset: Dataset, pairs: Mapping[str, Sequence[Pair]]) -> set[Path]:
    """Return the folders of masks that do not belong to one of the splits."""
    splits = [{pair.mask.parent for pair in of_split} for of_split in pairs.values()]
    if isinstance(dataset, Folder) and SPLIT not in dataset.images:
        return set().union(*splits)
    counts = Counter(folder for folders in splits for folder in folders)
    return {folder for folder, count in counts.items() if count > 1}


def _add_unpaired_masks(
    checked: Iterable[CheckedSplit], pairs: Mapping[str, Sequence[Pair]], shared: Collection[Path]
) -> None:
    """Add a problem for each mask without an image; a note without a split if splits share its folder."""
    seen = {str(pair.mask) for of_split in pairs.values() for pair in of_split}  # their images are reported as missing
    for split in checked:
        for problem in find_masks_without_image(split.split, pairs.get(split.split, ())):
            if problem.where in seen:
                continue
            seen.add(problem.where)
            if Path(problem.where).parent in shared:
                split.notes.append(replace(problem, split=""))
            else:
                split.problems.append(problem)


def _examine_sample(dataset: Dataset, name: str, split: Split, index: int) -> SampleFacts:
    """Decode one sample as in training, and return the result."""
    id_ = split.ids[index]
    pair = split.pairs[index] if isinstance(split, FileSplit) else None
    facts = SampleFacts(id_, id_) if pair is None else SampleFacts(id_, str(pair.image), mask=str(pair.mask))
    try:
        sample = read_sample(split, index, len(dataset.classes))
    except UndefinedLabelError as error:
        file, what = id_ if pair is None else str(pair.mask), str(error).partition("undefined labels: ")[2]
        problem = Problem(name, file, "undefined label", what, LABEL_REMEDY)
        return replace(facts, problems=(problem,))
    except DataError as error:
        if not isinstance(split, FileSplit):
            problem = Problem(name, id_, "unreadable sample", str(error), "fix the sample")
            return replace(facts, problems=(problem,))
        labels = dataset.label_decoder() if isinstance(dataset, FileDataset) else None
        pair_problems = diagnose_pair(name, split.pairs[index], error, labels, split.open_mask)
        return replace(facts, problems=tuple(pair_problems))
    is_blank = bool((sample.image == sample.image[:1, :1]).all())
    facts = replace(facts, digest=_hash_pixels(sample), is_blank=is_blank, counts=count_labels(sample.label))
    if pair is None:
        return facts
    with open_header(pair.image) as image:
        return replace(
            facts,
            colors=_read_label_colors(pair),
            notes=tuple(find_exif_rotation(name, pair.image, image)),
            conversion=describe_conversion(image, dataset.image_format),
            non_finite=count_non_finite(image),
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
