"""The MLflow experiment of a grid: one parent run for the grid, one child run per trial.

Several labs may have a grid of one name in one store. Each lab has a parent run and child runs of its own, which have
its id as a tag, and writes to these only; runs without the tag, of earlier versions, belong to the first lab that
publishes.

Only one driver of a grid in a lab writes. Each record is published exactly once: the tag `fcnlab.published` of a child
run holds the time at which its record ended, the status of the run is written last, and data that an interrupted
publication has already written is not written again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcnlab.console import format_count
from fcnlab.errors import TrackingError, list_some
from fcnlab.paths import exists, is_file
from fcnlab.redaction import clean_text
from fcnlab.tracking import published_report, view
from fcnlab.tracking.base import TrackedGrid, TrackedTrial, Tracker
from fcnlab.tracking.fields import NOTE, clean_run_name, clean_tag, extract_final_metrics, extract_tags
from fcnlab.tracking.grid_run import BestCell, create_grid_run, describe_origin, log_best_cell, update_grid_run
from fcnlab.tracking.lab_id import TAG as LAB_TAG
from fcnlab.tracking.lab_id import ensure_lab_id, read_lab_id
from fcnlab.tracking.model import register_version, save_model
from fcnlab.tracking.published_report import list_report_files
from fcnlab.tracking.store import convert_errors, find_local_folder, is_installed, open_client, open_experiment
from fcnlab.tracking.trial_run import CHECKPOINT_TAG, TrialRun, end_run, upload_files
from fcnlab.trial.record import EpochRecord, Record

if TYPE_CHECKING:
    from mlflow.entities import Run
    from torch import nn

_GRID_RUNS = "tags.`fcnlab.role` = 'grid'"

MODEL = "model"
"""Name of a trial's model among the artifacts of its run."""


