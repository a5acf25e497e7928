"""What differs between two trials: what was asked, with what and where it ran, and what came out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from fcnlab.config.trial import Trial
from fcnlab.trial.comparability import describe_hardware, find_numerics
from fcnlab.trial.record import Record

Section = Literal["configuration", "data", "code", "environment", "run", "figures", "cost"]


@dataclass(frozen=True)
class Difference:
    """A field that two trials do not have alike; of numbers also by how much the second is more."""

    section: Section
    field: str
    a: Any
    b: Any

    @property
    def delta(self) -> float | None:
        """The second less the first, where both are numbers."""
        if any(isinstance(value, bool) or not isinstance(value, int | float) for value in (self.a, self.b)):
            return None
        return float(self.b) - float(self.a)


def differences(a: Record, b: Record) -> list[Difference]:
    """Every field in which two records differ, the causes first and then what came of them.

    Figures are fractions of 1; fields are dotted, such as `recipe.optimizer.lr`. What a record lacks is None.
    """
    sections: list[tuple[Section, Mapping[str, Any], Mapping[str, Any]]] = [
        ("configuration", _configuration(a), _configuration(b)),
        ("data", _data(a), _data(b)),
        ("code", _code(a), _code(b)),
        ("environment", _environment(a), _environment(b)),
        ("run", _run(a), _run(b)),
        ("figures", _figures(a), _figures(b)),
        ("cost", _cost(a), _cost(b)),
    ]
    return [
        Difference(section, field, one.get(field), other.get(field))
        for section, one, other in sections
        for field in dict.fromkeys([*one, *other])
        if one.get(field) != other.get(field)
    ]


def have_equal_metrics(a: Record, b: Record) -> bool:
    """Whether two records have the same figures, losses and rates to the last bit; times do not count."""

    def curves(record: Record) -> list[tuple[object, ...]]:
        return [(e.epoch, e.loss, e.lr, e.val_miou, e.val_pixel_acc) for e in record.epochs]

    return (a.status, a.metrics, curves(a)) == (b.status, b.metrics, curves(b))


def find_divergence(a: Record, b: Record) -> int | None:
    """The first epoch after which the loss of two records is not the same to the last bit; None if it always is."""
    pairs = zip(a.epochs, b.epochs, strict=False)
    return next((one.epoch for one, other in pairs if one.loss != other.loss), None)


def _configuration(record: Record) -> dict[str, Any]:
    """What was asked, field by field, with all defaults as far as this version knows the record's fields."""
    try:
        said = Trial.model_validate(record.trial).model_dump(mode="json")
    except ValidationError:
        said = record.trial
    parts = {**said["variant"], "dataset": said["dataset"], "recipe": said["recipe"], "seed": said["seed"]}
    fields = {name: value for name, value in _flat(parts, "") if not name.endswith(".description")}
    return fields | {"init_from": said.get("init_from")}


def _flat(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings by their dotted names."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def _data(record: Record) -> dict[str, Any]:
    return {"content": record.trial.get("data"), "weights file": record.trial.get("weights")}


def _code(record: Record) -> dict[str, Any]:
    environment = record.environment
    return {
        "commit": environment.commit if environment is not None else None,
        "fcnlab": environment.versions.get("fcnlab") if environment is not None else None,
        "numerics": find_numerics(record),
    }


def _environment(record: Record) -> dict[str, Any]:
    if record.environment is None:
        return {}
    fields = record.environment.model_dump(exclude={"commit", "versions", "repeatable"})
    versions = {name: version for name, version in record.environment.versions.items() if name != "fcnlab"}
    return {"hardware": describe_hardware(record), **fields, **versions}


def _run(record: Record) -> dict[str, Any]:
    failure = record.failure.message.splitlines()[0] if record.failure is not None else None
    return {"status": record.status, "failure": failure, "micro_batches": record.micro_batches}


def _figures(record: Record) -> dict[str, float | None]:
    """The mIoU and pixel accuracy of each split, at the last epoch and at the one best on val if that is another."""
    last = {score.split: score.epoch for score in record.metrics if score.checkpoint == "last"}
    return {
        f"{score.split} {name}{' (best)' if score.checkpoint == 'best' else ''}": value
        for score in record.metrics
        if score.checkpoint == "last" or score.epoch != last.get(score.split)
        for name, value in (("mIoU", score.miou), ("pixel acc.", score.pixel_acc))
    }


def _cost(record: Record) -> dict[str, Any]:
    return record.cost.model_dump(mode="json") if record.cost is not None else {}
