"""Signals to a driver."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from itertools import count

import pytest

from fcnlab.runner.interrupts import SIGNALS, Interrupts
from tests.patience import patience


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
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
        for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM, signal.SIGTERM):
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
