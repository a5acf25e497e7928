"""Random search: cells whose values are sampled from ranges, independently or by a Sobol sequence."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from fcnlab.config.base import Config, Count
from fcnlab.config.grid.axes import INIT_FROM, Axis, Value, check_unique, name_init_from
from fcnlab.config.registry import KINDS
from fcnlab.errors import ConfigError, nearest

RangeKind = Literal["uniform", "log_uniform", "int_uniform", "choice"]
RANGE_KINDS: tuple[RangeKind, ...] = get_args(RangeKind)

MAX_NUMBER = 2**53
"""Largest end of a range: the largest integer that all floating-point numbers below are exact to."""

DIGITS = 4
"""Significant digits of sampled numbers."""

ATTEMPTS = 1000
"""Least number of samples in sequence that are equal to earlier ones after which no more are taken."""


@dataclass(frozen=True)
class Range:
    """The values that an axis may have, with equal probability.

    Attributes:
        kind: `uniform` and `log_uniform` are numbers, the latter with a uniform logarithm; `int_uniform` are integers;
            `choice` is a list.
        values: the two ends, which are included; of `choice` all values.
    """

    kind: RangeKind
    values: tuple[Value, ...]

    @property
    def ends(self) -> tuple[Value, ...]:
        """The ends of a range of numbers; empty for `choice`."""
        return () if self.kind == "choice" else self.values

    @property
    def size(self) -> float:
        """The number of different values; infinite for numbers that are not integers."""
        match self.kind, self.values:
            case "choice", values:
                return len(values)
            case "int_uniform", (int(low), int(high)):
                return high - low + 1
            case _:
                return math.inf

    def value_at(self, fraction: float) -> Value:
        """Return a value of the range; floats are rounded, within the ends.

        Args:
            fraction: uniform random number, at least 0 and below 1.
        """
        if self.kind == "choice":
            return self.values[int(fraction * len(self.values))]
        low, high = (end for end in self.values if isinstance(end, int | float))
        if self.kind == "int_uniform":
            return min(int(low) + int(fraction * self.size), int(high))  # a range may have more values than floats do
        if self.kind == "log_uniform":
            exact = math.exp(math.log(low) + (math.log(high) - math.log(low)) * fraction)
        else:
            exact = low + (high - low) * fraction
        return min(max(float(f"{exact:.{DIGITS}g}"), low), high)


def parse_range(value: Any) -> Range:
    """Parse a range of a grid file.

    Args:
        value: plain value, such as `{"log_uniform": [0.0001, 0.1]}`.

    Raises:
        ValueError: it is not a range; with the reason.

    >>> parse_range({"int_uniform": [1, 3]}).size
    3
    """
    if not isinstance(value, dict) or len(value) != 1:
        raise ValueError("give one range: {uniform: [low, high]}, log_uniform, int_uniform, or {choice: [values]}")
    ((kind, values),) = value.items()
    if kind not in RANGE_KINDS:
        raise ValueError(f"{kind}: unknown range; {nearest(str(kind), RANGE_KINDS)}")
    if not isinstance(values, list) or not values:
        raise ValueError(f"{kind}: give a list of {'values' if kind == 'choice' else 'two numbers'}")
    if kind == "choice":
        if len({repr(item) for item in values}) < len(values):
            raise ValueError(f"choice: a value appears twice in {values}")
        return Range(kind, tuple(values))
    number = int if kind == "int_uniform" else (int, float)
    if len(values) != 2 or not all(isinstance(end, number) and not isinstance(end, bool) for end in values):
        raise ValueError(f"{kind}: give two {'integers' if kind == 'int_uniform' else 'numbers'}, not {values}")
    low, high = values
    if max(abs(low), abs(high)) > MAX_NUMBER:
        raise ValueError(f"{kind}: the ends must be within ±{MAX_NUMBER:.0e}")
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"{kind}: the range must increase, not {low} to {high}")
    if kind == "log_uniform" and low <= 0:
        raise ValueError(f"log_uniform: the range must begin above 0, not at {low}")
    return Range(kind, (low, high) if kind == "int_uniform" else (float(low), float(high)))


class Sample(Config):
    """Configuration of a random search. The other keys are axes with a range of values.

    Attributes:
        n: number of samples, which are all different.
        seed: seed of the samples; a larger `n` adds samples and keeps the others.
        sampler: `random`: independent samples; `qmc`: a scrambled Sobol sequence, which fills the ranges more evenly.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[Axis, Annotated[Range, BeforeValidator(parse_range)]]

    n: Count
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**32)] = 0
    sampler: Literal["random", "qmc"] = "random"

    @property
    def ranges(self) -> Mapping[str, Range]:
        """The range of each axis, by full name."""
        return self.__pydantic_extra__

    @property
    def size(self) -> float:
        """The number of different samples; infinite if a range has numbers that are not integers."""
        return math.prod(one.size for one in self.ranges.values())

    @model_validator(mode="before")
    @classmethod
    def _name_axes(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        check_unique({axis: None for axis in value if isinstance(axis, str)})
        given = value.get(INIT_FROM)
        if isinstance(given, dict) and isinstance(given.get("choice"), list):
            return {**value, INIT_FROM: {"choice": name_init_from({INIT_FROM: given["choice"]})[INIT_FROM]}}
        return value

    @model_validator(mode="after")
    def _check_ranges(self) -> Sample:
        if not self.ranges:
            raise ValueError("give at least one axis, such as recipe.lr: {log_uniform: [0.0001, 0.1]}")
        for axis, one in self.ranges.items():
            if (axis in KINDS or axis == INIT_FROM) and one.ends:
                raise ValueError(f"{axis}: {one.kind} is for numbers; use choice")
        if self.size < self.n:
            raise ValueError(
                f"n: the ranges have {self.size} combinations, not {self.n}; lower n, or list them in product"
            )
        return self


def draw_samples(sample: Sample) -> list[dict[str, Value]]:
    """Draw the samples of a random search. They depend on nothing but the sampler, the seed and the ranges.

    Args:
        sample: configuration of the random search.

    Returns:
        Different values by axis, in a fixed order: the first are those of a smaller `n`.

    Raises:
        ConfigError: there are too few different values.
    """
    axes = sorted(sample.ranges)  # their order in the file has no effect
    samples: dict[str, dict[str, Value]] = {}
    repeated, limit = 0, max(ATTEMPTS, 20 * sample.size) if math.isfinite(sample.size) else ATTEMPTS
    for point in _draw_points(sample, len(axes)):
        fractions = dict(zip(axes, point, strict=True))
        row = {axis: one.value_at(fractions[axis]) for axis, one in sample.ranges.items()}
        repeated = repeated + 1 if repr(row) in samples else 0
        samples.setdefault(repr(row), row)
        if len(samples) == sample.n or repeated >= limit:
            break
    if len(samples) < sample.n:
        raise ConfigError(
            f"n: the ranges gave {len(samples)} different samples, not {sample.n}; lower n or widen a range"
        )
    return list(samples.values())


def _draw_points(sample: Sample, dimensions: int) -> Iterator[list[float]]:
    """Yield points of the unit cube, without an end."""
    import numpy as np

    if sample.sampler == "qmc":
        from scipy.stats.qmc import Sobol

        sequence = Sobol(dimensions, scramble=True, seed=np.random.default_rng(sample.seed))
        while True:
            yield sequence.random()[0].tolist()
    generator = np.random.RandomState(sample.seed)  # its numbers are the same in every version of numpy
    while True:
        yield generator.random_sample(dimensions).tolist()
