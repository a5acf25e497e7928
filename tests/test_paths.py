"""Pipes, devices, links in a circle, unknown home folders and long names in the place of files that users give."""

from __future__ import annotations

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
from fcnlab.models.backbones.weights_file import read_tensors
from fcnlab.paths import expand_home, resolve_path
from tests.cli.conftest import Call, columns, fcnlab  # noqa: F401 - fixtures

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


def test_commands_name_a_path_that_the_system_refuses(fcnlab: Call, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    for path in ("loop.yaml", f"{'x' * 300}.yaml"):
        result = fcnlab("grid", "plan", path)
        assert result.code == 2 and result.err.startswith("fcnlab: error: ") and path in result.err
        assert result.err.count("\n") == 1
    name = "x" * 300
    result = fcnlab("registry", "list", "--lab", name)
    assert result.code == 2 and result.err.startswith(f"fcnlab: error: {tmp_path / name}: File name too long")
