"""MLflow, the book that people and reports read. The only module that imports mlflow.

One experiment a grid; in it one parent run for the grid and one child a trial. Only the driver writes. Each record is
published exactly once: a child carries the time its record ended at in the tag `fcnlab.published`, its status says last
of all that everything is there, and what an interrupted publication has written already is not written again.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import logging
import os
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from fcnlab.config.trial import Trial
from fcnlab.errors import TrackingError
from fcnlab.tracking import mlflow_view
from fcnlab.trial.record import EpochRecord, Record
from fcnlab.trial.run_folder import RunFolder

for _variable, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # a lab reports to its own book alone
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # a server that is away must not stop a grid
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # what a grid says there may be read by a machine
}.items():
    os.environ.setdefault(_variable, _value)

if TYPE_CHECKING:
    from mlflow.entities import Param, Run
    from mlflow.tracking import MlflowClient
    from torch import nn

BATCH = 900
"""Metrics that one request carries; MLflow's limit is 1000."""

COST_METRICS = (
    "params",
    "trainable_params",
    "gmacs",
    "train_seconds",
    "evaluate_seconds",
    "images_per_s",
    "peak_memory",
)
"""What of a record's cost is a metric."""

MODEL = "model"
"""The name of a trial's model among the artifacts of its run."""

DIGEST = 36
"""Characters that MLflow takes for the digest of a dataset."""


def is_installed() -> bool:
    """Return whether mlflow can be imported, without importing it."""
    return importlib.util.find_spec("mlflow") is not None


def extract_metrics(record: Record, select: str) -> dict[str, float]:
    """The figures of a record by their names in MLflow.

    `miou` and `pixel_acc` are what the grid reports: on its reported split, at the epoch it selects. Beside them stand
    `val_miou`, `test_miou` and so on at the last epoch, and `..._best` at the epoch that was best on val.
    """
    found: dict[str, float | None] = {}
    for score in record.metrics:
        suffix = "_best" if score.checkpoint == "best" else ""
        for figure in ("miou", "pixel_acc", "mean_acc", "fw_iou"):
            found[f"{score.split}_{figure}{suffix}"] = getattr(score, figure)
        if score.checkpoint == "best":
            found["best_epoch"] = score.epoch
    reported = record.find_metrics(record.report_split, select)
    if reported is not None:
        found |= {"miou": reported.miou, "pixel_acc": reported.pixel_acc}
    if record.cost is not None:
        found |= {name: getattr(record.cost, name) for name in COST_METRICS}
    return {name: float(value) for name, value in found.items() if value is not None}


def extract_tags(record: Record) -> dict[str, str]:
    """Where and with what the trial ran, and why it failed if it did."""
    tags = {"fcnlab.report_split": record.report_split}
    if record.environment is not None:
        environment = record.environment
        versions = " ".join(f"{name} {version}" for name, version in environment.versions.items())
        tags |= {
            "fcnlab.device": environment.hardware,
            "fcnlab.precision": environment.precision,
            "fcnlab.threads": str(environment.threads),
            "fcnlab.devices": str(environment.devices),
            "fcnlab.sharing": str(environment.sharing),
            "fcnlab.system": environment.system,
            "fcnlab.versions": versions,
            "fcnlab.data": str(record.trial["data"]),
        }
        if environment.commit:
            tags["mlflow.source.git.commit"] = environment.commit
    if record.failure is not None:
        tags |= {"fcnlab.failure": record.failure.message, "fcnlab.cause": record.failure.cause}
    return tags


