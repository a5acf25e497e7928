"""The table of heads. A new head is one file here, one line in `HEADS`, and one entry in the registry.

A head is built from the backbone's channels by reduction, the number of classes, a maker of upsamplers and the
options of its registry entry; one that has a parameter `centres` is given the backbone's. It is called with the
features by reduction and the size of the image, and returns scores of exactly that size.
"""

from collections.abc import Mapping
from types import MappingProxyType

from fcnlab.models.heads.base import CoarseHead, Head, MakeUpsampler
from fcnlab.models.heads.dilated import DilatedHead
from fcnlab.models.heads.paper import PaperHead
from fcnlab.models.heads.skip import SkipHead

HEADS: Mapping[str, type[Head]] = MappingProxyType(
    {
        "skip": SkipHead,
        "dilated": DilatedHead,
        "paper": PaperHead,
    }
)

__all__ = ["HEADS", "CoarseHead", "DilatedHead", "Head", "MakeUpsampler", "PaperHead", "SkipHead"]
