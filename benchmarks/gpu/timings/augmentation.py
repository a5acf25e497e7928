"""Batches per second of augmentation by kind: fcnlab on the device, torchvision in DataLoader workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import count
from typing import Any

from benchmarks.gpu.timings import Context, Spread, repeated

KINDS: dict[str, dict[str, Any]] = {
    "crop, flip": {},
    "crop, flip, scale": {"scale": (0.5, 2.0)},
    "crop, flip, scale, jitter": {
        "scale": (0.5, 2.0),
        "jitter": {"brightness": 0.5, "contrast": 0.5, "saturation": 0.5, "hue": 0.1},
    },
}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


PEER_SECONDS = 15.0
"""Seconds that the peer needs: the start of its processes, an epoch that does not count, and a round."""


def measure(context: Context) -> dict[str, Any]:
    """Time whole epochs of batches of each kind; the samples are on the device before.

    Args:
        context: context of the section.
    """
    import torch

    from benchmarks.speed import loader_options, ours, peer
    from fcnlab.config.recipe import Recipe
    from fcnlab.data.augmentation import build_augmentation
    from fcnlab.data.batches import TrainingBatches
    from fcnlab.data.decoded import open_decoded

    sizes, device = context.sizes, context.torch_device
    pairs = context.pairs(sizes.epoch)
    split = open_decoded(ours.Files(pairs), "train")
    result: dict[str, Any] = {"images": len(pairs), "batch": sizes.batch, "crop": sizes.crop, "kinds": {}}
    table = []
    at_least = min(sizes.lap, 1.0)
    for name, extra in KINDS.items():
        plain = ours.recipe(sizes.batch, sizes.crop, "bf16")
        recipe = Recipe.model_validate(plain.model_dump() | extra)
        batches = TrainingBatches(
            split,
            batch_size=sizes.batch,
            augmentation=build_augmentation(recipe, MEAN),
            mean=MEAN,
            std=STD,
            seed=0,
            device=device,
        )
        found = repeated(epochs(batches.epoch), device, sizes.rounds + 2, at_least)
        result["kinds"][name] = {"ours": {"images_per_s": found.json(), "batches_per_s": found.median / sizes.batch}}
        table.append((f"ours: {name}, images/s", found.text(0)))
        context.save(result | {"table": table})
    for name, extra in list(KINDS.items())[:2]:
        if context.left < PEER_SECONDS:
            break
        short = sizes.crop[0]
        resize = (int(extra["scale"][0] * short), int(extra["scale"][1] * short)) if "scale" in extra else None
        files = [(pair.image, pair.mask) for pair in pairs]
        loading = loader_options(context.device, context.workers)
        loader = peer("train_torchvision").loader(files, sizes.crop, sizes.batch, loading, resize)

        def batches_of(_: int, loader: Iterable[Any] = loader) -> Iterable[Any]:
            for images, labels in loader:
                yield images.to(device, non_blocking=True), labels.to(device, non_blocking=True)

        torch.manual_seed(0)
        enough = context.left >= sizes.rounds * PEER_SECONDS
        found = repeated(epochs(batches_of), device, sizes.rounds if enough else 1, sizes.lap)
        result["kinds"][name]["torchvision"] = {"images_per_s": found.json()}
        table.append((f"torchvision, {context.workers} workers: {name}, images/s", found.text(0)))
        context.save(result | {"table": table})
    first = result["kinds"]["crop, flip"]["ours"]["images_per_s"]
    return result | {"table": table, "detail": f"crop, flip: {Spread(**first).text(0)} images/s"}


def epochs(batches: Callable[[int], Iterable[Any]]) -> Callable[[], int]:
    """Return a function that makes the batches of the next epoch and returns its number of images.

    Args:
        batches: returns the batches of an epoch by its number.
    """
    numbers = count()
    return lambda: sum(len(images) for images, _ in batches(next(numbers)))
