"""Seconds of the fixed parts of a trial, outside training and evaluation."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.gpu.timings import Context, Spread
from benchmarks.gpu.timings.labs import decode, open_lab, write_lab

IMPORT = (
    "import time; began = time.perf_counter(); import fcnlab.runner.executors.worker; "
    "print(time.perf_counter() - began)"
)
STARTING = 10.0
"""Seconds that the first start of a process may take."""
START = """
import time, torch
began = time.perf_counter()
torch.zeros(1, device={device!r})
print(time.perf_counter() - began)
"""


def measure(context: Context) -> dict[str, Any]:
    """Time a process's start, the upload of the training images, the first step, a checkpoint, and whole trials.

    Args:
        context: context of the section.
    """
    from benchmarks.speed import ours
    from fcnlab.data.datasets.voc import Voc2012
    from fcnlab.data.decoded import open_decoded
    from fcnlab.data.resident import move_to_device, release_resident_splits
    from fcnlab.training.hardware import synchronize
    from fcnlab.trial.run import run_trial

    device, sizes = context.torch_device, context.sizes
    table: list[tuple[str, str]] = []
    result: dict[str, Any] = {"decode_seconds": decode(context)}

    def note(name: str, spread: Spread) -> None:
        result[name] = spread.json()
        table.append((f"{name}, s", spread.text(3)))
        context.save(result | {"table": table})

    synchronize(device)
    dataset = Voc2012(context.data / "VOCdevkit" / "VOC2012")
    uploads = []
    for _ in range(sizes.rounds):
        release_resident_splits()
        began = time.perf_counter()
        split = move_to_device(open_decoded(dataset, "train"), device)
        for index in range(len(split)):
            split[index]
        synchronize(device)
        uploads.append(time.perf_counter() - began)
        del split
    note("upload of the training split", Spread.of(uploads))
    if context.left > 8:
        first_steps(context, note)
    checkpoint(context, ours.network(sizes.backbones[0], "fcn32s").to(device), note)
    file = write_lab(context, "fixed", heads=["fcn32s"], upsamplers=["bilinear"], seeds=3, epochs=1)
    lab = open_lab(context, file)
    for number, (_, trial) in enumerate(lab.load_grid(file).trials(lab.fingerprints)):
        if number and context.left < 1.2 * result["trials of one epoch"][-1]["wall"]:
            break
        began = time.perf_counter()
        record = run_trial(trial, lab)
        wall = time.perf_counter() - began
        if record is None or record.cost is None:
            raise RuntimeError(f"the trial has failed: {record.failure if record else None}")
        cost = record.cost
        found = {
            "wall": wall,
            "train": cost.train_seconds,
            "evaluate": cost.evaluate_seconds,
            "beside": wall - cost.train_seconds - cost.evaluate_seconds,
        }
        result.setdefault("trials of one epoch", []).append(found)
        table.append((f"trial {number + 1}, s", ", ".join(f"{key} {value:.2f}" for key, value in found.items())))
        context.save(result | {"table": table})
    starts(context, note)
    last = result["trials of one epoch"][-1]
    return result | {"table": table, "detail": f"{last['beside']:.2f} s beside training and evaluation"}


def starts(context: Context, note: Any) -> None:
    """Time the imports and the device's start in new processes, as often as the allowance permits.

    Args:
        context: context of the section.
        note: keeps a measurement by its name.
    """
    for name, code in (("import in a new process", IMPORT), ("device context", START.format(device=context.device))):
        walls: list[float] = []
        inside = []
        while len(walls) < context.sizes.rounds and context.left > (walls or [STARTING])[-1]:
            wall, output, _ = context.process("-c", code)
            walls.append(wall)
            inside.append(float(output.splitlines()[-1]))
        if walls:
            note(name, Spread.of(inside))
            note(f"{name}, whole process", Spread.of(walls))


def first_steps(context: Context, note: Any) -> None:
    """Time the first step of a training in a process, in which kernels are compiled, and the first of another training.

    Args:
        context: context of the section.
        note: keeps a measurement by its name.
    """
    from benchmarks.gpu.timings.step import Trained
    from fcnlab.training.hardware import synchronize

    for name in ("first step", "first step of the next trial"):
        began = time.perf_counter()
        trained = Trained(context, context.pairs(context.sizes.epoch))
        backward = trained.backward()
        synchronize(trained.device)
        built = time.perf_counter()
        trained.step(backward)
        synchronize(trained.device)
        ended = time.perf_counter()
        for _ in range(6):  # with the capture of the graph
            trained.step(backward)
        synchronize(trained.device)
        later = time.perf_counter()
        note(f"{name}: building", Spread.of([built - began]))
        note(name, Spread.of([ended - built]))
        note(f"{name}: the six steps after it", Spread.of([later - ended]))


def checkpoint(context: Context, model: Any, note: Any) -> None:
    """Measure how long a checkpoint of a model and its momentum interrupts training, and when it is on the disk.

    Args:
        context: context of the section.
        model: the network.
        note: keeps a measurement by its name.
    """
    from fcnlab.trial.checkpoint import CheckpointWriter

    momentum = {name: value.clone() for name, value in model.named_parameters()}
    state = {"model": model.state_dict(), "optimizer": momentum}
    copied, written = [], []
    with CheckpointWriter(context.scratch / "checkpoint.pt", context.scratch / "previous.pt", 0.0) as checkpoints:
        for _ in range(context.sizes.rounds):
            began = time.perf_counter()
            checkpoints.save(state)
            copied.append(time.perf_counter() - began)
            checkpoints.wait()
            written.append(time.perf_counter() - began)
    note("checkpoint, copied to the host", Spread.of(copied))
    note("checkpoint, on the disk", Spread.of(written))
