"""Random command lines: verbs, options and values in any combination."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from benchmarks.failures.mutations.problem import find_problem
from benchmarks.failures.mutations.sandbox import Sandbox
from benchmarks.failures.mutations.yaml_files import make_street

GRID = """
question: Does it run?
base: {backbone: tiny-scratch, upsampler: bilinear, dataset: shapes-mini, recipe: smoke}
product: {head: [fcn32s, fcn8s]}
"""

_GROUPS = {
    "grid": ("plan", "status", "sync", "reproduce", "schema", ""),
    "registry": ("list", "show", ""),
    "data": ("list", "check", "stats", "preview", "add", "fetch"),
    "data cache": ("list", "verify", "clear", "make", ""),
    "model": ("show", "compare", ""),
    "weights": ("list", "fetch"),
    "lab": ("check", ""),
    "": ("diff", "report", "compare", "evaluate", "predict", "export", "init", "train", "ui", "data", ""),
}
VERBS = tuple(tuple(f"{group} {verb}".split()) for group, verbs in _GROUPS.items() for verb in verbs)

OPTIONS = (
    "--json", "--lab", "--data-root", "--tracking-uri", "--tracker", "--workers", "--threads", "--per-gpu", "--device",
    "--all", "--no-probe", "--verbose", "--search", "--split", "--dataset", "--recipe", "--set", "--seed", "--out",
    "--csv", "--columns", "--sort", "--group-by", "--pivot", "--format", "--wide", "--strict", "--power", "--size",
    "--num-classes", "--count", "--classes", "--ignore", "--images", "--masks", "--lists", "--val", "--test",
    "--channels", "--dry-run", "--force", "--checkpoint", "--flip", "--scales", "--window", "--stride", "--tta", "--to",
    "--older-than", "--repair", "--host", "--port", "--workdir", "--init-from", "--log-every", "--overwrite",
    "--help", "--version", "--allow-extensions", "-h", "-x", "--", "--jsn", "--seeds", "--wokers", "--JSON", "--out=",
    "--lab=", "--seed=-1", "---json", "--no-json", "-",
)  # fmt: skip

VALUES = (
    "experiments/q.yaml", "experiments/q.yaml:fcn8s", "experiments/q.yaml:best", "experiments/q.yaml:fcn8s:0",
    "experiments/missing.yaml", "experiments", "registry", "q", "fcn8s", "tiny-scratch+fcn8s", "tiny-scratch",
    "shapes-mini", "street", "smoke", "heads", "head", "recipe", "one", "0", "1", "-1", "2", "1.5", "nan",
    "inf", "-inf", "1e400", "99999999999999999999", "0x10", "true", "", " ", "\t", "\n", "-", "--", ".", "..",
    "/", "/dev/null", "/dev/zero", "/proc/self/mem", "~", "~unknown-user", "@file", "@", "*", "?",
    "$HOME", "`true`", "a,b", ",", "a=b", "=", "recipe.epochs=1", "recipe.epochs=", "recipe.epochs=[",
    "recipe.epochs=1\nx: 2", "recipe=", "ünïcode", "日本語", "👩‍🔬", "e\u0301", "\u05d0\u05d1", "\u202eabc",
    "\x1b[2J", "\x07", "a\0b", "\ud83d", "x" * 300, "x" * 5000, "../../x", "C:\\x", "out/file.png",
    "out/file.csv", "street/images", "street/masks", "street/images/a0.png", "model.safetensors", "abcdef",
    "0" * 64, "0" * 12, "auto", "cpu", "cuda", "last", "best", "onnx", "csv", "latex", "100x100", "0x0", "9x",
    "99999999x99999999", "1,2", "0.5", "0.5,2", "file:///x", "http://127.0.0.1:9", "sqlite:///x/y.db", "none",
    "mlflow", "{split}", "[", "(", "a(", "\\",
)  # fmt: skip

SLOW = frozenset({("train",), ("ui",), ("weights", "fetch"), ("data", "fetch"), ("grid", "reproduce")})
"""Verbs that train, serve or download if all of their values are valid; they are called with an invalid option."""


def run_cases(sandbox: Sandbox, count: int, chance: random.Random) -> Iterator[tuple[str, str]]:
    """Try random command lines.

    Args:
        sandbox: the lab.
        count: number of command lines.
        chance: chooses them.

    Yields:
        The kind of each, and the problem if it failed, else an empty text.
    """
    make_street(sandbox.lab / "street")
    (sandbox.lab / "experiments" / "q.yaml").write_text(GRID, encoding="utf-8")
    for _ in range(count):
        arguments = make_arguments(chance)
        result = sandbox.call(*arguments)
        problem = find_problem(result, [""], codes=(0, 1, 2), inside=str(sandbox.lab))
        for path in map(Path, reversed(result.created)):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        shown = " ".join(ascii(word)[:60] for word in arguments)
        group = " ".join(arguments[:1]) if arguments and arguments[0].isalpha() else "no verb"
        yield f"command lines: {group}", f"{shown}: {problem}" if problem else ""


def make_arguments(chance: random.Random) -> tuple[str, ...]:
    """Return the arguments of a random command line.

    Args:
        chance: chooses them.
    """
    verb = chance.choice(VERBS)
    if chance.random() < 0.05 and verb:
        verb = (*verb[:-1], verb[-1] + chance.choice(("x", "", " ", "\u0435")))
    words: list[str] = []
    for _ in range(chance.choice((0, 1, 1, 2, 2, 3, 5))):
        words += _choose_words(chance)
    if verb in SLOW:
        words = [word for word in words if word != "--"] + ["--no-such-option"]
    return (*verb, *words)


def _choose_words(chance: random.Random) -> list[str]:
    match chance.randrange(4):
        case 0:
            return [chance.choice(OPTIONS)]
        case 1:
            return [chance.choice(OPTIONS), chance.choice(VALUES)]
        case 2:
            return [f"{chance.choice(OPTIONS)}={chance.choice(VALUES)}"]
        case _:
            return [chance.choice(VALUES)]
