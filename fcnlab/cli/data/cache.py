"""`fcnlab data cache`: manage the cache of decoded samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from fcnlab.cli.options import DataRoot, DatasetName, LabOption
from fcnlab.cli.output import AsJson, print_json, sample_bars
from fcnlab.console import create_console, format_count, format_table
from fcnlab.constants import KEY_DIGITS
from fcnlab.errors import DataError

if TYPE_CHECKING:
    from fcnlab.data.cache.maintenance import CacheInfo

app = typer.Typer(help="Manage the cache of decoded samples.", no_args_is_help=True)

Keys = Annotated[list[str] | None, typer.Argument(metavar="KEY", help="Keys, or unique prefixes of keys")]


@app.command("list", epilog="Example: fcnlab data cache list")
def list_(as_json: AsJson = False) -> None:
    """List the caches with their sizes, last use and state."""
    from fcnlab.data.cache.format import decoded_cache_folder
    from fcnlab.data.cache.maintenance import list_caches

    caches = list_caches()
    folder = decoded_cache_folder()
    if as_json:
        print_json({"folder": folder, "caches": [_describe(cache) for cache in caches]})
        return
    if not caches:
        typer.echo(f"{folder}: nothing is cached")
        return
    headings = ("key", "dataset", "split", "images", "MiB", "built", "last used", "state")
    rows = [_format_row(cache) for cache in caches]
    terminal = create_console()
    terminal.print(format_table(headings, rows, terminal.width, numbers=(0, 3, 4), optional=(5, 6)))
    typer.echo(f"{folder}: {sum(cache.size for cache in caches) / 2**20:.1f} MiB; times are UTC")


def _format_row(cache: CacheInfo) -> tuple[str, ...]:
    images = "" if cache.images is None else str(cache.images)
    built, used = cache.made[:16].replace("T", " "), f"{cache.used:%Y-%m-%d %H:%M}"
    size = f"{cache.size / 2**20:.1f}"
    return cache.key[:KEY_DIGITS], cache.dataset, cache.split, images, size, built, used, cache.state


def _describe(cache: CacheInfo) -> dict[str, Any]:
    """Return the description of a cache as JSON values."""
    return {
        "key": cache.key,
        "dataset": cache.dataset,
        "split": cache.split,
        "images": cache.images,
        "bytes": cache.size,
        "built": cache.made,
        "last_used": cache.used.isoformat(),
        "state": cache.state,
    }


@app.command("make", epilog="Example: fcnlab data cache make camvid --data-root ~/data")
def make(name: DatasetName, lab: LabOption = None, data_root: DataRoot = None) -> None:
    """Decode a dataset into the cache before any trial needs it. Exit code 2 if that is not possible."""
    from fcnlab.data.cache.budget import CacheUnavailableError
    from fcnlab.data.cache.build import open_or_build_cache
    from fcnlab.lab import Lab

    lab_ = Lab.find(root=lab, data_root=data_root)
    spec = lab_.registry.get("dataset", name)
    dataset = lab_.open_dataset(spec)
    for split in spec.used_splits:
        try:
            with sample_bars() as bars:
                index = open_or_build_cache(dataset, split, bars).index
        except CacheUnavailableError as reason:
            raise DataError(f"{name} {split}: {reason}") from None
        images = format_count(len(index.ids), "image")
        typer.echo(f"{split}: {images}, {index.sizes.sum() / 2**20:.1f} MiB, {index.key}")


@app.command("verify", epilog="Example: fcnlab data cache verify")
def verify(keys: Keys = None) -> None:
    """Compare every sample with its checksum. Exit code 2 if one differs."""
    from fcnlab.data.cache.maintenance import find_caches, find_problems, list_caches

    unfinished = ("being built", "interrupted")
    caches = find_caches(keys) if keys else [cache for cache in list_caches() if cache.state not in unfinished]
    all_problems = []
    for cache in caches:
        with sample_bars() as bars:
            problems = list(find_problems(cache, bars(f"{cache.dataset} {cache.split}", cache.images or 0)))
        all_problems += problems
        images = format_count(cache.images or 0, "image")
        content = f"{cache.dataset} {cache.split}, {images}" if cache.complete else "incomplete"
        typer.echo(f"{cache.key}: {content}: {format_count(len(problems), 'problem')}")
    if all_problems:
        raise DataError("\n".join(all_problems))


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
    for cache in _select_caches(keys or [], all_, older_than):
        if remove_cache(cache):
            freed += cache.size
            typer.echo(f"{cache.key}: removed")
        else:
            typer.echo(f"{cache.key}: is being built and was kept")
    typer.echo(f"{freed / 2**20:.1f} MiB freed")


def _select_caches(keys: list[str], all_: bool, older_than: float | None) -> list[CacheInfo]:
    from datetime import timedelta

    from fcnlab.data.cache.maintenance import find_caches, find_unused_caches, list_caches

    if bool(keys) + all_ + (older_than is not None) != 1:
        raise DataError("fcnlab data cache clear: specify what to remove: one of KEY..., --all, --older-than DAYS")
    if keys:
        return find_caches(keys)
    return list_caches() if older_than is None else find_unused_caches(timedelta(days=older_than))
