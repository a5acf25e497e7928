"""The MLflow run of one trial: published content and remaining uploads."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

from fcnlab.config.trial import Trial
from fcnlab.paths import exists, is_folder
from fcnlab.tracking.fields import clean_tag, extract_params, extract_points, find_reported_metrics
from fcnlab.tracking.lab_id import TAG as LAB_TAG
from fcnlab.tracking.names import MAX_DATASET_NAME
from fcnlab.trial.record import EpochRecord
from fcnlab.trial.run_folder import RunFolder

if TYPE_CHECKING:
    from mlflow.entities import Metric, Param, Run
    from mlflow.tracking import MlflowClient

BATCH_SIZE = 850
"""Number of metrics per request; the limit of MLflow is 1000, together with parameters and tags."""

PARAMS_PER_REQUEST = 100
"""Number of parameters per request; this is the limit of MLflow."""

CHECKPOINT_TAG = "fcnlab.checkpoint"
"""Tag with the grid's checkpoint, at which a run has `miou` and `pixel_acc`."""

DIGEST_LENGTH = 36
"""Maximum length of the digest of a dataset in MLflow."""


@dataclass
class TrialRun:
    """State of a trial's run.

    Attributes:
        run_id: id of the run.
        artifact_uri: address of its artifacts.
        started: its start, in milliseconds since 1970.
        num_epochs: number of epochs that it has; None if the store has not been asked yet.
        restarts: number of restarts of the trial before these epochs.
        current: whether the view shows it; None if it has no such tag.
        parent: id of the grid's run, to which it belongs; None if it has no such tag.
        name: its name; empty for a run of this driver.
        cell: label of the trial's cell; empty for a run of this driver.
        seed: seed of the trial; empty for a run of this driver, or until its parameters are written.
        is_restored: true if an earlier driver created the run and may have written part of a record.
        params: names of the parameters that are written, until the record is published.
        pending_params: trial and axes, until its parameters are written.
        published: end of the record that is published.
        finished: whether the published record is of a finished trial.
        checkpoint: the grid's checkpoint, of which it has `miou` and `pixel_acc`; None for a run of this driver or of
            an earlier version of fcnlab.
        lab: id of the lab that publishes to it; None for a run of an earlier version of fcnlab.
    """

    run_id: str
    artifact_uri: str
    started: int
    num_epochs: int | None
    restarts: int = 0
    current: bool | None = None
    parent: str | None = None
    name: str = ""
    cell: str = ""
    seed: str = ""
    is_restored: bool = False
    params: frozenset[str] = frozenset()
    pending_params: tuple[Trial, Mapping[str, str]] | None = None
    published: str | None = None
    finished: bool = False
    checkpoint: str | None = None
    lab: str | None = None

    @property
    def is_finished(self) -> bool:
        """True if it has the record of a finished trial."""
        return self.published is not None and self.finished

    @classmethod
    def restore(cls, run: Run) -> TrialRun:
        """Restore the state of a run from the store."""
        tags = run.data.tags
        published = tags.get("fcnlab.published") if run.info.status in ("FINISHED", "FAILED") else None
        return cls(
            str(run.info.run_id),
            str(run.info.artifact_uri),
            int(run.info.start_time),
            num_epochs=None,
            restarts=int(tags.get("fcnlab.restarts", 0)),
            current=tags["fcnlab.current"] == "true" if "fcnlab.current" in tags else None,
            parent=tags.get("mlflow.parentRunId"),
            name=run.info.run_name or "",
            cell=tags.get("fcnlab.cell", ""),
            seed=run.data.params.get("seed", ""),
            is_restored=True,
            params=frozenset(run.data.params) if published is None else frozenset(),
            published=published,
            finished=run.info.status == "FINISHED",
            checkpoint=tags.get(CHECKPOINT_TAG),
            lab=tags.get(LAB_TAG),
        )

    def take_new_epochs(self, client: MlflowClient, epochs: Sequence[EpochRecord]) -> list[EpochRecord]:
        """Return the epochs that the run does not have, and count them as written.

        Args:
            client: client of the store.
            epochs: all epochs up to now.
        """
        if self.num_epochs is None:
            history = client.get_metric_history(self.run_id, "train/loss")
            self.num_epochs = max((point.step for point in history), default=0)
        last = self.num_epochs
        new = [epoch for epoch in epochs if epoch.epoch > last]
        self.num_epochs = max([last, *(epoch.epoch for epoch in new)])
        return new

    def log(
        self,
        client: MlflowClient,
        epochs: Sequence[EpochRecord],
        final: Mapping[str, float],
        tags: Mapping[str, str],
    ) -> None:
        """Write metrics, tags, and the parameters if they are pending.

        Args:
            client: client of the store.
            epochs: epochs that the run does not have.
            final: final metrics by name.
            tags: tags by name.
        """
        from mlflow.entities import RunTag

        run_tags = [RunTag(name, clean_tag(value)) for name, value in tags.items()]
        params = self._log_dataset(client, *self.pending_params) if self.pending_params else []
        batches = _split_metrics(epochs, final)
        for number in range(max(1, len(batches), ceil(len(params) / PARAMS_PER_REQUEST))):
            batch = batches[number] if number < len(batches) else []
            some = params[number * PARAMS_PER_REQUEST : (number + 1) * PARAMS_PER_REQUEST]
            client.log_batch(self.run_id, batch, some, run_tags if number == 0 else [])
        self.params |= {param.key for param in params}
        self.pending_params = None

    def report_checkpoint(self, client: MlflowClient, checkpoint: str) -> None:
        """Write the reported metrics at another checkpoint, which the run has under other names.

        Args:
            client: client of the store.
            checkpoint: the grid's checkpoint, `last` or `best`.
        """
        from mlflow.entities import Metric, RunTag

        data, now = client.get_run(self.run_id).data, int(time.time() * 1000)
        values = find_reported_metrics(data.metrics, data.tags.get("fcnlab.report_split", "test"), checkpoint)
        metrics = [Metric(name, value, now, 0) for name, value in values.items() if data.metrics.get(name) != value]
        client.log_batch(self.run_id, metrics=metrics, tags=[RunTag(CHECKPOINT_TAG, checkpoint)])
        self.checkpoint = checkpoint

    def _log_dataset(self, client: MlflowClient, trial: Trial, axes: Mapping[str, str]) -> list[Param]:
        """Write the dataset of a trial, and return the parameters that are not written yet."""
        from mlflow.entities import Dataset, DatasetInput, Param

        digest = trial.data.rpartition(":")[2][:DIGEST_LENGTH]
        dataset = Dataset(
            trial.names["dataset"][:MAX_DATASET_NAME], digest, "fcnlab", json.dumps({"fingerprint": trial.data})
        )
        if not self.params:
            client.log_inputs(self.run_id, [DatasetInput(dataset)])
        params = extract_params(trial, axes)
        return [Param(name, value) for name, value in params.items() if name not in self.params]


