"""`fcnlab ui`: open the MLflow UI of a lab's store."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fcnlab.cli.options import LabOption, TrackingUri
from fcnlab.errors import TrackingError
from fcnlab.paths import exists

if TYPE_CHECKING:
    from fcnlab.lab import Lab

EXAMPLE = "Example: fcnlab ui experiments/quickstart.yaml"


def ui(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Grid file: only print the address of its comparison")
    ] = None,
    host: Annotated[
        str,
        typer.Option("--host", metavar="HOST", help="Network interface to listen on; 0.0.0.0: all, without a password"),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="N", min=1, max=65535, help="Port to listen on")] = 5000,
    lab: LabOption = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Open the MLflow UI of a lab.

    By default only this machine can reach it. When it answers, the address of each grid's comparison is printed: its
    cells side by side, averaged over seeds. Ctrl-C ends it.
    """
    from fcnlab.lab import Lab
    from fcnlab.runner.commands import format_command
    from fcnlab.tracking.database import check_connection
    from fcnlab.tracking.server import format_url, list_own_names, refuse_taken_port, serve
    from fcnlab.tracking.store import check_database, find_database, is_installed

    lab_ = Lab.find(file, root=lab, tracking_uri=tracking_uri)
    uri = lab_.tracking_uri
    if uri.startswith(("http://", "https://")):
        addresses = _list_addresses(lab_, uri, file)
        typer.echo("\n".join([f"the store is a server; open {uri}", *addresses]))
        return
    check_database(uri)
    database = find_database(uri)
    if database is not None and not exists(database):
        example = lab_.root / "experiments" / "quickstart.yaml"
        command = format_command("grid run", lab_, file=file or example)
        raise TrackingError(f"{uri}: nothing is recorded yet; run a grid first: {command}")
    if not is_installed():
        raise TrackingError("MLflow is not installed; install it with: pip install mlflow")
    check_connection(uri)
    refuse_taken_port(host, port)
    try:
        with serve(uri, host, port, lab_.state / "mlflow-ui.log") as server:
            address = format_url(list_own_names(host)[0], port)
            addresses = _list_addresses(lab_, address, file)
            server.wait_until_ready()
            typer.echo("\n".join([f"MLflow: {address} (Ctrl-C ends it)", *addresses, _describe_access(host, port)]))
            code = server.wait()
    except KeyboardInterrupt:
        return
    raise typer.Exit(code)


def _describe_access(host: str, port: int) -> str:
    """Return how other machines reach the UI, and what that means."""
    from fcnlab.tracking.server import LOOPBACK

    tunnel = f"ssh -L {port}:127.0.0.1:{port} {socket.gethostname()}"
    if host in LOOPBACK:
        return f"from another machine: {tunnel}, then open the address there"
    return (
        "warning: MLflow has no authentication here, and everyone on the network can read, change and delete runs; "
        f"safer, without --host: {tunnel}"
    )


def _list_addresses(lab: Lab, server: str, file: Path | None) -> list[str]:
    """Return the address of each grid's comparison, or of one grid's, one per line.

    Raises:
        TrackingError: the store has nothing of the file, or its experiment is deleted.
    """
    from fcnlab.config.grid.name import name_grid
    from fcnlab.errors import nearest
    from fcnlab.runner.grid_state import noted_experiments
    from fcnlab.tracking.store import check_experiment
    from fcnlab.tracking.view import format_view_url

    noted = noted_experiments(lab)
    wanted = name_grid(file) if file is not None else None
    if wanted is not None and wanted not in noted:
        raise TrackingError(f"{file}: nothing of this grid is in {lab.tracking_uri} yet; {nearest(wanted, noted)}")
    lines = []
    for name in noted if wanted is None else [wanted]:
        try:
            if file is not None or server != lab.tracking_uri:  # a server may take long to answer for every grid
                check_experiment(lab.tracking_uri, f"fcnlab/{name}", lab.artifacts)
            lines.append(f"  {name}: {format_view_url(server, noted[name])}")
        except TrackingError as error:
            if file is not None:
                raise
            lines.append(f"  {name}: {error}")
    return lines
