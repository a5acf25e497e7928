"""The lab: its folders, the data root and the tracking store."""

from __future__ import annotations

import os
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import Any, get_args

from fcnlab.config import registry
from fcnlab.config.dataset import CustomDataset, FolderDataset, KnownDataset, ShapesDataset
from fcnlab.config.dataset import Dataset as DatasetConfig
from fcnlab.config.grid import grid
from fcnlab.config.grid.cell import InputFingerprints
from fcnlab.config.grid.from_dict import create_from_dict
from fcnlab.config.grid.name import find_lab_folder
from fcnlab.config.head import CustomHead
from fcnlab.config.mask_values import MAX_CLASSES
from fcnlab.config.recipe import Recipe
from fcnlab.config.trial import Trial
from fcnlab.config.variant import Backbone as BackboneConfig
from fcnlab.config.variant import Variant as VariantConfig
from fcnlab.data.datasets.base import Dataset, FileDataset
from fcnlab.data.datasets.fingerprint import hash_file
from fcnlab.data.datasets.folder import Folder, Listing
from fcnlab.data.datasets.shapes import Shapes
from fcnlab.data.datasets.splits import SPLIT
from fcnlab.data.datasets.table import FILE_DATASETS, find_dataset_folder
from fcnlab.errors import ConfigError, DataError, ModelError, RunError, StopRunError
from fcnlab.extensions import BUILTIN, Extensions
from fcnlab.paths import exists, expand_home, is_file, is_folder, resolve_path
from fcnlab.redaction import remember_uri
from fcnlab.settings import TRACKER_VARIABLE, TrackerName


