"""The fixtures that keep a test from changing the next one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest
import torch

from tests import leftovers
from tests.leftovers import end_processes, find_changes, read_state, restore_state


def test_changed_settings_are_named_and_restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FCNLAB_DATA", "before")
    before = read_state()
    os.chdir(tmp_path)
    torch.set_default_dtype(torch.float64)
    os.environ["FCNLAB_LAB"] = "new"
    os.environ["FCNLAB_DATA"] = "changed"
    names = [change.partition(" was ")[0] for change in find_changes(before)]
    assert names == ["the current folder", "the default dtype", "$FCNLAB_DATA", "$FCNLAB_LAB"]
    restore_state(before)
    assert find_changes(before) == [] and "FCNLAB_LAB" not in os.environ


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds processes in /proc, which only Linux has")
def test_processes_that_do_not_end_are_killed_with_those_of_ended_parents(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_patience(*_: object) -> NoReturn:
        pytest.fail("they do not end")

    sleeps = "import time; print('there', flush=True); time.sleep(600)  # as fcnlab.runner does"
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {sleeps!r}])"
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    child = subprocess.Popen([sys.executable, "-c", sleeps], stdout=subprocess.PIPE, text=True)
    for process in (parent, child):
        assert process.stdout is not None and process.stdout.readline() == "there\n"
        process.stdout.close()
    parent.wait()
    with monkeypatch.context() as patched:
        patched.setattr(leftovers, "wait_until", lambda condition, _: condition() or no_patience())
        assert len(end_processes()) == 2
    child.wait()
    assert end_processes() == []
