"""`fcnlab grid plan|run|status|sync|retry`: questions, and what has come of them."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import typer

from fcnlab.cli.options import DataRoot, GridFile, LabOption, Threads, TrackingUri, Workers, console

if TYPE_CHECKING:
    from rich.table import Table

    from fcnlab.execute.driver import Outcome
    from fcnlab.execute.plan import Plan, Planned
    from fcnlab.places import Lab
    from fcnlab.spec.grid import Grid

app = typer.Typer(help="Plan, run and watch a grid of trials.", no_args_is_help=True)

RUN = "Example: fcnlab grid run experiments/quickstart.yaml"


@app.command(epilog="Example: fcnlab grid plan experiments/quickstart.yaml")
def plan(file: GridFile, lab: LabOption = None, data_root: DataRoot = None) -> None:
    """Check a grid and show its cells: what is finished, what is left, how long it may take."""
    from fcnlab.execute.plan import make_plan
    from fcnlab.places import Lab

    place = Lab.find(file, lab=lab, data_root=data_root)
    made = make_plan(place.grid(file), place)
    terminal = console()
    terminal.print(_states(made))
    terminal.print(_estimate(made))


@app.command(epilog=RUN)
def run(
    file: GridFile,
    workers: Workers = None,
    threads: Threads = None,
    lab: LabOption = None,
    data_root: DataRoot = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Run what is left of a grid, then show its table. Exit code 1 if a trial failed, 130 if it was stopped."""
    from fcnlab.places import Lab

    place = Lab.find(file, lab=lab, data_root=data_root, tracking_uri=tracking_uri)
    _run(place.grid(file), place, workers, threads)


@app.command(epilog="Example: fcnlab grid retry experiments/quickstart.yaml")
def retry(
    file: GridFile,
    workers: Workers = None,
    threads: Threads = None,
    lab: LabOption = None,
    data_root: DataRoot = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Run the failed trials of a grid again, and what else is left of it."""
    from fcnlab.execute.driver import forget_failed
    from fcnlab.places import Lab

    place = Lab.find(file, lab=lab, data_root=data_root, tracking_uri=tracking_uri)
    grid = place.grid(file)
    typer.echo(f"{forget_failed(grid, place)} failed trials will be run again")
    _run(grid, place, workers, threads)


@app.command(epilog="Example: fcnlab grid status experiments/quickstart.yaml")
def status(file: GridFile, lab: LabOption = None, data_root: DataRoot = None) -> None:
    """Show how far a grid is, also while another terminal runs it."""
    from fcnlab.execute.plan import make_plan
    from fcnlab.places import Lab

    place = Lab.find(file, lab=lab, data_root=data_root)
    made = make_plan(place.grid(file), place)
    terminal = console()
    terminal.print(_states(made, epochs=True))
    for planned, record in made.ended:
        if record.failure is not None:
            terminal.print(
                f"failed: {planned.cell.label}, seed {planned.trial.seed}: {record.failure.message}",
                markup=False,
            )
            terminal.print(f"        its log: {planned.folder.log}", soft_wrap=True)


@app.command(epilog="Example: fcnlab grid sync experiments/quickstart.yaml")
def sync(file: GridFile, lab: LabOption = None, data_root: DataRoot = None, tracking_uri: TrackingUri = None) -> None:
    """Publish to MLflow what it lacks of a grid, without running anything, and write the report."""
    from fcnlab.execute.driver import sync as publish
    from fcnlab.execute.watch import PlainWatcher
    from fcnlab.places import Lab

    place = Lab.find(file, lab=lab, data_root=data_root, tracking_uri=tracking_uri)
    grid = place.grid(file)
    _conclude(publish(grid, place, PlainWatcher(console())), grid, place)


def _run(grid: Grid, lab: Lab, workers: int | None, threads: int | None) -> None:

    from fcnlab.execute import driver
    from fcnlab.execute.process import ProcessExecutor, plan_slots
    from fcnlab.execute.watch import LiveWatcher, PlainWatcher

    terminal = console()
    watcher = LiveWatcher(terminal) if terminal.is_terminal else PlainWatcher(terminal)
    signal.signal(signal.SIGTERM, _stop)  # clusters say SIGTERM where people press Ctrl-C
    try:
        with watcher:
            outcome = driver.run(
                grid, lab, lambda: ProcessExecutor(lab, plan_slots(grid.recipes, workers, threads)), watcher
            )
    except KeyboardInterrupt:
        typer.echo(f"stopped; what is finished stays. Go on with: fcnlab grid run {_shown(grid.path)}", err=True)
        raise typer.Exit(130) from None
    _conclude(outcome, grid, lab)


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _conclude(outcome: Outcome, grid: Grid, lab: Lab) -> None:
    """Show the table and say where everything is."""
    file = _shown(grid.path)
    typer.echo(f"{outcome.finished} finished ({outcome.reused} had ended before), {outcome.failed} failed")
    if outcome.postponed is not None:
        typer.echo(f"not published: {outcome.postponed}\npublish later with: fcnlab grid sync {file}", err=True)
    else:
        from fcnlab.api import report
        from fcnlab.cli.report import show

        show(grid, report(grid, lab=lab))
        typer.echo(f"compare the runs in MLflow: fcnlab ui{_elsewhere(lab)}")
    if not outcome.ok:
        typer.echo(f"see why: fcnlab grid status {file}; run them again: fcnlab grid retry {file}", err=True)
    if not outcome.ok or outcome.postponed is not None:
        raise typer.Exit(1)


def _elsewhere(lab: Lab) -> str:
    return "" if lab.root == Path.cwd() else f" --lab {_shown(lab.root)}"


def _shown(path: Path) -> str:
    """A path as the user would type it here."""
    absolute = path.resolve()
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else str(absolute)


def _states(plan: Plan, *, epochs: bool = False) -> Table:
    from rich.table import Table

    table = Table(title=f"{plan.grid.name}: {plan.grid.file.question}", title_justify="left", title_style="bold")
    table.add_column("cell")
    for seed in plan.grid.seeds:
        table.add_column(f"seed {seed}")
    for cell in plan.grid.cells:
        row = [cell.label + (" (baseline)" if cell is plan.grid.baseline else "")]
        row += [_state(planned, epochs) for planned in plan.trials if planned.cell is cell]
        table.add_row(*row)
    for planned in plan.before:
        at = plan.grid.seeds.index(planned.trial.seed)
        table.add_row(f"first: {planned.trial.names['variant']}", *[""] * at, _state(planned, epochs))
    return table


def _state(planned: Planned, epochs: bool) -> str:
    done = len(planned.folder.read_progress()) if epochs and planned.state == "started" else 0
    return f"epoch {done}/{planned.trial.recipe.epochs}" if done else planned.state


def _estimate(plan: Plan) -> str:
    from fcnlab.execute.process import plan_slots
    from fcnlab.execute.watch import duration

    costs = [record.cost for _, record in plan.ended if record.cost is not None]
    ended = f"{plan.count('finished')} finished, {plan.count('failed')} failed"
    text = f"{len(plan.everything)} trials: {ended}, {len(plan.left)} to run"
    if not plan.left:
        return text
    slots = min(len(plan_slots(plan.grid.recipes)), len(plan.left))
    if not costs:
        return f"{text}, {slots} at once; no trial of this grid has finished yet to tell how long one takes"
    each = sum(cost.train_seconds + cost.evaluate_seconds for cost in costs) / len(costs)
    return f"{text}, {slots} at once; about {duration(each * len(plan.left) / slots)} by the trials that finished"
