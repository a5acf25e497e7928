"""`fcnlab data`: look at datasets, check them, bring them here. One file a verb."""

from __future__ import annotations

import typer

from fcnlab.cli.data import check, list

app = typer.Typer(help="Look at datasets, check them, bring them here.", no_args_is_help=True)
app.command("list", epilog=list.EXAMPLE)(list.list_)
app.command("check", epilog=check.EXAMPLE)(check.check)
