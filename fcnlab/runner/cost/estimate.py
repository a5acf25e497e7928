"""What is left of a grid may cost: time, memory and disk, and by what that is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fcnlab.runner.cost.history import Pace, Shape
from fcnlab.runner.cost.probe import STEPS
from fcnlab.runner.plan import Plan, PlannedTrial


@dataclass(frozen=True)
class Estimate:
    """What is left of a grid costs about.

    Attributes:
        trials: how many are left.
        known: how many of these the figures are of: of the others nothing is known.
        alike: how many of the known are judged by trials of another variant, on the same data with the same sizes.
        slots: how many run at once.
        device_seconds: of all known trials: their times one after the other, divided by how many share a GPU.
        seconds: until the last known one is done.
        memory: bytes of its device that a trial takes at most; None where it was not measured.
        disk: bytes of all run folders together.
        by: what was measured, and on what.
        sharing: how many trials share a GPU.
        derived: how many of the known are judged by trials with other numbers of neighbours on their GPU.
    """

    trials: int
    known: int
    alike: int
    slots: int
    device_seconds: float
    seconds: float
    memory: int | None
    disk: int
    by: tuple[str, ...]
    sharing: int = 1
    derived: int = 0


def estimate(
    plan: Plan, shapes: Mapping[str, Shape], paces: Mapping[Shape, Pace], slots: int, sharing: int = 1
) -> Estimate:
    """Judge what is left by what is known of trials of the same shape, else of another variant's.

    `shapes` are those of the plan's trials by their keys; `slots` is how many may run at once, `sharing` of them on
    one GPU.
    """
    paces = {shape: pace.shared_by(sharing) for shape, pace in paces.items()}
    left = plan.remaining
    judged = {shape: _pace(shape, paces) for shape in {shapes[planned.key] for planned in left}}
    known = [(planned, pace) for planned in left if (pace := judged[shapes[planned.key]]) is not None]
    times = [pace.seconds(planned.trial.recipe, _epochs_left(planned)) for planned, pace in known]
    # The last trial has the GPU to itself: what was only assumed of neighbours does not hold for it.
    longest = [time if pace.measured else time / sharing for time, (_, pace) in zip(times, known, strict=True)]
    used = list(dict.fromkeys(pace for _, pace in known))
    at_once = max(1, min(slots, len(left)))
    return Estimate(
        trials=len(left),
        known=len(known),
        alike=sum(shapes[planned.key] not in paces for planned, _ in known),
        slots=at_once,
        device_seconds=sum(times) / sharing,
        seconds=max(sum(times) / at_once, max(longest, default=0.0)),
        memory=max((pace.memory for pace in used if pace.memory is not None), default=None),
        disk=sum(pace.disk for _, pace in known),
        by=_by(used),
        sharing=sharing,
        derived=sum(not pace.measured for _, pace in known),
    )


def _pace(shape: Shape, paces: Mapping[Shape, Pace]) -> Pace | None:
    """The pace of a shape, or the mean of those of other variants on the same data with the same sizes."""
    if shape in paces:
        return paces[shape]
    alike = [pace for other, pace in paces.items() if other.work == shape.work]
    return Pace.mean(alike) if alike else None


def _epochs_left(planned: PlannedTrial) -> int:
    done = len(planned.folder.read_progress()) if planned.status == "started" else 0
    return planned.trial.recipe.epochs - done


def _by(paces: Sequence[Pace]) -> tuple[str, ...]:
    """What was measured, by device."""
    found = []
    for device in dict.fromkeys(pace.device for pace in paces):
        trials = sum(pace.trials for pace in paces if pace.device == device)
        probes = sum(pace.trials == 0 for pace in paces if pace.device == device)
        parts = [f"{trials} finished trial{'s' * (trials > 1)}"] * bool(trials)
        parts += [f"{probes} probe{'s' * (probes > 1)} of {STEPS} steps"] * bool(probes)
        found.append(f"{' and '.join(parts)} on {device}")
    return tuple(found)
