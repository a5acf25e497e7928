"""Decoded samples, kept in memory as long as they fit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fcnlab.data.base import Split

BUDGET = 4 * 2**30
"""Bytes of decoded samples that one split may keep; beyond it samples are decoded anew, with the same figures."""


@dataclass(frozen=True)
class Decoded:
    """An image [3, H, W] and its label [H, W], both uint8 tensors."""

    image: Tensor
    label: Tensor


class DecodedSplit:
    """A split as uint8 tensors. Each sample is decoded on first use."""

    def __init__(self, split: Split, budget: int = BUDGET) -> None:
        self._split = split
        self._kept: dict[int, Decoded] = {}
        self._left = budget

    def __len__(self) -> int:
        return len(self._split)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the samples, in order."""
        return self._split.ids

    def __getitem__(self, index: int) -> Decoded:
        if index in self._kept:
            return self._kept[index]
        sample = self._split[index]
        decoded = Decoded(
            torch.tensor(sample.image).permute(2, 0, 1).contiguous(),
            torch.tensor(sample.label),
        )
        size = decoded.image.nbytes + decoded.label.nbytes
        if size <= self._left:
            self._left -= size
            self._kept[index] = decoded
        return decoded
