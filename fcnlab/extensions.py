"""Heads, dataset types and executors from a user's own package or lab.

A package declares its classes as entry points of the groups `fcnlab.heads`, `fcnlab.datasets` and `fcnlab.executors`.
A lab lists them in `registry/extensions.yaml`. Nothing is imported before a configuration names a type that is not
built in, and Python files of a lab are only run if the user allows it. See `docs/extending.md`.
"""

from __future__ import annotations

import hashlib
import os
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path, PurePosixPath
from types import MappingProxyType, ModuleType
from typing import Annotated, Any, ClassVar, TypeVar, get_args

from pydantic import AfterValidator, Field

from fcnlab.config.base import Config, models_in
from fcnlab.config.dataset import AnyDataset, CustomDataset, Dataset
from fcnlab.config.head import AnyHead, CustomHead, Head
from fcnlab.config.validation import validate
from fcnlab.config.yaml_file import read
from fcnlab.errors import ConfigError, nearest
from fcnlab.settings import ALLOW_EXTENSIONS_VARIABLE, ExecutorName

T = TypeVar("T")


def _builtin_types(union: Any) -> tuple[str, ...]:
    return tuple(name for model in models_in(union) for name in get_args(model.model_fields["type"].annotation))


BUILTIN: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"head": _builtin_types(AnyHead), "dataset": _builtin_types(AnyDataset), "executor": get_args(ExecutorName)}
)
"""Names that extensions cannot have, by kind."""

LISTING = Path("registry") / "extensions.yaml"
"""The file of a lab that lists its extensions, relative to the lab."""


def _check_target(target: str) -> str:
    file, _, class_name = target.rpartition(":")
    path = PurePosixPath(file)
    if path.suffix != ".py" or not class_name.isidentifier():
        raise ValueError(f"'{target}' is not FILE.py:CLASS, such as extensions/my_head.py:MyHead")
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"'{file}' is not below the lab; give a path relative to the lab")
    return target


_Targets = dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], Annotated[str, AfterValidator(_check_target)]]


class Listing(Config):
    """Content of `registry/extensions.yaml`: `FILE.py:CLASS` by name.

    Attributes:
        heads: classes of heads by `type`.
        datasets: classes of datasets by `type`.
        executors: classes of executors by name.
    """

    heads: _Targets = {}  # noqa: RUF012 - pydantic copies defaults
    datasets: _Targets = {}  # noqa: RUF012 - pydantic copies defaults
    executors: _Targets = {}  # noqa: RUF012 - pydantic copies defaults