@dataclass(frozen=True)
class Lab:
    """A folder created by `fcnlab init`.

    Attributes:
        root: contains registry/, experiments/ and the other inputs, and the output unless there is a `workdir`.
        data_root: contains the folders of the datasets; None if it is not set.
        tracking_uri: URI of the MLflow store; by default a sqlite file in the root.
        trackers: names of the trackers to which records are published.
        workdir: contains the output, see `with_workdir`; None for the root.
    """

    root: Path
    data_root: Path | None = None
    tracking_uri: str = field(default="", repr=False)  # it may contain a password
    trackers: tuple[str, ...] = ("mlflow",)
    workdir: Path | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes for another process, which loads the registry itself."""
        return {attribute.name: getattr(self, attribute.name) for attribute in fields(self)}

    @classmethod
    def find(
        cls,
        file: Path | None = None,
        *,
        root: Path | None = None,
        data_root: Path | None = None,
        tracking_uri: str | None = None,
        trackers: str | None = None,
    ) -> Lab:
        """Find the lab.

        Args:
            file: a grid file; a file in experiments/, or in a folder below it, selects the lab above that folder.
            root: the folder of the lab; by default FCNLAB_LAB, then the lab of `file`, then the current folder.
            data_root: the data root; by default FCNLAB_DATA.
            tracking_uri: the MLflow store; by default MLFLOW_TRACKING_URI, then mlflow.db in the lab.
            trackers: names of trackers separated by commas, or `none`; by default FCNLAB_TRACKER, then `mlflow`.

        Returns:
            The lab.

        Raises:
            RunError: the folder does not exist.
        """
        root = root or _env_path("FCNLAB_LAB")
        if root is None and file is not None:
            root = find_lab_folder(file)
        root = resolve_path(expand_home(root or Path.cwd()))
        if not is_folder(root):
            raise RunError(f"{root}: no such folder; make a lab with `fcnlab init {quote(root.name)}`")
        data = data_root or _env_path("FCNLAB_DATA")
        uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or cls(root).own_tracking_uri
        remember_uri(uri)
        names = trackers or os.environ.get(TRACKER_VARIABLE) or "mlflow"
        return cls(root, resolve_path(expand_home(data)) if data else None, uri, _parse_trackers(names))

    def with_workdir(self, folder: Path) -> Lab:
        """Return this lab with another folder for the output: separate records, and a separate MLflow store.

        All inputs are still read from the lab. Trackers of extensions are left out, since they may publish elsewhere.

        Args:
            folder: the folder; it is created.

        Raises:
            RunError: the folder is the lab itself, or cannot be created.
        """
        workdir = resolve_path(folder)
        if workdir == self.root:
            raise RunError(f"--workdir {folder}: this is the lab itself; name another folder")
        try:
            workdir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"--workdir {folder}: cannot be created ({error.strerror})") from None
        trackers = tuple(name for name in self.trackers if name in get_args(TrackerName))
        lab = replace(self, workdir=workdir, trackers=trackers)
        return replace(lab, tracking_uri=lab.own_tracking_uri)

    @property
    def output(self) -> Path:
        """Contains runs/, results/, the state and the local MLflow store."""
        return self.workdir or self.root

    @property
    def runs(self) -> Path:
        """One folder per trial, named by its key."""
        return self.output / "runs"

    def find_runs(self, key: str) -> Path:
        """Return the folder that contains the run folder of a trial: `runs`, or `runs/` of the root.

        Args:
            key: the key of the trial, such as one that another trial is initialized from.
        """
        return self.runs if exists(self.runs / key) else self.root / "runs"

    @property
    def state(self) -> Path:
        """State that drivers share; it can be deleted while no driver runs, but the lab has a new id in MLflow then."""
        return self.output / ".fcnlab"

    @property
    def artifacts(self) -> Path:
        """Files of the lab's own MLflow store."""
        return self.output / "mlartifacts"

    @property
    def own_tracking_uri(self) -> str:
        """URI of the lab's own MLflow store, the default of `tracking_uri`; only ambiguous characters are escaped."""
        path = re.sub(r"\?|%(?=[0-9A-Fa-f]{2})", lambda match: f"%{ord(match[0]):02X}", str(self.output / "mlflow.db"))
        return f"sqlite:///{path}"

    @property
    def results(self) -> Path:
        """One folder per grid, with its report."""
        return self.output / "results"

    @cached_property
    def registry(self) -> registry.Registry:
        """Built-in components and those of this lab's registry/."""
        folder = self.root / "registry"
        entries = registry.load(folder)
        for kind in BUILTIN:
            self.extensions.own(kind)
        # An entry whose type no extension has is an error now, and not when a grid uses it.
        for kind in ("head", "dataset"):
            for name in entries.names(kind):
                entry = entries.get(kind, name)
                if isinstance(entry, CustomHead | CustomDataset):
                    self.extensions.find(kind, entry.type, f"{folder}: {kind} {name}: ")
        for name in entries.names("recipe"):
            recipe = entries.get("recipe", name)
            assert isinstance(recipe, Recipe)
            for kind, custom in (("loss", recipe.loss.custom), ("transform", recipe.transform)):
                if custom is not None:
                    self.extensions.find(kind, custom.type, f"{folder}: recipe {name}: ")
        return entries

    @property
    def extensions(self) -> Extensions:
        """Heads, dataset types, losses, transforms, executors and trackers of this lab and of installed packages."""
        return Extensions(self.root)

    def load_grid(self, path: Path) -> grid.Grid:
        """Load and validate a grid file.

        Args:
            path: the grid file.

        Raises:
            ConfigError: the file is not valid.
        """
        return grid.load(path, self.registry)

    def create_grid(self, content: Mapping[str, Any], name: str) -> grid.Grid:
        """Create a grid from a dict with the keys of a grid file; nothing is written before it runs.

        Args:
            content: the keys and values.
            name: name of the grid; its file will be `experiments/<name>.yaml`.

        Raises:
            ConfigError: the content or the name is not valid, or another grid file has the name.
        """
        return create_from_dict(content, name, self.root, self.registry)

    def open_dataset(self, spec: DatasetConfig) -> Dataset:
        """Open a dataset.

        Args:
            spec: configuration of the dataset.

        Raises:
            DataError: its folder is not below the data root.
            ConfigError: an extension that cannot be loaded, does not take the options or lacks an attribute.
        """
        if isinstance(spec, ShapesDataset):
            return Shapes(**spec.options.model_dump())
        if isinstance(spec, FolderDataset):
            return self._open_folder(spec)
        if isinstance(spec, CustomDataset):
            return self._open_custom_dataset(spec)
        assert isinstance(spec, KnownDataset)
        return FILE_DATASETS[spec.type](find_dataset_folder(self.data_root, spec.folder, spec.type))

    def open_dataset_once(self, spec: DatasetConfig) -> Dataset:
        """Open a dataset, or return the one that this lab has opened once before; its files are listed only then.

        Datasets that differ only in their fold list their folders once together.

        Args:
            spec: configuration of the dataset.

        Raises:
            DataError: its folder is not below the data root.
            ConfigError: an extension that cannot be loaded, does not take the options or lacks an attribute.
        """
        known, content = self._known_datasets, repr(spec)
        if content not in known:
            if isinstance(spec, FolderDataset):
                known[content] = self._open_folder(spec, self._listings)
            else:
                known[content] = self.open_dataset(spec)
        return known[content]

    def _open_folder(self, spec: FolderDataset, listings: dict[tuple[str, ...], Listing] | None = None) -> Folder:
        lists = {split: self.find_list(name) for split, name in spec.lists.items()}
        return Folder(spec, self.find_data_folder(spec.images), self.find_data_folder(spec.masks), lists, listings)

    def _open_custom_dataset(self, spec: CustomDataset) -> Dataset:
        loaded = self.extensions.load("dataset", spec.type, Dataset)  # type: ignore[type-abstract]
        arguments = () if spec.folder is None else (self.find_data_folder(spec.folder, spec.type),)
        where = f"dataset of type {spec.type}"
        dataset = self.extensions.create("dataset", spec.type, loaded, *arguments, options=spec.options, where=where)
        extension = self.extensions.find("dataset", spec.type)
        problem = _find_attribute_problem(dataset)
        if problem is not None:
            raise ConfigError(f"{extension.where}: {type(dataset).__name__}: {problem}")
        if not 2 <= len(dataset.classes) <= MAX_CLASSES:
            raise ConfigError(
                f"dataset of type {spec.type}: its class has {len(dataset.classes)} classes; 2 to {MAX_CLASSES} are "
                "possible, because labels are uint8 and 255 is ignored"
            )
        dataset.code = f"{extension.fingerprint} {sorted(spec.options.items())}"
        return dataset

    def check_inputs(self, trial: Trial) -> None:
        """Check that the code of the extensions, the dataset and the weights file of a trial are those of its key.

        All files of the dataset are looked at again, and those that have changed are read.

        Args:
            trial: the trial.

        Raises:
            StopRunError: one of them has changed since the trial was planned.
            ConfigError: an extension does not exist.
        """
        planned = "this trial was planned; run the grid again"
        for kind, fingerprint in self.extensions.fingerprints(trial.variant.head, trial.dataset, trial.recipe).items():
            if trial.extensions.get(kind) != fingerprint:
                raise StopRunError(f"the code of the {kind} has changed since {planned}")
        name = trial.names.get("dataset", trial.dataset.type)
        try:
            data = self.open_dataset(trial.dataset).fingerprint(trial.dataset.used_splits)
        except DataError as error:
            raise StopRunError(f"dataset {name} has changed since {planned}: {error}") from None
        if data != trial.data:
            raise StopRunError(
                f"dataset {name} has changed since {planned}. Its trials have other keys then, so that metrics of the "
                "old and of the new data are never in one table"
            )
        file = self.find_weights_file(trial.variant.backbone)
        if file is not None and f"sha256:{hash_file(file)}" != trial.weights:
            raise StopRunError(f"{file}: has changed since {planned}")

    def find_data_folder(self, folder: str, type_: str = "folder") -> Path:
        """Find a folder of a dataset in the lab or below the data root.

        Args:
            folder: path of the folder in an entry, absolute or relative; `{split}` in it is replaced later.
            type_: type of the dataset, for the error message.

        Raises:
            DataError: the folder is not in the lab, and no data root is set.
        """
        path = expand_home(folder)
        if path.is_absolute():
            return path
        if is_folder(self.root / _cut_at_split(path)) and path.parts[:1] != (SPLIT,):
            return self.root / path
        if self.data_root is None:
            raise DataError(
                f"dataset of type {type_}: {self.root / path} does not exist, and no data root is set; pass "
                f"--data-root or set FCNLAB_DATA to the folder that holds {folder}, or give an absolute path"
            )
        return self.data_root / path

    def find_list(self, name: str) -> Path:
        """Find a list of ids in the lab, where it can be committed, or below the data root.

        Args:
            name: path of the list in an entry, absolute or relative.

        Raises:
            DataError: see `find_data_folder`.
        """
        path = self.root / expand_home(name)
        return self.find_data_folder(name) if not exists(path) and self.data_root is not None else path

    def find_weights_file(self, backbone: BackboneConfig) -> Path | None:
        """Find the local weights file of a backbone in the lab or below the data root.

        Args:
            backbone: configuration of the backbone.

        Returns:
            The file; None if the configuration names no file.

        Raises:
            ModelError: the file is in neither.
        """
        name = backbone.weights_file
        if name is None:
            return None
        candidates = [base / expand_home(name) for base in (self.root, self.data_root) if base is not None]
        file = next((path for path in candidates if is_file(path)), None)
        if file is None:
            paths = " or ".join(dict.fromkeys(map(str, candidates)))
            raise ModelError(f"the weights file '{name}' is not at {paths}; put it there, or set --data-root")
        return file

    def fingerprints(self, variant: VariantConfig, dataset: DatasetConfig, recipe: Recipe) -> InputFingerprints:
        """Compute the fingerprints of the inputs of trials; this lab reads each dataset and each weights file once.

        Args:
            variant: configuration of the variant.
            dataset: configuration of the dataset.
            recipe: the recipe.

        Raises:
            ConfigError: an extension does not exist.
            DataError: the dataset is missing.
            ModelError: the weights file is missing.
        """
        extensions = self.extensions.fingerprints(variant.head, dataset, recipe)
        data = self.fingerprint_data(dataset)
        return InputFingerprints(data, self.fingerprint_weights(variant.backbone), extensions)

    def fingerprint_data(self, dataset: DatasetConfig) -> str:
        """Compute the fingerprint of the content of a dataset; its files are read once by this lab.

        Args:
            dataset: configuration of the dataset.

        Raises:
            ConfigError: an extension does not exist.
            DataError: the dataset is missing or damaged.
        """
        known, content = self._known_fingerprints, repr(dataset)
        if content not in known:
            known[content] = self.open_dataset_once(dataset).fingerprint(dataset.used_splits)
        return known[content]

    def fingerprint_weights(self, backbone: BackboneConfig) -> str | None:
        """Compute the fingerprint of the local weights file of a backbone, which is read once by this lab.

        Args:
            backbone: configuration of the backbone.

        Returns:
            The fingerprint; None if the configuration names no file.

        Raises:
            DataError: the file cannot be read.
            ModelError: the file is missing.
        """
        known, file = self._known_fingerprints, self.find_weights_file(backbone)
        if file is None:
            return None
        if file not in known:
            known[file] = f"sha256:{hash_file(file)}"
        return known[file]

    def has_data(self, dataset: DatasetConfig) -> bool:
        """Return whether the folders of a dataset exist; whether their content is complete is not checked.

        Args:
            dataset: configuration of the dataset.
        """
        try:
            return all(exists(_cut_at_split(folder)) for folder in self._find_data_folders(dataset))
        except DataError:  # no data root is set
            return False

    def _find_data_folders(self, dataset: DatasetConfig) -> list[Path]:
        if isinstance(dataset, KnownDataset):
            return [find_dataset_folder(self.data_root, dataset.folder, dataset.type)]
        if isinstance(dataset, FolderDataset):
            return [self.find_data_folder(folder) for folder in (dataset.images, dataset.masks)]
        if isinstance(dataset, CustomDataset) and dataset.folder is not None:
            return [self.find_data_folder(dataset.folder, dataset.type)]
        return []

    @cached_property
    def _known_fingerprints(self) -> dict[str | Path, str]:
        """Fingerprints by the `repr` of a dataset, and by weights file."""
        return {}

    @cached_property
    def _known_datasets(self) -> dict[str, Dataset]:
        """Datasets that were opened once, by the `repr` of their configuration."""
        return {}

    @cached_property
    def _listings(self) -> dict[tuple[str, ...], Listing]:
        """Listed folders of the datasets that were opened once."""
        return {}


