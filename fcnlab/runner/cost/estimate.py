"""Estimated cost of the remaining trials of a grid: time, memory and disk."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from fcnlab.config.trial import Trial
from fcnlab.console import format_count
from fcnlab.data.cache.format import compute_cache_key, decoded_cache_folder
from fcnlab.lab import Lab
from fcnlab.limits import usable_cores
from fcnlab.paths import is_folder
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
    on_device = {workload: rate.with_trials_per_device(trials_per_device) for workload, rate in rates.items()}
    choices = _choose_rates(plan, workloads, on_device, data)
    chosen = [choices[workloads[planned.key]] for planned in remaining if workloads[planned.key] in choices]
    known = [planned for planned in remaining if workloads[planned.key] in choices]
    times = [_estimate_trial(planned, choice.rate, data) for planned, choice in zip(known, chosen, strict=True)]
    used = [choice.rate for choice in chosen]
    concurrent = max(1, min(slots, len(remaining)))
    overhead = _estimate_overhead(known, used, data)
    shortest = [seconds / rate.spread for seconds, rate in zip(times, used, strict=True)]
    longest = [seconds * rate.spread for seconds, rate in zip(times, used, strict=True)]
    low, middle, high = (
        _estimate_span(each, used, concurrent, trials_per_device) for each in (shortest, times, longest)
    )
    return CostEstimate(
        trials=len(remaining),
        known=len(known),
        from_gmacs=sum(workloads[planned.key] not in rates for planned in known),
        slots=concurrent,
        device_seconds=sum(times) / trials_per_device,
        seconds=overhead + middle if known else 0.0,
        low=overhead / 1.5 + low if known else 0.0,
        high=1.5 * overhead + high if known else 0.0,
        memory=max((rate.memory for rate in used if rate.memory is not None), default=None),
        disk=sum(rate.disk for rate in used),
        sources=_describe_sources([rates[source] for source in dict.fromkeys(choice.source for choice in chosen)]),
        trials_per_device=trials_per_device,
        extrapolated=sum(not rate.measured for rate in used),
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
        steps = data.count_epoch_steps(trial)
        pixels = fmean(height * width for height, width in setup.images)
        image = gmacs * pixels / (recipe.crop.height * recipe.crop.width)
        return cls(gmacs, gmacs * steps * recipe.batch_size, image)


def _choose_rates(
    plan: Plan,
    workloads: Mapping[str, Workload],
    rates: Mapping[Workload, CostRate],
    data: OpenedData,
) -> dict[Workload, _Choice]:
    """Choose the rate of each remaining workload: its own, or that of the network with the nearest GMACs, scaled.

    Networks that were measured with the same data and sizes are preferred to others. A workload without a rate is left
    out if its GMACs are not known, or those of no workload with a rate.
    """
    remaining = dict.fromkeys(workloads[planned.key] for planned in plan.remaining)
    choices = {workload: _Choice(rates[workload], workload) for workload in remaining if workload in rates}
    if len(choices) == len(remaining):
        return choices
    trials = {workloads[planned.key]: planned.trial for planned in plan.all_trials}
    work = {workload: counted for workload, trial in trials.items() if (counted := _Work.of(trial, data)) is not None}
    measured = [workload for workload in work if workload in rates]
    for workload in remaining:
        if workload in choices or workload not in work or not measured:
            continue
        own = work[workload]
        comparable = [other for other in measured if other.data_and_sizes == workload.data_and_sizes]
        nearest = min(comparable or measured, key=lambda other: abs(math.log(own.gmacs / work[other].gmacs)))
        scaled = rates[nearest].scale(own.epoch / work[nearest].epoch, own.image / work[nearest].image)
        spread = max(rates[nearest].spread, GMACS_SPREAD if comparable else SIZES_SPREAD)
        choices[workload] = _Choice(replace(scaled, spread=spread), nearest)
    return choices


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


def _estimate_span(times: Sequence[float], rates: Sequence[CostRate], slots: int, trials_per_device: int) -> float:
    """Return the time until the last trial has ended.

    Args:
        times: times of the trials, in the order in which they start.
        rates: rates of the trials.
        slots: number of slots.
        trials_per_device: number of trials that share a GPU.
    """
    if all(rate.measured for rate in rates):
        return _fill_slots(times, slots)
    # A trial at the end has the GPU to itself, so an assumed slowdown by other trials does not apply to it.
    alone = [time if rate.measured else time / trials_per_device for time, rate in zip(times, rates, strict=True)]
    return max(sum(times) / slots, *alone)


def _fill_slots(times: Sequence[float], slots: int) -> float:
    """Return the time until the last trial has ended if each starts in the slot that is free first."""
    free_at = [0.0] * slots
    for time in times:
        heapq.heapreplace(free_at, free_at[0] + time)
    return max(free_at)


def _estimate_overhead(trials: Sequence[PlannedTrial], rates: Sequence[CostRate], data: OpenedData) -> float:
    """Return the time to start processes, to decode what is not in the cache, and to write the report."""
    start = max((rate.start_seconds for rate in rates), default=0.0) or START_SECONDS
    decoding: dict[tuple[str, str], float] = {}
    for planned, rate in zip(trials, rates, strict=True):
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
    sources = []
    for device in dict.fromkeys(rate.device for rate in rates):
        trials = sum(rate.trials for rate in rates if rate.device == device)
        probes = sum(rate.trials == 0 for rate in rates if rate.device == device)
        counts = [format_count(trials, "finished trial")] if trials else []
        counts += [f"{format_count(probes, 'probe')} of a few steps"] if probes else []
        sources.append(f"{' and '.join(counts)} on {device}")
    return tuple(sources)
