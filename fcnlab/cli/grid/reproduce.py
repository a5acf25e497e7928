"""`fcnlab grid reproduce`: run one trial again and compare its metrics with its record."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fcnlab.cli.options import DataRoot, DeviceOption, LabOption
from fcnlab.cli.references import TRIAL_FORMS, find_named_trial, reference_argument
from fcnlab.paths import relative_to_cwd, resolve_path

if TYPE_CHECKING:
    from fcnlab.lab import Lab
    from fcnlab.runner.plan import PlannedTrial
    from fcnlab.settings import Device
    from fcnlab.trial.record import Record

EXAMPLE = "Example: fcnlab grid reproduce experiments/quickstart.yaml:fcn8s,random:1 --dry-run"


def reproduce(
    trial: Annotated[str, reference_argument("TRIAL", f"The trial: {TRIAL_FORMS}")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the command")] = False,
    workdir: Annotated[
        Path | None,
        typer.Option("--workdir", metavar="DIR", help="Folder to write to", show_default="a new temporary folder"),
    ] = None,
    device: DeviceOption = "auto",
    lab: LabOption = None,
    data_root: DataRoot = None,
) -> None:
    """Run a trial again, and compare its metrics with its record.

    The command is printed first. It writes to a separate folder: no cached record is used, and the lab does not change.
    A temporary folder is removed if the metrics are equal. Exit code 1 if a metric differs. With the same --workdir, an
    interrupted trial resumes.
    """
    import shutil

    from fcnlab.errors import RunError
    from fcnlab.lab import Lab
    from fcnlab.runner.commands import format_path
    from fcnlab.runner.find import find_grid_file
    from fcnlab.trial.run_folder import RunFolder

    own = Lab.find(find_grid_file(trial), root=lab, data_root=data_root)
    planned = find_named_trial(trial, own).as_planned()
    record = planned.record
    folder = workdir or _new_folder(planned)
    words = command(planned, record, own, folder, device)
    typer.echo(shlex.join(words))
    if dry_run:
        return
    if record is None:
        raise RunError(f"{trial}: {planned.description}: no record to compare with")
    if record.status == "failed":
        raise RunError(
            f"{trial}: {planned.description}: this trial has failed and has no metrics to compare with; use --dry-run "
            "to print its command"
        )
    again = RunFolder(Lab(resolve_path(folder)).runs, planned.key)
    if again.read() is not None:
        raise RunError(f"--workdir {folder}: this trial has already run there; choose a new folder")
    is_interrupted = _run([sys.executable, "-P", "-m", *words])
    reproduced = again.read()
    if reproduced is None and is_interrupted:
        option = f" with --workdir {format_path(folder)}" if workdir is None else ""
        typer.echo(f"to resume and compare, repeat the command `grid reproduce`{option}", err=True)
        raise typer.Exit(130)
    if reproduced is None:
        raise RunError(f"{folder}: the trial has not ended; see its output above")
    _compare(record, reproduced)
    if workdir is None:
        shutil.rmtree(folder, ignore_errors=True)


def _run(words: list[str]) -> bool:
    """Run a command, and return whether there was Ctrl-C; a terminal sends it to the command too, which pauses."""
    import signal
    import subprocess

    received: list[int] = []
    # `subprocess.run` would kill the command soon after a KeyboardInterrupt.
    former = signal.signal(signal.SIGINT, lambda number, _: received.append(number))
    try:
        subprocess.run(words, check=False)
    finally:
        signal.signal(signal.SIGINT, former)
    return bool(received)


def _new_folder(planned: PlannedTrial) -> Path:
    import tempfile
    import uuid

    return Path(tempfile.gettempdir()) / f"fcnlab-reproduce-{planned.key[:8]}-{uuid.uuid4().hex[:8]}"


def command(planned: PlannedTrial, record: Record | None, lab: Lab, folder: Path, device: Device = "auto") -> list[str]:
    """Return the arguments of the command that runs a trial in a separate folder.

    With `device="auto"` it trains on the recorded kind of device.
    """
    from fcnlab.runner.commands import list_options, train_words

    words = train_words(planned.cell, planned.trial.seed, lab.registry)
    recorded = record.environment.kind if record is not None and record.environment is not None else "auto"
    kind = recorded if device == "auto" else device
    words += ["--device", kind] if kind != "auto" else []
    if record is not None and record.environment is not None:
        devices = record.environment.devices
        words += ["--threads", str(devices * record.environment.threads)]
        words += ["--devices-per-trial", str(devices)] if devices > 1 else []
    words += list_options(lab, None, ("--lab",))
    if lab.data_root is not None:
        words += ["--data-root", str(relative_to_cwd(lab.data_root))]
    return [*words, "--workdir", str(folder)]


def _compare(recorded: Record, again: Record) -> None:
    """Print whether the metrics are equal, and else the differences and possible causes."""
    from fcnlab.report.tables.columns import format_points
    from fcnlab.trial.diff import diff_records, find_divergence, have_equal_metrics

    if have_equal_metrics(recorded, again):
        typer.echo("identical: all metrics, losses and learning rates equal the record bit for bit")
        return
    differences = diff_records(recorded, again)
    for difference in differences:
        if difference.section == "metrics" and difference.delta is not None:
            values = f"{100 * difference.a:.2f} recorded, {100 * difference.b:.2f} now"
            typer.echo(f"{difference.field}: {values} ({format_points(difference.delta, 2)})")
    epoch = find_divergence(recorded, again)
    typer.echo(f"the losses differ from epoch {epoch} on" if epoch is not None else "the losses are equal")
    for difference in differences:
        if difference.section in ("code", "environment", "run"):
            typer.echo(f"differs: {difference.field}: {difference.a} recorded, {difference.b} now")
    typer.echo(_reason(recorded, again))
    raise typer.Exit(1)


def _reason(recorded: Record, again: Record) -> str:
    """Describe when metrics can differ."""
    environments = (recorded.environment, again.environment)
    if any(environment is None for environment in environments):
        return "a failed trial has no metrics to compare"
    if not all(environment.repeatable for environment in environments if environment is not None):
        return "on a GPU metrics are not repeatable bit for bit; expect differences within the spread of the seeds"
    return "on the CPU metrics repeat bit for bit with the same code, versions, threads, precision and kind of CPU"
