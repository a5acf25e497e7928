"""Training of one trial: it builds the model, resumes from a checkpoint, fits and evaluates."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

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
from fcnlab.redaction import get_logger
from fcnlab.seeding import derive_seed
from fcnlab.training import cost, hardware
from fcnlab.training.distributed import ProcessGroup
from fcnlab.training.fit import Epoch, Execution, Training, fit
from fcnlab.training.protocol import scale_size
from fcnlab.training.system_metrics import SystemMonitor
from fcnlab.trial.build import build_model, build_training
from fcnlab.trial.checkpoint import CheckpointWriter, capture_state, restore_state
from fcnlab.trial.environment import describe_environment
from fcnlab.trial.evaluation.evaluator import Evaluator
from fcnlab.trial.evaluation.metrics import nan_to_none
from fcnlab.trial.heartbeat import Heartbeat
from fcnlab.trial.plateau import find_plateau
from fcnlab.trial.record import Cost, EpochRecord, Plateau, Record
from fcnlab.trial.run_folder import RunFolder
from fcnlab.trial.settings import TrialSettings


class Paused(Exception):
    """Raised after an epoch at which a trial is paused. Its checkpoint is written."""


class _Plateaued(Exception):
    """Raised after the epoch at which a trial stops before its last one."""


class Trainer:
    """Trains and evaluates one trial.

    In a process group all ranks train, and rank 0 evaluates and writes files.
    """

    def __init__(
        self,
        trial: Trial,
        lab: Lab,
        folder: RunFolder,
        settings: TrialSettings,
        should_pause: Callable[[], bool],
        group: ProcessGroup,
    ) -> None:
        """Prepare the training of a trial.

        Args:
            trial: the trial.
            lab: lab with its dataset and its weights.
            folder: run folder of the trial.
            settings: settings of this start.
            should_pause: function that is called after each epoch and returns whether to pause; in a process group
                rank 0 calls it. Further ranks must not: a pause is a message that one of them would receive.
            group: process group of the trial.

        Raises:
            DataError: the dataset cannot be read.
            ModelError: the model cannot be built.
        """
        recipe = trial.recipe
        self.trial, self.settings, self._should_pause = trial, settings, should_pause
        self._lab, self._folder, self._group = lab, folder, group
        self._heartbeat = Heartbeat(folder.heartbeat if group.is_main else None)
        self._heartbeat.enter("building the network")
        self._device = hardware.select_device(group.rank)
        self._precision = hardware.resolve_precision(recipe.precision, self._device)
        if recipe.precision == "auto" and self._precision != "fp32" and group.is_main:
            get_logger("fcnlab").warning(f"precision {self._precision}, selected by precision: auto")
        self._execution = Execution(
            hardware.create_autocast(self._device, self._precision),
            hardware.create_grad_scaler(self._device, self._precision),
            grad_accum_steps=recipe.grad_accum_steps * settings.micro_batches,
            group=group,
            compiled=recipe.compile and self._device.type == "cuda",
        )
        self._repeatable = hardware.configure_determinism(self._device, deterministic=recipe.deterministic)
        hardware.reset_peak_memory(self._device)
        lab.check_inputs(trial)
        self._dataset = lab.open_dataset(trial.dataset)
        self._model = self._build_model()
        self._evaluated_model = self._model  # replaced by the averaged model if there is one
        self._evaluator = Evaluator(
            trial,
            self._dataset,
            folder,
            device=self._device,
            autocast=self._execution.autocast,
            trials_per_device=settings.trials_per_device,
            heartbeat=self._heartbeat,
        )
        self._monitor = SystemMonitor(self._device)
        self._epochs: list[EpochRecord] = []
        self._best_miou, self._best_epoch = -1.0, 0  # on val; epoch 0 means that there is none yet
        self._best_state: dict[str, Tensor] = {}

    def train(self) -> None:
        """Train the remaining epochs.

        Raises:
            DataError: a file of the dataset is missing or invalid.
            Paused: the trial is paused after an epoch.
        """
        self._evaluator.check_splits()
        training = build_training(
            self.trial.recipe,
            self._model,
            self._dataset,
            split=self.trial.dataset.splits.train,
            seed=self.trial.seed,
            group=self._group,
            trials_per_device=self.settings.trials_per_device,
            extensions=self._lab.extensions,
            progress=self._heartbeat.start_reading,
        )
        self._evaluated_model = training.averaged or self._model
        self._resume(training)
        if self._group.is_main:
            self._folder.write_progress(self._epochs)
        if self._find_plateau() is not None:  # interrupted in the last evaluation
            return
        finished = len(self._epochs)
        self._seed_rank(finished)
        self._heartbeat.enter(f"training epoch {finished + 1}")
        files = self._folder.checkpoint, self._folder.previous_checkpoint
        with CheckpointWriter(*files, self.settings.checkpoint_every) as checkpoints, suppress(_Plateaued):
            fit(
                self._model,
                training,
                self._execution,
                epochs=self.trial.recipe.epochs,
                start_epoch=finished,
                on_epoch_end=lambda epoch: self._finish_epoch(epoch, training, checkpoints),
                on_step=self._heartbeat.beat,
                log_every=self.settings.log_every,
            )
        checkpoints.wait()

    def create_record(self) -> Record:
        """Evaluate the trained model and return the record of the trial.

        Raises:
            StopRunError: the inputs of the trial have changed since it was planned.
            DivergenceError: the trained weights are not finite.
        """
        self._heartbeat.enter("evaluating")
        last_epoch = self._epochs[-1].epoch
        metrics = self._evaluator.evaluate_checkpoints(
            self._evaluated_model,
            last_epoch=last_epoch,
            best_epoch=self._best_epoch or last_epoch,  # no epoch is best if val has no labeled pixel, so no mIoU
            best_state=self._best_state,
        )
        self._lab.check_inputs(self.trial)  # files may have changed while they were read
        return Record.create(
            self.trial,
            "finished",
            classes=self._dataset.classes,
            epochs=tuple(self._epochs),
            metrics=tuple(metrics),
            cost=self._compute_cost(),
            environment=describe_environment(
                self._device,
                self._precision,
                repeatable=self._repeatable,
                devices=self._group.size,
                trials_per_device=self.settings.trials_per_device,
                transforms=self.trial.recipe.transform is not None,
            ),
            micro_batches=self.settings.micro_batches,
            plateau=self._find_plateau(),
        )

    def _build_model(self) -> FCN:
        trial, lab = self.trial, self._lab
        model = build_model(
            trial.variant,
            len(self._dataset.classes),
            trial.seed,
            weights_file=lab.find_weights_file(trial.variant.backbone),
            extensions=lab.extensions,
            in_channels=trial.dataset.image_channels,
        )
        if trial.init_from is not None:
            load_matching_weights(model, _read_last_weights(lab, trial.init_from))
        # Random numbers of training (dropout) must not depend on how many the initialization has used.
        torch.manual_seed(derive_seed(trial.seed, "training"))
        return hardware.move_to_device(model, self._device)

    def _seed_rank(self, epoch: int) -> None:
        """Give each further rank random numbers of its own, also after an interruption."""
        if not self._group.is_main:
            torch.manual_seed(derive_seed(self.trial.seed, "training", self._group.rank, epoch))

    def _finish_epoch(self, epoch: Epoch, training: Training, checkpoints: CheckpointWriter) -> None:
        """Validate, record and save an epoch, and end the training if the trial has plateaued or is to pause."""
        recipe = self.trial.recipe
        if self._group.is_main:
            self._record_epoch(epoch)
        is_last = epoch.epoch == recipe.epochs
        has_plateaued = False
        if recipe.stop_on_plateau is not None and not is_last:
            has_plateaued = self._group.broadcast(self._find_plateau() is not None)
        pauses = False
        if self._group.is_main:
            is_planned = epoch.epoch == self.settings.pause_after
            pauses = not is_last and not has_plateaued and (is_planned or self._should_pause())
            self._write_epoch(epoch.epoch, training, checkpoints, pauses=pauses)
        if has_plateaued:
            raise _Plateaued
        if self._group.broadcast(pauses):
            raise Paused
        self._heartbeat.enter(f"training epoch {epoch.epoch + 1}" if not is_last else "writing the checkpoint")
        self._seed_rank(epoch.epoch)

    def _write_epoch(self, epoch: int, training: Training, checkpoints: CheckpointWriter, *, pauses: bool) -> None:
        """Write the progress, and a checkpoint if one is due; a pause waits until it is on the disk."""
        self._heartbeat.enter(f"writing epoch {epoch}")
        if pauses or checkpoints.due:
            if not training.from_cache:
                self._lab.check_inputs(self.trial)  # a checkpoint must not contain what was learned from other data
            checkpoints.save(self._capture_state(training))
        if pauses:
            checkpoints.wait()
        self._folder.write_progress(self._epochs)

    def _find_plateau(self) -> Plateau | None:
        """Return the reason for stopping before the last epoch, or None. Only rank 0 returns a value between epochs."""
        plateau = find_plateau(self.trial.recipe.stop_on_plateau, self._epochs)
        return plateau if plateau is not None and plateau.epoch < self.trial.recipe.epochs else None

    def _record_epoch(self, epoch: Epoch) -> None:
        """Validate if it is due, and add the epoch to the finished ones."""
        recipe, model = self.trial.recipe, self._evaluated_model
        system = self._monitor.sample()  # before the validation, whose use of the machine differs
        is_last = epoch.epoch == recipe.epochs
        due = epoch.epoch % recipe.validate_every == 0 or is_last
        counts = self._evaluator.validate(model, is_last=is_last) if due else None
        val = compute_metrics(counts) if counts is not None else None
        if val is not None and val.miou > self._best_miou:
            self._best_miou, self._best_epoch = val.miou, epoch.epoch
            self._best_state = {name: value.cpu().clone() for name, value in model.state_dict().items()}
        self._epochs.append(
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
        return capture_state(self._model, training, self._execution.scaler) | {
            "epochs": [epoch.model_dump() for epoch in self._epochs],
            "best": (self._best_miou, self._best_epoch),
            "best_state": self._best_state,
            "evaluate_seconds": self._evaluator.seconds,
        }

    def _resume(self, training: Training) -> None:
        """Continue from the newest checkpoint, if there is one."""
        candidates = (self._folder.checkpoint, self._folder.previous_checkpoint)
        checkpoint = next((file for file in candidates if exists(file)), None)  # damaged ones are in the quarantine
        if checkpoint is None:
            return
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        restore_state(state, self._model, training, self._execution.scaler)
        self._epochs = [EpochRecord.model_validate(epoch) for epoch in state["epochs"]]
        (self._best_miou, self._best_epoch), self._best_state = state["best"], state["best_state"]
        self._evaluator.seconds = state["evaluate_seconds"]

    def _compute_cost(self) -> Cost:
        nominal, scale = self.trial.dataset.nominal, self.trial.recipe.score_scale
        size = scale_size((nominal.height, nominal.width), scale)
        seconds = sum(epoch.seconds for epoch in self._epochs)
        return Cost(
            params=cost.count_parameters(self._model),
            trainable_params=cost.count_parameters(self._model, trainable=True),
            gmacs=cost.try_count_gmacs(self._model, size),
            gmacs_size=size,
            train_seconds=seconds,
            evaluate_seconds=self._evaluator.seconds,
            images_per_s=sum(epoch.images_per_s * epoch.seconds for epoch in self._epochs) / seconds,
            peak_memory=hardware.get_peak_memory(self._device),
        )


def _read_last_weights(lab: Lab, key: str) -> dict[str, Tensor]:
    """Read the last weights of a finished trial."""
    folder = RunFolder(lab.find_runs(key), key)
    record = folder.read()
    if record is None or record.status != "finished":
        raise ModelError(f"init_from: the trial {folder.path} has not finished")
    folder.verify_file(folder.weights)
    return read_tensors(folder.weights)