class MlflowTracker:
    """The experiment of one grid in an MLflow store."""

    def __init__(self, uri: str, name: str, artifacts: Path | None = None) -> None:
        """Open the store and the experiment `name`, both made where they are not there yet.

        `artifacts` is where a local store keeps its files.

        Raises:
            TrackingError: MLflow is not installed, or the store cannot be reached or made.
        """
        if not is_installed():
            raise TrackingError("MLflow is not installed; install it with: pip install mlflow")
        with _reaching(uri):
            self._client = _open_store(uri)
            self._experiment = _experiment(self._client, f"fcnlab/{name}", uri, artifacts)
            self._uri = uri
            self._name = name
            self._runs = {run.data.tags["fcnlab.key"]: _known(run) for run in reversed(self._children())}

    def _children(self) -> list[Run]:
        """The runs of trials, newest first, without those that a retry has replaced."""
        return self._search("tags.`fcnlab.role` = 'trial' and tags.`fcnlab.superseded` = 'false'")

    def _search(self, where: str) -> list[Run]:
        found: list[Run] = []
        token = None
        while True:
            page = self._client.search_runs([self._experiment], where, max_results=1000, page_token=token)
            found += page
            token = page.token
            if not token:
                return found

    def runs(self) -> list[dict[str, Any]]:
        """Every trial of the experiment as plain values: run_id, status, params, metrics, tags."""
        with _reaching(self._uri):
            return [
                {
                    "run_id": run.info.run_id,
                    "status": run.info.status,
                    "params": dict(run.data.params),
                    "metrics": dict(run.data.metrics),
                    "tags": dict(run.data.tags),
                }
                for run in self._children()
            ]

    @property
    def experiment(self) -> str:
        """The id of the experiment."""
        return self._experiment

    def show(self, keys: Collection[str]) -> None:
        """Have the saved view of the experiment show the trials with these keys, which are the grid's as it is now."""
        with _reaching(self._uri):
            self._client.set_experiment_tag(self._experiment, mlflow_view.TAG, mlflow_view.state())
            for key, run in self._runs.items():
                if run.current != (key in keys):
                    run.current = key in keys
                    self._client.set_tag(run.run_id, "fcnlab.current", str(run.current).lower())

    def parent(self, question: str) -> str:
        """The id of the grid's own run, made on first use."""
        with _reaching(self._uri):
            found = self._search("tags.`fcnlab.role` = 'grid'")
            if found:
                return str(found[0].info.run_id)
            tags = {"fcnlab.role": "grid", "mlflow.runName": self._name, "mlflow.note.content": question}
            return str(self._client.create_run(self._experiment, tags=tags).info.run_id)

    def is_published(self, record: Record) -> bool:
        """Whether the book has this record, or a finished one of the same trial that another lab has published."""
        run = self._runs.get(record.key)
        return run is not None and run.published is not None and (run.published == record.ended or run.finished)

    def begin(self, trial: Trial, label: str, axes: Mapping[str, str], parent: str, since: float) -> str:
        """The id of the trial's run, RUNNING `since` a time; the one that an interrupted driver left is taken up again.

        What the trial is, is written with the first figures of it.
        """
        with _reaching(self._uri):
            run = self._runs.get(trial.key)
            if run is not None and run.published is not None:
                self._client.set_tag(run.run_id, "fcnlab.superseded", "true")
                run = None
            if run is None:
                run = self._runs[trial.key] = self._make_run(trial, label, parent, since)
            else:
                self._client.update_run(run.run_id, status="RUNNING")
            if not run.described:
                run.undescribed = trial, axes
            return run.run_id

    def _make_run(self, trial: Trial, label: str, parent: str, since: float) -> _Run:
        tags = {
            "fcnlab.role": "trial",
            "fcnlab.superseded": "false",
            "fcnlab.current": "true",
            "fcnlab.key": trial.key,
            "fcnlab.grid": self._name,
            "fcnlab.cell": label,
            "mlflow.parentRunId": parent,
            "mlflow.runName": f"{label}, seed {trial.seed}",
            "mlflow.source.type": "LOCAL",
            "mlflow.source.name": self._command(label, trial.seed),
        }
        made = self._client.create_run(self._experiment, int(since * 1000), tags).info
        return _Run(str(made.run_id), str(made.artifact_uri), epochs=0, current=True)

    def _command(self, label: str, seed: int) -> str:
        """What a person types to have this trial again."""
        return f"fcnlab grid replay experiments/{self._name}.yaml {quote(label)} --seed {seed}"

    def log_epochs(self, key: str, epochs: Sequence[EpochRecord]) -> None:
        """Write the curves of the epochs that the trial's run does not have yet."""
        with _reaching(self._uri):
            run = self._runs[key]
            new = self._new_epochs(run, epochs)
            if new or run.undescribed:
                self._log(run, new)

    def _new_epochs(self, run: _Run, epochs: Sequence[EpochRecord]) -> dict[int, dict[str, float]]:
        """The curves by epoch that a run lacks; a run that an earlier driver made is asked what it has."""
        if run.epochs is None:
            history = self._client.get_metric_history(run.run_id, "epoch_loss")
            run.epochs = max((point.step for point in history), default=0)
        new = {epoch.epoch: _curves(epoch) for epoch in epochs if epoch.epoch > run.epochs}
        run.epochs = max([run.epochs, *new])
        return new

    def publish(self, record: Record, folder: RunFolder, select: str, *, pictures: bool) -> None:
        """Write a record: curves, figures, environment, files; the status last, which says that all is there.

        The `pictures` are the predictions of the first images, many and large beside the rest.

        A store takes its time for each request, so what can be is written in one.
        """
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        with _reaching(self._uri):
            run = self._runs[record.key]
            there = self._client.get_run(run.run_id).data.metrics if run.taken_up else {}
            final = extract_metrics(record, select)
            steps = self._new_epochs(run, record.epochs)
            steps[0] = {name: value for name, value in final.items() if name not in there}
            self._log(run, steps, extract_tags(record) | {"fcnlab.published": record.ended})
            files = get_artifact_repository(run.artifacts, tracking_uri=self._uri)  # the client would ask where it is
            for file in (folder.record, folder.counts):
                if file.exists():
                    files.log_artifact(str(file))
            if pictures and folder.samples.is_dir():
                files.log_artifacts(str(folder.samples), "samples")
            self._client.set_terminated(run.run_id, "FINISHED" if record.status == "finished" else "FAILED")
            run.published, run.finished = record.ended, record.status == "finished"

    def log_model(self, key: str, network: nn.Module, classes: int) -> bool:
        """Put a network, uint8 [B, 3, H, W] to float32 [B, classes, H, W], on a trial's run; False if it has one.

        It is in MLflow's own format: `mlflow.pytorch.load_model("runs:/<run id>/model")` gives it back.
        """
        run = self._runs[key]
        with _reaching(self._uri):
            if any(item.path == MODEL for item in self._client.list_artifacts(run.run_id)):
                return False
            with tempfile.TemporaryDirectory() as folder:
                _save_model(network, classes, Path(folder) / MODEL)
                self._client.log_artifacts(run.run_id, str(Path(folder) / MODEL), MODEL)
        return True

    def _log(self, run: _Run, steps: Mapping[int, Mapping[str, float]], tags: Mapping[str, str] | None = None) -> None:
        from mlflow.entities import Metric, RunTag

        now = int(time.time() * 1000)
        points = [Metric(name, v, now, step) for step, values in steps.items() for name, v in values.items()]
        named = [RunTag(name, value[:5000]) for name, value in (tags or {}).items()]
        params = self._describe(run.run_id, *run.undescribed) if run.undescribed else []
        for start in range(0, max(1, len(points)), BATCH):
            self._client.log_batch(run.run_id, points[start : start + BATCH], params, named)
            params, named = [], []
        run.described, run.undescribed = True, None

    def _describe(self, run_id: str, trial: Trial, axes: Mapping[str, str]) -> list[Param]:
        """Write what data a trial learns from; returns what else it is, which is written with the first figures."""
        from mlflow.entities import Dataset, DatasetInput, Param

        digest = trial.data.rpartition(":")[2][:DIGEST]
        dataset = Dataset(trial.names["dataset"], digest, "fcnlab", json.dumps({"fingerprint": trial.data}))
        self._client.log_inputs(run_id, [DatasetInput(dataset)])
        params = {**trial.names, **axes, "seed": str(trial.seed)}
        return [Param(name, value[:6000]) for name, value in params.items()]

    def end(self, run_id: str, status: str, *, stopped: int | None = None) -> None:
        """Say how a run ended, such as FINISHED, FAILED or KILLED, and after which epoch its grid stopped it."""
        with _reaching(self._uri):
            if stopped is not None:
                self._client.set_tag(run_id, "fcnlab.stopped", str(stopped))
            self._client.set_terminated(run_id, status)

    def attach(self, run_id: str, folder: Path, note: str) -> None:
        """Put the files of a report on a run, and its text on the run's page."""
        with _reaching(self._uri):
            self._client.log_artifacts(run_id, str(folder), "report")
            self._client.set_tag(run_id, "mlflow.note.content", note)

    def download(self, run_id: str, artifact: str, into: Path) -> Path | None:
        """Fetch an artifact (a file or a folder) of a run; None where the run has none of that name."""
        with _reaching(self._uri):
            if not any(item.path == artifact for item in self._client.list_artifacts(run_id)):
                return None
            return Path(self._client.download_artifacts(run_id, artifact, str(into)))


