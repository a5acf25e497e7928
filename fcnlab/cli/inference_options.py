"""Options and progress output of the commands that predict images."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from fcnlab.cli.options import parse_size
from fcnlab.console import create_console
from fcnlab.constants import CheckpointChoice

if TYPE_CHECKING:
    from fcnlab.training.evaluate import OnProgress
    from fcnlab.training.protocol import Protocol

PROGRESS_SECONDS = 10.0
"""Seconds between two lines of progress in a log."""

CheckpointOption = Annotated[
    CheckpointChoice | None,
    typer.Option(
        "--checkpoint",
        help="Weights of the last epoch, or of the best one on val",
        show_default="that of the grid file, else last",
    ),
]
InferenceThreads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        metavar="N",
        min=1,
        help="Number of CPU threads; 1 where other programs use the cores",
        show_default="all cores",
    ),
]
Flip = Annotated[bool, typer.Option("--flip", help="Average the predictions of each image and its mirror image")]
Scales = Annotated[
    str | None,
    typer.Option(
        "--scales",
        metavar="S,S,...",
        help="Average the predictions at these scales, relative to the recipe's score_scale",
        show_default="only 1",
    ),
]
Tta = Annotated[bool, typer.Option("--tta", help="Test-time augmentation: same as --flip --scales 0.75,1,1.25")]
Window = Annotated[
    str | None,
    typer.Option("--window", metavar="HxW", help="Predict in sliding windows of this size in pixels, such as 512x512"),
]
Stride = Annotated[
    str | None,
    typer.Option(
        "--stride", metavar="HxW", help="Vertical and horizontal distance of windows in pixels, such as 341x341"
    ),
]


def parse_protocol(flip: bool, scales: str | None, tta: bool, window: str | None, stride: str | None) -> Protocol:
    """Return the protocol of the given options.

    Raises:
        ConfigError: an option is invalid, or contradicts another one.
    """
    from fcnlab.errors import ConfigError
    from fcnlab.training.protocol import Protocol

    if tta and (flip or scales is not None):
        raise ConfigError("--tta is short for --flip --scales 0.75,1,1.25; pass either --tta or --flip and --scales")
    return Protocol(
        (0.75, 1.0, 1.25) if tta else _parse_scales(scales or "1"),
        flip or tta,
        parse_size("--window", window) if window else None,
        parse_size("--stride", stride) if stride else None,
    )


def set_threads(threads: int | None) -> None:
    """Set the number of CPU threads of this process.

    Args:
        threads: the value of `--threads`; None keeps the number that torch has chosen.
    """
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def create_progress(label: str) -> OnProgress:
    """Return a callback that prints the number of finished images to standard error.

    In a terminal it updates one line; otherwise it prints a line every ten seconds and after the last image.
    """
    live, printed = create_console(stderr=True).is_terminal, time.monotonic()

    def print_progress(done: int, images: int) -> None:
        nonlocal printed
        if live:
            typer.echo(f"\r{label}: {done} of {images} images", err=True, nl=done == images)
        elif done == images or time.monotonic() - printed >= PROGRESS_SECONDS:
            printed = time.monotonic()
            typer.echo(f"{label}: {done} of {images} images", err=True)

    return print_progress


def _parse_scales(text: str) -> tuple[float, ...]:
    from fcnlab.errors import ConfigError

    try:
        return tuple(float(factor) for factor in text.split(","))
    except ValueError:
        raise ConfigError(f"--scales: must be factors separated by commas, such as 0.75,1,1.25; not '{text}'") from None
