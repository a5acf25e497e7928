"""A grid of 24 trials from the command to the table, and a shell loop over a script, extrapolated from two runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.gpu.timings import Context
from benchmarks.gpu.timings.labs import decode, run_grid, write_lab

HEADS = ["fcn32s", "fcn16s", "fcn8s"]
UPSAMPLERS = ["bilinear", "random"]
SEEDS, EPOCHS = 4, 5
LOOPED = ("fcn32s", "fcn8s")
"""Heads whose runs of the script are timed; their mean is used for all trials."""


def measure(context: Context) -> dict[str, Any]:
    """Run the grid with the fastest number of trials at once, then one or two runs of the script.

    Args:
        context: context of the section.
    """
    per_gpu = context.kept("colocation").get("best", 4)
    heads, upsamplers = (HEADS[:1], UPSAMPLERS[:1]) if context.smoke else (HEADS, UPSAMPLERS)
    seeds, epochs = (2, 1) if context.smoke else (SEEDS, EPOCHS)
    result: dict[str, Any] = {"decode_seconds": decode(context), "epochs": epochs}
    file = write_lab(context, "grid", heads=heads, upsamplers=upsamplers, seeds=seeds, epochs=epochs)
    result["fcnlab"] = found = run_grid(context, file, per_gpu)
    decoded = sum(result["decode_seconds"].values())
    table = [
        (f"{found['trials']} trials, --per-gpu {per_gpu}, s", f"{found['wall_seconds']:.1f}"),
        ("decoding before it, once, s (0 if an earlier section did it)", f"{decoded:.1f}"),
    ]
    context.save(result | {"table": table})
    runs: dict[str, float] = {}
    for head in LOOPED[:1] if context.smoke else LOOPED:
        if runs and context.left < 1.2 * max(runs.values()):
            break
        runs[head] = script(context, head, epochs)
        mean = sum(runs.values()) / len(runs)
        result["shell"] = {
            "runs": runs,
            "extrapolated": f"the mean of {len(runs)} runs times {found['trials']} trials",
            "extrapolated_seconds": found["trials"] * mean,
            "times_faster": found["trials"] * mean / found["wall_seconds"],
        }
        context.save(result | {"table": table})
    shell = result["shell"]
    text = f"{shell['extrapolated_seconds']:.0f}, extrapolated from {len(runs)}"
    table.append((f"shell loop over {found['trials']} runs of the script, s", text))
    table.append(("times faster", f"{shell['times_faster']:.1f}"))
    return result | {"table": table, "detail": f"{found['wall_seconds']:.1f} s, {shell['times_faster']:.1f}x"}


def script(context: Context, head: str, epochs: int) -> float:
    """Return the seconds of one run of the script, including the start of its process.

    Args:
        context: context of the section.
        head: name of the head.
        epochs: number of epochs.
    """
    arguments: list[str | Path] = ["-m", "benchmarks.peers.run_one", head, "0", str(epochs), context.data]
    arguments += ["--batch", str(context.sizes.batch), "--crop", *map(str, context.sizes.crop)]
    arguments += ["--device", context.device]
    arguments += ["--workers", str(context.workers), "--bf16"] if context.cuda else []
    return context.process(*arguments)[0]
