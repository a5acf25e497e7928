"""Run the sections of a benchmark one by one and keep their results in one JSON file.

A section is a function that returns a JSON-able dictionary. A section that raises is recorded with its traceback and
the next one runs. The file is rewritten atomically after each section, so an interrupted run leaves what it has.
"""

from __future__ import annotations

import json
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.time_limit import time_limit
from fcnlab.atomic_file import write_atomically


@dataclass
class Outcome:
    """The outcome of one section.

    Args:
        section: Name of the section.
        passed: Whether the section returned without an exception.
        seconds: Wall-clock time in seconds.
        detail: One line for the summary: the key ``"detail"`` of the section's result, or the error's message.
        result: The section's result; of a failed one what its :class:`SectionFailed` carries.
        error: The traceback of a failed section, else None.
    """

    section: str
    passed: bool
    seconds: float
    detail: str = ""
    result: dict[str, Any] = field(default_factory=dict)
    error: str | None = None


class SectionFailed(AssertionError):
    """A check of a section failed; contains the measurements of the section so far.

    Args:
        message: One line that describes the error.
        result: JSON-able results, which are recorded with the traceback.
    """

    def __init__(self, message: str, result: dict[str, Any]) -> None:
        super().__init__(message)
        self.result = result


class SectionTimeout(BaseException):
    """A section ran past its time limit. Not an ``Exception``, so that the code under test cannot handle it."""


def run_section(name: str, function: Callable[[], dict[str, Any]], limit: float | None = None) -> Outcome:
    """Call a section and return its outcome; an exception becomes a failed outcome.

    Args:
        name: Name of the section.
        function: The section. It may put one line for the summary into its result under ``"detail"``.
        limit: Time limit in seconds; None for no limit.
    """
    start = time.perf_counter()
    try:
        with time_limit(limit, SectionTimeout(f"no result after {limit or 0:.0f} s")):
            result = function()
    except (Exception, SectionTimeout) as error:  # noqa: BLE001 - recorded with its traceback
        message = (str(error).strip().splitlines() or [""])[0]
        detail = f"{type(error).__name__}: {message}"
        found = getattr(error, "result", {})
        return Outcome(name, False, time.perf_counter() - start, detail, found, traceback.format_exc())
    return Outcome(name, True, time.perf_counter() - start, str(result.get("detail", "")), result)


class Results:
    """Outcomes of sections in the order in which they ended, saved after each.

    Args:
        path: The JSON file; its folder is created.
        header: JSON-able entries for the top of the file, such as the device's name.
        earlier: Outcomes of an earlier run that are kept.
    """

    def __init__(self, path: Path, header: dict[str, Any] | None = None, earlier: Sequence[Outcome] = ()) -> None:
        self.path = path
        self.header = dict(header or {})
        self.outcomes: list[Outcome] = list(earlier)
        self._lock = threading.Lock()
        self._started = time.perf_counter()
        self.save()

    def add(self, outcome: Outcome) -> None:
        """Record an outcome, save the file and print one line. Threads may call this concurrently.

        Args:
            outcome: The outcome of a section.
        """
        with self._lock:
            self.outcomes.append(outcome)
            self.save()
            print(summary_line(outcome), flush=True)

    def save(self) -> None:
        """Write the file atomically."""
        content = {
            **self.header,
            "passed": all(outcome.passed for outcome in self.outcomes),
            "seconds": round(time.perf_counter() - self._started, 2),
            "sections": {outcome.section: asdict(outcome) for outcome in self.outcomes},
        }
        write_json(self.path, content)

    def summarize(self) -> int:
        """Print one line for each section and return an exit code: 0 if there are sections and all passed, else 1."""
        self.save()
        failed = [outcome for outcome in self.outcomes if not outcome.passed]
        print(f"\n{len(self.outcomes)} sections, {len(failed)} failed, {time.perf_counter() - self._started:.0f} s")
        for outcome in self.outcomes:
            print(summary_line(outcome))
        return 1 if failed or not self.outcomes else 0


def read_passed(path: Path) -> list[Outcome]:
    """Return the passed sections of a file that `Results` has written; none if there is no file.

    Args:
        path: The JSON file.
    """
    if not path.is_file():
        return []
    sections = json.loads(path.read_text(encoding="utf-8"))["sections"].values()
    return [outcome for outcome in (Outcome(**section) for section in sections) if outcome.passed]


def summary_line(outcome: Outcome) -> str:
    """Return an outcome as one line of at most 200 characters: section, result, seconds, detail.

    Args:
        outcome: The outcome of a section.
    """
    result = "passed" if outcome.passed else "FAILED"
    return f"{outcome.section:<14} {result} {outcome.seconds:6.1f} s  {outcome.detail}"[:200]


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a dictionary to a JSON file atomically; create its folder.

    Args:
        path: The file.
        content: JSON-able values, arrays or tensors.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=1, default=to_plain) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def to_plain(value: Any) -> Any:
    """Return an array or tensor as a number or list, and any other value as a string.

    Args:
        value: a value that JSON does not have.
    """
    return value.tolist() if hasattr(value, "tolist") else str(value)
