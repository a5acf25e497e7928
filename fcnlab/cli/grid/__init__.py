"""`fcnlab grid`: commands to plan, run and watch grids."""

from __future__ import annotations

import typer

from fcnlab.cli.grid import plan, reproduce, run, schema, status, sync

app = typer.Typer(help="Plan, run and watch a grid of trials.", no_args_is_help=True)
app.command("plan", epilog=plan.EXAMPLE)(plan.plan)
app.command("schema", epilog=schema.EXAMPLE)(schema.schema)
app.command("run", epilog=run.EXAMPLE)(run.run)
app.command("reproduce", epilog=reproduce.EXAMPLE)(reproduce.reproduce)
app.command("status", epilog=status.EXAMPLE)(status.status)
app.command("sync", epilog=sync.EXAMPLE)(sync.sync)
