"""`fcnlab data cache`: manage the cache of decoded samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from fcnlab.cli.data.entry import DatasetName, dataset_entry
from fcnlab.cli.options import DataRoot, LabOption
from fcnlab.cli.output import AsJson, print_json
from fcnlab.console import create_console, format_table
from fcnlab.errors import DataError

if TYPE_CHECKING:
    from fcnlab.data.cache.maintenance import CacheInfo

app = typer.Typer(help="Manage the cache of decoded samples.", no_args_is_help=True)

SHOWN = 12
"""Digits of a key in the list; all commands accept unique prefixes of keys."""

Keys = Annotated[list[str] | None, typer.Argument(metavar="KEY", help="Keys, or unique prefixes of keys")]


@app.command("list", epilog="Example: fcnlab data cache list")
def list_(as_json: AsJson = False) -> None:
    """List the caches with their sizes, last use and state."""
    from fcnlab.data.cache.format import decoded_cache_folder
    from fcnlab.data.cache.maintenance import list_caches

    found = list_caches()
    folder = decoded_cache_folder()
    if as_json:
        print_json({"folder": folder, "caches": [_describe(one) for one in found]})
        return
    if not found:
        typer.echo(f"{folder}: nothing is cached")
        return
    headings = ("key", "dataset", "split", "images", "MiB", "built", "last used", "state")
    rows = [_format_row(one) for one in found]
    terminal = create_console()
    terminal.print(format_table(headings, rows, terminal.width, numbers=(0, 3, 4), optional=(5, 6)))
    typer.echo(f"{folder}: {sum(one.size for one in found) / 2**20:.1f} MiB; times are UTC")


def _format_row(one: CacheInfo) -> tuple[str, ...]:
    images = "" if one.images is None else str(one.images)
    built, used = one.made[:16].replace("T", " "), f"{one.used:%Y-%m-%d %H:%M}"
    return one.key[:SHOWN], one.dataset, one.split, images, f"{one.size / 2**20:.1f}", built, used, one.state


def _describe(one: CacheInfo) -> dict[str, Any]:
    """Return the facts about a cache as JSON values."""
    facts = {"key": one.key, "dataset": one.dataset, "split": one.split, "images": one.images, "bytes": one.size}
    return facts | {"built": one.made, "last_used": one.used.isoformat(), "state": one.state}


@app.command("make", epilog="Example: fcnlab data cache make camvid --data-root ~/data")
def make(name: DatasetName, lab: LabOption = None, data_root: DataRoot = None) -> None:
    """Decode a dataset into the cache before any trial needs it. Exit code 2 if that is not possible."""
    from fcnlab.cli.data.progress import sample_bars
    from fcnlab.data.cache.budget import CacheUnavailableError
    from fcnlab.data.cache.build import open_or_build_cache
    from fcnlab.lab import Lab

    lab_ = Lab.find(root=lab, data_root=data_root)
    spec = dataset_entry(lab_, name)
    dataset = lab_.open_dataset(spec)
    for split in spec.used_splits:
        try:
            with sample_bars() as bars:
                index = open_or_build_cache(dataset, split, bars).index
        except CacheUnavailableError as reason:
            raise DataError(f"{name} {split}: {reason}") from None
        typer.echo(f"{split}: {len(index.ids)} images, {index.sizes.sum() / 2**20:.1f} MiB, {index.key}")


@app.command("verify", epilog="Example: fcnlab data cache verify")
def verify(keys: Keys = None) -> None:
    """Compare every sample with its checksum. Exit code 2 if one differs."""
    from fcnlab.cli.data.progress import sample_bars
    from fcnlab.data.cache.maintenance import find_caches, find_problems, list_caches

    chosen = find_caches(keys) if keys else [c for c in list_caches() if c.state not in ("being built", "interrupted")]
    broken = []
    for one in chosen:
        with sample_bars() as bars:
            found = list(find_problems(one, bars(f"{one.dataset} {one.split}", one.images or 0)))
        broken += found
        what = f"{one.dataset} {one.split}, {one.images} images" if one.complete else "incomplete"
        typer.echo(f"{one.key}: {what}: {len(found)} problems")
    if broken:
        raise DataError("\n".join(broken))


@app.command("clear", epilog="Example: fcnlab data cache clear --older-than 30")
def clear(
    keys: Keys = None,
    all_: Annotated[bool, typer.Option("--all", help="Remove all caches")] = False,
    older_than: Annotated[
        float | None,
        typer.Option("--older-than", min=0, metavar="DAYS", help="Remove caches that were not used for this time"),
    ] = None,
) -> None:
    """Remove caches. Running trials are not affected; the next trial decodes its samples again."""
    from fcnlab.data.cache.maintenance import remove_cache

    freed = 0
    for one in _chosen(keys or [], all_, older_than):
        if remove_cache(one):
            freed += one.size
            typer.echo(f"{one.key}: removed")
        else:
            typer.echo(f"{one.key}: is being built and was kept")
    typer.echo(f"{freed / 2**20:.1f} MiB freed")


def _chosen(keys: list[str], all_: bool, older_than: float | None) -> list[CacheInfo]:
    from datetime import timedelta

    from fcnlab.data.cache.maintenance import find_caches, find_unused_caches, list_caches

    if bool(keys) + all_ + (older_than is not None) != 1:
        raise DataError("fcnlab data cache clear: specify what to remove: one of KEY..., --all, --older-than DAYS")
    if keys:
        return find_caches(keys)
    return list_caches() if older_than is None else find_unused_caches(timedelta(days=older_than))
