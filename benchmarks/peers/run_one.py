"""One run of training as people script it: train, score after the last epoch, print; to be looped over in a shell.

    for seed in 0 1 2 3; do python run_one.py fcn8s $seed 2 FOLDER; done

The loop is that of train_torchvision.py, the scoring that of segmentation_eval.py. FOLDER holds train.txt and val.txt,
one image and its mask a line.
"""

from __future__ import annotations

import sys
from pathlib import Path

import networks
import segmentation_eval
import torch
import train_torchvision
from PIL import Image
from torchvision.transforms.v2 import functional as T

CROP, BATCH, CLASSES = (320, 480), 8, 21


def main(head: str, seed: str, epochs: str, folder: str) -> None:
    torch.manual_seed(int(seed))
    train, val = (
        [tuple(map(Path, line.split("\t"))) for line in (Path(folder) / f"{split}.txt").read_text().splitlines()]
        for split in ("train", "val")
    )
    net = networks.FCN("resnet18", head, CLASSES)
    epoch = train_torchvision.epochs(net, train, CROP, BATCH, [])
    for _ in range(int(epochs)):
        epoch()
    samples = []
    for image, mask in val:
        target = T.pil_to_tensor(Image.open(mask))[0]
        picture = T.pil_to_tensor(Image.open(image).convert("RGB"))
        height, width = (side // 32 * 32 for side in target.shape)  # its upsampling asks for that
        samples.append((picture[:, :height, :width], target[:height, :width]))
    print(segmentation_eval.evaluate(net, samples, CLASSES).compute()[2].nanmean().item())


if __name__ == "__main__":
    main(*sys.argv[1:])
