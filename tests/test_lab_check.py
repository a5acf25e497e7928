"""`fcnlab lab check` finds damage in all files of a lab, and with `repair` a second check finds none."""

from __future__ import annotations

from pathlib import Path

from fcnlab.config.trial import Trial
from fcnlab.lab_check import check_lab
from fcnlab.runner.plan import make_plan
from tests.conftest import SMOKE
from tests.report.finished_grid import finished_lab


def test_damage_is_found_moved_and_gone(tmp_path: Path) -> None:
    grid, lab = finished_lab(tmp_path, SMOKE)
    (lab.root / "mlflow.db").write_bytes(b"no database" * 100)
    first, second, third, fourth = (planned.folder for planned in make_plan(grid, lab).trials)
    first.counts.unlink()
    second.trial.write_bytes(b"{")
    sample = next(third.samples.iterdir())
    sample.write_bytes(b"")
    damaged = (first.counts, second.trial, sample, lab.root / "mlflow.db")
    found = check_lab(lab)
    assert found.trials == 4
    assert {one.path for one in found.problems} == {str(path) for path in damaged}
    assert not any(one.repair for one in found.problems)
    repaired = check_lab(lab, repair=True)
    assert len(repaired.problems) == 4 and all(one.repair for one in repaired.problems)
    assert check_lab(lab).problems == []
    assert first.load() is None and second.load() is not None and third.load() is not None
    assert Trial.model_validate_json(second.trial.read_bytes()).key == second.key
    moved = {path.name for path in (lab.runs / ".quarantine").rglob("*") if path.is_file()}
    assert {"record.json", "trial.json", "mlflow.db"} <= moved
    assert fourth.load() is not None
