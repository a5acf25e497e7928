"""`fcnlab predict`: predict image files with a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fcnlab.cli.inference_options import (
    CheckpointOption,
    Flip,
    InferenceThreads,
    Scales,
    Stride,
    Tta,
    Window,
    parse_protocol,
    set_threads,
)
from fcnlab.cli.options import DataRoot, LabOption
from fcnlab.cli.output import sample_bars
from fcnlab.cli.references import TRIAL_FORMS, load_named, reference_argument
from fcnlab.constants import Precision

EXAMPLE = "Example: fcnlab predict experiments/quickstart.yaml:best photos/ --overlay --out predictions"


def predict(
    trial: Annotated[
        str, reference_argument("TRIAL|FILE", f"A trial: {TRIAL_FORMS}; or a .safetensors file of `fcnlab export`")
    ],
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGES", help="Image files, and folders to search at any depth", show_default=False),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Output folder")] = Path("predictions"),
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Also write each image overlaid with the class colors, and a legend")
    ] = False,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also write the class probabilities, as .npz")
    ] = False,
    value_range: Annotated[
        tuple[float, float] | None,
        typer.Option(
            "--value-range",
            metavar="LOW HIGH",
            help="Values of images of more than 8 bits that become 0 and 255",
            show_default="those of the model's dataset, or 0 65535 for 16 bits",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Overwrite existing files")] = False,
    flip: Flip = False,
    scales: Scales = None,
    tta: Tta = False,
    window: Window = None,
    stride: Stride = None,
    checkpoint: CheckpointOption = None,
    precision: Annotated[
        Precision | None,
        typer.Option("--precision", help="Precision of prediction", show_default="that of the training, as evaluated"),
    ] = None,
    threads: InferenceThreads = None,
    lab: LabOption = None,
    data_root: DataRoot = None,
) -> None:
    """Predict the labels of images with a trained model.

    Images are predicted at native size; the pixel values of the masks are the labels. Files are written to OUT/masks,
    OUT/overlays and OUT/probabilities, with the names and subfolders of the images. Images that cannot be read are
    skipped and listed at the end; the exit code is then 1. Images of more than 8 bits are converted as those of the
    model's dataset; one line per kind of file reports their range of values.
    """
    from fcnlab.inference.inputs import choose_output_names, find_images

    protocol = parse_protocol(flip, scales, tta, window, stride)
    files = find_images(images, out)
    names = choose_output_names(files)
    model = load_named(trial, checkpoint, lab, data_root)  # imports torch, which takes seconds
    model = model if precision is None else model.with_precision(precision)

    from fcnlab.data.datasets.image_file import open_image
    from fcnlab.data.inspection.value_scaling import ValueScaling
    from fcnlab.errors import DataError
    from fcnlab.inference.outputs import check_not_existing, check_not_inputs, output_paths, write_prediction
    from fcnlab.training import hardware

    outputs = [output_paths(out, name, overlay=overlay, probabilities=probabilities) for name in names]
    check_not_inputs((path for paths in outputs for path in paths.values()), (file.path for file in files))
    if not overwrite:
        check_not_existing(path for paths in outputs for path in paths.values())
    set_threads(threads)
    hardware.retain_freed_memory()
    scaling = ValueScaling(model.select_format(value_range), "pass --value-range 0 {high}")
    errors: list[str] = []
    with sample_bars() as bars:
        advance = bars(model.description.names.get("variant", "images"), len(files))
        for file, paths in zip(files, outputs, strict=True):
            try:
                image = open_image(file.path)
                scaling.add(image)
                write_prediction(paths, image, model, protocol, value_range)
            except DataError as error:
                message = str(error)
                errors.append(message if message.startswith(f"{file.path}: ") else f"{file.path}: {message}")
            advance()
    typer.echo(f"{len(files) - len(errors)} of {len(files)} images predicted: {out / 'masks'}")
    for line in scaling.lines():
        typer.echo(line, err=True)
    for message in errors:
        typer.echo(f"fcnlab: not predicted: {message}", err=True)
    if errors:
        raise typer.Exit(1)
