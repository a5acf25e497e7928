"""Loaded models: the same predictions as in the evaluation of the trial, from images of any mode."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import fcnlab
from fcnlab import load
from fcnlab.data.datasets.base import Sample
from fcnlab.errors import DataError, ModelError
from fcnlab.inference.images import ImageSource
from fcnlab.inference.load import write_safetensors
from fcnlab.inference.model import TrainedModel
from fcnlab.lab import Lab
from fcnlab.metrics.confusion import count_areas
from fcnlab.training.protocol import Protocol
from fcnlab.trial.find import FinishedTrial
from tests.conftest import REPOSITORY, arrays_of


@pytest.fixture
def model(full_scale: FinishedTrial, lab: Lab) -> TrainedModel:
    return load(full_scale.trial.key, lab=lab)


@pytest.fixture
def sample(full_scale: FinishedTrial, lab: Lab) -> Sample:
    return lab.open_dataset(full_scale.trial.dataset).split("val")[0]


@pytest.mark.parametrize("name", ["full_scale", "half_scale"])
@pytest.mark.parametrize("checkpoint", ["last", "best"])
def test_predictions_have_the_counts_of_the_record(
    name: str, checkpoint: str, lab: Lab, request: pytest.FixtureRequest
) -> None:
    finished: FinishedTrial = request.getfixturevalue(name)
    model = fcnlab.load(finished.trial.key[:12], checkpoint=checkpoint, lab=lab)
    recorded = arrays_of(finished.folder.counts)
    for purpose in ("val", "test"):
        split = lab.open_dataset(finished.trial.dataset).split(purpose)
        counts = [
            count_areas(
                torch.tensor(model.predict(Image.fromarray(sample.image)))[None], torch.tensor(sample.label)[None], 6
            )[0]
            for sample in split
        ]
        assert np.array_equal(np.stack(counts), recorded[f"{purpose}_{checkpoint}"])


@pytest.mark.parametrize("name", ["full_scale", "half_scale"])
def test_labels_are_the_classes_of_maximum_probability(
    name: str, lab: Lab, sample: Sample, request: pytest.FixtureRequest
) -> None:
    model = load(request.getfixturevalue(name).folder.path, lab=lab)
    labels, probabilities = model.predict_both(Image.fromarray(sample.image))
    assert probabilities.dtype == np.float32 and probabilities.shape == (6, *sample.label.shape)
    assert np.allclose(probabilities.sum(0), 1, atol=1e-5)
    chosen = np.take_along_axis(probabilities, labels[None].astype(int), 0)[0]
    assert np.array_equal(chosen, probabilities.max(0))
    assert np.array_equal(model.predict_probabilities(Image.fromarray(sample.image)), probabilities)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("protocol", [Protocol(), Protocol(flip=True)], ids=str)
def test_scores_that_are_not_numbers_are_an_error(
    value: float, protocol: Protocol, model: TrainedModel, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(images: Tensor) -> Tensor:
        return torch.full((len(images), 6, *images.shape[-2:]), value)

    monkeypatch.setattr(model.network, "forward", forward)
    monkeypatch.setattr(model.network, "coarse_scores", forward)
    with pytest.raises(ModelError, match="not numbers"):
        model.predict_probabilities([sample.image], protocol)
    with pytest.raises(ModelError, match="not numbers"):
        model.predict_both(sample.image, protocol)
    if np.isnan(value):
        with pytest.raises(ModelError, match="not numbers"):
            model.predict(sample.image, protocol)


def test_labels_are_predicted_on_the_cpu_without_scores_of_the_size_of_the_image(
    model: TrainedModel, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = TrainedModel(model.network, model.description, torch.device("cpu"))
    probabilities = model.predict_probabilities(sample.image)

    def refuse(images: Tensor) -> Tensor:
        raise AssertionError("scores of the size of the image")

    monkeypatch.setattr(model.network, "forward", refuse)
    labels = model.predict(sample.image)
    chosen = np.take_along_axis(probabilities, labels[None].astype(int), 0)[0]
    assert np.allclose(chosen, probabilities.max(0), atol=1e-5), "only rounding decides otherwise"
    assert np.array_equal(model.predict([sample.image])[0], labels)


def test_model_of_these_tests_predicts_several_classes(model: TrainedModel, sample: Sample) -> None:
    assert (
        len(np.unique(model.predict(Image.fromarray(sample.image)))) > 1
    )  # otherwise many of these tests would pass with any model


def test_model_has_the_metadata_of_its_trial(model: TrainedModel, full_scale: FinishedTrial, lab: Lab) -> None:
    assert model.classes == lab.open_dataset(full_scale.trial.dataset).classes
    assert model.palette.shape == (6, 3) and model.palette[:2].tolist() == [[0, 0, 0], [230, 159, 0]]
    assert (model.mean, model.std) == (model.network.backbone.mean, model.network.backbone.std)
    assert model.description.key == full_scale.trial.key


def test_exported_file_predicts_the_same_without_the_lab(
    half_scale: FinishedTrial, lab: Lab, sample: Sample, tmp_path: Path
) -> None:
    model = load(half_scale.trial.key, lab=lab)
    write_safetensors(model, tmp_path / "model.safetensors")
    other = fcnlab.load(tmp_path / "model.safetensors", lab=Lab(tmp_path / "nowhere"))
    assert other.description == model.description
    image = Image.fromarray(sample.image)
    assert np.array_equal(other.predict_probabilities(image), model.predict_probabilities(image))


def test_weights_without_a_description_are_an_error(full_scale: FinishedTrial, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="contains no model description"):
        load(full_scale.folder.weights)
    with pytest.raises(ModelError, match="no such file"):
        load(tmp_path / "absent.safetensors")
    truncated = tmp_path / "truncated.safetensors"
    truncated.write_bytes(full_scale.folder.weights.read_bytes()[:100])
    with pytest.raises(ModelError, match="cannot be read"):
        load(truncated)


def test_8_bit_images_of_any_mode_are_converted_to_rgb_without_alpha(model: TrainedModel, sample: Sample) -> None:
    picture = Image.fromarray(sample.image)
    alpha = picture.copy()
    alpha.putalpha(Image.linear_gradient("L").resize(picture.size))
    assert np.array_equal(model.predict(alpha), model.predict(picture))
    for mode in ("L", "P", "CMYK", "1", "LA"):
        image = picture.convert("L").convert(mode) if mode == "LA" else picture.convert(mode)
        assert np.array_equal(model.predict(image), model.predict(image.convert("RGB"))), mode


def test_16_bit_images_are_scaled_as_in_training(model: TrainedModel, sample: Sample) -> None:
    gray = sample.image[..., 0]
    wide = Image.fromarray(gray.astype(np.uint16) * 257)
    assert np.array_equal(model.predict(wide), model.predict(Image.fromarray(gray)))


def test_a_range_of_values_is_scaled_to_8_bits(model: TrainedModel, sample: Sample) -> None:
    gray = sample.image[..., 0]
    expected = model.predict_probabilities(Image.fromarray(gray))
    wide = Image.fromarray(gray.astype(np.uint16) * 16)
    dark = model.predict_probabilities(wide)
    assert np.abs(dark - expected).max() > 0.01, "values up to 4080 are almost black on 0..65535"
    for image in (wide, Image.fromarray(gray.astype(np.float32) * 16)):
        assert np.array_equal(model.predict_probabilities(image, value_range=(0, 4080)), expected)
        assert np.array_equal(model.predict_probabilities([image], value_range=(0, 4080))[0], expected)
        labels, probabilities = model.predict_both(image, value_range=(0, 4080))
        assert np.array_equal(probabilities, expected)
        assert np.array_equal(model.predict(image, value_range=(0, 4080)), labels)
    with pytest.raises(DataError, match="must increase and be finite, not 5 to 5"):
        model.predict(wide, value_range=(5, 5))


def test_a_model_predicts_in_another_precision(model: TrainedModel, full_scale: FinishedTrial, sample: Sample) -> None:
    image = Image.fromarray(sample.image)
    reduced = model.with_precision("bf16")
    assert (model.precision, reduced.precision, load(full_scale.folder.path, precision="bf16").precision) == (
        "fp32", "bf16", "bf16",
    )  # fmt: skip
    expected = model.predict_probabilities(image)
    assert 0 < np.abs(reduced.predict_probabilities(image) - expected).max() < 0.1
    assert np.array_equal(reduced.with_precision("fp32").predict_probabilities(image), expected)
    with pytest.raises(ModelError, match="precision 'fp8': valid: bf16, fp16, fp32, tf32"):
        model.with_precision("fp8")


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_values_without_a_range_are_an_error(model: TrainedModel, dtype: type) -> None:
    with pytest.raises(DataError, match="the values have no fixed range"):
        model.predict(Image.fromarray(np.full((8, 9), 999, dtype)))


def test_exif_orientation_is_not_applied(model: TrainedModel, sample: Sample, tmp_path: Path) -> None:
    picture, exif = Image.fromarray(sample.image), Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "rotated.png", exif=exif)
    with Image.open(tmp_path / "rotated.png") as rotated:
        assert np.array_equal(model.predict(rotated), model.predict(picture))


@pytest.mark.parametrize("size", [(1, 1), (33, 7), (70, 131)])
def test_labels_have_the_size_of_the_image(model: TrainedModel, size: tuple[int, int]) -> None:
    assert model.predict(Image.new("RGB", size)).shape == size[::-1]


def test_arrays_files_and_lists_have_the_predictions_of_pil_images(
    model: TrainedModel, full_scale: FinishedTrial, lab: Lab, tmp_path: Path
) -> None:
    samples = list(lab.open_dataset(full_scale.trial.dataset).split("val"))[:3]
    pictures = [Image.fromarray(sample.image) for sample in samples]
    expected = [model.predict(picture) for picture in pictures]
    pictures[0].save(tmp_path / "a.png")
    assert np.array_equal(model.predict(samples[0].image), expected[0])
    assert np.array_equal(model.predict(tmp_path / "a.png"), expected[0])
    assert np.array_equal(model.predict(str(tmp_path / "a.png")), expected[0])

    small = pictures[0].crop((0, 0, 40, 33))  # another size amid images of one size
    mixed: list[ImageSource] = [tmp_path / "a.png", samples[1].image, small, pictures[2]]
    labels, probabilities = model.predict(mixed), model.predict_probabilities(mixed)
    assert [one.shape for one in labels] == [expected[0].shape, expected[1].shape, (33, 40), expected[2].shape]
    for index, image in enumerate(mixed):
        assert np.allclose(probabilities[index], model.predict_probabilities(image), atol=1e-5)
        assert np.mean(labels[index] == model.predict(image)) > 0.999
    assert model.predict([]) == []


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            np.zeros((8, 9, 3), np.float32),
            r"must be uint8 \[H, W, 3\] in the order RGB; this one is float32 \[8, 9, 3\]$",
        ),
        (np.zeros((8, 9), np.uint8), r"this one is uint8 \[8, 9\]$"),
        (np.zeros((2, 8, 9, 3), np.uint8), r"this one is uint8 \[2, 8, 9, 3\]; pass several images as a list$"),
        (torch.zeros(8, 9, 3), "cannot predict an object of type Tensor; pass a PIL image, an array, a path"),
        ("absent.jpg", "^absent.jpg: no such file$"),
        (REPOSITORY / "docs", "docs: is a folder; pass a list of its images"),
        ([Image.new("RGB", (8, 9)), np.zeros((8, 9))], r"^image 1 of the list: an array must be uint8"),
    ],
)
def test_other_images_are_an_error(model: TrainedModel, image: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        model.predict(image)


def test_a_truncated_pil_image_is_an_error(model: TrainedModel) -> None:
    file = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(file, "PNG")
    with pytest.raises(DataError, match="image 1 of the list: the image cannot be decoded: "):
        model.predict([Image.new("L", (64, 64)), Image.open(io.BytesIO(file.getvalue()[:900]))])


def test_a_model_is_described_in_one_line_and_in_a_notebook(model: TrainedModel) -> None:
    key = model.description.key[:12]
    assert repr(model) == (
        f"TrainedModel(fcn8s-tiny-scratch-bilinear, 6 classes, epoch 12 (last) of trial {key}, on {model.device})"
    )
    page = model._repr_html_()
    assert key in page and all(name in page for name in model.classes) and "color" not in page
