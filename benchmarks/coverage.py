"""Measure how often 95 % intervals on differences in mIoU cover the true difference, on simulated grids.

    python -m benchmarks.coverage --out docs/coverage --runs runs

A simulated grid is one cell and one baseline with the same seeds and images. Its interval is computed by
`fcnlab.analysis.intervals`, and for comparison by the plain hierarchical bootstrap, which resamples seeds and images
and takes the middle 95 % of the differences. Grids are simulated in two ways:

- *synthetic*: the share of a class in an image that is found has a logit that is a sum of normal effects: of the class,
  the cell, the trained model, the image on all models, the image on one cell, and the image on one trained model. The
  mean over images is an integral over one normal variable, so the true difference is known to all digits
  (Gauss-Hermite).
- *real*: counts of finished trials in `--runs`. Images are sampled from those of the split with replacement; trained
  models are mixtures, with random shares, of the trials of a cell, so that there are more than were trained. The true
  difference is that of all images of the split and the mean over mixtures. The trials of a cell share backbone, head,
  upsampler, recipe and number of epochs.

With one seed the true difference is that of the two sampled models, since the interval refers to them only. The output
is coverage.csv, coverage.svg and README.md.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import resource
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.speed.machine import machine
from fcnlab.analysis.intervals import MIN_SEEDS, compute_interval
from fcnlab.analysis.resampling import BootstrapSample, CellCounts
from fcnlab.metrics.summary import compute_class_iou, mean_over_classes

Floats = NDArray[np.float64]
SEEDS = (1, 3, 5, 10)
BAND = (0.93, 0.97)
SPILL = 0.6
"""Pixels wrongly predicted as a class of which nothing is found, as a share of its labeled pixels."""


class World(Protocol):
    """A source of simulated grids."""

    @property
    def images(self) -> int:
        """Return the number of images of a grid."""

    def draw(self, random: np.random.Generator, seeds: int) -> tuple[CellCounts, CellCounts, float]:
        """Simulate a grid.

        Args:
            random: source of random numbers.
            seeds: number of seeds.

        Returns:
            The counts of the cell and of its baseline, and the true difference in mIoU.
        """


@dataclass(frozen=True)
class Synthetic:
    """Grids whose effects are standard deviations of logits, as the module describes."""

    gain: float
    model: float
    correlation: float
    images: int = 150
    num_classes: int = 8
    image: float = 1.5
    interaction: float = 0.5
    model_correlation: float = 0.3
    pixels: int = 20_000

    def draw(self, random: np.random.Generator, seeds: int) -> tuple[CellCounts, CellCounts, float]:
        labeled = self._often()
        there = random.random((self.images, self.num_classes)) < labeled
        target = np.rint(self.pixels * there * random.gamma(2.0, 0.5, there.shape))
        shape = (2, seeds, self.images, self.num_classes)
        spill = SPILL * self.pixels * labeled * random.exponential(size=shape[2:])
        models = self._correlated(random, self.model, self.model_correlation, (seeds, 1, 1))
        images = self._correlated(random, self.image, self.correlation, (1, *shape[2:]))
        own = self.interaction * random.standard_normal(shape)
        found = _sigmoid(self._level()[:, None, None, :] + models + images + own)
        hit = np.rint(found * target)
        predicted = hit + np.rint((1 - found) * spill)
        counts = np.stack((hit, predicted, np.broadcast_to(target, shape)), axis=-1).astype(np.int64)
        cell, baseline = (dict(enumerate(one)) for one in counts)
        return cell, baseline, self._truth(models) if seeds == 1 else self.expected

    def _often(self) -> Floats:
        """Return the share of the images in which each class is labeled."""
        return np.geomspace(1.0, 0.12, self.num_classes)

    def _level(self) -> Floats:
        """Return the logit of cell and baseline for each class, [2, num_classes]."""
        return np.linspace(2.0, -0.5, self.num_classes) + np.array([[self.gain], [0.0]])

    def _correlated(self, random: np.random.Generator, scale: float, share: float, shape: tuple[int, ...]) -> Floats:
        """Sample effects of two cells, [2, *shape], of which a share of the variance is common to both."""
        common, own = random.standard_normal(shape), random.standard_normal((2, *shape))
        return scale * (np.sqrt(share) * common + np.sqrt(1 - share) * own)

    def _truth(self, models: Floats) -> float:
        """Return the difference in mIoU on all images, of models with these effects [2, 1, 1, 1]."""
        nodes, weights = _normal_nodes()
        spread = np.hypot(self.image, self.interaction)
        found = _sigmoid(self._level()[..., None] + models[:, 0, 0, :, None] + spread * nodes) @ weights
        cell, baseline = (found / (1 + SPILL * (1 - found))).mean(1)
        return float(cell - baseline)

    @cached_property
    def expected(self) -> float:
        """Return the mean of `_truth` over models."""
        nodes, weights = _normal_nodes()
        truths = [self._truth(np.full((2, 1, 1, 1), self.model * node)) for node in nodes]
        return float(np.array(truths) @ weights)


@dataclass(frozen=True)
class Real:
    """Grids from the counts of the trials of a cell and of a baseline, [trials, images, num_classes, 3] each."""

    cell: NDArray[np.int64]
    baseline: NDArray[np.int64]

    @property
    def images(self) -> int:
        return self.cell.shape[1]

    def draw(self, random: np.random.Generator, seeds: int) -> tuple[CellCounts, CellCounts, float]:
        sample = random.integers(0, self.images, self.images)
        cell, baseline = (_mixtures(random, trials, seeds) for trials in (self.cell, self.baseline))
        truth = float(_difference(cell, baseline)[0]) if seeds == 1 else self.expected
        counts = [dict(enumerate(np.rint(mixtures[:, sample]).astype(np.int64))) for mixtures in (cell, baseline)]
        return counts[0], counts[1], truth

    @cached_property
    def expected(self) -> float:
        """Return the mean difference on all images, over mixtures."""
        random = np.random.default_rng(0)
        totals = (trials.sum(1, keepdims=True) for trials in (self.cell, self.baseline))
        return float(_difference(*(_mixtures(random, total, 50_000) for total in totals)).mean())


@dataclass(frozen=True)
class Setting:
    """A source of grids and a number of seeds."""

    data: str
    world: World
    seeds: int


@dataclass(frozen=True)
class Outcome:
    """Results of the simulated grids of a setting; differences in points of mIoU."""

    data: str
    seeds: int
    images: int
    effective_images: float
    grids: int
    true_difference: float
    image_std: float
    seed_std: float
    seed_share: float
    coverage: float
    below: float
    above: float
    width: float
    found: float
    plain_coverage: float


COLUMNS = {
    "data": "the source of the grids: synthetic with the model effect's standard deviation and the images' correlation "
    "between cells, or the real cells",
    "seeds": "of a grid",
    "images": "of a grid",
    "effective_images": "number of images on which the difference depends, mean over grids",
    "grids": "simulated",
    "true_difference": "in points of mIoU (for one seed, the mean over grids)",
    "image_std": "root of the mean estimated image variance of the difference, in points",
    "seed_std": "root of the mean estimated seed variance of the difference, in points",
    "seed_share": "the seeds' share of the variance of the estimate",
    "coverage": "share of grids whose interval covers the true difference",
    "below": "share of grids whose interval is below the true difference",
    "above": "share of grids whose interval is above the true difference",
    "width": "mean width of the interval, in points",
    "found": "share of grids whose interval excludes zero",
    "plain_coverage": "coverage of the plain hierarchical percentile bootstrap on the same grids",
}


def main() -> None:
    """Simulate all settings and write the table, the chart and the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for coverage.csv, coverage.svg and README.md")
    parser.add_argument("--runs", type=Path, help="folder with run folders; without it all grids are synthetic")
    parser.add_argument("--grids", type=int, default=1500, help="number of grids per setting")
    parser.add_argument("--resamples", type=int, default=500, help="resamples of the images per interval")
    parser.add_argument("--workers", type=int, default=1, help="number of processes")
    options = parser.parse_args()
    pairs = real_pairs(options.runs) if options.runs else {}
    outcomes = []
    with ProcessPoolExecutor(options.workers) as pool:
        jobs = enumerate(settings(pairs))
        running = [pool.submit(outcome, setting, options.grids, options.resamples, index) for index, setting in jobs]
        for job in running:
            outcomes.append(job.result())
            print(outcomes[-1], flush=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    options.out.mkdir(parents=True, exist_ok=True)
    write_csv(outcomes, options.out / "coverage.csv")
    draw(outcomes, options.out / "coverage.svg")
    readme = page(outcomes, pairs, options, used.ru_utime + used.ru_stime)
    (options.out / "README.md").write_text(readme, encoding="utf-8")


def settings(pairs: dict[str, Real]) -> Iterator[Setting]:
    """Yield all settings, those with few seeds first.

    Args:
        pairs: the real pairs of cells by name.
    """
    for seeds in SEEDS:
        for model, gain in ((0.05, 0.15), (0.15, 0.0), (0.15, 0.15), (0.5, 0.0)) if seeds > 1 else ((0.15, 0.15),):
            yield Setting(f"synthetic, models {model}, images 0.8", Synthetic(gain, model, 0.8), seeds)
        yield Setting("synthetic, models 0.15, images 0", Synthetic(0.15, 0.15, 0.0), seeds)
        for name, pair in pairs.items():
            yield Setting(name, pair, seeds)


def outcome(setting: Setting, grids: int, resamples: int, seed: int) -> Outcome:
    """Simulate the grids of a setting.

    Args:
        setting: the setting.
        grids: number of grids.
        resamples: number of resamples of the images for an interval.
        seed: seed of the random numbers.
    """
    rows = []
    for grid in range(grids):
        random = np.random.default_rng((seed, grid))
        cell, baseline, truth = setting.world.draw(random, setting.seeds)
        samples = (BootstrapSample.from_counts(one, sorted(one), resamples, grid) for one in (cell, baseline))
        sampled, reference = (sample.mean_over_classes() for sample in samples)
        difference = sampled - reference
        found = compute_interval(difference)
        low, high = plain_interval(random, difference)
        rows.append(
            (
                truth,
                found.effective_images,
                found.image_variance,
                found.seed_variance,
                found.low <= truth <= found.high,
                found.high < truth,
                found.low > truth,
                found.high - found.low,
                found.p_value < 0.05,
                low <= truth <= high,
            )
        )
    truth, effective, of_images, of_seeds, *shares = (float(mean) for mean in np.array(rows, dtype=float).mean(0))
    covered, below, above, width, excludes, plain = shares
    seed_part = 0.0 if setting.seeds == 1 else of_seeds / setting.seeds
    return Outcome(
        data=setting.data,
        seeds=setting.seeds,
        images=setting.world.images,
        effective_images=effective,
        grids=grids,
        true_difference=100 * truth,
        image_std=100 * of_images**0.5,
        seed_std=100 * of_seeds**0.5,
        seed_share=seed_part / (seed_part + of_images),
        coverage=covered,
        below=below,
        above=above,
        width=100 * width,
        found=excludes,
        plain_coverage=plain,
    )


def plain_interval(random: np.random.Generator, difference: BootstrapSample) -> tuple[float, float]:
    """Return the middle 95 % of differences over resampled seeds and images.

    Args:
        random: source of random numbers.
        difference: bootstrap sample of the difference.
    """
    sample = random.integers(0, difference.resampled.shape[1], size=difference.resampled.shape)
    means = np.take_along_axis(difference.resampled, sample, axis=1).mean(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def real_pairs(runs: Path, most: int = 2) -> dict[str, Real]:
    """Return the closest pairs of cells of each dataset, by name.

    A grid compares cells whose order is uncertain, so a training that failed, which is far from all others, is of no
    interest.

    Args:
        runs: folder with the run folders of the trials; a cell needs two finished trials.
        most: maximum number of pairs of a dataset.
    """
    cells: dict[tuple[str, str], dict[str, list[NDArray[np.int64]]]] = defaultdict(lambda: defaultdict(list))
    for folder in sorted(path.parent for path in runs.glob("*/record.json")):
        record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
        if record["status"] != "finished":
            continue
        trial = record["trial"]
        names = trial["names"]
        with np.load(folder / "counts.npz") as arrays:
            split = "test" if "test_last" in arrays else "val"
            ids, counts = arrays[f"{split}_ids"], arrays[f"{split}_last"]
        label = " ".join(names[part] for part in ("backbone", "head", "upsampler", "recipe"))
        scored_on = f"{names['dataset']} {split}", " ".join(ids)
        cells[scored_on][f"{label} {trial['recipe']['epochs']} epochs"].append(counts)
    found: dict[str, Real] = {}
    for (dataset, _), by_label in cells.items():
        several = {label: np.stack(trials) for label, trials in by_label.items() if len(trials) > 1}
        pairs = {
            f"{dataset}: {cell} ({len(several[cell])}) - {baseline} ({len(several[baseline])})": Real(
                several[cell], several[baseline]
            )
            for cell, baseline in combinations(sorted(several), 2)
        }
        closest = sorted(pairs, key=lambda name: abs(pairs[name].expected))[:most]
        found |= {name: pairs[name] for name in closest}
    return found


def write_csv(outcomes: list[Outcome], path: Path) -> None:
    """Write the outcomes as a table.

    Args:
        outcomes: one outcome per setting.
        path: CSV file to write.
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([field.name for field in fields(Outcome)])
        for one in outcomes:
            writer.writerow([f"{x:.5g}" if isinstance(x, float) else x for x in asdict(one).values()])


def draw(outcomes: list[Outcome], path: Path) -> None:
    """Draw coverage against the seeds' share of the variance, one panel for each number of seeds.

    Args:
        outcomes: one outcome per setting.
        path: SVG file to write.
    """
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams |= {"svg.hashsalt": "coverage", "svg.fonttype": "none", "font.size": 9}
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(SEEDS), figsize=(11, 3.6), sharey=True, layout="constrained")
    for panel, seeds in zip(panels, SEEDS, strict=True):
        panel.axhspan(100 * BAND[0], 100 * BAND[1], color="0.9", zorder=0)
        panel.axhline(95, color="0.5", linewidth=0.8)
        for kind, color, marker in (("synthetic", "#0072B2", "o"), ("real", "#D55E00", "s")):
            those = [one for one in outcomes if one.seeds == seeds and (kind == "synthetic") == _is_synthetic(one)]
            share = [100 * one.seed_share for one in those]
            covered = np.array([one.coverage for one in those])
            error = 196 * np.sqrt(covered * (1 - covered) / np.array([one.grids for one in those]))
            style = {"fmt": marker, "color": color, "markersize": 5, "elinewidth": 1}
            panel.errorbar(share, 100 * covered, error, label=f"{kind} counts", **style)
            plain = [100 * one.plain_coverage for one in those]
            panel.plot(
                share, plain, marker, color=color, fillstyle="none", markersize=5, label=f"{kind}, plain bootstrap"
            )
        panel.set_title(f"{seeds} seed{'s' * (seeds > 1)}")
        panel.set_xlim(-5, 105)
        panel.set_xlabel("seeds' share of the variance (%)")
    panels[0].set_ylabel("intervals that cover the truth (%)")
    figure.legend(*panels[-1].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def page(outcomes: list[Outcome], pairs: dict[str, Real], options: argparse.Namespace, seconds: float) -> str:
    """Return the README for the outcomes as Markdown.

    Args:
        outcomes: One outcome per setting.
        pairs: The real pairs of cells by name.
        options: The options of the command line.
        seconds: CPU seconds of the simulation.
    """
    several = [one for one in outcomes if one.seeds >= MIN_SEEDS]
    single = [one for one in outcomes if one.seeds == 1]
    within = sum(BAND[0] <= one.coverage <= BAND[1] for one in several)
    where = machine("scipy", "matplotlib")
    versions = ", ".join(f"{name} {where.versions[name]}" for name in ("fcnlab", "numpy", "scipy", "matplotlib"))
    lines = [
        "# Coverage of the intervals on differences in mIoU",
        "",
        "Generated by `benchmarks/coverage.py`; its module docstring describes the simulation.",
        "",
        "```",
        f"python -m benchmarks.coverage --out docs/coverage{' --runs runs' * bool(pairs)} --grids {options.grids} "
        f"--resamples {options.resamples}",
        "```",
        "",
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {where.processor}, {where.system}, {versions}; "
        f"{seconds:.0f} CPU seconds.",
        "",
        "![Coverage against the seeds' share of the variance](coverage.svg)",
        "",
        "With three or more seeds, for which significance is reported, 95 % intervals cover the true difference in "
        f"{_range(several)} % of {options.grids} grids per setting; {within} of {len(several)} settings are "
        f"between 93 and 97 %. The plain hierarchical bootstrap covers {_range(several, 'plain_coverage')} % on "
        "the same grids. "
        f"The standard error of a coverage of 95 % is {100 * np.sqrt(0.95 * 0.05 / options.grids):.1f} points.",
        "",
        "With one seed, an interval refers to the two trained models only, and so does the true difference: "
        f"{_range(single)} %. "
        "Significance is not reported for one seed. Intervals are inaccurate if a difference "
        "depends on about a dozen images (column *effective*).",
        "",
        "| data | seeds | images | effective | true Δ | σ images | σ seeds | seeds' share % | coverage % | Δ found % "
        "| width | plain bootstrap % |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for one in sorted(outcomes, key=lambda one: (not _is_synthetic(one), one.data, one.seeds)):
        spread = "" if one.seeds == 1 else f"{one.seed_std:.2f}"
        lines.append(
            f"| {one.data} | {one.seeds} | {one.images} | {one.effective_images:.0f} | {one.true_difference:.2f} | "
            f"{one.image_std:.2f} | {spread} | {100 * one.seed_share:.0f} | {100 * one.coverage:.1f} | "
            f"{100 * one.found:.1f} | {one.width:.2f} | {100 * one.plain_coverage:.1f} |"
        )
    lines += ["", "Δ, σ and widths are in points of mIoU. The columns of [coverage.csv](coverage.csv):", ""]
    lines += [f"- `{name}`: {meaning}" for name, meaning in COLUMNS.items()]
    if pairs:
        lines += ["", "The real counts are those of these cells; the number of mixed trials is in brackets:", ""]
        lines += [f"- {name}" for name in pairs]
    return "\n".join(lines) + "\n"


def _range(outcomes: list[Outcome], column: str = "coverage") -> str:
    """Return the minimum and the maximum of a column of shares, in per cent."""
    shares = [100 * getattr(one, column) for one in outcomes]
    return f"{min(shares):.1f} to {max(shares):.1f}"


def _mixtures(random: np.random.Generator, trials: NDArray[np.int64], count: int) -> Floats:
    """Mix trials [trials, ...] with random shares to [count, ...]."""
    return np.tensordot(random.dirichlet(np.ones(len(trials)), count), trials, axes=1)


def _difference(cell: Floats, baseline: Floats) -> Floats:
    """Return the difference in mIoU on all images of counts [models, images, num_classes, 3], [models]."""
    totals = (one.sum(1) for one in (cell, baseline))
    found, reference = (mean_over_classes(compute_class_iou(one)) for one in totals)
    return found - reference


def _normal_nodes() -> tuple[Floats, Floats]:
    """Return points and weights with which a mean over a standard normal variable is a sum (Gauss-Hermite)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    return nodes, weights / weights.sum()


def _sigmoid(x: Floats) -> Floats:
    return 1 / (1 + np.exp(-x))


def _is_synthetic(one: Outcome) -> bool:
    return one.data.startswith("synthetic")


if __name__ == "__main__":
    main()
