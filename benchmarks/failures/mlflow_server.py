"""An MLflow server in this process that can misbehave: it refuses, hangs, drops connections or answers nonsense."""

from __future__ import annotations

import os
import socket
import threading
import time
import urllib.request
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

PASSWORD = "s3cret-of-the-server"
"""Password in the address; no message may contain it."""

HTML = b"<html><head><title>Log in</title></head><body>Please log in.</body></html>"

ANSWERS: dict[str, tuple[str, str, bytes]] = {
    "500": ("500 Internal Server Error", "text/html", b"<h1>Internal Server Error</h1>"),
    "502": ("502 Bad Gateway", "text/html", b"<h1>Bad Gateway</h1>"),
    "429": ("429 Too Many Requests", "application/json", b'{"error_code": "REQUEST_LIMIT_EXCEEDED"}'),
    "401": ("401 Unauthorized", "text/html", b"<h1>Unauthorized</h1>"),
    "HTML": ("200 OK", "text/html", HTML),
    "truncated": ("200 OK", "application/json", b'{"experiment": {"experiment_id": "1", "na'),
    "list": ("200 OK", "application/json", b"[]"),
    "redirect": ("302 Found", "text/html", b""),
}
"""Status, type and content of the answers that are not MLflow's."""

PROBLEMS = ("refused", "dropped", "lost", "hangs", "slow", *ANSWERS)
"""Names of the problems: connections are refused, or dropped before or after the request is handled, ..."""


class MlflowServer:
    """A server on a free port of this machine, with its store in an SQLite file.

    Attributes:
        uri: tracking URI with a user and a password.
        requests: number of requests since the last problem was set.
        hanging: set while a request hangs.
    """

    def __init__(self, folder: Path, delay: float) -> None:
        """Create the application; a process can have one, since MLflow keeps its store in a variable of the module.

        Args:
            folder: folder of the store.
            delay: seconds of a slow answer.
        """
        os.environ |= {
            "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{folder}/server.db",
            "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
            "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(folder / "artifacts"),
            "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its dependencies
            import mlflow.server.fastapi_app  # noqa: F401 - MLflow imports it at a later request
            from mlflow.server import app

        self._app: Application = app.wsgi_app
        self._delay = delay
        self._problem: str | None = None
        self._first, self._last = 0, 0
        self._count = threading.Lock()
        self._released = threading.Event()
        self.requests = 0
        self.hanging = threading.Event()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.uri = f"http://someone:{PASSWORD}@127.0.0.1:{self._port}"
        self.listen()
        self._create_store()

    def _create_store(self) -> None:
        """Send a first request, for which MLflow creates the tables of its store; this takes seconds.

        MLflow then sets the tracking URI of this process to the server's store, which is undone.
        """
        import mlflow

        configured = os.environ.get("MLFLOW_TRACKING_URI")
        url = f"http://127.0.0.1:{self._port}/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"
        with urllib.request.urlopen(url, timeout=300):
            pass
        mlflow.set_tracking_uri(None)
        if configured is not None:
            os.environ["MLFLOW_TRACKING_URI"] = configured

    def listen(self) -> None:
        """Accept connections."""
        from werkzeug.serving import make_server

        self._server = make_server(
            "127.0.0.1", self._port, self._handle, threaded=True, request_handler=_quiet_handler()
        )
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """Refuse connections."""
        self._server.shutdown()
        self._server.server_close()

    def fail(self, problem: str, first: int = 1, last: int | None = None) -> None:
        """Misbehave from now on.

        Args:
            problem: one of `PROBLEMS`.
            first: number of the first request, counted from now, that has the problem.
            last: number of the last one; None for all later ones.
        """
        self._released.clear()
        self.hanging.clear()
        self.requests = 0
        self._first, self._last = first, last or 10**9
        self._problem = problem

    def recover(self) -> None:
        """Answer correctly, also the requests that hang."""
        was_refusing = self._problem == "refused" and self.requests >= self._first
        self._problem = None
        self._released.set()
        if was_refusing:
            self.listen()

    def _handle(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        with self._count:
            self.requests += 1
            problem = self._problem if self._first <= self.requests <= self._last else None
        if problem is None:
            return self._app(environ, start_response)
        if problem in ANSWERS:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            status, kind, content = ANSWERS[problem]
            headers = [("Content-Type", kind), ("Content-Length", str(len(content)))]
            headers += [("Retry-After", "3600")] if problem == "429" else []
            headers += [("Location", "/login")] if problem == "redirect" else []
            if environ["PATH_INFO"] == "/login":
                status, content, headers = "200 OK", HTML, [("Content-Type", "text/html")]
            start_response(status, headers)
            return [content]
        if problem == "slow":
            time.sleep(self._delay)
            return self._app(environ, start_response)
        if problem == "hangs":
            self.hanging.set()
            self._released.wait()
        elif problem == "lost":
            list(self._app(environ, lambda *_, **__: lambda _: None))
        elif problem == "refused":
            threading.Thread(target=self.close).start()
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        raise ConnectionResetError


def _quiet_handler() -> Any:
    from werkzeug.serving import WSGIRequestHandler

    class QuietHandler(WSGIRequestHandler):
        """Logs nothing."""

        def log(self, type: str, message: str, *args: object) -> None:
            """Drop a message of the log."""

        def connection_dropped(self, error: BaseException, environ: Any = None) -> None:
            """Ignore a dropped connection."""

    return QuietHandler
