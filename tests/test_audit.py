"""The audit of dependencies: which licences are allowed, and that a service without answers is no success."""

from __future__ import annotations

import pytest

from tools.audit import find_licence_problems, find_vulnerabilities, is_allowed, list_runtime_packages, normalize_name


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("MIT", True),
        ("BSD License", True),
        ("Mozilla Public License 2.0 (MPL 2.0)", True),
        ("Apache-2.0 AND Apache-2.0 WITH LLVM-exception AND BSL-1.0", True),
        ("Apache Software License; BSD License", True),
        ("(GPL-3.0-only OR MIT)", True),
        ("MIT AND GPL-3.0-only", False),
        ("GNU Lesser General Public License v3 (LGPLv3)", False),
        ("MIT-like, ask us", False),
        ("UNKNOWN", False),
    ],
)
def test_a_licence_is_allowed_if_all_parts_of_it_are(licence: str, allowed: bool) -> None:
    assert is_allowed(licence) == allowed
    found = find_licence_problems([{"Name": "Some_Package", "Version": "1.0", "License": licence}])
    assert found == ([] if allowed else [f"Some_Package 1.0: {licence}"])


def test_vulnerabilities_are_separated_from_unknown_packages() -> None:
    packages = [
        {"name": "a", "version": "1", "vulns": []},
        {"name": "b", "version": "2", "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["3"]}]},
        {"name": "c", "skip_reason": "Dependency not found on PyPI"},
    ]
    assert find_vulnerabilities(packages) == (["b 2: PYSEC-1, CVE-1; fixed in 3"], ["c"], 2)
    assert find_vulnerabilities(packages[2:]) == ([], ["c"], 0)


def test_runtime_packages_include_what_they_require() -> None:
    from importlib.metadata import distributions

    found = list_runtime_packages(distributions(), ["typer"])
    assert {"typer", "rich", "markdown-it-py", "mdurl"} <= found.keys() and "pytest" not in found
    assert all(normalize_name(name) == name for name in found)
