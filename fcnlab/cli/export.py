"""`fcnlab export`: a finished trial as a file for elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fcnlab.cli.inference_options import CheckpointOption, ModelName
from fcnlab.cli.options import LabOption

if TYPE_CHECKING:
    from fcnlab.inference.export import Agreement

EXAMPLE = "Example: fcnlab export 429d005e261a --to onnx --out street.onnx"


def export(
    trial: ModelName,
    to: Annotated[
        Literal["onnx", "torch", "safetensors"],
        typer.Option("--to", help="A graph, a program of torch.export, or weights that fcnlab.load reads"),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="The file [default: KEY.onnx, .pt2 or .safetensors]")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write over a file that is there already")] = False,
    checkpoint: CheckpointOption = "last",
    lab: LabOption = None,
) -> None:
    """Export a trained model with its classes, palette and normalisation inside, and compare the file with the model.

    ONNX and torch map RGB images, uint8 [B, 3, H, W] of any size, to probabilities [B, classes, H, W].
    """
    from fcnlab.errors import RunError
    from fcnlab.inference.export import SUFFIXES
    from fcnlab.inference.export import export as write
    from fcnlab.inference.load import load
    from fcnlab.lab import Lab
    from fcnlab.trial.find import KEY_DIGITS

    if out is not None and out.suffix != SUFFIXES[to]:
        raise RunError(f"--out: {out} does not end in {SUFFIXES[to]}, by which files of this kind are known")
    model = load(trial, checkpoint=checkpoint, lab=Lab.find(root=lab))
    path = out or Path(model.description.key[:KEY_DIGITS] + SUFFIXES[to])
    if path.exists() and not overwrite:
        raise RunError(f"{path}: is there already; choose another --out, or pass --overwrite")
    agreement = write(model, to, path)
    typer.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB, {_said(agreement)}")


def _said(agreement: Agreement | None) -> str:
    if agreement is None:
        return "not compared with the model, for onnxruntime is not installed"
    return (
        f"read back and compared: probabilities differ by at most {agreement.largest:.2g}, "
        f"{agreement.others} of {agreement.pixels:,} pixels get another class"
    )
