"""Problems that appear when the samples of a dataset are compared: repeated ids and pictures, different palettes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from fcnlab.console import format_count
from fcnlab.data.cache.label_counts import LabelCounts
from fcnlab.data.datasets.image_file import count_conversions
from fcnlab.data.inspection.diagnosis import Problem
from fcnlab.data.inspection.image_contents import NON_FINITE
from fcnlab.data.inspection.palettes import (
    PALETTES_REMEDY,
    PERMUTATION_REMEDY,
    FirstColors,
    LabelColors,
    PaletteNumbers,
    compare_palettes,
)
from fcnlab.errors import list_some

SHOWN = 2
"""Number of images of one mask that a note lists."""

SHARED_REMEDY = "correct the list of pairs, unless the images show the same objects at the same places"
"""Remedy of masks that several images have."""


ImagesByMask = dict[str, dict[str, None]]
"""The files of the images of each mask, in the order in which they were found."""


@dataclass(frozen=True)
class SampleFacts:
    """Result of reading one sample.

    Attributes:
        id: identifier of the sample.
        where: file of the image, or the id.
        digest: digest of the pixels of the image; None if the sample cannot be decoded.
        is_blank: True if all pixels of the image have the same color.
        mask: file of the mask; None if the sample is no pair of files.
        colors: colors of the numbers that occur in a palette mask.
        problems: problems of its files.
        notes: notices about its files.
        counts: number of pixels of each label, int64 [256]; None if the sample cannot be decoded.
        conversion: change of the bands of the image; None if there is none.
        non_finite: number of pixels of the image that are NaN or infinite.
    """

    id: str
    where: str
    digest: bytes | None = None
    is_blank: bool = False
    mask: str | None = None
    colors: LabelColors = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    notes: tuple[Problem, ...] = ()
    counts: LabelCounts | None = None
    conversion: str | None = None
    non_finite: int = 0


@dataclass
class EarlierSplits:
    """Facts about the splits that have been checked.

    Attributes:
        samples: split and facts of the first sample with each id.
        pictures: split and facts of the first sample with each digest.
        images: files of the images of each mask.
        counts: number of pixels of each label by split, of splits whose samples could all be decoded.
        label_sets: number of masks by the set of their labels.
        colors: first color of each number in palette masks.
        numbers: numbers of each color in palette masks.
        is_permuted: True if colors with several numbers were reported.
    """

    samples: dict[str, tuple[str, SampleFacts]] = field(default_factory=dict)
    pictures: dict[bytes, tuple[str, SampleFacts]] = field(default_factory=dict)
    images: ImagesByMask = field(default_factory=dict)
    counts: dict[str, LabelCounts] = field(default_factory=dict)
    label_sets: Counter[frozenset[int]] = field(default_factory=Counter)
    colors: FirstColors = field(default_factory=dict)
    numbers: PaletteNumbers = field(default_factory=PaletteNumbers)
    is_permuted: bool = False


def compare_samples(
    name: str, facts: Sequence[SampleFacts], earlier: EarlierSplits
) -> tuple[list[Problem], list[Problem]]:
    """Compare the samples of a split with each other and with those of earlier splits.

    Args:
        name: name of the split.
        facts: facts about its samples.
        earlier: facts about earlier splits, to which those of this split are added.

    Returns:
        The problems, and the notes.
    """
    present = (np.flatnonzero(sample.counts).tolist() for sample in facts if sample.counts is not None)
    earlier.label_sets.update(map(frozenset, present))
    problems = list(_find_repeated_ids(name, facts))
    others: list[tuple[str, str]] = []
    for sample in facts:
        split, before = earlier.samples.setdefault(sample.id, (name, sample))
        if split == name:
            continue
        if (before.where, before.digest) == (sample.where, sample.digest):
            what = f"occurs in {split} and again in {name}"
            problems.append(Problem(name, sample.id, "id in two splits", what, "keep it in one split"))
        elif before.digest != sample.digest:
            others.append((split, sample.id))
    same, twice = _find_equal_pictures(name, facts, earlier)
    shared = [_describe_shared_ids(name, others)] if others else []
    palettes = compare_palettes(((sample.id, sample.colors) for sample in facts), earlier.colors)
    earlier.numbers.add((sample.id, sample.colors) for sample in facts)
    if not earlier.is_permuted and (permutation := earlier.numbers.find_permutation()) is not None:
        earlier.is_permuted = True
        same.append(Problem(name, permutation[0], "palettes differ", permutation[1], PERMUTATION_REMEDY))
    elif palettes is not None and not earlier.is_permuted:
        id_, what = palettes
        twice.append(Problem(name, id_, "palettes differ", what, PALETTES_REMEDY))
    notes = [*_list_conversions(name, facts), *_list_non_finite(name, facts), *_list_blank(name, facts)]
    return [*problems, *same], [*shared, *twice, *notes, *_list_shared_masks(name, facts, earlier.images)]


def _find_repeated_ids(name: str, facts: Sequence[SampleFacts]) -> Iterator[Problem]:
    seen: set[str] = set()
    for sample in facts:
        if sample.id in seen:
            yield Problem(name, sample.id, "id twice", f"occurs twice in {name}", "remove one of them")
        seen.add(sample.id)


def _describe_shared_ids(name: str, shared: Sequence[tuple[str, str]]) -> Problem:
    """Return one note about ids that belong to other pictures in earlier splits."""
    split, id_ = shared[0]
    splits = ", ".join(dict.fromkeys(split for split, _ in shared))
    what = f"{len(shared)} ids also occur in {splits}, with other pictures, such as {id_}"
    return Problem(name, id_, "id in two splits", what, f"nothing, if {name} and {split} are numbered separately")


def _find_equal_pictures(
    name: str, facts: Sequence[SampleFacts], earlier: EarlierSplits
) -> tuple[list[Problem], list[Problem]]:
    """Return problems for the pictures of an earlier split, and notes for those that occur twice in this one."""
    in_two, twice = [], []
    for sample in facts:
        if sample.digest is None or sample.is_blank:  # tiles without data are equal, but not copies
            continue
        split, before = earlier.pictures.setdefault(sample.digest, (name, sample))
        if before.where == sample.where or (split == name and before.id == sample.id):
            continue  # the sample itself, or a repeated id, which is reported as such
        what = f"the same picture as {before.id} in {split} ({before.where})"
        if split != name:
            remedy = "remove one of them: metrics would be biased"
            in_two.append(Problem(name, sample.where, "picture in two splits", what, remedy))
        else:
            twice.append(Problem(name, sample.where, "picture twice", what, "keep both only if that is intended"))
    return in_two, twice


def _list_conversions(name: str, facts: Sequence[SampleFacts]) -> Iterator[Problem]:
    """Yield one note per kind of images whose bands are changed."""
    by_conversion: dict[str, list[str]] = {}
    for sample in facts:
        if sample.conversion is not None:
            by_conversion.setdefault(sample.conversion, []).append(sample.where)
    for conversion, where in by_conversion.items():
        what = count_conversions(len(where), conversion)
        yield Problem(name, where[0], "converted images", what, _suggest_channels(conversion))


def _list_non_finite(name: str, facts: Sequence[SampleFacts]) -> Iterator[Problem]:
    """Yield one note about images with pixels that are NaN or infinite."""
    found = [sample for sample in facts if sample.non_finite]
    if found:
        pixels = sum(sample.non_finite for sample in found)
        what = f"NaN or infinite: {format_count(pixels, 'pixel')} in {format_count(len(found), 'image')}; {NON_FINITE}"
        remedy = "ignore these pixels in the masks, or fill them, unless this is intended"
        yield Problem(name, found[0].where, "non-finite pixels", what, remedy)


def _list_blank(name: str, facts: Sequence[SampleFacts]) -> Iterator[Problem]:
    """Yield one note about images of one color, which are not compared with each other."""
    found = [sample for sample in facts if sample.is_blank]
    if found:
        what = f"all pixels have the same color in {format_count(len(found), 'image')}"
        remedy = "nothing, if areas without data are intended; otherwise remove these images"
        yield Problem(name, found[0].where, "blank images", what, remedy)


def _list_shared_masks(name: str, facts: Sequence[SampleFacts], images: ImagesByMask) -> Iterator[Problem]:
    """Yield one note about masks of several images, and add the images of this split to those of earlier splits."""
    masks = add_images(images, ((sample.where, sample.mask) for sample in facts if sample.mask is not None))
    what = describe_shared_masks({mask: images[mask] for mask in masks})
    if what is not None:
        yield Problem(name, next(mask for mask in masks if len(images[mask]) > 1), "shared mask", what, SHARED_REMEDY)


def add_images(images: ImagesByMask, pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Add images to those of their masks.

    Args:
        images: images by mask, to which the pairs are added.
        pairs: files of images and their masks.

    Returns:
        The masks of the pairs, each once.
    """
    masks: dict[str, None] = {}
    for image, mask in pairs:
        images.setdefault(mask, {})[image] = None
        masks[mask] = None
    return [*masks]


def describe_shared_masks(images: ImagesByMask) -> str | None:
    """Describe masks of several images, as a copied line in a list of pairs gives them; None if there are none.

    Args:
        images: images by mask.
    """
    shared = {mask: [*found] for mask, found in images.items() if len(found) > 1}
    if not shared:
        return None
    mask, found = next(iter(shared.items()))
    return (
        f"{format_count(len(shared), 'mask')} of several images, such as {mask} of {len(found)} images: "
        f"{list_some(found, SHOWN)}"
    )


def _suggest_channels(conversion: str) -> str:
    if " 4 bands" in conversion:
        return "in a dataset of type folder, 'channels: 4' uses all four bands"
    if " 1 band " in conversion:
        return "if all images of a dataset of type folder are gray, 'channels: 1' saves memory"
    return "nothing if this is intended"
