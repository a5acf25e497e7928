"""The time of the parts of a training step: ResNet-18 FCN-32s with d2l's dense upsampler, in bf16."""

from __future__ import annotations

import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from benchmarks.gpu.timings import Context, Spread

if TYPE_CHECKING:
    import torch

PHASES = ("batch", "forward and loss", "backward", "optimizer")
VARIANTS = {
    "as a trial": {},
    "without CUDA graphs": {"FCNLAB_CUDA_GRAPHS": "0"},
    "without Triton": {"FCNLAB_TRITON": "0"},
    "without both": {"FCNLAB_CUDA_GRAPHS": "0", "FCNLAB_TRITON": "0"},
}
PROFILED = 5
"""Steps that torch's profiler records."""
TOP = 15
"""Kernels that are listed, by their device time."""
LIGHT = "mobilenetv2_100 fcn8s, 8 images, batch norm frozen"
"""A network with depthwise convolutions and a small batch, trained as the recipe `finetune` does."""
LEAST, EPOCHS = 5, 10
"""Epochs whose images per second are measured, at least and at most, after two that are not."""


def measure(context: Context) -> dict[str, Any]:
    """Time whole epochs as a trial trains, then whole steps, the kernels of a step, and its phases without graphs.

    Args:
        context: context of the section.
    """
    pairs = context.pairs(context.sizes.epoch)
    steps = 2 if context.smoke else 30
    result: dict[str, Any] = {
        "network": f"{context.sizes.backbones[0]} fcn32s, d2l-bilinear",
        "batch": context.sizes.batch,
        "crop": context.sizes.crop,
        "precision": "bf16",
        "variants": {},
        "table": [],
    }
    table = result["table"]
    result["epochs"] = epochs(context, pairs)
    rate = Spread(**result["epochs"]["images_per_s"])
    result["detail"] = f"{rate.text(0)} images/s as a trial trains"
    table.append(("whole epochs as a trial trains, images/s", rate.text(0)))
    context.save(result)
    count = 1 if context.smoke else context.sizes.rounds + 2

    def variant(name: str) -> None:
        with patch.dict(os.environ, VARIANTS[name]):
            result["variants"][name] = found = whole_steps(Trained(context, pairs), count, steps)
        table.append((f"whole step, {name}, ms", Spread(**found["step"]).text(2, 1e3)))
        table.append((f"launched by the host in, {name}, ms", Spread(**found["host"]).text(2, 1e3)))
        table.append((f"whole steps, {name}, images/s", f"{found['images_per_s']:.0f}"))
        context.save(result)

    variant("as a trial")
    trained = Trained(context, pairs)
    for name in ("as a trial", "without CUDA graphs"):
        if context.left < 5:
            break
        with patch.dict(os.environ, VARIANTS[name]):
            result.setdefault("profiles", {})[name] = found = profile(trained)
        table.append((f"kernels per step, {name}", f"{found['kernels_per_step']:.0f}"))
        table.append((f"device busy, ms per step, {name}", f"{1e3 * found['device_seconds_per_step']:.2f}"))
        context.save(result)
    if context.left > 4:
        result["phases"] = {"about": LAUNCHED_ONE_BY_ONE, **phases(trained, steps)}
        for name in PHASES:
            found = result["phases"][name]
            table.append((f"{name}, kernels launched one by one, ms", Spread(**found["device"]).text(2, 1e3)))
        context.save(result)
    if context.left > 8:
        light = Trained(context, pairs, "mobilenetv2_100", "fcn8s", min(8, context.sizes.batch), "frozen")
        result["light"] = found = whole_steps(light, count, steps)
        found["profile"] = profile(light)
        table.append((f"{LIGHT}, ms", Spread(**found["step"]).text(2, 1e3)))
        table.append((f"{LIGHT}, device busy, ms", f"{1e3 * found['profile']['device_seconds_per_step']:.2f}"))
        context.save(result)
    for name in list(VARIANTS)[1 : 2 if context.smoke else None]:
        if context.left < 4:
            break
        variant(name)
    return result


LAUNCHED_ONE_BY_ONE = (
    "without a CUDA graph, every kernel launched by itself: a phase is as long as the host takes to launch it; a trial "
    "replays a graph, see variants"
)


