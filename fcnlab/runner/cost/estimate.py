"""Estimated cost of the remaining trials of a grid: time, memory and disk."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from fcnlab.config.trial import Trial
from fcnlab.data.cache.format import compute_cache_key, decoded_cache_folder
from fcnlab.lab import Lab
from fcnlab.paths import is_folder
from fcnlab.processor import usable_cores
from fcnlab.runner.checks.network import read_gmacs
from fcnlab.runner.checks.trials import OpenedData
from fcnlab.runner.cost.history import Workload
from fcnlab.runner.cost.rate import GMACS_SPREAD, SIZES_SPREAD, CostRate
from fcnlab.runner.plan import Plan, PlannedTrial

START_SECONDS = 5.0
"""Seconds to start a process that trains, where it was not measured."""

STARTS = 4.0
"""Overhead of a run in units of the startup time: the driver, its workers, the MLflow store and the report."""


@dataclass(frozen=True)
class CostEstimate:
    """Estimated cost of the remaining trials of a grid.

    Attributes:
        trials: the number of remaining trials.
        known: the number of remaining trials with an estimate; all sums are over these.
        from_gmacs: the number of estimates that are scaled by GMACs from other networks or sizes.
        slots: the number of trials that run at the same time.
        device_seconds: the sum of the times of the trials, divided by the number of trials that share a GPU.
        seconds: wall-clock time until the report is written, with the start of the processes and decoding.
        low: lower end of the range of `seconds`.
        high: upper end of the range of `seconds`.
        memory: largest peak memory of a trial on its device in bytes; None if it was not measured.
        disk: size of all run folders in bytes.
        sources: the measurements behind the estimate, one text per device.
        trials_per_device: the number of trials that share a GPU.
        extrapolated: the number of estimates from trials with another number of trials on their GPU.
    """

    trials: int
    known: int
    from_gmacs: int
    slots: int
    device_seconds: float
    seconds: float
    low: float
    high: float
    memory: int | None
    disk: int
    sources: tuple[str, ...]
    trials_per_device: int = 1
    extrapolated: int = 0


def estimate_cost(
    plan: Plan,
    lab: Lab,
    workloads: Mapping[str, Workload],
    rates: Mapping[Workload, CostRate],
    slots: int,
    trials_per_device: int = 1,
) -> CostEstimate:
    """Estimate the cost of the remaining trials from measurements of their workload, else of other networks by GMACs.

    Args:
        plan: the plan of the grid.
        lab: the lab of the data.
        workloads: the workload of each trial of the plan, by key.
        rates: the measured cost rate of each workload.
        slots: the number of trials that can run at the same time.
        trials_per_device: the number of trials that share a GPU.

    Returns:
        The estimate. Trials without a comparable measurement are not part of its sums.
    """
    remaining, data = plan.remaining, OpenedData(lab)
    chosen = _choose_rates(
        plan, workloads, {w: rate.with_trials_per_device(trials_per_device) for w, rate in rates.items()}, data
    )
    known = [(one, choice.rate) for one in remaining if (choice := chosen[workloads[one.key]]) is not None]
    used = list(dict.fromkeys(rate for _, rate in known))
    concurrent = max(1, min(slots, len(remaining)))
    times = [_estimate_trial(one, rate, data) for one, rate in known]
    overhead = _estimate_overhead(known, data)
    spans = {factor: _estimate_span(times, known, concurrent, trials_per_device, factor) for factor in (-1, 0, 1)}
    return CostEstimate(
        trials=len(remaining),
        known=len(known),
        from_gmacs=sum(workloads[one.key] not in rates for one, _ in known),
        slots=concurrent,
        device_seconds=sum(times) / trials_per_device,
        seconds=overhead + spans[0] if known else 0.0,
        low=overhead / 1.5 + spans[-1] if known else 0.0,
        high=1.5 * overhead + spans[1] if known else 0.0,
        memory=max((rate.memory for rate in used if rate.memory is not None), default=None),
        disk=sum(rate.disk for _, rate in known),
        sources=_describe_sources(
            [rates[w] for w in dict.fromkeys(choice.source for choice in chosen.values() if choice is not None)]
        ),
        trials_per_device=trials_per_device,
        extrapolated=sum(not rate.measured for _, rate in known),
    )


@dataclass(frozen=True)
class _Choice:
    """The rate that is used for a workload, and the workload with which it was measured."""

    rate: CostRate
    source: Workload


@dataclass(frozen=True)
class _Work:
    """Arithmetic of a workload, to scale the times of another.

    Attributes:
        gmacs: billions of multiply-accumulates of one crop.
        epoch: billions of multiply-accumulates of an epoch.
        image: billions of multiply-accumulates of an evaluated image.
    """

    gmacs: float
    epoch: float
    image: float

    @classmethod
    def of(cls, trial: Trial, data: OpenedData) -> _Work | None:
        """Return the work of a trial; None if its GMACs are not known."""
        setup, recipe = data.describe_network(trial), trial.recipe
        gmacs = read_gmacs(setup)
        if gmacs is None or not setup.images:
            return None
        steps = len(data.split(trial, trial.dataset.splits.train)) // recipe.batch_size
        pixels = fmean(height * width for height, width in setup.images)
        image = gmacs * pixels / (recipe.crop.height * recipe.crop.width)
        return cls(gmacs, gmacs * steps * recipe.batch_size, image)


def _choose_rates(
    plan: Plan,
    workloads: Mapping[str, Workload],
    rates: Mapping[Workload, CostRate],
    data: OpenedData,
) -> dict[Workload, _Choice | None]:
    """Choose the rate of each remaining workload: its own, or that of the network with the nearest GMACs, scaled.

    Networks that were measured with the same data and sizes are preferred to others.
    """
    remaining = {workloads[one.key]: one.trial for one in plan.remaining}
    if remaining.keys() <= rates.keys():
        return {workload: _Choice(rates[workload], workload) for workload in remaining}
    trials = {workloads[one.key]: one.trial for one in plan.all_trials}
    work = {workload: _Work.of(trial, data) for workload, trial in trials.items()}
    known = {other: found for other, found in work.items() if found is not None and other in rates}
    chosen: dict[Workload, _Choice | None] = {}
    for workload in remaining:
        own = work[workload]
        if workload in rates:
            chosen[workload] = _Choice(rates[workload], workload)
        elif own is None or not known:
            chosen[workload] = None
        else:
            comparable = [other for other in known if other.data_and_sizes == workload.data_and_sizes]
            nearest = min(comparable or known, key=lambda other: abs(math.log(own.gmacs / known[other].gmacs)))
            theirs = known[nearest]
            scaled = rates[nearest].scale(own.epoch / theirs.epoch, own.image / theirs.image)
            spread = max(rates[nearest].spread, GMACS_SPREAD if comparable else SIZES_SPREAD)
            chosen[workload] = _Choice(replace(scaled, spread=spread), nearest)
    return chosen


def _estimate_trial(planned: PlannedTrial, rate: CostRate, data: OpenedData) -> float:
    trial = planned.trial
    done = len(planned.folder.read_progress()) if planned.status == "started" else 0
    test = trial.dataset.splits.test
    return rate.trial_seconds(
        trial.recipe,
        trial.recipe.epochs - done,
        len(data.split(trial, trial.dataset.splits.val)),
        len(data.split(trial, test)) if test is not None else 0,
    )


def _estimate_span(
    times: Sequence[float], known: Sequence[tuple[PlannedTrial, CostRate]], slots: int, trials_per_device: int, end: int
) -> float:
    """Return the time until the last trial has ended: each starts in the slot that is free first.

    Args:
        times: times of the trials, in the order in which they start.
        known: the trials and their rates.
        slots: number of slots.
        trials_per_device: number of trials that share a GPU.
        end: -1 for the lower end of the range, 1 for the upper end, 0 for the estimate.
    """
    free = [0.0] * slots
    longest = 0.0
    for time, (_, rate) in zip(times, known, strict=True):
        span = time * rate.spread**end
        heapq.heapreplace(free, free[0] + span)
        # A trial at the end has the GPU to itself, so an assumed slowdown by other trials does not apply to it.
        longest = max(longest, span if rate.measured else span / trials_per_device)
    if all(rate.measured for _, rate in known):
        return max(free)
    return max(sum(time * rate.spread**end for time, (_, rate) in zip(times, known, strict=True)) / slots, longest)


def _estimate_overhead(known: Sequence[tuple[PlannedTrial, CostRate]], data: OpenedData) -> float:
    """Return the time to start processes, to decode what is not in the cache, and to write the report."""
    start = max((rate.start_seconds for _, rate in known), default=0.0) or START_SECONDS
    decoding: dict[tuple[str, str], float] = {}
    for planned, rate in known:
        trial = planned.trial
        for name in trial.dataset.used_splits:
            if (trial.data, name) not in decoding:
                decoding[trial.data, name] = rate.decode_seconds * _count_undecoded(trial, name, data)
    return STARTS * start + sum(decoding.values()) / usable_cores()


def _count_undecoded(trial: Trial, split: str, data: OpenedData) -> int:
    """Return the number of images of a split that are not in the cache of decoded images."""
    cached = decoded_cache_folder() / compute_cache_key(data.dataset(trial), split)
    return 0 if is_folder(cached) else len(data.split(trial, split))


def _describe_sources(rates: Sequence[CostRate]) -> tuple[str, ...]:
    """Describe the measurements, one text per device."""
    texts = []
    for device in dict.fromkeys(rate.device for rate in rates):
        trials = sum(rate.trials for rate in rates if rate.device == device)
        probes = sum(rate.trials == 0 for rate in rates if rate.device == device)
        parts = [f"{trials} finished trial{'s' * (trials > 1)}"] * bool(trials)
        parts += [f"{probes} probe{'s' * (probes > 1)} of a few steps"] * bool(probes)
        texts.append(f"{' and '.join(parts)} on {device}")
    return tuple(texts)
