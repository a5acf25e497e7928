"""Pack what accept.py and bench.py need on a GPU machine without network access: packages and data.

    python -m benchmarks.gpu.pack FOLDER --data-root DIR --python 3.12

FOLDER gets the wheels that a machine with PyTorch, timm, torchvision, pandas, typer, rich and scipy still lacks, CamVid
as an archive, and the weights of MobileNetV2, compressed. Copy FOLDER and the checkout to the machine, and in the
checkout's root:

    source benchmarks/gpu/unpack.sh FOLDER
    python -m benchmarks.gpu.accept --out accept --data-root "$FCNLAB_DATA"
"""

from __future__ import annotations

import argparse
import lzma
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

PACKAGES = (
    *("pydantic", "annotated-types", "typing-inspection", "typing-extensions", "segmentation-models-pytorch"),
    *("altair", "vl-convert-python", "narwhals", "jsonschema", "jsonschema-specifications", "referencing", "rpds-py"),
    "attrs",
)
"""Needed by fcnlab, and often missing beside PyTorch; pydantic's core is added in the version that it asks for."""

PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
WEIGHTS = "weights/mobilenetv2_100.safetensors"


def main() -> None:
    """Fill the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data-root", type=Path, help="folder with camvid/ and weights/; without it, only packages")
    parser.add_argument("--python", default="3.12", help="version of Python on the GPU machine")
    given = parser.parse_args()
    wheels = given.folder / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    download(PACKAGES, wheels, given.python)
    core = core_of(next(wheels.glob("pydantic-*.whl")))
    download([f"pydantic-core=={core}"], wheels, given.python)
    if given.data_root is not None:
        pack_data(given.data_root, given.folder)
    size = sum(file.stat().st_size for file in given.folder.rglob("*") if file.is_file())
    print(f"{given.folder}: {size / 1e6:.0f} MB")


def download(packages: Sequence[str], into: Path, python: str) -> None:
    """Download the wheels of packages, without their requirements.

    Args:
        packages: names, optionally with versions.
        into: folder of the wheels.
        python: version of Python, such as 3.12.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--python-version", python, "--implementation", "cp", "--dest", str(into)]
    command += [word for platform in PLATFORMS for word in ("--platform", platform)]
    subprocess.run([*command, *packages], check=True)


def core_of(wheel: Path) -> str:
    """Return the version of pydantic-core that a wheel of pydantic requires.

    Args:
        wheel: the wheel of pydantic.
    """
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        found = re.search(r"^Requires-Dist: pydantic-core==(\S+)$", archive.read(metadata).decode(), re.MULTILINE)
    assert found is not None, f"{wheel.name} names no version of pydantic-core"
    return found[1]


def pack_data(root: Path, into: Path) -> None:
    """Archive CamVid without compression, since its images are JPEG, and compress the weights.

    Args:
        root: data root with `camvid/` and `weights/`.
        into: folder of the archives.
    """
    with tarfile.open(into / "camvid.tar", "w") as archive:
        archive.add(root / "camvid", "camvid")
    with lzma.open(into / f"{Path(WEIGHTS).name}.xz", "wb") as packed:
        packed.write((root / WEIGHTS).read_bytes())


if __name__ == "__main__":
    main()
