"""A loaded model predicts what the trial's record counted, from any kind of image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fcnlab
from fcnlab.data.datasets.base import Sample
from fcnlab.errors import DataError, ModelError
from fcnlab.inference.load import load, write_file
from fcnlab.inference.model import TrainedModel
from fcnlab.lab import Lab
from fcnlab.metrics.confusion import count_areas
from fcnlab.trial.find import FinishedTrial
from tests.conftest import arrays_of


@pytest.fixture
def model(plain: FinishedTrial, place: Lab) -> TrainedModel:
    return load(plain.trial.key, lab=place)


@pytest.fixture
def sample(plain: FinishedTrial, place: Lab) -> Sample:
    return place.open_dataset(plain.trial.dataset).split("val")[0]


@pytest.mark.parametrize("name", ["plain", "half"])
@pytest.mark.parametrize("checkpoint", ["last", "best"])
def test_predictions_count_what_the_record_counted(
    name: str, checkpoint: str, place: Lab, request: pytest.FixtureRequest
) -> None:
    finished: FinishedTrial = request.getfixturevalue(name)
    model = fcnlab.load(finished.trial.key[:12], checkpoint=checkpoint, lab=place)  # type: ignore[arg-type]
    kept = arrays_of(finished.folder.counts)
    for purpose in ("val", "test"):
        split = place.open_dataset(finished.trial.dataset).split(purpose)
        counts = [
            count_areas(
                torch.tensor(model.predict(Image.fromarray(one.image)))[None], torch.tensor(one.label)[None], 6
            )[0]
            for one in split
        ]
        assert np.array_equal(np.stack(counts), kept[f"{purpose}_{checkpoint}"])


@pytest.mark.parametrize("name", ["plain", "half"])
def test_probabilities_are_those_of_the_labels(
    name: str, place: Lab, sample: Sample, request: pytest.FixtureRequest
) -> None:
    model = load(request.getfixturevalue(name).folder.path, lab=place)
    labels, probabilities = model.both(Image.fromarray(sample.image))
    assert probabilities.dtype == np.float32 and probabilities.shape == (6, *sample.label.shape)
    assert np.allclose(probabilities.sum(0), 1, atol=1e-5)
    chosen = np.take_along_axis(probabilities, labels[None].astype(int), 0)[0]
    assert np.array_equal(chosen, probabilities.max(0))
    assert np.array_equal(model.probabilities(Image.fromarray(sample.image)), probabilities)


def test_the_model_of_these_tests_tells_classes_apart(model: TrainedModel, sample: Sample) -> None:
    assert len(np.unique(model.predict(Image.fromarray(sample.image)))) > 1  # else much would hold of any model


def test_a_model_says_what_it_is_of(model: TrainedModel, plain: FinishedTrial, place: Lab) -> None:
    assert model.classes == place.open_dataset(plain.trial.dataset).classes
    assert model.palette.shape == (6, 3) and model.palette[:2].tolist() == [[0, 0, 0], [128, 0, 0]]
    assert (model.mean, model.std) == (model.network.backbone.mean, model.network.backbone.std)
    assert model.description.key == plain.trial.key


def test_an_exported_file_predicts_the_same_without_the_lab(
    half: FinishedTrial, place: Lab, sample: Sample, tmp_path: Path
) -> None:
    model = load(half.trial.key, lab=place)
    write_file(model, tmp_path / "model.safetensors")
    other = fcnlab.load(tmp_path / "model.safetensors", lab=Lab(tmp_path / "nowhere"))
    assert other.description == model.description
    image = Image.fromarray(sample.image)
    assert np.array_equal(other.probabilities(image), model.probabilities(image))


def test_weights_without_a_description_are_refused(plain: FinishedTrial, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not say what its weights are of"):
        load(plain.folder.weights)
    with pytest.raises(ModelError, match="no such file"):
        load(tmp_path / "absent.safetensors")
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(plain.folder.weights.read_bytes()[:100])
    with pytest.raises(ModelError, match="cannot be read"):
        load(torn)


def test_every_mode_of_eight_bits_is_taken_as_training_takes_it(model: TrainedModel, sample: Sample) -> None:
    picture = Image.fromarray(sample.image)
    alpha = picture.copy()
    alpha.putalpha(Image.linear_gradient("L").resize(picture.size))
    assert np.array_equal(model.predict(alpha), model.predict(picture))
    for mode in ("L", "P", "CMYK", "1", "LA"):
        image = picture.convert("L").convert(mode) if mode == "LA" else picture.convert(mode)
        assert np.array_equal(model.predict(image), model.predict(image.convert("RGB"))), mode


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_an_image_of_more_than_eight_bits_is_refused(model: TrainedModel, dtype: type) -> None:
    with pytest.raises(DataError, match="more than 8 bits"):
        model.predict(Image.fromarray(np.full((8, 9), 999, dtype)))


def test_stored_pixels_count_whatever_the_exif_orientation(model: TrainedModel, sample: Sample, tmp_path: Path) -> None:
    picture, exif = Image.fromarray(sample.image), Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as turned:
        assert np.array_equal(model.predict(turned), model.predict(picture))


@pytest.mark.parametrize("size", [(1, 1), (33, 7), (70, 131)])
def test_labels_have_the_size_of_the_image(model: TrainedModel, size: tuple[int, int]) -> None:
    assert model.predict(Image.new("RGB", size)).shape == size[::-1]
