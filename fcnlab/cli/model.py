"""The commands `fcnlab model show` and `fcnlab model compare`: structure and cost of variants."""

from __future__ import annotations

import csv
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fcnlab.cli.options import LabOption
from fcnlab.console import create_console, create_table
from fcnlab.settings import DEVICE_VARIABLE, Device

if TYPE_CHECKING:
    import torch

    from fcnlab.config.variant import Variant
    from fcnlab.lab import Lab
    from fcnlab.models import FCN

app = typer.Typer(help="Show and compare variants.", no_args_is_help=True)

Classes = Annotated[int, typer.Option("--classes", min=1, help="Number of classes")]
SizeOption = Annotated[str, typer.Option("--size", help="Image size as height x width")]
Measure = Annotated[bool, typer.Option("--measure", help="Measure latency and throughput on this machine, in float32")]
DeviceOption = Annotated[
    Device,
    typer.Option("--device", envvar=DEVICE_VARIABLE, help="Device for --measure; auto is CUDA if there is a GPU"),
]
NAME = "Name of a variant in the registry, backbone+head or backbone+head+upsampler"


@app.command(epilog="Example: fcnlab model show fcn8s-resnet18 --size 320x480")
def show(
    variant: Annotated[str, typer.Argument(help=NAME, show_default=False)],
    classes: Classes = 21,
    size: SizeOption = "320x480",
    measure: Measure = False,
    device: DeviceOption = "auto",
    lab: LabOption = None,
) -> None:
    """Show the feature maps, parameters and costs of a variant. Pretrained weights are not loaded."""
    wanted = _size(size)
    model, components = _model(variant, classes, lab)

    import torch  # imported late, so that a typing mistake is reported quickly

    from fcnlab.training import cost

    with torch.inference_mode():
        features = model.backbone(torch.zeros(1, 3, *wanted))
        scores = model.head(features, wanted)
    maps = create_table("stride", "channels", "height x width", "receptive field", "used by the head")
    maps.title = f"{variant}: feature maps of {components.backbone.architecture} at {size}"
    for stride, map_ in features.items():
        field = cost.measure_receptive_field(model.backbone, stride)
        seen = str(field) if field is not None else "the whole image"
        read = "yes" if stride in (*components.head.needs, *components.head.optional) else ""
        maps.add_row(str(stride), str(map_.shape[1]), f"{map_.shape[2]} x {map_.shape[3]}", seen, read)
    sizes = create_table("component", "parameters", "trainable")
    for name, module in {**cost.split_components(model), "all": model}.items():
        sizes.add_row(name, f"{cost.count_parameters(module):,}", f"{cost.count_parameters(module, trainable=True):,}")
    terminal = create_console()
    terminal.print(maps, sizes)
    terminal.print(f"scores {tuple(scores.shape)}, made at stride {model.head.output_stride}")
    for line in _costs(variant, model, wanted, _measuring(measure, device)).lines():
        terminal.print(line)


