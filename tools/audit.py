"""Audit of an installed environment: known vulnerabilities, and the licences of fcnlab's runtime dependencies.

`make audit` runs it with pip-audit and pip-licenses in an environment of their own.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

ALLOWED = (
    "0BSD",
    r"(3-Clause )?BSD( License|-2-Clause|-3-Clause)?",
    r"Apache( Software License|-2\.0|-2\.0 WITH LLVM-exception| 2\.0)",
    r"BSL-1\.0",
    r"CC0-1\.0",
    r"ISC( License \(ISCL\))?",
    r"MIT( License|-0|-CMU)?",
    r"MPL-2\.0|Mozilla Public License 2\.0 \(MPL 2\.0\)",  # applies to changed files of the package only
    r"PSF-2\.0|Python Software Foundation License",
    r"Zlib",
)
"""Patterns of the licences under which a dependency may be used and distributed with software of any licence."""

REVIEWED = {
    "cuda-toolkit": "has no code; it requires the libraries of NVIDIA",
    "huey": "MIT, in its LICENSE",
    "skops": "MIT, in its LICENSE",
}
"""Packages whose metadata names no licence, with the result of reading their files."""

NVIDIA = re.compile(r"nvidia-[a-z0-9-]+")
"""Libraries of CUDA that torch requires on Linux; NVIDIA permits their use and distribution with applications."""


def list_runtime_packages(installed: Iterable[Distribution], roots: Iterable[str]) -> dict[str, Distribution]:
    """Return packages with everything that they require, without extras.

    Args:
        installed: the installed packages.
        roots: names of the packages; those that are not installed are left out.

    Returns:
        Packages by normalized name.
    """
    by_name = {normalize_name(one.name): one for one in installed}
    found: dict[str, Distribution] = {}
    names = list(map(normalize_name, roots))
    while names:
        name = names.pop()
        if name in found or name not in by_name:
            continue
        found[name] = by_name[name]
        required = map(Requirement, found[name].requires or ())
        names += [normalize_name(r.name) for r in required if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found


def normalize_name(name: str) -> str:
    """Return the name of a package as package indexes compare it.

    Args:
        name: such as `importlib_metadata`.
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def is_allowed(licence: str) -> bool:
    """Return whether a licence is allowed: all parts that are joined by AND or `;`, any of those joined by OR.

    Args:
        licence: a licence expression of SPDX, or the text of a classifier.
    """
    parts = [re.sub(r"^\((.*)\)$", r"\1", part) for part in re.split(r" AND |; ", licence)]
    return all(any(re.fullmatch("|".join(ALLOWED), one) for one in part.split(" OR ")) for part in parts)


def find_licence_problems(packages: Iterable[Mapping[str, str]]) -> list[str]:
    """Return a line for each package whose licence is not allowed.

    Args:
        packages: output of `pip-licenses --format json`.
    """
    return [
        f"{one['Name']} {one['Version']}: {one['License']}"
        for one in packages
        if normalize_name(one["Name"]) not in REVIEWED
        and not NVIDIA.fullmatch(normalize_name(one["Name"]))
        and not is_allowed(one["License"])
    ]


def find_vulnerabilities(packages: Iterable[Mapping[str, Any]]) -> tuple[list[str], list[str], int]:
    """Return the known vulnerabilities.

    Args:
        packages: `dependencies` of the output of `pip-audit --format json`.

    Returns:
        One line per vulnerability, the names of the packages that the service does not know, and the number of the
        others.
    """
    lines, unknown, known = [], [], 0
    for one in packages:
        if "skip_reason" in one:
            unknown.append(str(one["name"]))
            continue
        known += 1
        for found in one["vulns"]:
            names = ", ".join([found["id"], *found.get("aliases", ())])
            fixed = ", ".join(found["fix_versions"]) or "no version"
            lines.append(f"{one['name']} {one['version']}: {names}; fixed in {fixed}")
    return lines, unknown, known


def audit_vulnerabilities(site_packages: Path) -> bool:
    """Print the known vulnerabilities of an environment.

    Args:
        site_packages: folder of the installed packages.

    Returns:
        True if all packages were compared and none has a known vulnerability.
    """
    command = [sys.executable, "-m", "pip_audit", "--path", str(site_packages), "--format", "json"]
    done = subprocess.run([*command, "--progress-spinner", "off"], capture_output=True, encoding="utf-8", check=False)
    packages = json.loads(done.stdout)["dependencies"] if done.stdout.startswith("{") else []
    lines, unknown, known = find_vulnerabilities(packages)
    if not known:
        reason = (done.stderr.strip().splitlines() or [""])[-1]
        why = "the service knows none of the packages" if packages else f"the service could not be reached: {reason}"
        print(f"vulnerabilities: NOT CHECKED; {why}")
        return False
    for line in lines:
        print(f"vulnerability: {line}")
    print(f"vulnerabilities: {len(lines)} in {known} packages")
    if unknown:
        print(f"vulnerabilities: not checked, since the service does not know them: {', '.join(unknown)}")
    return not lines


def audit_licences(python: Path, site_packages: Path) -> bool:
    """Print the runtime dependencies whose licences are not allowed, with those of the optional features.

    Args:
        python: the Python of the environment.
        site_packages: folder of its packages.

    Returns:
        True if all are allowed.
    """
    installed = list(distributions(path=[str(site_packages)]))
    own = next(one for one in installed if normalize_name(one.name) == "fcnlab")
    optional = [Requirement(text).name for text in own.requires or () if "extra ==" in text]
    packages = sorted(list_runtime_packages(installed, ["fcnlab", *optional]))
    command = [sys.executable, "-m", "piplicenses", "--python", str(python), "--with-system"]
    done = subprocess.run(
        [*command, "--format", "json", "--packages", *packages], capture_output=True, encoding="utf-8", check=True
    )
    listed = json.loads(done.stdout)
    problems = find_licence_problems(listed)
    for line in problems:
        print(f"licence not allowed: {line}")
    print(f"licences: {len(listed) - len(problems)} of {len(packages)} runtime packages have an allowed licence")
    return not problems and len(listed) == len(packages)


def main() -> int:
    """Audit the environment that the command line names, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--python", type=Path, required=True, help="the Python of the environment")
    python = parser.parse_args().python
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    found = subprocess.run([python, "-c", ask], capture_output=True, encoding="utf-8", check=True)
    site_packages = Path(found.stdout.strip())
    return 0 if all([audit_licences(python, site_packages), audit_vulnerabilities(site_packages)]) else 1


if __name__ == "__main__":
    sys.exit(main())
