"""A trial whose batch does not fit into the memory that other processes have left."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fcnlab.trial.record import RunFolder
from results import SectionFailed
from sections.grids import records
from sections.settings import Settings, run_cli, without_mlflow

LEFT = 3 * 2**30
"""Bytes of the GPU that another process leaves."""

GRID = """
question: Does a trial whose batch is too large for the memory finish in parts?
base:
  backbone: {backbone}
  upsampler: bilinear
  dataset: shapes
  dataset.options: {{train: {batch}, val: 1, test: 1, height: {size}, width: {size}}}
  recipe: smoke
  recipe.epochs: 1
  recipe.batch: {batch}
  recipe.fused: "off"
  recipe.crop: {{height: {size}, width: {size}}}
product: {{head: [fcn32s]}}
seeds: 1
baseline: {{head: fcn32s}}
"""

HOLD = """
import sys, torch
free, total = torch.cuda.mem_get_info()
held = [torch.empty(min(2**30, size), dtype=torch.uint8, device="cuda") for size in
        [2**30] * max(0, (free - LEFT) // 2**30)]
torch.cuda.synchronize()
print(free, torch.cuda.mem_get_info()[0], flush=True)
sys.stdin.read()
"""


@contextmanager
def full_gpu() -> Iterator[str]:
    """Let another process hold the GPU's memory but for `LEFT` bytes; yields the free bytes before and after."""
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


def out_of_memory(settings: Settings) -> dict[str, Any]:
    """Run a trial that needs more memory than is free: it must be run again alone, then with each batch in parts."""
    assert settings.cuda, "memory of a GPU is filled"
    batch, size = 32, 512
    file = settings.grid("memory", GRID.format(backbone="resnet18-scratch", batch=batch, size=size))
    with full_gpu() as free:
        run_cli(settings, "grid", "run", str(file), "--per-gpu", "2", timeout=70, variables=without_mlflow(settings))
    lab = settings.lab("memory")
    (record,) = records(lab)
    attempts = RunFolder(lab.runs, record.key).attempts()
    result = {
        "free": free,
        "status": record.status,
        "parts": record.parts,
        "peak_memory": record.cost.peak_memory if record.cost is not None else None,
        "attempts": [attempt.model_dump() for attempt in attempts],
        "failure": record.failure.message if record.failure is not None else None,
    }
    if record.status != "finished":
        raise SectionFailed(f"the trial failed after {len(attempts)} attempts: {result['failure']}", result)
    ladder = [(attempt.alone, attempt.parts) for attempt in attempts]
    if record.parts < 2 or ladder[:2] != [(False, 1), (True, 1)]:
        raise SectionFailed(f"attempts (alone, parts): {ladder}, finished in {record.parts} parts", result)
    return result | {"detail": f"attempts (alone, parts): {ladder}, finished in {record.parts} parts of {batch}"}
