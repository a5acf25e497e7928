"""The questions that come with fcnlab: YAML only; `fcnlab init` copies the quickstart from here."""
