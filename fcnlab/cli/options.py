"""Command-line options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fcnlab.settings import DEVICE_VARIABLE, Device

LabOption = Annotated[
    Path | None,
    typer.Option("--lab", help="The lab's folder [default: FCNLAB_LAB, the folder around experiments/, or this one]"),
]
DataRoot = Annotated[
    Path | None,
    typer.Option("--data-root", help="The folder that holds the datasets' folders [default: FCNLAB_DATA]"),
]
TrackingUri = Annotated[
    str | None,
    typer.Option("--tracking-uri", help="MLflow's store [default: MLFLOW_TRACKING_URI, or mlflow.db in the lab]"),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Trials at once [default: one a GPU, or by cores and memory]"),
]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, help="CPU threads a trial [default: a share of the cores]")
]
DeviceOption = Annotated[
    Device,
    typer.Option("--device", envvar=DEVICE_VARIABLE, help="What trains; auto is CUDA where there is a GPU"),
]

ExecutorOption = Annotated[
    str,
    typer.Option("--executor", help="process, serial or ray: worker processes, the driver, or Ray; or an extension"),
]
PerGpu = Annotated[int, typer.Option("--per-gpu", min=1, help="Trials that share a GPU")]
DevicesPerTrial = Annotated[
    int,
    typer.Option("--devices-per-trial", min=1, help="GPUs that train a trial together; CPU processes if there is none"),
]
Address = Annotated[
    str | None,
    typer.Option("--address", help="Of a Ray cluster, as host:port or auto [default: one on this machine]"),
]
CheckpointEvery = Annotated[
    float,
    typer.Option("--checkpoint-every", min=0, help="Seconds between two checkpoints of a trial; 0: after each epoch"),
]
FailFast = Annotated[
    bool, typer.Option("--fail-fast/--keep-going", help="Whether a failed trial ends the run, after the epoch")
]


GridFile = Annotated[Path, typer.Argument(metavar="FILE", help="The grid's YAML file", show_default=False)]
