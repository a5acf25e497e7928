"""Extensions in Python files of a lab, which its `registry/extensions.yaml` lists."""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from fcnlab.config.base import Config
from fcnlab.errors import ConfigError, nearest
from fcnlab.extensions.guard import USER_ERRORS, describe_import_error, find_line
from fcnlab.paths import check_regular_file
from fcnlab.settings import ALLOW_EXTENSIONS_VARIABLE

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
        losses: classes of loss terms by `type`.
        transforms: classes of transforms by `type`.
        executors: classes of executors by name.
        trackers: classes of trackers by name.
    """

    heads: _Targets = {}  # noqa: RUF012 - pydantic copies defaults
    datasets: _Targets = {}  # noqa: RUF012 - pydantic copies defaults
    losses: _Targets = {}  # noqa: RUF012 - pydantic copies defaults
    transforms: _Targets = {}  # noqa: RUF012 - pydantic copies defaults
    executors: _Targets = {}  # noqa: RUF012 - pydantic copies defaults
    trackers: _Targets = {}  # noqa: RUF012 - pydantic copies defaults


def plural(kind: str) -> str:
    """Return the key of a kind in `registry/extensions.yaml`, which is also the end of the name of its entry points.

    Args:
        kind: a kind of extension, such as `head`.
    """
    return f"{kind}es" if kind.endswith("s") else f"{kind}s"


@dataclass(frozen=True)
class LabExtension:
    """A class in a Python file of a lab.

    Attributes:
        where: the location of its definition, for error messages.
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

    def check_allowed(self) -> None:
        """Check that the user has allowed to run the Python files of labs.

        Raises:
            ConfigError: the user has not allowed it.
        """
        if not self.is_allowed:
            raise ConfigError(
                f"{self.where}: this would run the lab's Python file {self.root / self.file}, which is not allowed; "
                f"if you trust it, run `fcnlab --allow-extensions ...` or set {ALLOW_EXTENSIONS_VARIABLE}=1"
            )

    def load(self) -> Any:
        """Run the Python file and return the class.

        Raises:
            ConfigError: the user has not allowed it, the file has an error, or it does not define the class.
        """
        path, source = self.root / self.file, self._read()
        self.check_allowed()
        module = self._run(path, source)
        if not hasattr(module, self.class_name):
            names = [name for name, value in vars(module).items() if _is_defined_in(value, module)]
            raise ConfigError(f"{self.where}: {path} has no '{self.class_name}'; {nearest(self.class_name, names)}")
        return getattr(module, self.class_name)

    def _read(self) -> bytes:
        path = self.root / self.file
        try:
            check_regular_file(path)
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
        except USER_ERRORS as error:
            del sys.modules[name]
            line = find_line(error, str(path))
            at = f", line {line}" if line else ""
            raise ConfigError(f"{self.where}: {path}{at}: {describe_import_error(error)}") from error
        return module


def _is_defined_in(value: object, module: ModuleType) -> bool:
    return isinstance(value, type) and value.__module__ == module.__name__