def _split_metrics(epochs: Sequence[EpochRecord], final: Mapping[str, float]) -> list[list[Metric]]:
    """Return metrics by requests; an epoch is in one request, so that a driver killed in between leaves no part of it.

    Losses of so many steps that one request cannot contain them come before the other metrics of their epoch: one that
    has `train/loss` counts as written.
    """
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    groups: list[dict[int, Mapping[str, float]]] = []
    for epoch in epochs:
        points = extract_points([epoch])
        own = points.pop(epoch.epoch)
        groups.append({**points, epoch.epoch: own})
    groups.append({0: final})  # MLflow draws metrics at step 0 as bars, and the others as curves
    batches: list[list[Metric]] = []
    for group in groups:
        metrics = [Metric(name, value, now, step) for step, values in group.items() for name, value in values.items()]
        if batches and len(batches[-1]) + len(metrics) <= BATCH_SIZE:
            batches[-1] += metrics
        else:
            batches += [metrics[start : start + BATCH_SIZE] for start in range(0, len(metrics), BATCH_SIZE)]
    return batches


def end_run(client: MlflowClient, run_id: str, started: int, status: str) -> None:
    """End a run of a trial or of a grid; never before its start, also if the clock has been set back.

    Args:
        client: client of the store.
        run_id: id of the run.
        started: start of the run, in milliseconds since 1970.
        status: its status, such as `FINISHED`.
    """
    client.set_terminated(run_id, status, max(started, int(time.time() * 1000)))


def upload_files(repository: Any, folder: RunFolder, *, samples: bool) -> list[str]:
    """Upload the files of a trial, and return the names of those that the store does not have then.

    Args:
        repository: MLflow's repository of the run's artifacts.
        folder: the run folder of the trial.
        samples: whether to upload the predictions of the first images.
    """
    files = [file for file in (folder.record, folder.counts) if exists(file)]
    for file in files:
        repository.log_artifact(str(file))
    if samples and is_folder(folder.samples) and any(folder.samples.iterdir()):
        repository.log_artifacts(str(folder.samples), folder.samples.name)
        files.append(folder.samples)
    stored = {item.path for item in repository.list_artifacts()}
    return [file.name for file in files if file.name not in stored]
