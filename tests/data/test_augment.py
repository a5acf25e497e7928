"""Scale, crop, flip and rotation: properties for images and crops of any size. Jitter and blur: as in torchvision."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import v2

from fcnlab.config.augmentation import ColorJitter, GaussianBlur
from fcnlab.constants import IGNORE_INDEX
from fcnlab.data.augmentation import Augmentation, jitter_colors
from fcnlab.data.windows import resize_image, resize_label
from fcnlab.kernels.inputs import AugmentationParams, DecodedSample, Window

F = v2.functional
FILL = (201, 202, 203)
NO_JITTER = ColorJitter()
quickly = settings(max_examples=60, deadline=None)
extents = st.integers(1, 80)
sizes = st.tuples(extents, extents)
seeds = st.integers(0, 2**32)


def coded(height: int, width: int) -> DecodedSample:
    """Make an image of very different pixels that encode the label: channel c is label + c, below the fill."""
    label = (torch.arange(height * width) % 190).reshape(height, width).to(torch.uint8)
    return DecodedSample(torch.stack([label, label + 1, label + 2]), label)


def augmented(
    sample: DecodedSample,
    crop: tuple[int, int],
    scale: tuple[float, float] | None = None,
    flip: float = 0.0,
    seed: int = 0,
    jitter: ColorJitter = NO_JITTER,
) -> DecodedSample:
    return Augmentation(crop, scale, flip, FILL, jitter)(sample, np.random.default_rng(seed))


@quickly
@given(size=sizes, crop=sizes, low=st.floats(0.1, 3), wider=st.floats(1, 4), flip=st.floats(0, 1), seed=seeds)
def test_the_result_always_has_the_size_of_the_crop(
    size: tuple[int, int], crop: tuple[int, int], low: float, wider: float, flip: float, seed: int
) -> None:
    assume(low * max(size) >= 1.6)  # torch fails to resize to a single pixel
    done = augmented(coded(*size), crop, (low, low * wider), flip, seed)
    assert done.image.shape == (3, *crop) and done.label.shape == crop
    assert done.image.dtype == done.label.dtype == torch.uint8


@quickly
@given(size=sizes, crop=sizes, flip=st.sampled_from([0.0, 0.5, 1.0]), seed=seeds)
def test_image_and_label_get_the_same_crop_and_padding_is_fill_and_ignored(
    size: tuple[int, int], crop: tuple[int, int], flip: float, seed: int
) -> None:
    done = augmented(coded(*size), crop, None, flip, seed)
    padded = done.label == IGNORE_INDEX
    for channel in range(3):
        expected = torch.where(padded, FILL[channel], done.label.int() + channel)
        assert torch.equal(done.image[channel].int(), expected)
    assert int((~padded).sum()) == min(size[0], crop[0]) * min(size[1], crop[1])


@quickly
@given(size=sizes, more=st.tuples(st.integers(0, 20), st.integers(0, 20)), flip=st.sampled_from([0.0, 1.0]), seed=seeds)
def test_an_image_that_fits_the_crop_is_kept_completely(
    size: tuple[int, int], more: tuple[int, int], flip: float, seed: int
) -> None:
    sample = coded(*size)
    done = augmented(sample, (size[0] + more[0], size[1] + more[1]), None, flip, seed)
    inside = done.label != IGNORE_INDEX
    width = size[1]
    window = done.label[inside].reshape(size)
    assert torch.equal(window.flip(-1) if flip else window, sample.label)
    assert inside[: size[0], (-width if flip else 0) :][:, :width].all()  # padding is right and below, then flipped


@quickly
@given(size=sizes, crop=sizes, seed=seeds)
def test_an_unscaled_crop_is_a_window_of_the_image(size: tuple[int, int], crop: tuple[int, int], seed: int) -> None:
    y, x = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    sample = DecodedSample(torch.stack([y, x, x]).to(torch.uint8), torch.zeros(size, dtype=torch.uint8))
    done = augmented(sample, crop, None, 0.0, seed)
    rows, columns = done.image[0][done.label == 0].unique(), done.image[1][done.label == 0].unique()
    assert torch.equal(rows, torch.arange(int(rows[0]), int(rows[0]) + len(rows), dtype=torch.uint8))
    assert torch.equal(columns, torch.arange(int(columns[0]), int(columns[0]) + len(columns), dtype=torch.uint8))


@quickly
@given(size=sizes, factor=st.floats(0.2, 2.5))
def test_a_scale_resizes_by_its_factor(size: tuple[int, int], factor: float) -> None:
    assume(factor * max(size) >= 1.6)  # torch fails to resize to a single pixel
    done = augmented(coded(*size), (220, 220), (factor, factor))
    inside = done.label != IGNORE_INDEX
    expected = [max(1, round(factor * extent)) for extent in size]
    assert [int(inside.any(1).sum()), int(inside.any(0).sum())] == expected


@quickly
@given(factor=st.floats(0.4, 2.5), flip=st.sampled_from([0.0, 1.0]), seed=seeds)
def test_the_outlines_of_image_and_label_agree_after_scaling(factor: float, flip: float, seed: int) -> None:
    label = torch.zeros(40, 60, dtype=torch.uint8)
    label[:, 25:] = 1
    done = augmented(DecodedSample((label * 200).repeat(3, 1, 1), label), (24, 32), (factor, factor), flip, seed)
    counted = done.label != IGNORE_INDEX
    wrong = ((done.image[0] > 100) != (done.label == 1)) & counted
    assert int(wrong.sum(1).max()) <= 1  # bilinear and nearest may part by a pixel at the edge


def test_scale_is_sampled_within_its_range() -> None:
    areas = set()
    for seed in range(40):
        inside = augmented(coded(40, 40), (90, 90), (0.5, 2.0), seed=seed).label != IGNORE_INDEX
        areas.add(int(inside.any(1).sum()))
    assert min(areas) >= 20 and max(areas) <= 80
    assert min(areas) < 30 and max(areas) > 55 and len(areas) > 15


def test_every_window_of_the_image_can_be_the_crop() -> None:
    sample = coded(6, 7)
    corners = {int(augmented(sample, (4, 4), seed=seed).label[0, 0]) for seed in range(300)}
    assert corners == {7 * y + x for y in range(3) for x in range(4)}


@pytest.mark.parametrize(("flip", "low", "high"), [(0.0, 0, 0), (0.25, 30, 70), (1.0, 200, 200)])
def test_the_share_of_flips_is_the_probability(flip: float, low: int, high: int) -> None:
    sample = coded(1, 2)
    flips = sum(int(augmented(sample, (1, 2), flip=flip, seed=seed).label[0, 0]) for seed in range(200))
    assert low <= flips <= high


@quickly
@given(size=sizes, seed=seeds)
def test_a_crop_of_the_images_size_without_scale_and_flip_is_the_image(size: tuple[int, int], seed: int) -> None:
    sample = coded(*size)
    done = augmented(sample, size, seed=seed)
    assert torch.equal(done.image, sample.image) and torch.equal(done.label, sample.label)


@quickly
@given(size=sizes, crop=sizes, seed=seeds)
def test_same_random_numbers_give_the_same_result_and_keep_the_sample(
    size: tuple[int, int], crop: tuple[int, int], seed: int
) -> None:
    assume(max(size) >= 4)  # torch fails to resize to a single pixel
    sample = coded(*size)
    one, two = (augmented(sample, crop, (0.5, 2.0), 0.5, seed) for _ in range(2))
    assert torch.equal(one.image, two.image) and torch.equal(one.label, two.label)
    assert torch.equal(sample.label, coded(*size).label) and torch.equal(sample.image, coded(*size).image)


@quickly
@given(size=sizes, seed=seeds)
def test_flips_do_not_change_the_crop(size: tuple[int, int], seed: int) -> None:
    plain, flipped = (augmented(coded(*size), (16, 16), None, flip, seed) for flip in (0.0, 1.0))
    assert torch.equal(plain.label, flipped.label.flip(-1)) and torch.equal(plain.image, flipped.image.flip(-1))


def colorful(height: int = 12, width: int = 17, seed: int = 0) -> DecodedSample:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
    return DecodedSample(image, coded(height, width).label)


STRONG = ColorJitter(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.2)
fractions = st.sampled_from([0.0, 0.1, 0.5, 1.0])
jitters = st.builds(
    ColorJitter,
    brightness=fractions,
    contrast=fractions,
    saturation=fractions,
    hue=st.sampled_from([0.0, 0.1, 0.5]),
)


@quickly
@given(jitter=jitters, draws=st.lists(st.floats(0, 1), min_size=4, max_size=4), seed=st.integers(0, 9))
def test_jitter_equals_that_of_torchvision_in_a_fixed_order(jitter: ColorJitter, draws: list[float], seed: int) -> None:
    image = colorful(seed=seed).image
    theirs = v2.ColorJitter(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
    names = ("brightness", "contrast", "saturation", "hue")
    bounds = {name: getattr(theirs, name) for name in names}
    factors = {
        f"{name}_factor": None if span is None else span[0] + draw * (span[1] - span[0])
        for (name, span), draw in zip(bounds.items(), draws, strict=True)
    }
    expected = theirs.transform(image, {"fn_idx": range(4), **factors})
    found = jitter_colors(image, jitter, np.array(draws))
    assert found.dtype == torch.uint8
    assert int((found.int() - expected.int()).abs().max()) <= 1  # a rounding of the factors


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_each_jitter_uses_its_own_random_number(name: str) -> None:
    sample, results = colorful(), set()
    for seed in range(20):
        done = augmented(sample, (12, 17), seed=seed, jitter=ColorJitter(**{name: 0.3}))
        results.add(done.image.numpy().tobytes())
        assert torch.equal(done.label, sample.label)
    assert len(results) == 20
    assert sample.image.numpy().tobytes() not in results
    assert torch.equal(sample.image, colorful().image)


@quickly
@given(size=sizes, crop=sizes, flip=st.sampled_from([0.0, 0.5, 1.0]), seed=seeds, scaled=st.booleans(), jitter=jitters)
def test_jitter_does_not_change_the_crop(
    size: tuple[int, int], crop: tuple[int, int], flip: float, seed: int, scaled: bool, jitter: ColorJitter
) -> None:
    assume(max(size) >= 4)  # torch fails to resize to a single pixel
    scale = (0.5, 2.0) if scaled else None
    sample = colorful(*size)
    done = augmented(sample, crop, scale, flip, seed, jitter)
    # What jitter does, it does to the whole image and before all else, by the last four of eight draws.
    before = DecodedSample(jitter_colors(sample.image, jitter, np.random.default_rng(seed).random(8)[4:]), sample.label)
    expected = augmented(before, crop, scale, flip, seed)
    assert torch.equal(done.image, expected.image)
    assert torch.equal(done.label, augmented(sample, crop, scale, flip, seed).label)
    assert done.image.dtype == done.label.dtype == torch.uint8


@quickly
@given(size=sizes, crop=sizes, seed=seeds)
def test_zero_jitter_keeps_the_image(size: tuple[int, int], crop: tuple[int, int], seed: int) -> None:
    assume(max(size) >= 4)  # torch fails to resize to a single pixel
    sample = colorful(*size)
    rng = np.random.default_rng(seed)
    plain = Augmentation(crop, (0.5, 2.0), 0.5, FILL)(sample, rng)
    none = augmented(
        sample, crop, (0.5, 2.0), 0.5, seed, ColorJitter(brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0)
    )
    assert torch.equal(plain.image, none.image) and torch.equal(plain.label, none.label)


def test_jitter_does_not_change_the_padding() -> None:
    for seed in range(10):
        done = augmented(colorful(), (20, 20), seed=seed, jitter=STRONG)
        assert {tuple(pixel) for pixel in done.image[:, done.label == IGNORE_INDEX].T.tolist()} == {FILL}


def test_jitter_depends_only_on_the_random_numbers() -> None:
    one, two = (augmented(colorful(), (8, 8), (0.5, 2), 0.5, 3, STRONG) for _ in range(2))
    assert torch.equal(one.image, two.image)
    torch.manual_seed(1)
    assert torch.equal(one.image, augmented(colorful(), (8, 8), (0.5, 2), 0.5, 3, STRONG).image)


plenty = st.integers(4, 90)
placed = st.tuples(plenty, plenty)
scales = st.none() | st.floats(0.3, 2.6).map(lambda factor: (factor, factor))


def reference(
    sample: DecodedSample, crop: tuple[int, int], params: AugmentationParams, jitter: ColorJitter
) -> DecodedSample:
    """Apply torchvision's operators one after another to the whole image, and crop at the end."""
    image, label = (
        jitter_colors(sample.image, jitter, params.color_draws).contiguous(),
        sample.label[None].contiguous(),
    )
    if params.size != tuple(sample.label.shape):
        image = F.resize(image, list(params.size), F.InterpolationMode.BILINEAR, antialias=True)
        label = F.resize(label, list(params.size), F.InterpolationMode.NEAREST_EXACT)
    if params.degrees:
        image = F.rotate(image, params.degrees, F.InterpolationMode.BILINEAR, fill=list(map(float, FILL)))
        label = F.rotate(label, params.degrees, F.InterpolationMode.NEAREST, fill=[float(IGNORE_INDEX)])
    window = params.window
    place = (window.top, window.left, window.height, window.width)
    image, label = F.crop(image, *place), F.crop(label, *place)
    padding = [0, 0, crop[1] - window.width, crop[0] - window.height]
    image, label = F.pad(image, padding, fill=list(map(float, FILL))), F.pad(label, padding, fill=IGNORE_INDEX)
    if params.flip:
        image, label = F.horizontal_flip(image), F.horizontal_flip(label)
    return DecodedSample(image, label[0])


