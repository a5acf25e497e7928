"""Differences between two records: configuration, environment and results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from fcnlab.config.trial import Trial, list_fields
from fcnlab.trial.comparability import describe_hardware, find_numerics
from fcnlab.trial.record import Record

Section = Literal["configuration", "data", "code", "environment", "run", "metrics", "cost"]


@dataclass(frozen=True)
class Difference:
    """A field in which two records differ.

    Attributes:
        section: group of fields.
        field: dotted name, such as `recipe.optimizer.lr`.
        a: value of the first record; None if it has no such field.
        b: value of the second record.
    """

    section: Section
    field: str
    a: Any
    b: Any

    @property
    def delta(self) -> float | None:
        """The second value minus the first; None unless both are numbers."""
        if any(isinstance(value, bool) or not isinstance(value, int | float) for value in (self.a, self.b)):
            return None
        return self.b - self.a  # of integers an integer, with all digits


def diff_records(a: Record, b: Record) -> list[Difference]:
    """Return every field in which two records differ, the configuration first and the results last.

    Args:
        a: the first record.
        b: the second record.

    Returns:
        The differences. Metrics are fractions of 1.
    """
    sections: list[tuple[Section, Mapping[str, Any], Mapping[str, Any]]] = [
        ("configuration", _collect_configuration(a), _collect_configuration(b)),
        ("data", _collect_data(a), _collect_data(b)),
        ("code", _collect_code(a), _collect_code(b)),
        ("environment", _collect_environment(a), _collect_environment(b)),
        ("run", _collect_run(a), _collect_run(b)),
        ("metrics", *_collect_metrics(a, b)),
        ("cost", _collect_cost(a), _collect_cost(b)),
    ]
    return [
        Difference(section, field, fields_a.get(field), fields_b.get(field))
        for section, fields_a, fields_b in sections
        for field in dict.fromkeys([*fields_a, *fields_b])
        if fields_a.get(field) != fields_b.get(field)
    ]


def have_equal_metrics(a: Record, b: Record) -> bool:
    """Return whether metrics, losses and learning rates of two records are equal bit for bit.

    Args:
        a: the first record.
        b: the second record.

    Returns:
        True if they are equal. Times are not compared.
    """

    def curves(record: Record) -> list[tuple[object, ...]]:
        return [(e.epoch, e.loss, e.lr, e.val_miou, e.val_pixel_acc) for e in record.epochs]

    return (a.status, a.metrics, curves(a)) == (b.status, b.metrics, curves(b))


def find_divergence(a: Record, b: Record) -> int | None:
    """Find the first epoch whose loss differs between two records.

    Args:
        a: the first record.
        b: the second record.

    Returns:
        Number of the epoch; None if all losses are equal bit for bit.
    """
    pairs = zip(a.epochs, b.epochs, strict=False)
    return next((epoch_a.epoch for epoch_a, epoch_b in pairs if epoch_a.loss != epoch_b.loss), None)


def _collect_configuration(record: Record) -> dict[str, Any]:
    """Return the configuration by dotted field names, with all defaults if this version can read it."""
    try:
        trial = Trial.model_validate(record.trial).model_dump(mode="json")
    except ValidationError:
        trial = record.trial
    return {**list_fields(trial), "seed": trial["seed"], "init_from": trial.get("init_from")}


def _collect_data(record: Record) -> dict[str, Any]:
    return {"content": record.trial.get("data"), "weights file": record.trial.get("weights")}


def _collect_code(record: Record) -> dict[str, Any]:
    environment = record.environment
    return {
        "commit": environment.commit if environment is not None else None,
        "fcnlab": environment.versions.get("fcnlab") if environment is not None else None,
        "numerics": find_numerics(record),
    }


def _collect_environment(record: Record) -> dict[str, Any]:
    if record.environment is None:
        return {}
    fields = record.environment.model_dump(exclude={"commit", "versions", "repeatable"})
    versions = {name: version for name, version in record.environment.versions.items() if name != "fcnlab"}
    return {"hardware": describe_hardware(record), **fields, **versions}


def _collect_run(record: Record) -> dict[str, Any]:
    failure = record.failure.message.splitlines()[0] if record.failure is not None else None
    return {"status": record.status, "failure": failure, "micro-batches": record.micro_batches}


def _collect_metrics(a: Record, b: Record) -> tuple[dict[str, float | None], dict[str, float | None]]:
    """Return mIoU and pixel accuracy of each split at the last epoch, and at the best one if one record has another."""
    names = {"last": ""} if _has_best_at_end(a) and _has_best_at_end(b) else {"last": "", "best": " (best)"}
    fields_a, fields_b = (
        {
            f"{metrics.split} {name}{names[metrics.checkpoint]}": value
            for metrics in record.metrics
            if metrics.checkpoint in names
            for name, value in (("mIoU", metrics.miou), ("pixel acc.", metrics.pixel_acc))
        }
        for record in (a, b)
    )
    return fields_a, fields_b


def _has_best_at_end(record: Record) -> bool:
    """Return whether the best epoch of every split is the last one."""
    last = {metrics.split: metrics.epoch for metrics in record.metrics if metrics.checkpoint == "last"}
    return all(metrics.epoch == last.get(metrics.split) for metrics in record.metrics)


def _collect_cost(record: Record) -> dict[str, Any]:
    return record.cost.model_dump(mode="json") if record.cost is not None else {}
