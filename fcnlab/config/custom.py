"""Configuration of a class of the user's own package or lab."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StrictInt

from fcnlab.config.base import Config, Finite


class Custom(Config):
    """Configuration of a class of the user's own package or lab.

    Attributes:
        type: name of the class among the extensions (see `docs/extending.md`).
        options: keyword arguments of the class.
    """

    type: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    options: dict[str, bool | int | Finite | str | tuple[StrictInt | Finite, ...]] = {}  # noqa: RUF012 - pydantic copies defaults