class Enough(Exception):
    """All requested epochs were measured."""


def epochs(context: Context, pairs: list[Any]) -> dict[str, Any]:
    """Train whole epochs as a trial does, including the work between them, and return their images per second.

    Args:
        context: context of the section.
        pairs: training samples.
    """
    from benchmarks.speed import ours
    from fcnlab.training.hardware import synchronize

    device, sizes = context.torch_device, context.sizes
    wanted = 1 if context.smoke else EPOCHS
    clock: list[float] = []
    rates: list[float] = []

    def after_epoch(images: int) -> None:
        synchronize(device)
        clock.append(time.perf_counter())
        if len(clock) > 2:
            rates.append(images / (clock[-1] - clock[-2]))
        if len(rates) == wanted or (len(rates) >= LEAST and context.left < context.allowance / 2):
            raise Enough

    recipe = ours.recipe(sizes.batch, sizes.crop, "bf16")
    began = time.perf_counter()
    with suppress(Enough):
        ours.train(pairs, recipe, sizes.backbones[0], "fcn32s", device, lambda: None, after_epoch)
    return {"images": len(pairs), "first_epoch_seconds": clock[0] - began, "images_per_s": Spread.of(rates).json()}


class Trained:
    """A network and the objects that train it, built as a trial builds them.

    Args:
        context: context of the section.
        pairs: training samples.
        backbone: timm's name; the smaller one of the benchmark by default.
        head: name of a head in the registry.
        batch: images per step; those of the benchmark by default.
        batch_norm: batch norm of the backbone, `train` or `frozen`.
    """

    def __init__(
        self,
        context: Context,
        pairs: list[Any],
        backbone: str | None = None,
        head: str = "fcn32s",
        batch: int | None = None,
        batch_norm: str = "train",
    ) -> None:
        from benchmarks.speed import ours
        from fcnlab.training import hardware
        from fcnlab.trial.build import build_training

        sizes, self.device = context.sizes, context.torch_device
        if self.device.type == "cuda":
            hardware.configure_determinism(self.device)
        recipe = ours.recipe(batch or sizes.batch, sizes.crop, "bf16", batch_norm=batch_norm)
        self.autocast = hardware.create_autocast(self.device, hardware.resolve_precision("bf16", self.device))
        self.model = ours.network(backbone or sizes.backbones[0], head).to(self.device)
        self.training = build_training(recipe, self.model, ours.Files(pairs), split="train", seed=0)
        self.model.train()
        self.learned = [value for group in self.training.optimizer.param_groups for value in group["params"]]
        self.batches = self.endless()

    def endless(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield the batches of one epoch after another."""
        epoch = 0
        while True:
            yield from self.training.batches.epoch(epoch)
            epoch += 1

    def backward(self) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """Return the function that computes the gradients in a trial, with a CUDA graph if graphs are used."""
        from fcnlab.training.distributed import SINGLE_PROCESS
        from fcnlab.training.step import Backward, Objective, create_backward

        objective = Objective(self.model, self.training.loss, self.autocast)
        eager = Backward(
            objective, self.training.loss, self.learned, micro_batches=1, group=SINGLE_PROCESS, scaler=None
        )
        return create_backward(eager, self.device, capturable=self.training.capturable)

    def step(self, backward: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        """Train one step, on a stream that can be captured.

        Args:
            backward: computes the gradients of a batch.
        """
        from fcnlab.training.fit import use_training_stream

        with use_training_stream(self.device):
            images, labels = next(self.batches)
            backward(images, labels)
            self.training.optimizer.step()


def phases(trained: Trained, steps: int) -> dict[str, Any]:
    """Time the phases of a step without a CUDA graph, its kernels launched one by one. A trial is faster.

    Device times are measured between CUDA events of one stream, so a phase whose launches take longer than its kernels
    has the time of its launches. Host times end with the last launch of a phase.

    Args:
        trained: network and training.
        steps: number of steps.
    """
    import torch

    from fcnlab.training.fit import use_training_stream
    from fcnlab.training.hardware import synchronize
    from fcnlab.training.step import Objective

    cuda = trained.device.type == "cuda"
    objective = Objective(trained.model, trained.training.loss, trained.autocast)
    device_seconds: dict[str, list[float]] = defaultdict(list)
    host_seconds: dict[str, list[float]] = defaultdict(list)
    with use_training_stream(trained.device):
        for number in range(steps + 5):
            events = [torch.cuda.Event(enable_timing=True) for _ in range(len(PHASES) + 1)] if cuda else []
            clock: list[float] = []

            def mark(events: list[Any] = events, clock: list[float] = clock) -> None:
                clock.append(time.perf_counter())
                if events:
                    events[len(clock) - 1].record()

            mark()
            images, labels = next(trained.batches)
            mark()
            for parameter in trained.learned:
                parameter.grad = None
            value = objective(images, labels)
            mark()
            value.backward()
            mark()
            trained.training.optimizer.step()
            mark()
            synchronize(trained.device)
            if number < 5:  # libraries initialize themselves, kernels are compiled
                continue
            for index, name in enumerate(PHASES):
                host = clock[index + 1] - clock[index]
                host_seconds[name].append(host)
                between = events[index].elapsed_time(events[index + 1]) / 1e3 if cuda else host
                device_seconds[name].append(between)
    return {
        name: {"device": Spread.of(device_seconds[name]).json(), "host": Spread.of(host_seconds[name]).json()}
        for name in PHASES
    }


def profile(trained: Trained) -> dict[str, Any]:
    """Count the kernels of a step and sum their times, from the trace of torch's profiler.

    Args:
        trained: network and training.
    """
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    from fcnlab.training.hardware import synchronize

    backward = trained.backward()
    for _ in range(5):  # with the capture of a graph
        trained.step(backward)
    activities = [ProfilerActivity.CPU]
    if trained.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    synchronize(trained.device)
    with record(activities=activities) as recorded:
        began = time.perf_counter()
        for _ in range(PROFILED):
            trained.step(backward)
        synchronize(trained.device)
        wall = time.perf_counter() - began
    with TemporaryDirectory() as folder:
        recorded.export_chrome_trace(str(Path(folder) / "trace.json"))
        events = json.loads((Path(folder) / "trace.json").read_text(encoding="utf-8"))["traceEvents"]
    seconds: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    launches: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    for event in events:
        kind = event.get("cat")
        if kind in ("kernel", "gpu_memcpy", "gpu_memset"):
            seconds[event["name"]] += event["dur"] / 1e6
            counts[event["name"]] += 1
            kinds[kind] += 1
        elif kind == "cuda_runtime":
            launches[event["name"]] += 1
    total = sum(seconds.values())
    top = [
        {
            "kernel": name[:200],
            "seconds_per_step": spent / PROFILED,
            "calls_per_step": counts[name] / PROFILED,
            "share": spent / total,
        }
        for name, spent in seconds.most_common(TOP)
    ]
    return {
        "steps": PROFILED,
        "kernels_per_step": kinds["kernel"] / PROFILED,
        "copies_per_step": (kinds["gpu_memcpy"] + kinds["gpu_memset"]) / PROFILED,
        "device_seconds_per_step": total / PROFILED,
        "wall_seconds_per_step": wall / PROFILED,
        "runtime_calls_per_step": {name: count / PROFILED for name, count in launches.most_common(8)},
        "top": top,
    }


def whole_steps(trained: Trained, rounds: int, steps: int) -> dict[str, Any]:
    """Time whole steps: with the device's work, and until the host has launched it.

    Args:
        trained: network and training.
        rounds: number of rounds.
        steps: steps of a round.
    """
    from fcnlab.training.hardware import synchronize

    backward = trained.backward()
    for _ in range(6):
        trained.step(backward)
    whole, host = [], []
    for _ in range(rounds):
        synchronize(trained.device)
        began = time.perf_counter()
        for _ in range(steps):
            trained.step(backward)
        host.append((time.perf_counter() - began) / steps)
        synchronize(trained.device)
        whole.append((time.perf_counter() - began) / steps)
    images = len(next(trained.batches)[0])
    return {
        "step": Spread.of(whole).json(),
        "host": Spread.of(host).json(),
        "images_per_s": images / Spread.of(whole).median,
    }
