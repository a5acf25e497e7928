"""One run of training as a script: train, evaluate after the last epoch, print; to be called in a shell loop.

    for seed in 0 1 2 3; do python -m benchmarks.peers.run_one fcn8s $seed 2 FOLDER; done

The loop is that of train_torchvision.py, the evaluation that of segmentation_eval.py. FOLDER contains train.txt and
val.txt, with one image and its mask per line. On a GPU: --device cuda --workers 8 --bf16.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional as T

from benchmarks.peers import networks, segmentation_eval, train_torchvision

CROP, CLASSES = (320, 480), 21


def listed(folder: Path, split: str) -> list[tuple[Path, Path]]:
    lines = (folder / f"{split}.txt").read_text().splitlines()
    return [(Path(image), Path(mask)) for image, mask in (line.split("\t") for line in lines)]


class Samples(Dataset[tuple[Tensor, Tensor]]):
    def __init__(self, files: list[tuple[Path, Path]]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, mask = self.files[index]
        target = T.pil_to_tensor(Image.open(mask))[0]
        picture = T.pil_to_tensor(Image.open(image).convert("RGB"))
        height, width = (side // 32 * 32 for side in target.shape)  # its upsampling asks for that
        return picture[:, :height, :width], target[:height, :width]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("head")
    parser.add_argument("seed", type=int)
    parser.add_argument("epochs", type=int)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, nargs=2, default=CROP, help="height and width")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--bf16", action="store_true")
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    net = networks.FCN("resnet18", args.head, CLASSES)
    train = listed(args.folder, "train")
    loading: dict[str, Any] = {"num_workers": args.workers, "pin_memory": args.device == "cuda"}
    kept = loading | {"persistent_workers": args.workers > 0}
    epoch = train_torchvision.epochs(net, train, tuple(args.crop), args.batch, [], kept, args.device, args.bf16)
    for _ in range(args.epochs):
        epoch()
    scored = DataLoader(Samples(listed(args.folder, "val")), batch_size=None, **loading)
    confmat = segmentation_eval.evaluate(net, scored, CLASSES, args.device, args.bf16)
    print(confmat.compute()[2].nanmean().item())


if __name__ == "__main__":
    main()
