"""Datasets of gray images and of images of four bands: trained, evaluated, predicted and exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

import fcnlab
from fcnlab.config.augmentation import ColorJitter, GaussianBlur
from fcnlab.config.grid.grid import resolve
from fcnlab.data.augmentation import Augmentation
from fcnlab.data.batches import TrainingBatches, augmentation_rng
from fcnlab.data.datasets.base import FileSplit
from fcnlab.data.datasets.image_file import open_image
from fcnlab.data.decoded import DecodedSplit, open_decoded
from fcnlab.data.resident import DeviceSplit
from fcnlab.errors import ConfigError
from fcnlab.inference.export import export
from fcnlab.kernels.inputs import DecodedSample
from fcnlab.lab import Lab
from fcnlab.metrics.confusion import count_areas
from fcnlab.models import TimmBackbone
from fcnlab.models.backbones.base import load_weights
from fcnlab.seeding import derive_seed
from fcnlab.trial.run import run_trial
from fcnlab.trial.run_folder import RunFolder
from tests.conftest import arrays_of, write_grid

COUNT, SIZE = 10, (40, 48)


def write_images(root: Path, bands: int) -> None:
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for number in range(COUNT):
        mask = np.zeros(SIZE, np.uint8)
        mask[8:30, 4 + number : 24 + number] = 1
        image = rng.integers(0, 200, (*SIZE, bands), dtype=np.uint8)
        image[..., -1] //= 2
        image[..., -1] += 100 * mask
        Image.fromarray(image.squeeze()).save(root / f"images/{number}.tif")
        Image.fromarray(mask).save(root / f"masks/{number}.png")


@pytest.fixture(params=[1, 4])
def own(request: pytest.FixtureRequest, tmp_path: Path) -> Lab:
    """A lab with a dataset `bands` of 1 or 4 channels."""
    write_images(tmp_path / "bands", request.param)
    entry = {
        "type": "folder",
        "images": str(tmp_path / "bands/images"),
        "masks": str(tmp_path / "bands/masks"),
        "classes": ["ground", "object"],
        "fractions": {"val": 0.3},
        "channels": request.param,
        "nominal": {"height": SIZE[0], "width": SIZE[1]},
    }
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry/datasets.yaml").write_text(yaml.safe_dump({"bands": entry}), encoding="utf-8")
    torch.set_num_threads(1)
    return Lab.find(root=tmp_path)


def channels(lab: Lab) -> int:
    return lab.registry.get("dataset", "bands").image_channels


def test_a_trial_is_trained_predicted_and_exported(own: Lab, tmp_path: Path) -> None:
    overrides = {"backbone": "tiny-scratch", "head": "fcn8s", "upsampler": "bilinear", "dataset": "bands"}
    overrides |= {"recipe": "smoke", "recipe.precision": "fp32"}
    trial = resolve(overrides, own.registry, "test").trials([0], own.fingerprints)[0]
    record = run_trial(trial, own)
    assert record is not None and record.failure is None, record
    model = fcnlab.load(trial.key, lab=own)
    assert len(model.mean) == channels(own)
    images, split = own.root / "bands", own.open_dataset(trial.dataset).split("val")
    areas = []
    for sample in split:
        predicted = model.predict(open_image(images / f"images/{sample.id}.tif"))
        areas.append(count_areas(torch.tensor(predicted)[None], torch.tensor(sample.label)[None], 2)[0])
    assert np.array_equal(arrays_of(own.runs / trial.key / "counts.npz")["val_last"], torch.stack(areas))
    comparison = export(model, "torch", tmp_path / "model.pt2")
    assert comparison is not None and comparison.max_difference < 1e-4


def test_cache_device_and_decoding_give_the_same_samples(own: Lab) -> None:
    dataset = own.open_dataset(own.registry.get("dataset", "bands"))
    mapped, decoded = open_decoded(dataset, "train"), DecodedSplit(dataset.split("train"))
    resident = DeviceSplit(mapped, torch.device("cpu"), 2**30)
    copied = DeviceSplit(decoded, torch.device("cpu"), 0)
    for index, sample in enumerate(dataset.split("train")):
        for split in (mapped, decoded, resident, copied):
            assert np.array_equal(split[index].image.permute(1, 2, 0), sample.image)
            assert np.array_equal(split[index].label, sample.label)


def test_augmentation_treats_each_channel_like_a_gray_image(own: Lab) -> None:
    dataset = own.open_dataset(own.registry.get("dataset", "bands"))
    split = open_decoded(dataset, "train")
    number = channels(own)
    augmentation = Augmentation(
        (32, 64), (0.6, 1.6), 0.5, (9,) * number, ColorJitter(), None, 20.0, GaussianBlur(probability=0.5)
    )
    batches = TrainingBatches(
        split, batch_size=4, augmentation=augmentation, mean=(0.0,) * number, std=(1 / 255,) * number, seed=0,
        device=torch.device("cpu"),
    )  # fmt: skip
    images, _ = next(batches.epoch(0))
    assert images.shape == (4, number, 32, 64)
    order = np.random.default_rng(derive_seed(0, "order", 0)).permutation(len(split))
    single = Augmentation((32, 64), (0.6, 1.6), 0.5, (9,), ColorJitter(), None, 20.0, GaussianBlur(probability=0.5))
    for position, index in enumerate(order[:4].tolist()):
        for channel in range(number):
            sample = DecodedSample(split[index].image[channel : channel + 1], split[index].label)
            made = single(sample, augmentation_rng(0, 0, index))
            assert torch.equal(images[position, channel], made.image[0].float())


@pytest.mark.parametrize("count", [1, 4])
def test_weights_of_an_rgb_network_are_adapted(tmp_path: Path, count: int) -> None:
    torch.manual_seed(0)
    rgb = TimmBackbone("resnet10t").eval()
    save_file(rgb.body.state_dict(), tmp_path / "rgb.safetensors")
    other = TimmBackbone("resnet10t", in_channels=count).eval()
    load_weights(other, tmp_path / "rgb.safetensors")
    gray = torch.rand(1, 1, 64, 64)
    # The sum of the response over the channels is kept: three for one, and 3/4 of (r, g, b, r) for four.
    for stride, expected in rgb(gray.expand(-1, 3, -1, -1)).items():
        found = other(gray.expand(-1, count, -1, -1))[stride]
        assert count == 4 or torch.allclose(found, expected, atol=1e-4)
    file = {"file": str(tmp_path / "rgb.safetensors")}
    loaded = timm.create_model(
        "resnet10t", pretrained=True, pretrained_cfg_overlay=file, in_chans=count, num_classes=0
    ).state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in other.body.state_dict().items())
    assert len(other.mean) == len(other.std) == count
    assert other.mean[-1] == pytest.approx(sum(rgb.mean) / 3)


def test_a_backbone_of_the_paper_is_refused(own: Lab) -> None:
    grid = write_grid(
        own.root,
        "question: q\nbase: {backbone: vgg16-paper, upsampler: bilinear, head: fcn8s-paper, dataset: bands, "
        "recipe: smoke}\nproduct: {recipe.epochs: [1, 2]}\nseeds: 1\n",
    )
    with pytest.raises(
        ConfigError, match=f"takes images of 3 channels, and dataset bands has 'channels: {channels(own)}'"
    ):
        own.load_grid(grid)


def test_an_invalid_file_of_val_fails_a_trial_before_its_training(own: Lab) -> None:
    overrides = {"backbone": "tiny-scratch", "head": "fcn8s", "dataset": "bands", "recipe": "smoke"}
    trial = resolve(overrides, own.registry, "test").trials([0], own.fingerprints)[0]
    split = own.open_dataset(trial.dataset).split("val")
    assert isinstance(split, FileSplit)
    split.pairs[0].mask.write_bytes(b"no image")
    trial = resolve(overrides, own.registry, "test").trials([0], Lab.find(root=own.root).fingerprints)[0]
    record = run_trial(trial, own)
    assert record is not None and record.failure is not None
    assert record.failure.message.startswith(f"{split.pairs[0].mask}: cannot be decoded")
    assert not RunFolder(own.runs, trial.key).progress.exists()
