"""Configuration of upsamplers: from class scores to the size of the image."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Tag, model_validator

from fcnlab.config.base import Config, Entry, Truth

Init = Literal["bilinear", "random", "xavier", "kaiming", "normal", "zero"]


class StageInit(Config):
    """Initialization of single upsamplings, by the stride that they lead to.

    Attributes:
        to16: initialization of the upsampling to stride 16; None: as `init` of the upsampler.
        to8: initialization of the upsampling to stride 8.
        to4: initialization of the upsampling to stride 4.
        image: initialization of the upsampling to the size of the image.
    """

    to16: Init | None = None
    to8: Init | None = None
    to4: Init | None = None
    image: Init | None = None


class Upsampler(Entry):
    """Base of the configurations of upsamplers."""

    type: str


class TransposedUpsampler(Upsampler):
    """Configuration of a transposed convolution of kernel 2s, stride s and padding s/2 for a factor s.

    Attributes:
        init: initialization of the weights.
        learned: whether the weights and the bias are trained.
        channels: `dense` (every class reads every class), `diagonal` (dense, but initialized so that each class reads
            only itself) or `per_class` (each class reads only itself, always).
        bias: whether there is a bias.
        stage_init: initialization of single upsamplings, where it differs from `init`.
    """

    renamed: ClassVar[dict[str, str]] = Entry.renamed | {"start": "init", "stages": "stage_init"}

    type: Literal["transposed"] = "transposed"
    init: Init
    learned: Truth = True
    channels: Literal["dense", "diagonal", "per_class"] = "dense"
    bias: Truth = False
    stage_init: StageInit = StageInit()

    def init_of(self, stage: str) -> Init:
        """Return the initialization of one upsampling.

        Args:
            stage: `to16`, `to8`, `to4` or `image`.

        Returns:
            The initialization in `stage_init`, or else `init`.
        """
        own: Init | None = getattr(self.stage_init, stage, None)
        return own or self.init

    @model_validator(mode="after")
    def _check_init(self) -> TransposedUpsampler:
        used = {self.init, *self.stage_init.content().values()}
        if not self.learned and used != {"bilinear"}:
            other = min(used - {"bilinear"})
            raise ValueError(f"a fixed upsampler (learned: false) cannot have init: {other}; use init: bilinear")
        if not self.learned and self.bias:
            raise ValueError("a fixed upsampler (learned: false) cannot have bias: true, which would stay random")
        if self.channels == "diagonal" and used <= {"bilinear", "zero"}:
            raise ValueError(f"init: {self.init} is diagonal anyway; use channels: dense")
        return self


class InterpolateUpsampler(Upsampler):
    """Configuration of interpolation by the factor, aligned at the corner as the transposed convolutions are.

    Attributes:
        mode: mode of `torch.nn.functional.interpolate`.
    """

    type: Literal["interpolate"]
    mode: Literal["bilinear", "nearest"]


class ResizeUpsampler(Upsampler):
    """Configuration of interpolation to the target size, as in torchvision and mmsegmentation.

    Attributes:
        mode: mode of `torch.nn.functional.interpolate`.
    """

    type: Literal["resize"]
    mode: Literal["bilinear", "nearest"]


def _tag_upsampler(value: Any) -> Any:
    """Return the discriminator of an upsampler: its type, by default `transposed`."""
    return value.get("type", "transposed") if isinstance(value, dict) else getattr(value, "type", None)


AnyUpsampler = Annotated[
    Annotated[TransposedUpsampler, Tag("transposed")]
    | Annotated[InterpolateUpsampler, Tag("interpolate")]
    | Annotated[ResizeUpsampler, Tag("resize")],
    Discriminator(_tag_upsampler),
]
