"""Exported files compute what the model computes, at any size, and say what they are of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from fcnlab.errors import ModelError, RunError
from fcnlab.inference import export as exporting
from fcnlab.inference.export import export
from fcnlab.inference.export_model import _rounded
from fcnlab.inference.load import load
from fcnlab.inference.model import TrainedModel
from fcnlab.lab import Lab
from fcnlab.trial.find import FinishedTrial

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime runs the exported graphs")


@pytest.fixture
def model(half: FinishedTrial, place: Lab) -> TrainedModel:
    return load(half.trial.key, lab=place)


def pictures(batch: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (batch, 3, height, width), dtype=np.uint8)


def wanted(model: TrainedModel, images: np.ndarray) -> np.ndarray:
    return np.stack([model.probabilities(Image.fromarray(image.transpose(1, 2, 0))) for image in images])


def test_onnx_computes_the_same_and_carries_the_description(model: TrainedModel, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    agreement = export(model, "onnx", path)
    assert agreement is not None and agreement.largest < 1e-4 and agreement.others == 0
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for images in (pictures(3, 66, 91), pictures(1, 40, 64)):
        (found,) = session.run(["probabilities"], {"images": images})
        assert np.allclose(found, wanted(model, images), atol=1e-5)
    said = session.get_modelmeta().custom_metadata_map
    assert json.loads(said["classes"]) == list(model.classes)
    assert json.loads(said["palette"]) == model.palette.tolist()
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_a_torch_program_computes_the_same_and_carries_the_description(
    plain: FinishedTrial, place: Lab, tmp_path: Path
) -> None:
    model = load(plain.trial.key, lab=place)
    path = tmp_path / "model.pt2"
    agreement = export(model, "torch", path)
    assert agreement is not None and agreement.largest < 1e-5 and agreement.others == 0
    extra = {"fcnlab.json": ""}
    program = torch.export.load(path, extra_files=extra).module()
    images = pictures(3, 66, 91)
    assert np.allclose(program(torch.from_numpy(images)).detach().numpy(), wanted(model, images), atol=1e-5)
    assert type(model.description).model_validate_json(extra["fcnlab.json"]) == model.description


def test_safetensors_give_the_same_bits(model: TrainedModel, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model.description = model.description.model_copy(update={"precision": "auto"})
    agreement = export(model, "safetensors", path)
    assert load(path).description == model.description
    assert agreement is not None and agreement.largest == 0
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["score_scale"]) == model.description.score_scale


def test_what_computes_otherwise_is_not_left_there(
    model: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(written: TrainedModel, path: Path) -> exporting.Runs:
        path.write_bytes(b"")
        return lambda picture: np.roll(written.probabilities(picture), 1, axis=0)

    monkeypatch.setitem(exporting._WRITERS, "safetensors", other)
    with pytest.raises(ModelError, match="computes otherwise"):
        export(model, "safetensors", tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())
    with pytest.raises(RunError, match="cannot be written"):
        export(model, "onnx", tmp_path / "absent" / "model.onnx")


@pytest.mark.parametrize("fails", ["writing", "running"])
@pytest.mark.parametrize("to", ["torch", "onnx"])
def test_a_failed_export_is_one_line_with_the_remedy(
    fails: str, to: exporting.Format, model: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def guarded(*_: object) -> np.ndarray:
        raise AssertionError("Guard failed: images.size()[2] % 2 != 0\nand more")

    monkeypatch.setitem(exporting._WRITERS, to, guarded if fails == "writing" else lambda written, path: guarded)
    with pytest.raises(ModelError, match=r"Guard failed: .* `--to safetensors`, which supports every model$") as caught:
        export(model, to, tmp_path / "model")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_program_with_a_scale_inside_takes_odd_and_even_sizes(model: TrainedModel, tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    export(model, "torch", path)
    program = torch.export.load(path).module()
    for batch, height, width in ((1, 66, 70), (2, 67, 71), (3, 90, 81), (1, 127, 128)):
        images = pictures(batch, height, width)
        found = program(torch.from_numpy(images)).detach().numpy()
        assert np.allclose(found, wanted(model, images), atol=1e-5)


@pytest.mark.parametrize("factor", [0.5, 0.6, 0.75, 1.25, 1.5, 2.0])
def test_lengths_are_rounded_as_python_rounds(factor: float) -> None:
    assert all(_rounded(factor, length) == round(factor * length) for length in range(1, 2000))
