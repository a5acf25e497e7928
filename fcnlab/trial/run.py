"""Run one trial: build -> fit -> evaluate -> record. Interrupted, it goes on from the last finished epoch."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cached_property, partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from filelock import FileLock
from safetensors.torch import save_file
from torch import Tensor

from fcnlab.config.trial import Trial
from fcnlab.data.decoded import DecodedSplit, open_decoded, release_resident_splits
from fcnlab.errors import ModelError
from fcnlab.lab import Lab
from fcnlab.metrics import confusion
from fcnlab.models import FCN
from fcnlab.models.backbones.base import read_state
from fcnlab.models.fcn import take_over
from fcnlab.seeding import derive_seed
from fcnlab.settings import CHECKPOINT_EVERY
from fcnlab.training import cost, hardware
from fcnlab.training.distributed import ProcessGroup, join_process_group
from fcnlab.training.evaluate import OnPrediction, SplitCounts, evaluate_split
from fcnlab.training.fit import DivergenceError, Epoch, fit
from fcnlab.training.protocol import Protocol
from fcnlab.trial.build import Training, build_model, build_training
from fcnlab.trial.checkpoint import CheckpointWriter
from fcnlab.trial.environment import environment
from fcnlab.trial.launch import launch
from fcnlab.trial.metrics import compute_split_metrics, nan_to_none
from fcnlab.trial.record import CheckpointChoice, Cost, EpochRecord, Failure, FailureCause, Record, SplitMetrics
from fcnlab.trial.run_folder import RunFolder, write_atomically
from fcnlab.trial.samples import NUM_SAMPLES, save_sample


class Paused(Exception):
    """The trial stopped after an epoch because it was asked to; its checkpoint says where to go on."""


def _never() -> bool:
    return False


def run_trial(
    trial: Trial,
    lab: Lab,
    *,
    pause_after: int | None = None,
    micro_batches: int = 1,
    should_pause: Callable[[], bool] = _never,
    devices: int = 1,
    sharing: int = 1,
    checkpoint_every: float = CHECKPOINT_EVERY,
) -> Record | None:
    """Run a trial to its end and return its record; one that has ended already is only read.

    A trial that another process is running is waited for, so that no trial is ever run twice at once. An exception
    of the trial becomes a failed record.

    Args:
        trial: the trial to run.
        lab: holds its run folder, its data and its weights.
        pause_after: the epoch after which to pause.
        micro_batches: how many times more micro-batches each batch is cut into than the recipe sets.
        should_pause: asked after each epoch whether to pause there.
        devices: how many devices train it together, each in a process of its own.
        sharing: how many trials share the device at the same time.
        checkpoint_every: seconds between two checkpoints; 0 writes one after each epoch.

    Returns:
        The record; None for a trial that was paused.

    Raises:
        RunError: the lab cannot be written.
        SystemExit: one of several processes was killed.
    """
    folder = RunFolder(lab.runs, trial.key)
    folder.create()
    with FileLock(folder.lock):
        ended = folder.read()
        if ended is not None:
            return ended
        write_atomically(folder.trial, lambda file: file.write(trial.model_dump_json(indent=1).encode()))
        folder.rendezvous.unlink(missing_ok=True)  # of processes that were killed
        options = _RunOptions(
            micro_batches, lambda epoch: epoch == pause_after or should_pause(), sharing, checkpoint_every
        )
        work = partial(_outcome, trial, lab, folder, options, devices)
        record = work(0) if devices == 1 else launch(devices, work)
        if record is not None:
            folder.finish(record)
    return record


def _outcome(
    trial: Trial,
    lab: Lab,
    folder: RunFolder,
    options: _RunOptions,
    devices: int,
    rank: int,
) -> Record | None:
    """What comes of a trial in one of the processes that run it: its record, or that of a failure.

    None where it was paused, and where another process, that of rank 0, has the record.
    """
    try:
        group = join_process_group(rank, devices, folder.rendezvous)
        run = _Run(trial, lab, folder, options, group)
        run.train()
        return run.record() if group.is_main else None
    except Paused:
        return None
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what the trial has to say
        cause = classify_error(error)
        if cause == "out_of_memory":
            release_resident_splits()  # decoded splits of earlier trials of this process
        return failed(trial, cause, error)


def _last_weights(lab: Lab, key: str) -> dict[str, Tensor]:
    """The weights that a finished trial ended with.

    Raises:
        ModelError: it has failed, or its weights are no longer there.
    """
    folder = RunFolder(lab.runs, key)
    record = folder.read()
    if record is None or record.status != "finished":
        raise ModelError(f"the trial that this one starts from has not finished: {folder.path}")
    return read_state(folder.weights)


def classify_error(error: Exception) -> FailureCause:
    """Why a trial failed, as far as the error tells."""
    if isinstance(error, DivergenceError):
        return "diverged"
    return "out_of_memory" if hardware.is_out_of_memory(error) else "exception"


def failed(trial: Trial, cause: FailureCause, error: Exception) -> Record:
    """The record of a trial that ended with an error."""
    trace = "".join(traceback.format_exception(error)) if error.__traceback__ else ""
    message = str(error) or type(error).__name__
    failure = Failure(cause=cause, message=message, traceback=trace)
    return Record.create(trial, "failed", failure=failure)


class _RunOptions(NamedTuple):
    """How a trial is run; nothing of it changes what is trained.

    Attributes:
        micro_batches: how many times more micro-batches each batch is cut into than the recipe sets.
        pause: asked after an epoch, by its number, whether to pause there; in a group that of rank 0 decides.
        sharing: how many trials share the device at the same time.
        checkpoint_every: seconds between two checkpoints.
    """

    micro_batches: int
    pause: Callable[[int], bool]
    sharing: int
    checkpoint_every: float


class _Counted(NamedTuple):
    """Counts [N, C, 3] of a split's images, and of their boundaries."""

    counts: confusion.Counts
    edges: confusion.Counts


