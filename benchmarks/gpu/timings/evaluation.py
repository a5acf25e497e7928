"""Images per second of evaluation at native size: fcnlab as in a trial, and a loop as in torchvision's reference."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from benchmarks.gpu.timings import Context, Spread, repeated

CLASSES = 21


def measure(context: Context) -> dict[str, Any]:
    """Evaluate ResNet-18 FCN-32s in bf16 on the whole validation split, with and without boundaries.

    Args:
        context: context of the section.
    """
    from benchmarks.speed import ours
    from fcnlab.data.datasets.voc import Voc2012
    from fcnlab.data.decoded import open_decoded
    from fcnlab.data.resident import move_to_device
    from fcnlab.training import hardware
    from fcnlab.training.evaluate import evaluate_split

    device, sizes = context.torch_device, context.sizes
    if context.cuda:
        hardware.configure_determinism(device)
    dataset = Voc2012(context.data / "VOCdevkit" / "VOC2012")
    began = time.perf_counter()
    decoded = open_decoded(dataset, "val")
    result: dict[str, Any] = {"images": len(decoded), "decode_seconds": time.perf_counter() - began}
    split = move_to_device(decoded, device)
    model = ours.network(sizes.backbones[0], "fcn32s").to(device)
    autocast = hardware.create_autocast(device, hardware.resolve_precision("bf16", device))

    def evaluate(boundaries: bool) -> int:
        counts = evaluate_split(model, split, num_classes=CLASSES, autocast=autocast, boundaries=boundaries)
        return len(counts.areas)

    table = []
    for name, boundaries in (("areas", False), ("areas and boundaries", True)):
        began = time.perf_counter()
        evaluate(boundaries)
        hardware.synchronize(device)
        first = time.perf_counter() - began
        found = repeated(partial(evaluate, boundaries), device, sizes.rounds + 2, 0.0)
        result[name] = {"images_per_s": found.json(), "first_seconds": first, "seconds": len(split) / found.median}
        table.append((f"ours, {name}, images/s", found.text(0)))
        table.append((f"ours, {name}, seconds, first and later", f"{first:.2f}, {len(split) / found.median:.3f}"))
        context.save(result | {"table": table})
    if context.left > 10:
        result["torchvision"] = theirs(context)
        table.append(("torchvision's loop, images/s", Spread(**result["torchvision"]["images_per_s"]).text(0)))
    both = result["areas and boundaries"]
    return result | {"table": table, "detail": f"{Spread(**both['images_per_s']).text(0)} images/s with boundaries"}


def theirs(context: Context) -> dict[str, Any]:
    """Time the peer's loop, which decodes in processes and evaluates one image at a time.

    Args:
        context: context of the section.
    """
    from torch.utils.data import DataLoader

    from benchmarks.peers import networks, run_one, segmentation_eval
    from benchmarks.speed import loader_options

    device, cuda, workers = context.torch_device, context.cuda, context.workers
    loading = loader_options(context.device, workers)
    loader = DataLoader(run_one.Samples(context.files("val")), batch_size=None, **loading)
    net = networks.FCN(context.sizes.backbones[0], "fcn32s", CLASSES).to(device)

    def evaluate() -> int:
        segmentation_eval.evaluate(net, loader, CLASSES, device.type, cuda)
        return len(loader)

    count = context.sizes.rounds if context.left > 25 else 1
    return {"images_per_s": repeated(evaluate, device, count, 0.0).json(), "workers": workers, "bf16": cuda}
