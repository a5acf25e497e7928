"""The catalogue: what exists, by name. The built-in `registry/` first, then the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from types import MappingProxyType

from fcnlab.config.base import Entry
from fcnlab.config.dataset import Dataset
from fcnlab.config.recipe import Recipe
from fcnlab.config.variant import Backbone, Head, NamedVariant, Upsampler
from fcnlab.config.yaml_file import parse, read, validate
from fcnlab.errors import ConfigError, nearest

KINDS: Mapping[str, type[Entry]] = MappingProxyType(
    {
        "backbone": Backbone,
        "head": Head,
        "upsampler": Upsampler,
        "variant": NamedVariant,
        "dataset": Dataset,
        "recipe": Recipe,
    }
)


TIMM = ("timm:", "scratch:")
"""How the names of backbones begin that come from timm without an entry."""


@dataclass(frozen=True)
class Registry:
    """Entries by kind and name, such as `catalog.get("head", "fcn8s")`."""

    entries: Mapping[str, Mapping[str, Entry]]

    def names(self, kind: str) -> list[str]:
        """All names of a kind, sorted.

        Raises:
            ConfigError: no such kind.
        """
        if kind not in self.entries:
            raise ConfigError(f"'{kind}' is not a kind of the catalogue; {nearest(kind, self.entries)}")
        return sorted(self.entries[kind])

    def get(self, kind: str, name: str, where: str = "catalogue") -> Entry:
        """Look a name up. A backbone is also any `timm:NAME.TAG`, pretrained, or `scratch:NAME` of timm.

        Raises:
            ConfigError: no such kind or name; the message says what is nearest.
        """
        names = self.names(kind)
        if kind == "backbone" and isinstance(name, str) and name.startswith(TIMM):
            return _timm_backbone(name, where)
        if not isinstance(name, str) or name not in self.entries[kind]:
            raise ConfigError(f"{where}: no {kind} '{name}'; {nearest(name, names)}")
        return self.entries[kind][name]

    def extended(self, folder: Path) -> Registry:
        """This catalogue and what the YAML files in `folder` add to it.

        An entry that differs from the one of its name in its description alone is no collision: so a clone of the
        repository, whose own `registry/` is the built-in one, is a lab like any other.

        Raises:
            ConfigError: a faulty file, a file of no known kind, or a name that means something else already.
        """
        merged = {kind: dict(entries) for kind, entries in self.entries.items()}
        for path in sorted(folder.glob("*.y*ml")):
            kind = path.stem.removesuffix("s")
            if kind not in KINDS:
                raise ConfigError(
                    f"{path}: not a file of the catalogue; {nearest(path.stem, (k + 's' for k in KINDS))}"
                )
            for name, entry in _entries(kind, read(path), str(path)).items():
                there = merged[kind].setdefault(name, entry)
                if there.model_dump(exclude={"description"}) != entry.model_dump(exclude={"description"}):
                    raise ConfigError(f"{path}: {name}: the built-in {kind} '{name}' has this name; choose another")
        return _closed(merged, str(folder))


@cache
def builtin() -> Registry:
    """The catalogue that ships with fcnlab."""
    root = shipped("registry")
    entries = {}
    for kind in KINDS:
        file = root.joinpath(f"{kind}s.yaml")
        entries[kind] = _entries(kind, parse(file.read_text(encoding="utf-8"), file.name), file.name)
    return _closed(entries, "registry")


def shipped(name: str) -> Traversable:
    """Return the folder `registry` or `experiments` that ships with fcnlab.

    It is a subpackage of an installed fcnlab. In a checkout that is only on the module search path, it is the folder
    beside the package.
    """
    try:
        return files(f"fcnlab.{name}")
    except ModuleNotFoundError:
        return Path(__file__).resolve().parents[2] / name


def load(folder: Path | None = None) -> Registry:
    """The built-in catalogue, extended by the YAML files of a user's `registry/` where that folder exists."""
    return builtin().extended(folder) if folder is not None and folder.is_dir() else builtin()


def _timm_backbone(name: str, where: str) -> Backbone:
    """A backbone that has no entry. Whether timm has it shows when it is built."""
    source, _, model = name.partition(":")
    if source == "timm" and "." not in model:
        raise ConfigError(f"{where}: '{name}' does not say which weights; give timm's tag, as in timm:resnet18.tv_in1k")
    if not model or (source == "scratch" and "." in model):
        raise ConfigError(f"{where}: '{name}' is not scratch:NAME with a model of timm, such as scratch:resnet18")
    return Backbone(timm=model, weights="timm" if source == "timm" else "scratch")


def _entries(kind: str, values: Mapping[str, object], where: str) -> dict[str, Entry]:
    return {name: validate(KINDS[kind], value, f"{where}: {name}") for name, value in values.items()}


def _closed(entries: Mapping[str, Mapping[str, Entry]], where: str) -> Registry:
    """A catalogue whose variants name parts that exist."""
    registry = Registry(MappingProxyType({kind: MappingProxyType(dict(named)) for kind, named in entries.items()}))
    for name, variant in registry.entries["variant"].items():
        assert isinstance(variant, NamedVariant)
        for part in ("backbone", "head", "upsampler"):
            registry.get(part, getattr(variant, part), f"{where}: variant {name}: {part}")
    return registry
