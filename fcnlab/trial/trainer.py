"""Training of one trial: it builds the model, resumes from a checkpoint, fits and evaluates."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fcnlab.config.trial import Trial
from fcnlab.errors import ModelError
from fcnlab.lab import Lab
from fcnlab.metrics.summary import compute_metrics
from fcnlab.models import FCN
from fcnlab.models.backbones.weights_file import read_tensors
from fcnlab.models.fcn import load_matching_weights
from fcnlab.paths import exists
from fcnlab.seeding import derive_seed
from fcnlab.training import cost, hardware
from fcnlab.training.distributed import ProcessGroup
from fcnlab.training.fit import Epoch, fit
from fcnlab.training.protocol import scale_size
from fcnlab.training.system_metrics import SystemMonitor
from fcnlab.trial.build import Training, build_model, build_training
from fcnlab.trial.checkpoint import CheckpointWriter, capture_state, restore_state
from fcnlab.trial.environment import describe_environment
from fcnlab.trial.evaluation.evaluator import Evaluator
from fcnlab.trial.evaluation.metrics import nan_to_none
from fcnlab.trial.heartbeat import Heartbeat
from fcnlab.trial.plateau import find_plateau
from fcnlab.trial.record import Cost, EpochRecord, Plateau, Record
from fcnlab.trial.run_folder import RunFolder


class Paused(Exception):
    """Raised after an epoch at which a trial is paused. Its checkpoint is written."""


class _Plateaued(Exception):
    """Raised after the epoch at which a trial stops before its last one."""


class RunOptions(NamedTuple):
    """Options of a run that do not change what is trained.

    Attributes:
        micro_batches: factor on the recipe's number of micro-batches.
        should_pause: function that is called with the number of each finished epoch and returns whether to pause; in a
            process group rank 0 calls it. Further ranks must not: a pause is a message that one of them would receive.
        sharing: number of trials that share the device.
        checkpoint_every: seconds between two checkpoints.
        log_every: steps between two training losses that are recorded; None records none.
    """

    micro_batches: int
    should_pause: Callable[[int], bool]
    sharing: int
    checkpoint_every: float
    log_every: int | None = None


class Trainer:
    """Trains and evaluates one trial.

    In a process group all ranks train, and rank 0 evaluates and writes files.
    """

    def __init__(self, trial: Trial, lab: Lab, folder: RunFolder, options: RunOptions, group: ProcessGroup) -> None:
        """Prepare the training of a trial.

        Args:
            trial: the trial.
            lab: lab with its dataset and its weights.
            folder: run folder of the trial.
            options: options of the run.
            group: process group of the trial.

        Raises:
            DataError: the dataset cannot be read.
            ModelError: the model cannot be built.
        """
        self.trial = trial
        self._lab = lab
        self.options = options
        self.group = group
        self.folder = folder
        self.heartbeat = Heartbeat(folder.heartbeat if group.is_main else None)
        self.heartbeat.enter("building the network")
        self.device = hardware.select_device(group.rank)
        self.precision = hardware.resolve_precision(trial.recipe.precision, self.device)
        self.autocast: Callable[[], AbstractContextManager[object]] = hardware.create_autocast(
            self.device, self.precision
        )
        self.scaler = hardware.create_grad_scaler(self.device, self.precision)
        self.repeatable = hardware.configure_determinism(self.device, deterministic=trial.recipe.deterministic)
        hardware.reset_peak_memory(self.device)
        lab.check_inputs(trial)
        self.dataset = lab.open_dataset(trial.dataset)
        self.model = self._build_model()
        self.evaluated_model: FCN = self.model
        self.evaluator = Evaluator(
            trial, self.dataset, folder, self.device, self.autocast, options.sharing, self.heartbeat
        )
        self.monitor = SystemMonitor(self.device)
        self.epochs: list[EpochRecord] = []
        self.best: tuple[float, int] = (-1.0, 0)  # mIoU on val and its epoch
        self.best_state: dict[str, Tensor] = {}

    def train(self) -> None:
        """Train the remaining epochs.

        Raises:
            DataError: a file of the dataset is missing or invalid.
            Paused: the trial is paused after an epoch.
        """
        recipe = self.trial.recipe
        self.evaluator.check_splits()
        training = build_training(
            recipe,
            self.model,
            self.dataset,
            self.trial.dataset.splits.train,
            self.trial.seed,
            self.device,
            self.group,
            self.options.sharing,
            self._lab.extensions,
            self.heartbeat.start_reading,
        )
        self.evaluated_model = training.averaged or self.model
        self._resume(training)
        if self.group.is_main:
            self.folder.write_progress(self.epochs)
        self._seed_rank(len(self.epochs))
        self.heartbeat.enter(f"training epoch {len(self.epochs) + 1}")
        if self._find_plateau() is not None:  # interrupted in the last evaluation
            return
        with (
            CheckpointWriter(
                self.folder.checkpoint, self.folder.previous_checkpoint, self.options.checkpoint_every
            ) as checkpoints,
            suppress(_Plateaued),
        ):
            fit(
                self.model,
                training.batches,
                epochs=recipe.epochs,
                start_epoch=len(self.epochs),
                loss=training.loss,
                optimizer=training.optimizer,
                schedule=training.schedule,
                autocast=self.autocast,
                on_epoch_end=lambda epoch: self._finish_epoch(epoch, training, checkpoints),
                grad_accum_steps=recipe.grad_accum_steps * self.options.micro_batches,
                grad_clip_norm=recipe.grad_clip_norm,
                average=training.average,
                group=self.group,
                scaler=self.scaler,
                capturable=training.capturable,
                compiled=recipe.compile and self.device.type == "cuda",
                log_every=self.options.log_every,
                on_step=self.heartbeat.beat,
            )
        checkpoints.wait()

    def create_record(self) -> Record:
        """Evaluate the trained model and return the record of the trial.

        Raises:
            StopRunError: the inputs of the trial have changed since it was planned.
        """
        self.heartbeat.enter("evaluating")
        last_epoch = self.epochs[-1].epoch
        best_epoch = self.best[1] or last_epoch  # no epoch is best if val has no labeled pixel, so no mIoU
        metrics = self.evaluator.evaluate_checkpoints(self.evaluated_model, last_epoch, best_epoch, self.best_state)
        self._lab.check_inputs(self.trial)  # files may have changed while they were read
        return Record.create(
            self.trial,
            "finished",
            classes=self.dataset.classes,
            epochs=tuple(self.epochs),
            metrics=tuple(metrics),
            cost=self._compute_cost(),
            environment=describe_environment(
                self.device,
                self.precision,
                repeatable=self.repeatable,
                devices=self.group.size,
                sharing=self.options.sharing,
                transforms=self.trial.recipe.transform is not None,
            ),
            micro_batches=self.options.micro_batches,
            plateau=self._find_plateau(),
        )

    def _build_model(self) -> FCN:
        lab, variant = self._lab, self.trial.variant
        weights_file = lab.find_weights_file(variant.backbone)
        num_classes, channels = len(self.dataset.classes), self.trial.dataset.image_channels
        model = build_model(variant, num_classes, self.trial.seed, weights_file, lab.extensions, channels)
        if self.trial.init_from is not None:
            load_matching_weights(model, _read_last_weights(lab, self.trial.init_from))
        # Random numbers of training (dropout) must not depend on how many the initialization has used.
        torch.manual_seed(derive_seed(self.trial.seed, "training"))
        return model.to(self.device).to(memory_format=torch.channels_last)

    def _seed_rank(self, epoch: int) -> None:
        """Give each further rank random numbers of its own, also after an interruption."""
        if not self.group.is_main:
            torch.manual_seed(derive_seed(self.trial.seed, "training", self.group.rank, epoch))

    def _finish_epoch(self, epoch: Epoch, training: Training, checkpoints: CheckpointWriter) -> None:
        if self.group.is_main:
            self._record_epoch(epoch)
        is_last = epoch.epoch == self.trial.recipe.epochs
        stops = not is_last and self.trial.recipe.stop_on_plateau is not None
        stops = stops and self.group.broadcast(self._find_plateau() is not None)
        pauses = False
        if self.group.is_main:
            pauses = not is_last and not stops and self.options.should_pause(epoch.epoch)
            self.heartbeat.enter(f"writing epoch {epoch.epoch}")
            if pauses or checkpoints.due:
                if not training.from_cache:
                    self._lab.check_inputs(self.trial)  # a checkpoint must not contain what was learned from other data
                checkpoints.save(self._capture_state(training))
            if pauses:
                checkpoints.wait()
            self.folder.write_progress(self.epochs)
        if stops:
            raise _Plateaued
        if self.group.broadcast(pauses):
            raise Paused
        self.heartbeat.enter(f"training epoch {epoch.epoch + 1}" if not is_last else "writing the checkpoint")
        self._seed_rank(epoch.epoch)

    def _find_plateau(self) -> Plateau | None:
        """Return the reason for stopping before the last epoch, or None. Only rank 0 returns a value between epochs."""
        found = find_plateau(self.trial.recipe.stop_on_plateau, self.epochs)
        return found if found is not None and found.epoch < self.trial.recipe.epochs else None

    def _record_epoch(self, epoch: Epoch) -> None:
        """Validate if it is due, and add the epoch to the finished ones."""
        recipe = self.trial.recipe
        system = self.monitor.sample()
        is_last = epoch.epoch == recipe.epochs
        due = epoch.epoch % recipe.validate_every == 0 or is_last
        val = compute_metrics(self.evaluator.validate(self.evaluated_model, is_last=is_last)) if due else None
        if val is not None and val.miou > self.best[0]:
            self.best = (val.miou, epoch.epoch)
            self.best_state = {name: value.cpu().clone() for name, value in self.evaluated_model.state_dict().items()}
        self.epochs.append(
            EpochRecord(
                epoch=epoch.epoch,
                loss=epoch.loss,
                lr=epoch.lr,
                images_per_s=epoch.images / epoch.seconds,
                seconds=epoch.seconds,
                val_miou=nan_to_none(val.miou) if val else None,
                val_pixel_acc=nan_to_none(val.pixel_acc) if val else None,
                step_losses=epoch.step_losses,
                system=system,
            )
        )

    def _capture_state(self, training: Training) -> dict[str, Any]:
        return capture_state(self.model, training, self.scaler, self.device) | {
            "key": self.trial.key,
            "epochs": [epoch.model_dump() for epoch in self.epochs],
            "best": self.best,
            "best_state": self.best_state,
            "evaluate_seconds": self.evaluator.seconds,
        }

    def _resume(self, training: Training) -> None:
        candidates = (self.folder.checkpoint, self.folder.previous_checkpoint)
        checkpoint = next((file for file in candidates if exists(file)), None)  # damaged ones are in the quarantine
        if checkpoint is None:
            return
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        restore_state(state, self.model, training, self.scaler, self.device)
        self.epochs = [EpochRecord.model_validate(epoch) for epoch in state["epochs"]]
        self.best, self.best_state = tuple(state["best"]), state["best_state"]
        self.evaluator.seconds = state["evaluate_seconds"]

    def _compute_cost(self) -> Cost:
        nominal, scale = self.trial.dataset.nominal, self.trial.recipe.score_scale
        size = scale_size((nominal.height, nominal.width), scale)
        seconds = sum(epoch.seconds for epoch in self.epochs)
        return Cost(
            params=cost.count_parameters(self.model),
            trainable_params=cost.count_parameters(self.model, trainable=True),
            gmacs=cost.try_count_gmacs(self.model, size),
            gmacs_size=size,
            train_seconds=seconds,
            evaluate_seconds=self.evaluator.seconds,
            images_per_s=sum(epoch.images_per_s * epoch.seconds for epoch in self.epochs) / seconds,
            peak_memory=hardware.get_peak_memory(self.device),
        )


def _read_last_weights(lab: Lab, key: str) -> dict[str, Tensor]:
    """Read the last weights of a finished trial."""
    folder = RunFolder(lab.runs, key)
    record = folder.read()
    if record is None or record.status != "finished":
        raise ModelError(f"init_from: the trial {folder.path} has not finished")
    folder.verify_file(folder.weights)
    return read_tensors(folder.weights)
