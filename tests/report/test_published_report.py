"""Reports that the grid's run in MLflow already has."""

from __future__ import annotations

from pathlib import Path

import pytest

from fcnlab.config.grid.grid import Grid
from fcnlab.lab import Lab
from fcnlab.report.write import create_report
from fcnlab.runner import publisher
from fcnlab.runner.progress.base import ProgressReporter
from fcnlab.runner.publisher import OptionalTracker
from fcnlab.runner.run import sync_grid
from fcnlab.tracking.lab_id import read_lab_id
from fcnlab.tracking.published_report import read_report_digest
from fcnlab.tracking.store import open_client
from fcnlab.tracking.tracker import MlflowTracker
from tests.report.finished_grid import finished_lab


def test_only_a_changed_report_is_uploaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid, lab = finished_lab(tmp_path)
    assert sync_grid(grid, lab, ProgressReporter()).deferred == {}
    opened = []
    real = publisher.open_tracker

    def open_tracker(grid: Grid, lab: Lab) -> MlflowTracker:
        opened.append(grid.name)
        return real(grid, lab)

    monkeypatch.setattr(publisher, "open_tracker", open_tracker)

    def report() -> OptionalTracker:
        tracker = OptionalTracker(lab.load_grid(grid.path), lab)
        create_report(lab.load_grid(grid.path), lab, tracker, predict=False)
        return tracker

    assert report().error is None and len(opened) == 1
    digest = read_report_digest(lab.tracking_uri, grid.name, read_lab_id(lab.state))
    assert digest is not None
    assert report().error is None and len(opened) == 1, "the run has it"

    grid.path.write_text(grid.path.read_text().replace("Does it run?", "Does it run again?"))
    assert report().error is None and len(opened) == 2
    assert read_report_digest(lab.tracking_uri, grid.name, read_lab_id(lab.state)) not in (None, digest)
    client = open_client(lab.tracking_uri)
    experiment = client.get_experiment_by_name(f"fcnlab/{grid.name}")
    (run,) = client.search_runs([experiment.experiment_id], "tags.`fcnlab.role` = 'grid'")
    page = next((lab.artifacts / "fcnlab" / grid.name / run.info.run_id).rglob("report/README.md"))
    assert "Does it run again?" in page.read_text()

    client.delete_experiment(experiment.experiment_id)
    assert "is deleted" in str(report().error), "an unchanged report does not hide an error of the store"


def test_the_files_of_an_unchanged_report_are_uploaded_once_to_any_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid, lab = finished_lab(tmp_path)
    folder = lab.results / grid.name
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("content")
    opened = []
    original = MlflowTracker._open_repository

    def open_repository(tracker: MlflowTracker, address: str) -> object:
        opened.append(address)
        return original(tracker, address)

    monkeypatch.setattr(MlflowTracker, "_open_repository", open_repository)
    for text, uploads in (("text", 1), ("text", 1), ("other text", 2)):
        publisher.open_tracker(grid, lab).log_report(folder, text, None)  # as with a server: no look into the database
        assert len(opened) == uploads


@pytest.mark.parametrize("content", [None, b"", b"no database " * 100])
def test_a_store_that_cannot_be_read_has_no_report(tmp_path: Path, content: bytes | None) -> None:
    store = tmp_path / "my store#1.db"
    if content is not None:
        store.write_bytes(content)
    assert read_report_digest(f"sqlite:///{store}", "question", None) is None
    assert store.exists() == (content is not None), "it is not created"
    assert read_report_digest("http://127.0.0.1:9", "question", None) is None
