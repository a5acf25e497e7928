"""Transforms of one's own: reproducible batches, adapters of libraries, checks of their results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from fcnlab.data.augmentation import Augmentation
from fcnlab.data.batches import TrainingBatches
from fcnlab.data.datasets.base import Sample, Split
from fcnlab.data.decoded import DecodedSplit
from fcnlab.data.sample_transform import SampleTransform
from fcnlab.data.transforms import AlbumentationsTransform, Pixels, TorchvisionTransform, Transform
from fcnlab.errors import ConfigError, DataError
from fcnlab.kernels.inputs import DecodedSample
from fcnlab.lab import Lab
from fcnlab.runner.checks.trials import check_trials
from fcnlab.runner.plan import make_plan
from fcnlab.trial.environment import TRANSFORM_PACKAGES
from fcnlab.trial.run import run_trial
from tests.conftest import write_grid
from tests.gpu.fake import CUDA, fake_cuda

CROP = Augmentation((24, 20), (0.8, 1.2), 0.5, (124, 116, 104))


class Scenes(Split):
    """Random images; labels 0 to 2 and ignored pixels."""

    def __init__(self, count: int = 9, channels: int = 3) -> None:
        self.ids = tuple(f"scene{index}" for index in range(count))
        self._channels = channels

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        label = rng.choice(np.array([0, 1, 2, 255], dtype=np.uint8), (24, 32))
        return Sample(self.ids[index], rng.integers(0, 256, (24, 32, self._channels), dtype=np.uint8), label)


class Shift(Transform):
    """Moves image and mask by a random number of columns, and changes its arguments in place."""

    def __call__(self, image: Pixels, mask: Pixels, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
        columns = int(rng.integers(1, 31))
        image[:] = np.roll(image, columns, axis=1)
        mask[:] = np.roll(mask, columns, axis=1)
        return image, mask


def torchvision_pipeline() -> Transform:
    fill = {tv_tensors.Image: 0, tv_tensors.Mask: 255}
    return TorchvisionTransform(v2.Compose([v2.RandomPerspective(0.5, p=0.8, fill=fill), v2.RandomPosterize(3)]))


def albumentations_pipeline() -> Transform:
    library = pytest.importorskip("albumentations", reason="albumentations is not installed")
    steps = [
        library.OneOf([library.GaussNoise(), library.MotionBlur()], p=0.7),
        library.Affine(rotate=30, fill_mask=255),
    ]
    return AlbumentationsTransform(library.Compose(steps))


def batches(transform: Transform | None, seed: int = 0, part: slice = slice(None)) -> TrainingBatches:
    return TrainingBatches(
        DecodedSplit(Scenes()), batch_size=4, augmentation=CROP, mean=(0.5,) * 3, std=(0.2,) * 3, seed=seed,
        device=torch.device("cpu"), batch_slice=part,
        transform=SampleTransform("own", transform, 3) if transform is not None else None,
    )  # fmt: skip


def epoch_of(source: TrainingBatches, epoch: int) -> tuple[Tensor, Tensor]:
    """The images and labels of an epoch."""
    copied = [(images.clone(), labels.clone()) for images, labels in source.epoch(epoch)]
    return torch.stack([images for images, _ in copied]), torch.stack([labels for _, labels in copied])


def equal(one: tuple[Tensor, Tensor], two: tuple[Tensor, Tensor]) -> bool:
    return torch.equal(one[0], two[0]) and torch.equal(one[1], two[1])


@pytest.mark.parametrize("create", [Shift, torchvision_pipeline, albumentations_pipeline])
def test_batches_depend_only_on_seed_epoch_and_sample(create: Callable[[], Transform]) -> None:
    first = batches(create())
    before = torch.get_rng_state()
    epochs = [epoch_of(first, epoch) for epoch in (0, 1, 2)]
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(7)
    np.random.seed(7)
    resumed = batches(create())
    assert equal(epoch_of(resumed, 2), epochs[2])
    assert equal(epoch_of(first, 0), epochs[0])  # decoded samples have not been changed
    assert not torch.equal(epochs[1][0], epochs[0][0])
    assert not equal(epoch_of(batches(create(), seed=1), 0), epochs[0])
    ranks = [epoch_of(batches(create(), part=part), 1) for part in (slice(0, 2), slice(2, 4))]
    assert equal((torch.cat([r[0] for r in ranks], dim=1), torch.cat([r[1] for r in ranks], dim=1)), epochs[1])


def test_the_recipes_augmentation_follows_with_the_same_random_numbers() -> None:
    class Unchanged(Transform):
        def __call__(self, image: Pixels, mask: Pixels, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
            rng.random(100)
            return image, mask

    assert equal(epoch_of(batches(Unchanged()), 0), epoch_of(batches(None), 0))


@pytest.mark.parametrize("channels", [1, 4])
def test_images_of_other_numbers_of_channels_are_transformed(channels: int) -> None:
    sample = DecodedSplit(Scenes(1, channels))[0]
    assert not torch.equal(SampleTransform("own", Shift(), 3)(sample, 0, 0, 0).image, sample.image)
    assert SampleTransform("own", torchvision_pipeline(), 3)(sample, 0, 0, 0).image.shape == (channels, 24, 32)


@dataclass(frozen=True)
class Unchecked(SampleTransform):
    """Returns samples unchanged, because symbolic tensors have no values."""

    def __call__(self, sample: DecodedSample, seed: int, epoch: int, index: int) -> DecodedSample:
        return sample


def test_on_a_gpu_samples_stay_on_the_host_and_batches_are_copied_without_waiting() -> None:
    split = DecodedSplit(Scenes())
    assert split[0].image.device.type == "cpu"
    for index in range(9):
        split[index]
    with fake_cuda() as watch:
        with watch.build():
            source = TrainingBatches(
                split, batch_size=4, augmentation=CROP, mean=(0.5,) * 3, std=(0.2,) * 3, seed=0, device=CUDA,
                transform=Unchecked("own", Shift(), 3),
            )  # fmt: skip
        produced = list(source.epoch(0))
    found = [(images.device, images.shape, labels.device) for images, labels in produced]
    assert found == [(CUDA, (4, 3, 24, 20), CUDA)] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda image, mask: image, r"returned ndarray; return a tuple of image and mask"),
        (lambda image, mask: (image / 255, mask), r"the image is numpy.ndarray of float64, not .* normalization"),
        (lambda image, mask: (torch.tensor(image), mask), r"the image is torch.Tensor of torch.uint8, not a NumPy"),
        (lambda image, mask: (image[..., 0], mask), r"the image has the shape \[24, 32\], not \[height, width, 3\]"),
        (lambda image, mask: (image[:0], mask[:0]), r"the image has the shape \[0, 32, 3\]"),
        (lambda image, mask: (image, mask / 1), r"the mask is numpy.ndarray of float64, not a NumPy array of integers"),
        (lambda image, mask: (image[2:], mask), r"the mask has the shape \[24, 32\], and the image \[22, 32, 3\]"),
        (lambda image, mask: (image, mask // 2), r"the mask contains 127, which is neither a label \(0 to 2\) nor 255"),
        (lambda image, mask: (image, mask * -1), r"the mask contains -\d+, which is neither"),
    ],
)  # fmt: skip
def test_an_invalid_result_is_one_line(change: Callable[[Pixels, Pixels], Any], message: str) -> None:
    class Invalid(Transform):
        def __call__(self, image: Pixels, mask: Pixels, rng: np.random.Generator) -> Any:
            return change(image, mask.astype(np.int64))

    with pytest.raises(DataError, match=rf"recipe\.transform: own: {message}") as caught:
        SampleTransform("own", Invalid(), 3)(DecodedSplit(Scenes())[0], 0, 0, 0)
    assert "\n" not in str(caught.value)


def test_masks_of_wider_integers_are_accepted() -> None:
    class Wide(Transform):
        def __call__(self, image: Pixels, mask: Pixels, rng: np.random.Generator) -> Any:
            return image[:, ::-1], mask.astype(np.int64)

    sample = DecodedSplit(Scenes())[0]
    made = SampleTransform("own", Wide(), 3)(sample, 0, 0, 0)
    assert made.label.dtype == torch.uint8 and torch.equal(made.label, sample.label)
    assert torch.equal(made.image, sample.image.flip(-1))


def test_a_pipeline_that_cannot_be_seeded_is_refused() -> None:
    with pytest.raises(TypeError, match="has no set_random_seed; use albumentations 2"):
        AlbumentationsTransform(lambda **sample: sample)


# --- in a lab --------------------------------------------------------------------------------------------------------

OWN = """
import random
import numpy as np
from fcnlab.data.transforms import Transform


