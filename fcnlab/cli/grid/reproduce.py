"""`fcnlab grid reproduce`: the one command that reproduces a trial, run again and compared with what is recorded."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fcnlab.cli.grid.running import shown
from fcnlab.cli.options import DataRoot, DeviceOption, GridFile, LabOption

if TYPE_CHECKING:
    from fcnlab.lab import Lab
    from fcnlab.runner.plan import PlannedTrial
    from fcnlab.settings import Device
    from fcnlab.trial.record import Record

EXAMPLE = "Example: fcnlab grid reproduce experiments/quickstart.yaml 'fcn8s, random' --seed 1 --dry-run"


def reproduce(
    file: GridFile,
    cell: Annotated[
        str, typer.Argument(help="A cell's label or a part of it, or the beginning of a key", show_default=False)
    ],
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Which of its trials [default: the first]")] = None,
    show: Annotated[bool, typer.Option("--dry-run", help="Print the command and do not run it")] = False,
    into: Annotated[
        Path | None, typer.Option("--workdir", help="The folder that it runs in [default: a new temporary one]")
    ] = None,
    device: DeviceOption = "auto",
    lab: LabOption = None,
    data_root: DataRoot = None,
) -> None:
    """Print the one command that reproduces a trial, run it, and compare. Exit code 1 if a figure is another now.

    It runs in a folder apart from the lab, so that it really runs again; nothing of the lab is changed.
    """
    import subprocess
    import sys

    from fcnlab.errors import RunError
    from fcnlab.lab import Lab
    from fcnlab.runner.find import find_trial
    from fcnlab.runner.plan import make_plan

    place = Lab.find(file, root=lab, data_root=data_root)
    planned = find_trial(make_plan(place.load_grid(file), place), cell, seed)
    record = planned.record
    folder = into or _new_folder(planned)
    words = command(planned, record, place, folder, device)
    typer.echo(shlex.join(words))
    if show:
        return
    if record is None:
        raise RunError(f"{file}: {planned.cell.label}, seed {planned.trial.seed}: nothing is recorded to compare with")
    again = Lab(folder.resolve())
    if (again.runs / planned.key).exists():
        raise RunError(f"--workdir {folder}: this trial has run there; name a new folder")
    subprocess.run([sys.executable, "-m", *words], check=False)
    _compare(record, _read(again, planned))


def _new_folder(planned: PlannedTrial) -> Path:
    import tempfile
    import uuid

    return Path(tempfile.gettempdir()) / f"fcnlab-reproduce-{planned.key[:8]}-{uuid.uuid4().hex[:8]}"


def command(planned: PlannedTrial, record: Record | None, lab: Lab, folder: Path, device: Device = "auto") -> list[str]:
    """The words of the command that runs a trial in a folder of its own, as a shell takes them from here.

    With `device` at `auto` it trains on the kind of device that is recorded.
    """
    from fcnlab.config.grid.candidate import to_overrides

    said = to_overrides(planned.cell, lab.registry)
    variant = "+".join(str(said.pop(part)) for part in ("backbone", "head", "upsampler"))
    words = ["fcnlab", "train", variant, "--dataset", str(said.pop("dataset")), "--recipe", str(said.pop("recipe"))]
    for axis, value in said.items():
        words += ["--set", f"{axis}={_yaml(value)}"]
    words += ["--seed", str(planned.trial.seed)]
    recorded = record.environment.kind if record is not None and record.environment is not None else "auto"
    kind = recorded if device == "auto" else device
    words += ["--device", kind] if kind != "auto" else []
    if record is not None and record.environment is not None:
        devices = record.environment.devices
        words += ["--threads", str(devices * record.environment.threads)]
        words += ["--devices-per-trial", str(devices)] if devices > 1 else []
    if lab.root != Path.cwd():
        words += ["--lab", shown(lab.root)]
    if lab.data_root is not None:
        words += ["--data-root", shown(lab.data_root)]
    return [*words, "--workdir", str(folder)]


def _yaml(value: Any) -> str:
    """A value in one line, as `--set` reads it."""
    import yaml

    text = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


def _read(lab: Lab, planned: PlannedTrial) -> Record:
    from fcnlab.errors import RunError
    from fcnlab.trial.run_folder import RunFolder

    record = RunFolder(lab.runs, planned.key).read()
    if record is None:
        raise RunError(f"{lab.root}: the trial did not end there; what it said stands above")
    return record


def _compare(recorded: Record, again: Record) -> None:
    """Say whether the figures are the same, and if they are not, what may be why."""
    from fcnlab.trial.diff import diff_records, find_divergence, have_equal_metrics

    if have_equal_metrics(recorded, again):
        typer.echo("identical: every figure, loss and rate is the recorded one, bit by bit")
        return
    found = diff_records(recorded, again)
    for one in found:
        if one.section == "metrics" and one.delta is not None:
            typer.echo(f"{one.field}: {100 * one.a:.2f} recorded, {100 * one.b:.2f} now ({100 * one.delta:+.2f})")
    epoch = find_divergence(recorded, again)
    typer.echo(f"the losses part with epoch {epoch}" if epoch is not None else "the losses are the same")
    for one in found:
        if one.section in ("code", "environment", "run"):
            typer.echo(f"not as recorded: {one.field}: {one.a} then, {one.b} now")
    typer.echo(_reason(recorded, again))
    raise typer.Exit(1)


def _reason(recorded: Record, again: Record) -> str:
    """Why figures may differ at all."""
    environments = (recorded.environment, again.environment)
    if any(environment is None for environment in environments):
        return "a trial that failed has no figures to compare"
    if not all(environment.repeatable for environment in environments if environment is not None):
        return "on a GPU figures do not repeat bit by bit; differences within the spread of the seeds are expected"
    return "on the CPU figures repeat bit by bit with the same code, versions, threads, precision and kind of CPU"
