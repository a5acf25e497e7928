"""A trial whose batch does not fit into the memory left by other processes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.gpu.results import SectionFailed
from benchmarks.gpu.sections.grids import records
from benchmarks.gpu.sections.settings import AcceptSettings, run_cli, without_mlflow
from fcnlab.trial.run_folder import RunFolder

LEFT = 5 * 2**29
"""Bytes of the GPU that another process leaves."""

GRID = """
question: Does a trial whose batch is too large for the memory finish with micro-batches?
base:
  backbone: resnet18-scratch
  upsampler: bilinear
  dataset: shapes
  dataset.options: {train: 32, val: 1, test: 1, height: 512, width: 512}
  recipe: smoke
  recipe.epochs: 1
  recipe.batch_size: 32
  recipe.fused: "off"
  recipe.crop: {height: 512, width: 512}
product: {head: [fcn32s]}
seeds: 1
baseline: {head: fcn32s}
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


def out_of_memory(settings: AcceptSettings) -> dict[str, Any]:
    """Run a trial that needs more memory than is free: it must run again with exclusive use, then with micro-batches.

    Args:
        settings: settings of the run, on a GPU.
    """
    file = settings.grid("memory", GRID)
    lab = settings.lab("memory")
    with full_gpu() as free:
        try:
            variables = without_mlflow(settings)
            run_cli(settings, "grid", "run", str(file), "--per-gpu", "2", timeout=70, variables=variables)
        except subprocess.TimeoutExpired as error:
            tried = [line for file in lab.runs.glob("*/attempts.jsonl") for line in file.read_text().splitlines()]
            found = {"free": free, "attempts": [json.loads(line) for line in tried]}
            raise SectionFailed(f"not finished after {error.timeout:.0f} s and {len(tried)} attempts", found) from error
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
    detail = f"attempts (exclusive, micro-batches): {ladder}, finished with {record.micro_batches} of 32"
    if record.micro_batches < 2 or ladder[:2] != [(False, 1), (True, 1)]:
        raise SectionFailed(detail, result)
    return result | {"detail": detail}
