"""Labs that were moved or copied, and labs with unusual paths."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from benchmarks.failures.environment.commands import FILE, Workbench, find_problems

LONG = "/".join(["a long name of a folder " * 8] * 17)
"""A path of 3,300 characters: the paths in the lab stay below the 4,096 of Linux."""


def move(bench: Workbench, how: str) -> list[str]:
    """Move, copy or link a lab in which a part of the grid has run, and run the grid there.

    Args:
        bench: the workbench.
        how: `moved`, `copied` or `linked`.
    """
    lab = bench.copy(store=True)
    part = lab / "experiments" / "environment.yaml"
    whole = part.read_text()
    part.write_text(whole.replace("[fcn32s, fcn8s]", "[fcn32s]"))
    bad = find_problems(bench.run(lab), 0)
    part.write_text(whole)
    new = lab.with_name(f"{how} {lab.name}")
    before = {file: file.stat().st_mtime_ns for file in lab.rglob("*") if file.is_file()}
    if how == "moved":
        lab.rename(new)
    elif how == "copied":
        shutil.copytree(lab, new)
    else:
        new.symlink_to(lab)
    bad += bench.rerun(new) + find_problems(bench.call(new, "report", FILE), 0) + find_lost_artifacts(new)
    if how == "copied" and before != {file: file.stat().st_mtime_ns for file in lab.rglob("*") if file.is_file()}:
        bad.append("the first lab has changed")
    if how == "moved" and lab.exists():
        bad.append("files were written to the former folder")
    return bad


def use_path(bench: Workbench, path: str) -> list[str]:
    """Run a grid in a lab with an unusual path, and read its results.

    Args:
        bench: the workbench.
        path: path below the temporary folder.
    """
    lab = _make_lab(bench, path)
    bad = find_problems(bench.run(lab, "--tracker", "mlflow"), 0) + bench.find_changes(lab) + find_lost_artifacts(lab)
    return bad + _read(bench, lab)


def use_refused_path(bench: Workbench, path: str) -> list[str]:
    """Run a grid in a lab in whose folder MLflow cannot have a SQLite store, and then without MLflow.

    Args:
        bench: the workbench.
        path: path below the temporary folder.
    """
    lab = _make_lab(bench, path)
    before = sorted(bench.root.iterdir()), sorted(lab.iterdir())
    bad = find_problems(bench.run(lab, "--tracker", "mlflow"), 2, mentions="--tracker none")
    if before != (sorted(bench.root.iterdir()), sorted(lab.iterdir())):
        bad.append(f"left behind: {sorted(lab.iterdir())}")
    bad += find_problems(bench.run(lab, "--tracker", "none"), 0) + bench.find_changes(lab) + _read(bench, lab)
    return bad + (["a store in the lab"] if list(lab.glob("*mlflow*")) else [])


def _make_lab(bench: Workbench, path: str) -> Path:
    lab = bench.root / path
    lab.mkdir(parents=True)
    bench.copy(onto=lab)
    return lab


def _read(bench: Workbench, lab: Path) -> list[str]:
    """Read the finished grid of a lab with several commands, and return their problems."""
    commands = (("grid", "status", FILE), ("report", FILE), ("lab", "check"))
    return [problem for command in commands for problem in find_problems(bench.call(lab, *command), 0)]


def find_lost_artifacts(lab: Path) -> list[str]:
    """Return the finished runs in a lab's MLflow store whose record is not among the files of the lab.

    Args:
        lab: the lab.
    """
    if not (lab / "mlflow.db").is_file():
        return ["no MLflow store in the lab"]
    with closing(sqlite3.connect(lab / "mlflow.db")) as store:
        rows = store.execute("SELECT run_uuid, name FROM runs WHERE name LIKE '%seed%'").fetchall()
    found = {file.parent.parent.name for file in (lab / "mlartifacts").rglob("record.json")}
    lost = [f"MLflow: {name} has no record.json in the lab" for run, name in rows if run not in found]
    return lost + ([f"MLflow has {len(rows)} trials, not 2"] if len(rows) != 2 else [])