@dataclass
class _Run:
    """What the book knows of a trial's run: its id, the address of its files, how many epochs it has, if it is done.

    None for `epochs` says that they are to be asked for.

    One that is `taken_up` was made by an earlier driver, and has what that one came to write. `undescribed` is what
    trial it is, and its axes, until that is written.
    """

    run_id: str
    artifacts: str
    epochs: int | None
    current: bool | None = None
    taken_up: bool = False
    described: bool = False
    undescribed: tuple[Trial, Mapping[str, str]] | None = None
    published: str | None = None
    finished: bool = False


def _known(run: Run) -> _Run:
    tags = run.data.tags
    current = tags["fcnlab.current"] == "true" if "fcnlab.current" in tags else None
    return _Run(
        str(run.info.run_id),
        str(run.info.artifact_uri),
        epochs=None,
        current=current,
        taken_up=True,
        described=bool(run.data.params),
        published=tags.get("fcnlab.published") if run.info.status in ("FINISHED", "FAILED") else None,
        finished=run.info.status == "FINISHED",
    )


def _save_model(network: nn.Module, classes: int, into: Path) -> None:
    from importlib.metadata import version

    import mlflow.pytorch
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    from fcnlab.version import __version__

    images, scores = TensorSpec(np.dtype("uint8"), (-1, 3, -1, -1)), (-1, classes, -1, -1)
    signature = ModelSignature(Schema([images]), Schema([TensorSpec(np.dtype("float32"), scores)]))
    needed = [f"fcnlab=={__version__}"]
    needed += [f"{name}=={version(name)}" for name in ("torch", "torchvision", "timm")]
    # The other format traces the network, and would hold it to the size of one image. Older MLflow has this one alone.
    known = "serialization_format" in inspect.signature(mlflow.pytorch.save_model).parameters
    whole = {"serialization_format": "pickle"} if known else {}
    mlflow.pytorch.save_model(network, into, signature=signature, pip_requirements=needed, **whole)


