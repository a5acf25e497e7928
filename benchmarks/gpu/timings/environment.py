"""The GPU, the software, and the maximum bandwidth and rate of matrix products."""

from __future__ import annotations

from typing import Any

from benchmarks.gpu.timings import Context


def measure(context: Context) -> dict[str, Any]:
    """Describe the machine, then measure its bandwidth and its rate in products of matrices.

    Args:
        context: context of the section.
    """
    from benchmarks.gpu.machine import describe, measure_copies, query_smi
    from benchmarks.speed.machine import measure_gemm_peaks

    device, sizes = context.torch_device, context.sizes
    result: dict[str, Any] = describe(device) | {"workers_of_peers": context.workers}
    context.save(result)
    result |= measure_copies(device, sizes.copy)
    result["gemm"] = measure_gemm_peaks(device, bf16=context.cuda, side=sizes.gemm)
    result["smi_after"] = query_smi()
    table = [("DataLoader workers of the peers", str(context.workers))] if context.cuda else []
    table.append(("copy on the device, read + written", f"{result['copy']['bytes_per_s'] / 1e12:.3f} TB/s"))
    table.append(("copy from pinned memory", f"{result['upload']['bytes_per_s'] / 1e9:.1f} GB/s"))
    table += [(f"{name} {sizes.gemm}^3", f"{peak / 1e12:.1f} TFLOP/s") for name, peak in result["gemm"].items()]
    return result | {"table": table, "detail": result["device"]}
