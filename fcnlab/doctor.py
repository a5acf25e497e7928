"""Checks of the installation, the machine and a lab, as `fcnlab doctor` prints them."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from fcnlab.console import format_bytes
from fcnlab.errors import ConfigError, DataError, FcnlabError, RunError, TrackingError, describe_error, first_line
from fcnlab.lab import Lab
from fcnlab.limits import usable_cores
from fcnlab.paths import exists, is_folder
from fcnlab.processor import get_processor_name
from fcnlab.redaction import clean_text
from fcnlab.settings import cache_folder
from fcnlab.version import __version__

MIN_FREE_DISK = 5e9
"""Free bytes below which a warning is given: one large checkpoint, or the decoded images of a small dataset."""
MIN_SHARED_MEMORY = 1e9
"""Free bytes of /dev/shm below which a warning is given: decoded images are shared there between trials."""

OPTIONAL = {
    "ray": "trials on a cluster",
    "onnx": "export to ONNX",
    "tensorboard": "curves in TensorBoard",
}
"""Purposes of optional packages, which have the names of their extras."""

_SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Check:
    """Result of one check.

    Attributes:
        name: subject of the check.
        status: `ok`; `warning` for slower or missing optional parts; `error` for a grid that could not run.
        found: the observed state.
        remedy: remedy for the problem; empty if there is none.
    """

    name: str
    status: Literal["ok", "warning", "error"]
    found: str
    remedy: str = ""


def check_installation(lab: Lab) -> list[Check]:
    """Check versions, devices, compilers, folders, the tracking store and the datasets.

    An exception that a check does not expect becomes its result, so that the other checks still run.

    Args:
        lab: the lab that is checked, with its data root and store.

    Returns:
        The results, in the order in which they are worth reading.
    """
    return [result for check in _CHECKS for result in _run(check, lab)]


def _run(check: Callable[[Lab], Iterator[Check]], lab: Lab) -> Iterator[Check]:
    try:
        yield from check(lab)
    except Exception as error:  # noqa: BLE001 - a broken installation raises anything, and the check reports it
        name = check.__name__.removeprefix("_check_").replace("_", " ")
        yield Check(name, "error", clean_text(describe_error(error)))


def _check_python(_lab: Lab) -> Iterator[Check]:
    yield Check("fcnlab", "ok", f"{__version__}, Python {platform.python_version()}, {platform.platform()}")


def _check_packages(_lab: Lab) -> Iterator[Check]:
    """Compare the installed versions with the supported ranges."""
    try:
        declared = requires("fcnlab") or []
    except PackageNotFoundError:
        yield Check("packages", "warning", "fcnlab is not installed", "install it: pip install .")
        return
    found, problems = [], []
    for requirement in map(Requirement, declared):
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            problems.append(f"{requirement.name} is missing")
            continue
        found.append(f"{requirement.name} {installed}")
        if not requirement.specifier.contains(installed, prereleases=True):
            problems.append(f"{requirement.name} {installed} is outside {requirement.specifier}")
    if problems:
        yield Check("packages", "error", "; ".join(problems), "install the supported versions: pip install --upgrade .")
    else:
        yield Check("packages", "ok", ", ".join(found[:6]))


def _check_torchvision(_lab: Lab) -> Iterator[Check]:
    try:
        import torchvision
    except (ImportError, RuntimeError, OSError) as error:
        remedy = "install torch and torchvision together, from one index"
        yield Check("torchvision", "error", f"does not load: {first_line(error)}", remedy)
    else:
        yield Check("torchvision", "ok", f"{torchvision.__version__} loads")


def _check_devices(_lab: Lab) -> Iterator[Check]:
    import torch

    from fcnlab.runner.executors.gpus import select_gpus

    yield Check("CPU", "ok", f"{get_processor_name()}, {usable_cores()} cores available")
    try:
        gpus = select_gpus("auto")
    except RunError as error:
        yield Check("GPU", "error", str(error), "repair the driver, or run with --device cpu")
        return
    if not gpus:
        yield Check("GPU", "ok", f"none; trials run on the CPU (torch {torch.__version__}, CUDA {torch.version.cuda})")
    elif not torch.cuda.is_available():
        remedy = f"install a driver for CUDA {torch.version.cuda}, or a build of torch for your driver"
        yield Check("GPU", "error", f"{len(gpus)} found, but torch {torch.__version__} cannot use CUDA", remedy)
    else:
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            yield Check("GPU", "ok", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB")


def _check_kernels(_lab: Lab) -> Iterator[Check]:
    from fcnlab.kernels.build import KERNELS, load_library

    missing = [name for name in KERNELS if load_library(name) is None]
    if missing:
        found = f"{', '.join(missing)}: not compiled; PyTorch's slower operators are used"
        yield Check("C kernels", "warning", found, "install a C compiler as `cc`, such as gcc")
    else:
        yield Check("C kernels", "ok", f"compiled with {shutil.which('cc')}")


def _check_lab(lab: Lab) -> Iterator[Check]:
    if not is_folder(lab.root / "experiments"):
        remedy = "change to the folder of a lab, pass --lab, or create one: fcnlab init DIR"
        yield Check("lab", "warning", f"{lab.root} has no experiments/", remedy)
        return
    yield _check_folder("lab", lab.root)


def _check_cache(_lab: Lab) -> Iterator[Check]:
    yield _check_folder("cache", cache_folder(), "free space, or set FCNLAB_CACHE to a folder with more")


def _check_shared_memory(_lab: Lab) -> Iterator[Check]:
    if sys.platform != "linux":
        return
    if not is_folder(_SHARED_MEMORY):
        yield Check("/dev/shm", "warning", "missing", "in a container, start it with --shm-size or --ipc=host")
        return
    free = shutil.disk_usage(_SHARED_MEMORY).free
    enough = free >= MIN_SHARED_MEMORY
    remedy = "" if enough else "in a container, start it with --shm-size=8g"
    yield Check("/dev/shm", "ok" if enough else "warning", f"{format_bytes(free)} free", remedy)


def _check_store(lab: Lab) -> Iterator[Check]:
    """Read from the tracking store; a local store that does not exist yet is not created."""
    from fcnlab.tracking.store import check_database, convert_errors, find_database, open_client

    try:
        check_database(lab.tracking_uri)
    except TrackingError as error:
        yield Check("MLflow store", "error", str(error))
        return
    file = find_database(lab.tracking_uri)
    if file is not None and not exists(file):
        yield Check("MLflow store", "ok", f"{file}: created by the first grid")
        return
    try:
        with convert_errors(lab.tracking_uri):
            experiments = open_client(lab.tracking_uri).search_experiments()
    except FcnlabError as error:
        remedy = "grids run without it and are published later: fcnlab grid sync FILE"
        yield Check("MLflow store", "warning", str(error), remedy)
    else:
        grids = sum(experiment.name.startswith("fcnlab/") for experiment in experiments)
        yield Check("MLflow store", "ok", f"{grids} experiments of grids")


def _check_datasets(lab: Lab) -> Iterator[Check]:
    """Look for the files of the registered datasets below the data root."""
    if lab.data_root is None:
        remedy = "pass --data-root or set FCNLAB_DATA to the folder that contains the datasets"
        yield Check("data root", "warning", "not set; only generated and absolute datasets are found", remedy)
    elif not is_folder(lab.data_root):
        yield Check("data root", "error", f"{lab.data_root}: no such folder", "correct --data-root or FCNLAB_DATA")
        return
    present = []
    for name in lab.registry.names("dataset"):
        try:
            if _has_files(lab, name):
                present.append(name)
        except ConfigError as error:  # of an extension
            yield Check(f"dataset {name}", "warning", str(error))
    where = f"{lab.data_root}: " if lab.data_root else ""
    yield Check("datasets", "ok", where + ", ".join(present))


def _has_files(lab: Lab, name: str) -> bool:
    spec = lab.registry.get("dataset", name)
    try:
        dataset = lab.open_dataset(spec)
        return all(len(dataset.split(split)) for split in spec.used_splits)
    except DataError:
        return False


def _check_optional(_lab: Lab) -> Iterator[Check]:
    """List optional packages and their purpose."""
    for package, purpose in OPTIONAL.items():
        try:
            yield Check(package, "ok", version(package))
        except PackageNotFoundError:
            yield Check(package, "ok", f"not installed; optional, for {purpose}", f"pip install 'fcnlab[{package}]'")


def _check_folder(name: str, folder: Path, remedy: str = "free space on this file system") -> Check:
    """Check that a folder, or the closest one above that exists, can be written and has free space."""
    existing = next(path for path in (folder, *folder.parents) if exists(path))
    if not os.access(existing, os.W_OK | os.X_OK):
        return Check(name, "error", f"{existing}: not writable", f"chmod u+wx {existing}, or use another folder")
    free = shutil.disk_usage(existing).free
    if free < MIN_FREE_DISK:
        return Check(name, "warning", f"{folder}: {format_bytes(free)} free", remedy)
    return Check(name, "ok", f"{folder}: writable, {format_bytes(free)} free")


_CHECKS: tuple[Callable[[Lab], Iterator[Check]], ...] = (
    _check_python,
    _check_packages,
    _check_torchvision,
    _check_devices,
    _check_kernels,
    _check_lab,
    _check_cache,
    _check_shared_memory,
    _check_store,
    _check_datasets,
    _check_optional,
)
