"""`fcnlab export`: export a trained model to a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fcnlab.cli.inference_options import CheckpointOption, InferenceThreads, set_threads
from fcnlab.cli.options import DataRoot, LabOption
from fcnlab.cli.references import TRIAL_FORMS, load_named, reference_argument

if TYPE_CHECKING:
    from fcnlab.inference.export import ExportComparison

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2", "safetensors": ".safetensors"}
EXAMPLE = "Example: fcnlab export experiments/quickstart.yaml:best --to onnx --out street.onnx"


def export(
    trial: Annotated[
        str, reference_argument("TRIAL|FILE", f"A trial: {TRIAL_FORMS}; or a .safetensors file of `fcnlab export`")
    ],
    to: Annotated[
        Literal["onnx", "torch", "safetensors"],
        typer.Option("--to", help="Format: ONNX graph, torch.export program, or safetensors for fcnlab.load"),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Output file, which ends in .onnx, .pt2 (torch) or .safetensors",
            show_default="KEY.onnx, .pt2 or .safetensors",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Overwrite an existing file")] = False,
    checkpoint: CheckpointOption = None,
    threads: InferenceThreads = None,
    lab: LabOption = None,
    data_root: DataRoot = None,
) -> None:
    """Export a trained model to a file.

    The file includes classes, palette and normalization. Its predictions are compared with those of the model, both in
    float32 on the CPU. ONNX and torch map images, uint8 [B, 3, H, W] for RGB, of any size, to probabilities
    [B, num_classes, H, W].
    """
    from fcnlab.errors import RunError

    if out is not None and out.suffix != SUFFIXES[to]:
        raise RunError(f"--out: {out} must end in {SUFFIXES[to]} with --to {to}")
    model = load_named(trial, checkpoint, lab, data_root)  # imports torch, which takes seconds

    from fcnlab.constants import KEY_DIGITS
    from fcnlab.inference.export import export as write
    from fcnlab.inference.export import find_onnx_weights
    from fcnlab.inference.outputs import check_not_existing
    from fcnlab.paths import exists

    set_threads(threads)
    path = out or Path(model.description.key[:KEY_DIGITS] + SUFFIXES[to])
    files = [path, find_onnx_weights(path)] if to == "onnx" else [path]
    if not overwrite:
        check_not_existing(files)
    comparison = write(model, to, path)
    written = [file for file in files if exists(file)]
    size = f"{sum(file.stat().st_size for file in written) / 1e6:.1f} MB"
    beside = f" with the weights in {written[1].name}, which it needs in the same folder" if len(written) > 1 else ""
    typer.echo(f"{path}: {size}{beside}, {_format_comparison(comparison, model.precision)}")
    if model.precision != "fp32":
        typer.echo(
            f"`fcnlab predict` uses {model.precision} on this device, as the training, so a few labels differ from "
            "those of this file in float32; `--precision fp32` gives the same"
        )


def _format_comparison(comparison: ExportComparison | None, precision: str) -> str:
    if comparison is None:
        return "not compared with the model: onnxruntime is not installed"
    both = "" if precision == "fp32" else ", both in float32"
    return (
        f"compared with the model{both}: probabilities differ by at most {comparison.max_difference:.2g}, "
        f"labels of {comparison.changed_labels} of {comparison.pixels:,} pixels differ"
    )
