"""A custom head: one class, one registration and one registry entry."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fcnlab
from fcnlab.config.registry import builtin
from fcnlab.errors import ConfigError, FcnlabError
from fcnlab.extensions import find
from fcnlab.lab import Lab
from fcnlab.models.heads import Head, SkipHead
from fcnlab.models.heads.base import MakeUpsampler, require
from fcnlab.trial.run import run_trial
from tests.conftest import write_grid


class Shallow(Head):
    """A head that scores one map with the given width."""

    def __init__(
        self, channels: Mapping[int, int], num_classes: int, make_upsampler: MakeUpsampler, *, at: int, width: int = 8
    ) -> None:
        super().__init__()
        require(channels, [at], "a shallow head")
        self.at = self.output_stride = at
        self.score = nn.Sequential(nn.Conv2d(channels[at], width, 1), nn.ReLU(), nn.Conv2d(width, num_classes, 1))
        self.upsample = make_upsampler(num_classes, at, "image")

    def forward(self, features: Mapping[int, Tensor], size: tuple[int, int]) -> Tensor:
        scores: Tensor = self.upsample(self.score(features[self.at]), size)
        return scores


class _Package:
    """The distribution of the entry point."""

    name, version = "shallow-head", "1.0"


ENTRY_POINT = EntryPoint(name="shallow", value=f"{__name__}:Shallow", group="fcnlab.heads")._for(_Package())  # type: ignore[attr-defined]


@pytest.fixture
def with_shallow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "entry_points", lambda group: [ENTRY_POINT] if group == "fcnlab.heads" else [])


ENTRY = "shallow8: {description: Mine, type: shallow, reads: [8], options: {at: 8, width: 16}}\n"
GRID = """
question: Is depth needed at all?
base: {backbone: tiny-scratch, upsampler: bilinear, dataset: shapes-mini, recipe: smoke}
product: {head: [fcn32s, shallow8]}
baseline: {head: fcn32s}
"""


def lab_with(folder: Path, heads: str) -> Lab:
    (folder / "registry").mkdir(parents=True)
    (folder / "registry" / "heads.yaml").write_text(heads)
    return Lab.find(root=folder)


@pytest.mark.usefixtures("with_shallow")
def test_custom_head_is_trained_and_evaluated_in_a_grid(tmp_path: Path) -> None:
    lab = lab_with(tmp_path, ENTRY)
    grid = lab.load_grid(write_grid(tmp_path, GRID))
    cell = next(cell for cell in grid.cells if cell.names["head"] == "shallow8")
    record = run_trial(cell.trials([0], lab.fingerprints)[0], lab)
    assert record.failure is None
    model = fcnlab.build_model("tiny-scratch+shallow8+bilinear", 4, lab=lab)
    assert isinstance(model.head, Shallow)
    assert model(torch.randn(1, 3, 65, 97)).shape == (1, 4, 65, 97)


@pytest.mark.usefixtures("with_shallow")
def test_custom_head_options_are_part_of_the_trial_key(tmp_path: Path) -> None:
    lab = lab_with(tmp_path, ENTRY + ENTRY.replace("shallow8", "wide8").replace("16", "32"))
    grid = lab.load_grid(
        write_grid(tmp_path, GRID.replace("fcn32s, ", "wide8, ").replace("head: fcn32s", "head: wide8"))
    )
    assert len({trial.key for _, trial in grid.trials(lab.fingerprints)}) == 2


class Gated(SkipHead):
    """An FCN head that scales its scores, and passes all options on."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.gate = nn.Parameter(torch.ones(1))

    def coarse(self, features: Mapping[int, Tensor]) -> Tensor:
        return self.gate * super().coarse(features)


def test_a_subclass_of_a_head_can_pass_its_options_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint(name="gated", value=f"{__name__}:Gated", group="fcnlab.heads")._for(_Package())  # type: ignore[attr-defined]
    monkeypatch.setattr(find, "entry_points", lambda group: [entry] if group == "fcnlab.heads" else [])
    heads = "gated16: {description: Mine, type: gated, reads: [16, 32], options: {stride: 16, fusion: concat}}\n"
    model, original = (
        fcnlab.build_model(f"tiny-scratch+{head}+bilinear", 4, lab=lab_with(tmp_path / head, heads)).eval()
        for head in ("gated16", "fcn16s-concat")
    )
    images = torch.randn(1, 3, 65, 97)
    assert isinstance(model.head, Gated) and torch.equal(model(images), original(images))


@pytest.mark.usefixtures("with_shallow")
@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (("at: 8, width", "at: 8, wide"), "a head of type shallow has no option 'wide'; did you mean 'width'?"),
        (("type: shallow,", "type: shalow,"),
            "{lab}/registry: head shallow8: head type 'shalow' is neither built in nor an extension; "
            "did you mean 'shallow'?"),
        (("at: 8", "at: 64"), "a shallow head needs features at stride 64; the backbone has 2, 4, 8, 16, 32"),
    ],
)  # fmt: skip
def test_errors_in_a_custom_head_are_one_line(tmp_path: Path, wrong: tuple[str, str], expected: str) -> None:
    lab = lab_with(tmp_path, ENTRY.replace(*wrong))
    with pytest.raises(FcnlabError) as caught:
        fcnlab.build_model("tiny-scratch+shallow8+bilinear", 4, lab=lab)
    assert str(caught.value).startswith(expected.format(lab=tmp_path))


@pytest.mark.usefixtures("with_shallow")
def test_strides_of_a_custom_head_are_checked_before_a_run(tmp_path: Path) -> None:
    lab = lab_with(tmp_path, ENTRY.replace("[8]", "[64]"))
    with pytest.raises(ConfigError, match=r"shallow8 needs stride 64, which backbone tiny-scratch lacks"):
        lab.load_grid(write_grid(tmp_path, GRID))


@pytest.mark.parametrize("name", builtin().names("head"))
def test_every_head_has_an_output_stride(name: str) -> None:
    backbone = "vgg16-paper-scratch" if name.endswith("paper") or "-paper-" in name else "tiny-scratch"
    with torch.device("meta"):
        model = fcnlab.build_model(f"{backbone}+{name}+bilinear", 4)
        last = [m for m in model.head.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert model.head.output_stride in ({m.stride[0] for m in last} or {1})
