"""Grids through the command line: several trials on one GPU, and a whole grid on a machine without MLflow."""

from __future__ import annotations

import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.results import SectionFailed
from benchmarks.gpu.sections.settings import AcceptSettings, run_cli, without_mlflow
from fcnlab.lab import Lab
from fcnlab.trial.record import Record
from fcnlab.trial.run_folder import RunFolder

SHARING = 4

PER_GPU = """
question: Do several trials share a GPU?
base: {{backbone: tiny-scratch, upsampler: bilinear, dataset: shapes-mini, recipe: smoke, recipe.epochs: {epochs}}}
product: {{head: [fcn32s, fcn8s]}}
seeds: {seeds}
baseline: {{head: fcn32s}}
"""

WHOLE = """
question: Does a grid run from its file to its report on a GPU?
base:
  backbone: tiny-scratch
  upsampler: bilinear
  dataset: {dataset}
  recipe: quick
  recipe.epochs: {epochs}
  recipe.validate_every: {epochs}
product: {{head: [fcn32s, fcn8s]}}
seeds: 2
baseline: {{head: fcn32s}}
"""

ARCHIVE_LIMIT = 12 * 2**20
"""Largest size of the lab's archive in bytes."""


def records(lab: Lab) -> list[Record]:
    """Return all records of a lab.

    Args:
        lab: the lab.
    """
    found = [RunFolder(lab.runs, file.parent.name).read() for file in sorted(lab.runs.glob("*/record.json"))]
    return [record for record in found if record is not None]


def per_gpu(settings: AcceptSettings) -> dict[str, Any]:
    """Run eight trials, four at a time on one GPU; all must finish, and their records state the number.

    Args:
        settings: settings of the run.
    """
    seeds, epochs = (1, 2) if settings.smoke else (4, 10)
    file = settings.grid("per-gpu", PER_GPU.format(epochs=epochs, seeds=seeds))
    options = ("--per-gpu", str(SHARING)) if settings.cuda else ("--workers", "2", "--threads", "1")
    run_cli(settings, "grid", "run", str(file), *options, timeout=70, variables=without_mlflow(settings))
    found = records(settings.lab("per-gpu"))
    status = Counter(record.status for record in found)
    environments = [record.environment for record in found if record.environment is not None]
    result: dict[str, Any] = {
        "status": dict(status),
        "devices": sorted({environment.device for environment in environments}),
        "kinds": sorted({environment.kind for environment in environments}),
        "sharing": sorted({environment.trials_per_device for environment in environments}),
        "images_per_s": [round(record.cost.images_per_s, 1) for record in found if record.cost is not None],
    }
    wanted = {
        "status": {"finished": 2 * seeds},
        "kinds": [settings.device],
        "sharing": [SHARING if settings.cuda else 1],
    }
    if settings.cuda:
        wanted["devices"] = [torch.cuda.get_device_name()]
    wrong = [f"{name}: {result[name]}, not {value}" for name, value in wanted.items() if result[name] != value]
    if wrong:
        raise SectionFailed("; ".join(wrong), result)
    return result | {
        "detail": f"{len(found)} trials finished on {result['devices'][0]}, sharing {result['sharing'][0]}"
    }


def grid(settings: AcceptSettings) -> dict[str, Any]:
    """Run a grid without MLflow, check its report, and archive the lab for `fcnlab grid sync` elsewhere.

    Args:
        settings: settings of the run.
    """
    dataset, epochs = ("shapes-mini", 2) if settings.smoke else ("shapes", 10)
    file = settings.grid("grid", WHOLE.format(dataset=dataset, epochs=epochs), "gpu")
    threads = () if settings.cuda else ("--workers", "1", "--threads", "1")
    printed = run_cli(settings, "grid", "run", str(file), *threads, timeout=70, variables=without_mlflow(settings))
    lab = settings.lab("grid")
    found = records(lab)
    failures = [record.failure.message for record in found if record.failure is not None]
    assert len(found) == 4 and not failures, f"{len(found)} records, failures: {failures}"
    written = sorted(path.name for path in (lab.results / "gpu").glob("*"))
    archive = archive_lab(lab.root, settings.out / "lab.tar.gz")
    miou = [score.miou for record in found if (score := record.find_metrics("test", "last")) is not None]
    result = {"report": written, "archive_bytes": archive.stat().st_size, "miou": miou, "printed": printed[-1500:]}
    missing = [name for name in ("README.md", "table.csv", "trials.csv") if name not in written]
    if missing:
        raise SectionFailed(f"the report lacks {', '.join(missing)}; it has {written}", result)
    if archive.stat().st_size > ARCHIVE_LIMIT:
        raise SectionFailed(f"the archive has {archive.stat().st_size} bytes", result)
    size = archive.stat().st_size / 2**20
    return result | {"detail": f"4 trials, report of {len(written)} files, archive of {size:.1f} MiB"}


def archive_lab(root: Path, path: Path) -> Path:
    """Write a lab without checkpoints, locks and files of drivers to a tar file and return its path.

    Args:
        root: folder of the lab.
        path: the tar file.
    """
    left_out = ("checkpoint.pt", "lock", ".meeting", ".fcnlab")

    def keep(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        name = Path(member.name).name
        return None if name in left_out or name.startswith("lease.") else member

    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        archive.add(root, arcname="lab", filter=keep)
    return path
