"""Checks that the cells of a table are comparable.

The table of a grid marks the cells for which `check_comparability` returns flags; with `--strict` they are an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from pydantic import ValidationError

from fcnlab.config.grid.axes import format_value, overlap
from fcnlab.config.trial import NUMERICS, Trial, compute_key
from fcnlab.trial.record import Record


@dataclass(frozen=True)
class Flag:
    """A reason for which a cell is not comparable.

    Attributes:
        name: one or two words.
        footnote: one sentence.
    """

    name: str
    footnote: str


@dataclass(frozen=True)
class _Fact:
    """A property that all trials of a grid, or all that hold out the same fold, share unless an axis varies it."""

    name: str
    axes: tuple[str, ...]
    read: Callable[[Record], str | None]
    by_fold: bool = False


def check_comparability(
    records: Mapping[str, Sequence[Record]], baseline: str, axes: Collection[str]
) -> dict[str, list[Flag]]:
    """Find the cells whose trials are not comparable with those of the baseline.

    A cell is flagged if its trials differ among each other or from those of the baseline in the data, the protocol, the
    number of epochs, the precision, the version of the numerics, or the type and number of devices; and if memory ran
    out so that a trial used more micro-batches than its recipe sets. A property that an axis varies is not compared. In
    a cross-validation, only trials that hold out the same images have the same data.

    Args:
        records: records of the finished trials of each cell, by the cell's label.
        baseline: label of the baseline.
        axes: axes of the grid (`Grid.axes`).

    Returns:
        The flags of each cell that has any, by its label.
    """
    facts = [fact for fact in _FACTS if not any(overlap(a, b) for a in axes for b in fact.axes)]
    reference = {fact.name: _list_values(fact, records.get(baseline, ())) for fact in facts}
    flags: dict[str, list[Flag]] = {}
    for cell, trials in records.items():
        of_facts = [
            _flag_fact(fact, _list_values(fact, trials), reference[fact.name], is_baseline=cell == baseline)
            for fact in facts
        ]
        of_cell = [flag for flag in (*of_facts, _flag_micro_batches(trials)) if flag is not None]
        if of_cell:
            flags[cell] = of_cell
    return flags


def find_numerics(record: Record) -> int | None:
    """Find the version of the numerics from the key of a trial.

    Args:
        record: record of the trial.

    Returns:
        The version; None if the record is of an incompatible version of fcnlab.
    """
    try:
        identity = Trial.model_validate(record.trial).identity()
    except ValidationError:
        return None
    versions = range(NUMERICS, 0, -1)
    return next((version for version in versions if compute_key({**identity, "numerics": version}) == record.key), None)


def find_fold(record: Record) -> tuple[int, int] | None:
    """Return the seed of the division into folds and the index of the fold that a trial holds out.

    Args:
        record: record of the trial.

    Returns:
        The two numbers; None without a cross-validation.
    """
    parts = record.trial["dataset"].get("cross_validation")
    return (parts["seed"], parts["fold"]) if parts else None


def describe_protocol(record: Record) -> str:
    """Return the reported split and the scale of its images.

    Args:
        record: record of the trial.

    Returns:
        A phrase such as `split test at scale 1`.
    """
    splits = record.trial["dataset"]["splits"]
    return f"split {splits['test'] or splits['val']} at scale {record.trial['recipe'].get('score_scale', 1.0):g}"


def describe_hardware(record: Record) -> str:
    """Return the type and number of devices.

    Args:
        record: record of the trial.

    Returns:
        `CPU`, `GPU`, or with a number such as `2 x GPU`.
    """
    if record.environment is None:
        return "unknown hardware"
    kind = {"cpu": "CPU", "cuda": "GPU"}[record.environment.kind]
    return kind if record.environment.devices == 1 else f"{record.environment.devices} x {kind}"


def _describe_data(record: Record) -> str:
    """Return the fingerprint of the data, shortened for display."""
    return re.sub(r"^(sha256:\w{12})\w+$", r"\1", str(record.trial["data"]))


def _describe_precision(record: Record) -> str:
    return record.environment.precision if record.environment is not None else "unknown precision"


def _describe_epochs(record: Record) -> str:
    """Return the number of trained epochs, and of how many if the trial stopped before."""
    planned = format_value(record.trial["recipe"]["epochs"])
    return planned if record.plateau is None else f"{record.plateau.epoch} of {planned}"


def _describe_numerics(record: Record) -> str | None:
    version = find_numerics(record)
    return f"version {version}" if version is not None else None


_FACTS = (
    _Fact("data", ("dataset",), _describe_data, by_fold=True),
    _Fact("protocol", ("recipe.score_scale", "dataset.splits"), describe_protocol),
    _Fact("epochs", ("recipe.epochs", "recipe.stop_on_plateau"), _describe_epochs),
    _Fact("precision", ("recipe.precision",), _describe_precision),
    _Fact("numerics", (), _describe_numerics),
    _Fact("hardware", (), describe_hardware),
)


_ByFold: TypeAlias = Mapping[tuple[int, int] | None, tuple[str, ...]]
"""Different values of a property by fold; under None if it does not depend on the fold."""


def _list_values(fact: _Fact, trials: Sequence[Record]) -> _ByFold:
    """Return the different values of a property. Records without it are left out."""
    values: dict[tuple[int, int] | None, set[str]] = {}
    for record in trials:
        if (value := fact.read(record)) is not None:
            values.setdefault(find_fold(record) if fact.by_fold else None, set()).add(value)
    return {fold: tuple(sorted(different)) for fold, different in values.items()}


def _flag_fact(fact: _Fact, values: _ByFold, reference: _ByFold, *, is_baseline: bool) -> Flag | None:
    """Flag the values of a cell in the first fold in which they differ."""
    flags = (_flag_values(fact, own, reference.get(fold, ()), is_baseline=is_baseline) for fold, own in values.items())
    return next((flag for flag in flags if flag is not None), None)


def _flag_values(fact: _Fact, values: tuple[str, ...], reference: tuple[str, ...], *, is_baseline: bool) -> Flag | None:
    """Flag the values of a cell that differ among each other or from those of the baseline."""
    if len({*values, *reference}) < 2:
        return None
    if is_baseline or values == reference or not reference:
        return Flag(fact.name, f"{fact.name}: its trials differ, {' and '.join(values)}")
    return Flag(fact.name, f"{fact.name}: {' and '.join(values)}; the baseline has {' and '.join(reference)}")


def _flag_micro_batches(trials: Sequence[Record]) -> Flag | None:
    """Flag additional micro-batches: they change the statistics of batch norm, and with them the gradient.

    The recipe sets the mode of the backbone's batch norms only, and heads have batch norms of their own.
    """
    split = [record for record in trials if record.micro_batches > 1]
    if not split:
        return None
    counts = sorted({record.trial["recipe"].get("grad_accum_steps", 1) * record.micro_batches for record in split})
    affected = f"{len(split)} of {len(trials)} trials"
    return Flag(
        "micro-batches",
        f"micro-batches: memory ran out in {affected}; {' and '.join(map(str, counts))} per batch, so batch norms in "
        "training mode, if the network has any, saw smaller batches",
    )