class _Run:
    """A trial under way: the model, what trains it, and what has come of it so far.

    In a group of processes all train; rank 0 alone scores and writes.
    """

    def __init__(self, trial: Trial, lab: Lab, folder: RunFolder, options: _RunOptions, group: ProcessGroup) -> None:
        self.trial = trial
        self.options = options
        self.group = group
        self.folder = folder
        self.device = hardware.select_device(group.rank)
        self.precision = hardware.resolve_precision(trial.recipe.precision, self.device)
        self.autocast: Callable[[], AbstractContextManager[object]] = hardware.create_autocast(
            self.device, self.precision
        )
        self.scaler = hardware.create_grad_scaler(self.device, self.precision)
        self.repeatable = hardware.configure_determinism(self.device, deterministic=trial.recipe.deterministic)
        hardware.reset_peak_memory(self.device)
        self.dataset = lab.open_dataset(trial.dataset)
        self.classes = len(self.dataset.classes)
        self.model = self._build(lab)
        self.scored: FCN = self.model  # or the moving average of its weights
        self.epochs: list[EpochRecord] = []
        self.best: tuple[float, int] = (-1.0, 0)  # mIoU on val and the epoch that has it
        self.best_state: dict[str, Tensor] = {}
        self.last_val: _Counted | None = None  # what the last epoch's validation gave
        self.evaluate_seconds = 0.0

    def _build(self, lab: Lab) -> FCN:
        variant = self.trial.variant
        model = build_model(variant, self.classes, self.trial.seed, lab.find_weights_file(variant.backbone))
        if self.trial.init_from is not None:
            take_over(model, _last_weights(lab, self.trial.init_from))
        # What is drawn while training (dropout) has a stream of its own, whatever the initialisation drew.
        torch.manual_seed(derive_seed(self.trial.seed, "training"))
        return model.to(self.device).to(memory_format=torch.channels_last)

    def train(self) -> None:
        """Train what is left to train.

        Raises:
            Paused: before that.
        """
        trial = self.trial
        training = build_training(
            trial.recipe,
            self.model,
            self.dataset,
            trial.dataset.splits.train,
            trial.seed,
            self.device,
            self.group,
            self.options.sharing,
        )
        self.scored = training.averaged or self.model
        self._resume(training)
        if self.group.is_main:
            self.folder.write_progress(self.epochs)
        self._draw_apart(len(self.epochs))
        with CheckpointWriter(self.folder.checkpoint, self.options.checkpoint_every) as checkpoints:
            fit(
                self.model,
                training.batches,
                epochs=trial.recipe.epochs,
                start_epoch=len(self.epochs),
                loss=training.loss,
                optimizer=training.optimizer,
                schedule=training.schedule,
                autocast=self.autocast,
                on_epoch_end=lambda epoch: self._after_epoch(epoch, training, checkpoints),
                grad_accum_steps=trial.recipe.grad_accum_steps * self.options.micro_batches,
                grad_clip_norm=trial.recipe.grad_clip_norm,
                average=training.average,
                group=self.group,
                scaler=self.scaler,
                capturable=training.capturable,
                compiled=trial.recipe.compile and self.device.type == "cuda",
            )
            checkpoints.wait()

    def record(self) -> Record:
        """Score what has been trained, and give the record."""
        scores = self._score()
        return Record.create(
            self.trial,
            "finished",
            classes=self.dataset.classes,
            epochs=tuple(self.epochs),
            metrics=tuple(scores),
            cost=self._cost(),
            environment=environment(
                self.device,
                self.precision,
                repeatable=self.repeatable,
                devices=self.group.size,
                sharing=self.options.sharing,
            ),
            micro_batches=self.options.micro_batches,
        )

    def _draw_apart(self, epoch: int) -> None:
        """Let a process beside rank 0 draw otherwise than that one, also after an interruption."""
        if not self.group.is_main:
            torch.manual_seed(derive_seed(self.trial.seed, "training", self.group.rank, epoch))

    def _after_epoch(self, epoch: Epoch, training: Training, checkpoints: CheckpointWriter) -> None:
        if self.group.is_main:
            self._note(epoch)
        paused = epoch.epoch < self.trial.recipe.epochs and self.options.pause(epoch.epoch)
        if self.group.is_main:
            if paused or checkpoints.due:
                checkpoints.save(self._state(training))
            if paused:
                checkpoints.wait()
            self.folder.write_progress(self.epochs)
        if self.group.broadcast(paused):
            raise Paused
        self._draw_apart(epoch.epoch)

    def _note(self, epoch: Epoch) -> None:
        """Score where it is due, and add the epoch to those that are done."""
        recipe = self.trial.recipe
        due = epoch.epoch % recipe.validate_every == 0 or epoch.epoch == recipe.epochs
        val = confusion.compute_metrics(self._validate(last=epoch.epoch == recipe.epochs)) if due else None
        if val is not None and val.miou > self.best[0]:
            self.best = (val.miou, epoch.epoch)
            self.best_state = {name: value.cpu().clone() for name, value in self.scored.state_dict().items()}
        self.epochs.append(
            EpochRecord(
                epoch=epoch.epoch,
                loss=epoch.loss,
                lr=epoch.lr,
                images_per_s=epoch.images / epoch.seconds,
                seconds=epoch.seconds,
                val_miou=nan_to_none(val.miou) if val else None,
                val_pixel_acc=nan_to_none(val.pixel_acc) if val else None,
            )
        )

    def _validate(self, *, last: bool) -> confusion.Counts:
        """Count val as the network is now; all that is kept of the last epoch is counted with it, in the same pass."""
        if not last:
            return self._counts(self._val).areas
        self.last_val = self._counted("val", "last", self._val)
        return self.last_val.counts

    @cached_property
    def _val(self) -> DecodedSplit:
        return self._opened(self.trial.dataset.splits.val)

    def _opened(self, split: str) -> DecodedSplit:
        """Open a split on the device."""
        return open_decoded(self.dataset, split).to(self.device, sharing=self.options.sharing)

    def _counts(
        self, split: DecodedSplit, *, boundaries: bool = False, on_prediction: OnPrediction | None = None
    ) -> SplitCounts:
        began = time.perf_counter()
        backbone = self.scored.backbone
        counts = evaluate_split(
            self.scored,
            split,
            classes=self.classes,
            mean=backbone.mean,
            std=backbone.std,
            device=self.device,
            autocast=self.autocast,
            boundaries=boundaries,
            on_prediction=on_prediction,
            prediction_indices=range(NUM_SAMPLES),
            protocol=Protocol(scales=(self.trial.recipe.score_scale,)),
        )
        self.evaluate_seconds += time.perf_counter() - began
        return counts

    def _state(self, training: Training) -> dict[str, Any]:
        """Return all that `_resume` needs to go on as if nothing had happened."""
        average, on_gpu = training.average, self.device.type == "cuda"
        return {
            "key": self.trial.key,
            "model": self.model.state_dict(),
            "optimizer": training.optimizer.state_dict(),
            "average": average.state_dict() if average is not None else None,
            "scaler": self.scaler.state_dict() if self.scaler is not None else None,
            "random": torch.random.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state(self.device) if on_gpu else None,
            "epochs": [epoch.model_dump() for epoch in self.epochs],
            "best": self.best,
            "best_state": self.best_state,
            "evaluate_seconds": self.evaluate_seconds,
        }

    def _resume(self, training: Training) -> None:
        if not self.folder.checkpoint.exists():
            return
        state = torch.load(self.folder.checkpoint, map_location="cpu", weights_only=True)
        self.model.load_state_dict(state["model"])
        training.optimizer.load_state_dict(state["optimizer"])
        if training.average is not None:
            training.average.load_state_dict(state["average"])
        if self.scaler is not None and state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])
        torch.random.set_rng_state(state["random"])
        if self.device.type == "cuda" and state.get("cuda_random") is not None:
            torch.cuda.set_rng_state(state["cuda_random"], self.device)
        self.epochs = [EpochRecord.model_validate(epoch) for epoch in state["epochs"]]
        self.best, self.best_state = tuple(state["best"]), state["best_state"]
        self.evaluate_seconds = state["evaluate_seconds"]

    def _score(self) -> list[SplitMetrics]:
        """Score val, and test where there is one, at the last epoch and at the one that was best on val."""
        splits = self.trial.dataset.splits
        opened: dict[Literal["val", "test"], DecodedSplit] = {"val": self._val}
        if splits.test is not None:
            opened["test"] = self._opened(splits.test)
        last = self.trial.recipe.epochs
        scores: list[SplitMetrics] = []
        counted = {} if self.last_val is None else {"val_last": self.last_val}
        save_file(_contiguous(self.scored.state_dict()), self.folder.weights)
        choices: tuple[tuple[CheckpointChoice, int], ...] = (("last", last), ("best", self.best[1]))
        for checkpoint, epoch in choices:
            if checkpoint == "best" and epoch != last:
                self.scored.load_state_dict(self.best_state)
                save_file(_contiguous(self.best_state), self.folder.best_weights)
            for name, split in opened.items():
                there = counted.get(f"{name}_last") if epoch == last else None
                found = counted[f"{name}_{checkpoint}"] = there or self._counted(name, checkpoint, split)
                scores.append(compute_split_metrics(name, checkpoint, epoch, found.counts, found.edges))
        arrays: dict[str, Any] = {name: found.counts for name, found in counted.items()}
        arrays |= {f"{name}_boundary": found.edges for name, found in counted.items()}
        arrays |= {f"{name}_ids": np.array(split.ids) for name, split in opened.items()}
        write_atomically(self.folder.counts, lambda file: np.savez_compressed(file, **arrays))
        return scores

    def _counted(self, name: str, checkpoint: CheckpointChoice, split: DecodedSplit) -> _Counted:
        """Count a split and its boundaries, and keep the first predictions of the one that is reported."""
        keep = self._sampler(split) if (name, checkpoint) == (self.trial.report_split, "last") else None
        counts = self._counts(split, boundaries=True, on_prediction=keep)
        assert counts.boundaries is not None, "they were asked for"
        return _Counted(counts.areas, counts.boundaries)

    def _sampler(self, split: DecodedSplit) -> OnPrediction:
        """Return a function that stores a prediction of the reported split as a picture."""

        def keep(index: int, prediction: Tensor) -> None:
            save_sample(self.folder.samples, split.ids[index], split[index], prediction)

        return keep

    def _cost(self) -> Cost:
        nominal, scale = self.trial.dataset.nominal, self.trial.recipe.score_scale
        size = (round(scale * nominal.height), round(scale * nominal.width))
        seconds = sum(epoch.seconds for epoch in self.epochs)
        return Cost(
            params=cost.count_parameters(self.model),
            trainable_params=cost.count_parameters(self.model, trainable=True),
            gmacs=cost.count_gmacs(self.model, size),
            gmacs_size=size,
            train_seconds=seconds,
            evaluate_seconds=self.evaluate_seconds,
            images_per_s=sum(epoch.images_per_s * epoch.seconds for epoch in self.epochs) / seconds,
            peak_memory=hardware.get_peak_memory(self.device),
        )


def _contiguous(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Safetensors stores no channels-last layout."""
    return {name: value.contiguous() for name, value in state.items()}
