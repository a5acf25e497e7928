"""Unusual names and unusual things in the place of each file that the command line takes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.failures.mutations.command_lines import GRID
from benchmarks.failures.mutations.contents import REGISTRY
from benchmarks.failures.mutations.problem import find_problem
from benchmarks.failures.mutations.sandbox import Sandbox
from benchmarks.failures.mutations.yaml_files import make_street

NAMES = (
    "größe", "gro\u0308ße", "\u05e9\u05dc\u05d5\u05dd", "日本語", "👩‍🔬", "with a blank", " before", "after ",
    "a'b", 'a"b', "a;b", "a&b", "$HOME", "%s", "{split}", "a=b", "a,b", "a:b", "a+b", "#a", "[a]", "a*",
    "\ufeffa", "a\tb", "a\nb", "a\u202eb", "a\udcffb", "x" * 200, "x" * 254, "x" * 300, "-a", "--json", "...",
    "CON", "a.yaml", "a.tar.gz", "~a", "@a", "\\a",
)  # fmt: skip
"""Names without an ending."""

PLACES: dict[str, Callable[[Path], object]] = {
    "a folder": Path.mkdir,
    "an empty file": Path.touch,
    "a pipe": os.mkfifo,
    "a link to itself": lambda path: path.symlink_to(path),
    "a broken link": lambda path: path.symlink_to("missing"),
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "nothing": str,
    "zeros": lambda path: path.write_bytes(bytes(4096)),
}
"""Functions that put something else in the place of a file."""

FORMS: dict[str, Callable[[bytes], bytes]] = {
    "Windows line ends": lambda content: content.replace(b"\n", b"\r\n"),
    "a byte order mark": lambda content: b"\xef\xbb\xbf" + content,
}
"""Forms of a text file that are read like the usual one."""

NAMED = b"ground\nroad\nthing\ntree\n"


class Role(NamedTuple):
    """A file that the command line takes.

    Attributes:
        name: name of the role.
        file: its usual path.
        content: a valid content.
        commands: returns the commands that read the file at a path.
        fixed: whether the file has to have its usual name.
    """

    name: str
    file: Path
    content: bytes
    commands: Callable[[Path], Sequence[tuple[str, ...]]]
    fixed: bool = False


def list_roles(sandbox: Sandbox, model: Path) -> list[Role]:
    """Return the files that the command line takes.

    Args:
        sandbox: the lab.
        model: file of an exported model.
    """
    lab, street = sandbox.lab, sandbox.lab / "street"
    make_street(street)
    add = ("data", "add", "new", "--images", "street/images", "--masks", "street/masks", "--dry-run", "--ignore", "11")
    check = ("data", "check", "two")
    out = ("--out", str(sandbox.out), "--overwrite")
    picture = (street / "images" / "a0.png").read_bytes()
    grids, registry, lists = lab / "experiments", lab / "registry", street / "lists"

    def predict(path: Path) -> list[tuple[str, ...]]:
        return [("predict", "../model.safetensors", str(named), *out) for named in (path, path.parent)]

    def text(name: str) -> bytes:
        return REGISTRY[name].encode()

    return [
        Role("grid file", grids / "q.yaml", GRID.encode(), lambda path: [("grid", "plan", str(path))]),
        Role("registry file", registry / "heads.yaml", text("heads"), lambda _: [("registry", "list", "heads")], True),
        Role("file of datasets", registry / "datasets.yaml", text("datasets"), lambda _: [("data", "list")], True),
        Role("extensions", registry / "extensions.yaml", text("extensions"), lambda _: [("registry", "list")], True),
        Role("list of classes", street / "names.txt", NAMED, lambda path: [(*add, "--classes", str(path))]),
        Role(
            "list of a split",
            lists / "train.txt",
            b"a0\na1\na2\n",
            lambda path: [(*add, "--lists", str(path.parent))],
            True,
        ),
        Role(
            "exported model",
            lab / "model.safetensors",
            model.read_bytes(),
            lambda path: [("predict", str(path), "street/images/a1.png", *out)],
        ),
        Role("image", street / "single" / "a0.png", picture, predict),
        Role("image of a dataset", street / "images" / "a0.png", picture, lambda _: [add, check], True),
    ]


def run_cases(sandbox: Sandbox, model: Path, limit: int | None = None) -> Iterator[tuple[str, str]]:
    """Try all names and things in the place of all files.

    Args:
        sandbox: the lab.
        model: file of an exported model, outside of the lab.
        limit: number of names and things of each file; None for all.

    Yields:
        The kind of each case, and the problem if it failed, else an empty text.
    """
    (sandbox.lab / "registry" / "datasets.yaml").write_text(REGISTRY["datasets"], encoding="utf-8")
    for role in list_roles(sandbox, model):
        before = role.file.read_bytes() if role.file.is_file() else None
        (role.file.parent / "val.txt").unlink(missing_ok=True)
        role.file.parent.mkdir(exist_ok=True)
        if role.name == "list of a split":
            (role.file.parent / "val.txt").write_text("a4\na5\n", encoding="utf-8")
        for what, put in list(PLACES.items())[:limit]:
            yield from _try(sandbox, role, role.file, put, what)
        for what, convert in FORMS.items() if role.file.suffix in (".yaml", ".txt") else ():
            yield from _try(sandbox, role, role.file, partial(_write, content=convert(role.content)), what)
        for name in NAMES[: 0 if role.fixed else limit]:
            path = role.file.with_name(f"{name}{role.file.suffix}")
            yield from _try(sandbox, role, path, partial(_write, content=role.content), f"the name {name[:20]!a}")
        if before is not None:
            role.file.write_bytes(before)


def _try(
    sandbox: Sandbox, role: Role, path: Path, put: Callable[[Path], object], what: str
) -> Iterator[tuple[str, str]]:
    _remove(role.file)
    with suppress(OSError):  # if the file system has no such names, the command is called with a missing file
        put(path)
    for command in role.commands(path):
        result = sandbox.call(*command)
        names = [path.name, str(path.parent), "dataset two", "--classes"]
        problem = find_problem(result, names, codes=(0,) if what in FORMS else (0, 1, 2))
        kind = "names" if what.startswith("the name") else "things in the place"
        yield f"{kind} of files: {role.name}", f"{what}; {' '.join(command[:2])}: {problem}" if problem else ""
    _remove(path)


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _remove(path: Path) -> None:
    with suppress(OSError):  # a name that is too long
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
