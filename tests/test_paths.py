"""Pipes, devices, links in a circle, unknown home folders and long names in the place of files that users give."""

from __future__ import annotations

import ast
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fcnlab.config.yaml_file import read
from fcnlab.data.datasets.fingerprint import hash_file
from fcnlab.data.datasets.image_file import open_image
from fcnlab.data.datasets.splits import read_list
from fcnlab.errors import FcnlabError
from fcnlab.inference.load import read_safetensors
from fcnlab.lab import Lab
from fcnlab.models.backbones.weights_file import read_tensors
from fcnlab.paths import correct_names, exists, expand_home, fold_name, is_file, is_folder, resolve_path
from tests.cli.conftest import Call, columns, fcnlab  # noqa: F401 - fixtures
from tests.conftest import REPOSITORY, SMOKE, write_grid

READERS: list[Callable[[Path], object]] = [read, hash_file, open_image, read_list, read_safetensors, read_tensors]


@pytest.mark.parametrize("reader", READERS)
def test_a_pipe_or_device_in_the_place_of_a_file_is_refused_at_once(
    reader: Callable[[Path], object], tmp_path: Path
) -> None:
    pipe, loop, device = tmp_path / "pipe", tmp_path / "loop", tmp_path / "device"
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    device.symlink_to("/dev/zero")
    problems = {pipe: "is a pipe; expected a file", device: "is a device; expected a file", loop: "link|No such file"}
    for path, problem in problems.items():
        with pytest.raises(FcnlabError, match=problem) as caught:
            reader(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_home_folder_without_a_user_and_a_link_in_a_circle_are_plain_paths(tmp_path: Path) -> None:
    assert expand_home("~unknown-user/data") == Path("~unknown-user/data")
    assert expand_home("~") == Path.home()
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert resolve_path(loop) == loop.parent.resolve() / "loop"


def test_files_are_distinguished_from_folders_and_links_are_followed(tmp_path: Path) -> None:
    file, link, loop = tmp_path / "file", tmp_path / "link", tmp_path / "loop"
    file.touch()
    link.symlink_to(tmp_path)
    loop.symlink_to(loop)
    kinds = {path: (exists(path), is_file(path), is_folder(path)) for path in (file, tmp_path, link)}
    assert kinds == {file: (True, True, False), tmp_path: (True, False, True), link: (True, False, True)}
    for absent in (tmp_path / "absent", file / "below", loop, tmp_path / "null\0"):
        assert not (exists(absent) or is_file(absent) or is_folder(absent))


@pytest.mark.parametrize("function", [exists, is_file, is_folder])
def test_a_path_that_cannot_be_examined_is_not_taken_for_a_missing_one(
    function: Callable[[Path], bool], tmp_path: Path
) -> None:
    with pytest.raises(OSError, match="File name too long"):
        function(tmp_path / ("x" * 300))


def test_no_module_uses_the_methods_of_paths_that_hide_errors() -> None:
    hiding = {"exists", "is_dir", "is_file"}
    files = list((REPOSITORY / "fcnlab").rglob("*.py"))
    calls = {
        f"{path.relative_to(REPOSITORY)}: {ast.unparse(node)}"
        for path in files
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in hiding
        if not (node.args or node.keywords)
    }
    assert len(files) > 100 and calls == set()


def test_commands_name_a_path_that_the_system_refuses(fcnlab: Call, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    for path in ("loop.yaml", f"{'x' * 300}.yaml"):
        result = fcnlab("grid", "plan", path)
        assert result.code == 2 and result.err.startswith("fcnlab: error: ") and path in result.err
        assert result.err.count("\n") == 1
    name = "x" * 300
    result = fcnlab("registry", "list", "--lab", name)
    assert result.code == 2 and result.err.startswith(f"fcnlab: error: {tmp_path / name}: File name too long")


@pytest.fixture
def _any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide `Q.yaml` in listings, as a file system that ignores case, which opens `q.yaml` by this name, does."""
    list_folder = os.listdir
    monkeypatch.setattr(os, "listdir", lambda folder: [name for name in list_folder(folder) if name != "Q.yaml"])


@pytest.mark.usefixtures("_any_case")
def test_a_path_gets_the_name_that_its_file_has_on_the_disk(tmp_path: Path) -> None:
    folder = tmp_path / "experiments" / "heads"
    folder.mkdir(parents=True)
    (folder / "q.yaml").write_text("1")
    assert correct_names(folder / "Q.yaml", "experiments") == folder / "Q.yaml", "there is no such file"
    (folder / "Q.yaml").hardlink_to(folder / "q.yaml")
    assert correct_names(folder / "Q.yaml", "experiments") == folder / "q.yaml"
    assert correct_names(folder / "q.yaml", "experiments") == folder / "q.yaml"
    for other in (tmp_path / "missing" / "a.yaml", tmp_path / "a.yaml", Path("/"), Path("a.yaml"), Path("../a.yaml")):
        assert correct_names(other, "experiments") == other


@pytest.mark.usefixtures("_any_case")
def test_a_grid_has_the_name_of_its_file_on_the_disk(tmp_path: Path) -> None:
    path = write_grid(tmp_path, SMOKE).rename(tmp_path / "experiments" / "q.yaml")
    path.with_name("Q.yaml").hardlink_to(path)
    grid = Lab.find(path).load_grid(path.with_name("Q.yaml"))
    assert (grid.name, grid.path) == ("q", path)


def test_names_of_one_file_are_equal_without_case_and_form_of_accents() -> None:
    assert fold_name("Stra\u00dfe-E\u0301.png") == fold_name("STRASSE-\u00e9.PNG") != fold_name("strasse-e.png")
