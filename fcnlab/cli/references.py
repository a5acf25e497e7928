"""Names of trials and cells on the command line: lookup and shell completion."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from fcnlab.cli.output import report_missing_inputs
from fcnlab.constants import KEY_DIGITS
from fcnlab.errors import list_some
from fcnlab.paths import relative_to_cwd

if TYPE_CHECKING:
    from fcnlab.constants import CheckpointChoice
    from fcnlab.inference.model import TrainedModel
    from fcnlab.lab import Lab
    from fcnlab.runner.find import Reference

MAX_SEEDS = 5
"""Maximum number of seeds that a message lists."""


def complete_grid_file(incomplete: str) -> list[str]:
    """Complete the path of a grid file: the files below experiments/ of the lab, and others by their folder."""
    from fcnlab.lab import Lab

    typed = Path(incomplete)
    folder = typed if incomplete.endswith("/") else typed.parent
    files = [*Path("experiments").rglob("*.y*ml"), *Path(Lab.find().root, "experiments").rglob("*.y*ml")]
    names = [str(relative_to_cwd(file)) for file in files] + [str(file) for file in folder.glob("*.y*ml")]
    return sorted({name for name in names if name.startswith(incomplete)})


def complete_reference(incomplete: str) -> list[str]:
    """Complete the name of a trial or cell: a grid file, a cell of the file, or the key of a trial."""
    from fcnlab.errors import FcnlabError
    from fcnlab.lab import Lab
    from fcnlab.runner.find import BEST
    from fcnlab.trial.storage.quarantine import list_keys

    for suffix in (".yaml:", ".yml:"):
        if suffix in incomplete:
            file = Path(incomplete[: incomplete.index(suffix) + len(suffix) - 1])
            try:
                cells = Lab.find(file).load_grid(file).cells
            except FcnlabError:  # there is nothing to complete
                return []
            names = [f"{file}:{name}" for name in (BEST, *("".join(cell.label.split()) for cell in cells))]
            return [name for name in names if name.startswith(incomplete)]
    runs = Lab.find().runs
    keys = [key for key in list_keys(runs) if key.startswith(incomplete)]
    return [*(f"{file}:" for file in complete_grid_file(incomplete)), *(key[:KEY_DIGITS] for key in keys)]


TRIAL_FORMS = (
    "FILE:CELL or FILE:CELL:SEED of a grid file, FILE:best for the cell with the highest mean mIoU, the beginning of "
    "a trial's key, or its run folder"
)
"""How a trial is named on the command line."""


def reference_argument(metavar: str, help_text: str) -> Any:
    """Return an argument that names a trial, a cell or a model, with shell completion."""
    return typer.Argument(metavar=metavar, help=help_text, show_default=False, autocompletion=complete_reference)


def find_named(*names: str, lab: Lab) -> list[Reference]:
    """Find trials or cells, and print to standard error which cell `best` is, and missing data or weights.

    Neither torch nor MLflow is imported.

    Args:
        *names: names of the trials or cells.
        lab: the lab that contains the run folders.
    """
    from fcnlab.runner.find import find_reference

    references = [find_reference(name, lab) for name in names]
    report_missing_inputs(*(reference.plan for reference in references if reference.plan is not None))
    for reference in references:
        if reference.note is not None:
            typer.echo(reference.note, err=True)
    return references


def find_named_trials(*names: str, lab: Lab) -> list[Reference]:
    """Find trials, and print to standard error which seed each is if its name is that of a cell with several.

    Args:
        *names: names of the trials.
        lab: the lab that contains the run folders.
    """
    references = find_named(*names, lab=lab)
    for reference in references:
        if reference.planned is not None and reference.plan is not None and reference.seed is None:
            seeds = reference.plan.grid.seeds
            if len(seeds) > 1:
                used = f"the trial with seed {reference.planned.trial.seed} of {list_some(seeds, MAX_SEEDS)}"
                typer.echo(f"{reference.planned.cell_name}: {used}; add :SEED for another", err=True)
    return references


def find_named_trial(name: str, lab: Lab) -> Reference:
    """Find one trial as `find_named_trials`.

    Args:
        name: name of the trial.
        lab: the lab that contains the run folders.
    """
    return find_named_trials(name, lab=lab)[0]


def load_named(
    name: str, checkpoint: CheckpointChoice | None, lab: Path | None, data_root: Path | None
) -> TrainedModel:
    """Load the model of a finished trial or an exported file; the default checkpoint is that of the grid, or `last`."""
    from fcnlab.api import load_model
    from fcnlab.lab import Lab
    from fcnlab.runner.find import find_grid_file

    return load_model(name, checkpoint, Lab.find(find_grid_file(name), root=lab, data_root=data_root), find_named_trial)
