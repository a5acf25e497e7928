"""The command line. Each command has a module of its own; slow imports are made inside the commands."""

from __future__ import annotations

import gc
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from fcnlab.cli import (
    compare,
    data,
    diff,
    doctor,
    evaluate,
    export,
    grid,
    init,
    lab,
    model,
    predict,
    registry,
    report,
    train,
    ui,
    weights,
)
from fcnlab.console import replace_unencodable
from fcnlab.errors import FcnlabError, RunError
from fcnlab.redaction import clean_text, redact_output
from fcnlab.settings import ALLOW_EXTENSIONS_VARIABLE
from fcnlab.storage_errors import OF_A_FILE, describe_storage_error, ensure_open_files, find_storage_error
from fcnlab.version import __version__


class Commands(TyperGroup):
    """The commands of `fcnlab`; the error of an unknown one names the group that has a command of this name."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that the words begin with, or exit with an error."""
        groups = [
            f"fcnlab {name} {args[0]}"
            for name, group in self.commands.items()
            if isinstance(group, TyperGroup) and args[0] in group.commands
        ]
        if groups and self.get_command(ctx, args[0]) is None:
            ctx.fail(f"No such command '{args[0]}'; did you mean `{'` or `'.join(groups)}`?")
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="fcnlab",
    cls=Commands,
    help="Comparison experiments on Fully Convolutional Networks: from a grid file in YAML to an ablation table.",
    epilog="Example: fcnlab grid run experiments/quickstart.yaml",
    no_args_is_help=True,
    context_settings={"max_content_width": 120},
    rich_markup_mode=None,  # with rich, brackets in help texts would be markup
    pretty_exceptions_enable=False,
)


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"fcnlab {__version__}")
        raise typer.Exit


@app.callback()
def configure(
    allow_extensions: Annotated[
        bool,
        typer.Option("--allow-extensions", help="Allow the lab's registry/extensions.yaml to run its Python files"),
    ] = False,
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options of all commands."""
    if allow_extensions:
        os.environ[ALLOW_EXTENSIONS_VARIABLE] = "1"


app.command("init", epilog=init.EXAMPLE)(init.init)
app.command("doctor", epilog=doctor.EXAMPLE)(doctor.doctor)
app.command("train", epilog=train.EXAMPLE)(train.train)
app.command("report", epilog=report.EXAMPLE)(report.report)
app.command("compare", epilog=compare.EXAMPLE)(compare.compare)
app.command("diff", epilog=diff.EXAMPLE)(diff.diff)
app.command("evaluate", epilog=evaluate.EXAMPLE)(evaluate.evaluate)
app.command("predict", epilog=predict.EXAMPLE)(predict.predict)
app.command("export", epilog=export.EXAMPLE)(export.export)
app.command("ui", epilog=ui.EXAMPLE)(ui.ui)
app.add_typer(grid.app, name="grid")
app.add_typer(data.app, name="data")
app.add_typer(registry.app, name="registry")
app.add_typer(model.app, name="model")
app.add_typer(weights.app, name="weights")
app.add_typer(lab.app, name="lab")


def main() -> None:
    """Run `fcnlab`. Errors of the user and of storage, and lack of memory, are one line and exit code 2."""
    gc.set_threshold(50_000, 20, 100)  # importing torch makes many objects and no garbage; Python's default is 700
    for stream in (sys.stdout, sys.stderr):
        replace_unencodable(stream)
    redact_output()
    try:
        ensure_open_files()
        _check_current_folder()
        app()
    except FcnlabError as error:
        _exit_with(str(error))
    except Exception as error:
        storage_error = find_storage_error(error)
        if storage_error is None and isinstance(error, OSError) and error.errno in OF_A_FILE:
            storage_error = error
        if storage_error is not None:
            _exit_with(clean_text(describe_storage_error(storage_error)))
        if "torch" not in sys.modules or not _is_out_of_memory(error):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        _exit_with(f"out of memory: {reason}")


def _check_current_folder() -> None:
    """Check that the current folder exists: another process, also on another machine, can remove it.

    Raises:
        RunError: it was removed.
    """
    try:
        Path.cwd()
    except FileNotFoundError:
        raise RunError("the current folder was removed; change to another folder with cd") from None


def _is_out_of_memory(error: Exception) -> bool:
    from fcnlab.training.hardware import is_out_of_memory

    return is_out_of_memory(error)


def _exit_with(message: str) -> NoReturn:
    """Print an error and exit; indented lines of the message are code to paste."""
    with suppress(BrokenPipeError):  # nothing reads standard error any more
        for line in message.splitlines():
            is_code = line.startswith("    ")
            print(line[4:] if is_code else f"fcnlab: error: {line}", file=sys.stderr)  # noqa: T201
    sys.exit(2)
