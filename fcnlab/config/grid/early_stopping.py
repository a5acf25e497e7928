"""What a grid file may say about stopping cells that have no hope."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, model_validator

from fcnlab.config.base import Config, Count


class Stop(Config):
    """After which epochs cells are judged, and which of them go on.

    `{after: 10, below: best - 5}` stops the cells that are more than 5 points of mIoU on val below the best one;
    `{after: [5, 10, 20], keep: 0.5}` lets the better half go on each time (successive halving: Jamieson and Talwalkar,
    AISTATS 2016). The baseline always goes on.
    """

    after: Count | Annotated[list[Count], Field(min_length=1)]
    below: Annotated[str, Field(pattern=r"^best *- *\d+(\.\d+)?$")] | None = None
    keep: Annotated[float, Field(gt=0, lt=1)] | None = None

    @property
    def epochs(self) -> tuple[int, ...]:
        """The epochs after which cells are judged."""
        return (self.after,) if isinstance(self.after, int) else tuple(self.after)

    @property
    def margin(self) -> float | None:
        """By how much of mIoU, as a fraction of 1, a cell may be below the best."""
        return float(re.split(" *- *", self.below)[1]) / 100 if self.below is not None else None

    @model_validator(mode="after")
    def _says_how(self) -> Stop:
        if (self.below is None) == (self.keep is None):
            raise ValueError("say which cells go on: give 'below', such as best - 5, or 'keep', such as 0.5")
        if list(self.epochs) != sorted(set(self.epochs)):
            raise ValueError(f"after: the epochs must grow, not {list(self.epochs)}")
        return self
