"""Locations of artifacts in the store of a lab that was copied or moved."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote

from fcnlab.paths import is_file


def relocate_artifacts(database: Path, artifacts: Path) -> None:
    """Rewrite the locations of artifacts in a lab's store to the folder of this lab.

    MLflow stores them as absolute paths. In a lab that was copied or moved they would still be those of the first lab,
    to which new files would be written.

    Args:
        database: the lab's SQLite file; it need not exist.
        artifacts: the lab's folder of artifacts, beside the file.
    """
    if not is_file(database):
        return
    with closing(sqlite3.connect(database)) as connection, connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not {"experiments", "runs"} <= tables:
            return  # MLflow creates them when it opens the file
        query = "SELECT experiment_id, name, artifact_location FROM experiments WHERE name LIKE 'fcnlab/%'"
        for experiment, name, location in connection.execute(query).fetchall():
            own = (artifacts / name).as_uri()
            if location == own or not unquote(location).endswith(f"/{artifacts.name}/{name}"):
                continue
            connection.execute(
                "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (own, experiment)
            )
            connection.execute(
                "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) "
                "WHERE experiment_id = ? AND substr(artifact_uri, 1, ?) = ?",
                (own, len(location) + 1, experiment, len(location), location),
            )
            if "model_versions" in tables:
                connection.execute(
                    "UPDATE model_versions SET source = ? || substr(source, ?) WHERE substr(source, 1, ?) = ?",
                    (own, len(location) + 1, len(location) + 1, f"{location}/"),
                )
