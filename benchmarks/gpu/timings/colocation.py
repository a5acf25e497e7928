"""Wall-clock seconds of six small trials on one GPU, by the number of trials that share it."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.gpu.timings import Context
from benchmarks.gpu.timings.labs import decode, run_grid, write_lab

PER_GPU = (4, 1, 2, 8)
"""In order of value: with little time the last ones are left out."""


def measure(context: Context) -> dict[str, Any]:
    """Run the same grid in a new lab for each number of trials at once.

    Args:
        context: context of the section.
    """
    result: dict[str, Any] = {"decode_seconds": decode(context), "runs": {}}
    table, longest = [], 0.0
    for per_gpu in PER_GPU[:1] if context.smoke else PER_GPU:
        if context.left < 1.2 * longest:
            break
        seeds = epochs = 1 if context.smoke else 3
        heads, upsamplers = ["fcn32s", "fcn8s"], ["bilinear"]
        name = f"colocated{per_gpu}"
        file = write_lab(context, name, heads=heads, upsamplers=upsamplers, seeds=seeds, epochs=epochs)
        began = time.monotonic()
        try:
            found = run_grid(context, file, per_gpu)
        except RuntimeError as error:  # eight at once may be more than the memory holds
            result.setdefault("errors", {})[str(per_gpu)] = str(error)
            table.append((f"--per-gpu {per_gpu}", "failed"))
            continue
        longest = max(longest, time.monotonic() - began)
        result["runs"][str(per_gpu)] = found
        table.append((f"{found['trials']} trials, --per-gpu {per_gpu}, s", f"{found['wall_seconds']:.1f}"))
        context.save(result | {"table": table})
    if not result["runs"]:
        raise RuntimeError(next(iter(result["errors"].values())))
    best = min(result["runs"].values(), key=lambda found: found["wall_seconds"])["per_gpu"]
    result |= {"best": best, "table": table, "detail": f"fastest with --per-gpu {best}"}
    context.save(result)  # the section `grid` reads it
    return result
