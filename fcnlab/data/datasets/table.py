"""The table of datasets. A new dataset is one file here, one line in `FILE_DATASETS`, one entry in the registry."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from fcnlab.data.datasets.ade20k import Ade20k
from fcnlab.data.datasets.base import FileDataset
from fcnlab.data.datasets.camvid import CamVid
from fcnlab.data.datasets.cityscapes import Cityscapes
from fcnlab.data.datasets.voc import Voc2012

FILE_DATASETS: Mapping[str, type[FileDataset]] = MappingProxyType(
    {"camvid": CamVid, "voc2012": Voc2012, "cityscapes": Cityscapes, "ade20k": Ade20k}
)


def find_dataset_folder(data_root: Path | None, folder: str, type_: str) -> Path:
    """Where a dataset's files lie, checked to be there.

    Raises:
        DataError: no data root is set, or the folder is not below it.
    """
    from fcnlab.errors import DataError

    layout = FILE_DATASETS[type_].layout
    if data_root is None:
        raise DataError(
            f"dataset {type_}: no data root is set; pass --data-root or set FCNLAB_DATA to the folder that holds "
            f"{folder}/, laid out as {layout}"
        )
    path = data_root / folder
    if not path.is_dir():
        raise DataError(
            f"dataset {type_}: {path} is not there; --data-root (or FCNLAB_DATA) must be the folder that holds "
            f"{folder}/, laid out as {layout}"
        )
    return path
