"""Cores and memory that this process may use: of the machine, its control groups, and its SLURM job."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

ROOT = Path("/")


def usable_cores(root: Path = ROOT) -> int:
    """Return the number of cores that this process may use.

    The affinity, the quotas of control groups, as of containers, and the CPUs of a SLURM job on this node limit them;
    not every cluster binds the processes of a job to its CPUs.

    Args:
        root: root of the file system.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = (math.ceil(quota) for quota in _read_cpu_quotas(root))
    return max(1, min((cores, *quotas, *_read_variable("SLURM_CPUS_ON_NODE"))))


def usable_memory(root: Path = ROOT) -> int:
    """Return the bytes of memory that this process may use, limited by the machine, control groups and a SLURM job.

    Args:
        root: root of the file system.
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *_read_memory_of_job()]
    for own in find_groups("memory", root):
        for file in (group / name for group in (own, *own.parents) for name in ("memory.max", "memory.limit_in_bytes")):
            with suppress(OSError, ValueError):  # the group has no limit
                limits.append(int(file.read_text(encoding="utf-8")))
    return min(limits)


def find_groups(controller: str, root: Path = ROOT) -> Iterator[Path]:
    """Yield the folders of the Linux control groups, of version 2 and 1, that may limit this process.

    Args:
        controller: name of the resource, such as `memory` or `cpu`.
        root: root of the file system.
    """
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                yield root / "sys/fs/cgroup" / path.lstrip("/")
            elif controller in controllers.split(","):
                yield root / "sys/fs/cgroup" / controller / path.lstrip("/")


def _read_cpu_quotas(root: Path) -> Iterator[float]:
    """Yield the numbers of cores whose time the control groups of this process may use."""
    for own in find_groups("cpu", root):
        for group in (own, *own.parents):
            with suppress(OSError, ValueError):  # the group has no quota, or is of the other version
                quota, period = (group / "cpu.max").read_text(encoding="utf-8").split()
                yield int(quota) / int(period)
            with suppress(OSError, ValueError):
                files = (group / "cpu.cfs_quota_us", group / "cpu.cfs_period_us")
                quota, period = (file.read_text(encoding="utf-8") for file in files)
                if int(quota) > 0:  # -1 without a quota
                    yield int(quota) / int(period)


def _read_memory_of_job() -> Iterator[int]:
    """Yield the bytes of memory that a SLURM job has on this node; SLURM states them in MiB, for the node or a CPU."""
    yield from (2**20 * memory for memory in _read_variable("SLURM_MEM_PER_NODE"))
    for memory in _read_variable("SLURM_MEM_PER_CPU"):
        yield from (2**20 * memory * cpus for cpus in _read_variable("SLURM_CPUS_ON_NODE"))


def _read_variable(name: str) -> Iterator[int]:
    """Yield the value of an environment variable if it is a positive number; SLURM writes 0 for all of the memory."""
    with suppress(ValueError):
        value = int(os.environ.get(name, ""))
        if value > 0:
            yield value
