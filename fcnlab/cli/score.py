"""`fcnlab score`: a grid's finished trials scored again under a protocol, apart from their plain figures."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from fcnlab.cli.inference_options import Flip, Scales, Stride, Tta, Window, progress, protocol_of
from fcnlab.cli.options import DataRoot, GridFile, LabOption
from fcnlab.console import create_console

EXAMPLE = "Example: fcnlab score experiments/quickstart.yaml --flip --scales 0.75,1,1.25"


def score(
    file: GridFile,
    flip: Flip = False,
    scales: Scales = None,
    tta: Tta = False,
    window: Window = None,
    stride: Stride = None,
    checkpoint: Annotated[
        Literal["last", "best"] | None,
        typer.Option("--checkpoint", help="The weights: of the last epoch, or best on val [default: the grid's]"),
    ] = None,
    lab: LabOption = None,
    data_root: DataRoot = None,
) -> None:
    """Score a grid's finished trials again with test-time augmentation or windows, beside their plain figures.

    What was scored so before is read again. The table goes to results/<grid>/score-<protocol>.md and .csv. One trial
    alone is scored by `fcnlab evaluate`.
    """
    from fcnlab.errors import RunError
    from fcnlab.lab import Lab

    protocol = protocol_of(flip, scales, tta, window, stride)
    place = Lab.find(file, root=lab, data_root=data_root)
    grid = place.load_grid(file)
    wanted = checkpoint or grid.file.checkpoint

    from fcnlab.report.evaluation import Rescored, score_footnote, score_frame, score_table, write_scores
    from fcnlab.report.tables.formats import to_terminal
    from fcnlab.runner.plan import make_plan
    from fcnlab.training import hardware
    from fcnlab.trial.evaluate import evaluate_trial
    from fcnlab.trial.find import FinishedTrial

    planned = [one for one in make_plan(grid, place).trials if one.state == "finished"]
    if not planned:
        raise RunError(f"{file}: none of its trials has finished; run it first: fcnlab grid run {file}")
    hardware.retain_freed_memory()
    rescored = []
    for one in planned:
        assert one.record is not None, "it has finished"
        finished = FinishedTrial(one.trial, one.record, one.folder)
        told = progress(f"{one.cell.label}, seed {one.trial.seed}")
        under = evaluate_trial(finished, place, protocol, wanted, told)
        rescored.append(Rescored(one, finished.reported_metrics(wanted), under))
    slug = protocol.slug + ("-best" if wanted == "best" else "")
    page = write_scores(grid, rescored, place, slug)
    terminal = create_console()
    table = score_table(score_frame(grid, rescored))
    terminal.print(to_terminal(table, f"{grid.file.question} ({protocol})", terminal.width))
    terminal.print(score_footnote(rescored), style="dim")
    typer.echo(f"scores: {page}")
