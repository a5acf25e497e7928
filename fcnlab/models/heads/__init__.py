"""Heads, by the `type` of their registry entries.

A head is constructed with the channels of the feature maps by reduction, the number of classes, a function that
creates upsamplers, and the options of its registry entry; if its constructor has a parameter `centers`, the backbone's
are passed. It is called with the feature maps by reduction and the size of the images, and returns scores of that size.
"""

from collections.abc import Mapping
from types import MappingProxyType

from fcnlab.models.heads.base import CoarseHead, Head, MakeUpsampler
from fcnlab.models.heads.dilated import DilatedHead
from fcnlab.models.heads.paper import PaperHead
from fcnlab.models.heads.skip import SkipHead
from fcnlab.models.heads.smp import SmpHead

HEADS: Mapping[str, type[Head]] = MappingProxyType(
    {
        "skip": SkipHead,
        "dilated": DilatedHead,
        "paper": PaperHead,
        "smp": SmpHead,
    }
)

__all__ = ["HEADS", "CoarseHead", "DilatedHead", "Head", "MakeUpsampler", "PaperHead", "SkipHead", "SmpHead"]
