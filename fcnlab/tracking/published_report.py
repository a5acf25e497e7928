"""Digest of the report that a grid's run in MLflow has, so that an unchanged report is not uploaded again.

The digest is read from a SQLite store without MLflow, whose import takes longer than a report.
"""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

from fcnlab.atomic_file import is_temporary, read_shared
from fcnlab.paths import is_file
from fcnlab.tracking.grid_run import BestCell
from fcnlab.tracking.lab_id import TAG as LAB_TAG
from fcnlab.tracking.names import shorten_experiment_name
from fcnlab.tracking.store import find_database

TAG = "fcnlab.report"
"""Tag of a grid's run with the digest of its report; it is written last."""

_QUERY = """
select tags.value from experiments
join runs on runs.experiment_id = experiments.experiment_id and runs.lifecycle_stage = 'active'
join tags on tags.run_uuid = runs.run_uuid and tags.key = ?
left join tags as labs on labs.run_uuid = runs.run_uuid and labs.key = ?
where experiments.name = ? and experiments.lifecycle_stage = 'active' and (labs.value is null or labs.value = ?)
"""


def list_report_files(folder: Path) -> list[Path]:
    """Return the files of a report that are uploaded, without those that another driver is writing.

    Other folders than `plots` are reports of grids below this one.

    Args:
        folder: folder of the report.
    """
    files = [file for where in (folder, folder / "plots") for file in where.glob("*")]
    return sorted(file for file in files if is_file(file) and not is_temporary(file))


def digest_report(folder: Path, text: str, best: BestCell | None) -> str:
    """Return the SHA-256 of the uploaded files, text and best cell of a report.

    Args:
        folder: folder of the report.
        text: text that the page of the run shows.
        best: the best cell.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256(repr((text, best)).encode())
    for file in list_report_files(folder):
        content = read_shared(file)
        digest.update(repr((file.relative_to(folder).as_posix(), len(content))).encode() + content)
    return digest.hexdigest()


def read_report_digest(uri: str, grid: str, lab: str | None) -> str | None:
    """Return the digest of the report that a lab's run of a grid has.

    Args:
        uri: tracking URI of the store.
        grid: name of the grid.
        lab: id of the lab; None if it has none.

    Returns:
        The digest; None if there is none, or if it cannot be read without MLflow: the store is not a SQLite file, is
        in use or has an error, which MLflow reports.
    """
    file = find_database(uri)
    if file is None:
        return None
    name = shorten_experiment_name(f"fcnlab/{grid}")
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=0.5)) as store:
            rows = store.execute(_QUERY, (TAG, LAB_TAG, name, lab)).fetchall()
    except sqlite3.Error:
        return None
    return str(rows[0][0]) if len(rows) == 1 else None
