"""Comparison of the devices that the driver found with those that torch sees."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.connection import Connection

import torch

from fcnlab.runner.executors.stop_signals import block_stop_signals
from fcnlab.settings import DEVICE_VARIABLE
from fcnlab.trial.launch import START_METHOD


def describe_device_error(kind: str, count: int, devices: int, *, verify: bool) -> str | None:
    """Compare the devices that the driver found with those that torch sees.

    Args:
        kind: the requested type of device, `cpu` or `cuda`.
        count: number of CUDA devices that torch sees.
        devices: number of devices of a trial.
        verify: whether torch must see no CUDA device if the CPU trains.

    Returns:
        The problem and its remedy in one line; None if they agree.
    """
    if kind == "cuda" and count < devices:
        build = "" if torch.version.cuda else ", a build without CUDA,"
        named = os.environ.get("CUDA_VISIBLE_DEVICES")
        return (
            f"torch {torch.__version__}{build} sees {count} of the {devices} GPUs of a trial "
            f"(CUDA_VISIBLE_DEVICES={named}); install a torch build that fits the NVIDIA driver, or train on the CPU "
            "with --device cpu"
        )
    if kind == "cpu" and verify and count:
        return (
            f"torch {torch.__version__} sees {count} CUDA devices, but neither NVML nor /dev shows a GPU; set "
            "CUDA_VISIBLE_DEVICES to the GPUs that are to train, such as 0, or train on the CPU with --device cpu"
        )
    return None


def find_device_error(devices: int, *, verify: bool) -> str | None:
    """Compare the devices as `describe_device_error` does, and count those of torch in a separate process.

    A process that has initialized CUDA cannot fork users of CUDA.

    Args:
        devices: number of devices of a trial.
        verify: whether torch must see no CUDA device if the CPU trains.
    """
    kind = os.environ.get(DEVICE_VARIABLE, "cpu")
    if kind == "cpu" and not verify:
        return None
    context = multiprocessing.get_context(START_METHOD)
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_send_device_count, args=(theirs,))  # type: ignore[attr-defined]
    with block_stop_signals():  # a signal to all processes of a job must not look like a failure of CUDA
        process.start()
    theirs.close()
    try:
        count = int(ours.recv())
    except EOFError:
        process.join()
        return f"torch {torch.__version__} ended with exit code {process.exitcode} when it looked for CUDA devices"
    process.join()
    return describe_device_error(kind, count, devices, verify=verify)


def _send_device_count(to: Connection) -> None:
    to.send(count_devices())


def count_devices() -> int:
    """Return the number of CUDA devices that torch sees."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0
