"""Extensions of installed packages, which declare them as entry points."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar

from fcnlab.errors import ConfigError
from fcnlab.extensions.guard import USER_ERRORS, describe_import_error


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
        """The location of its definition, for error messages."""
        return f"package {self.fingerprint}: entry point {self.entry.group}: {self.entry.name}"

    @property
    def fingerprint(self) -> str:
        """Name and version of the package, such as `fcn-heads==1.2`."""
        assert self.entry.dist is not None
        return f"{self.entry.dist.name}=={self.entry.dist.version}"

    def check_allowed(self) -> None:
        """Accept the package, which the user has installed."""

    def load(self) -> Any:
        """Import the class.

        Raises:
            ConfigError: it cannot be imported.
        """
        try:
            return self.entry.load()
        except USER_ERRORS as error:
            raise ConfigError(f"{self.where}: {self.entry.value}: {describe_import_error(error)}") from error
