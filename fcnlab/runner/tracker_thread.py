"""A tracker in a thread of its own, so that neither trials nor other trackers wait for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable
from functools import partial
from queue import SimpleQueue
from threading import Event, Thread

from fcnlab.errors import TrackingError, describe_error
from fcnlab.extensions.guard import USER_ERRORS
from fcnlab.redaction import redact
from fcnlab.tracking.base import TrackedTrial, Tracker

RETRY_INTERVAL = 300.0
"""Seconds between two attempts to open a tracker that has raised an error."""

LAST_RETRY_AFTER = 30.0
"""Seconds after a failed attempt until there is another one at the end."""

ANSWER_TIMEOUT = 120.0
"""Seconds to wait, when the time is over, for the call that runs then; longer than the timeouts of a server.

A database may never answer, and not all of their drivers have timeouts.
"""


class OpenTracker:
    """An open tracker, which begins each trial once.

    Attributes:
        tracker: the tracker.
    """

    def __init__(self, tracker: Tracker) -> None:
        """Refer to a tracker that has just been opened.

        Args:
            tracker: the tracker.
        """
        self.tracker = tracker
        self._started: dict[str, TrackedTrial] = {}

    def start(self, trial: TrackedTrial) -> Tracker:
        """Start a trial unless it is started there, and return the tracker for the calls with this trial.

        Args:
            trial: the trial.
        """
        if self._started.get(trial.key) is not trial:
            self.tracker.start_trial(trial)
            self._started[trial.key] = trial
        return self.tracker


Call = Callable[[OpenTracker], object]
"""A function that the thread calls with the open tracker."""


class TrackerThread:
    """Calls the functions of a tracker one after the other in a thread.

    After an error publishing is deferred: calls are dropped, since all data is in the run folders. The tracker is
    opened again by the first call after `RETRY_INTERVAL` seconds, and at the end unless it has just refused to open;
    then all that is missing is published.

    Attributes:
        name: name of the tracker.
        error: reason for deferred publishing; None if it is not deferred.
    """

    def __init__(
        self, name: str, open_tracker: Callable[[], Tracker], list_ended: Callable[[], Iterable[Call]]
    ) -> None:
        """Describe a tracker; `start` opens it.

        Args:
            name: name of the tracker.
            open_tracker: opens the tracker; called in the thread.
            list_ended: lists the calls that publish all trials that have ended; called after each opening.
        """
        self.name = name
        self.error: str | None = None
        self._open_tracker = open_tracker
        self._list_ended = list_ended
        self._queue: SimpleQueue[tuple[Hashable, Call] | None] = SimpleQueue()
        self._keys: set[Hashable] = set()
        self._tracker: OpenTracker | None = None
        self._last: Call | None = None
        self._opened_at = 0.0
        self._is_opened = False
        self._abandoned = Event()
        self._thread = Thread(target=self._run, name=f"tracker {name}", daemon=True)

    def start(self) -> None:
        """Start the thread, which opens the tracker."""
        self._thread.start()

    def call(self, function: Call, key: Hashable = None) -> None:
        """Call a function in the thread when the earlier ones have returned, unless publishing is deferred then.

        Args:
            function: the function.
            key: drops the call if an earlier one with the same key waits; None drops no call.
        """
        if not self._thread.is_alive() or key in self._keys:
            return
        if key is not None:
            self._keys.add(key)
        self._queue.put((key, function))

    def end(self, last: Call) -> None:
        """End the thread when the calls up to now and a last one have returned; `join` waits for this.

        Args:
            last: the last function; before it, the tracker is opened again if publishing is deferred.
        """
        self._last = last
        self._queue.put(None)

    def join(self, timeout: float | None, *, abandon: bool) -> None:
        """Wait for the end of the thread after `end`.

        Args:
            timeout: seconds after which the waiting calls are dropped, and publishing is deferred; None for no limit.
            abandon: then do not wait for the running call either, because this process is about to exit; otherwise at
                most `ANSWER_TIMEOUT` seconds.
        """
        if self._thread.ident is None:  # it has not been started
            return
        self._thread.join(timeout)
        if self._thread.is_alive():
            self._abandoned.set()
            if not abandon:
                self._thread.join(ANSWER_TIMEOUT)
            self.error = self.error or f"tracker {self.name}: not everything could be published in time"

    def _run(self) -> None:
        self._guard(self._open)
        while (queued := self._queue.get()) is not None and not self._abandoned.is_set():
            key, function = queued
            self._keys.discard(key)
            self._call(function, RETRY_INTERVAL)
        if self._last is not None and not self._abandoned.is_set():
            self._call(self._last, 0.0 if self._is_opened else LAST_RETRY_AFTER)

    def _call(self, function: Call, interval: float) -> None:
        """Call a function; open a tracker that raised an error if that is some seconds ago."""
        if self._tracker is None and time.monotonic() - self._opened_at >= interval:
            self._guard(self._open)
        if self._tracker is not None:
            self._guard(partial(function, self._tracker))

    def _open(self) -> None:
        """Open the tracker, and publish everything that is missing there."""
        self._opened_at = time.monotonic()
        self._is_opened = False
        self._tracker = OpenTracker(self._open_tracker())
        for function in self._list_ended():
            if self._abandoned.is_set():
                return
            function(self._tracker)
        self._is_opened = True
        self.error = None

    def _guard(self, function: Callable[[], object]) -> None:
        try:
            function()
        except TrackingError as error:
            self._defer(str(error))
        except USER_ERRORS as error:  # the code of an extension or of a library must not end the trials or the thread
            self._defer(redact(f"tracker {self.name}: {describe_error(error)}"))

    def _defer(self, why: str) -> None:
        self._tracker, self.error = None, why
