"""Evaluation of a trial while it trains and at its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from fcnlab.atomic_file import replace_atomically, write_atomically
from fcnlab.config.trial import Trial
from fcnlab.constants import CheckpointChoice
from fcnlab.data.datasets.base import Dataset
from fcnlab.data.datasets.palette import find_palette
from fcnlab.data.decoded import DecodedSplit, open_decoded
from fcnlab.data.resident import move_to_device
from fcnlab.metrics.summary import Counts
from fcnlab.models import FCN
from fcnlab.models.fcn import separate_tensors
from fcnlab.training.evaluate import OnPrediction, SplitCounts, evaluate_split
from fcnlab.training.fit import DivergenceError, check_weights_finite
from fcnlab.training.protocol import Protocol
from fcnlab.trial.evaluation.metrics import compute_split_metrics
from fcnlab.trial.evaluation.samples import NUM_SAMPLES, save_sample
from fcnlab.trial.heartbeat import Heartbeat
from fcnlab.trial.record import SplitMetrics
from fcnlab.trial.run_folder import RunFolder
from fcnlab.trial.storage.sample_name import name_samples


class Evaluator:
    """Evaluates the model of a trial on val and test.

    Attributes:
        seconds: wall-clock time of all evaluations.
    """

    def __init__(
        self,
        trial: Trial,
        dataset: Dataset,
        folder: RunFolder,
        *,
        device: torch.device,
        autocast: Callable[[], AbstractContextManager[object]],
        trials_per_device: int,
        heartbeat: Heartbeat,
    ) -> None:
        """Prepare the evaluation of a trial.

        Args:
            trial: the trial.
            dataset: its dataset.
            folder: its run folder, for weights, counts and samples.
            device: device of the model.
            autocast: context of the forward pass.
            trials_per_device: number of trials that share the device.
            heartbeat: heartbeat of the trial; beats after each image.
        """
        self.seconds = 0.0
        self._trial = trial
        self._dataset = dataset
        self._folder = folder
        self._device = device
        self._autocast = autocast
        self._trials_per_device = trials_per_device
        self._heartbeat = heartbeat
        self._last_val: SplitCounts | None = None  # of the last epoch, which is not evaluated twice

    def check_splits(self) -> None:
        """Decode val and test, so that an invalid file is found before the training and not after it.

        Raises:
            DataError: a file of these splits is missing or invalid.
        """
        for split in self._trial.dataset.evaluated_splits:
            open_decoded(self._dataset, split, self._heartbeat.start_reading)

    def validate(self, model: FCN, *, is_last: bool) -> Counts | None:
        """Evaluate val. The last epoch's counts are kept for `evaluate_checkpoints`.

        Args:
            model: the model.
            is_last: whether this is the last epoch.

        Returns:
            Counts [N, num_classes, 3]; None if a score is not a number. In fp16 this need not last: after a few steps,
            running statistics of batch norms can be so wrong that activations exceed its range.
        """
        val = self._val  # opened before the phase, because it may have to be decoded
        self._heartbeat.enter("evaluating val")
        counts = self._evaluate_all(model, "val", "last", val) if is_last else self._evaluate(model, val)
        if is_last:
            self._last_val = counts
        return None if counts.contain_nan else counts.areas

    def evaluate_checkpoints(
        self, model: FCN, *, last_epoch: int, best_epoch: int, best_state: Mapping[str, Tensor]
    ) -> list[SplitMetrics]:
        """Evaluate val and test at the last and at the best epoch, and write weights, counts and samples.

        Args:
            model: the model after the last epoch; it has the best weights afterwards.
            last_epoch: number of that epoch.
            best_epoch: the epoch that is best on val.
            best_state: state dict of the model after that epoch.

        Returns:
            Metrics of each split at each checkpoint.

        Raises:
            DivergenceError: the weights of a checkpoint are not finite, or a score is not a number.
        """
        last = self._evaluate_checkpoint(model, "last", last_epoch, self._folder.weights)
        best = last
        if best_epoch != last_epoch:
            model.load_state_dict(best_state)
            best = self._evaluate_checkpoint(model, "best", best_epoch, self._folder.best_weights)
        self._write_counts({"last": last, "best": best})
        evaluated: tuple[tuple[CheckpointChoice, int, dict[str, SplitCounts]], ...]
        evaluated = ("last", last_epoch, last), ("best", best_epoch, best)
        return [
            compute_split_metrics(name, checkpoint, epoch, counts.areas, counts.boundaries)
            for checkpoint, epoch, by_split in evaluated
            for name, counts in by_split.items()
        ]

    def _evaluate_checkpoint(
        self, model: FCN, checkpoint: CheckpointChoice, epoch: int, weights_file: Path
    ) -> dict[str, SplitCounts]:
        """Check and save the weights of a checkpoint, and evaluate them on val and test."""
        check_weights_finite(model, epoch)
        _save_weights(model.state_dict(), weights_file)
        counts = {"val": self._last_val} if checkpoint == "last" and self._last_val is not None else {}
        for name, split in self._splits.items():
            if name not in counts:
                counts[name] = self._evaluate_all(model, name, checkpoint, split)
            if counts[name].contain_nan:
                raise DivergenceError(
                    f"scores of epoch {epoch} on {name} are not numbers, because activations exceed the range of the "
                    "precision; set recipe.precision to bf16 or fp32"
                )
        return counts

    def _write_counts(self, by_checkpoint: Mapping[str, Mapping[str, SplitCounts]]) -> None:
        counts = {
            f"{name}_{checkpoint}": c for checkpoint, splits in by_checkpoint.items() for name, c in splits.items()
        }
        arrays: dict[str, Any] = {name: c.areas for name, c in counts.items()}
        arrays |= {f"{name}_boundary": c.boundaries for name, c in counts.items()}
        arrays |= {f"{name}_ids": np.array(split.ids) for name, split in self._splits.items()}
        write_atomically(self._folder.counts, lambda file: np.savez_compressed(file, **arrays))

    @cached_property
    def _splits(self) -> dict[str, DecodedSplit]:
        """Val and, if the dataset has it, test, by their roles."""
        splits = {"val": self._val}
        if self._trial.dataset.splits.test is not None:
            splits["test"] = self._open(self._trial.dataset.splits.test)
        return splits

    @cached_property
    def _val(self) -> DecodedSplit:
        return self._open(self._trial.dataset.splits.val)

    def _open(self, split: str) -> DecodedSplit:
        decoded = open_decoded(self._dataset, split, self._heartbeat.start_reading)
        return move_to_device(decoded, self._device, self._trials_per_device)

    def _evaluate_all(self, model: FCN, name: str, checkpoint: CheckpointChoice, split: DecodedSplit) -> SplitCounts:
        """Count the areas and boundaries of a split, and save samples of the reported split."""
        self._heartbeat.enter(f"evaluating {name}")
        is_reported = (name, checkpoint) == (self._trial.report_split, "last")
        palette = find_palette(self._trial.dataset, self._dataset.classes)
        names = name_samples(split.ids)

        def save(index: int, prediction: Tensor) -> None:
            save_sample(self._folder.samples, names[split.ids[index]], split[index], prediction, palette)

        return self._evaluate(model, split, boundaries=True, on_prediction=save if is_reported else None)

    def _evaluate(
        self, model: FCN, split: DecodedSplit, *, boundaries: bool = False, on_prediction: OnPrediction | None = None
    ) -> SplitCounts:
        start = time.perf_counter()
        counts = evaluate_split(
            model,
            split,
            num_classes=len(self._dataset.classes),
            autocast=self._autocast,
            boundaries=boundaries,
            on_prediction=on_prediction,
            prediction_indices=range(NUM_SAMPLES),
            on_progress=self._heartbeat.beat,
            protocol=Protocol(scales=(self._trial.recipe.score_scale,)),
        )
        self.seconds += time.perf_counter() - start
        return counts


def _save_weights(state: Mapping[str, Tensor], file: Path) -> None:
    """Write a state dict in a private file."""
    with replace_atomically(file) as temporary:
        save_file(separate_tensors(state), temporary)
