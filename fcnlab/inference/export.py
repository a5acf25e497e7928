"""Export of models to ONNX, torch.export and safetensors, with a comparison of each file with its model."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.export import Dim, ExportedProgram

from fcnlab.errors import FcnlabError, ModelError, RunError
from fcnlab.inference.export_model import ExportModel
from fcnlab.inference.export_pooling import export_pooling_of_any_size
from fcnlab.inference.load import read_safetensors, write_safetensors
from fcnlab.inference.model import TrainedModel
from fcnlab.paths import exists
from fcnlab.storage_errors import convert_write_errors

FileFormat = Literal["onnx", "torch", "safetensors"]
Predictor = Callable[[Image.Image], NDArray[np.float32]]
"""A function from an image to probabilities [num_classes, H, W]."""

COMPARED_SIZES = ((97, 130), (160, 128), (99, 79), (134, 92), (76, 103))
"""Heights and widths of the compared images: odd and even, with different remainders by 4, 8 and 32.

The network is traced at none of these sizes, so that a program that only accepts the traced size fails the comparison.
"""

TOLERANCE = 1e-3
"""Maximum difference of a probability; other runtimes add in another order."""

MAX_GRAPH_BYTES = 3 * 2**29
"""Size of the weights above which an ONNX graph keeps them in a file of its own: one with them can have 2 GiB."""


@dataclass(frozen=True)
class ExportComparison:
    """Differences between an exported file and its model on generated images, both in float32 on the CPU.

    Attributes:
        max_difference: maximum absolute difference of a probability.
        changed_labels: number of pixels with another label.
        pixels: number of compared pixels.
    """

    max_difference: float
    changed_labels: int
    pixels: int


def find_onnx_weights(path: Path) -> Path:
    """Return the path of the weights of a large ONNX graph, which must be in the same folder.

    Args:
        path: path of the graph.
    """
    return path.with_name(f"{path.name}.data")


def export(model: TrainedModel, file_format: FileFormat, path: Path) -> ExportComparison | None:
    """Write a model to a file, and compare the predictions of the file with those of the model.

    A `safetensors` file contains weights and description, for `fcnlab.load`. `torch` is a program of `torch.export`,
    `onnx` a graph. Both contain the description and map images, uint8 [B, C, H, W], to `probabilities`, float32
    [B, num_classes, H, W], for any B, H and W. A `torch` program requires at least two rows and columns in the deepest
    feature map: images of more than 32 pixels per side at stride 32. The weights of an ONNX graph of more than
    `MAX_GRAPH_BYTES` are in a second file, `find_onnx_weights(path)`; one of an earlier export is replaced or removed.

    Args:
        model: the model.
        file_format: format of the file.
        path: path of the file, whose folder is created if it does not exist.

    Returns:
        The comparison, or None if an ONNX file was not compared because onnxruntime is not installed.

    Raises:
        ModelError: the model cannot be exported, the file cannot be run, its predictions differ, or those of the model
            are not numbers. No file is left.
        RunError: the file cannot be written, or a required package is not installed.
    """
    on_cpu = TrainedModel(deepcopy(model.network), model.description, torch.device("cpu"))
    reference = on_cpu.with_precision("fp32")
    with convert_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            temporary = Path(folder) / path.name
            with _wrap_errors(path, file_format):
                predictor = _WRITERS[file_format](on_cpu, temporary)
            comparison = _compare(predictor, reference, path, file_format) if predictor is not None else None
            if comparison is not None and not comparison.max_difference <= TOLERANCE:  # also nan
                raise ModelError(
                    f"{path}: not written, because its predictions differ from those of the model: probabilities by up "
                    f"to {comparison.max_difference:.2g}"
                )
            if file_format == "onnx":
                _move_onnx_weights(temporary, path)
            temporary.replace(path)
    return comparison


def _move_onnx_weights(temporary: Path, path: Path) -> None:
    """Move the weights of a large graph, which refers to them by name, and remove those of an earlier export."""
    weights = find_onnx_weights(temporary)
    if exists(weights):
        weights.replace(find_onnx_weights(path))
    else:
        find_onnx_weights(path).unlink(missing_ok=True)


@contextmanager
def _wrap_errors(path: Path, file_format: FileFormat) -> Iterator[None]:
    """Turn exceptions of exporters and runtimes into a ModelError of one line that names the remedy.

    torch's exporter raises many types: AssertionError for a failed guard, RuntimeError and its own for the rest.
    """
    try:
        yield
    except (FcnlabError, OSError):
        raise
    except Exception as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
        raise ModelError(
            f"{path}: not written, because the export to {file_format} failed with torch {torch.__version__}: "
            f"{type(error).__name__}: {reason.rstrip('.')}; {_REMEDIES[file_format]}"
        ) from error


_SAFETENSORS_INSTEAD = "or export with `--to safetensors`, which supports every model"
_REMEDIES: dict[FileFormat, str] = {
    "onnx": f"update torch, onnx and onnxscript, {_SAFETENSORS_INSTEAD}",
    "torch": f"update torch, {_SAFETENSORS_INSTEAD}",
    "safetensors": "check that the folder is writable and its disk is not full",
}


def _compare(predictor: Predictor, reference: TrainedModel, path: Path, file_format: FileFormat) -> ExportComparison:
    differences: list[float] = []
    changed_labels = pixels = 0
    for image in _generate_images(reference.image_format.channels):
        expected = reference.predict_probabilities(image)
        with _wrap_errors(path, file_format):
            actual = predictor(image)
        differences.append(float(np.abs(expected - actual).max()))
        changed_labels += int((expected.argmax(0) != actual.argmax(0)).sum())
        pixels += expected[0].size
    return ExportComparison(float(np.max(differences)), changed_labels, pixels)


def _generate_images(channels: int) -> Iterator[Image.Image]:
    """Yield random images that are smooth, like photographs, and the same in each call."""
    random = np.random.default_rng(0)
    for height, width in COMPARED_SIZES:
        noise = Image.fromarray(random.integers(0, 256, (6, 8, channels), dtype=np.uint8).squeeze())
        yield noise.resize((width, height), Image.Resampling.BICUBIC)


def _write_safetensors(model: TrainedModel, path: Path) -> Predictor:
    write_safetensors(model, path)
    stored = read_safetensors(path)
    on_cpu = TrainedModel(stored.network, stored.description, torch.device("cpu"))
    return on_cpu.with_precision("fp32").predict_probabilities


def _write_torch(model: TrainedModel, path: Path) -> Predictor:
    with _ignore_warnings():
        torch.export.save(_trace(model), path, extra_files={"fcnlab.json": model.description.model_dump_json()})
        program = torch.export.load(path).module()

    def predict(image: Image.Image) -> NDArray[np.float32]:
        with torch.inference_mode():
            return program(torch.from_numpy(_to_batch(image)))[0].numpy()

    return predict


def _write_onnx(model: TrainedModel, path: Path) -> Predictor | None:
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise RunError(f"export to ONNX requires {missing[0]}, which is not installed: pip install 'fcnlab[onnx]'")
    with _ignore_warnings(), export_pooling_of_any_size():
        program = torch.onnx.export(_trace(model), dynamo=True, verbose=False, output_names=["probabilities"])
        assert program is not None, "with dynamo=True the result is a program"
        program.model.metadata_props.update(model.description.to_metadata())
        size = sum(tensor.nbytes for tensor in model.network.state_dict().values())
        program.save(path, external_data=size > MAX_GRAPH_BYTES)
    if find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    options: Any = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session: Any = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def predict(image: Image.Image) -> NDArray[np.float32]:
        (probabilities,) = session.run(["probabilities"], {"images": _to_batch(image)})
        return probabilities[0]

    return predict


_WRITERS: dict[FileFormat, Callable[[TrainedModel, Path], Predictor | None]] = {
    "onnx": _write_onnx,
    "torch": _write_torch,
    "safetensors": _write_safetensors,
}


def _trace(model: TrainedModel) -> ExportedProgram:
    """Trace the model, for batches and images of any size.

    The traced size is not a multiple of any stride: otherwise tracing would assume that nothing is ever cropped.
    """
    images = torch.zeros(2, len(model.mean), 75, 101, dtype=torch.uint8)
    dynamic_shapes = {"images": {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}}
    network = ExportModel(model.network, model.description).eval()
    with export_pooling_of_any_size():
        return torch.export.export(network, (images,), dynamic_shapes=dynamic_shapes)


def _to_batch(image: Image.Image) -> NDArray[np.uint8]:
    pixels = np.atleast_3d(np.asarray(image))
    return np.array(pixels.transpose(2, 0, 1)[None], order="C")


@contextmanager
def _ignore_warnings() -> Iterator[None]:
    """Suppress the warnings that torch's exporter emits about its own code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
