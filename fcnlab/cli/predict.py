"""`fcnlab predict`: masks of any images by a finished trial."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fcnlab.cli.inference_options import CheckpointOption, Flip, ModelName, Scales, Stride, Tta, Window, protocol_of
from fcnlab.cli.options import LabOption

EXAMPLE = "Example: fcnlab predict 429d005e261a photos/ --overlay --out predictions"


def predict(
    trial: ModelName,
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGES...", help="Files, and folders at any depth", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", help="The folder to write to")] = Path("predictions"),
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Also write the images with the labels' colours over them, and a legend")
    ] = False,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also write the classes' probabilities, as .npz")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write over files that are there already")] = False,
    flip: Flip = False,
    scales: Scales = None,
    tta: Tta = False,
    window: Window = None,
    stride: Stride = None,
    checkpoint: CheckpointOption = "last",
    lab: LabOption = None,
) -> None:
    """Predict images, each at its own size, and write masks whose indices are the labels.

    They go to OUT/masks, OUT/overlays and OUT/probabilities under the images' names; what came from a folder lies as
    it does there. Images that cannot be read are told at the end, and the exit code is then 1.
    """
    from fcnlab.inference.inputs import find_images, names
    from fcnlab.lab import Lab

    protocol = protocol_of(flip, scales, tta, window, stride)
    place = Lab.find(root=lab)
    sources = find_images(images, out)
    named = names(sources)

    from fcnlab.cli.data.progress import sample_bars
    from fcnlab.data.datasets.base import open_image
    from fcnlab.errors import DataError
    from fcnlab.inference.load import load
    from fcnlab.inference.outputs import OutputOptions, check_not_existing, places, write
    from fcnlab.training import hardware

    there = [places(out, name, OutputOptions(overlay, probabilities)) for name in named]
    if not overwrite:
        check_not_existing(file for files in there for file in files.values())
    model = load(trial, checkpoint=checkpoint, lab=place)
    hardware.retain_freed_memory()
    faults: list[str] = []
    with sample_bars() as bars:
        advance = bars(model.description.names.get("variant", "images"), len(sources))
        for source, files in zip(sources, there, strict=True):
            try:
                write(files, open_image(source.file), model, protocol)
            except DataError as error:
                said = str(error)
                faults.append(said if said.startswith(f"{source.file}: ") else f"{source.file}: {said}")
            advance()
    done = len(sources) - len(faults)
    typer.echo(f"{done} of {len(sources)} images predicted: {out / 'masks'}")
    for fault in faults:
        typer.echo(f"fcnlab: not predicted: {fault}", err=True)
    if faults:
        raise typer.Exit(1)