class Own(Transform):
    seen = []

    def __init__(self, *, mode: str = "flip") -> None:
        self._mode = mode

    def __call__(self, image, mask, rng):
        self.seen.append(image.tobytes())
        if self._mode == "global":
            image[:] = random.randrange(256)
        if self._mode == "fails":
            raise KeyError("sky")
        if self._mode == "small":
            return image[:32, :48], mask[:32, :48]
        if self._mode == "fill":
            mask[:4] = 5
        if self._mode == "invalid":
            mask[:] = 200
        return image[:, ::-1], mask[:, ::-1]
"""


@pytest.fixture
def own(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A lab with a transform, which is allowed to run."""
    monkeypatch.setenv("FCNLAB_ALLOW_EXTENSIONS", "1")
    for name, text in {"registry/extensions.yaml": "transforms: {own: own.py:Own}", "own.py": OWN}.items():
        (lab.root / name).parent.mkdir(exist_ok=True)
        (lab.root / name).write_text(text)
    return lab


def grid_with(lab: Lab, values: str) -> Path:
    return write_grid(
        lab.root,
        "question: Does it help?\n"
        "base: {backbone: tiny-scratch, head: fcn32s, dataset: shapes-mini, recipe: smoke}\n"
        f"product: {{recipe.transform: {values}}}\n",
    )


