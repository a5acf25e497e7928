"""The `fcnlab data` commands, one module per command."""

from __future__ import annotations

import typer

from fcnlab.cli.data import add, cache, check, fetch, list, preview, stats

app = typer.Typer(help="List, check, preview, add and download datasets.", no_args_is_help=True)
app.command("list", epilog=list.EXAMPLE)(list.list_)
app.command("add", epilog=add.EXAMPLE)(add.add)
app.command("check", epilog=check.EXAMPLE)(check.check)
app.command("stats", epilog=stats.EXAMPLE)(stats.stats)
app.command("preview", epilog=preview.EXAMPLE)(preview.preview)
app.command("fetch", epilog=fetch.EXAMPLE)(fetch.fetch)
app.add_typer(cache.app, name="cache")