@quickly
@given(size=placed, crop=placed, scale=scales, flip=st.sampled_from([0.0, 1.0]), seed=seeds, jitter=jitters)
def test_the_result_equals_that_of_torchvision_on_the_whole_image(
    size: tuple[int, int],
    crop: tuple[int, int],
    scale: tuple[float, float] | None,
    flip: float,
    seed: int,
    jitter: ColorJitter,
) -> None:
    sample = colorful(*size)
    augmentation = Augmentation(crop, scale, flip, FILL, jitter)
    params = augmentation.sample_params_for_label(sample.label, np.random.default_rng(seed))
    done, expected = augmentation(sample, np.random.default_rng(seed)), reference(sample, crop, params, jitter)
    assert torch.equal(done.label, expected.label)
    assert int((done.image.int() - expected.image.int()).abs().max()) <= 1


@quickly
@given(size=placed, crop=placed, scale=scales, flip=st.sampled_from([0.0, 1.0]), seed=seeds, most=st.floats(0.5, 180))
def test_a_rotation_equals_that_of_torchvision_on_the_whole_image(
    size: tuple[int, int],
    crop: tuple[int, int],
    scale: tuple[float, float] | None,
    flip: float,
    seed: int,
    most: float,
) -> None:
    sample = smooth(*size)
    augmentation = Augmentation(crop, scale, flip, FILL, rotate=most)
    params = augmentation.sample_params_for_label(sample.label, np.random.default_rng(seed))
    assert abs(params.degrees) <= most
    assume(params.size != (1, 1))  # torch's own resize of a small channels-last image to one pixel asserts
    done, expected = augmentation(sample, np.random.default_rng(seed)), reference(sample, crop, params, NO_JITTER)
    # A pixel whose place falls between two others, or on the border, may go either way in float32.
    assert int((done.label != expected.label).sum()) <= 0.01 * done.label.numel() + 1
    assert int(((done.image.int() - expected.image.int()).abs().amax(0) > 1).sum()) <= 0.01 * done.label.numel() + 1


