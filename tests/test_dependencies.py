"""The list of dependencies in the documentation is complete."""

from __future__ import annotations

import re
import tomllib

from tests.conftest import REPOSITORY


def test_every_direct_dependency_is_documented() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    groups = [project["project"]["dependencies"], *project["project"]["optional-dependencies"].values()]
    groups += project["dependency-groups"].values()
    found = [re.match(r"([\w.-]+)(?:\[[\w,]+\])?(.*)", requirement) for group in groups for requirement in group]
    versions = {match[1].lower(): match[2] or "any" for match in found if match is not None and match[1] != "fcnlab"}
    page = (REPOSITORY / "docs" / "dependencies.md").read_text(encoding="utf-8").partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("|")]
    assert {row[0]: row[1] for row in rows[2:]} == versions
    assert all(len(row) == 5 and all(row) and "?" not in row for row in rows)
