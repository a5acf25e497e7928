"""The commands `fcnlab model show` and `fcnlab model compare`: structure and cost of variants."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fcnlab.cli.options import VARIANT_HELP, LabOption, parse_size
from fcnlab.cli.output import AsJson, print_json, write_csv
from fcnlab.console import create_console, format_table
from fcnlab.settings import DEVICE_VARIABLE, Device

if TYPE_CHECKING:
    import torch

    from fcnlab.config.variant import Variant
    from fcnlab.models import FCN

app = typer.Typer(help="Show and compare variants.", no_args_is_help=True)

Classes = Annotated[int, typer.Option("--num-classes", metavar="N", min=1, help="Number of classes")]
SizeOption = Annotated[str, typer.Option("--size", metavar="HxW", help="Image size in pixels")]
Measure = Annotated[bool, typer.Option("--measure", help="Measure latency and throughput on this machine, in float32")]
DeviceOption = Annotated[
    Device,
    typer.Option("--device", envvar=DEVICE_VARIABLE, help="Device for --measure; auto: CUDA if there is a GPU"),
]


@app.command(epilog="Example: fcnlab model show fcn8s-resnet18 --size 320x480")
def show(
    variant: Annotated[str, typer.Argument(metavar="VARIANT", help=VARIANT_HELP, show_default=False)],
    num_classes: Classes = 21,
    size: SizeOption = "320x480",
    measure: Measure = False,
    device: DeviceOption = "auto",
    as_json: AsJson = False,
    lab: LabOption = None,
) -> None:
    """Show the feature maps, parameters and costs of a variant. Pretrained weights are not loaded."""
    wanted = parse_size("--size", size)
    components = _components(variant, lab)
    model = _model(variant, num_classes, lab)

    import torch  # imported late, so that a typing mistake is reported quickly

    from fcnlab.training import cost

    on = _measuring(measure, device)
    with torch.inference_mode():
        features = model.backbone(torch.zeros(1, 3, *wanted))
        scores = model.head(features, wanted)
    read = {*components.head.needs, *components.head.optional}
    fields = cost.measure_receptive_fields(model.backbone, features)
    maps = [
        {"stride": stride, "channels": map_.shape[1], "height": map_.shape[2], "width": map_.shape[3]}
        | {"receptive_field": fields[stride], "used": stride in read}
        for stride, map_ in features.items()
    ]
    sizes = [
        {"component": name, "parameters": cost.count_parameters(module)}
        | {"trainable": cost.count_parameters(module, trainable=True)}
        for name, module in {**cost.split_components(model), "all": model}.items()
    ]
    costs = _costs(variant, model, wanted, on)
    if as_json:
        facts = {"variant": variant, "num_classes": num_classes, "size": list(wanted), "feature_maps": maps}
        print_json(facts | {"components": sizes, "scores": list(scores.shape), "costs": asdict(costs)})
        return
    title = f"{variant}: feature maps of {components.backbone.architecture} at {size}"
    _print_structure(title, maps, sizes)
    create_console().print(
        f"scores {tuple(scores.shape)}, output stride {model.head.output_stride}", *costs.lines(), sep="\n"
    )


def _print_structure(title: str, maps: list[dict[str, Any]], sizes: list[dict[str, Any]]) -> None:
    """Print the feature maps and the parameters of a variant."""
    terminal = create_console()
    headings = ("stride", "channels", "height x width", "receptive field", "used by the head")
    rows = [
        (
            str(one["stride"]),
            str(one["channels"]),
            f"{one['height']} x {one['width']}",
            "the whole image" if one["receptive_field"] is None else str(one["receptive_field"]),
            "yes" if one["used"] else "",
        )
        for one in maps
    ]
    terminal.print(format_table(headings, rows, terminal.width, title=title))
    counts = [(one["component"], f"{one['parameters']:,}", f"{one['trainable']:,}") for one in sizes]
    terminal.print("", format_table(("component", "parameters", "trainable"), counts, terminal.width, numbers=(1, 2)))


@app.command(epilog="Example: fcnlab model compare fcn32s-resnet18 fcn8s-resnet18 dilated8-resnet50 --sort gmacs")
def compare(
    variants: Annotated[list[str], typer.Argument(metavar="VARIANT", help=VARIANT_HELP, show_default=False)],
    num_classes: Classes = 21,
    size: SizeOption = "320x480",
    sort: Annotated[
        str, typer.Option("--sort", metavar="COLUMN", help="Sort by this column; in descending order: -COLUMN")
    ] = "",
    csv_file: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Also write the costs to this CSV file")
    ] = None,
    measure: Measure = False,
    device: DeviceOption = "auto",
    as_json: AsJson = False,
    lab: LabOption = None,
) -> None:
    """Compare the costs of variants, one row per variant. Pretrained weights are not loaded."""
    from fcnlab.errors import ConfigError, nearest

    wanted = parse_size("--size", size)
    columns = [name for name in Costs.__dataclass_fields__ if measure or name not in Costs.MEASURED]
    key = sort.removeprefix("-")
    if key and key not in columns:
        raise ConfigError(f"--sort: no column '{key}'; {nearest(key, columns)}")
    for variant in variants:  # before torch is imported and the first of them is built
        _components(variant, lab)
    rows, on = [], _measuring(measure, device)
    for variant in variants:
        rows.append(_costs(variant, _model(variant, num_classes, lab), wanted, on))
    if key:
        rows.sort(key=lambda row: getattr(row, key), reverse=sort.startswith("-"))
    values = [{name: getattr(row, name) for name in columns} for row in rows]
    if csv_file is not None:
        write_csv(csv_file, values)
    if as_json:
        print_json({"num_classes": num_classes, "size": list(wanted), "variants": values})
        return
    terminal = create_console()
    headings = [Costs.HEADINGS[name] for name in columns]
    texts = [[row.text(name) for name in columns] for row in rows]
    optional = [columns.index(name) for name in Costs.DETAILS]
    numbers = range(1, len(columns))
    title = f"{num_classes} classes, one image of {size}"
    terminal.print(format_table(headings, texts, terminal.width, numbers=numbers, optional=optional, title=title))


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
        "training_gmacs": "training GMACs",
        "activation_mb": "act. MB",
        "latency_ms": "ms",
        "images_per_s": "images/s",
        "device": "device",
    }
    DETAILS = ("training_gmacs", "upsampler_params", "stride")
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
    """Return the device on which speed is measured, or None without --measure; then one CPU thread is used."""
    if not measure:
        import torch

        torch.set_num_threads(1)  # for a few small operations, threads mostly wait for each other
        return None
    from fcnlab.training.hardware import resolve_device

    return resolve_device(device)


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


def _components(variant: str, lab: Path | None) -> Variant:
    """Return the configuration of a variant without importing torch."""
    from fcnlab.api import variant_config
    from fcnlab.lab import Lab

    return variant_config(variant, Lab.find(root=lab))


def _model(variant: str, num_classes: int, lab: Path | None) -> FCN:
    from fcnlab.api import build_model
    from fcnlab.lab import Lab

    return build_model(variant, num_classes, pretrained=False, lab=Lab.find(root=lab)).eval()