def smooth(height: int, width: int) -> DecodedSample:
    y, x = torch.arange(height)[:, None], torch.arange(width)
    label = (y // 7 + x // 5) % 9
    planes = [(2 * y + 0 * x) % 251, (0 * y + 2 * x) % 251, label * 20]
    return DecodedSample(torch.stack(planes).to(torch.uint8), label.to(torch.uint8))


@pytest.mark.parametrize("seed", range(12))
def test_image_and_label_get_the_same_rotation(seed: int) -> None:
    label = torch.zeros(50, 60, dtype=torch.uint8)
    label[15:30, 20:45] = 1
    augmentation = Augmentation((48, 48), (0.7, 1.4), 0.5, FILL, rotate=40)
    done = augmentation(DecodedSample((label * 200).repeat(3, 1, 1), label), np.random.default_rng(seed))
    inner = torch.nn.functional.max_pool2d((done.label == IGNORE_INDEX).float()[None], 3, 1, 1)[0] == 0
    wrong = ((done.image[0] > 100) != (done.label == 1)) & inner
    assert int(wrong.sum()) <= 0.02 * wrong.numel()
    assert int((done.label == 1).sum()) > 50


@quickly
@given(size=placed, crop=placed, seed=seeds)
def test_new_steps_keep_the_random_numbers_of_older_steps(
    size: tuple[int, int], crop: tuple[int, int], seed: int
) -> None:
    label = colorful(*size).label
    plain = Augmentation(crop, (0.5, 2.0), 0.5, FILL).sample_params_for_label(label, np.random.default_rng(seed))
    factor, top, left, mirror, *colors = np.random.default_rng(seed).random(8)
    assert plain.size == tuple(max(1, round(0.5 * 4**factor * extent)) for extent in size)
    room = [max(0, extent - edge) for extent, edge in zip(plain.size, crop, strict=True)]
    assert (plain.window.top, plain.window.left) == (int(top * (room[0] + 1)), int(left * (room[1] + 1)))
    assert plain.flip == (mirror < 0.5) and list(plain.color_draws) == colors
    more = Augmentation(crop, (0.5, 2.0), 0.5, FILL, STRONG, None, 30.0, GaussianBlur(probability=1.0))
    found = more.sample_params_for_label(label, np.random.default_rng(seed))
    assert (found.size, found.window, found.flip) == (plain.size, plain.window, plain.flip)
    assert list(found.color_draws) == colors


@quickly
@given(ratio=st.floats(0.3, 0.95), degrees=st.sampled_from([0.0, 20.0]), seed=seeds)
def test_the_first_crop_of_ten_without_a_class_above_the_ratio_is_taken(
    ratio: float, degrees: float, seed: int
) -> None:
    sample = smooth(40, 50)
    sample.label[:, :30] = 3
    sample.label[5:12] = IGNORE_INDEX
    augmentation = Augmentation((12, 12), (0.8, 1.6), 0.0, FILL, cat_max_ratio=ratio, rotate=degrees)
    first = Augmentation((12, 12), (0.8, 1.6), 0.0, FILL, rotate=degrees)
    rng = np.random.default_rng(seed)
    expected = first.sample_params_for_label(sample.label, rng)
    tries = 0
    while tries < 10 and share(labels_at(sample, expected)) > ratio:
        top, left = rng.random(2)
        room = [max(0, extent - 12) for extent in expected.size]
        window = Window(int(top * (room[0] + 1)), int(left * (room[1] + 1)), 12, 12)
        expected, tries = replace(expected, window=window), tries + 1
    found = augmentation.sample_params_for_label(sample.label, np.random.default_rng(seed))
    assert found.window == expected.window
    done = augmentation(sample, np.random.default_rng(seed))
    assert tries == 10 or share(done.label) <= ratio


def labels_at(sample: DecodedSample, params: AugmentationParams) -> Tensor:
    """The labels of a crop of 12 x 12 at this params."""
    image, label = torch.empty(3, 12, 12, dtype=torch.uint8), torch.empty(12, 12, dtype=torch.uint8)
    Augmentation((12, 12), None, 0.0, FILL).write(sample, params, image, label)
    return label


def share(label: Tensor) -> float:
    counted = label[label != IGNORE_INDEX].flatten().tolist()
    return max(map(counted.count, set(counted))) / len(counted) if counted else 1.0


@pytest.mark.parametrize("void", [True, False])
def test_last_crop_is_accepted_if_none_is_below_the_ratio(void: bool) -> None:
    label = torch.full((30, 30), IGNORE_INDEX if void else 4, dtype=torch.uint8)
    sample = DecodedSample(colorful(30, 30).image, label)
    done = Augmentation((8, 8), None, 0.5, FILL, cat_max_ratio=0.75)(sample, np.random.default_rng(1))
    assert torch.equal(done.label, label[:8, :8])


@quickly
@given(size=placed, sigma=st.floats(0.1, 4), seed=seeds)
def test_a_blur_equals_that_of_torchvision_on_the_crop(size: tuple[int, int], sigma: float, seed: int) -> None:
    assume(min(size) > 3 * math.ceil(sigma) + 1)
    sample = colorful(*size)
    done = Augmentation(size, None, 0.0, FILL, blur=GaussianBlur(probability=1.0, sigma=(sigma, sigma)))(
        sample, np.random.default_rng(seed)
    )
    extent = 2 * math.ceil(3 * sigma) + 1
    expected = F.gaussian_blur(sample.image, [extent, extent], [sigma, sigma])
    assert int((done.image.int() - expected.int()).abs().max()) <= 1
    assert torch.equal(done.label, sample.label)


@quickly
@given(size=sizes, crop=sizes, seed=seeds)
def test_images_of_any_size_are_blurred_and_padding_is_not(
    size: tuple[int, int], crop: tuple[int, int], seed: int
) -> None:
    augmentation = Augmentation(crop, None, 0.5, FILL, blur=GaussianBlur(probability=1.0, sigma=(2.0, 2.0)))
    done = augmentation(colorful(*size), np.random.default_rng(seed))
    assert {tuple(pixel) for pixel in done.image[:, done.label == IGNORE_INDEX].T.tolist()} <= {FILL}


def test_the_share_of_blurs_is_the_probability_and_sigmas_fill_the_range() -> None:
    augmentation = Augmentation((4, 4), None, 0.0, FILL, blur=GaussianBlur(probability=0.25, sigma=(0.5, 3.0)))
    label = colorful().label
    sigmas = [augmentation.sample_params_for_label(label, np.random.default_rng(seed)).sigma for seed in range(400)]
    sampled = [sigma for sigma in sigmas if sigma is not None]
    assert 70 <= len(sampled) <= 130
    assert 0.5 <= min(sampled) < 0.8 and 2.7 < max(sampled) <= 3.0


def test_a_sample_in_read_only_memory_is_not_changed() -> None:
    source = colorful(40, 50)
    image, label = source.image.clone(), source.label.clone()
    everything = Augmentation((32, 60), (0.5, 2.0), 0.5, FILL, STRONG, 0.5, 20.0, GaussianBlur(probability=1.0))
    for augmentation in (everything, Augmentation((40, 50), None, 0.5, FILL), Augmentation((8, 8), None, 0.5, FILL)):
        for seed in range(6):
            done = augmentation(source, np.random.default_rng(seed))
            done.image.fill_(0)
            done.label.fill_(0)
    assert torch.equal(source.image, image) and torch.equal(source.label, label)


@pytest.mark.parametrize(("size", "target"), [((1, 1), (3, 4)), ((3, 4), (1, 1)), ((1, 7), (1, 1)), ((2, 9), (5, 1))])
def test_a_single_pixel_can_be_resized_from_and_to(size: tuple[int, int], target: tuple[int, int]) -> None:
    sample = colorful(*size)
    window = Window(0, 0, *target)
    assert resize_image(sample.image, target, window).shape == (3, *target)
    assert resize_label(sample.label, target, window).shape == target


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("factor", [0.6, 1.01, 1.5, 1.9375])
def test_a_window_of_any_size_equals_that_of_the_whole_resized_image(axis: int, factor: float) -> None:
    image = colorful(30, 37).image
    size = (round(30 * factor), round(37 * factor))
    whole = F.resize(image, list(size), F.InterpolationMode.BILINEAR, antialias=True)
    for extent in range(1, size[axis] + 1):
        window = Window(0, 3, extent, 11) if axis == 0 else Window(2, 0, 9, extent)
        found = resize_image(image, size, window)
        assert int((found.int() - window.crop(whole).int()).abs().max()) <= 1
