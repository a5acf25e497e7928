"""Estimated cost of the remaining trials of a grid: time, memory and disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fcnlab.runner.cost.history import CostRate, Workload
from fcnlab.runner.cost.probe import STEPS
from fcnlab.runner.plan import Plan, PlannedTrial


@dataclass(frozen=True)
class CostEstimate:
    """Estimated cost of the remaining trials of a grid.

    Attributes:
        trials: the number of remaining trials.
        known: the number of remaining trials with an estimate; all sums are over these.
        from_other_variants: how many estimates come from trials of another variant with the same data and sizes.
        slots: the number of trials that run at the same time.
        device_seconds: the sum of the times of the trials, divided by the number of trials that share a GPU.
        seconds: wall-clock time until the last trial has finished.
        memory: largest peak memory of a trial on its device in bytes; None if it was not measured.
        disk: size of all run folders in bytes.
        sources: the measurements behind the estimate, one text per device.
        sharing: the number of trials that share a GPU.
        extrapolated: how many estimates come from trials with another number of trials on their GPU.
    """

    trials: int
    known: int
    from_other_variants: int
    slots: int
    device_seconds: float
    seconds: float
    memory: int | None
    disk: int
    sources: tuple[str, ...]
    sharing: int = 1
    extrapolated: int = 0


def estimate_cost(
    plan: Plan,
    workloads: Mapping[str, Workload],
    rates: Mapping[Workload, CostRate],
    slots: int,
    sharing: int = 1,
) -> CostEstimate:
    """Estimate the cost of the remaining trials from trials with the same workload, else from other variants.

    Args:
        plan: the plan of the grid.
        workloads: the workload of each trial of the plan, by key.
        rates: the measured cost rate of each workload.
        slots: the number of trials that can run at the same time.
        sharing: the number of trials that share a GPU.

    Returns:
        The estimate. Trials without a comparable measurement are not part of its sums.
    """
    rates = {workload: rate.with_sharing(sharing) for workload, rate in rates.items()}
    remaining = plan.remaining
    chosen = {workload: _find_rate(workload, rates) for workload in {workloads[one.key] for one in remaining}}
    known = [(one, rate) for one in remaining if (rate := chosen[workloads[one.key]]) is not None]
    times = [rate.trial_seconds(one.trial.recipe, _epochs_left(one)) for one, rate in known]
    # The last trial has the GPU to itself, so an assumed slowdown by other trials does not apply to it.
    longest = [time if rate.measured else time / sharing for time, (_, rate) in zip(times, known, strict=True)]
    used = list(dict.fromkeys(rate for _, rate in known))
    concurrent = max(1, min(slots, len(remaining)))
    return CostEstimate(
        trials=len(remaining),
        known=len(known),
        from_other_variants=sum(workloads[one.key] not in rates for one, _ in known),
        slots=concurrent,
        device_seconds=sum(times) / sharing,
        seconds=max(sum(times) / concurrent, max(longest, default=0.0)),
        memory=max((rate.memory for rate in used if rate.memory is not None), default=None),
        disk=sum(rate.disk for _, rate in known),
        sources=_describe_sources(used),
        sharing=sharing,
        extrapolated=sum(not rate.measured for _, rate in known),
    )


def _find_rate(workload: Workload, rates: Mapping[Workload, CostRate]) -> CostRate | None:
    """Return the rate of a workload, or the mean over other variants with the same data and sizes."""
    if workload in rates:
        return rates[workload]
    comparable = [rate for other, rate in rates.items() if other.data_and_sizes == workload.data_and_sizes]
    return CostRate.mean(comparable) if comparable else None


def _epochs_left(planned: PlannedTrial) -> int:
    done = len(planned.folder.read_progress()) if planned.status == "started" else 0
    return planned.trial.recipe.epochs - done


def _describe_sources(rates: Sequence[CostRate]) -> tuple[str, ...]:
    """Describe the measurements, one text per device."""
    texts = []
    for device in dict.fromkeys(rate.device for rate in rates):
        trials = sum(rate.trials for rate in rates if rate.device == device)
        probes = sum(rate.trials == 0 for rate in rates if rate.device == device)
        parts = [f"{trials} finished trial{'s' * (trials > 1)}"] * bool(trials)
        parts += [f"{probes} probe{'s' * (probes > 1)} of {STEPS} steps"] * bool(probes)
        texts.append(f"{' and '.join(parts)} on {device}")
    return tuple(texts)
