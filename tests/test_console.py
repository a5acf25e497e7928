"""Output on terminals of any width, in pipes, and in encodings that lack characters."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

from fcnlab.cli.output import sample_bars
from fcnlab.console import UNLIMITED, create_console, format_table
from fcnlab.report.tables.formats import to_terminal
from fcnlab.report.tables.table import Table
from fcnlab.runner.progress.create import create_reporter
from fcnlab.runner.progress.plain import PlainReporter
from tests.cli.conftest import Call, columns, fcnlab  # noqa: F401 - fixtures

GRID = """
question: Which loss?
base: {variant: fcn32s-tiny, dataset: shapes-mini, recipe: smoke}
cells: [{}, {recipe.loss.dice: 0.12345}, {recipe.loss.lovasz: 0.5}, {recipe.loss.focal: 2.0}]
"""

TABLE = Table(
    ("recipe.loss.dice", "recipe.loss.lovasz", "recipe.loss.focal", "n", "mIoU %", "Δ mIoU [95 %]", "acc. %"),
    (
        ("0.0", "0.0", "0.0", "3", "13.0 ± 1.0", "baseline", "78.1"),
        ("0.12345", "0.0", "0.0", "3", "14.0 ± 1.0", "+1.0 [+0.5, +1.5]", "79.1"),
    ),
    3,
    0,
)


def render(table: Table, width: int) -> str:
    terminal = Console(file=io.StringIO(), width=width)
    terminal.print(to_terminal(table, "Which loss?", width))
    assert isinstance(terminal.file, io.StringIO)
    return terminal.file.getvalue()


@pytest.mark.parametrize("width", [30, 60, 80, UNLIMITED])
def test_a_table_cuts_no_heading_and_no_value_at_any_width(width: int) -> None:
    text = render(TABLE, width)
    assert "…" not in text
    if width > 30:
        assert {"dice", "lovasz", "focal", "0.12345", "baseline"} <= set(re.split(r"\s+|(?<=[a-z])\.", text))


def test_without_a_limit_a_table_has_one_line_per_row() -> None:
    lines = render(TABLE, UNLIMITED).splitlines()
    assert len(lines) == 4
    assert lines[1].split() == " ".join(TABLE.headings).split()


def test_wide_characters_take_the_space_of_two() -> None:
    wide = Table(("recipe", "n", "mIoU %", "Δ", "acc. %"), (("快速" * 8, "1", "13.0", "baseline", "78.1"),), 1, 0)
    shown = render(wide, 55)
    assert "快速" * 8 in shown
    assert "more columns: acc. %" in shown


def pipe(monkeypatch: pytest.MonkeyPatch, encoding: str) -> io.BytesIO:
    """Replace standard output by a pipe."""
    raw = io.BytesIO()
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding, write_through=True))
    return raw


def test_a_pipe_has_no_width_unless_columns_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    output = pipe(monkeypatch, "utf-8")
    create_console().print("word " * 200)
    assert output.getvalue().decode().strip() == ("word " * 200).strip()
    monkeypatch.setenv("COLUMNS", "60")
    assert create_console().width == 60


def test_lines_of_a_pipe_do_not_end_with_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    output = pipe(monkeypatch, "utf-8")
    terminal = create_console()
    terminal.print(format_table(("name", "description"), [("a", "long " * 40), ("b", "short")], terminal.width))
    lines = output.getvalue().decode().splitlines()
    assert lines == [line.rstrip() for line in lines]
    assert lines[-1].split() == ["b", "short"]


def test_a_title_is_as_wide_as_the_terminal_and_not_as_its_table(monkeypatch: pytest.MonkeyPatch) -> None:
    output = pipe(monkeypatch, "utf-8")
    terminal = create_console()
    title = "What do skips gain, and does the initialization matter?"
    terminal.print(format_table(("a", "b"), [("1", "2")], terminal.width, title=title))
    assert output.getvalue().decode().splitlines()[0] == title


@pytest.mark.parametrize("variable", ["FORCE_COLOR", "TTY_COMPATIBLE"])
def test_colors_in_a_pipe_on_request_do_not_make_it_a_terminal(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    output = pipe(monkeypatch, "utf-8")
    monkeypatch.setenv(variable, "1")
    console = create_console()
    reporter = create_reporter(console)
    assert type(reporter) is PlainReporter, "one line per event, and no table that is replaced in place"
    assert not console.is_terminal
    console.print(Text("finished", "bold"))
    assert output.getvalue() == b"\x1b[1mfinished\x1b[0m\n"


def test_a_pipe_has_no_colors_without_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    output = pipe(monkeypatch, "utf-8")
    create_console().print(Text("finished", "bold"))
    assert output.getvalue() == b"finished\n"


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_process_without_an_output_prints_nothing_there(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(sys, name, None)
    console = create_console(stderr=name == "stderr")
    console.print("finished")
    assert type(create_reporter(console)) is PlainReporter


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_characters_that_a_stream_lacks_are_replaced(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    output = pipe(monkeypatch, encoding)
    console = create_console()
    console.print(to_terminal(TABLE, "快速?", console.width))
    assert b"? mIoU [95 %]" in output.getvalue()
    assert output.getvalue().startswith(b"???")


def test_a_command_replaces_them_in_all_that_it_prints(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from fcnlab import cli

    file = tmp_path / "loss.yaml"
    file.write_text(GRID.replace("Which", "Quelle — 快速"), encoding="utf-8")
    output = pipe(monkeypatch, "ascii")
    monkeypatch.setattr(sys, "argv", ["fcnlab", "grid", "plan", str(file), "--lab", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    assert b"loss: Quelle ? ?? loss?" in output.getvalue()


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_tables_fit_the_terminal_and_break_no_word(fcnlab: Call, tmp_path: Path, columns: int) -> None:  # noqa: F811
    (tmp_path / "loss.yaml").write_text(GRID, encoding="utf-8")
    commands = (
        "data stats shapes-mini", "data list", "data list --verbose", "registry list heads", "weights list",
        "model show fcn8s-tiny --size 64x64", "model compare fcn8s-tiny fcn32s-tiny --size 64x64",
    )  # fmt: skip
    for command in commands:
        shown = fcnlab(*command.split())
        assert shown.code == 0, command
        assert max(len(line.rstrip()) for line in shown.out.splitlines()) <= columns, (command, shown.out)
    listed = {line.split()[0] for line in fcnlab("data", "list").out.splitlines()}
    assert {"voc2012-trainaug", "voc2011-seg11valid", "shapes-mini"} <= listed
    assert {"background", "triangle", "(ignored)"} <= set(fcnlab("data", "stats", "shapes-mini").out.split())
    plan = fcnlab("grid", "plan", "loss.yaml", "--no-probe").out
    assert "0.12345" in plan and "lovasz" in plan


@pytest.mark.parametrize("columns", [40])
@pytest.mark.parametrize(
    "command", ["data stats shapes-mini", "data list", "registry list recipes", "grid plan loss.yaml", "diff"]
)
def test_no_command_cuts_text_on_a_narrow_terminal(fcnlab: Call, tmp_path: Path, command: str) -> None:  # noqa: F811
    (tmp_path / "loss.yaml").write_text(GRID, encoding="utf-8")
    shown = fcnlab(*command.split())
    assert "…" not in shown.out + shown.err
    assert shown.out or shown.err


def test_names_in_tables_cannot_control_the_terminal() -> None:
    shown = render(Table(("class\x1b[2J", "n"), (("\x1b[31mroad\u202e", "1"),), 1), 80)
    assert r"class\x1b[2J" in shown and r"\x1b[31mroad\u202e" in shown and "\x1b[31m" not in shown


def test_names_in_progress_bars_are_no_markup(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with sample_bars() as bars:
        bars("[/shapes] [link=http://owned.test]x", 2)()
    assert "[/shapes] [link=http://owned.test]x" in capsys.readouterr().err
