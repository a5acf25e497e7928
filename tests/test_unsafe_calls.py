"""The sources contain no call that runs code from data, a shell, or a predictable temporary file."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.conftest import REPOSITORY

ALLOWED = {("fcnlab/extensions/lab.py", "exec")}
"""A Python file of the lab runs after the user has allowed it."""

MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
CALLS = {"eval", "exec", "os.system", "os.popen", "tempfile.mktemp", "yaml.unsafe_load", "yaml.full_load", "yaml.load"}


def find_unsafe_calls(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in MODULES:
            yield str(node.module)
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if name in CALLS:
                yield name
            if name == "torch.load" and options.get("weights_only") != "True":
                yield "torch.load without weights_only"
            if options.get("shell", "False") != "False":
                yield "shell=True"
            if options.get("allow_pickle", "False") != "False":
                yield "allow_pickle"


def test_no_source_contains_an_unsafe_call() -> None:
    paths = [*(REPOSITORY / "fcnlab").rglob("*.py"), *(REPOSITORY / "docs").rglob("*.py"), REPOSITORY / "setup.py"]
    found = {
        (path.relative_to(REPOSITORY).as_posix(), call)
        for path in paths
        for call in find_unsafe_calls(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert len(paths) > 100 and found == ALLOWED


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "eval(text)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "subprocess.run(text, shell=True)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text, Loader=yaml.Loader)",
    ],
)
def test_unsafe_calls_are_found(source: str) -> None:
    assert list(find_unsafe_calls(ast.parse(source)))