def check(lab: Lab, mode: str) -> list[str]:
    """Return the warnings of a plan with the transform."""
    file = grid_with(lab, f"[{{type: own, options: {{mode: {mode}}}}}]")
    return check_trials(make_plan(lab.load_grid(file), lab).remaining, lab, file)


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("global", r"returns different results for the same random generator; use only the argument 'rng'"),
        ("fails", r"raises KeyError: 'sky' \(image '\w+' of train\)"),
        ("invalid", r"the mask contains 200, which is neither a label .* \(image '\w+' of train\)"),
    ],
)
def test_a_plan_refuses_a_transform_that_does_not_work(own: Lab, mode: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"question\.yaml: cell '.*': recipe\.transform: own: {message}") as caught:
        check(own, mode)
    assert "\n" not in str(caught.value)


def test_a_plan_warns_of_new_labels_and_small_images_also_from_its_cache(own: Lab) -> None:
    for _ in range(2):
        (line,) = check(own, "small")
        assert line == "recipe.transform: own: returns images of at most 32x48, which are padded to recipe.crop, 64x64"
        (line,) = check(own, "fill")
        assert line.startswith("recipe.transform: own: adds pixels of class 5 (") and "fill masks with 255" in line
    assert check(own, "flip") == []


def test_an_axis_with_and_without_a_transform_trains_and_evaluates_original_images(own: Lab) -> None:
    file = grid_with(own, "[null, {type: own}]")
    plain, transformed = (planned.trial for planned in make_plan(own.load_grid(file), own).trials)
    assert plain.extensions == {} and transformed.extensions.keys() == {"transform"}
    assert "transform" not in plain.identity()["recipe"]
    kind: Any = own.extensions.load("transform", "own", Transform)
    kind.seen.clear()
    records = [run_trial(trial, own) for trial in (plain, transformed)]
    assert all(record is not None and record.failure is None for record in records)
    assert records[0].epochs[0].loss != records[1].epochs[0].loss
    recorded = [record.environment.versions for record in records]
    installed = [name for name in TRANSFORM_PACKAGES if any(metadata.distributions(name=name))]
    assert list(recorded[1]) == [*recorded[0], *installed]
    split = own.open_dataset(plain.dataset).split("train")
    assert len(kind.seen) == 2 * len(split)
    assert set(kind.seen) == {split[index].image.tobytes() for index in range(len(split))}
