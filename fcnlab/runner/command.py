"""Commands that run the trials of a cell again."""

from __future__ import annotations

from pathlib import Path
from shlex import join

from fcnlab.config.grid.candidate import to_overrides
from fcnlab.config.grid.cell import Cell
from fcnlab.config.grid.name import path_in_lab
from fcnlab.config.registry import Registry
from fcnlab.config.yaml_file import dump
from fcnlab.extensions import fcnlab_command


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
