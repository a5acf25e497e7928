"""Base classes of all configuration, and the number types that they share.

Two rules keep the keys of trials stable as the project grows (see `fcnlab.config.trial`): fields that do not affect a
trial are listed in `not_in_key`, and **a default never changes**, because values at their default are left out of a
trial's canonical content. New behavior gets a new value.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, get_args

from pydantic import BaseModel, ConfigDict, Discriminator, Field, ValidatorFunctionWrapHandler, WrapValidator


def _refuse_conversion(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """Validate a value whose type must not change: `true` and `1.0` equal 1, but are not whole numbers."""
    result = validate(value)
    if type(result) is not type(value):
        raise ValueError(f"{str(value).lower()} is not valid; write {result}")
    return result


SameType = WrapValidator(_refuse_conversion)
"""For a `Literal` of numbers: the value must be of the type of the number that it equals."""

Truth = Annotated[bool, Field(strict=True)]
"""`true` or `false`; texts and numbers are not converted."""

Whole = Annotated[int, Field(strict=True, ge=0, lt=2**53)]
"""An integer that JSON and floating-point numbers represent exactly, such as a seed."""

Count = Annotated[int, Field(strict=True, ge=1, lt=2**31)]
Length = Annotated[int, Field(strict=True, ge=1, le=2**16)]
"""A number of pixels along an axis, or of channels."""

Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(strict=True, ge=0, le=1)]


BUILTIN = "builtin"
"""Tag of the built-in types in a union with a custom type."""


class Config(BaseModel):
    """Base of all configuration: frozen, without unknown keys.

    Attributes:
        not_in_key: fields that do not enter the key of a trial, such as descriptions and paths. The content of files
            enters the key by its fingerprint.
        renamed: old names of fields with their new names, for the error about an old key.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    not_in_key: ClassVar[frozenset[str]] = frozenset()
    renamed: ClassVar[dict[str, str]] = {}

    def content(self) -> dict[str, Any]:
        """Return the fields that enter a trial's key as plain values, without values at their default."""
        values = {
            name: getattr(self, name)
            for name, field in type(self).model_fields.items()
            if name not in self.not_in_key and getattr(self, name) != field.default
        }
        return {name: to_plain(value) for name, value in values.items()}


class Entry(Config):
    """Base of the named entries of the registry.

    Attributes:
        description: one sentence for tables and listings.
    """

    not_in_key: ClassVar[frozenset[str]] = frozenset({"description"})
    renamed: ClassVar[dict[str, str]] = {"about": "description"}

    description: str = ""


def to_plain(value: Any) -> Any:
    """Convert a field's value to plain values.

    Args:
        value: a value of a field.

    Returns:
        The content of a configuration, a list for a tuple, else the value itself.
    """
    if isinstance(value, Config):
        return value.content()
    return [to_plain(item) for item in value] if isinstance(value, tuple) else value


def tag_by_type(builtin: Any) -> Discriminator:
    """Create the discriminator between a union of built-in types and a custom type.

    Args:
        builtin: a model, or a discriminated union of models, whose field `type` is a `Literal`.

    Returns:
        A discriminator whose tag is `builtin` for the types of the union, and `custom` for other types.
    """
    types = literal_types(builtin)

    def tag(value: Any) -> str | None:
        type_ = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
        return None if type_ is None else BUILTIN if type_ in types else "custom"

    return Discriminator(tag)


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """List the models that a type consists of.

    Args:
        annotation: a model, or a union of models, optional or annotated.

    Returns:
        The model itself, or the members of the union.
    """
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return list(dict.fromkeys(model for argument in get_args(annotation) for model in models_in(argument)))


def literal_types(annotation: Any) -> tuple[str, ...]:
    """List the valid values of the field `type` of a model or union; a custom type, which takes any name, adds none."""
    return tuple(name for model in models_in(annotation) for name in get_args(model.model_fields["type"].annotation))


def find_member(models: list[type[BaseModel]], tag: str) -> type[BaseModel] | None:
    """Find the member of a discriminated union by its tag.

    Args:
        models: the members; their field `type` or `name` is the discriminator.
        tag: a value of the discriminator.

    Returns:
        The member with this tag, else the member that takes any tag (a custom head), else None.
    """
    open_member = None
    for model in models:
        field = model.model_fields.get("type") or model.model_fields.get("name")
        tags = get_args(field.annotation) if field is not None else ()
        if tag in tags:
            return model
        if not tags:
            open_member = model
    return open_member
