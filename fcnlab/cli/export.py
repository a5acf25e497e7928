"""`fcnlab export`: export a trained model to a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fcnlab.cli.inference_options import CheckpointOption
from fcnlab.cli.options import DataRoot, LabOption
from fcnlab.cli.references import ModelName, find_model

if TYPE_CHECKING:
    from fcnlab.inference.export import ExportComparison

EXAMPLE = "Example: fcnlab export experiments/quickstart.yaml:best --to onnx --out street.onnx"


def export(
    trial: ModelName,
    to: Annotated[
        Literal["onnx", "torch", "safetensors"],
        typer.Option("--to", help="ONNX graph, torch.export program, or weights for fcnlab.load"),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="Output file [default: KEY.onnx, .pt2 or .safetensors]")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Overwrite an existing file")] = False,
    checkpoint: CheckpointOption = None,
    lab: LabOption = None,
    data_root: DataRoot = None,
) -> None:
    """Export a trained model with its classes, palette and normalization, and compare the file with the model.

    ONNX and torch map images, uint8 [B, 3, H, W] for RGB, of any size, to probabilities [B, num_classes, H, W].
    """
    from fcnlab.errors import RunError

    source = find_model(trial, checkpoint, lab, data_root)

    from fcnlab.inference.export import SUFFIXES
    from fcnlab.inference.export import export as write
    from fcnlab.inference.outputs import check_not_existing
    from fcnlab.trial.find import KEY_DIGITS

    if out is not None and out.suffix != SUFFIXES[to]:
        raise RunError(f"--out: {out} must end in {SUFFIXES[to]} with --to {to}")
    model = source.load()
    path = out or Path(model.description.key[:KEY_DIGITS] + SUFFIXES[to])
    if not overwrite:
        check_not_existing([path])
    comparison = write(model, to, path)
    typer.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB, {_format_comparison(comparison)}")


def _format_comparison(comparison: ExportComparison | None) -> str:
    if comparison is None:
        return "not compared with the model: onnxruntime is not installed"
    return (
        f"compared with the model: probabilities differ by at most {comparison.max_difference:.2g}, "
        f"labels of {comparison.changed_labels} of {comparison.pixels:,} pixels differ"
    )
