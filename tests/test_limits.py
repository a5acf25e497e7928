"""Cores and memory that control groups and a SLURM job leave to this process."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from fcnlab.limits import usable_cores, usable_memory

SLURM = ("SLURM_CPUS_ON_NODE", "SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU")


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine with eight cores, outside of a SLURM job."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    for name in SLURM:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def write(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


V2 = {"proc/self/cgroup": "0::/job/7\n"}
V1 = {"proc/self/cgroup": "5:memory:/job/7\n4:cpu,cpuacct:/job/7\n0::/\n"}


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        (V2 | {"sys/fs/cgroup/job/7/cpu.max": "max 100000\n"}, 8),
        (V2 | {"sys/fs/cgroup/job/7/cpu.max": "200000 100000\n"}, 2),
        (V2 | {"sys/fs/cgroup/job/cpu.max": "250000 100000\n"}, 3),
        (V2 | {"sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        (V2 | {"sys/fs/cgroup/job/7/cpu.max": "6400000 100000\n"}, 8),
        (
            V1
            | {
                "sys/fs/cgroup/cpu/job/7/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/job/7/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "400000\n",
                "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000\n",
            },
            4,
        ),
    ],
    ids=["no groups", "no quota", "two cores", "of a parent", "half a core", "more than the cores", "version 1"],
)
def test_the_usable_cores_are_limited_by_quotas_of_control_groups(
    tmp_path: Path, files: dict[str, str], cores: int
) -> None:
    assert usable_cores(write(tmp_path, files)) == cores


@pytest.mark.parametrize(("cpus", "cores"), [("3", 3), ("64", 8), ("", 8), ("2(x4)", 8), ("0", 8)])
def test_the_usable_cores_are_limited_by_a_slurm_job(
    machine: pytest.MonkeyPatch, tmp_path: Path, cpus: str, cores: int
) -> None:
    machine.setenv("SLURM_CPUS_ON_NODE", cpus)
    assert usable_cores(tmp_path) == cores


@pytest.mark.parametrize(
    ("group", "limit"),
    [
        ("0::/job/7", "sys/fs/cgroup/job/memory.max"),
        ("4:memory:/job/7", "sys/fs/cgroup/memory/job/memory.limit_in_bytes"),
    ],
    ids=["version 2", "version 1"],
)
def test_the_usable_memory_is_limited_by_the_control_groups(tmp_path: Path, group: str, limit: str) -> None:
    write(tmp_path, {"proc/self/cgroup": f"{group}\n", limit: "1000\n"})
    (tmp_path / limit).parent.joinpath("7").mkdir()
    (tmp_path / limit).parent.joinpath("7", "memory.max").write_text("max\n")
    assert usable_memory(tmp_path) == 1000


@pytest.mark.parametrize(
    ("variables", "mebibytes"),
    [
        ({"SLURM_MEM_PER_NODE": "100"}, 100),
        ({"SLURM_MEM_PER_CPU": "50", "SLURM_CPUS_ON_NODE": "4"}, 200),
        ({"SLURM_MEM_PER_NODE": "0"}, None),
        ({"SLURM_MEM_PER_CPU": "50"}, None),
    ],
    ids=["of the node", "of its CPUs", "all of the node", "unknown CPUs"],
)
def test_the_usable_memory_is_limited_by_a_slurm_job(
    machine: pytest.MonkeyPatch, tmp_path: Path, variables: dict[str, str], mebibytes: int | None
) -> None:
    whole = usable_memory(tmp_path)
    for name, value in variables.items():
        machine.setenv(name, value)
    assert usable_memory(tmp_path) == (whole if mebibytes is None else mebibytes * 2**20)