def _curves(epoch: EpochRecord) -> dict[str, float]:
    values = {
        "epoch_loss": epoch.loss,
        "epoch_lr": epoch.lr,
        "epoch_images_per_s": epoch.images_per_s,
        "epoch_val_miou": epoch.val_miou,
        "epoch_val_pixel_acc": epoch.val_pixel_acc,
    }
    return {name: value for name, value in values.items() if value is not None}


def _open_store(uri: str) -> MlflowClient:
    for logger in ("mlflow", "alembic"):
        logging.getLogger(logger).setLevel(logging.WARNING)
    from mlflow.tracking import MlflowClient

    if not uri.startswith("sqlite:///"):
        return MlflowClient(uri)
    # Two processes that make the schema at once break the store for good.
    file = Path(uri.removeprefix("sqlite:///"))
    with FileLock(file.with_name(file.name + ".lock")):
        client = MlflowClient(uri)
        client.search_experiments(max_results=1)
        return client


def _experiment(client: MlflowClient, name: str, uri: str, artifacts: Path | None) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        if found.lifecycle_stage != "active":
            raise TrackingError(f"{uri}: the experiment '{name}' has been deleted; restore it or delete it for good")
        return str(found.experiment_id)
    local = artifacts.as_uri() + "/" + name if artifacts is not None and uri.startswith("sqlite:") else None
    # The UI opens an experiment of this kind as training runs, and others as the traces of an assistant.
    tags = {"mlflow.experimentKind": "custom_model_development"}
    return str(client.create_experiment(name, artifact_location=local, tags=tags))


@contextmanager
def _reaching(uri: str) -> Iterator[None]:
    """What goes wrong on the way to the store, as one line."""
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    try:
        yield
    except (MlflowException, RequestException, OSError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise TrackingError(f"{_without_password(uri)}: MLflow store: {reason[:300]}") from error


def _without_password(uri: str) -> str:
    scheme, mark, rest = uri.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if mark and "@" in rest else uri
