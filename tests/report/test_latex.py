"""Tables in LaTeX fit two-column papers: they are compiled where pdflatex is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from fcnlab.config.grid.display_names import Names
from fcnlab.config.grid.grid import load
from fcnlab.config.registry import builtin
from fcnlab.report.best import add_best, find_best
from fcnlab.report.dataset_groups import find_groups
from fcnlab.report.report import Report
from fcnlab.report.significance import Significance
from fcnlab.report.tables.cells import View, make_cell_table
from fcnlab.report.tables.latex_text import escape_latex, list_other_scripts, list_t1_characters, measure, split_pieces
from fcnlab.report.tables.paper import report_to_latex
from fcnlab.report.trial_records import TrialRecords
from fcnlab.runner.plan import Plan
from tests.conftest import REPOSITORY

RESULTS = sorted(path.parent.name for path in (REPOSITORY / "results").glob("*/table.csv"))

LONG = """
question: Which backbone of 50 % fewer parameters & which head? A question with_underscores and timm:names in it.
base: {dataset: shapes, recipe: quick}
product:
  backbone: ["timm:mobilenetv4_conv_small.e2400_r224_in1k", "timm:convnextv2_atto.fcmae_ft_in1k"]
  head: [deeplabv3plus, fcn8s]
  recipe.optimizer: [{name: adamw, lr: 0.003}, {name: sgd, lr: 0.01, momentum: 0.9}]
