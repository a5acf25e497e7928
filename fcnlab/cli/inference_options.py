"""What the verbs that predict share: which weights, under which protocol, and how far they are."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from fcnlab.training.evaluate import OnProgress
    from fcnlab.training.protocol import Protocol

TrialName = Annotated[
    str, typer.Argument(metavar="TRIAL", help="A trial's key or its beginning, or its run folder", show_default=False)
]
ModelName = Annotated[
    str,
    typer.Argument(metavar="TRIAL", help="A trial, as its key or run folder, or an exported .safetensors",
                   show_default=False),
]  # fmt: skip
CheckpointOption = Annotated[
    Literal["last", "best"], typer.Option("--checkpoint", help="The weights: of the last epoch, or best on val")
]
Flip = Annotated[bool, typer.Option("--flip", help="Predict each image from left to right, too")]
Scales = Annotated[
    str | None,
    typer.Option("--scales", help="Predict each image at these factors of the size it is scored at [default: 1]"),
]
Tta = Annotated[bool, typer.Option("--tta", help="Test-time augmentation: as --flip --scales 0.75,1,1.25")]
Window = Annotated[str | None, typer.Option("--window", help="Predict larger images in windows of height x width")]
Stride = Annotated[str | None, typer.Option("--stride", help="Rows x columns from window to window")]


def protocol_of(flip: bool, scales: str | None, tta: bool, window: str | None, stride: str | None) -> Protocol:
    """The protocol that the options ask for.

    Raises:
        ConfigError: an option that cannot be read, or that another one contradicts.
    """
    from fcnlab.errors import ConfigError
    from fcnlab.training.protocol import Protocol

    if tta and (flip or scales is not None):
        raise ConfigError("--tta stands for --flip --scales 0.75,1,1.25; give it alone or those two")
    return Protocol(
        (0.75, 1.0, 1.25) if tta else _factors(scales or "1"),
        flip or tta,
        _pair("--window", window) if window else None,
        _pair("--stride", stride) if stride else None,
    )


def progress(label: str) -> OnProgress:
    """Say on standard error how many images are done: in place in a terminal, elsewhere every tenth part."""
    live = sys.stderr.isatty()

    def told(done: int, images: int) -> None:
        if live:
            typer.echo(f"\r{label}: {done} of {images} images", err=True, nl=done == images)
        elif done == images or done % max(1, images // 10) == 0:
            typer.echo(f"{label}: {done} of {images} images", err=True)

    return told


def _factors(text: str) -> tuple[float, ...]:
    from fcnlab.errors import ConfigError

    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--scales: factors with commas between, such as 0.75,1,1.25; not '{text}'") from None


def _pair(option: str, text: str) -> tuple[int, int]:
    from fcnlab.errors import ConfigError

    if not re.fullmatch(r"\d+x\d+", text):
        raise ConfigError(f"{option}: height x width in pixels, such as 512x512; not '{text}'")
    height, width = map(int, text.split("x"))
    return height, width
