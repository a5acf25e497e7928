"""`fcnlab score`: finished trials scored again under a protocol, apart from their plain figures."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fcnlab.cli.options import DataRoot, LabOption, console

if TYPE_CHECKING:
    from fcnlab.places import Lab
    from fcnlab.training.protocol import Protocol
    from fcnlab.trial.rescore import Choice, Progress

EXAMPLE = "Example: fcnlab score experiments/quickstart.yaml --flip --scales 0.75,1,1.25"


def score(
    what: Annotated[
        str, typer.Argument(metavar="FILE|KEY", help="A grid's YAML file, or a trial's key", show_default=False)
    ],
    flip: Annotated[bool, typer.Option("--flip", help="Predict each image from left to right, too")] = False,
    scales: Annotated[
        str, typer.Option("--scales", help="Predict each image at these factors of the size it is scored at")
    ] = "1",
    window: Annotated[
        str | None, typer.Option("--window", help="Predict larger images in windows of height x width")
    ] = None,
    stride: Annotated[str | None, typer.Option("--stride", help="Rows x columns from window to window")] = None,
    choice: Annotated[
        Literal["last", "best"] | None,
        typer.Option("--choice", help="The weights: of the last epoch, or best on val [default: the grid's, or last]"),
    ] = None,
    lab: LabOption = None,
    data_root: DataRoot = None,
) -> None:
    """Score finished trials again with test-time augmentation or sliding windows, beside their plain figures.

    What was scored so before is read again. A grid's table goes to results/<grid>/score-<protocol>.md and .csv.
    """
    from fcnlab.places import Lab
    from fcnlab.training.protocol import Protocol

    protocol = Protocol(
        _factors(scales), flip, _pair("--window", window) if window else None,
        _pair("--stride", stride) if stride else None,
    )  # fmt: skip
    file = Path(what)
    if re.fullmatch(r"[0-9a-f]{8,64}", what) and not file.exists():
        _score_trial(what, Lab.find(lab=lab, data_root=data_root), protocol, choice or "last")
    else:
        _score_grid(file, Lab.find(file, lab=lab, data_root=data_root), protocol, choice)


def _score_grid(file: Path, lab: Lab, protocol: Protocol, choice: Choice | None) -> None:
    from fcnlab.errors import RunError
    from fcnlab.execute.plan import make_plan
    from fcnlab.report.score import Rescored, score_footnote, score_frame, score_table, write_scores
    from fcnlab.report.tables import to_terminal
    from fcnlab.training import hardware
    from fcnlab.trial.rescore import rescore

    grid = lab.grid(file)
    wanted = choice or grid.file.select
    planned = [one for one in make_plan(grid, lab).trials if one.state == "finished"]
    if not planned:
        raise RunError(f"{file}: none of its trials has finished; run it first: fcnlab grid run {file}")
    hardware.keep_freed_memory()
    rescored = []
    for one in planned:
        assert one.record is not None, "it has finished"
        plain = one.record.score(one.trial.report_split, wanted)
        assert plain is not None, "a finished trial has scored the split that it reports"
        label = f"{one.cell.label}, seed {one.trial.seed}"
        under = rescore(one.trial, one.record, lab, protocol, wanted, _progress(label))
        rescored.append(Rescored(one, plain, under))
    slug = protocol.slug + ("-best" if wanted == "best" else "")
    page = write_scores(grid, rescored, lab, slug)
    terminal = console()
    table = score_table(score_frame(grid, rescored))
    terminal.print(to_terminal(table, f"{grid.file.question} ({protocol})", terminal.width))
    terminal.print(score_footnote(rescored), style="dim")
    typer.echo(f"scores: {page}")


def _score_trial(key: str, lab: Lab, protocol: Protocol, choice: Choice) -> None:
    from fcnlab.errors import RunError
    from fcnlab.training import hardware
    from fcnlab.trial.record import RunFolder
    from fcnlab.trial.rescore import read_trial, rescore

    found = sorted(path.name for path in lab.runs.glob(f"{key}*")) if lab.runs.is_dir() else []
    if len(found) != 1:
        raise RunError(f"{lab.runs}: {len(found) or 'no'} trials with a key that begins with {key}; give it in full")
    folder = RunFolder(lab.runs, found[0])
    record = folder.read()
    if record is None or record.status != "finished":
        raise RunError(f"{folder.path}: this trial has not finished, so there is nothing to score")
    trial = read_trial(folder, lab)
    hardware.keep_freed_memory()
    under = rescore(trial, record, lab, protocol, choice, _progress(f"{trial.names['variant']}, seed {trial.seed}"))
    plain = record.score(trial.report_split, choice)
    assert plain is not None, "a finished trial has scored the split that it reports"
    for name, scores in (("plain", plain), (under.name, under.scores)):
        figures = {"mIoU": scores.miou, "pixel acc.": scores.pixel_acc, "boundary IoU": scores.boundary_iou}
        shown = "  ".join(f"{what} {100 * v:5.2f}" if v is not None else f"{what}     –" for what, v in figures.items())
        typer.echo(f"{scores.split} {scores.choice} (epoch {scores.epoch}) %:  {shown}  {name}")
    typer.echo(f"{under.seconds_per_image:.3f} s an image, {under.precision} on {under.device}")
    typer.echo(f"scores: {folder.scores}")


def _progress(label: str) -> Progress:
    """Say on standard error how many images are done: in place in a terminal, elsewhere every tenth part."""
    live = sys.stderr.isatty()

    def told(done: int, images: int) -> None:
        if live:
            typer.echo(f"\r{label}: {done} of {images} images", err=True, nl=done == images)
        elif done == images or done % max(1, images // 10) == 0:
            typer.echo(f"{label}: {done} of {images} images", err=True)

    return told


def _factors(text: str) -> tuple[float, ...]:
    from fcnlab.errors import SpecError

    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise SpecError(f"--scales: factors with commas between, such as 0.75,1,1.25; not '{text}'") from None


def _pair(option: str, text: str) -> tuple[int, int]:
    from fcnlab.errors import SpecError

    if not re.fullmatch(r"\d+x\d+", text):
        raise SpecError(f"{option}: height x width in pixels, such as 512x512; not '{text}'")
    height, width = map(int, text.split("x"))
    return height, width
