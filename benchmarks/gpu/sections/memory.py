"""A trial whose batch does not fit into the memory left by other processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.gpu.results import SectionFailed
from benchmarks.gpu.sections.grids import records
from benchmarks.gpu.sections.settings import Settings, run_cli, without_mlflow
from fcnlab.trial.run_folder import RunFolder

LEFT = 5 * 2**29
"""Bytes of the GPU that another process leaves."""
ROOM = 7 * 2**27
"""On the CPU, bytes of address space that a process has beside what it takes when everything is imported."""

GRID = """
question: Does a trial whose batch is too large for the memory finish with micro-batches?
base:
  backbone: {backbone}
  upsampler: bilinear
  dataset: shapes
  dataset.options: {{train: {batch}, val: 1, test: 1, height: {size}, width: {size}}}
  recipe: smoke
  recipe.epochs: 1
  recipe.batch_size: {batch}
  recipe.fused: "off"
  recipe.crop: {{height: {size}, width: {size}}}
product: {{head: [fcn32s]}}
seeds: 1
baseline: {{head: fcn32s}}
"""

HOLD = """
import sys, torch
free, total = torch.cuda.mem_get_info()
chunks, rest = divmod(max(0, free - LEFT), 2**30)
held = [torch.empty(size, dtype=torch.uint8, device="cuda") for size in [2**30] * chunks + [rest]]
torch.cuda.synchronize()
print(free, torch.cuda.mem_get_info()[0], flush=True)
sys.stdin.read()
"""


@contextmanager
def full_gpu() -> Iterator[str]:
    """Fill the GPU's memory up to `LEFT` bytes by another process; yield the free bytes before and after."""
    program = HOLD.replace("LEFT", str(LEFT))
    holder = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    try:
        free = holder.stdout.readline()
        assert free, f"the process that fills the memory ended with exit code {holder.wait()}"
        yield free.strip()
    finally:
        holder.kill()
        holder.wait()


def address_space() -> int:
    """Return the bytes of address space of a process that has imported all that a trial needs."""
    program = "import fcnlab.trial.run, torchvision, timm, torch; print(open('/proc/self/statm').read().split()[0])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return int(done.stdout) * os.sysconf("SC_PAGE_SIZE")


def out_of_memory(settings: Settings) -> dict[str, Any]:
    """Run a trial that needs more memory than is free: it must run again with exclusive use, then with micro-batches.

    On the CPU the address space of the processes is limited instead.

    Args:
        settings: settings of the run.
    """
    batch, size = (32, 512) if settings.cuda else (16, 512)
    backbone = "resnet18-scratch" if settings.cuda else "tiny-scratch"
    file = settings.grid("memory", GRID.format(backbone=backbone, batch=batch, size=size))
    command = ("grid", "run", str(file))
    variables = without_mlflow(settings)
    lab = settings.lab("memory")
    if settings.cuda:
        with full_gpu() as free:
            try:
                run_cli(settings, *command, "--per-gpu", "2", timeout=70, variables=variables)
            except subprocess.TimeoutExpired as error:
                tried = [line for file in lab.runs.glob("*/attempts.jsonl") for line in file.read_text().splitlines()]
                found = {"free": free, "attempts": [json.loads(line) for line in tried]}
                raise SectionFailed(
                    f"not finished after {error.timeout:.0f} s and {len(tried)} attempts", found
                ) from error
    else:
        most = address_space() + ROOM
        free = f"{ROOM} of {most}"
        run_cli(
            settings, *command, "--workers", "2", "--threads", "1", timeout=70, variables=variables, address_space=most
        )
    (record,) = records(lab)
    attempts = RunFolder(lab.runs, record.key).attempts()
    result = {
        "free": free,
        "status": record.status,
        "micro_batches": record.micro_batches,
        "peak_memory": record.cost.peak_memory if record.cost is not None else None,
        "attempts": [attempt.model_dump() for attempt in attempts],
        "failure": record.failure.message if record.failure is not None else None,
    }
    if record.status != "finished":
        raise SectionFailed(f"the trial failed after {len(attempts)} attempts: {result['failure']}", result)
    ladder = [(attempt.exclusive, attempt.micro_batches) for attempt in attempts]
    if record.micro_batches < 2 or ladder[:2] != [(False, 1), (True, 1)]:
        raise SectionFailed(
            f"attempts (exclusive, micro-batches): {ladder}, finished with {record.micro_batches}", result
        )
    return result | {
        "detail": f"attempts (exclusive, micro-batches): {ladder}, finished with {record.micro_batches} of {batch}"
    }
