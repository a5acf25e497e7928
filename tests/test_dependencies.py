"""The list of dependencies in the documentation is complete."""

from __future__ import annotations

import re
import tomllib

from tests.conftest import REPOSITORY


def test_every_direct_dependency_is_documented() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    groups = [project["project"]["dependencies"], *project["project"]["optional-dependencies"].values()]
    groups += project["dependency-groups"].values()
    names = {re.split(r"[^\w.-]", requirement)[0].lower() for group in groups for requirement in group} - {"fcnlab"}
    page = (REPOSITORY / "docs" / "dependencies.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("|")]
    assert {row[0] for row in rows[2:]} == names
    assert all(len(row) == 4 and all(row) and "?" not in row for row in rows)
