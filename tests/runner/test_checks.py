"""Checks of planned trials: an error of training or evaluation is found before the run."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest
import torch
from PIL import Image

from fcnlab import cli
from fcnlab.data.datasets.sizes import read_sizes, representative_sizes
from fcnlab.errors import ConfigError, FcnlabError
from fcnlab.lab import Lab
from fcnlab.runner.checks import network
from fcnlab.runner.checks.trials import check_trials
from fcnlab.runner.plan import make_plan
from fcnlab.trial.run import run_trial
from tests.conftest import write_grid
from tests.data.folder_dataset import open_folder

GRID = """
question: Does it run?
base: {{backbone: {backbone}, head: {head}, upsampler: bilinear, dataset: shapes-mini, recipe: smoke{base}}}
baseline: {{}}
"""

BATCH_NORM = (
    "recipe: batch norm in training mode sees one value per channel at stride 32: use a larger crop or batch, "
    "or batch_norm: eval"
)


def check(lab: Lab, base: str = "", head: str = "fcn32s", backbone: str = "tiny-scratch") -> list[str]:
    """Check a grid of one cell; return the errors without the names of the file and the cell."""
    file = write_grid(lab.root, GRID.format(backbone=backbone, head=head, base=f", {base}" if base else ""))
    try:
        check_trials(make_plan(lab.load_grid(file), lab).remaining, lab, file)
    except ConfigError as error:
        lines = str(error).splitlines()
        assert all(line.startswith(f"{file}: cell '") for line in lines)
        return [line.partition("': ")[2] for line in lines]
    return []


@pytest.mark.parametrize("batch", ["recipe.batch_size: 1", "recipe.batch_size: 4, recipe.grad_accum_steps: 4"])
def test_batch_norm_of_one_value_per_channel_is_refused(lab: Lab, batch: str) -> None:
    crop = "recipe.crop: {height: 32, width: 32}"
    assert check(lab, f"{batch}, {crop}") == [BATCH_NORM]
    assert check(lab, f"{batch}, {crop}, recipe.batch_norm: eval") == []
    assert check(lab, f"{batch}, recipe.crop: {{height: 32, width: 64}}") == []
    assert check(lab, f"recipe.batch_size: 4, {crop}") == []


def test_the_stride_of_the_batch_norm_is_named(lab: Lab) -> None:
    (error,) = check(lab, "recipe.batch_size: 1, recipe.crop: {height: 12, width: 16}")
    assert "at stride 16: use a larger crop" in error


def test_an_invalid_option_of_a_decoder_is_refused(lab: Lab) -> None:
    (error,) = check(lab, "head.options: {merge_policy: mul}", head="fpn", backbone="resnet10t-scratch")
    assert error.startswith("smp's decoder fpn does not accept {'merge_policy':")


def test_batch_norm_of_a_head_is_not_changed_by_the_remedy_of_the_backbone(lab: Lab) -> None:
    base = "recipe.batch_size: 1, recipe.batch_norm: eval, recipe.crop: {height: 8, width: 8}"
    (error,) = check(lab, base, head="dilated8")
    assert "at stride 8: use a larger crop or batch" in error and "batch_norm" not in error


def test_a_recipe_fails_in_training_if_and_only_if_the_check_rejects_it(lab: Lab) -> None:
    for width, status in ((32, "failed"), (64, "finished")):
        base = f", recipe.batch_size: 1, recipe.epochs: 1, recipe.crop: {{height: 32, width: {width}}}"
        file = write_grid(lab.root, GRID.format(backbone="tiny-scratch", head="fcn32s", base=base))
        record = run_trial(make_plan(lab.load_grid(file), lab).trials[0].trial, lab)
        assert record is not None and record.status == status


def test_a_batch_larger_than_the_training_split_is_refused(lab: Lab) -> None:
    assert check(lab, "recipe.batch_size: 17") == [
        "recipe.batch_size: a batch of 17 is more than the training split has (16 images in 'train' of shapes-mini); "
        "use at most 16"
    ]
    assert check(lab, "recipe.batch_size: 16") == []


@pytest.mark.parametrize(
    ("size", "error"),
    [
        ("17", "17 images are more than the training split has (16 images in 'train' of shapes-mini); use at most 16, "
         "or 1.0 for all"),
        (
            "0.1",
            "0.1 leaves 2 of the 16 images in 'train' of shapes-mini, fewer than a batch of 4; use a larger size, or "
            "1.0 for all",
        ),
        (
            "3",
            "3 leaves 3 of the 16 images in 'train' of shapes-mini, fewer than a batch of 4; use a larger size, or 1.0 "
            "for all",
        ),
        ("16", None),
        ("1.0", None),
        ("1", None),
        ("0.25", None),
    ],
)  # fmt: skip
def test_a_training_size_without_a_batch_or_above_the_split_is_refused(lab: Lab, size: str, error: str | None) -> None:
    expected = [f"recipe.train_size: {error}"] if error else []
    assert check(lab, f"recipe.batch_size: 4, recipe.train_size: {size}") == expected


@pytest.mark.parametrize("size", ["0", "0.0", "1.5", "-1", "true", "all"])
def test_a_training_size_is_a_number_of_images_or_a_fraction(lab: Lab, size: str) -> None:
    file = write_grid(
        lab.root, GRID.format(backbone="tiny-scratch", head="fcn32s", base=f", recipe.train_size: {size}")
    )
    message = f"recipe.train_size: expected a fraction above 0 up to 1.0, or a number of images from 2, not {size}"
    with pytest.raises(ConfigError, match=f"{re.escape(message)}$"):
        lab.load_grid(file)


@pytest.mark.parametrize(("batch", "left_out"), [(1, 0), (4, 0), (5, 1), (10, 6), (16, 0)])
def test_many_images_outside_of_whole_batches_are_a_warning(lab: Lab, batch: int, left_out: int) -> None:
    base = f", recipe.batch_size: {batch}, recipe.batch_norm: eval"
    file = write_grid(lab.root, GRID.format(backbone="tiny-scratch", head="fcn32s", base=base))
    expected = [
        f"recipe.batch_size: with batches of {batch}, each epoch leaves out {left_out} of the 16 training images of "
        "shapes-mini; a smaller batch leaves out fewer and makes more steps"
    ]
    plan = make_plan(lab.load_grid(file), lab)
    assert check_trials(plan.remaining, lab, file) == (expected if left_out > 1 else [])


def test_micro_batches_that_are_not_equal_are_refused(lab: Lab) -> None:
    with pytest.raises(ConfigError, match="grad_accum_steps must divide batch_size; 3 does not divide 4"):
        lab.load_grid(
            write_grid(
                lab.root, GRID.format(backbone="tiny-scratch", head="fcn32s", base=", recipe.grad_accum_steps: 3")
            )
        )


def test_a_network_that_cannot_be_dilated_is_refused(lab: Lab) -> None:
    (error,) = check(lab, head="dilated8", backbone="'scratch:swin_tiny_patch4_window7_224'")
    assert error == "timm's 'swin_tiny_patch4_window7_224' cannot be dilated to stride 8: timm has no dilation for it"


@pytest.mark.parametrize(
    ("crop", "image", "expected"),
    [(224, 224, None), (192, 224, "timm's 'levit_128s' accepts only images of 224x224, not 192x192"),
     (224, 192, "evaluation: timm's 'levit_128s' accepts only images of 224x224, not 192x192")],
)  # fmt: skip
def test_sizes_that_a_backbone_refuses_are_errors(lab: Lab, crop: int, image: int, expected: str | None) -> None:
    errors = check(
        lab,
        f"recipe.crop: {{height: {crop}, width: {crop}}}, dataset.options.height: {image}, "
        f"dataset.options.width: {image}",
        backbone="'scratch:levit_128s'",
    )
    assert len(errors) == (expected is not None)
    assert expected is None or errors[0].startswith(expected)


def test_the_evaluated_size_is_that_of_the_scaled_image(lab: Lab) -> None:
    base = "recipe.crop: {height: 224, width: 224}, dataset.options.height: 448, dataset.options.width: 448"
    assert len(check(lab, base, backbone="'scratch:levit_128s'")) == 1
    assert check(lab, f"{base}, recipe.score_scale: 0.5", backbone="'scratch:levit_128s'") == []


def test_fields_of_the_recipe_that_a_backbone_does_not_support_are_refused(lab: Lab) -> None:
    (error,) = check(lab, "recipe.freeze: stride2", backbone="'scratch:swin_tiny_patch4_window7_224'")
    assert error.startswith("freeze: the backbone has no map at stride 2")


OWN_HEAD = """
import torch
from torch import nn
from fcnlab.models.heads import Head

