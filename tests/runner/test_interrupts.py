"""Signals to a driver, and the end of the program that reads its output."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import sys
from itertools import count

import pytest
import typer

from fcnlab.cli.output import print_json
from fcnlab.redaction import RedactedStream
from fcnlab.runner.interrupts import SIGNALS, Interrupts
from tests.patience import patience


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_only_the_first_signal_while_trials_run_is_deferred(number: signal.Signals) -> None:
    with Interrupts(clock=count(step=2).__next__) as interrupts:
        with interrupts.deferred():
            signal.raise_signal(number)
            assert interrupts.received
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_before_trials_run_stops_at_once(number: signal.Signals) -> None:
    with Interrupts() as interrupts, pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)
    assert interrupts.received


def test_one_request_may_send_several_signals() -> None:
    with Interrupts(clock=lambda: 0.0) as interrupts, interrupts.deferred():
        for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM, signal.SIGTERM, signal.SIGUSR1):
            signal.raise_signal(number)  # as the kernel and the shell, then `timeout`
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_hangup_stays_ignored_under_nohup() -> None:
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts:
            signal.raise_signal(signal.SIGHUP)
            assert not interrupts.received
    finally:
        signal.signal(signal.SIGHUP, former)


IN_A_TERMINAL = """
import os, signal, sys
from fcnlab.runner.interrupts import Interrupts

with Interrupts() as interrupts, interrupts.deferred():
    print("ready", flush=True)
    while not interrupts.received:
        signal.pause()
    print("this terminal is closed", flush=True)
    print("still here", file=sys.stderr, flush=True)
    os.write(int(sys.argv[1]), b"paused")
"""


def test_output_to_a_closed_terminal_is_no_error() -> None:
    ours, terminal = pty.openpty()
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", IN_A_TERMINAL, str(writer)],
        stdin=terminal, stdout=terminal, stderr=terminal, pass_fds=[writer], start_new_session=True,
    )  # fmt: skip
    os.close(terminal)
    os.close(writer)
    assert os.read(ours, 100).startswith(b"ready")
    os.close(ours)  # as if the window was closed
    process.send_signal(signal.SIGHUP)
    assert process.wait(patience()) == 0
    assert os.read(reader, 100) == b"paused"
    os.close(reader)


def test_output_to_a_closed_terminal_is_no_error_if_hangups_are_ignored() -> None:
    ours, terminal = pty.openpty()
    reader, writer = os.pipe()
    ignoring = IN_A_TERMINAL.replace("with Interrupts", "signal.signal(signal.SIGHUP, signal.SIG_IGN)\nwith Interrupts")
    ignoring = ignoring.replace("while not interrupts.received:\n        signal.pause()", "sys.stdin.readline()")
    process = subprocess.Popen(
        [sys.executable, "-c", ignoring, str(writer)],
        stdin=subprocess.PIPE, stdout=terminal, stderr=terminal, pass_fds=[writer], start_new_session=True,
    )  # fmt: skip
    os.close(terminal)
    os.close(writer)
    assert os.read(ours, 100).startswith(b"ready")
    os.close(ours)
    process.communicate(b"go on\n", timeout=patience())
    assert process.returncode == 0
    assert os.read(reader, 100) == b"paused"
    os.close(reader)


IN_A_PIPE = """
import os, signal, sys
from fcnlab.runner.interrupts import Interrupts

with Interrupts(clock=lambda: 0.0) as interrupts, interrupts.deferred():
    print("ready", flush=True)
    sys.stdin.readline()
    if sys.argv[1] == "signal first":
        signal.raise_signal(signal.SIGINT)
    print("a line", file=sys.stderr, flush=True)
    assert interrupts.received == (sys.argv[1] == "signal first")
    print("a line", flush=True)
    assert interrupts.received and interrupts.lost_reader == (sys.argv[1] == "reader first")
    print("another line", flush=True)
    if sys.argv[1] == "reader first":
        signal.raise_signal(signal.SIGINT)  # of the same Ctrl-C
sys.exit(7)
"""


@pytest.mark.parametrize("order", ["signal first", "reader first"])
def test_the_end_of_the_reading_program_is_an_interruption_and_no_error(order: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", IN_A_PIPE, order],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == "ready\n"
    process.stdout.close()
    process.stderr.close()
    process.stdin.write("go on\n")
    process.stdin.close()
    assert process.wait(patience()) == 7


def test_the_end_of_the_reading_program_before_trials_run_stops_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", encoding="utf-8") as output, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", output)
        with Interrupts() as interrupts:
            with pytest.raises(KeyboardInterrupt):
                typer.echo("a line")
            typer.echo("another line")
        assert interrupts.received
        assert sys.stdout is output


def test_json_without_secrets_is_written_past_the_removal_of_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(sys, "stdout", RedactedStream(written))
    with Interrupts():
        print_json(
            {"question": "Is it the password="}, indent=None
        )  # the end of the encoded text would be taken for a password
    assert json.loads(written.getvalue()) == {"question": "Is it the password="}
