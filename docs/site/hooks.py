"""Hooks of MkDocs: add README.md and the pages of results/ to the site, and the help of each command to commands.md."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Navigation, Section
from mkdocs.structure.pages import Page
from typer.main import get_command

from fcnlab.cli import app

REPOSITORY = Path(__file__).resolve().parent.parent.parent
SHOWN = {".md", ".html", ".png", ".csv", ".svg", ".tex", ".json"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the README, as the start page, and the files of results/ to those of docs/."""
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    page = re.sub(r"\[([^\]]*)\]\(CONTRIBUTING\.md\)", r"\1", readme.replace("](docs/", "]("))
    files.append(File.generated(config, "index.md", content=page))
    for path in sorted((REPOSITORY / "results").rglob("*")):
        if path.suffix in SHOWN:
            source = str(path.relative_to(REPOSITORY))
            files.append(File.generated(config, source, abs_src_path=str(path)))
    return files


def on_nav(nav: Navigation, config: MkDocsConfig, files: Files) -> Navigation:
    """Append the report of each grid to the navigation."""
    pages = [
        Page(file.src_path.split("/")[1], file, config)
        for file in files.documentation_pages()
        if re.fullmatch(r"results/[^/]+/README\.md", file.src_path)
    ]
    nav.items.append(Section("Results", pages))
    nav.pages.extend(pages)
    return nav


def on_page_markdown(markdown: str, page: Page, **_arguments: Any) -> str:
    """Adapt links that leave docs/, and fill the page of commands."""
    if page.file.src_path == "commands.md":
        return markdown + "\n" + "\n".join(_describe_commands())
    markdown = re.sub(r"\]\((\.\./)+results/", lambda match: match[0].replace("../", "", 1), markdown)
    return re.sub(r"\[([^\]]*)\]\(\.\./benchmarks/[^)]*\)", r"\1", markdown)


def _describe_commands() -> list[str]:
    """Return the usage, the help and the options of all commands as lines of Markdown."""
    lines: list[str] = []

    def visit(command: Any, path: str) -> None:
        if hasattr(command, "commands"):
            for name, child in command.commands.items():
                visit(child, f"{path} {name}")
        else:
            lines.extend(_describe_command(command, path))

    visit(get_command(app), "fcnlab")
    return lines


def _describe_command(command: Any, path: str) -> list[str]:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and p.name != "help"]
    usage = " ".join([path, *map(_metavar, arguments), "[OPTIONS]"])
    rows = [(_name(p), _cell(p.help)) for p in (*arguments, *options) if p.help]
    table = ["| argument | meaning |", "| --- | --- |", *(f"| {name} | {text} |" for name, text in rows)]
    example = (command.epilog or "").removeprefix("Example: ")
    shown = ["Example:", "", "```", example, "```", ""] if example else []
    text = inspect.cleandoc(command.help or "").replace("<", "&lt;")
    return [f"## {path}", "", "```", usage, "```", "", text, "", *table, "", *shown]


def _metavar(argument: Any) -> str:
    name = argument.metavar if argument.required else f"[{argument.metavar}]"
    return name + ("..." if argument.nargs == -1 else "")


def _name(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{_metavar(parameter)}`"
    default = parameter.show_default if isinstance(parameter.show_default, str) else parameter.default
    shown = default not in (None, "") and not callable(default) and not isinstance(default, bool | tuple | list)
    value = f" {parameter.metavar}" if parameter.metavar is not None else ""
    names = ", ".join(f"`{name}{value}`" for name in (*parameter.opts, *parameter.secondary_opts))
    return _cell(f"{names} ({default})" if shown else names)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
