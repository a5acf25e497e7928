"""Names and texts that are code in one of the formats of a report stay texts in all of them."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from fcnlab.errors import ConfigError
from fcnlab.lab import Lab
from fcnlab.report.report import Report, make_report
from fcnlab.report.tables.cells import View
from fcnlab.report.tables.csv_text import rows_to_csv_text
from fcnlab.report.tables.export import format_report
from fcnlab.report.tables.markdown_text import escape_alternative, escape_markdown, escape_markdown_lines
from fcnlab.report.write import write_report
from fcnlab.runner.plan import make_plan
from fcnlab.tracking.names import clean_names
from fcnlab.trial.record import Failure
from tests.conftest import browser
from tests.report.finished_grid import finish

HTML = "<script>document.title='owned'</script>\"'><img src=x onerror=document.title='owned'><!-- ]]> &lt;"
SCRIPT = "</script></style></title><svg onload=document.title='owned'>"
TEX = r"\input{/etc/passwd} \write18{id} % & $x$ # a_b {} ~ ^ \\ [2pt] ^^M \end{document}"
MARKDOWN = (
    "a|b `code` **bold** [x](javascript:owned) ![i](http://owned.test/p.png) [r]: http://owned.test <b>B</b> ~~s~~"
)
FORMULA = '=HYPERLINK("http://owned.test",1)'
LINES = "# heading\n\n- item\n\n    code\n\n1. one\n\n[r]: http://owned.test\n\n| a |\n|---|\n\n```\n<div>\n---\n$$x$$"
LONG = "very_long_name_" * 20
HOSTILE = (HTML, f"{SCRIPT} {{{{ 7 * 7 }}}}", MARKDOWN + TEX, FORMULA, "@SUM(A1)", LINES)

GRID_NAME = "<img src=x onerror=document.title='owned'> $x$ `c` [x](javascript:owned) =1"
CLASSES = (HTML, MARKDOWN, FORMULA)


@dataclass(frozen=True)
class Written:
    """A written report."""

    report: Report
    lab: Lab

    def read(self, name: str) -> str:
        return (self.report.folder / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """The report of a grid in which every name and text of the user, and the message of a failure, is hostile."""
    root = tmp_path_factory.mktemp("lab")
    (root / "registry").mkdir()
    recipe = {"description": HTML, "epochs": 2, "batch_size": 4, "crop": {"height": 64, "width": 64}}
    recipes = {
        name: recipe | {"optimizer": {"name": "sgd", "lr": 0.01 * (index + 1)}} for index, name in enumerate(HOSTILE)
    }
    (root / "registry/recipes.yaml").write_text(yaml.safe_dump(recipes), encoding="utf-8")
    content = {
        "question": f"{HTML} {TEX} {MARKDOWN}",
        "description": LINES,
        "conclusion": f"{SCRIPT} {LINES}",
        "base": {"backbone": "tiny-scratch", "upsampler": "bilinear", "dataset": "shapes-mini", "head": "fcn32s"},
        "product": {"recipe": list(HOSTILE)},
        "seeds": 3,
        "labels": {"axes": {"recipe": f"{HTML} {TEX}"}, "values": {"recipe": {FORMULA: TEX + HTML}}},
    }
    file = root / "experiments" / f"{GRID_NAME}.yaml"
    file.parent.mkdir()
    file.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    lab = Lab.find(file)
    grid = lab.load_grid(file)
    for planned in make_plan(grid, lab).trials:
        failed = planned.cell.label == grid.cells[-1].label
        failure = Failure(cause="exception", message=HTML + MARKDOWN, traceback=LINES + SCRIPT) if failed else None
        right = 0.5 + 0.02 * grid.cells.index(planned.cell)
        finish(planned, right, image=HTML, classes=CLASSES, failure=failure, status="failed" if failed else "finished")
    report = make_report(make_plan(grid, lab), lab, None)
    write_report(report, lab, predict=False)
    return Written(report, lab)


@pytest.fixture(scope="module")
def tab(written: Written) -> Iterator[Any]:
    """The page in a browser, with the lines of its console and its requests."""
    with browser() as tab:
        tab.output, tab.requests = [], []
        tab.on("console", lambda message: tab.output.append(message.text))
        tab.on("pageerror", lambda error: tab.output.append(str(error)))
        tab.on("request", lambda request: tab.requests.append(request.url))
        tab.goto((written.report.folder / "report.html").as_uri())
        tab.wait_for_selector("html[data-charts=ready]")
        yield tab


def test_the_page_runs_no_script_of_a_name_and_requests_nothing(written: Written, tab: Any) -> None:
    assert tab.output == []
    assert len([url for url in tab.requests if not url.startswith(("data:", "blob:"))]) == 1
    policy = tab.locator("meta[http-equiv=Content-Security-Policy]").get_attribute("content")
    assert policy.startswith("default-src 'none'; img-src data:;") and "unsafe" not in policy
    assert tab.title() == f"{GRID_NAME}: {written.report.grid.file.question}"
    assert tab.locator("img[src=x], svg[onload], [href^=javascript]").count() == 0
    for text in (HTML, SCRIPT, TEX, FORMULA):
        assert tab.get_by_text(text, exact=False).count() > 0
    tab.locator(".plot svg.marks").first.hover()
    tab.locator("button.tile").first.click()
    assert tab.locator("#lightbox").is_visible()
    assert tab.output == [] and "owned" in tab.title() and tab.title() != "owned"


PLAIN = {"paragraph_open", "paragraph_close", "inline", "text", "text_special", "softbreak"}
"""Kinds of Markdown of a text without markup."""


def tokens_of(text: str) -> list[str]:
    """Return the kinds of Markdown that a text uses, in the dialect of GitHub without its automatic links."""
    found: list[str] = []
    for token in MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text):
        found += [token.type, *(child.type for child in token.children or ())]
    return found


def test_markdown_contains_only_the_markup_of_the_report(written: Written) -> None:
    page = written.read("README.md")
    found = tokens_of(page)
    assert not {"html_inline", "html_block", "link_open", "code_inline", "fence", "s_open", "hr"}.intersection(found)
    assert found.count("heading_open") == 2 and found.count("table_open") == 1
    assert found.count("image") == len(list((written.report.folder / "plots").glob("*.png"))) + 1
    assert found.count("code_block") == 1, "the command"
    assert found.count("tr_open") == len(HOSTILE) + 1
    texts = "\n".join(line for line in page.splitlines() if not line.startswith("    "))
    assert not re.findall(r"(?<!\\)\$", texts), "no formulas"


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("ab1 _*`[]()!<>&;#x~|\\-+=.:/$\"'\n{}^@"), max_size=14))
def test_no_text_becomes_markup(text: str) -> None:
    assert set(tokens_of(escape_markdown_lines(text))) <= PLAIN
    assert set(tokens_of(f"x {escape_markdown(text)} y")) <= PLAIN
    assert tokens_of(f"| a |\n|---|\n| {escape_markdown(text)} |\n").count("td_open") == 1
    assert tokens_of(f"![{escape_alternative(text)}](a.png)")[2:-1] == ["image"]


@pytest.mark.parametrize("text", [*HOSTILE, GRID_NAME, LONG, "+1", "-x", "__init__", "12. a", "a_b_ _c"])
def test_markdown_shows_names_as_they_are(text: str) -> None:
    plain = " ".join(text.split())
    (_, inline, _) = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(escape_markdown(f"x {text}"))
    assert "".join(child.content for child in inline.children) == f"x {plain}"
    assert set(tokens_of(escape_markdown_lines(text))) <= PLAIN
    assert tokens_of(f"![{escape_alternative(text)}](a.png)").count("image") == 1


def test_latex_prints_names_and_runs_nothing(written: Written, tmp_path: Path) -> None:
    table = written.read("table.tex")
    printed = "".join(line for line in table.splitlines() if not line.startswith("%"))
    assert not re.findall(r"\\(?:input|write|end\{document)", printed)
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed")
    head = "\\documentclass{article}\\usepackage{booktabs,array}\\begin{document}\n"
    (tmp_path / "paper.tex").write_text(f"{head}{table}\\end{{document}}\n", encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-shell-escape", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    opened = re.sub(r"\n", "", done.stdout)  # TeX prints a parenthesis before the name of a file that it opens
    assert not any(text in opened for text in ("(/etc/passwd", "root:", "uid="))


@pytest.mark.parametrize("name", ["table.csv", "trials.csv"])
def test_csv_files_contain_no_formulas(written: Written, name: str) -> None:
    rows = list(csv.reader(io.StringIO(written.read(name))))
    assert len({len(row) for row in rows}) == 1
    texts = [text for row in rows for text in row]
    assert f"'{FORMULA}" in texts and "'@SUM(A1)" in texts
    assert [text for text in texts if text[:1] in "=+-@\t\r" and not re.fullmatch(r"[+-]?[\d.e+-]*", text)] == []


def test_rows_of_commands_are_written_without_formulas_and_with_all_digits() -> None:
    rows = [{"class": "\r=1\x00", "=iou": 0.123456789}, {"class": "\uff1d1", "=iou": None}]
    assert rows_to_csv_text(rows) == "class,'=iou\n\\r=1\\x00,0.123456789\n'\uff1d1,\n"


def test_json_and_html_contain_the_names(written: Written) -> None:
    values = json.loads(format_report(written.report, View(), "json"))
    assert [cell["recipe"] for cell in values["cells"]] == list(HOSTILE)
    html = format_report(written.report, View(), "html")
    assert "<script" not in html and "<img" not in html
    assert json.loads(written.read("provenance.json"))["grid"] == GRID_NAME


def test_metrics_of_classes_have_names_that_trackers_accept() -> None:
    names = clean_names(
        [*HOSTILE, GRID_NAME, LONG, LONG + "2", "../..", "/", "..", "", "a/../b", "\u202e\x1b", "CON", "con"]
    )
    assert len({name.casefold() for name in names}) == len(names)
    assert all(re.fullmatch(r"[\w.\- ]{1,210}", name) and name not in (".", "..") for name in names)


@pytest.mark.parametrize("name", ["a\x1b[2Jb", "a\nb", "a\u202eb", "..", ".hidden", "x" * 201])
def test_a_grid_file_whose_name_cannot_be_a_path_or_printed_is_refused(tmp_path: Path, name: str) -> None:
    file = tmp_path / "experiments" / f"{name}.yaml"
    file.parent.mkdir()
    file.write_text("question: x\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="rename the file") as refused:
        Lab.find(file).load_grid(file)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("escape", [r"\e[2J", r"\0", r"\u202E", r"\uD800", r"\r", r"\a"])
def test_control_characters_in_yaml_are_refused(tmp_path: Path, escape: str) -> None:
    file = tmp_path / "experiments" / "q.yaml"
    file.parent.mkdir()
    file.write_text(f'question: "a{escape}b"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="line 1: not valid YAML") as refused:
        Lab.find(file).load_grid(file)
    assert str(refused.value).isprintable()
