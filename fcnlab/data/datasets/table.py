"""Dataset types with files in a fixed layout. To add one, write its module and add it to `FILE_DATASETS`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from fcnlab.data.datasets.ade20k import Ade20k
from fcnlab.data.datasets.base import FileDataset
from fcnlab.data.datasets.camvid import CamVid
from fcnlab.data.datasets.cityscapes import Cityscapes
from fcnlab.data.datasets.voc import Voc2012
from fcnlab.errors import DataError
from fcnlab.paths import is_folder

FILE_DATASETS: Mapping[str, type[FileDataset]] = MappingProxyType(
    {"camvid": CamVid, "voc2012": Voc2012, "cityscapes": Cityscapes, "ade20k": Ade20k}
)
"""Classes of datasets by the `type` of a registry entry."""


def find_dataset_folder(data_root: Path | None, folder: str, type_: str) -> Path:
    """Return the existing folder of a dataset.

    Args:
        data_root: folder that contains all datasets; None if it is not set.
        folder: path of the dataset below the data root.
        type_: type of the dataset, a key of `FILE_DATASETS`.

    Raises:
        DataError: no data root is set, or the folder is missing.
    """
    layout = FILE_DATASETS[type_].expected_layout
    if data_root is None:
        raise DataError(
            f"dataset {type_}: no data root is set; pass --data-root or set FCNLAB_DATA to the folder that contains "
            f"{folder}/ with {layout}"
        )
    path = data_root / folder
    if not is_folder(path):
        raise DataError(
            f"dataset {type_}: {path} does not exist; --data-root (or FCNLAB_DATA) must be the folder that contains "
            f"{folder}/ with {layout}"
        )
    return path
