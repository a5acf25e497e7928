"""The thread of a tracker that does not answer."""

from __future__ import annotations

import sys
import time
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest

from fcnlab.runner import tracker_thread
from fcnlab.runner.tracker_thread import TrackerThread
from tests.patience import wait_until


@pytest.mark.parametrize("abandon", [False, True])
def test_a_call_that_never_returns_is_left_at_the_end(abandon: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker_thread, "ANSWER_TIMEOUT", 0.3)
    entered, answered = Event(), Event()
    tracker: Any = SimpleNamespace()
    thread = TrackerThread("hung", lambda: tracker, list)

    def hang(_opened: object) -> None:
        entered.set()
        answered.wait()

    thread.start()
    thread.call(hang)
    wait_until(entered.is_set, "the call runs")
    thread.end(lambda _opened: pytest.fail("it is called after a call that never returns"))
    started = time.monotonic()
    thread.join(0.1, abandon=abandon)
    assert (time.monotonic() - started >= 0.3) != abandon
    assert thread.error == "tracker hung: not everything could be published in time"
    answered.set()
    thread.join(None, abandon=False)


def test_a_tracker_that_ends_the_process_is_deferred() -> None:
    thread = TrackerThread("mine", lambda: sys.exit(2), list)
    thread.start()
    thread.end(lambda _opened: None)
    thread.join(None, abandon=False)
    assert thread.error == "tracker mine: SystemExit: 2"
