"""Exported files: the same predictions as the model at any size, and its description."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from fcnlab import load
from fcnlab.errors import ModelError, RunError
from fcnlab.inference import export as export_module
from fcnlab.inference.export import export
from fcnlab.inference.export_model import _round_scaled
from fcnlab.inference.model import TrainedModel
from fcnlab.lab import Lab
from fcnlab.training.protocol import scale_size
from fcnlab.trial.find import FinishedTrial

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime runs the exported graphs")


@pytest.fixture
def model(half_scale: FinishedTrial, lab: Lab) -> TrainedModel:
    """A model with `score_scale`, which resizes images to half their size."""
    return load(half_scale.trial.key, lab=lab)


def random_images(batch: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (batch, 3, height, width), dtype=np.uint8)


def expected(model: TrainedModel, images: np.ndarray) -> np.ndarray:
    return np.stack([model.predict_probabilities(Image.fromarray(image.transpose(1, 2, 0))) for image in images])


def test_onnx_predicts_the_same_and_contains_the_description(model: TrainedModel, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    comparison = export(model, "onnx", path)
    assert comparison is not None and comparison.max_difference < 1e-4 and comparison.changed_labels == 0
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for images in (random_images(3, 66, 91), random_images(1, 40, 64)):
        (actual,) = session.run(["probabilities"], {"images": images})
        assert np.allclose(actual, expected(model, images), atol=1e-5)
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["classes"]) == list(model.classes)
    assert json.loads(metadata["palette"]) == model.palette.tolist()
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_the_weights_of_a_large_onnx_graph_are_beside_it(
    model: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_module, "MAX_GRAPH_BYTES", 10_000)
    path = tmp_path / "model.onnx"
    assert export(model, "onnx", path) is not None
    assert {file.name for file in tmp_path.iterdir()} == {"model.onnx", "model.onnx.data"}
    assert path.stat().st_size < (tmp_path / "model.onnx.data").stat().st_size
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    images = random_images(1, 40, 64)
    (actual,) = session.run(["probabilities"], {"images": images})
    assert np.allclose(actual, expected(model, images), atol=1e-5)
    monkeypatch.undo()
    export(model, "onnx", path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"], "weights of the replaced graph are removed"


def test_torch_program_predicts_the_same_at_odd_and_even_sizes_and_contains_the_description(
    model: TrainedModel, tmp_path: Path
) -> None:
    path = tmp_path / "model.pt2"
    comparison = export(model, "torch", path)
    assert comparison is not None and comparison.max_difference < 1e-4 and comparison.changed_labels == 0
    extra = {"fcnlab.json": ""}
    program = torch.export.load(path, extra_files=extra).module()
    for batch, height, width in ((1, 66, 70), (2, 67, 71), (3, 90, 81), (1, 127, 128)):
        images = random_images(batch, height, width)
        actual = program(torch.from_numpy(images)).detach().numpy()
        assert np.allclose(actual, expected(model, images), atol=1e-5)
    assert type(model.description).model_validate_json(extra["fcnlab.json"]) == model.description


def test_safetensors_file_predicts_bit_for_bit_the_same(model: TrainedModel, tmp_path: Path) -> None:
    path = tmp_path / "new" / "model.safetensors"
    model.description = model.description.model_copy(update={"precision": "auto"})
    comparison = export(model, "safetensors", path)
    assert load(path).description == model.description
    assert comparison is not None and comparison.max_difference == 0
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["score_scale"]) == model.description.score_scale


@pytest.mark.parametrize(
    "change", [lambda found: np.roll(found, 1, axis=0), lambda found: found * np.nan], ids=["other", "nan"]
)
def test_file_with_different_predictions_is_deleted(
    change: Callable[[np.ndarray], np.ndarray], model: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_shifted(model: TrainedModel, path: Path) -> export_module.Predictor:
        path.write_bytes(b"")
        return lambda image: change(model.predict_probabilities(image))

    monkeypatch.setitem(export_module._WRITERS, "safetensors", write_shifted)
    with pytest.raises(ModelError, match="predictions differ"):
        export(model, "safetensors", tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be written"):
        export(model, "onnx", tmp_path / "file" / "model.onnx")


def test_a_model_whose_scores_are_not_numbers_is_not_exported(model: TrainedModel, tmp_path: Path) -> None:
    with torch.no_grad():
        next(model.network.head.parameters()).fill_(torch.nan)
    with pytest.raises(ModelError, match="not numbers"):
        export(model, "safetensors", tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("failing_step", ["writing", "running"])
@pytest.mark.parametrize("file_format", ["torch", "onnx"])
def test_error_of_a_failed_export_is_one_line_with_the_remedy(
    failing_step: str,
    file_format: export_module.FileFormat,
    model: TrainedModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def raise_guard(*_: object) -> np.ndarray:
        raise AssertionError("Guard failed: images.size()[2] % 2 != 0\nand more")

    monkeypatch.setitem(
        export_module._WRITERS,
        file_format,
        raise_guard if failing_step == "writing" else lambda model, path: raise_guard,
    )
    with pytest.raises(ModelError, match=r"Guard failed: .* `--to safetensors`, which supports every model$") as caught:
        export(model, file_format, tmp_path / "model")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("factor", [0.14, 0.5, 0.6, 0.75, 1.1, 1.25, 1.5, 2.0])
def test_programs_and_predictions_round_scaled_lengths_to_the_same(factor: float) -> None:
    lengths = range(4, 2000)
    assert [_round_scaled(factor, length) for length in lengths] == [scale_size((n, 1), factor)[0] for n in lengths]


def test_scaled_lengths_are_rounded_half_to_even() -> None:
    assert [scale_size((length, length), 0.14) for length in (25, 75, 1)] == [(4, 4), (10, 10), (1, 1)]
