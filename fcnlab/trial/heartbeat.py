"""The heartbeat of a trial: a file that the training thread touches between its steps.

No separate thread does so, because such a thread lives on when training hangs. An observer on the same machine compares
the time of the last change with the one that it has seen before, so clocks are never compared, and a full disk does not
stop the heartbeat. The content is the current phase, such as `training epoch 3`.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from fcnlab.data.parallel import Advance
from fcnlab.redaction import get_logger

INTERVAL = 1.0
"""Least seconds between two changes of the file, except at the start of a phase."""


class Heartbeat:
    """Writes the heartbeat of a trial."""

    def __init__(self, file: Path | None) -> None:
        """Prepare a heartbeat; nothing is written before the first phase.

        Args:
            file: the file; None writes nothing, for processes that only follow rank 0.
        """
        self._file = file
        self._written = 0.0

    def enter(self, phase: str) -> None:
        """Begin a phase, and beat.

        Args:
            phase: current phase of the trial, such as `training epoch 3`.
        """
        if self._file is not None:
            with suppress(OSError):  # without space the file is empty, and its time has changed
                self._file.write_text(phase, encoding="utf-8")
            self._written = time.monotonic()

    def beat(self, *_: object) -> None:
        """Report progress; arguments are ignored, so that it can be any callback."""
        if self._file is not None and time.monotonic() - self._written >= INTERVAL:
            with suppress(OSError):  # removed or unreachable: the observer sees no progress
                os.utime(self._file)
            self._written = time.monotonic()

    def start_reading(self, what: str, samples: int) -> Advance:
        """Begin to decode a split: a `fcnlab.data.parallel.StartProgress`.

        Args:
            what: dataset and split.
            samples: the number of samples.

        Returns:
            The function to call after each sample.
        """
        get_logger("fcnlab").warning(f"decoding {what} once ({samples} images)")
        self.enter(f"decoding {what}")
        return self.beat


def read_phase(file: Path) -> str:
    """Return the phase in which a trial last made progress; an empty text if it is not known.

    Args:
        file: the heartbeat file.
    """
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
