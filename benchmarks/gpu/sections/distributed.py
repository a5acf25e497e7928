"""One step under DistributedDataParallel in a group of one process."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.gpu.results import SectionFailed
from benchmarks.gpu.sections.settings import AcceptSettings, cell
from fcnlab.data.datasets.shapes import Shapes
from fcnlab.training import hardware
from fcnlab.training.step import Objective
from fcnlab.trial.build import build_model, build_training

BOUND = 1e-5
"""Largest relative distance of the two gradients; cuDNN may choose another algorithm for the second."""


def distributed(settings: AcceptSettings) -> dict[str, Any]:
    """Compare the gradient of a step with and without DistributedDataParallel, and run the group's collectives.

    On CUDA the group has NCCL for the GPU and Gloo for the CPU, as in `fcnlab.training.distributed`.

    Args:
        settings: settings of the run.
    """
    device = torch.device("cuda", 0) if settings.cuda else torch.device("cpu")
    meeting = settings.scratch / "meeting"
    meeting.unlink(missing_ok=True)
    if settings.cuda:
        torch.cuda.set_device(device)
    torch.distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if settings.cuda else "gloo",
        init_method=f"file://{meeting}",
        rank=0,
        world_size=1,
    )
    try:
        total = torch.ones(1000, device=device)
        torch.distributed.all_reduce(total)
        decision = torch.tensor(True)
        torch.distributed.broadcast(decision, src=0)
        assert bool(decision) and float(total.sum()) == 1000, "a collective has changed its values"
        errors = {}
        for name, axes in {"fused": {"head": "fcn32s"}, "auxiliary": {"head": "dilated8-aux"}}.items():
            single = _gradient(axes, device, parallel=False)
            shared = _gradient(axes, device, parallel=True)
            distance = sum(float((a - b).norm()) ** 2 for a, b in zip(single, shared, strict=True)) ** 0.5
            errors[name] = distance / sum(float(a.norm()) ** 2 for a in single) ** 0.5
    finally:
        torch.distributed.destroy_process_group()
    result = {"relative_distance": errors}
    if max(errors.values()) > BOUND:
        raise SectionFailed(f"the gradients differ: {errors}", result)
    backend = "NCCL" if settings.cuda else "Gloo"
    distances = ", ".join(f"{error:.1g} ({name})" for name, error in errors.items())
    return result | {"detail": f"{backend}: relative distances of gradients {distances}"}


def _gradient(axes: dict[str, Any], device: torch.device, *, parallel: bool) -> list[Tensor]:
    """Return the gradient of the first step of a trial, on the CPU."""
    parts = {"backbone": "tiny-scratch", "upsampler": "bilinear", "dataset": "shapes-mini", "recipe": "smoke"}
    of = cell({**parts, **axes, "recipe.deterministic": True})
    scenes = Shapes(train=8, val=1, test=1, height=96, width=128, seed=0)
    autocast = hardware.create_autocast(device, "fp32")
    hardware.configure_determinism(device, deterministic=True)
    model = hardware.move_to_device(build_model(of.variant, len(scenes.classes), seed=0), device)
    training = build_training(of.recipe, model, scenes, split="train", seed=0)
    torch.manual_seed(0)
    objective: nn.Module = Objective(model.train(), training.loss, autocast)
    if parallel:
        objective = nn.parallel.DistributedDataParallel(objective, static_graph=True)
    images, labels = next(iter(training.batches.epoch(0)))
    objective(images, labels).backward()
    return [parameter.grad.cpu() for parameter in model.parameters() if parameter.grad is not None]
