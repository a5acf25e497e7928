"""The server of MLflow's UI as a child process, without its log on the terminal."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EADDRNOTAVAIL
from pathlib import Path
from threading import Thread
from types import FrameType
from typing import TextIO
from urllib.error import HTTPError

from fcnlab.errors import RunError, TrackingError
from fcnlab.redaction import clean_text

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Hosts that only this machine can connect to."""

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Opens addresses of this machine, which the proxy of `http_proxy` does not reach."""

EVERY_INTERFACE = ("0.0.0.0", "::")
"""Hosts that mean all network interfaces of the machine."""


def refuse_taken_port(host: str, port: int) -> None:
    """Check that a server can listen.

    Args:
        host: name or address of a network interface.
        port: the port.

    Raises:
        RunError: the port is in use, or this machine has no such address.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror:
        raise RunError(f"--host {host}: no such name or address; use 127.0.0.1, or 0.0.0.0 for all networks") from None
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            remedy = "check --host" if error.errno == EADDRNOTAVAIL else "choose another with --port"
            raise RunError(f"port {port} cannot be used on {host} ({error.strerror}); {remedy}") from None


def list_own_names(host: str) -> list[str]:
    """Return the names and addresses by which browsers reach a server on this machine.

    Args:
        host: the interface that it listens on.

    Returns:
        The host itself; for all interfaces the address towards the network first, then the names of the machine.
    """
    if host not in EVERY_INTERFACE:
        return [host]
    names = [socket.gethostname(), socket.getfqdn(), "127.0.0.1", "localhost"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):  # without a network
        probe.connect(("192.0.2.1", 9))  # an address for documentation; a UDP socket sends nothing here
        names.insert(0, probe.getsockname()[0])
    return list(dict.fromkeys(names))


def format_url(host: str, port: int) -> str:
    """Return the address of a server.

    Args:
        host: its name or address, of IPv4 or IPv6.
        port: its port.
    """
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class MlflowServer:
    """A running server of MLflow's UI."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, log: Path, copier: Thread) -> None:
        """Refer to a server.

        Args:
            process: its process.
            url: its address on this machine.
            log: file with its output.
            copier: thread that writes the log.
        """
        self.url = url
        self._process = process
        self._log = log
        self._copier = copier

    def wait_until_ready(self) -> None:
        """Wait until the server answers.

        Raises:
            TrackingError: the server has ended.
        """
        while not self._answers():
            try:
                code = self._process.wait(timeout=0.2)
            except subprocess.TimeoutExpired:
                continue
            self._copier.join(timeout=5)  # children of the server may keep its output open
            lines = [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
            last = lines[-1] if lines else "no output"
            raise TrackingError(f"MLflow has ended with exit code {code}: {last}; its output is in {self._log}")

    def _answers(self) -> bool:
        try:
            with _DIRECT.open(f"{self.url}/health", timeout=5):
                return True
        except HTTPError:
            return True
        except OSError:
            return False

    def wait(self) -> int:
        """Wait until the server ends, and return its exit code."""
        return self._process.wait()


@contextmanager
def serve(uri: str, host: str, port: int, log: Path) -> Iterator[MlflowServer]:
    """Run the UI of a store until the context is left; a SIGTERM to this process leaves it.

    Args:
        uri: tracking URI of the store.
        host: name or address of the network interface to listen on.
        port: the port.
        log: file for the output of the server.

    Raises:
        OSError: the log cannot be written.
    """
    command = [sys.executable, "-m", "mlflow", "ui", "--host", host, "--port", str(port)]
    command += ["--workers", "1"]
    # Job execution starts a dozen processes that a lab does not use.
    environment = os.environ | {
        "MLFLOW_BACKEND_STORE_URI": uri,  # command lines are visible to all users of a machine
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONSAFEPATH": "1",  # files in the current folder are no modules, also for the processes that it starts
    }
    if host not in LOOPBACK:
        # MLflow refuses requests to other names, and requests of pages from other origins.
        origins = [format_url(name, port) for name in list_own_names(host)]
        environment.setdefault("MLFLOW_SERVER_ALLOWED_HOSTS", ",".join(url.removeprefix("http://") for url in origins))
        environment.setdefault("MLFLOW_SERVER_CORS_ALLOWED_ORIGINS", ",".join(origins))
    log.parent.mkdir(parents=True, exist_ok=True)
    local = format_url("127.0.0.1" if host in EVERY_INTERFACE else host, port)
    former = signal.signal(signal.SIGTERM, _exit)
    try:
        file = log.open("w", encoding="utf-8")  # before the server starts; the copier closes it
        try:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)
        except BaseException:
            file.close()
            raise
        copier = Thread(target=_copy_output, args=(process, file), daemon=True)
        copier.start()
        try:
            yield MlflowServer(process, local, log, copier)
        finally:
            process.terminate()
            process.wait()
    finally:
        signal.signal(signal.SIGTERM, former)


def _copy_output(process: subprocess.Popen[bytes], log: TextIO) -> None:
    """Write the output of a server to its log, without passwords and tokens, and close both."""
    assert process.stdout is not None
    with process.stdout, log:
        for line in process.stdout:
            log.write(clean_text(line.decode(errors="replace").rstrip()) + "\n")
            log.flush()


def _exit(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + signal.SIGTERM)
