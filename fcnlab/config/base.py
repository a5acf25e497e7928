"""The types of everything that YAML can say.

All are frozen and refuse unknown keys. Two rules keep the identity of trials stable as the project grows
(see `fcnlab.config.trial`): a field that only documents is declared with `Doc`, and **a default never changes**,
because values at their default are left out of a trial's canonical form. New behaviour gets a new value.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

Whole = Annotated[int, Field(strict=True, ge=0)]


Count = Annotated[int, Field(strict=True, ge=1)]


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


Fraction = Annotated[float, Field(ge=0, le=1)]


def Doc(default: Any = ...) -> Any:  # noqa: N802 - reads as a kind of Field
    """A field that documents and never enters a trial's identity."""
    return Field(default=default, json_schema_extra={"documents": True})


def Place(default: Any = ...) -> Any:  # noqa: N802 - as Doc
    """Where files lie or how they are named: it is what they hold that enters an identity, by its fingerprint."""
    return Doc(default)


class Config(BaseModel):
    """Base of all configuration: frozen, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    renamed: ClassVar[dict[str, str]] = {}
    """Old names of fields with the new ones, for the message about an old key."""

    def content(self) -> dict[str, Any]:
        """What this configuration says, as plain values: without documentation and without defaults."""
        fields = type(self).model_fields
        given = {
            name: getattr(self, name)
            for name, field in fields.items()
            if field.json_schema_extra != {"documents": True} and getattr(self, name) != field.default
        }
        return {name: v.content() if isinstance(v, Config) else _plain(v) for name, v in given.items()}


def _plain(value: Any) -> Any:
    return [_plain(inner) for inner in value] if isinstance(value, tuple) else value


class Entry(Config):
    """A named thing in the catalogue."""

    renamed: ClassVar[dict[str, str]] = {"about": "description"}

    description: str = Doc("")
