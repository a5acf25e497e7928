"""Published weights: found in the caches of timm and torchvision, downloaded from a server on this machine."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save

from fcnlab.api import build_model
from fcnlab.config.variant import Backbone
from fcnlab.errors import ConfigError, ModelError
from fcnlab.lab import Lab
from fcnlab.models.backbones.pretrained import find_obstacle, find_pretrained
from fcnlab.models.backbones.timm import TimmBackbone
from fcnlab.runner.checks.pretrained import find_missing_weights
from fcnlab.runner.checks.trials import check_trials
from fcnlab.runner.executors.call_process import call_directly
from fcnlab.runner.plan import make_plan
from tests.cli.conftest import Call
from tests.conftest import SMOKE, write_grid

NAME = "test_resnet.r160_in1k"
TIMM = Backbone(timm=NAME, weights="timm")
PAPER = Backbone(paper="vgg16", weights="torchvision", reductions=(8, 16, 32))


@pytest.fixture(scope="module")
def published() -> bytes:
    """Return the file of weights that the server has."""
    torch.manual_seed(5)
    return save(timm.create_model("test_resnet").state_dict())


@pytest.fixture
def server(published: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """Serve the weights as the Hugging Face Hub does, with empty caches; return the address."""

    class Hub(BaseHTTPRequestHandler):
        def _head(self) -> bool:
            known = self.path == f"/timm/{NAME}/resolve/main/model.safetensors"
            self.send_response(200 if known else 404)
            if known:
                self.send_header("ETag", f'"{hashlib.sha256(published).hexdigest()}"')
                self.send_header("X-Repo-Commit", "a" * 40)
            else:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", str(len(published) if known else 0))
            self.end_headers()
            return known

        def do_HEAD(self) -> None:
            self._head()

        def do_GET(self) -> None:
            if self._head():
                self.wfile.write(published)

        def log_message(self, *_given: object) -> None:
            pass

    hub = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{hub.server_port}"
    point_to(address, monkeypatch, tmp_path)
    yield address
    hub.shutdown()
    hub.server_close()


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Empty caches, and no server at the address of the hub."""
    point_to("http://127.0.0.1:9", monkeypatch, tmp_path)


def point_to(address: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(folder / "torch"))


def test_weights_are_fetched_once_and_then_found_without_the_server(
    server: str,
    fcnlab: Call,
    published: bytes,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    missing = find_pretrained(TIMM)
    assert missing is not None and missing.path is None and missing.url.startswith(server)
    assert find_obstacle(missing) is None and find_missing_weights([TIMM], Path("g.yaml"), call_directly) == []
    output = fcnlab("weights", "fetch", f"timm:{NAME}")
    assert output.code == 0
    file = find_pretrained(TIMM)
    assert file is not None and file.path is not None and file.path.read_bytes() == published
    assert output.out == f"timm:{NAME}: {file.path}\n" and file.path.is_relative_to(tmp_path)
    point_to("http://127.0.0.1:9", monkeypatch, tmp_path)
    body = TimmBackbone(NAME, pretrained=True).body.state_dict()
    torch.manual_seed(5)
    expected = timm.create_model("test_resnet").state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in body.items())


def test_missing_weights_are_errors_of_the_plan_in_one_list(lab: Lab, offline: None) -> None:
    text = SMOKE.replace("backbone: tiny-scratch, ", "").replace(
        "{head: [fcn32s, fcn8s]}", f"{{head: [fcn32s, fcn8s], backbone: ['timm:{NAME}', resnet18, tiny-scratch]}}"
    )
    file = write_grid(lab.root, text.replace("{head: fcn32s}", "{head: fcn32s, backbone: tiny-scratch}"))
    with pytest.raises(ConfigError) as caught:
        check_trials(make_plan(lab.load_grid(file), lab).remaining, lab, file)
    first, second, command = str(caught.value).splitlines()
    assert first.startswith(f"{file}: the weights of {NAME} are not in {constants.HF_HUB_CACHE}, and 127.0.0.1:9: ")
    assert "the weights of resnet18.tv_in1k are not in" in second
    assert f"`fcnlab weights fetch {file}`" in command


def test_weights_of_torchvision_are_found_in_the_cache_of_torch(offline: None, tmp_path: Path) -> None:
    missing = find_pretrained(PAPER)
    assert missing is not None and missing.path is None
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    name = missing.url.rpartition("/")[2]
    (folder / name).write_bytes(b"")
    found = find_pretrained(PAPER)
    assert found is not None and found.path == folder / name
    assert find_missing_weights([PAPER], Path("g.yaml"), call_directly) == []


def test_a_model_without_its_weights_is_an_error_after_one_request(
    offline: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    requests: list[str] = []

    class Unavailable(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            requests.append(self.path)
            self.send_response(503)  # huggingface_hub repeats a request after this status, with pauses of seconds
            self.end_headers()

        def log_message(self, *_given: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Unavailable) as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        point_to(f"http://127.0.0.1:{hub.server_port}", monkeypatch, tmp_path)
        with pytest.raises(ModelError, match=r"run `fcnlab weights fetch` .* local file") as caught:
            build_model(f"timm:{NAME}+fcn8s", 2, pretrained=True)
        hub.shutdown()
    assert len(requests) == 1 and "\n" not in str(caught.value)


def test_random_and_local_weights_have_no_published_file() -> None:
    assert find_pretrained(Backbone(timm="test_resnet")) is None
    assert find_pretrained(Backbone(timm="test_resnet", weights="a.pth")) is None


def test_an_unknown_tag_is_an_error() -> None:
    with pytest.raises(ModelError, match=r"timm has no pretrained weights 'test_resnet\.nothing'"):
        find_pretrained(Backbone(timm="test_resnet.nothing", weights="timm"))


def test_weights_that_cannot_be_fetched_are_one_error(offline: None, fcnlab: Call) -> None:
    output = fcnlab("weights", "fetch", f"timm:{NAME}", "tiny-scratch")
    assert output.code == 2 and "tiny-scratch: scratch, nothing to fetch" in output.out
    (line,) = output.err.splitlines()
    assert f"the pretrained weights of '{NAME}' cannot be fetched" in line


def test_the_list_shows_which_weights_are_here(server: str, fcnlab: Call, tmp_path: Path) -> None:
    text = SMOKE.replace("backbone: tiny-scratch", f"backbone: 'timm:{NAME}'")
    text = text.replace("product: {", "product: {backbone.weights: [timm, scratch], ")  # under one name
    file = write_grid(tmp_path, text.replace("baseline: {", "baseline: {backbone.weights: timm, "))
    before = fcnlab("weights", "list", file)
    assert before.code == 1 and "missing" in before.out
    assert fcnlab("weights", "fetch", file).code == 0
    after = fcnlab("weights", "list", file)
    assert after.code == 0 and "here" in after.out and "missing" not in after.out
