"""The registry: all components by name, the built-in ones and those of a lab's `registry/` folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, overload

from fcnlab.config.base import Entry
from fcnlab.config.dataset import AnyDataset, Dataset
from fcnlab.config.head import AnyHead
from fcnlab.config.recipe import Recipe
from fcnlab.config.upsampler import AnyUpsampler
from fcnlab.config.validation import validate
from fcnlab.config.variant import Backbone, NamedVariant
from fcnlab.config.yaml_file import parse, read
from fcnlab.errors import ConfigError, nearest
from fcnlab.paths import is_folder

KINDS: Mapping[str, Any] = MappingProxyType(
    {
        "backbone": Backbone,
        "head": AnyHead,
        "upsampler": AnyUpsampler,
        "variant": NamedVariant,
        "dataset": AnyDataset,
        "recipe": Recipe,
    }
)
"""The model, or union of models, of the entries of each kind."""

EXTENSIONS_FILE = "extensions.yaml"
"""File of a lab's `registry/` that `fcnlab.extensions` reads."""

TIMM_PREFIXES = ("timm:", "scratch:")
"""Prefixes of backbones that come from timm without an entry."""


@dataclass(frozen=True)
class Registry:
    """Entries by kind and name, as in `registry.get("head", "fcn8s")`.

    Attributes:
        entries: the entries.
        where: start of error messages: the lab's `registry/`, or `registry` if there are only built-in entries.
    """

    entries: Mapping[str, Mapping[str, Entry]]
    where: str = field(compare=False)

    def names(self, kind: str) -> list[str]:
        """List the names of a kind.

        Args:
            kind: one of `KINDS`.

        Returns:
            The names in alphabetical order.

        Raises:
            ConfigError: unknown kind.
        """
        if kind not in self.entries:
            raise ConfigError(f"unknown kind '{kind}'; {nearest(kind, self.entries)}")
        return sorted(self.entries[kind])

    @overload
    def get(self, kind: Literal["backbone"], name: Any, where: str | None = ...) -> Backbone: ...
    @overload
    def get(self, kind: Literal["variant"], name: Any, where: str | None = ...) -> NamedVariant: ...
    @overload
    def get(self, kind: Literal["dataset"], name: Any, where: str | None = ...) -> Dataset: ...
    @overload
    def get(self, kind: Literal["recipe"], name: Any, where: str | None = ...) -> Recipe: ...
    @overload
    def get(self, kind: str, name: Any, where: str | None = ...) -> Entry: ...
    def get(self, kind: str, name: Any, where: str | None = None) -> Entry:
        """Look up an entry.

        Args:
            kind: one of `KINDS`.
            name: name of an entry; for a backbone also `timm:NAME.TAG`, pretrained, or `scratch:NAME`, any timm model.
            where: start of error messages; None for that of the registry.

        Returns:
            The entry.

        Raises:
            ConfigError: unknown kind or name; the message has the nearest.
        """
        where = self.where if where is None else where
        names = self.names(kind)
        if kind == "backbone" and isinstance(name, str) and name.startswith(TIMM_PREFIXES):
            return _timm_backbone(name, where)
        if not isinstance(name, str) or name not in self.entries[kind]:
            raise ConfigError(f"{where}: no {kind} '{name}'; {nearest(name, names)}")
        return self.entries[kind][name]

    def extend(self, folder: Path) -> Registry:
        """Add the entries of a folder of YAML files.

        An entry that equals the one of the same name, except for its description, is allowed: a clone of the
        repository, whose `registry/` has the built-in entries, is a lab too.

        Args:
            folder: has files such as `heads.yaml` or `recipes.yml`; `extensions.yaml` and hidden files are not read.

        Returns:
            A registry with both.

        Raises:
            ConfigError: an invalid file, a file of no kind, or a name that is already used.
        """
        merged = {kind: dict(entries) for kind, entries in self.entries.items()}
        added: dict[tuple[str, str], Path] = {}  # the files of the new entries
        for path in sorted(folder.glob("*.y*ml")):
            if path.name == EXTENSIONS_FILE or path.name.startswith("."):  # editors and macOS leave hidden files
                continue
            kind = path.stem.removesuffix("s")
            if kind not in KINDS:
                valid = [f"{known}s" for known in KINDS]
                raise ConfigError(f"{path}: not a registry file; {nearest(path.stem, valid)}")
            for name, entry in _validate_entries(kind, read(path), str(path)).items():
                if name not in merged[kind]:
                    merged[kind][name], added[kind, name] = entry, path
                existing = merged[kind][name]
                if existing.model_dump(exclude={"description"}) != entry.model_dump(exclude={"description"}):
                    other = f"a {kind} of {added[kind, name].name}" if (kind, name) in added else f"a built-in {kind}"
                    raise ConfigError(f"{path}: {name}: {other} has this name; choose another")
        return _check_variants(merged, str(folder))


@cache
def builtin() -> Registry:
    """Return the registry that ships with fcnlab."""
    root = shipped("registry")
    entries = {}
    for kind in KINDS:
        file = root.joinpath(f"{kind}s.yaml")
        entries[kind] = _validate_entries(kind, parse(file.read_text(encoding="utf-8"), file.name), file.name)
    return _check_variants(entries, "registry")


def shipped(name: str) -> Traversable:
    """Return a folder that ships with fcnlab.

    Args:
        name: `registry` or `experiments`.

    Returns:
        The subpackage of an installed fcnlab; in a checkout that is only on the module search path, the folder beside
        the package.
    """
    try:
        return files(f"fcnlab.{name}")
    except ModuleNotFoundError:
        return Path(__file__).resolve().parents[2] / name


def load(folder: Path | None = None) -> Registry:
    """Return the built-in registry with the entries of a lab.

    Args:
        folder: the lab's `registry/`; it need not exist.

    Returns:
        The registry.

    Raises:
        ConfigError: as `Registry.extend`.
    """
    return builtin().extend(folder) if folder is not None and is_folder(folder) else builtin()


def _timm_backbone(name: str, where: str) -> Backbone:
    """Return a backbone without an entry; an unknown model is reported when it is built."""
    source, _, model = name.partition(":")
    if source == "timm" and "." not in model:
        raise ConfigError(f"{where}: '{name}' has no tag of weights; add timm's tag, as in timm:resnet18.tv_in1k")
    if not model or (source == "scratch" and "." in model):
        raise ConfigError(f"{where}: '{name}' is not scratch:NAME with a timm model, such as scratch:resnet18")
    return Backbone(timm=model, weights="timm" if source == "timm" else "scratch")


def _validate_entries(kind: str, values: Mapping[str, object], where: str) -> dict[str, Entry]:
    return {name: validate(KINDS[kind], value, f"{where}: {name}") for name, value in values.items()}


def _check_variants(entries: Mapping[str, Mapping[str, Entry]], where: str) -> Registry:
    """Return a registry; check that its variants name existing components."""
    frozen = MappingProxyType({kind: MappingProxyType(dict(named)) for kind, named in entries.items()})
    registry = Registry(frozen, where)
    for name, variant in registry.entries["variant"].items():
        for component in ("backbone", "head", "upsampler"):
            registry.get(component, getattr(variant, component), f"{where}: variant {name}: {component}")
    return registry
