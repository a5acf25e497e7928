"""`fcnlab model show`: what a variant is made of, and what it costs."""

from __future__ import annotations

from typing import Annotated

import typer

from fcnlab.cli.options import LabOption, console

app = typer.Typer(help="Look at variants.", no_args_is_help=True)


@app.command(epilog="Example: fcnlab model show fcn8s-resnet18 --size 320x480")
def show(
    variant: Annotated[str, typer.Argument(help="A variant of the registry", show_default=False)],
    classes: Annotated[int, typer.Option("--classes", min=1, help="How many classes are scored")] = 21,
    size: Annotated[str, typer.Option("--size", help="Height x width of the image")] = "320x480",
    lab: LabOption = None,
) -> None:
    """Show a variant's feature maps, parameters by part and GMACs. Weights are not loaded."""
    from fcnlab.api import build_model, variant_parts
    from fcnlab.places import Lab

    height, width = _size(size)
    place = Lab.find(lab=lab)
    parts = variant_parts(variant, place)

    import torch  # after what a typing mistake would stop at
    from rich.table import Table

    from fcnlab.training import cost

    model = build_model(variant, classes, pretrained=False, lab=place).eval()
    with torch.inference_mode():
        features = model.backbone(torch.zeros(1, 3, height, width))
        scores = model.head(features, (height, width))
    maps = Table("stride", "channels", "height x width", title=f"{variant}: feature maps of {parts.backbone.timm}")
    for stride, map_ in features.items():
        maps.add_row(str(stride), str(map_.shape[1]), f"{map_.shape[2]} x {map_.shape[3]}")
    sizes = Table("part", "parameters", "of them learned")
    upsamplers = torch.nn.ModuleList(
        [model.head.get_submodule(n) for n in ("upsample", "fuse") if hasattr(model.head, n)]
    )
    for name, module in (
        ("backbone", model.backbone),
        ("head", model.head),
        ("  its upsamplers", upsamplers),
        ("all", model),
    ):
        sizes.add_row(name, f"{cost.parameters(module):,}", f"{cost.parameters(module, trainable=True):,}")
    terminal = console()
    terminal.print(maps, sizes)
    terminal.print(f"scores {tuple(scores.shape)}, {cost.gmacs(model, (height, width)):.2f} GMACs at {height}x{width}")


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise typer.BadParameter(f"'{text}' is not height x width, such as 320x480", param_hint="--size")
    return int(height), int(width)
