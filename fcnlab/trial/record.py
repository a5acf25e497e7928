"""Everything that one trial produced: the content of `runs/<key>/record.json`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict

from fcnlab.config.trial import Trial
from fcnlab.constants import CheckpointChoice, Precision
from fcnlab.redaction import clean_text

FailureCause = Literal["exception", "diverged", "lost", "out_of_memory"]


CleanText = Annotated[str, AfterValidator(clean_text)]
"""A text from libraries or the machine, which loses secrets and control characters when it is recorded."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")


class EpochRecord(_Frozen):
    """Measurements of one epoch.

    Attributes:
        epoch: number of the epoch, from 1.
        loss: mean training loss over the steps.
        lr: learning rate of the last step.
        images_per_s: training throughput.
        seconds: training time, without validation.
        val_miou: mIoU on val, a fraction of 1; None if the epoch was not validated.
        val_pixel_acc: pixel accuracy on val, a fraction of 1; None if the epoch was not validated.
        step_losses: number of a step, from 1 over all epochs, and its loss, if they were logged (`--log-every`).
        system: utilization of the machine during the epoch; see `SystemMonitor.sample`.
    """

    epoch: int
    loss: float
    lr: float
    images_per_s: float
    seconds: float
    val_miou: float | None = None
    val_pixel_acc: float | None = None
    step_losses: tuple[tuple[int, float], ...] = ()
    system: dict[str, float] = {}


class SplitMetrics(_Frozen):
    """Metrics of one split at one checkpoint, as fractions of 1; None if no pixel counts.

    Attributes:
        split: `val` or `test`, the role of the split; the split's own name if it has no role.
        checkpoint: the evaluated checkpoint, `last` or `best`.
        epoch: the epoch of these weights.
        images: number of images of the split.
        miou: mean IoU over the classes that are labeled in the split.
        pixel_acc: pixel accuracy.
        mean_acc: mean accuracy over the same classes.
        fw_iou: frequency-weighted IoU.
        class_iou: IoU of each class; None for a class without a labeled pixel.
        boundary_iou: mean boundary IoU over the same classes.
    """

    split: str
    checkpoint: CheckpointChoice
    epoch: int
    images: int
    miou: float | None
    pixel_acc: float | None
    mean_acc: float | None
    fw_iou: float | None
    class_iou: tuple[float | None, ...]
    boundary_iou: float | None = None

    @property
    def dice(self) -> float | None:
        """Mean Dice coefficient (F1 score) over the same classes; None if no class has an IoU."""
        import numpy as np  # here, since commands that only list trials do not need it

        from fcnlab.metrics.summary import iou_to_dice, mean_over_classes

        mean = float(mean_over_classes(iou_to_dice(np.array(self.class_iou, dtype=float))))
        return None if np.isnan(mean) else mean


class Cost(_Frozen):
    """Cost of the model and of the trial.

    Attributes:
        params: number of parameters.
        trainable_params: number of parameters that are trained.
        gmacs: multiply-accumulate operations of one forward pass, in 10^9; None if the network does not accept
            `gmacs_size`.
        gmacs_size: height and width of the image for which `gmacs` is counted.
        train_seconds: wall-clock time of training.
        evaluate_seconds: wall-clock time of all evaluations.
        images_per_s: mean training throughput.
        peak_memory: peak device memory in bytes.
    """

    params: int
    trainable_params: int
    gmacs: float | None
    gmacs_size: tuple[int, int]
    train_seconds: float
    evaluate_seconds: float
    images_per_s: float
    peak_memory: int | None = None


class Environment(_Frozen):
    """Hardware and software with which a trial ran.

    Attributes:
        device: name of the device, such as `NVIDIA H200` or `AMD EPYC (2 threads)`.
        precision: precision of the forward pass.
        threads: number of CPU threads per device.
        repeatable: true if the same trial on the same machine gives the same metrics bit for bit.
        system: operating system, processor type and Python version.
        versions: version of each package that affects the metrics.
        commit: git commit of fcnlab, followed by `+` if files were modified; None outside a checkout.
        devices: number of devices that trained the trial.
        kind: type of the device.
        trials_per_device: number of trials that shared the device.
        cuda: CUDA version.
        cudnn: cuDNN version.
        driver: version of the NVIDIA driver.
    """

    device: CleanText
    precision: Precision
    threads: int
    repeatable: bool
    system: CleanText
    versions: dict[str, str]
    commit: str | None
    devices: int = 1
    kind: Literal["cpu", "cuda"] = "cpu"
    trials_per_device: int = 1
    cuda: str | None = None
    cudnn: str | None = None
    driver: str | None = None

    @property
    def hardware(self) -> str:
        """The name and number of devices, such as `NVIDIA H200` or `2 x NVIDIA H200`."""
        return self.device if self.devices == 1 else f"{self.devices} x {self.device}"