@app.command(epilog="Example: fcnlab model compare fcn32s-resnet18 fcn8s-resnet18 dilated8-resnet50 --sort gmacs")
def compare(
    variants: Annotated[list[str], typer.Argument(help=NAME, show_default=False)],
    classes: Classes = 21,
    size: SizeOption = "320x480",
    sort: Annotated[str | None, typer.Option("--sort", help="Column to sort by, smallest value first")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Write CSV instead of a table")] = False,
    measure: Measure = False,
    device: DeviceOption = "auto",
    lab: LabOption = None,
) -> None:
    """Compare the costs of variants, one row per variant. Pretrained weights are not loaded."""
    from fcnlab.errors import ConfigError, nearest

    wanted = _size(size)
    columns = [name for name in Costs.__dataclass_fields__ if measure or name not in Costs.MEASURED]
    if sort is not None and sort not in columns:
        raise ConfigError(f"--sort: no column '{sort}'; {nearest(sort, columns)}")
    rows, on = [], _measuring(measure, device)
    for variant in variants:
        model, _ = _model(variant, classes, lab)
        rows.append(_costs(variant, model, wanted, on))
    if sort is not None:
        rows.sort(key=lambda row: getattr(row, sort))
    if as_csv:
        writer = csv.writer(sys.stdout)
        writer.writerow(columns)
        writer.writerows([getattr(row, name) for name in columns] for row in rows)
        return

    from rich.box import SIMPLE
    from rich.table import Column

    headings = [Column(Costs.HEADINGS[name], justify="left" if name == "variant" else "right") for name in columns]
    title = f"{classes} classes, one image of {size}"
    table = create_table(*headings, title=title, box=SIMPLE, padding=0, pad_edge=False)
    for row in rows:
        table.add_row(*(row.text(name) for name in columns))
    create_console().print(table)


@dataclass(frozen=True)
class Costs:
    """Costs of one variant: a row of `model compare`."""

    variant: str
    stride: int
    backbone_params: int
    head_params: int
    upsampler_params: int
    trainable_params: int
    gmacs: float
    training_gmacs: float
    activation_mb: float
    latency_ms: float | None = None
    images_per_s: float | None = None
    device: str | None = None

    HEADINGS = {  # noqa: RUF012 - not a field: it has no annotation
        "variant": "variant",
        "stride": "stride",
        "backbone_params": "backbone M",
        "head_params": "head M",
        "upsampler_params": "ups. M",
        "trainable_params": "trainable M",
        "gmacs": "GMACs",
        "training_gmacs": "training",
        "activation_mb": "act. MB",
        "latency_ms": "ms",
        "images_per_s": "images/s",
        "device": "device",
    }
    MEASURED = ("latency_ms", "images_per_s", "device")

    def text(self, name: str) -> str:
        """Return the value of a column as text for the table.

        Args:
            name: The column.
        """
        value = getattr(self, name)
        if name.endswith("_params"):
            return f"{value / 1e6:,.3f}"
        return f"{value:,.1f}" if isinstance(value, float) else str(value)

    def lines(self) -> list[str]:
        """Return the costs other than parameters, one line per cost."""
        auxiliary = f", {self.training_gmacs:.3f} with the auxiliary head used in training"
        lines = [
            f"{self.gmacs:.3f} GMACs" + (auxiliary if self.training_gmacs != self.gmacs else ""),
            f"{self.activation_mb:.1f} MB of activations per image, kept by a training step in float32",
        ]
        if self.latency_ms is not None:
            speed = f"{self.latency_ms:.1f} ms for one image, {self.images_per_s:.1f} images/s in batches of 8"
            lines.append(f"{speed}, on {self.device}")
        return lines


def _measuring(measure: bool, device: str) -> torch.device | None:
    """Return the device on which speed is measured, or None without --measure."""
    from fcnlab.training.hardware import resolve_device

    return resolve_device(device) if measure else None


def _costs(name: str, model: FCN, size: tuple[int, int], on: torch.device | None) -> Costs:
    """Compute the costs of a model; with a device, also move the model to it and measure its speed."""
    from fcnlab.training import cost, hardware

    parameters = {name_: cost.count_parameters(module) for name_, module in cost.split_components(model).items()}
    activations = cost.measure_activation_bytes(model, size) / 1e6
    speed = None
    if on is not None:
        with hardware.create_autocast(on, "fp32")():  # disables TF32
            speed = cost.measure_speed(model.to(on), size)
    return Costs(
        variant=name,
        stride=model.head.output_stride,
        backbone_params=parameters["backbone"],
        head_params=parameters["head"],
        upsampler_params=parameters["upsamplers"],
        trainable_params=cost.count_parameters(model, trainable=True),
        gmacs=cost.count_gmacs(model, size),
        training_gmacs=cost.count_gmacs(model, size, training=True),
        activation_mb=activations,
        latency_ms=1e3 * speed.latency if speed else None,
        images_per_s=speed.images_per_s if speed else None,
        device=on.type if on is not None else None,
    )


def _model(variant: str, classes: int, lab: Path | None) -> tuple[FCN, Variant]:
    from fcnlab.api import build_model, variant_config
    from fcnlab.lab import Lab

    found: Lab = Lab.find(root=lab)
    components = variant_config(variant, found)
    return build_model(variant, classes, pretrained=False, lab=found).eval(), components


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise typer.BadParameter(f"'{text}' is not a size; give height x width, such as 320x480", param_hint="--size")
    return int(height), int(width)
