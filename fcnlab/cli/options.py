"""Command-line options that several commands share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from fcnlab.cli.references import complete_grid_file
from fcnlab.errors import ConfigError
from fcnlab.settings import DEVICE_VARIABLE, Device, RunOptions

LabOption = Annotated[
    Path | None,
    typer.Option(
        "--lab", help="Folder of the lab [default: FCNLAB_LAB, the folder above experiments/, or the current folder]"
    ),
]
DataRoot = Annotated[
    Path | None,
    typer.Option("--data-root", help="Folder that contains the datasets [default: FCNLAB_DATA]"),
]
TrackingUri = Annotated[
    str | None,
    typer.Option("--tracking-uri", help="MLflow tracking URI [default: MLFLOW_TRACKING_URI, or mlflow.db in the lab]"),
]
TrackerOption = Annotated[
    str | None,
    typer.Option(
        "--tracker",
        help="Trackers to publish to: mlflow, tensorboard, an extension, several separated by commas, or none "
        "[default: FCNLAB_TRACKER, or mlflow]",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", min=1, help="Trials that run at the same time [default: one per GPU, or by cores and memory]"
    ),
]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, help="CPU threads per trial [default: a share of the cores]")
]
DeviceOption = Annotated[
    Device,
    typer.Option("--device", envvar=DEVICE_VARIABLE, help="Device for training; auto selects CUDA if there is a GPU"),
]

ExecutorOption = Annotated[
    str,
    typer.Option(
        "--executor", help="process (worker processes), serial (in this process), ray (Ray cluster), or an extension"
    ),
]
PerGpu = Annotated[int, typer.Option("--per-gpu", min=1, help="Trials per GPU")]
DevicesPerTrial = Annotated[
    int,
    typer.Option("--devices-per-trial", min=1, help="GPUs that train one trial together (CPU processes without a GPU)"),
]
Address = Annotated[
    str | None,
    typer.Option("--address", help="Ray cluster, as host:port or auto [default: one on this machine]"),
]
CheckpointEvery = Annotated[
    float,
    typer.Option("--checkpoint-every", min=0, help="Seconds between two checkpoints of a trial; 0: after each epoch"),
]
LogEvery = Annotated[
    int | None,
    typer.Option(
        "--log-every", min=1, help="Steps between two training losses that are recorded and published [default: none]"
    ),
]
HANG_TIMEOUT_TEXT = f"{RunOptions.hang_timeout:.0f}"
"""The default of `--hang-timeout`, which may also be `off`."""

HangTimeout = Annotated[
    str,
    typer.Option(
        "--hang-timeout",
        metavar="SECONDS|off",
        help="Kill and resume a trial without progress for this time, or 10 times its longest step if that is more",
    ),
]


def parse_hang_timeout(text: str) -> float | None:
    """Return the seconds of `--hang-timeout`; None for `off`.

    Args:
        text: the value on the command line.

    Raises:
        ConfigError: it is neither `off` nor a number.
    """
    if text == "off":
        return None
    try:
        return float(text)
    except ValueError:
        raise ConfigError(
            f"--hang-timeout {text}: expected a positive number of seconds, such as 600, or off"
        ) from None


def parse_size(option: str, text: str) -> tuple[int, int]:
    """Return the height and width that an option is given.

    Args:
        option: name of the option.
        text: its value on the command line.

    Raises:
        ConfigError: it is not two positive numbers of pixels.
    """
    found = re.fullmatch(r"0*([1-9][0-9]*)x0*([1-9][0-9]*)", text)
    if found is None:
        raise ConfigError(f"{option}: '{text}' is not a size; give height x width, such as 320x480")
    return int(found[1]), int(found[2])


FailFast = Annotated[
    bool, typer.Option("--fail-fast/--keep-going", help="After a failed trial, start no further trial")
]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Run failed trials again; their records are discarded")
]

GridFile = Annotated[
    Path,
    typer.Argument(metavar="FILE", help="Grid file", show_default=False, autocompletion=complete_grid_file),
]
