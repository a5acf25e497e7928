"""The GPU, the software, and the maximum bandwidth and rate of matrix products."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.gpu.timings import Context, rounds, shared_memory

if TYPE_CHECKING:
    import torch

QUERY = (
    "name", "driver_version", "memory.total", "clocks.sm", "clocks.max.sm", "clocks.mem", "power.limit",
    "temperature.gpu", "mig.mode.current", "pcie.link.gen.current",
)  # fmt: skip
PACKAGES = (
    "torch", "torchvision", "timm", "triton", "numpy", "pillow", "pydantic", "segmentation-models-pytorch",
    "albumentations", "opencv-python-headless",
)  # fmt: skip


def measure(context: Context) -> dict[str, Any]:
    """Describe the machine, then measure its bandwidth and its rate in products of matrices.

    Args:
        context: context of the section.
    """
    import torch

    device, sizes = context.torch_device, context.sizes
    cuda = device.type == "cuda"
    result: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if cuda else platform.processor() or platform.machine(),
        "smi": smi(),
        "python": platform.python_version(),
        "versions": versions(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "capability": list(torch.cuda.get_device_capability()) if cuda else None,
        "memory": torch.cuda.mem_get_info() if cuda else None,
        "cores": len(os.sched_getaffinity(0)),
        "shared_memory": shared_memory(),
        "workers_of_peers": context.workers,
    }
    context.save(result)
    bandwidth, upload = copies(device, sizes.copy)
    products: dict[str, dict[str, Any]] = {}
    for name in ("bfloat16", "float16", "float32") if cuda else ("float32",):
        a, b = (torch.randn(sizes.gemm, sizes.gemm, device=device, dtype=getattr(torch, name)) for _ in range(2))
        out = torch.empty_like(a)
        spent = rounds(partial(torch.mm, a, b, out=out), device, 5, 2 if name == "float32" else 20)
        products[name] = {"seconds": spent.json(), "flop_per_s": 2 * sizes.gemm**3 / spent.median}
    result |= {"copy": bandwidth, "upload": upload, "gemm": products, "smi_after": smi()}
    table = [("DataLoader workers of the peers", str(context.workers))] if cuda else []
    table.append(("copy on the device, read + written", f"{bandwidth['bytes_per_s'] / 1e12:.3f} TB/s"))
    table.append(("copy from pinned memory", f"{upload['bytes_per_s'] / 1e9:.1f} GB/s"))
    table += [
        (f"{name} {sizes.gemm}^3", f"{found['flop_per_s'] / 1e12:.1f} TFLOP/s") for name, found in products.items()
    ]
    return result | {"table": table, "detail": result["device"]}


def copies(device: torch.device, size: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Measure copies of `size` bytes on the device, and of an eighth of that from pinned memory.

    Args:
        device: the device.
        size: bytes.
    """
    import torch

    source = torch.empty(size, dtype=torch.uint8, device=device).random_()
    target = torch.empty_like(source)
    seconds = rounds(lambda: target.copy_(source), device, 5, 20)
    pinned = torch.empty(size // 8, dtype=torch.uint8, pin_memory=device.type == "cuda")
    part = target[: len(pinned)]
    up = rounds(lambda: part.copy_(pinned, non_blocking=True), device, 5, 4)
    on_device = {"seconds": seconds.json(), "bytes_per_s": 2 * size / seconds.median}
    return on_device, {"seconds": up.json(), "bytes_per_s": len(pinned) / up.median}


def smi() -> dict[str, str]:
    """Ask nvidia-smi about the first GPU, without changing settings."""
    command = ["nvidia-smi", "-i", "0", f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"error": str(error)}
    if done.returncode:
        return {"error": (done.stdout + done.stderr).strip()[-500:]}
    return dict(zip(QUERY, (value.strip() for value in done.stdout.split(",")), strict=False))


def versions() -> dict[str, str | None]:
    """Return the versions of the packages that affect timings; None for missing ones."""
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found
