"""`fcnlab grid retry`: the former name of `fcnlab grid run --retry-failed`."""

from __future__ import annotations

from shlex import join

import typer

from fcnlab.errors import RunError


def retry(context: typer.Context) -> None:
    """Print the command that has replaced this one."""
    command = join(["fcnlab", "grid", "run", *(context.args or ["FILE"]), "--retry-failed"])
    raise RunError(f"`fcnlab grid retry` is now an option of `fcnlab grid run`: {command}")
