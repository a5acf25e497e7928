"""What one would say to get a cell: the names of its parts, and each field that differs from the catalogue's entry."""

from __future__ import annotations

from collections.abc import Iterator

from fcnlab.config.base import Config
from fcnlab.config.grid.axes import COMPONENTS, INIT_FROM, Value, value_in
from fcnlab.config.grid.cell import Cell
from fcnlab.config.registry import Registry


def said_of(cell: Cell, registry: Registry) -> dict[str, Value]:
    """What `resolve` makes this very cell of, whatever grid file it came from: by axis, with nothing left open."""
    parts = _parts(cell)
    said: dict[str, Value] = {part: cell.names[part] for part in COMPONENTS}
    for part, config in parts.items():
        said |= dict(_changes(part, registry.get(part, cell.names[part]), config))
    if isinstance(cell.init_from, Cell):
        first = said_of(cell.init_from, registry)
        # What the cell says holds for what it starts from too, unless that says otherwise.
        fields = {axis: _field(_parts(cell.init_from), axis) for axis in said if axis not in first}
        said[INIT_FROM] = {
            axis: value for axis, value in (fields | first).items() if axis not in said or said[axis] != value
        }
    elif cell.init_from is not None:
        said[INIT_FROM] = cell.init_from
    return said


def _parts(cell: Cell) -> dict[str, Config]:
    variant = cell.variant
    configs = (variant.backbone, variant.head, variant.upsampler, cell.dataset, cell.recipe)
    return dict(zip(COMPONENTS, configs, strict=True))


def _field(parts: dict[str, Config], axis: str) -> Value:
    part, _, path = axis.partition(".")
    return value_in(parts[part], path)


def _changes(axis: str, entry: Config, config: Config) -> Iterator[tuple[str, Value]]:
    """The fields that are not as the entry has them, by axis; documentation is not looked at."""
    plain = config.model_dump(mode="json")
    for name in type(config).model_fields:
        before, now = getattr(entry, name), getattr(config, name)
        if name == "description" or before == now:
            continue
        if isinstance(now, Config) and type(before) is type(now):
            yield from _changes(f"{axis}.{name}", before, now)
        else:
            yield f"{axis}.{name}", now.content() if isinstance(now, Config) else plain[name]