def _cut_at_split(path: Path) -> Path:
    """Return the part of a path before the first folder whose name contains `{split}`."""
    before, split, _ = str(path).partition(SPLIT)
    return Path(f"{before}split").parent if split else path


def _find_attribute_problem(dataset: Dataset) -> str | None:
    """Return the first attribute that the class of a dataset lacks, or that is no sequence of names."""
    required = ("root", "split_names", "expected_layout") if isinstance(dataset, FileDataset) else ()
    for name in ("classes", *required):
        if not hasattr(dataset, name):
            remedy = "call `super().__init__(root)` in its constructor" if name == "root" else "define it in the class"
            return f"does not set `{name}`; {remedy}"
    for name in ("classes", "split_names"):
        names = getattr(dataset, name, ())
        if not (isinstance(names, tuple | list) and all(isinstance(each, str) for each in names)):
            return f"`{name}` is {reprlib.repr(names)}; valid: a tuple of names, such as ('road', 'tree')"
    return None


def _parse_trackers(text: str) -> tuple[str, ...]:
    """Return the names of trackers in a text such as `mlflow,tensorboard`; none for `none`."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if "none" in names and len(names) > 1:
        raise ConfigError(f"--tracker {text}: none cannot be combined with other trackers; remove it")
    return () if names == ("none",) else names


def _env_path(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value) if value else None
