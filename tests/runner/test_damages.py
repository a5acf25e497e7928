"""Damaged files of a lab never end a command with a traceback, change a table or disturb other trials."""

from __future__ import annotations

import pytest

from tests.runner.damages import VERBS, Case, Harness, cases

QUICK = ("deleted", "a folder in its place", "truncated at 1/3", "bit 1 at 1/3", "a file in place of the folder")
"""Damages that are tried with all commands; `python -m tests.runner.damages` tries many more."""


def _select() -> list[Case]:
    chosen = [case for case in cases(long=False) if case.trial != 1]
    return [case for case in chosen if case.name in QUICK or "mIoU 0.46" in case.name or "corrected" in case.name]


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Harness:
    return Harness(tmp_path_factory.mktemp("damages"))


@pytest.mark.parametrize("case", _select(), ids=lambda case: f"{case.trial}-{case.file}-{case.name}")
def test_damage_is_reported_and_repaired(harness: Harness, case: Case) -> None:
    verbs = ("report",) if case.verbs == VERBS and case.name not in QUICK else None
    assert harness.try_case(case, verbs=verbs) == []