seeds: 3
"""
"""Three axes with long values."""


def committed(name: str) -> Report:
    """A report with the cells of a committed table."""
    file = REPOSITORY / "results" / name / "table.csv"
    cells = pd.read_csv(file, keep_default_na=False, na_values=[""], dtype={"cell": str})
    return report_of(REPOSITORY / "experiments" / f"{name}.yaml", cells)


def report_of(file: Path, cells: pd.DataFrame) -> Report:
    grid = load(file, builtin())
    trials = pd.read_csv(REPOSITORY / "results/quickstart/trials.csv")
    records, significance = TrialRecords({}, {}, "last"), Significance({}, {}, 0)
    groups = find_groups(grid, trials.iloc[:0], records)
    best = find_best(cells, records, groups, significance)
    cells, names = add_best(cells.assign(flags=""), best), Names.of_grid(grid)
    return Report(
        plan=Plan(grid, ()), trials=trials, cells=cells, cell_table=make_cell_table(cells, names),
        names=names, summary_text=[], significance=significance, best=best, groups=groups,
        records=records, repeated=[], folder=Path("results"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """A report of a grid with three axes and long values."""
    file = tmp_path_factory.mktemp("grid") / "long_names.yaml"
    file.write_text(LONG, encoding="utf-8")
    grid = load(file, builtin())
    example = pd.read_csv(REPOSITORY / "results/camvid-skip-fusion/table.csv").drop(columns=["head", "upsampler"])
    rows = [
        {**example.iloc[index].to_dict(), "cell": cell.label, **{axis: str(v) for axis, v in cell.axes.items()}}
        for index, cell in enumerate(grid.cells)
    ]
    return report_of(file, pd.DataFrame(rows))


def tables(long: Report) -> Iterator[str]:
    """Every committed table and the one with long names, for a column and for the page, and a pivoted one."""
    for name in RESULTS:
        report = committed(name)
        yield report_to_latex(report)
        yield report_to_latex(report, wide=True)
        if len(report.grid.axes) > 1:
            yield report_to_latex(report, View(pivot=(report.grid.axes[0], report.grid.axes[1])))
    yield report_to_latex(long)
    yield report_to_latex(long, wide=True)
    yield report_to_latex(long, View(("n", "miou", "delta", "p_holm", "miou_range")))
    yield report_to_latex(long, View(("n", "miou", "delta", "miou_range", "miou_last", "miou_best", "p_holm")))


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("document_class", ["[journal]{IEEEtran}", "[twocolumn]{article}"])
def test_every_table_fits_a_two_column_paper(long: Report, tmp_path: Path, document_class: str) -> None:
    class_file = re.sub(r".*\{(.*)\}", r"\1.cls", document_class)
    if not subprocess.run(["kpsewhich", class_file], capture_output=True, check=False).stdout:
        pytest.skip(f"{class_file} is not installed")
    body = "\n".join(f"{table}\\clearpage" for table in tables(long))
    text = f"\\documentclass{document_class}\n\\usepackage{{booktabs,array,graphicx}}\n\\begin{{document}}\n{body}\n"
    text += "\\end{document}\n"
    (tmp_path / "paper.tex").write_text(text, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    log = (tmp_path / "paper.log").read_text(encoding="utf-8", errors="replace")
    assert done.returncode == 0, log[-2000:]
    assert re.findall(r"Overfull \\hbox.*\n.*", log) == []


def test_the_printed_part_is_short_and_the_details_are_a_comment(long: Report) -> None:
    report = committed("quickstart")
    latex = report_to_latex(report)
    comments = [line for line in latex.splitlines() if line.startswith("%")]
    printed = latex.splitlines()[len(comments) :]
    assert printed[0] == r"\begin{table}" and r"\label{tab:quickstart}" in printed
    assert r"\caption{What do skips gain, and does the initialization of the upsampler matter?}" in printed
    assert any("Evaluated on test at native size" in line for line in comments)
    assert not any("Evaluated" in line for line in printed)
    (note,) = (line for line in printed if line.startswith(r"\parbox"))
    assert "over 2 seeds" in note and "Bold: highest mean" in note and r"$^{\circ}$~fewer than 3 seeds" in note
    assert r"timm:\allowbreak{}mobilenetv4\_\allowbreak{}conv" in report_to_latex(long)
    assert "optimizer &" in report_to_latex(long), "the last part of the axis recipe.optimizer"


def test_columns_are_chosen_to_fit_and_wide_has_all(long: Report) -> None:
    report = committed("quickstart")
    assert r"mIoU \% & $\Delta$ {[}95 \%{]} \\" in report_to_latex(report)
    wide = report_to_latex(report, wide=True)
    assert r"\begin{table*}" in wide and r"\linewidth" in wide
    assert all(heading in wide for heading in ("n &", "GMACs", "dev.-h"))
    chosen = report_to_latex(report, View(("gmacs",)))
    assert r"head & upsampler & GMACs" in chosen and r"\parbox" not in chosen
    assert "Left out, since the table would be wider than a column; --wide has all: n, acc. %" in report_to_latex(
        report
    )
    assert "Left out, since the table would be wider than the page: device-h." in report_to_latex(long, wide=True)
    named = ("n", "miou", "delta", "miou_range", "miou_last", "miou_best", "p_value", "p_holm", "delta_std")
    assert all(one in report_to_latex(long, View(named)) for one in (r"\rotatebox{90}{$\Delta$ std}", "{graphicx}"))
    assert r"\rotatebox" not in report_to_latex(long, wide=True), "default columns are left out instead"
    many = View((*named, "delta_mean", "params", "gmacs", "images_per_s", "peak_memory", "train_seconds"))
    assert "choose fewer columns" in report_to_latex(long, many), "columns that the user names are never dropped"


def test_a_table_that_may_be_taller_than_a_page_has_a_hint() -> None:
    report = committed("quickstart")
    assert "taller than a page" not in report_to_latex(report)
    many = replace(report, cells=pd.concat([report.cells] * 9, ignore_index=True))
    assert "% The table has 54 rows and may be taller than a page: split it, or put one axis" in report_to_latex(many)


def test_a_caption_and_labels_of_the_grid_file_are_used(tmp_path: Path) -> None:
    text = (REPOSITORY / "experiments/quickstart.yaml").read_text(encoding="utf-8")
    labels = "\nlabels: {caption: Skips., axes: {head: Head}, values: {head: {fcn8s: FCN-8s}}}\n"
    (tmp_path / "named.yaml").write_text(text + labels, encoding="utf-8")
    cells = pd.read_csv(REPOSITORY / "results/quickstart/table.csv")
    latex = report_to_latex(report_of(tmp_path / "named.yaml", cells))
    assert r"\caption{Skips.}" in latex and "Head & upsampler" in latex and "FCN-8s & bilinear" in latex


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("timm:resnet18.tv_in1k", ["timm:", "resnet18.", "tv_", "in1k"]),
        ("+10.9 [+9.5, +12.2]", ["+10.9 ", "[+9.5, ", "+12.2]"]),
        ("1e-05", ["1e-05"]),
    ],
)
def test_lines_are_broken_after_separators_but_not_within_numbers(text: str, pieces: list[str]) -> None:
    assert split_pieces(text) == pieces
    assert escape_latex(text, breakable=True).replace(r"\allowbreak{}", "") == escape_latex(text)


def test_widths_are_those_of_computer_modern() -> None:
    assert measure("0123456789", 10) == pytest.approx(50.0)
    bilinear = 2 * 0.5556 + 3 * 0.2778 + 0.4444 + 0.5 + 0.3917
    assert measure("bilinear", 8) == pytest.approx(8 * 1.0625 * bilinear, rel=0.01)


def test_hyphens_and_quotes_are_those_of_the_text() -> None:
    assert escape_latex("FCN--8s --x -0.5 (-1)") == "FCN-{}-8s -{}-x $-$0.5 ($-$1)"
    assert escape_latex('an "a" ("b") 5"') == "an ``a'' (``b'') 5''"
    assert list_t1_characters("«ą» é ß ł") == "«»ą" and list_other_scripts("«ą» é ħ") == "ħ"


@pytest.mark.parametrize("encoding", ["OT1", "T1"])
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_pdflatex_prints_each_character_that_is_not_listed(tmp_path: Path, encoding: str) -> None:
    characters = [c for c in map(chr, range(0x20, 0x2300)) if c.isprintable() and not list_other_scripts(c)]
    printed = [c for c in characters if encoding == "T1" or not list_t1_characters(c)]
    assert len(printed) > 300 and {*"„‚‹›"}.issubset(printed) == (encoding == "T1") and {*"‘’“”"}.issubset(printed)
    body = "\n".join(f"\\setbox0\\hbox{{{escape_latex(c)}}}\\typeout{{{ord(c)}: \\the\\wd0}}" for c in printed)
    package = f"\\usepackage[{encoding}]{{fontenc}}"
    text = f"\\documentclass{{article}}\n{package}\n\\begin{{document}}\n{body}\n\\end{{document}}\n"
    (tmp_path / "characters.tex").write_text(text, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "characters.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Missing character" not in done.stdout and not re.findall(r"^\d+: 0\.0pt", done.stdout, re.MULTILINE)
