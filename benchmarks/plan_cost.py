"""Measure the CPU seconds of `fcnlab grid plan` for 10,000 trials, from the start of the process to its end.

    python -m benchmarks.plan_cost [--data-root DIR] [--finished N]

With --data-root the dataset is CamVid, whose files are then read; with --finished the first N trials have a record.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from fcnlab.lab import Lab
from fcnlab.runner.plan import make_plan
from fcnlab.trial.record import Cost, Record, SplitMetrics

TRIALS = 10_000
METRICS = SplitMetrics(
    split="val", checkpoint="last", epoch=1, images=1, miou=0.5, pixel_acc=0.5, mean_acc=0.5, fw_iou=0.5, class_iou=()
)
COST = Cost(
    params=1,
    trainable_params=1,
    gmacs=1.0,
    gmacs_size=(1, 1),
    train_seconds=1.0,
    evaluate_seconds=1.0,
    images_per_s=1.0,
)
GRID = """
question: What is the cost of planning ten thousand trials?
base: {{backbone: tiny-scratch, dataset: {dataset}, recipe: quick}}
product:
  head: [fcn32s, fcn16s, fcn8s, fcn4s]
  upsampler: [bilinear, random]
  recipe.lr: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
  recipe.weight_decay: [0.0, 0.001, 0.002, 0.003, 0.004]
  recipe.flip: [0.0, 0.1, 0.2, 0.3, 0.4]
seeds: 5
baseline: {{head: fcn32s, upsampler: bilinear, recipe.lr: 0.1, recipe.weight_decay: 0.0, recipe.flip: 0.0}}
"""


def main() -> None:
    """Measure three times and print the minimum."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--finished", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "experiments" / "large.yaml"
        file.parent.mkdir()
        file.write_text(GRID.format(dataset="camvid" if arguments.data_root else "shapes"), encoding="utf-8")
        _finish(file, arguments.data_root, arguments.finished)
        command = [sys.executable, "-m", "fcnlab", "grid", "plan", str(file)]
        command += ["--data-root", str(arguments.data_root)] if arguments.data_root else []
        seconds = min(_cpu_seconds(command) for _ in range(3))
    print(f"{TRIALS} trials, {arguments.finished} of them finished: {seconds:.2f} CPU seconds")


def _finish(file: Path, data_root: Path | None, trials: int) -> None:
    """Write records of the first trials."""
    lab = Lab.find(file, data_root=data_root)
    for planned in make_plan(lab.load_grid(file), lab).trials[:trials]:
        planned.folder.create()
        planned.folder.finish(Record.create(planned.trial, "finished", metrics=(METRICS,), cost=COST))


def _cpu_seconds(command: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