class Picky(Head):
    def __init__(self, channels, num_classes, make_upsampler, *, least: int = 64):
        super().__init__()
        self.output_stride, self.least = 32, least
        self.score = nn.Conv2d(channels[32], num_classes, 1)
        self.upsample = make_upsampler(num_classes, 32, "image")
        self.bound = float(torch.ones(3).sum())  # reads a value

    def forward(self, features, size):
        if size[0] < self.least:
            raise RuntimeError("kernel size is larger than the input")
        assert float(features[32].abs().max()) < 1e6  # reads a value
        return self.upsample(self.score(features[32]), size)
"""


@pytest.fixture
def picky(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of an extension with the head `picky`."""
    monkeypatch.setenv("FCNLAB_ALLOW_EXTENSIONS", "1")
    (lab.root / "registry").mkdir()
    file = lab.root / "registry" / "picky.py"
    file.write_text(textwrap.dedent(OWN_HEAD))
    (lab.root / "registry" / "extensions.yaml").write_text("heads: {picky: 'registry/picky.py:Picky'}\n")
    (lab.root / "registry" / "heads.yaml").write_text("picky: {type: picky, options: {least: 64}}\n")
    return file


@pytest.mark.usefixtures("picky")
def test_code_that_reads_values_is_checked_on_the_cpu(lab: Lab) -> None:
    assert check(lab, head="picky") == []
    lab = Lab.find(root=lab.root)
    assert check(lab, "recipe.crop: {height: 32, width: 32}", head="picky") == [
        "recipe.crop: the network cannot be trained on crops of 32x32 (RuntimeError: kernel size is larger than the "
        "input); use a larger crop, such as 64x64"
    ]


