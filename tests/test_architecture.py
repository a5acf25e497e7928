"""The layers of docs/architecture.md are those that import-linter checks."""

from __future__ import annotations

import re
import tomllib

from tests.conftest import REPOSITORY


def test_the_table_of_packages_is_the_import_contract() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = project["tool"]["importlinter"]["contracts"]
    layers = [[name.strip() for name in layer.split("|")] for layer in contract["layers"]]
    page = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.partition("## Packages")[2].partition("\n## ")[0]
    rows = [re.findall(r"`([a-z_]+)`", line.split("|")[1]) for line in table.splitlines() if line.startswith("| `")]
    assert rows == layers


def test_every_package_is_a_layer() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = project["tool"]["importlinter"]["contracts"]
    layers = {name.strip() for layer in contract["layers"] for name in layer.split("|")}
    modules = {path.stem for path in (REPOSITORY / "fcnlab").glob("*.py")} - {"__init__", "__main__"}
    packages = {path.parent.name for path in (REPOSITORY / "fcnlab").glob("*/__init__.py")}
    assert layers == (modules | packages) - {"registry", "experiments"}
