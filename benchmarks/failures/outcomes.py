"""The outcomes of a failure harness: how many cases of each failure were tried, and which of them failed."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.speed.machine import machine


@dataclass(frozen=True)
class Outcome:
    """The cases of one failure.

    Attributes:
        failure: a short name, as in a table: `SIGKILL of the driver`.
        tried: number of cases.
        bad: one line for each case that failed.
        expected: expected behavior of fcnlab, as in a table: `the trial resumes from its checkpoint`.
    """

    failure: str
    tried: int
    bad: Sequence[str] = ()
    expected: str = ""


@dataclass
class Tally:
    """The cases that were tried and those that failed, by the name of the failure, in the order of first cases."""

    expected: dict[str, str] = field(default_factory=dict)
    tried: Counter[str] = field(default_factory=Counter)
    bad: dict[str, list[str]] = field(default_factory=dict)

    def add(self, failure: str, expected: str, problem: str) -> None:
        """Add a case.

        Args:
            failure: name of the failure.
            expected: expected behavior of fcnlab.
            problem: one line if the case failed, else an empty text.
        """
        self.expected.setdefault(failure, expected)
        self.tried[failure] += 1
        if problem:
            self.bad.setdefault(failure, []).append(problem)
            print(f"{failure}: {problem}", flush=True)

    def outcomes(self) -> list[Outcome]:
        """Return the outcome of each failure."""
        return [Outcome(name, self.tried[name], self.bad.get(name, ()), text) for name, text in self.expected.items()]


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Add `--json FILE` to the options of a harness.

    Args:
        parser: parser of the harness's command line.
    """
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the outcomes to this file")


def report(outcomes: Iterable[Outcome], command: str, seconds: float, file: Path | None = None) -> int:
    """Print the outcomes and the cases that failed, and return the exit code: 1 if there is such a case.

    Args:
        outcomes: the outcomes of the harness.
        command: the command line that produced them, for the reader of the file.
        seconds: duration of the harness.
        file: where the outcomes are written as JSON; None to print only.
    """
    outcomes = list(outcomes)
    for outcome in outcomes:
        print(f"{outcome.failure}: {outcome.tried} tried, {len(outcome.bad)} failed")
        for line in outcome.bad:
            print(f"    {line}")
    if file:
        content = {
            "command": command,
            "seconds": round(seconds),
            "machine": machine("timm", "mlflow").lines(),
            "outcomes": [vars(outcome) | {"bad": list(outcome.bad)} for outcome in outcomes],
        }
        file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return int(any(outcome.bad for outcome in outcomes))
