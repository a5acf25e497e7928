"""Which images are predicted, and what the files are called that come of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from fcnlab.data.datasets.folder import IMAGE_EXTENSIONS
from fcnlab.errors import DataError


@dataclass(frozen=True)
class Source:
    """An image file, and its path below the folder that was named; of a file that was named itself, its name."""

    file: Path
    below: PurePath


def find_images(named: Iterable[Path], apart: Path) -> list[Source]:
    """The files that are named, and all images in the folders that are, at any depth, sorted by path.

    Hidden files and folders are passed over, and so is what lies in the folder `apart`, which is written to. A file
    that is named is taken whatever it is called; what is named twice is taken once.

    Raises:
        DataError: a folder without images.
    """
    found: dict[Path, Source] = {}
    for path in named:
        inside = _inside(path, apart) if path.is_dir() else [Source(path, PurePath(path.name))]
        if not inside:
            raise DataError(f"{path}: holds no images ({', '.join(IMAGE_EXTENSIONS)})")
        for source in inside:
            found.setdefault(source.file.resolve(), source)
    return list(found.values())


def _inside(folder: Path, apart: Path) -> list[Source]:
    files = [Source(file, file.relative_to(folder)) for file in sorted(folder.rglob("*")) if file.is_file()]
    return [
        source
        for source in files
        if source.file.suffix.lower() in IMAGE_EXTENSIONS
        and not any(part.startswith(".") for part in source.below.parts)
        and apart.resolve() not in source.file.resolve().parents
    ]


def names(sources: Sequence[Source]) -> list[str]:
    """A name for what comes of each source, as its path without the extension; no two are alike.

    Where they would be, as of `cat.jpg` and `cat.png`, the extension stays in the name. Capitals make no difference,
    for there are file systems to which they make none.

    Raises:
        DataError: two sources have one path, as of `a/cat.jpg` and `b/cat.jpg` that were named one by one.
    """
    short = [source.below.with_suffix("").as_posix() for source in sources]
    often = Counter(name.lower() for name in short)
    chosen = [
        name if often[name.lower()] == 1 else source.below.as_posix()
        for name, source in zip(short, sources, strict=True)
    ]
    taken: dict[str, Source] = {}
    for name, source in zip(chosen, sources, strict=True):
        other = taken.setdefault(name.lower(), source)
        if other is not source:
            raise DataError(
                f"{other.file} and {source.file} would both be written as '{name}'; name the folder that holds both, "
                "or predict them into two"
            )
    return chosen
