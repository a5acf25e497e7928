"""The process of MLflow's UI."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

from fcnlab.tracking.server import serve


def test_no_server_is_started_if_its_log_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("a server was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    log = tmp_path / "mlflow-ui.log"
    log.mkdir()
    with pytest.raises(IsADirectoryError), serve("sqlite:///mlflow.db", "127.0.0.1", 1, log):
        pass
