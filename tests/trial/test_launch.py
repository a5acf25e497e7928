"""Ranks of a trial: the record of the trial if one of them fails, is killed, or pauses."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from fcnlab.settings import KILLED
from fcnlab.trial.launch import launch
from fcnlab.trial.record import Record
from tests.builders import build_trial, failed_record, finished_record
from tests.patience import patience, wait_until
from tests.processes import is_running

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")  # Python 3.12


def noted(folder: Path, rank: int) -> None:
    """Write the id of the process."""
    (folder / str(rank)).write_text(str(os.getpid()))


def wait_for(folder: Path, rank: int) -> int:
    """Return the id that a process has written."""
    file = folder / str(rank)
    wait_until(lambda: file.exists() and file.read_text(), f"rank {rank} starts")
    return int(file.read_text())


def finishes(folder: Path, rank: int) -> Record | None:
    noted(folder, rank)
    wait_for(folder, 1)
    return finished_record(build_trial(), threads=torch.get_num_threads()) if rank == 0 else None


def pauses(folder: Path, rank: int) -> Record | None:
    noted(folder, rank)
    wait_for(folder, 1)
    return None


def second_fails(folder: Path, rank: int) -> Record | None:
    noted(folder, rank)
    wait_for(folder, 0)
    if rank == 1:
        return failed_record(build_trial(), "the message")
    time.sleep(600)
    return None


def second_is_killed(folder: Path, rank: int) -> Record | None:
    noted(folder, rank)
    wait_for(folder, 0)
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600)
    return None


def second_is_killed_and_the_first_takes_it_for_an_error(folder: Path, rank: int) -> Record | None:
    noted(folder, rank)
    if rank == 0:
        os.kill(wait_for(folder, 1), signal.SIGKILL)
        return failed_record(build_trial(), "connection closed by peer")
    time.sleep(600)
    return None


def both_gone(folder: Path) -> bool:
    return not any(is_running(wait_for(folder, rank)) for rank in (0, 1))


def test_rank_0_returns_the_record_and_ranks_share_the_threads(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        record = launch(2, partial(finishes, tmp_path))
    finally:
        torch.set_num_threads(threads)
    assert record is not None and record.environment is not None
    assert (record.status, record.environment.threads) == ("finished", 2)
    assert both_gone(tmp_path)


def test_a_pause_gives_no_record(tmp_path: Path) -> None:
    assert launch(2, partial(pauses, tmp_path)) is None
    assert both_gone(tmp_path)


def test_a_failed_rank_fails_the_trial_and_ends_all_ranks(tmp_path: Path) -> None:
    record = launch(2, partial(second_fails, tmp_path))
    assert record is not None and record.failure is not None
    assert record.failure.message == "the message"
    assert both_gone(tmp_path)


@pytest.mark.parametrize("work", [second_is_killed, second_is_killed_and_the_first_takes_it_for_an_error])
def test_a_killed_rank_ends_all_ranks_without_a_failed_record(
    tmp_path: Path,
    work: Callable[..., Record | None],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("fcnlab.trial.launch.CRASH_TIMEOUT", patience())
    with pytest.raises(SystemExit) as ended:
        launch(2, partial(work, tmp_path))
    assert ended.value.code == KILLED
    assert "rank 1 ended with exit code -9" in capfd.readouterr().err
    assert both_gone(tmp_path)
