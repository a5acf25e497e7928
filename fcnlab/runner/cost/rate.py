"""Cost rates: seconds per epoch, evaluated image and setup, and the trial time computed from them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from statistics import fmean

from fcnlab.config.recipe import Recipe

SETUP_SECONDS = 3.0
"""Seconds of a trial before its first step and after its last evaluation, where they were not measured."""

FINISHED_SPREAD = 1.25
PROBE_SPREAD = 1.5
EXTRAPOLATED_SPREAD = 2.0
GMACS_SPREAD = 2.5
SIZES_SPREAD = 4.0
"""Factors of the range around an estimate: from finished trials, from a probe, from a probe with few images, from
another network by GMACs, and from one that was measured with other data or sizes."""


@dataclass(frozen=True)
class CostRate:
    """Measured cost of the trials of one workload.

    Attributes:
        epoch_seconds: training time of an epoch.
        image_seconds: time to evaluate one image.
        final_image_seconds: time to evaluate one image at the end of a trial, with its boundaries.
        setup_seconds: time of a trial before its first step and after its last evaluation.
        memory: peak memory of the device in bytes; None if it was not measured.
        disk: size of the run folder of a finished trial in bytes.
        device: name of the hardware of the measurement.
        trials: the number of finished trials averaged over; 0 for a probe.
        trials_per_device: the number of trials that shared the GPU.
        measured: whether the rate was measured with this `trials_per_device`, and not extrapolated from another.
        spread: factor of the range: the time is expected between 1/spread and spread times the estimate.
        decode_seconds: time to decode one image; 0 if it was not measured.
        start_seconds: time to start a process that trains; 0 if it was not measured.
    """

    epoch_seconds: float
    image_seconds: float
    memory: int | None
    disk: int
    device: str
    trials: int
    final_image_seconds: float = 0.0
    setup_seconds: float = 0.0
    trials_per_device: int = 1
    measured: bool = True
    spread: float = FINISHED_SPREAD
    decode_seconds: float = 0.0
    start_seconds: float = 0.0

    def with_trials_per_device(self, count: int) -> CostRate:
        """Return the rate of each of several trials on one GPU.

        If fewer trials shared the GPU in the measurement, sharing is assumed to gain nothing: with twice the number
        of trials, each takes twice as long. If more trials shared it, the times stay as measured.

        Args:
            count: the number of trials that share the GPU.
        """
        if count == self.trials_per_device:
            return self
        factor = max(1.0, count / self.trials_per_device)
        scaled = self.scale(factor)
        return replace(scaled, setup_seconds=factor * self.setup_seconds, trials_per_device=count, measured=False)

    def scale(self, factor: float, evaluation: float | None = None) -> CostRate:
        """Return the rate with the times of training and evaluation multiplied.

        Args:
            factor: factor of the times.
            evaluation: factor of the times of evaluation, if it is another.
        """
        evaluation = factor if evaluation is None else evaluation
        return replace(
            self,
            epoch_seconds=factor * self.epoch_seconds,
            image_seconds=evaluation * self.image_seconds,
            final_image_seconds=evaluation * self.final_image_seconds,
        )

    def trial_seconds(self, recipe: Recipe, epochs: int, val: int, test: int) -> float:
        """Return the time of a trial in seconds, with its setup and all evaluations.

        At its end a trial evaluates test, and val and test again at the best epoch if that is not the last one, which
        is assumed for every second trial.

        Args:
            recipe: the recipe of the trial.
            epochs: the number of epochs to train.
            val: number of images of val.
            test: number of images of test; 0 if there is no such split.
        """
        validations = count_validations(recipe)
        while_training = (validations - 1) * val
        at_end = (1.5 if validations > 1 else 1.0) * (val + test)
        evaluation = while_training * self.image_seconds + at_end * (self.final_image_seconds or self.image_seconds)
        return self.setup_seconds + epochs * self.epoch_seconds + evaluation

    @classmethod
    def mean(cls, rates: Iterable[CostRate]) -> CostRate:
        """Return the mean of several rates, with the maximum of their peak memories.

        Args:
            rates: at least one rate.
        """
        rates = list(rates)
        memories = [rate.memory for rate in rates if rate.memory is not None]
        times = ("epoch_seconds", "image_seconds", "final_image_seconds", "setup_seconds", "decode_seconds",
                 "start_seconds")  # fmt: skip
        return cls(
            **{name: fmean(getattr(rate, name) for rate in rates) for name in times},
            memory=max(memories, default=None),
            disk=round(fmean(rate.disk for rate in rates)),
            device=" and ".join(dict.fromkeys(rate.device for rate in rates)),
            trials=sum(rate.trials for rate in rates),
            trials_per_device=max(rate.trials_per_device for rate in rates),
            measured=all(rate.measured for rate in rates),
            spread=max(rate.spread for rate in rates),
        )


def count_validations(recipe: Recipe, epochs: int | None = None) -> int:
    """Return the number of evaluations of val while a trial trains.

    Args:
        recipe: the recipe of the trial.
        epochs: number of epochs that were trained; by default those of the recipe.
    """
    return -(-(epochs or recipe.epochs) // recipe.validate_every)
