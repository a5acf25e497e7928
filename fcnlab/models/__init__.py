"""PyTorch modules of FCNs: backbones, heads and upsamplers."""

from fcnlab.models.backbones.base import Backbone
from fcnlab.models.backbones.paper import PaperBackbone
from fcnlab.models.backbones.timm import TimmBackbone
from fcnlab.models.fcn import FCN
from fcnlab.models.heads import HEADS
from fcnlab.models.upsampler import Interpolation, TransposedUpsampler, bilinear_kernel

__all__ = [
    "FCN",
    "HEADS",
    "Backbone",
    "Interpolation",
    "PaperBackbone",
    "TimmBackbone",
    "TransposedUpsampler",
    "bilinear_kernel",
]
