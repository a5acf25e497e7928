"""The extensions that a lab can use: its own, and those of installed packages."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, get_args

from fcnlab.config.base import literal_types
from fcnlab.config.custom import Custom
from fcnlab.config.dataset import AnyDataset, CustomDataset, Dataset
from fcnlab.config.grid.cell import Cell
from fcnlab.config.head import AnyHead, CustomHead, Head
from fcnlab.config.recipe import Recipe
from fcnlab.config.trial import Trial
from fcnlab.config.validation import validate
from fcnlab.config.yaml_file import read
from fcnlab.errors import ConfigError, FcnlabError, describe_error, nearest
from fcnlab.extensions.guard import USER_ERRORS
from fcnlab.extensions.lab import LISTING, LabExtension, Listing, plural
from fcnlab.extensions.package import PackageExtension
from fcnlab.paths import exists
from fcnlab.settings import ExecutorName, TrackerName

T = TypeVar("T")


BUILTIN: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "head": literal_types(AnyHead),
        "dataset": literal_types(AnyDataset),
        "loss": (),
        "transform": (),
        "executor": get_args(ExecutorName),
        "tracker": (*get_args(TrackerName), "none"),
    }
)
"""Names that extensions cannot have, by kind."""

Extension = LabExtension | PackageExtension


@dataclass(frozen=True)
class Extensions:
    """The extensions that a lab can use: those of its `registry/extensions.yaml`, and those of installed packages.

    Attributes:
        root: folder of the lab; None for installed packages only.
    """

    root: Path | None = None

    def own(self, kind: str) -> dict[str, LabExtension]:
        """Return the extensions of the lab.

        Args:
            kind: `head`, `dataset`, `loss`, `transform`, `executor` or `tracker`.

        Returns:
            The extensions by name.

        Raises:
            ConfigError: `registry/extensions.yaml` is invalid, or has the name of a built-in class.
        """
        if self.root is None or not exists(self.root / LISTING):
            return {}
        path = self.root / LISTING
        extensions = {}
        for name, target in getattr(validate(Listing, read(path), str(path)), plural(kind)).items():
            file, _, class_name = target.rpartition(":")
            extensions[name] = LabExtension(f"{path}: {plural(kind)}: {name}", self.root, Path(file), class_name)
            _check_not_builtin(kind, name, extensions[name])
        return extensions

    def list(self, kind: str) -> dict[str, Extension]:
        """Return all extensions of a kind.

        Args:
            kind: `head`, `dataset`, `loss`, `transform`, `executor` or `tracker`.

        Returns:
            The extensions by name.

        Raises:
            ConfigError: a name is defined twice, or is that of a built-in class.
        """
        extensions: dict[str, Extension] = dict(self.own(kind))
        for entry in entry_points(group=f"fcnlab.{plural(kind)}"):
            extension = PackageExtension(entry)
            _check_not_builtin(kind, entry.name, extension)
            existing = extensions.setdefault(entry.name, extension)
            if existing.where != extension.where:
                raise ConfigError(
                    f"{kind} '{entry.name}' is defined twice, in {existing.where} and in {extension.where}; rename one"
                )
        return extensions

    def find(self, kind: str, name: str, where: str = "") -> Extension:
        """Return an extension without loading its code.

        Args:
            kind: `head`, `dataset`, `loss`, `transform`, `executor` or `tracker`.
            name: the `type` of a head, dataset, loss or transform, or the name of an executor or tracker.
            where: start of the error message.

        Returns:
            The extension.

        Raises:
            ConfigError: there is none with this name; or as `list`.
        """
        extensions = self.list(kind)
        if name not in extensions:
            term = kind if kind in ("executor", "tracker") else f"{kind} type"
            valid = nearest(name, [*BUILTIN[kind], *extensions])
            problem = "is neither built in nor an extension" if BUILTIN[kind] else "is not an extension"
            raise ConfigError(f"{where}{term} '{name}' {problem}; {valid}")
        return extensions[name]

    def load(self, kind: str, name: str, base: type[T]) -> type[T]:
        """Import the class of an extension.

        Args:
            kind: `head`, `dataset`, `loss`, `transform`, `executor` or `tracker`.
            name: the `type` of a head, dataset, loss or transform, or the name of an executor or tracker.
            base: the class that it must be a subclass of.

        Returns:
            The class.

        Raises:
            ConfigError: no such extension, it cannot be imported, it is not allowed, it is not a subclass of `base`, or
                it does not define an abstract method.
        """
        extension = self.find(kind, name)
        loaded = extension.load()
        if not (isinstance(loaded, type) and issubclass(loaded, base)):
            actual = getattr(loaded, "__name__", repr(loaded))
            raise ConfigError(f"{extension.where}: {actual} is not a subclass of {base.__module__}.{base.__name__}")
        missing = sorted(getattr(loaded, "__abstractmethods__", ()))
        if missing:
            raise ConfigError(f"{extension.where}: {loaded.__name__} does not define {', '.join(missing)}")
        return loaded

    def create(
        self, kind: str, name: str, loaded: type[T], *arguments: Any, options: Mapping[str, Any], where: str
    ) -> T:
        """Create an object of the class of an extension.

        Args:
            kind: `dataset`, `loss` or `transform`.
            name: the `type` of the configuration.
            loaded: the class, from `load`.
            arguments: positional arguments of the class.
            options: keyword arguments of the class.
            where: start of the error message about options.

        Returns:
            The object.

        Raises:
            ConfigError: the class does not take the options or cannot be created.
        """
        try:
            inspect.signature(loaded).bind(*arguments, **options)
        except TypeError as error:
            raise ConfigError(f"{where}: its class does not take the options: {error}") from None
        try:
            created = loaded(*arguments, **options)
        except FcnlabError:
            raise
        except USER_ERRORS as error:
            raise ConfigError(
                f"{self.find(kind, name).where}: {loaded.__name__} cannot be created: {describe_error(error)}"
            ) from error
        return created

    def used(self, head: Head, dataset: Dataset | None = None, recipe: Recipe | None = None) -> dict[str, Extension]:
        """Return the extensions that a trial uses.

        Args:
            head: configuration of its head.
            dataset: configuration of its dataset; None leaves out the dataset.
            recipe: configuration of its training; None leaves out the loss and the transform.

        Returns:
            The extensions by kind; empty if all components are built in.

        Raises:
            ConfigError: as `find`.
        """
        return {kind: self.find(kind, name) for kind, name in _custom_types(head, dataset, recipe).items()}

    def fingerprints(self, head: Head, dataset: Dataset | None = None, recipe: Recipe | None = None) -> dict[str, str]:
        """Return the fingerprints of the code of the extensions that a trial uses.

        Args:
            head: configuration of its head.
            dataset: configuration of its dataset; None leaves out the dataset.
            recipe: configuration of its training; None leaves out the loss and the transform.

        Returns:
            `sha256:...` of a Python file or `NAME==VERSION` of a package, by kind.

        Raises:
            ConfigError: as `find`, or a file cannot be read.
        """
        return {kind: extension.fingerprint for kind, extension in self.used(head, dataset, recipe).items()}


def fcnlab_command(*configurations: Cell | Trial) -> str:
    """Return the start of a command that uses configurations: `fcnlab`, and the permission if it needs one.

    Args:
        configurations: cells of a grid or trials.

    Returns:
        `fcnlab --allow-extensions` if a head, dataset, loss or transform is neither built in nor from an installed
        package, so that a Python file of the lab is run; else `fcnlab`.
    """
    packages = Extensions()
    needed = list(configurations)
    for configuration in needed:
        if isinstance(configuration.init_from, Cell):  # which is trained, too
            needed.append(configuration.init_from)
        custom = _custom_types(configuration.variant.head, configuration.dataset, configuration.recipe)
        for kind, name in custom.items():
            if name not in packages.list(kind):
                return "fcnlab --allow-extensions"
    return "fcnlab"


def _custom_types(head: Head, dataset: Dataset | None, recipe: Recipe | None) -> dict[str, str]:
    """Return the types of a configuration that are not built in, by kind."""
    specs: dict[str, Any] = {"head": head, "dataset": dataset}
    if recipe is not None:
        specs |= {"loss": recipe.loss.custom, "transform": recipe.transform}
    custom = CustomHead | CustomDataset | Custom
    return {kind: spec.type for kind, spec in specs.items() if isinstance(spec, custom)}


def _check_not_builtin(kind: str, name: str, extension: Extension) -> None:
    if name in BUILTIN[kind]:
        raise ConfigError(
            f"{kind} '{name}' is defined twice, built in to fcnlab and in {extension.where}; choose another name"
        )
