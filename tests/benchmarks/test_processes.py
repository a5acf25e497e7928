"""No process outlives a benchmark, and missing packages of peers are named before anything is measured."""

from __future__ import annotations

import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

import benchmarks.gpu.bench
from benchmarks import speed
from benchmarks.processes import child_environment
from fcnlab.errors import RunError
from tests.conftest import REPOSITORY
from tests.patience import wait_until

LAP = """
import sys
from benchmarks.processes import exit_on_sigterm, run_guarded
from benchmarks.speed.sides import Setting, sides
exit_on_sigterm()
if sys.argv[1] == "command":
    run_guarded(["sh", "-c", "sleep 100 & sleep 100; echo"], {})
pairs = tuple((name, name) for name in sys.argv[2:])
setting = Setting("torchvision", "resnet18", "fcn32s", 1, (64, 64), pairs, 1)
with sides([setting]) as (side,):
    side.lap(100.0)
"""


def descendants(process: int) -> list[int]:
    found = [process]
    for one in found:
        found += map(int, Path(f"/proc/{one}/task/{one}/children").read_text().split())
    return found[1:]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds processes in /proc, which only Linux has")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_outlives_a_benchmark_that_is_killed_in_a_lap(tmp_path: Path, number: int) -> None:
    environment = child_environment()
    benches = [
        subprocess.Popen([sys.executable, "-c", LAP, kind, str(tmp_path / "absent")], env=environment, cwd=REPOSITORY)
        for kind in ("command", "side")
    ]
    expected = (4, 1)  # the guard, sh and both sleeps; the side, which imports torch
    for bench, processes in zip(benches, expected, strict=True):
        wait_until(partial(_has_descendants, bench.pid, processes), "the processes start")
    left = [child for bench in benches for child in descendants(bench.pid)]
    for bench in benches:
        bench.send_signal(number)
        assert bench.wait(60) == (-number if number == signal.SIGKILL else 128 + number)
    wait_until(lambda: not any(map(_is_alive, left)), "the processes end")


def _has_descendants(process: int, count: int) -> bool:
    return len(descendants(process)) == count


def _is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_missing_package_of_a_peer_is_named_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    speed.check_peers("networks", "train_torchvision", "train_d2l", "train_smp", "run_one", "confusion")
    monkeypatch.setitem(speed.PACKAGES, "train_smp", "absent_package")
    with pytest.raises(RunError, match=r"^benchmarks/peers/train_smp\.py needs absent_package, which is not"):
        speed.peer("train_smp")
    words = ["bench", "--out", str(tmp_path / "out"), "--section", "training", "--peer", "smp"]
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(benchmarks.gpu.bench, "exit_on_sigterm", lambda: None)
    assert benchmarks.gpu.bench.main() == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "pip install absent-package" in error
    assert not (tmp_path / "out").exists()
