"""Search for image files to predict, and names for the files of their predictions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from fcnlab.data.datasets.folder import list_images
from fcnlab.data.datasets.image_file import IMAGE_EXTENSIONS
from fcnlab.errors import DataError
from fcnlab.paths import exists, fold_name, is_folder, resolve_path


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

    Hidden files and folders are ignored, and links are followed. A file is accepted with any extension, and returned
    once, unless links give it several names.

    Args:
        paths: files and folders.
        exclude: folder that is not searched, such as the output folder.

    Raises:
        DataError: a path does not exist, a folder contains no images, or it is in the excluded folder.
    """
    by_target: dict[tuple[Path, str], ImageFile] = {}
    given: set[Path] = set()
    for path in paths:
        if not exists(path):
            raise DataError(f"{path}: no such file or folder")
        images = _search_folder(path, exclude) if is_folder(path) else [ImageFile(path, PurePath(path.name))]
        if not images:
            raise DataError(f"{path}: contains no images ({', '.join(IMAGE_EXTENSIONS)})")
        for image in images:
            absolute = image.path.absolute()
            if absolute not in given:
                given.add(absolute)
                by_target.setdefault((resolve_path(image.path), image.relative.as_posix()), image)
    return list(by_target.values())


def _search_folder(folder: Path, exclude: Path) -> list[ImageFile]:
    """Return the images in a folder, without those in the excluded folder."""
    output = resolve_path(exclude)
    if resolve_path(folder).is_relative_to(output):
        raise DataError(f"{folder}: is in the output folder {exclude}, which is not searched; choose another --out")
    outside = [file for file in list_images(str(folder)) if output not in resolve_path(file).parents]
    return [ImageFile(file, file.relative_to(folder)) for file in outside]


def choose_output_names(images: Sequence[ImageFile]) -> list[str]:
    """Return a unique name for the predictions of each image: its relative path without the extension.

    If two images have the same name, such as `cat.jpg` and `cat.png`, their names keep the extension. Names are
    compared without regard to case and to the form of accents, because some file systems ignore them.

    Args:
        images: the image files.

    Returns:
        One name per image, in the same order.

    Raises:
        DataError: two images have the same relative path, such as `cat.jpg` of `a/cat.jpg` and `b/cat.jpg`.
    """
    short = [image.relative.with_suffix("").as_posix() for image in images]
    occurrences = Counter(map(fold_name, short))
    names = [
        name if occurrences[fold_name(name)] == 1 else image.relative.as_posix()
        for name, image in zip(short, images, strict=True)
    ]
    first: dict[str, ImageFile] = {}
    for name, image in zip(names, images, strict=True):
        earlier = first.setdefault(fold_name(name), image)
        if earlier is not image:
            raise DataError(
                f"{earlier.path} and {image.path} would both be written as '{name}'; pass the folder that contains "
                "both, or predict them into two folders"
            )
    return names
