"""Search for image files to predict, and names for the files of their predictions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from fcnlab.data.datasets.image_file import IMAGE_EXTENSIONS
from fcnlab.errors import DataError
from fcnlab.paths import resolve_path


@dataclass(frozen=True)
class ImageFile:
    """An image file to predict.

    Attributes:
        path: path of the file.
        relative: its path relative to the folder that was searched; the file name if the file itself was given.
    """

    path: Path
    relative: PurePath


def find_images(paths: Iterable[Path], exclude: Path) -> list[ImageFile]:
    """Return the given files, and all images in the given folders at any depth, sorted by path.

    Hidden files and folders are ignored. A file is accepted with any extension; duplicates are dropped.

    Args:
        paths: files and folders.
        exclude: folder that is not searched, such as the output folder.

    Raises:
        DataError: a folder contains no images.
    """
    found: dict[Path, ImageFile] = {}
    for path in paths:
        images = _search_folder(path, exclude) if path.is_dir() else [ImageFile(path, PurePath(path.name))]
        if not images:
            raise DataError(f"{path}: contains no images ({', '.join(IMAGE_EXTENSIONS)})")
        for image in images:
            found.setdefault(resolve_path(image.path), image)
    return list(found.values())


def _search_folder(folder: Path, exclude: Path) -> list[ImageFile]:
    files = [ImageFile(file, file.relative_to(folder)) for file in sorted(folder.rglob("*")) if file.is_file()]
    return [
        file
        for file in files
        if file.path.suffix.lower() in IMAGE_EXTENSIONS
        and not any(part.startswith(".") for part in file.relative.parts)
        and resolve_path(exclude) not in resolve_path(file.path).parents
    ]


def choose_output_names(images: Sequence[ImageFile]) -> list[str]:
    """Return a unique name for the predictions of each image: its relative path without the extension.

    If two images have the same name, such as `cat.jpg` and `cat.png`, their names keep the extension. Names are
    compared without regard to case, because some file systems ignore case.

    Args:
        images: the image files.

    Returns:
        One name per image, in the same order.

    Raises:
        DataError: two images have the same relative path, such as `cat.jpg` of `a/cat.jpg` and `b/cat.jpg`.
    """
    short = [image.relative.with_suffix("").as_posix() for image in images]
    occurrences = Counter(name.lower() for name in short)
    names = [
        name if occurrences[name.lower()] == 1 else image.relative.as_posix()
        for name, image in zip(short, images, strict=True)
    ]
    first: dict[str, ImageFile] = {}
    for name, image in zip(names, images, strict=True):
        other = first.setdefault(name.lower(), image)
        if other is not image:
            raise DataError(
                f"{other.path} and {image.path} would both be written as '{name}'; pass the folder that contains both, "
                "or predict them into two folders"
            )
    return names
