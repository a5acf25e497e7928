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
    from fcnlab.api import build_model, variant_config
    from fcnlab.lab import Lab

    image_size = parse_size("--size", size)
    lab_ = Lab.find(root=lab)
    config = variant_config(variant, lab_)

    import torch  # imported late, so that a typing mistake is reported quickly

    from fcnlab.training import cost

    model = build_model(variant, num_classes, pretrained=False, lab=lab_).eval()
    speed_device = _find_speed_device(measure, device)
    with torch.inference_mode():
        features = model.backbone(torch.zeros(1, 3, *image_size))
        scores = model.head(features, image_size)
    used = {*config.head.needs, *config.head.optional}
    receptive_fields = cost.measure_receptive_fields(model.backbone, features)
    feature_maps = [
        {
            "stride": stride,
            **dict(zip(("channels", "height", "width"), feature.shape[1:], strict=True)),
            "receptive_field": receptive_fields[stride],
            "used": stride in used,
        }
        for stride, feature in features.items()
    ]
    components = [
        {
            "component": name,
            "parameters": cost.count_parameters(module),
            "trainable": cost.count_parameters(module, trainable=True),
        }
        for name, module in {**cost.split_components(model), "all": model}.items()
    ]
    costs = _compute_costs(variant, model, image_size, speed_device)
    if as_json:
        values = {"variant": variant, "num_classes": num_classes, "size": list(image_size)}
        values |= {"feature_maps": feature_maps, "components": components}
        print_json(values | {"scores": list(scores.shape), "costs": asdict(costs)})
        return
    title = f"{variant}: feature maps of {config.backbone.architecture} at {size}"
    _print_structure(title, feature_maps, components)
    create_console().print(
        f"scores {tuple(scores.shape)}, output stride {model.head.output_stride}", *costs.describe(), sep="\n"
    )


def _print_structure(title: str, feature_maps: list[dict[str, Any]], components: list[dict[str, Any]]) -> None:
    """Print the feature maps and the parameters of a variant."""
    terminal = create_console()
    headings = ("stride", "channels", "height x width", "receptive field", "used by the head")
    rows = [
        (
            str(feature_map["stride"]),
            str(feature_map["channels"]),
            f"{feature_map['height']} x {feature_map['width']}",
            str(feature_map["receptive_field"] or "the whole image"),
            "yes" if feature_map["used"] else "",
        )
        for feature_map in feature_maps
    ]
    terminal.print(format_table(headings, rows, terminal.width, title=title))
    counts = [
        (component["component"], f"{component['parameters']:,}", f"{component['trainable']:,}")
        for component in components
    ]
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
    from fcnlab.api import build_model, variant_config
    from fcnlab.errors import ConfigError, nearest
    from fcnlab.lab import Lab

    image_size = parse_size("--size", size)
    lab_ = Lab.find(root=lab)
    columns = [name for name in Costs.__dataclass_fields__ if measure or name not in Costs.MEASURED]
    key = sort.removeprefix("-")
    if key and key not in columns:
        raise ConfigError(f"--sort: no column '{key}'; {nearest(key, columns)}")
    for variant in variants:  # before torch is imported and the first of them is built
        variant_config(variant, lab_)
    rows, speed_device = [], _find_speed_device(measure, device)
    for variant in variants:
        model = build_model(variant, num_classes, pretrained=False, lab=lab_).eval()
        rows.append(_compute_costs(variant, model, image_size, speed_device))
    if key:
        rows.sort(key=lambda row: getattr(row, key), reverse=sort.startswith("-"))
    values = [{name: getattr(row, name) for name in columns} for row in rows]
    if csv_file is not None:
        write_csv(csv_file, values)
    if as_json:
        print_json({"num_classes": num_classes, "size": list(image_size), "variants": values})
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

    def describe(self) -> list[str]:
        """Return the costs other than parameters, one line per cost."""
        auxiliary = f", {self.training_gmacs:.3f} with the auxiliary head used in training"
        lines = [
            f"{self.gmacs:.3f} GMACs" + (auxiliary if self.training_gmacs != self.gmacs else ""),
            f"{self.activation_mb:.1f} MB of activations per image, kept by a training step in float32",
        ]
        if self.latency_ms is not None:
            from fcnlab.training.cost import SPEED_BATCH

            speed = f"{self.latency_ms:.1f} ms for one image, {self.images_per_s:.1f} images/s"
            lines.append(f"{speed} in batches of {SPEED_BATCH}, on {self.device}")
        return lines


def _find_speed_device(measure: bool, device: str) -> torch.device | None:
    """Return the device on which speed is measured, or None without --measure; then one CPU thread is used."""
    if not measure:
        import torch

        torch.set_num_threads(1)  # for a few small operations, threads mostly wait for each other
        return None
    from fcnlab.training.hardware import resolve_device

    return resolve_device(device)


def _compute_costs(name: str, model: FCN, size: tuple[int, int], speed_device: torch.device | None) -> Costs:
    """Compute the costs of a model; with a device, also move the model to it and measure its speed."""
    from fcnlab.training import cost, hardware

    parameters = {part: cost.count_parameters(module) for part, module in cost.split_components(model).items()}
    activations = cost.measure_activation_bytes(model, size) / 1e6
    speed = None
    if speed_device is not None:
        with hardware.create_autocast(speed_device, "fp32")():  # disables TF32
            speed = cost.measure_speed(hardware.move_to_device(model, speed_device), size)
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
        device=speed_device.type if speed_device is not None else None,
    )
