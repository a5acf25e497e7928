"""The MLflow experiment of a grid: one parent run for the grid, one child run per trial.

Only one driver of a grid writes. Each record is published exactly once: the tag `fcnlab.published` of a child run holds
the time at which its record ended, the status of the run is written last, and data that an interrupted publication has
already written is not written again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcnlab.config.trial import Trial
from fcnlab.errors import TrackingError
from fcnlab.tracking import view
from fcnlab.tracking.fields import extract_metrics, extract_tags
from fcnlab.tracking.model import save_model
from fcnlab.tracking.store import convert_errors, is_installed, open_client, open_experiment
from fcnlab.tracking.trial_run import TrialRun
from fcnlab.trial.record import EpochRecord, Record
from fcnlab.trial.run_folder import RunFolder

if TYPE_CHECKING:
    from mlflow.entities import Run
    from torch import nn

MODEL = "model"
"""Name of a trial's model among the artifacts of its run."""


class MlflowTracker:
    """The experiment of one grid in an MLflow store.

    Methods that access the store raise `TrackingError` if it cannot be reached.
    """

    def __init__(self, uri: str, name: str, artifacts: Path | None = None) -> None:
        """Open the store and the experiment of a grid, and create them if they do not exist.

        Args:
            uri: tracking URI of the store.
            name: name of the grid.
            artifacts: folder for the files of a SQLite store.

        Raises:
            TrackingError: MLflow is not installed, or the store cannot be reached or created.
        """
        if not is_installed():
            raise TrackingError("MLflow is not installed; install it with: pip install mlflow")
        with convert_errors(uri):
            self._client = open_client(uri, artifacts)
            self._experiment = open_experiment(self._client, f"fcnlab/{name}", uri, artifacts)
            self._uri = uri
            self._name = name
            self._runs = {run.data.tags["fcnlab.key"]: TrialRun.restore(run) for run in reversed(self._search_trials())}

    @property
    def experiment_id(self) -> str:
        """The id of the experiment."""
        return self._experiment

    def list_trials(self) -> list[dict[str, Any]]:
        """Return the runs of all trials, newest first, as dicts with run_id, status, params, metrics and tags."""
        with convert_errors(self._uri):
            return [
                {
                    "run_id": run.info.run_id,
                    "status": run.info.status,
                    "params": dict(run.data.params),
                    "metrics": dict(run.data.metrics),
                    "tags": dict(run.data.tags),
                }
                for run in self._search_trials()
            ]

    def update_view(self, keys: Collection[str]) -> None:
        """Save the experiment's chart view, and mark the trials that it shows.

        Args:
            keys: keys of the trials that the grid has now.
        """
        with convert_errors(self._uri):
            self._client.set_experiment_tag(self._experiment, view.TAG, view.encode_view())
            for key, run in self._runs.items():
                if run.current != (key in keys):
                    run.current = key in keys
                    self._client.set_tag(run.run_id, "fcnlab.current", str(run.current).lower())

    def get_grid_run(self, description: str) -> str:
        """Return the id of the parent run, and create the run if it does not exist.

        Args:
            description: text on the page of a new run.

        Returns:
            Id of the run.
        """
        with convert_errors(self._uri):
            found = self._search("tags.`fcnlab.role` = 'grid'")
            if found:
                return str(found[0].info.run_id)
            tags = {"fcnlab.role": "grid", "mlflow.runName": self._name, "mlflow.note.content": description}
            return str(self._client.create_run(self._experiment, tags=tags).info.run_id)

    def is_published(self, record: Record) -> bool:
        """Return whether a record is published, or a finished one of the same trial from another lab.

        Args:
            record: record of a trial.

        Returns:
            True if the record need not be published.
        """
        run = self._runs.get(record.key)
        return run is not None and run.published is not None and (run.published == record.ended or run.finished)

    def create_run(
        self, trial: Trial, label: str, axes: Mapping[str, str], parent: str, started: float, command: str
    ) -> str:
        """Create the run of a trial, or continue the run of an interrupted driver.

        The params of the run are written with its first metrics.

        Args:
            trial: the trial.
            label: label of its cell.
            axes: value of each axis of the grid.
            parent: id of the grid's run.
            started: time at which the trial started, in seconds since 1970.
            command: command that reproduces the trial.

        Returns:
            Id of the run.
        """
        with convert_errors(self._uri):
            run = self._runs.get(trial.key)
            if run is not None and run.published is not None:
                self._client.set_tag(run.run_id, "fcnlab.superseded", "true")
                run = None
            if run is None:
                run = self._runs[trial.key] = self._create_run(trial, label, parent, started, command)
            else:
                self._client.update_run(run.run_id, status="RUNNING")
            if not run.has_params:
                run.pending_params = trial, axes
            return run.run_id

    def log_epochs(self, key: str, epochs: Sequence[EpochRecord]) -> None:
        """Write the metrics of epochs that a trial's run does not have yet.

        Args:
            key: key of the trial.
            epochs: all epochs up to now.
        """
        with convert_errors(self._uri):
            run = self._runs[key]
            new = run.take_new_epochs(self._client, epochs)
            if new or run.pending_params:
                run.log(self._client, new)

    def log_record(self, record: Record, folder: RunFolder, checkpoint: str, *, samples: bool) -> None:
        """Write a record with its files. The status of the run is written last.

        Requests are slow, so that all data is written in as few as possible.

        Args:
            record: record of the trial.
            folder: its run folder.
            checkpoint: the grid's checkpoint, `last` or `best`.
            samples: whether to upload the predictions of the first images, which are many large files.
        """
        with convert_errors(self._uri):
            run = self._runs[record.key]
            existing = self._client.get_run(run.run_id).data.metrics if run.is_restored else {}
            final = extract_metrics(record, checkpoint)
            steps = run.take_new_epochs(self._client, record.epochs)
            steps[0] = {name: value for name, value in final.items() if name not in existing}
            run.log(self._client, steps, extract_tags(record) | {"fcnlab.published": record.ended})
            repository = self._open_repository(run.artifact_uri)
            for file in (folder.record, folder.counts):
                if file.exists():
                    repository.log_artifact(str(file))
            if samples and folder.samples.is_dir():
                repository.log_artifacts(str(folder.samples), "samples")
            self._client.set_terminated(run.run_id, "FINISHED" if record.status == "finished" else "FAILED")
            run.published, run.finished = record.ended, record.status == "finished"

    def log_model(self, key: str, model: nn.Module, num_classes: int, channels: int = 3) -> bool:
        """Upload a model to a trial's run, for `mlflow.pytorch.load_model("runs:/<run id>/model")`.

        Args:
            key: key of the trial.
            model: a model from uint8 [B, channels, H, W] to float32 [B, num_classes, H, W].
            num_classes: number of classes.
            channels: channels of the images.

        Returns:
            False if the run already has a model.
        """
        run = self._runs[key]
        with convert_errors(self._uri):
            if any(item.path == MODEL for item in self._client.list_artifacts(run.run_id)):
                return False
            with tempfile.TemporaryDirectory() as folder:
                save_model(model, num_classes, Path(folder) / MODEL, channels)
                self._client.log_artifacts(run.run_id, str(Path(folder) / MODEL), MODEL)
        return True

    def finish_run(self, run_id: str, status: str, *, stopped_after: int | None = None) -> None:
        """Set the final status of a run.

        Args:
            run_id: id of the run.
            status: FINISHED, FAILED or KILLED.
            stopped_after: epoch after which early stopping ended the trial.
        """
        with convert_errors(self._uri):
            if stopped_after is not None:
                self._client.set_tag(run_id, "fcnlab.stopped_after", str(stopped_after))
            self._client.set_terminated(run_id, status)

    def log_report(self, run_id: str, folder: Path, text: str) -> None:
        """Upload the files of a report.

        Args:
            run_id: id of the grid's run.
            folder: folder of the report.
            text: text that the page of the run shows, in Markdown.
        """
        with convert_errors(self._uri):
            repository = self._open_repository(self._client.get_run(run_id).info.artifact_uri)
            for item in folder.iterdir():
                if item.is_file():  # folders other than plots/ are reports of grids below this one
                    repository.log_artifact(str(item), "report")
            repository.log_artifacts(str(folder / "plots"), "report/plots")
            self._client.set_tag(run_id, "mlflow.note.content", text)

    def download_artifact(self, run_id: str, artifact: str, into: Path) -> Path | None:
        """Download an artifact.

        Args:
            run_id: id of the run.
            artifact: name of a file or folder.
            into: folder for the download.

        Returns:
            Path of the download; None if the run has no such artifact.
        """
        with convert_errors(self._uri):
            repository = self._open_repository(self._client.get_run(run_id).info.artifact_uri)
            if not any(item.path == artifact for item in repository.list_artifacts()):
                return None
            return Path(repository.download_artifacts(artifact, str(into)))

    def _open_repository(self, artifact_uri: str) -> Any:
        """Open the artifacts of a run by their address.

        The client would request it for each file, and remember it by the run, also of a lab that was moved meanwhile.
        """
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        return get_artifact_repository(artifact_uri, tracking_uri=self._uri)

    def _search_trials(self) -> list[Run]:
        """Return the runs of trials, newest first, without those that a retry has replaced."""
        return self._search("tags.`fcnlab.role` = 'trial' and tags.`fcnlab.superseded` = 'false'")

    def _search(self, condition: str) -> list[Run]:
        found: list[Run] = []
        token = None
        while True:
            page = self._client.search_runs([self._experiment], condition, max_results=1000, page_token=token)
            found += page
            token = page.token
            if not token:
                return found

    def _create_run(self, trial: Trial, label: str, parent: str, started: float, command: str) -> TrialRun:
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
            "mlflow.source.name": command,
        }
        info = self._client.create_run(self._experiment, int(started * 1000), tags).info
        return TrialRun(str(info.run_id), str(info.artifact_uri), num_epochs=0, current=True)
