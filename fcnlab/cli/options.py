"""Command-line options that several commands share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from fcnlab.cli.references import complete_grid_file
from fcnlab.errors import ConfigError
from fcnlab.settings import DEVICE_VARIABLE, TRACKER_VARIABLE, Device, RunOptions

LabOption = Annotated[
    Path | None,
    typer.Option(
        "--lab",
        metavar="DIR",
        help="Folder of the lab",
        show_default="FCNLAB_LAB, the folder above experiments/, or the current folder",
    ),
]
DataRoot = Annotated[
    Path | None,
    typer.Option("--data-root", metavar="DIR", help="Folder that contains the datasets", show_default="FCNLAB_DATA"),
]
TrackingUri = Annotated[
    str | None,
    typer.Option(
        "--tracking-uri",
        metavar="URI",
        help="MLflow tracking URI",
        show_default="MLFLOW_TRACKING_URI, or mlflow.db in the lab",
    ),
]
TrackerOption = Annotated[
    str | None,
    typer.Option(
        "--tracker",
        metavar="NAMES",
        help="Trackers to publish to, separated by commas: mlflow, tensorboard, extensions; or none",
        show_default=f"{TRACKER_VARIABLE}, or mlflow",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N",
        min=1,
        help="Number of trials that run at the same time",
        show_default="one per GPU, or by cores and memory",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads", metavar="N", min=1, help="Number of CPU threads per trial", show_default="a share of the cores"
    ),
]
DeviceOption = Annotated[
    Device,
    typer.Option("--device", envvar=DEVICE_VARIABLE, help="Device for training; auto: CUDA if there is a GPU"),
]
ExecutorOption = Annotated[
    str,
    typer.Option(
        "--executor",
        metavar="NAME",
        help="How trials run: process (worker processes), serial (in this process), ray (Ray cluster), or an extension",
    ),
]
PerGpu = Annotated[int, typer.Option("--per-gpu", metavar="N", min=1, help="Number of trials that share a GPU")]
DevicesPerTrial = Annotated[
    int,
    typer.Option(
        "--devices-per-trial",
        metavar="N",
        min=1,
        help="Number of GPUs that train one trial together; of CPU processes without a GPU",
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="HOST:PORT|auto",
        help="Address of the Ray cluster",
        show_default="a new one on this machine",
    ),
]
CheckpointEvery = Annotated[
    float,
    typer.Option(
        "--checkpoint-every",
        metavar="SECONDS",
        min=0,
        help="Time between two checkpoints of a trial; 0: one after each epoch",
    ),
]
LogEvery = Annotated[
    int | None,
    typer.Option(
        "--log-every",
        metavar="N",
        min=1,
        help="Record and publish the training loss of every Nth step, too",
        show_default="only of each epoch",
    ),
]
FailFast = Annotated[bool, typer.Option("--fail-fast/--keep-going", help="Start no further trial after a failed one")]
Wait = Annotated[
    bool, typer.Option("--wait/--no-wait", help="Wait for the end of the trials that other drivers of the grid run")
]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Run failed trials again; their records are discarded")
]
Strict = Annotated[bool, typer.Option("--strict", help="Exit with code 2 if cells are not comparable")]
VARIANT_HELP = "A variant of the registry, backbone+head or backbone+head+upsampler"
DatasetName = Annotated[str, typer.Argument(metavar="NAME", help="A dataset of the registry", show_default=False)]
GridFile = Annotated[
    Path,
    typer.Argument(metavar="FILE", help="Grid file", show_default=False, autocompletion=complete_grid_file),
]

HANG_TIMEOUT_TEXT = f"{RunOptions.hang_timeout:.0f}"
"""The default of `--hang-timeout`, which may also be `off`."""

HangTimeout = Annotated[
    str,
    typer.Option(
        "--hang-timeout",
        metavar="SECONDS|off",
        help="Kill and resume a trial without progress for this time, or 10 times its longest step if longer",
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
