"""The comparability guard: what makes figures that stand in one table figures of different things.

A table of a grid calls `flags` with the records of its finished trials and marks the cells that it gives; with
`--strict` the table is refused instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from fcnlab.config.grid.axes import format_value
from fcnlab.config.trial import NUMERICS, Trial, compute_key
from fcnlab.trial.record import Record


@dataclass(frozen=True)
class Flag:
    """Why the figures of a cell are not to be compared as they stand: in a word or two, and in a sentence."""

    name: str
    footnote: str


@dataclass(frozen=True)
class _Fact:
    """Something that should be the same for all trials of a grid, unless it says by an axis that it is not."""

    name: str
    axes: tuple[str, ...]
    of: Callable[[Record], str | None]


def flags(records: Mapping[str, Sequence[Record]], baseline: str, axes: Collection[str]) -> dict[str, list[Flag]]:
    """The flags of each cell that has any, by the cell's label.

    `records` are those of each cell's finished trials by its label, `baseline` is the baseline's label, and `axes` are
    those of the grid (`Grid.axes`): what they vary, they vary on purpose, and that is no flag.

    A cell is flagged where its trials differ among each other or from the baseline's in the data's content, the way of
    scoring, the number of epochs, the precision that was used, the version of the numerics, or the kind of hardware
    and how many devices; and where memory ran out, and batches were cut into parts.
    """
    facts = [fact for fact in _FACTS if not any(_touches(axis, own) for axis in axes for own in fact.axes)]
    reference = {fact.name: _values(fact, records.get(baseline, ())) for fact in facts}
    found: dict[str, list[Flag]] = {}
    for cell, trials in records.items():
        own = [_flag(fact, _values(fact, trials), reference[fact.name], cell == baseline) for fact in facts]
        marked = [flag for flag in (*own, _parts(trials)) if flag is not None]
        if marked:
            found[cell] = marked
    return found


def find_numerics(record: Record) -> int | None:
    """The version of the numerics that a trial was run with, which its key tells.

    None where it is not told: the record is of a version of fcnlab that wrote trials in another way.
    """
    try:
        identity = Trial.model_validate(record.trial).identity()
    except ValidationError:
        return None
    versions = range(NUMERICS, 0, -1)
    return next((version for version in versions if compute_key({**identity, "numerics": version}) == record.key), None)


def protocol_of(record: Record) -> str:
    """On which split a trial is reported, and by what factor the network sees its images."""
    splits = record.trial["dataset"]["splits"]
    return f"split {splits['test'] or splits['val']} at scale {record.trial['recipe'].get('score_scale', 1.0):g}"


def describe_hardware(record: Record) -> str:
    """Return `CPU` or `GPU`, and how many, such as `2 x GPU`."""
    if record.environment is None:
        return "unknown hardware"
    kind = {"cpu": "CPU", "cuda": "GPU"}[record.environment.kind]
    return kind if record.environment.devices == 1 else f"{record.environment.devices} x {kind}"


def _data(record: Record) -> str:
    """The content's fingerprint, of a digest as much as people can compare."""
    return re.sub(r"^(sha256:\w{12})\w+$", r"\1", str(record.trial["data"]))


def _precision(record: Record) -> str:
    return record.environment.precision if record.environment is not None else "unknown precision"


def _numerics(record: Record) -> str | None:
    version = find_numerics(record)
    return f"version {version}" if version is not None else None


_FACTS = (
    _Fact("data", ("dataset",), _data),
    _Fact("protocol", ("recipe.score_scale", "dataset.splits"), protocol_of),
    _Fact("epochs", ("recipe.epochs",), lambda record: format_value(record.trial["recipe"]["epochs"])),
    _Fact("precision", ("recipe.precision",), _precision),
    _Fact("numerics", (), _numerics),
    _Fact("hardware", (), describe_hardware),
)


def _touches(axis: str, own: str) -> bool:
    """Whether an axis is the field, holds it, or lies in it."""
    return axis == own or own.startswith(f"{axis}.") or axis.startswith(f"{own}.")


def _values(fact: _Fact, trials: Sequence[Record]) -> tuple[str, ...]:
    """What is known of it; a record that does not tell is no reason to doubt the others."""
    return tuple(sorted({value for record in trials if (value := fact.of(record)) is not None}))


def _flag(fact: _Fact, own: tuple[str, ...], reference: tuple[str, ...], is_baseline: bool) -> Flag | None:
    if not own or len({*own, *reference}) < 2:
        return None
    if is_baseline or own == reference or not reference:
        return Flag(fact.name, f"{fact.name}: its own trials differ, {_and(own)}")
    return Flag(fact.name, f"{fact.name}: {_and(own)}, where the baseline has {_and(reference)}")


def _parts(trials: Sequence[Record]) -> Flag | None:
    """Cutting a batch leaves the gradient as it is, but not the statistics of batch norm over it."""
    cut = sorted({record.micro_batches for record in trials if record.micro_batches > 1})
    if not cut:
        return None
    several = f"{sum(record.micro_batches > 1 for record in trials)} of {len(trials)} trials"
    trains = any(record.trial["recipe"].get("batch_norm", "train") == "train" for record in trials)
    consequence = ", so batch norm saw smaller batches" if trains else "; the gradient is the same"
    return Flag("parts", f"parts: memory ran out in {several}; each batch in {_and(map(str, cut))} parts{consequence}")


def _and(values: Collection[str] | map[str]) -> str:
    return " and ".join(values)
