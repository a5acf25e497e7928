"""`fcnlab ui`: MLflow over the lab's store, lean and on this machine alone."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from fcnlab.cli.options import LabOption, TrackingUri
from fcnlab.errors import RunError, TrackingError

EXAMPLE = "Example: fcnlab ui --port 5000"


def ui(
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="The port to listen on")] = 5000,
    lab: LabOption = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Open the MLflow UI of the lab's store on the loopback interface; Ctrl-C ends it."""
    from fcnlab.places import Lab

    place = Lab.find(lab=lab, tracking_uri=tracking_uri)
    uri = place.tracking_uri
    if uri.startswith(("http://", "https://")):
        typer.echo(f"the store is a server; open {uri}")
        return
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        raise TrackingError(
            f"{uri}: nothing is recorded yet; run a grid first: fcnlab grid run experiments/quickstart.yaml"
        )
    _refuse_taken(port)
    typer.echo(f"MLflow: http://127.0.0.1:{port} (Ctrl-C ends it)")
    # Job execution starts a dozen processes that a lab has no use for.
    environment = {
        **os.environ,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--host", "127.0.0.1"]
    os.execve(sys.executable, [*command, "--port", str(port), "--workers", "1"], environment)


def _refuse_taken(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise RunError(f"port {port} cannot be used ({error.strerror}); choose another with --port") from None