class MlflowTracker(Tracker):
    """The experiment of one grid in an MLflow store.

    Methods that access the store raise `TrackingError` if it cannot be reached.
    """

    def __init__(self, grid: TrackedGrid) -> None:
        """Open the store and the experiment of a grid, and create them if they do not exist.

        Args:
            grid: the grid; its lab sets the store.

        Raises:
            TrackingError: MLflow is not installed, or the store cannot be reached or created.
        """
        if not is_installed():
            raise TrackingError("MLflow is not installed; install it with: pip install mlflow")
        self._grid = grid
        self._uri = grid.lab.tracking_uri
        self._parent: str | None = None
        self._origin: dict[str, str] = {}
        with convert_errors(self._uri):
            artifacts = grid.lab.artifacts
            self._client = open_client(self._uri, artifacts)
            self._experiment = open_experiment(self._client, f"fcnlab/{grid.name}", self._uri, artifacts)
            self._lab_id = read_lab_id(grid.lab.state)
            runs = [(run.data.tags["fcnlab.key"], TrialRun.restore(run)) for run in reversed(self._search_trials())]
            runs.sort(key=lambda pair: pair[1].published is not None)
            self._has_published = any(run.published is not None for _, run in runs)
            self._runs = {key: run for key, run in runs if self._is_own(run.lab)}
            self._elsewhere = {key: run for key, run in runs if not self._is_own(run.lab) and run.is_finished}

    @property
    def experiment_id(self) -> str:
        """The id of the experiment."""
        return self._experiment

    def _is_own(self, lab: str | None) -> bool:
        """Return whether a run with this id of a lab is of this lab; runs of earlier versions have none."""
        return lab is None or lab == self._lab_id

    def _ensure_lab_id(self) -> str:
        if self._lab_id is None:
            try:
                self._lab_id = ensure_lab_id(self._grid.lab.state)
            except OSError as error:
                raise TrackingError(f"{self._grid.lab.state}: the id of the lab cannot be written: {error}") from None
        return self._lab_id

    def list_trials(self) -> list[dict[str, Any]]:
        """Return the runs of all trials as dicts with run_id, status, params, metrics and tags.

        Returns:
            The finished runs of this lab, those of other labs, then the other runs of this lab and of others: the
            first one with the key of a trial is the one that a report shows. Each group is sorted, newest first.
        """
        with convert_errors(self._uri):
            runs = sorted(self._search_trials(), key=self._rank)
            return [
                {
                    "run_id": run.info.run_id,
                    "status": run.info.status,
                    "params": dict(run.data.params),
                    "metrics": dict(run.data.metrics),
                    "tags": dict(run.data.tags),
                }
                for run in runs
            ]

    def _rank(self, run: Run) -> tuple[bool, bool]:
        restored = TrialRun.restore(run)
        return not restored.is_finished, not self._is_own(restored.lab)

    def start_grid(self, keys: Collection[str]) -> None:
        """Write the grid's run, save the experiment's chart view, mark the trials that it shows, and name their runs.

        Finished trials get the metrics of the grid's checkpoint if it has changed.

        Args:
            keys: keys of the trials that the grid has now.
        """
        with convert_errors(self._uri):
            parent = self._find_parent()
            self._origin = describe_origin(self._grid) | {LAB_TAG: self._ensure_lab_id()}
            others = self._find_other_labs()
            if others and self._grid.is_complete:  # single trials of all labs are in one experiment
                self._add_remark(_describe_other_labs(self._grid, others))
            if self._has_published:
                self._check_location(str(self._client.get_experiment(self._experiment).artifact_location))
            update_grid_run(self._client, parent, self._grid, self._origin)
            if is_file(self._grid.file):
                self._open_repository(self._client.get_run(parent).info.artifact_uri).log_artifact(str(self._grid.file))
            self._client.set_experiment_tag(self._experiment, view.TAG, view.encode_view(by_lab=bool(others)))
            for key, run in self._runs.items():
                if run.lab is None:
                    run.lab = self._ensure_lab_id()
                    self._client.set_tag(run.run_id, LAB_TAG, run.lab)
                if run.parent != parent:  # that was deleted
                    run.parent = parent
                    self._client.set_tag(run.run_id, "mlflow.parentRunId", parent)
                is_current = key in keys or (run.current and not self._grid.is_complete)
                if run.current != is_current:
                    run.current = is_current
                    self._client.set_tag(run.run_id, "fcnlab.current", str(run.current).lower())
                if key in keys and run.is_finished and run.checkpoint != self._grid.checkpoint:
                    run.report_checkpoint(self._client, self._grid.checkpoint)
                self._rename_run(run)

    def _add_remark(self, text: str) -> None:
        if text not in self.remarks:
            self.remarks = (*self.remarks, text)

    def _check_location(self, location: str, *, is_run: bool = False) -> None:
        """Add a remark if the files of the experiment or of a run are in a folder of another machine."""
        folder = find_local_folder(location)
        if folder is None or folder.is_relative_to(self._grid.lab.artifacts) or exists(folder):
            return
        shown = folder.parent.parent if is_run else folder  # one remark for all runs: <experiment>/<run>/artifacts
        self._add_remark(
            f"files of the MLflow experiment fcnlab/{self._grid.name} are missing here, since {shown} is a folder of "
            "another machine; their counts and images are not in the report. A server avoids this: "
            "`mlflow server --serve-artifacts`"
        )

    def _rename_run(self, run: TrialRun) -> None:
        """Name the run of an earlier driver by the present display name of its cell."""
        if run.cell not in self._grid.display_names or not run.seed:
            return
        name = clean_run_name(f"{self._grid.display_names[run.cell]}, seed {run.seed}")
        if run.name != name:
            run.name = name
            self._client.update_run(run.run_id, name=name)

    def _find_parent(self) -> str:
        """Return the id of this lab's run of the grid, and create the run if it does not exist."""
        if self._parent is None:
            lab = self._ensure_lab_id()
            runs = [run for run in self._search(_GRID_RUNS) if self._is_own(run.data.tags.get(LAB_TAG))]
            runs.sort(key=lambda run: LAB_TAG not in run.data.tags)
            self._parent = (
                str(runs[0].info.run_id) if runs else create_grid_run(self._client, self._experiment, self._grid, lab)
            )
        return self._parent

    def _find_other_labs(self) -> dict[str, str]:
        """Return the users of the other labs with a run of this grid, by the ids of the labs."""
        tags = [run.data.tags for run in self._search(_GRID_RUNS)]
        return {one[LAB_TAG]: one.get("mlflow.user", "") for one in tags if not self._is_own(one.get(LAB_TAG))}

    def is_published(self, record: Record) -> bool:
        """Return whether a record is published, or a finished one of the same trial from another lab.

        The one of another lab does not count if this lab has started to publish the trial to a run of its own.

        Args:
            record: record of a trial.

        Returns:
            True if the record need not be published.
        """
        run = self._runs.get(record.key)
        if run is None:
            return record.key in self._elsewhere
        return run.published is not None and (run.published == record.ended or run.finished)

    def start_trial(self, trial: TrackedTrial) -> None:
        """Create the run of a trial, or continue the run of an interrupted driver of this lab.

        A run whose record a retry replaces, or whose epochs a restart has discarded, is kept, but superseded.
        The parameters of the run are written with its first metrics.

        Args:
            trial: the trial.
        """
        with convert_errors(self._uri):
            run = self._runs.get(trial.key)
            if run is not None and (run.published is not None or run.restarts != trial.restarts):
                self._client.set_tag(run.run_id, "fcnlab.superseded", "true")
                if run.published is None:
                    end_run(self._client, run.run_id, run.started, "FAILED")
                run = None
            if run is None:
                run = self._runs[trial.key] = self._create_run(trial)
            else:
                self._client.update_run(run.run_id, status="RUNNING")
            run.pending_params = trial.trial, trial.axes

    def log_epochs(self, trial: TrackedTrial, epochs: Sequence[EpochRecord]) -> None:
        """Write the metrics of epochs that a trial's run does not have yet.

        Args:
            trial: the trial.
            epochs: all epochs up to now.
        """
        with convert_errors(self._uri):
            run = self._runs[trial.key]
            new = run.take_new_epochs(self._client, epochs)
            if new or run.pending_params:
                run.log(self._client, new, {}, {})

    def log_record(self, trial: TrackedTrial, record: Record, *, samples: bool) -> None:
        """Write a record with its files. The status of the run is written last.

        Requests are slow, so that all data is written in as few as possible.

        Args:
            trial: the trial.
            record: record of the trial.
            samples: whether to upload the predictions of the first images, which are many large files.
        """
        with convert_errors(self._uri):
            run, folder = self._runs[trial.key], trial.folder
            existing = self._client.get_run(run.run_id).data.metrics if run.is_restored else {}
            new = run.take_new_epochs(self._client, record.epochs)
            final = extract_final_metrics(record, self._grid.checkpoint)
            missing_final = {name: value for name, value in final.items() if name not in existing}
            tags = extract_tags(record) | {CHECKPOINT_TAG: self._grid.checkpoint, "fcnlab.published": record.ended}
            run.log(self._client, new, missing_final, tags)
            repository = self._open_repository(run.artifact_uri)
            missing = upload_files(repository, folder, samples=samples)
            if missing:  # a proxy in front of the server may have answered with a page in place of an error
                raise TrackingError(f"{self._uri}: MLflow store: it does not have the uploaded {', '.join(missing)}")
            run.finished = record.status == "finished"
            end_run(self._client, run.run_id, run.started, "FINISHED" if run.finished else "FAILED")
            run.published = record.ended
            run.params = frozenset()  # hundreds of names, for each trial of a large grid

    def pause_trial(self, trial: TrackedTrial, *, pruned_after: int | None) -> None:
        """End the run of a trial without a record, with the status KILLED.

        Args:
            trial: the trial.
            pruned_after: epoch after which early stopping ended the trial; None if it was interrupted.
        """
        self.log_epochs(trial, trial.folder.read_progress())
        with convert_errors(self._uri):
            run = self._runs[trial.key]
            if pruned_after is not None:
                self._client.set_tag(run.run_id, "fcnlab.pruned_after", str(pruned_after))
            end_run(self._client, run.run_id, run.started, "KILLED")

    def close(self, *, complete: bool) -> None:
        """Set the status of the grid's run, and delete runs that were created twice.

        Args:
            complete: whether all trials of the grid have ended.
        """
        with convert_errors(self._uri):
            parent = self._find_parent()
            started = int(self._client.get_run(parent).info.start_time)
            self._delete_repeated_runs(parent, started)
            end_run(self._client, parent, started, "FINISHED" if complete else "KILLED")

    def _delete_repeated_runs(self, parent: str, started: int) -> None:
        """Delete the empty runs that a client created twice, because it did not receive the answer to its request.

        Both have the start in the request. An empty run with another start can be that of another driver of the lab.

        Args:
            parent: id of the grid's run.
            started: start of the grid's run, in milliseconds since 1970.
        """
        kept = {parent, *(run.run_id for run in self._runs.values())}
        for run in self._search("attributes.status = 'RUNNING'"):
            tags, run_id, start = run.data.tags, str(run.info.run_id), int(run.info.start_time)
            if not self._is_own(tags.get(LAB_TAG)):
                continue
            if tags.get("fcnlab.role") == "grid":
                is_repeated = start == started and "mlflow.source.name" not in tags
            else:
                own = self._runs.get(tags.get("fcnlab.key", ""))
                is_repeated = own is not None and start == own.started and not run.data.params
            if is_repeated and run_id not in kept:
                self._client.delete_run(run_id)

    def log_model(self, key: str, model: nn.Module, num_classes: int, channels: int) -> bool:
        """Upload a model to a trial's run, for `mlflow.pytorch.load_model("runs:/<run id>/model")`.

        Args:
            key: key of the trial.
            model: a model from uint8 [B, channels, H, W] to float32 [B, num_classes, H, W].
            num_classes: number of classes.
            channels: channels of the images.

        Returns:
            False if the run already has a model.
        """
        run = self._find_run(key)
        with convert_errors(self._uri):
            if any(item.path == MODEL for item in self._client.list_artifacts(run.run_id)):
                return False
            with tempfile.TemporaryDirectory() as folder:
                save_model(model, num_classes, Path(folder) / MODEL, channels)
                self._client.log_artifacts(run.run_id, str(Path(folder) / MODEL), MODEL)
        return True

    def register_model(self, key: str, name: str, tags: Mapping[str, str]) -> str | None:
        """Register the uploaded model of a trial as a new version of a model in MLflow's registry.

        Args:
            key: key of the trial.
            name: name of the registered model; it is created if it does not exist.
            tags: tags of the version by name.

        Returns:
            The number of the version; None if the newest version is this model.
        """
        run = self._find_run(key)
        with convert_errors(self._uri):
            return register_version(self._client, name, run.run_id, f"{run.artifact_uri}/{MODEL}", tags)

    def _find_run(self, key: str) -> TrialRun:
        """Return the run to which the record of a trial is published, which can be that of another lab."""
        return self._runs[key] if key in self._runs else self._elsewhere[key]

    def log_report(self, folder: Path, text: str, best: BestCell | None) -> None:
        """Upload the files of a report to the grid's run, unless it has them.

        Args:
            folder: folder of the report.
            text: text that the page of the run shows, in Markdown.
            best: the best cell; None if no trial has finished.
        """
        digest = published_report.digest_report(folder, text, best)  # first: another driver may be writing files
        with convert_errors(self._uri):
            parent = self._find_parent()
            run = self._client.get_run(parent)
            if run.data.tags.get(published_report.TAG) == digest:
                return
            repository = self._open_repository(run.info.artifact_uri)
            for file in list_report_files(folder):
                repository.log_artifact(str(file), "report" if file.parent == folder else "report/plots")
            if best is not None:
                log_best_cell(self._client, parent, best)
            self._client.set_tag(parent, "mlflow.note.content", clean_text(f"{text}\n{NOTE}\n"))
            self._client.set_tag(parent, published_report.TAG, digest)

    def download_artifact(self, run_id: str, artifact: str, into: Path) -> Path | None:
        """Download an artifact.

        Args:
            run_id: id of the run.
            artifact: name of a file or folder.
            into: folder for the download.

        Returns:
            Path of the download; None if the run has no such artifact, or its files are on another machine, which is
            a remark then.
        """
        with convert_errors(self._uri):
            location = self._client.get_run(run_id).info.artifact_uri
            self._check_location(location, is_run=True)
            repository = self._open_repository(location)
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
        runs: list[Run] = []
        token = None
        while True:
            page = self._client.search_runs([self._experiment], condition, max_results=1000, page_token=token)
            runs += page
            token = page.token
            if not token:
                return runs

    def _create_run(self, trial: TrackedTrial) -> TrialRun:
        parent = self._find_parent()
        tags = {
            **self._origin,
            LAB_TAG: self._ensure_lab_id(),
            "fcnlab.role": "trial",
            "fcnlab.superseded": "false",
            "fcnlab.restarts": str(trial.restarts),
            "fcnlab.current": "true",
            "fcnlab.key": trial.key,
            "fcnlab.grid": self._grid.name,
            "fcnlab.cell": trial.cell,
            "mlflow.parentRunId": parent,
            "mlflow.runName": clean_run_name(trial.name),
            "mlflow.source.name": trial.command,
            "mlflow.note.content": NOTE,
        }
        cleaned = {name: clean_tag(value) for name, value in tags.items()}
        started = int(trial.started * 1000)
        info = self._client.create_run(self._experiment, started, cleaned).info
        run_id, artifacts = str(info.run_id), str(info.artifact_uri)
        return TrialRun(run_id, artifacts, started, 0, trial.restarts, current=True, parent=parent, lab=self._lab_id)


def _describe_other_labs(grid: TrackedGrid, others: Mapping[str, str]) -> str:
    """Return the remark on the runs of other labs.

    Args:
        grid: the grid.
        others: users by the ids of their labs.
    """
    users = sorted(set(filter(None, others.values())))
    labs = format_count(len(others), "other lab")
    whose = f" (of {list_some(users, 3)})" if users else ""
    return (
        f"the MLflow experiment fcnlab/{grid.name} also has runs of {labs}{whose}, which are kept as they are; rename "
        "the grid file to publish to an experiment of its own"
    )
