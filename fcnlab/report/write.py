"""Writing of reports to `results/<grid>/`.

Each file is written atomically, and a lock lets one process write a report at a time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from fcnlab.atomic_file import list_temporary_files, write_atomically
from fcnlab.config.grid.grid import Grid
from fcnlab.config.grid.name import MAX_BYTES
from fcnlab.console import format_count
from fcnlab.constants import KEY_DIGITS
from fcnlab.errors import RunError
from fcnlab.file_lock import FileLock
from fcnlab.lab import Lab
from fcnlab.paths import is_file
from fcnlab.report.best import select_best
from fcnlab.report.footnotes.data import describe_other_images
from fcnlab.report.gallery.sample_sheet import draw_sample_sheet
from fcnlab.report.gallery.selection import select_gallery
from fcnlab.report.html.page import Section, render_page
from fcnlab.report.provenance import collect_provenance, describe_provenance, rerun_command
from fcnlab.report.report import Report, report_plan
from fcnlab.report.tables.columns import MISSING
from fcnlab.report.tables.csv_text import to_csv_text
from fcnlab.report.tables.effects import describe_effects, make_effects_table
from fcnlab.report.tables.export import to_markdown_with_footnotes
from fcnlab.report.tables.formats import to_markdown
from fcnlab.report.tables.markdown_text import escape_alternative, escape_markdown, escape_markdown_lines
from fcnlab.report.tables.paper import effects_to_latex, report_to_latex
from fcnlab.runner.grid_state import claim_results
from fcnlab.runner.plan import make_plan, read_reported_trials
from fcnlab.runner.publisher import OptionalTracker
from fcnlab.storage_errors import convert_write_errors
from fcnlab.tracking.grid_run import BestCell
from fcnlab.tracking.published_report import digest_report
from fcnlab.tracking.tracker import MlflowTracker

if TYPE_CHECKING:  # importing it would import altair
    from fcnlab.report.charts.plot import Plot

EFFECTS_FILES = ("effects.csv", "effects.tex")
"""Files of a report with effects of its axes."""


def create_report(grid: Grid, lab: Lab, tracker: OptionalTracker, *, predict: bool, after_run: bool = True) -> Report:
    """Make the report of a grid, write it to `results/<grid>/` and attach it to the grid's run in MLflow.

    A written report of finished trials is kept where none has finished, as in a clone with committed results. An error
    of the tracking store does not stop this; it is then the `error` of the tracker.

    Args:
        grid: the grid.
        lab: the lab of the grid.
        tracker: tracker of the grid.
        predict: see `write_report`.
        after_run: the grid has just been run, so that it is no error if the written report is kept.

    Returns:
        The report.

    Raises:
        RunError: see `check_written_report`, which is called unless `after_run` is set, and `write_report`.
    """
    plan = make_plan(grid, lab, recorded_inputs=True)
    report = report_plan(plan, lab, tracker)
    if not after_run:
        check_written_report(report)
    elif describe_kept_report(report) is not None:
        return report
    write_report(report, lab, predict=predict)
    publish_report(report, tracker)
    return report


def write_report(report: Report, lab: Lab, *, predict: bool, pdf: bool = False) -> Section:
    """Write `results/<grid>/`.

    Args:
        report: report of the grid.
        lab: the lab of the grid.
        predict: whether to predict the gallery's images with the saved weights; else existing predictions are shown.
        pdf: whether to write the charts as PDF too; those that exist are always written again.

    Returns:
        The section of the grid on a page.

    Raises:
        RunError: the folder cannot be written.
        ConfigError: the results belong to another grid file with the same name.
    """
    from fcnlab.report.charts.draw import draw_plots

    claim_results(report.grid, lab)
    plots = [plot.reuse_files(report.folder / "plots") for plot in draw_plots(report)]
    gallery = select_gallery(report, lab, predict=predict)
    section = Section(report, plots, gallery, _make_files(report))
    with _lock_folder(lab, report.folder):
        _write_all(section, pdf=pdf)
    return section


def check_written_report(report: Report) -> None:
    """Check that a new report does not replace one of finished trials by one without any.

    Args:
        report: report that has not been written yet.

    Raises:
        RunError: the written report of the grid has finished trials, and this one has none.
    """
    if kept := describe_kept_report(report):
        raise RunError(f"{kept}. Run the grid, set the lab with --lab, or remove the folder")


def describe_kept_report(report: Report) -> str | None:
    """Describe the written report that is not replaced, because it has finished trials and the new one has none.

    Args:
        report: the new report.

    Returns:
        One line; None if there is no such report.
    """
    if (report.trials["status"] == "finished").any():
        return None
    number = [*read_reported_trials(report.folder / "provenance.json").values()].count("finished")
    if not number:
        return None
    return (
        f"{report.folder}: has the report of {format_count(number, 'finished trial')}, and no trial of the grid in its "
        "present state has finished in this lab; the report is not replaced"
    )


def publish_report(report: Report, tracker: OptionalTracker) -> None:
    """Attach a written report to the grid's run in MLflow, unless the run has it.

    Args:
        report: report of the grid.
        tracker: tracker of the grid, which keeps an error of the store.
    """
    note, best = render_markdown(report, (), with_samples=False), find_best_cell(report)

    def publish(store: MlflowTracker | None) -> None:
        if store is not None:
            store.log_report(report.folder, note, best)

    if not tracker.has_report(digest_report(report.folder, note, best)):
        tracker.call(publish)


def find_best_cell(report: Report) -> BestCell | None:
    """Return the cell with the greatest mean mIoU on the dataset of the baseline; None if no trial has finished.

    Args:
        report: report of the grid.
    """
    best = select_best(report.cells[report.cells["cell"].isin(report.groups[0].cells)])
    return BestCell(str(best["cell"]), float(best["miou"]), int(best["n"])) if best is not None else None


def write_combined(sections: Sequence[Section], lab: Lab) -> Path:
    """Write one page and one frame of several grids to `results/<grid>+<grid>/`; see `name_combined`.

    Args:
        sections: sections of the grids.
        lab: the lab of the grids.

    Returns:
        The folder.
    """
    reports = [section.report for section in sections]
    names = [report.grid.name for report in reports]
    folder = lab.results / name_combined(names)
    with _lock_folder(lab, folder):
        _write(folder / "trials.csv", to_csv_text(merge_trials(reports).drop(columns="run_id")))
        _write(folder / "report.html", render_page(sections, "+".join(names)))
    return folder


def name_combined(names: Sequence[str]) -> str:
    """Return the name of the folder of several grids.

    Args:
        names: names of the grids.

    Returns:
        The names with `+` between them. With a digest of the names where these have a `/` or `+`, so that no other
        grids have the same folder, or are too long together for a file system.

    >>> name_combined(["heads", "losses"]), name_combined(["a/b", "c"])
    ('heads+losses', 'a-b+c-cc842f8599ec')
    """
    name = "+".join(names).replace("/", "-")
    if len(name.encode()) <= MAX_BYTES and not any(sign in one for one in names for sign in "/+"):
        return name
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:12]
    return f"{name.encode()[: MAX_BYTES - 13].decode(errors='ignore')}-{digest}"


def merge_trials(reports: Sequence[Report]) -> pd.DataFrame:
    """Return the trials of several grids in one frame, with one row per grid and trial.

    A trial of several grids has a row for each of them, since its status, metrics and axes depend on the grid: one grid
    may prune it, or report another checkpoint. Columns of axes are empty in the rows of other grids.

    Args:
        reports: reports of the grids; of a grid that is given twice, the first is used.

    Returns:
        The frames of the grids, below each other, with two more columns: `grid`, the name of the grid of the row, and
        `checkpoint`, at which its metrics are reported.
    """
    frames: dict[str, pd.DataFrame] = {}
    for report in reports:
        frame = report.trials.copy()
        frame.insert(0, "grid", report.grid.name)
        frame.insert(1, "checkpoint", report.grid.file.checkpoint)
        frames.setdefault(report.grid.name, frame)
    return pd.concat(frames.values(), ignore_index=True)


@contextmanager
def _lock_folder(lab: Lab, folder: Path) -> Iterator[None]:
    """Create a folder of results and hold its lock."""
    with convert_write_errors(folder):
        lab.state.mkdir(exist_ok=True)
        with FileLock(lab.state / f"{folder.name}.report.lock"):
            folder.mkdir(parents=True, exist_ok=True)
            for file in (*list_temporary_files(folder), *list_temporary_files(folder / "plots")):  # of killed reports
                file.unlink(missing_ok=True)
            yield


def _write_all(section: Section, *, pdf: bool) -> None:
    report, folder = section.report, section.report.folder
    grid = report.grid
    for name, text in section.files.items():
        _write(folder / name, text)
    for name in EFFECTS_FILES:
        if name not in section.files:  # an earlier report had effects
            (folder / name).unlink(missing_ok=True)
    _write(folder / "table.md", to_markdown_with_footnotes(report, report.cell_table))
    _write(folder / "provenance.json", json.dumps(collect_provenance(grid, report.trials), indent=1) + "\n")
    (folder / "plots").mkdir(exist_ok=True)
    for plot in section.plots:
        _write(folder / "plots" / f"{plot.name}.png", plot.to_png())
        _write(folder / "plots" / f"{plot.name}.svg", plot.to_svg())
        file = folder / "plots" / f"{plot.name}.pdf"
        if pdf or is_file(file):
            _write(file, plot.to_pdf())
    _remove_other_plots(folder / "plots", {plot.name for plot in section.plots})
    _write(folder / "report.html", render_page([section], f"{grid.name}: {grid.file.question}"))
    _write(folder / "README.md", render_markdown(report, section.plots, with_samples=_write_samples(report, folder)))


def _remove_other_plots(folder: Path, names: Collection[str]) -> None:
    """Remove the files of the charts of an earlier report that this one does not have."""
    from fcnlab.report.charts.draw import NAMES

    for name in set(NAMES).difference(names):
        for kind in ("png", "svg", "pdf"):
            (folder / f"{name}.{kind}").unlink(missing_ok=True)


def _make_files(report: Report) -> dict[str, str]:
    """Return the tables that the page offers for download, by file name."""
    files = {
        "table.csv": to_csv_text(report.cells),
        "trials.csv": to_csv_text(report.trials.drop(columns="run_id")),
        "table.tex": report_to_latex(report),
    }
    if report.axis_effects:
        files |= dict(zip(EFFECTS_FILES, (to_csv_text(report.effects), effects_to_latex(report)), strict=True))
    return files


def _write(path: Path, content: str | bytes) -> None:
    # Commands contain the path of the grid file, which need not be UTF-8.
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    write_atomically(path, lambda file: file.write(data))


def _write_samples(report: Report, folder: Path) -> bool:
    """Write the samples of the first finished seed of the cells with the same images; return whether there are any."""
    by_cell = {cell: found for cell, found in report.records.folders.items() if cell in report.groups[0].same}
    first = {report.grid.display_name(cell): by_seed[min(by_seed)].samples for cell, by_seed in by_cell.items()}
    sheet = draw_sample_sheet(first, report.class_names)
    if sheet is None:
        return False
    file = BytesIO()
    sheet.save(file, "PNG", optimize=True)
    _write(folder / "predictions.png", file.getvalue())
    return True


def render_markdown(report: Report, plots: Sequence[Plot], *, with_samples: bool) -> str:
    """Return the report as a page of Markdown.

    Args:
        report: report of the grid.
        plots: the charts in `plots/`.
        with_samples: whether there is a `predictions.png`.
    """
    grid = report.grid
    lines = [f"# {escape_markdown(grid.name)}", "", f"**{escape_markdown(grid.file.question)}**", ""]
    texts = filter(None, (grid.file.conclusion, grid.file.description))
    lines += [line for text in texts for line in (escape_markdown_lines(text), "")]
    lines += [*(f"- {escape_markdown_lines(sentence)}" for sentence in report.summary_text), ""]
    lines += [to_markdown_with_footnotes(report, report.cell_table)]
    lines += _unfinished(report.trials)
    lines += _effects(report)
    for plot in plots:
        caption = escape_markdown(plot.caption)
        lines += [f"![{escape_alternative(plot.caption)}](plots/{plot.name}.png)", "", f"*{caption}*", ""]
    if with_samples:
        lines += ["![input, ground truth and the prediction of each cell, first seed](predictions.png)", ""]
        lines += [
            "*The first images of the reported split, with the first seed of each cell; white pixels are ignored.*",
            "",
        ]
        other_images = describe_other_images(report)
        lines += [escape_markdown(other_images), ""] if other_images else []
    lines += ["## Reproduce", "", f"    {rerun_command(grid)}", ""]
    lines += [f"- {name}: {escape_markdown(text)}" for name, text in describe_provenance(grid, report.trials)]
    lines += ["", "The trials of each cell by the beginning of their keys, in the order of the seeds:", ""]
    lines += [
        f"- {escape_markdown_lines(str(cell))}: {' '.join(key[:KEY_DIGITS] for key in keys)}"
        for cell, keys in report.trials.groupby("cell", sort=False)["key"]
    ]
    return "\n".join(lines) + "\n"


def _effects(report: Report) -> list[str]:
    """Return the table of the effects of the axes, if there are any."""
    if not report.axis_effects:
        return []
    notes = [escape_markdown_lines(line) for line in describe_effects(report.axis_effects)]
    table = to_markdown(make_effects_table(report.axis_effects, report.names))
    return ["## Effects of the axes", "", table, *(f"{line}\\" for line in notes[:-1]), notes[-1], ""]


def _unfinished(trials: pd.DataFrame) -> list[str]:
    """List missing and failed trials."""
    failures = trials[trials["status"] == "failed"]
    missing = int(trials["status"].isin(["missing", "running"]).sum())
    lines = [f"Incomplete: {missing} of {len(trials)} trials are missing or running.", ""] if missing else []
    for cell, seed, failure in failures[["cell", "seed", "failure"]].itertuples(index=False):
        reason = (str(failure).splitlines() or [MISSING])[0]
        lines.append(escape_markdown(f"- failed: {cell}, seed {seed}: {reason}"))
    return [*lines, ""] if len(failures) else lines