class Failure(_Frozen):
    """Reason for which a trial failed.

    Attributes:
        cause: kind of the failure.
        message: message of the exception.
        traceback: Python traceback; empty if there is none.
    """

    cause: FailureCause
    message: CleanText
    traceback: CleanText = ""


class Plateau(_Frozen):
    """Reason for which a trial stopped before its last epoch: `stop_on_plateau` of its recipe.

    Attributes:
        epoch: the epoch after which it stopped.
        best_epoch: the epoch whose mIoU on val was not exceeded afterwards.
        validations: number of validations since then.
        min_delta: points of mIoU that an improvement had to exceed.
    """

    epoch: int
    best_epoch: int
    validations: int
    min_delta: float


class Attempt(_Frozen):
    """One start of a trial that ended without a record.

    Attributes:
        cause: `lost` if the worker died, `out_of_memory` if memory ran out.
        message: description of the failure.
        epoch: number of epochs that were finished.
        micro_batches: factor by which the number of micro-batches of the recipe was raised.
        exclusive: true if no other trial used the device.
    """

    cause: Literal["lost", "out_of_memory"]
    message: CleanText
    epoch: int
    micro_batches: int = 1
    exclusive: bool = False


class Record(_Frozen):
    """Everything that one trial produced, also when it failed.

    Attributes:
        key: key of the trial.
        status: outcome of the trial.
        trial: the complete configuration as plain values. It is documentation and is not validated as a `Trial`, so
            that records stay valid when the configuration types get new fields.
        classes: class names of the dataset.
        epochs: measurements of every epoch.
        metrics: metrics of val, and of test if the dataset has it, at the last and at the best epoch.
        cost: cost of the model and of the trial; None if it failed.
        environment: hardware and software; None if the trial failed.
        failure: reason for a failure.
        micro_batches: factor by which the number of micro-batches was raised because memory ran out. The gradient is
            the same, unless the backbone or the head has batch norms in training mode: they see smaller batches.
        plateau: reason for stopping before the last epoch of the recipe; None if the trial did not.
        ended: UTC time at which the trial ended, in ISO format.
    """

    key: str
    status: Literal["finished", "failed"]
    trial: dict[str, Any]
    classes: tuple[str, ...] = ()
    epochs: tuple[EpochRecord, ...] = ()
    metrics: tuple[SplitMetrics, ...] = ()
    cost: Cost | None = None
    environment: Environment | None = None
    failure: Failure | None = None
    micro_batches: int = 1
    plateau: Plateau | None = None
    ended: str

    @classmethod
    def create(cls, trial: Trial, status: Literal["finished", "failed"], **fields: Any) -> Record:
        """Create the record of a trial that ends now.

        Args:
            trial: the trial.
            status: outcome of the trial.
            **fields: other fields of the record.

        Returns:
            The record.
        """
        ended = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(key=trial.key, status=status, trial=trial.model_dump(mode="json"), ended=ended, **fields)

    @property
    def trained_epochs(self) -> int:
        """The number of epochs after which the trial ended, unless it failed."""
        return self.plateau.epoch if self.plateau is not None else int(self.trial["recipe"]["epochs"])

    @property
    def report_split(self) -> str:
        """The role of the reported split: test, or val if the dataset has no test split."""
        return "test" if any(metrics.split == "test" for metrics in self.metrics) else "val"

    def find_metrics(self, split: str, checkpoint: str) -> SplitMetrics | None:
        """Find the metrics of a split.

        Args:
            split: role of the split, `val` or `test`.
            checkpoint: `last` or `best`.

        Returns:
            The metrics; None if the record has none of this split.
        """
        return next((m for m in self.metrics if (m.split, m.checkpoint) == (split, checkpoint)), None)
