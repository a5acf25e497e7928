"""Models as files for elsewhere, each of them read back and compared before it is said to be written."""

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
from fcnlab.inference.load import read_file, write_file
from fcnlab.inference.model import TrainedModel

Format = Literal["onnx", "torch", "safetensors"]
Runs = Callable[[Image.Image], NDArray[np.float32]]
"""An image to probabilities [classes, H, W]."""

SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torch": ".pt2", "safetensors": ".safetensors"}
SIZES = ((97, 130), (160, 128), (99, 79), (134, 92), (76, 103))
"""Heights and widths of the compared images: odd and even, with different remainders by 4, 8 and 32.

The network is traced at none of them, so a program that is bound to the traced size fails the comparison.
"""

TOLERANCE = 1e-3
"""By how much a probability may differ; other runtimes add up in another order."""


@dataclass(frozen=True)
class Agreement:
    """How an exported file and the model agree on generated images, both in float32 on the CPU.

    `largest` is the largest difference of a probability, `others` how many of the `pixels` get another class.
    """

    largest: float
    others: int
    pixels: int


def export(model: TrainedModel, to: Format, path: Path) -> Agreement | None:
    """Write a model; None says that ONNX was not compared because onnxruntime is not installed.

    `safetensors` has the weights and the description, and is read by `fcnlab.load`. `torch` is a program of
    `torch.export`, `onnx` a graph: both map RGB images, uint8 [B, 3, H, W], to `probabilities`, float32
    [B, classes, H, W], of any B, H and W, and carry the description. A program of `torch` refuses images of which the
    deepest feature map has a single row or column, as of 32 pixels and fewer at stride 32.

    Raises:
        ModelError: torch or another package cannot export this model or run the exported file, or the file computes
            otherwise than the model. No file is left.
        RunError: the file cannot be written, or a package is missing that writes the format.
    """
    written = TrainedModel(deepcopy(model.network), model.description, torch.device("cpu"))
    reference = _in_fp32(written)
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            made = Path(folder) / path.name
            with _failing_as_model_error(path, to):
                runs = _WRITERS[to](written, made)
            agreement = _compare(runs, reference, path, to) if runs is not None else None
            if agreement is not None and agreement.largest > TOLERANCE:
                raise ModelError(
                    f"{path}: not written, for it computes otherwise than the model: probabilities differ by up to "
                    f"{agreement.largest:.2g}"
                )
            made.replace(path)
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from None
    return agreement


def _in_fp32(model: TrainedModel) -> TrainedModel:
    """The same network as it computes in float32 on the CPU."""
    return TrainedModel(model.network, model.description.model_copy(update={"precision": "fp32"}), torch.device("cpu"))


@contextmanager
def _failing_as_model_error(path: Path, to: Format) -> Iterator[None]:
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
            f"{path}: not written, because the export to {to} failed with torch {torch.__version__}: "
            f"{type(error).__name__}: {reason.rstrip('.')}; {_REMEDIES[to]}"
        ) from error


_SAFETENSORS_INSTEAD = "or export with `--to safetensors`, which supports every model"
_REMEDIES: dict[Format, str] = {
    "onnx": f"update torch, onnx and onnxscript, {_SAFETENSORS_INSTEAD}",
    "torch": f"update torch, {_SAFETENSORS_INSTEAD}",
    "safetensors": "check that the folder is writable and its disk is not full",
}


def _compare(runs: Runs, reference: TrainedModel, path: Path, to: Format) -> Agreement:
    largest, others, pixels = 0.0, 0, 0
    for picture in _pictures():
        wanted = reference.probabilities(picture)
        with _failing_as_model_error(path, to):
            got = runs(picture)
        largest = max(largest, float(np.abs(wanted - got).max()))
        others += int((wanted.argmax(0) != got.argmax(0)).sum())
        pixels += wanted[0].size
    return Agreement(largest, others, pixels)


def _pictures() -> Iterator[Image.Image]:
    """Blots of colour: smooth, as images are, and the same each time."""
    random = np.random.default_rng(0)
    for height, width in SIZES:
        blots = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        yield blots.resize((width, height), Image.Resampling.BICUBIC)


def _write_safetensors(model: TrainedModel, path: Path) -> Runs:
    write_file(model, path)
    return _in_fp32(read_file(path)).probabilities


def _write_torch(model: TrainedModel, path: Path) -> Runs:
    with _quiet():
        torch.export.save(_program(model), path, extra_files={"fcnlab.json": model.description.model_dump_json()})
        program = torch.export.load(path).module()

    def runs(picture: Image.Image) -> NDArray[np.float32]:
        with torch.inference_mode():
            return program(torch.from_numpy(_batch(picture)))[0].numpy()

    return runs


def _write_onnx(model: TrainedModel, path: Path) -> Runs | None:
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise RunError(f"ONNX is written with the package {missing[0]}, which is not installed")
    with _quiet(), export_pooling_of_any_size():
        made = torch.onnx.export(_program(model), dynamo=True, verbose=False, output_names=["probabilities"])
        assert made is not None, "it was made by dynamo"
        made.model.metadata_props.update(model.description.metadata())
        made.save(path)
    if find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    session: Any = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def runs(picture: Image.Image) -> NDArray[np.float32]:
        (probabilities,) = session.run(["probabilities"], {"images": _batch(picture)})
        return probabilities[0]

    return runs


_WRITERS: dict[Format, Callable[[TrainedModel, Path], Runs | None]] = {
    "onnx": _write_onnx,
    "torch": _write_torch,
    "safetensors": _write_safetensors,
}


def _program(model: TrainedModel) -> ExportedProgram:
    """The model as a graph. It is traced at a size that is no multiple of any stride, for a crop of nothing would be
    taken for granted.
    """
    traced = torch.zeros(2, 3, 75, 101, dtype=torch.uint8)
    every_size = {"images": {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}}
    network = ExportModel(model.network, model.description).eval()
    with export_pooling_of_any_size():
        return torch.export.export(network, (traced,), dynamic_shapes=every_size)


def _batch(picture: Image.Image) -> NDArray[np.uint8]:
    return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1)[None])


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of torch's exporter about itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
