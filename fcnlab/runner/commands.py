"""Commands that messages recommend and records contain.

A recommended command has the lab, the data root and the trackers of the command that prints it.
"""

from __future__ import annotations

import os
from pathlib import Path
from shlex import join, quote

from fcnlab.config.grid.candidate import to_overrides
from fcnlab.config.grid.cell import Cell
from fcnlab.config.grid.grid import Grid
from fcnlab.config.grid.name import path_in_lab
from fcnlab.config.registry import Registry
from fcnlab.config.yaml_file import dump
from fcnlab.errors import RunError
from fcnlab.extensions import fcnlab_command
from fcnlab.lab import Lab
from fcnlab.paths import relative_to_cwd, resolve_path
from fcnlab.redaction import mask_login
from fcnlab.settings import DEFAULT_OPTIONS, TRACKER_VARIABLE, RunOptions

_OPTIONS = {
    "grid run": ("--lab", "--data-root", "--tracking-uri", "--tracker"),
    "grid sync": ("--lab", "--data-root", "--tracking-uri", "--tracker"),
    "grid status": ("--lab", "--data-root"),
    "report": ("--lab", "--data-root", "--tracking-uri"),
    "ui": ("--lab", "--tracking-uri"),
    "data check": ("--lab", "--data-root"),
}
"""Recommended commands, and those options of theirs that select a lab and its data and trackers."""


def format_grid_command(command: str, grid: Grid, lab: Lab, *options: str) -> str:
    """Return a command with a grid file, quoted for a shell in the current folder.

    Args:
        command: the command, such as `grid status`.
        grid: the grid.
        lab: its lab.
        *options: further options.

    Returns:
        The command, such as `fcnlab grid status /data/heads.yaml --lab ../lab`. It has `--allow-extensions` if the grid
        needs it.
    """
    return format_command(command, lab, *options, file=grid.path, start=fcnlab_command(*grid.cells))


def format_command(command: str, lab: Lab, *words: str, file: Path | None = None, start: str = "fcnlab") -> str:
    """Return a command, quoted for a shell in the current folder.

    Args:
        command: the command, such as `data check`.
        lab: the lab that it uses.
        *words: further arguments and options.
        file: the grid file that it uses.
        start: the start of the command.

    Returns:
        The command, with the options that select the lab, its data root and its trackers unless they are the default in
        the current folder and environment. A URI has `USER:PASSWORD` in place of the user and the password.
    """
    files = [] if file is None else [format_path(file)]
    options = join(list_options(lab, file, _OPTIONS[command]))
    return " ".join([start, command, *files, *map(quote, words), *([options] if options else [])])


def format_path(path: Path) -> str:
    """Return a path for a command in the current folder, quoted for a shell; it is never taken for an option.

    Args:
        path: path of a file or folder.
    """
    text = str(relative_to_cwd(path))
    return quote(f"./{text}" if text.startswith("-") else text)


def list_options(lab: Lab, file: Path | None, options: tuple[str, ...]) -> list[str]:
    """Return the words of the options that select a lab, its data root and its trackers.

    Args:
        lab: the lab.
        file: the grid file of the command; a file in `experiments/` selects its lab.
        options: names of the options that the command has.

    Returns:
        The options and their values, without those whose default is the value of the lab.
    """
    usual = Lab.find(root=lab.root, trackers="none")
    values = {}
    if resolve_path(lab.root) != _find_usual_root(file):
        values["--lab"] = str(relative_to_cwd(lab.root))
    if lab.data_root is not None and resolve_path(lab.data_root) != usual.data_root:
        values["--data-root"] = str(relative_to_cwd(lab.data_root))
    if lab.tracking_uri not in ("", usual.tracking_uri):
        values["--tracking-uri"] = mask_login(lab.tracking_uri)
    trackers = ",".join(lab.trackers) or "none"
    if trackers != (os.environ.get(TRACKER_VARIABLE) or "mlflow"):
        values["--tracker"] = trackers
    return [word for option in options if option in values for word in (option, values[option])]


def list_run_options(options: RunOptions) -> list[str]:
    """Return the words of the options of `grid run` that are not at their default, without `--retry-failed`.

    Args:
        options: options of a run.
    """
    timeout = "off" if options.hang_timeout is None else f"{options.hang_timeout:g}"
    values = {
        "--executor": (options.executor, DEFAULT_OPTIONS.executor),
        "--workers": (options.workers, DEFAULT_OPTIONS.workers),
        "--threads": (options.threads, DEFAULT_OPTIONS.threads),
        "--device": (options.device, DEFAULT_OPTIONS.device),
        "--per-gpu": (options.per_gpu, DEFAULT_OPTIONS.per_gpu),
        "--devices-per-trial": (options.devices_per_trial, DEFAULT_OPTIONS.devices_per_trial),
        "--address": (options.address, DEFAULT_OPTIONS.address),
        "--checkpoint-every": (f"{options.checkpoint_every:g}", f"{DEFAULT_OPTIONS.checkpoint_every:g}"),
        "--log-every": (options.log_every, DEFAULT_OPTIONS.log_every),
        "--hang-timeout": (timeout, f"{DEFAULT_OPTIONS.hang_timeout:g}"),
    }
    words = [word for option, (value, usual) in values.items() if value != usual for word in (option, str(value))]
    flags = {"--fail-fast": options.fail_fast, "--no-wait": not options.wait}
    return [*words, *(flag for flag, is_given in flags.items() if is_given)]


def _find_usual_root(file: Path | None) -> Path | None:
    """Return the folder of the lab that a command without `--lab` uses; None if it does not exist."""
    try:
        return Lab.find(file, trackers="none").root
    except RunError:
        return None


def train_words(cell: Cell, seed: int, registry: Registry) -> list[str]:
    """Return the words of the `fcnlab train` command that runs a trial without its grid file.

    Args:
        cell: the cell of the trial.
        seed: the seed of the trial.
        registry: the components.
    """
    overrides = to_overrides(cell, registry)
    variant = "+".join(str(overrides.pop(kind)) for kind in ("backbone", "head", "upsampler"))
    dataset, recipe = (str(overrides.pop(kind)) for kind in ("dataset", "recipe"))
    words = [*fcnlab_command(cell).split(), "train", variant, "--dataset", dataset, "--recipe", recipe]
    for axis, value in overrides.items():
        text = dump(value, flow=True, width=float("inf")).removesuffix("\n").removesuffix("\n...")
        words += ["--set", f"{axis}={text}"]
    return [*words, "--seed", str(seed)]


def reproduce_command(file: Path, cell: Cell, seed: int) -> str:
    """Return the command, quoted for a shell, that runs a trial again from the folder of its lab.

    Args:
        file: grid file of the trial.
        cell: the cell of the trial.
        seed: the seed of the trial.
    """
    label = cell.label.replace(", ", ",")
    words = [*fcnlab_command(cell).split(), "grid", "reproduce", f"{path_in_lab(file)}:{label}:{seed}"]
    return join(words)
