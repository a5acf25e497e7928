"""The process of MLflow's UI."""

from __future__ import annotations

import subprocess
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import NoReturn

import pytest

from fcnlab.tracking.server import MlflowServer, serve


def test_no_server_is_started_if_its_log_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("a server was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    log = tmp_path / "mlflow-ui.log"
    log.mkdir()
    with pytest.raises(IsADirectoryError), serve("sqlite:///mlflow.db", "127.0.0.1", 1, log):
        pass


class _Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep the standard error free."""


def test_the_server_is_asked_without_the_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with HTTPServer(("127.0.0.1", 0), _Healthy) as server, subprocess.Popen(["sleep", "3"]) as process:
        Thread(target=server.serve_forever, daemon=True).start()
        copier = Thread(target=process.wait)
        copier.start()
        log = tmp_path / "log"
        log.touch()
        mlflow = MlflowServer(process, f"http://127.0.0.1:{server.server_port}", log, copier)
        try:
            mlflow.wait_until_ready()  # raises TrackingError if the process ends first
        finally:
            process.kill()
            server.shutdown()
