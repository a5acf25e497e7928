"""`fcnlab ui`: open the MLflow UI of a lab's store."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fcnlab.cli.options import LabOption, TrackingUri
from fcnlab.errors import RunError, TrackingError

if TYPE_CHECKING:
    from fcnlab.lab import Lab

EXAMPLE = "Example: fcnlab ui experiments/quickstart.yaml"


def ui(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Grid file; print the address of its comparison only")
    ] = None,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port to listen on")] = 5000,
    lab: LabOption = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Open the MLflow UI of the lab's store on the loopback interface; Ctrl-C ends it.

    Prints the address of each grid's comparison: its cells side by side, averaged over seeds.
    """
    from fcnlab.lab import Lab
    from fcnlab.tracking.store import is_installed

    lab_ = Lab.find(file, root=lab, tracking_uri=tracking_uri)
    uri = lab_.tracking_uri
    if uri.startswith(("http://", "https://")):
        addresses = _list_addresses(lab_, uri, file)
        typer.echo("\n".join([f"the store is a server; open {uri}", *addresses]))
        return
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        raise TrackingError(
            f"{uri}: nothing is recorded yet; run a grid first: fcnlab grid run experiments/quickstart.yaml"
        )
    if not is_installed():
        raise TrackingError("MLflow is not installed; install it with: pip install mlflow")
    _refuse_taken(port)
    addresses = _list_addresses(lab_, f"http://127.0.0.1:{port}", file)
    typer.echo("\n".join([f"MLflow: http://127.0.0.1:{port} (Ctrl-C ends it)", *addresses]))
    # Job execution starts a dozen processes that a lab does not use.
    environment = {
        **os.environ,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--host", "127.0.0.1"]
    os.execve(sys.executable, [*command, "--port", str(port), "--workers", "1"], environment)


def _list_addresses(lab: Lab, server: str, file: Path | None) -> list[str]:
    """Return the address of each grid's comparison, or of one grid's, one per line.

    Raises:
        TrackingError: the store has nothing of the file, or its experiment is deleted.
    """
    from fcnlab.config.grid.name import name_grid
    from fcnlab.errors import nearest
    from fcnlab.runner.grid_state import noted_experiments
    from fcnlab.tracking.store import check_experiment
    from fcnlab.tracking.view import format_url

    noted = noted_experiments(lab)
    wanted = name_grid(file) if file is not None else None
    if wanted is not None and wanted not in noted:
        raise TrackingError(f"{file}: nothing of this grid is in {lab.tracking_uri} yet; {nearest(wanted, noted)}")
    lines = []
    for name in noted if wanted is None else [wanted]:
        try:
            if file is not None or server != lab.tracking_uri:  # a server may take long to answer for every grid
                check_experiment(lab.tracking_uri, f"fcnlab/{name}", lab.artifacts)
            lines.append(f"  {name}: {format_url(server, noted[name])}")
        except TrackingError as error:
            if file is not None:
                raise
            lines.append(f"  {name}: {error}")
    return lines


def _refuse_taken(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise RunError(f"port {port} cannot be used ({error.strerror}); choose another with --port") from None