@dataclass(frozen=True)
class LabExtension:
    """A class in a Python file of a lab.

    Attributes:
        where: the place of its definition, for error messages.
        root: folder of the lab.
        file: path of the Python file, relative to the lab.
        class_name: name of the class in the file.
    """

    where: str
    root: Path
    file: Path
    class_name: str

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the Python file. The file is not run.

        Raises:
            ConfigError: the file cannot be read.
        """
        return f"sha256:{hashlib.sha256(self._read()).hexdigest()}"

    @property
    def files(self) -> list[Path]:
        """The files that a copy of the lab needs, relative to the lab."""
        return [LISTING, self.file]

    @property
    def is_allowed(self) -> bool:
        """True if the user has allowed to run the Python files of labs."""
        return os.environ.get(ALLOW_EXTENSIONS_VARIABLE) == "1"

    def load(self) -> Any:
        """Run the Python file and return the class.

        Raises:
            ConfigError: the user has not allowed it, the file has an error, or it does not define the class.
        """
        path, source = self.root / self.file, self._read()
        if not self.is_allowed:
            raise ConfigError(
                f"{self.where}: this would run the lab's Python file {path}, which is not allowed; if you trust it, "
                f"run `fcnlab --allow-extensions ...` or set {ALLOW_EXTENSIONS_VARIABLE}=1"
            )
        module = self._run(path, source)
        if not hasattr(module, self.class_name):
            classes = [name for name, value in vars(module).items() if _is_defined_in(value, module)]
            raise ConfigError(f"{self.where}: {path} has no '{self.class_name}'; {nearest(self.class_name, classes)}")
        return getattr(module, self.class_name)

    def _read(self) -> bytes:
        path = self.root / self.file
        try:
            return path.read_bytes()
        except OSError as error:
            raise ConfigError(f"{self.where}: {path}: cannot be read: {error.strerror}") from None

    def _run(self, path: Path, source: bytes) -> ModuleType:
        """Return the module of a file; it is run once per process and content."""
        digest = hashlib.sha256(source).hexdigest()[:16]
        name = f"fcnlab_extension_{digest}"
        if name in sys.modules:
            return sys.modules[name]
        spec = spec_from_file_location(name, path)
        assert spec is not None
        module = sys.modules[name] = module_from_spec(spec)
        try:
            exec(compile(source, str(path), "exec"), vars(module))  # the user has allowed it
        except Exception as error:
            del sys.modules[name]
            lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
            at = f", line {lines[-1]}" if lines else ""
            raise ConfigError(f"{self.where}: {path}{at}: {type(error).__name__}: {error}") from error
        return module


@dataclass(frozen=True)
class PackageExtension:
    """A class of an installed package, declared as an entry point.

    Attributes:
        entry: the entry point.
    """

    entry: EntryPoint
    files: tuple[Path, ...] = ()
    is_allowed: ClassVar[bool] = True

    @property
    def where(self) -> str:
        """The place of its definition, for error messages."""
        return f"package {self.fingerprint}: entry point {self.entry.group}: {self.entry.name}"

    @property
    def fingerprint(self) -> str:
        """Name and version of the package, such as `fcn-heads==1.2`."""
        assert self.entry.dist is not None
        return f"{self.entry.dist.name}=={self.entry.dist.version}"

    def load(self) -> Any:
        """Import the class.

        Raises:
            ConfigError: it cannot be imported.
        """
        try:
            return self.entry.load()
        except Exception as error:
            raise ConfigError(f"{self.where}: {self.entry.value}: {type(error).__name__}: {error}") from error


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
            kind: `head`, `dataset` or `executor`.

        Returns:
            The extensions by name.

        Raises:
            ConfigError: `registry/extensions.yaml` is invalid, or has the name of a built-in class.
        """
        if self.root is None or not (self.root / LISTING).exists():
            return {}
        path = self.root / LISTING
        found = {}
        for name, target in getattr(validate(Listing, read(path), str(path)), f"{kind}s").items():
            file, _, class_name = target.rpartition(":")
            found[name] = LabExtension(f"{path}: {kind}s: {name}", self.root, Path(file), class_name)
            _check_not_builtin(kind, name, found[name])
        return found

    def list(self, kind: str) -> dict[str, Extension]:
        """Return all extensions of a kind.

        Args:
            kind: `head`, `dataset` or `executor`.

        Returns:
            The extensions by name.

        Raises:
            ConfigError: a name is defined twice, or is that of a built-in class.
        """
        found: dict[str, Extension] = dict(self.own(kind))
        for entry in entry_points(group=f"fcnlab.{kind}s"):
            extension = PackageExtension(entry)
            _check_not_builtin(kind, entry.name, extension)
            other = found.setdefault(entry.name, extension)
            if other.where != extension.where:
                raise ConfigError(
                    f"{kind} '{entry.name}' is defined twice, in {other.where} and in {extension.where}; rename one"
                )
        return found

    def find(self, kind: str, name: str, where: str = "") -> Extension:
        """Return an extension without loading its code.

        Args:
            kind: `head`, `dataset` or `executor`.
            name: the `type` of a head or dataset, or the name of an executor.
            where: start of the error message.

        Returns:
            The extension.

        Raises:
            ConfigError: there is none with this name; or as `list`.
        """
        found = self.list(kind)
        if name not in found:
            term = "executor" if kind == "executor" else f"{kind} type"
            valid = nearest(name, [*BUILTIN[kind], *found])
            raise ConfigError(f"{where}{term} '{name}' is neither built in nor an extension; {valid}")
        return found[name]

    def load(self, kind: str, name: str, base: type[T]) -> type[T]:
        """Import the class of an extension.

        Args:
            kind: `head`, `dataset` or `executor`.
            name: the `type` of a head or dataset, or the name of an executor.
            base: the class that it must be a subclass of.

        Returns:
            The class.

        Raises:
            ConfigError: no such extension, it cannot be imported, it is not allowed, or it is not a subclass of `base`.
        """
        extension = self.find(kind, name)
        found = extension.load()
        if not (isinstance(found, type) and issubclass(found, base)):
            what = getattr(found, "__name__", repr(found))
            raise ConfigError(f"{extension.where}: {what} is not a subclass of {base.__module__}.{base.__name__}")
        return found

    def used(self, head: Head, dataset: Dataset | None = None) -> dict[str, Extension]:
        """Return the extensions that a trial uses.

        Args:
            head: configuration of its head.
            dataset: configuration of its dataset; None leaves out the dataset.

        Returns:
            The extensions by kind; empty if both are built in.

        Raises:
            ConfigError: as `find`.
        """
        specs = {"head": head, "dataset": dataset}
        return {
            kind: self.find(kind, spec.type)
            for kind, spec in specs.items()
            if isinstance(spec, CustomHead | CustomDataset)
        }

    def fingerprints(self, head: Head, dataset: Dataset | None = None) -> dict[str, str]:
        """Return the fingerprints of the code of the extensions that a trial uses.

        Args:
            head: configuration of its head.
            dataset: configuration of its dataset; None leaves out the dataset.

        Returns:
            `sha256:...` of a Python file or `NAME==VERSION` of a package, by kind.

        Raises:
            ConfigError: as `find`, or a file cannot be read.
        """
        return {kind: extension.fingerprint for kind, extension in self.used(head, dataset).items()}


def _check_not_builtin(kind: str, name: str, extension: Extension) -> None:
    if name in BUILTIN[kind]:
        raise ConfigError(
            f"{kind} '{name}' is defined twice, built in to fcnlab and in {extension.where}; choose another name"
        )


def _is_defined_in(value: object, module: ModuleType) -> bool:
    return isinstance(value, type) and value.__module__ == module.__name__
