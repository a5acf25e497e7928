"""The `early_stopping` section of a grid file."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from fcnlab.config.base import Config, Count


class EarlyStopping(Config):
    """Configuration of early stopping: the epochs after which weak cells are pruned, and the rule.

    `{after: 10, margin: 5}` prunes the cells whose val mIoU is more than 5 points below the best cell.
    `{after: [5, 10, 20], keep: 0.5}` keeps the better half of the cells each time: successive halving (Jamieson and
    Talwalkar, AISTATS 2016, section 2). The baseline is never pruned.

    Attributes:
        after: the epoch or epochs after which cells are compared.
        margin: points of mIoU below the best cell, 0 to 100.
        keep: fraction of the cells that continue, between 0 and 1.
    """

    renamed: ClassVar[dict[str, str]] = {"below": "margin"}

    after: Count | Annotated[list[Count], Field(min_length=1)]
    margin: Annotated[float, Field(ge=0, le=100)] | None = None
    keep: Annotated[float, Field(gt=0, lt=1)] | None = None

    @property
    def epochs(self) -> tuple[int, ...]:
        """The epochs after which cells are compared, in increasing order."""
        return (self.after,) if isinstance(self.after, int) else tuple(self.after)

    @model_validator(mode="after")
    def _check_rule(self) -> EarlyStopping:
        if (self.margin is None) == (self.keep is None):
            raise ValueError("give one rule: 'margin', in points of mIoU such as 5, or 'keep', such as 0.5")
        if list(self.epochs) != sorted(set(self.epochs)):
            raise ValueError(f"after: the epochs must increase, not {list(self.epochs)}")
        return self
