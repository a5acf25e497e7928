"""The grid files that ship with fcnlab; `fcnlab init` copies the quickstart from here."""