@pytest.mark.parametrize(
    ("condition", "crop", "message"),
    [
        ("True", 32, "the network cannot be trained on crops of 32x32 or larger: NameError: name 'sise' is not "),
        ("True", 544, "the network cannot be trained on crops of 544x544 or larger: NameError: name 'sise' is not "),
        ("not self.training", 64, "evaluation: the network cannot be evaluated: NameError: name 'sise' is not defined"),
        ("size == (64, 64)", 96, "evaluation: the network does not accept images of 64x64: NameError: name 'sise' is "),
        (
            "size == (544, 544)", 544,
            "recipe.crop: the network cannot be trained on crops of 544x544 (NameError: name 'sise' is not defined); "
            "use a larger crop, such as 576x576",
        ),
    ],
)  # fmt: skip
def test_an_error_of_a_head_is_an_error_of_the_size_only_if_it_accepts_another_one(
    lab: Lab, picky: Path, condition: str, crop: int, message: str
) -> None:
    line = "        if size[0] < self.least:"
    text = picky.read_text()
    assert line in text
    picky.write_text(text.replace(line, f"        if {condition}:\n            size = sise\n{line}"))
    (error,) = check(lab, f"recipe.crop: {{height: {crop}, width: {crop}}}, recipe.batch_size: 2", head="picky")
    assert error.startswith(message)


def test_a_distinct_network_is_built_once_and_remembered(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []
    build = network._build
    monkeypatch.setattr(network, "_build", lambda *given: built.append(given[2]) or build(*given))
    text = GRID.format(backbone="tiny-scratch", head="fcn32s", base="")
    file = write_grid(lab.root, text.replace("baseline", "product: {recipe.lr: [0.1, 0.2]}\nseeds: 2\nbaseline"))
    file.write_text(file.read_text().replace("baseline: {}", "baseline: {recipe.lr: 0.1}"))
    for _ in range(2):
        check_trials(make_plan(lab.load_grid(file), lab).remaining, lab, file)
    assert built == ["meta"]


def test_every_error_is_one_line_with_its_cells_and_nothing_is_run(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = GRID.format(backbone="tiny-scratch", head="fcn32s", base=", recipe.crop: {height: 32, width: 32}")
    text = text.replace(
        "baseline: {}", "product: {recipe.batch_size: [4, 1, 64, 99]}\nbaseline: {recipe.batch_size: 4}"
    )
    file = write_grid(lab.root, text)
    for verb in ("plan", "run"):
        monkeypatch.setattr("sys.argv", ["fcnlab", "grid", verb, str(file)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        assert caught.value.code == 2
        out, err = capsys.readouterr()
        lines = err.splitlines()
        assert out == "" and len(lines) == 3
        assert lines[0] == f"fcnlab: error: {file}: cell '1': {BATCH_NORM}"
    assert not (lab.root / "runs").exists()


def test_all_missing_datasets_and_weights_files_are_listed(lab: Lab) -> None:
    (lab.root / "registry").mkdir()
    (lab.root / "registry" / "backbones.yaml").write_text("mine: {timm: test_resnet, weights: weights/mine.pth}\n")
    text = GRID.format(backbone="mine", head="fcn32s", base="").replace("dataset: shapes-mini, ", "")
    file = write_grid(
        lab.root, text.replace("baseline: {}", "product: {dataset: [camvid, voc2012]}\nbaseline: {dataset: camvid}")
    )
    with pytest.raises(FcnlabError) as caught:
        make_plan(lab.load_grid(file), lab)
    camvid, voc, weights = str(caught.value).splitlines()
    assert "camvid" in camvid and "voc2012" in voc and "weights/mine.pth" in weights


def test_sizes_are_read_from_headers_and_kept(tmp_path: Path, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, size in enumerate([(40, 30), (40, 30), (64, 20)]):
        for folder, kind in (("images", "RGB"), ("masks", "L")):
            (tmp_path / folder / "train").mkdir(parents=True, exist_ok=True)
            Image.new(kind, size).save(tmp_path / folder / "train" / f"{number}.png")
    first = tmp_path / "images/train/0.png"
    first.write_bytes(first.read_bytes()[:60])  # only the header
    split = open_folder(tmp_path, images="images/{split}", masks="masks/{split}").split("train")
    expected = {(30, 40): 2, (20, 64): 1}
    assert read_sizes(split, "train", "content") == expected
    monkeypatch.setattr(type(split), "size", None)
    assert read_sizes(split, "train", "content") == expected
    assert set(representative_sizes(read_sizes(split, "train", "content"))) == {(30, 40), (20, 64)}


def test_checks_do_not_change_the_random_state(lab: Lab) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    check(lab)
    assert torch.equal(torch.rand(2), expected)
