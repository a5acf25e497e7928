from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn.functional import interpolate

from fcnlab.config.grid.grid import resolve
from fcnlab.config.recipe import StopOnPlateau
from fcnlab.config.registry_writer import write_entry
from fcnlab.config.trial import Trial
from fcnlab.data.decoded import DecodedSplit
from fcnlab.errors import ModelError
from fcnlab.lab import Lab
from fcnlab.tracking.fields import extract_columns
from fcnlab.training.evaluate import evaluate_split
from fcnlab.training.optim import create_schedule
from fcnlab.training.protocol import Protocol
from fcnlab.trial.build import build_model, build_training
from fcnlab.trial.checkpoint import CheckpointWriter
from fcnlab.trial.evaluation.evaluate import evaluate_trial, resolve_target
from fcnlab.trial.find import find_finished_trial
from fcnlab.trial.plateau import find_plateau
from fcnlab.trial.record import Plateau, Record
from fcnlab.trial.run import run_trial
from fcnlab.trial.run_folder import RunFolder
from tests.conftest import arrays_of
from tests.records import epochs as epochs_of


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def a_trial(lab: Lab, seed: int = 0, **fields: Any) -> Trial:
    overrides = {"backbone": "tiny-scratch", "head": "fcn8s", "upsampler": "bilinear"}
    overrides |= {"dataset": "shapes-mini", "recipe": "smoke"} | {k.replace("__", "."): v for k, v in fields.items()}
    return resolve(overrides, lab.registry, "test").trial(seed, lab.fingerprints)


def timeless_content(record: Record) -> list[Any]:
    """Return everything in a record that does not depend on time."""
    assert record.failure is None, record.failure
    return [record.metrics, [(e.epoch, e.loss, e.lr, e.val_miou) for e in record.epochs]]


def test_two_runs_give_identical_results_and_logged_steps_change_nothing(tmp_path: Path) -> None:
    labs = [Lab.find(root=_made(tmp_path / name)) for name in ("a", "b")]
    first, second = (run_trial(a_trial(lab), lab, log_every=every) for lab, every in zip(labs, (None, 1), strict=True))
    assert not any(epoch.step_losses for epoch in first.epochs)
    steps = [step for epoch in second.epochs for step, _ in epoch.step_losses]
    assert steps == list(range(1, len(steps) + 1)) and len(steps) > len(second.epochs)
    for epoch in second.epochs:
        assert np.mean([loss for _, loss in epoch.step_losses]) == pytest.approx(epoch.loss)
    assert timeless_content(first) == timeless_content(second)
    folders = [lab.runs / first.key for lab in labs]
    weights = [load_file(folder / "last.safetensors") for folder in folders]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    counts = [arrays_of(folder / "counts.npz") for folder in folders]
    assert all(np.array_equal(counts[0][name], counts[1][name]) for name in counts[0])


def test_activation_checkpointing_does_not_change_the_metrics(lab: Lab) -> None:
    kept, again = (
        run_trial(
            a_trial(lab, recipe__ema=0.9, recipe__activation_checkpointing=what, backbone="resnet10t-scratch"), lab
        )
        for what in ("none", "stride8")
    )
    assert timeless_content(kept) == timeless_content(again)
    assert kept.key != again.key


def test_another_seed_gives_other_metrics(lab: Lab) -> None:
    assert timeless_content(run_trial(a_trial(lab, seed=0), lab)) != timeless_content(
        run_trial(a_trial(lab, seed=1), lab)
    )


@pytest.mark.parametrize(("killed_after", "damaged"), [(1, 0), (2, 0), (2, 1), (2, 2)])
def test_a_trial_killed_after_an_epoch_resumes_with_equal_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_after: int, damaged: int
) -> None:
    """Also from the checkpoint before if the last one is damaged, and from the start if both are."""
    calm, rough = (Lab.find(root=_made(tmp_path / name)) for name in ("calm", "rough"))
    trial = a_trial(calm, recipe__epochs=3, recipe__validate_every=2)
    expected = run_trial(trial, calm)

    killed(trial, rough, monkeypatch, killed_after)
    folder = RunFolder(rough.runs, trial.key)
    assert folder.read() is None
    assert folder.checkpoint.exists() and folder.previous_checkpoint.exists() == (killed_after == 2)
    for checkpoint in (folder.checkpoint, folder.previous_checkpoint)[:damaged]:
        content = bytearray(checkpoint.read_bytes())
        content[len(content) // 2] ^= 1
        checkpoint.write_bytes(content)
    resumed = run_trial(trial, rough)
    assert timeless_content(resumed) == timeless_content(expected)
    assert len(list((rough.runs / ".quarantine").glob(f"{trial.key}-*/checkpoint*.pt"))) == damaged
    assert [epoch.epoch for epoch in folder.read_progress()] == [1, 2, 3]
    assert not folder.checkpoint.exists() and not folder.previous_checkpoint.exists()


EVERYTHING: dict[str, Any] = {
    "recipe__epochs": 2,
    "recipe__ema": 0.9,
    "recipe__grad_accum_steps": 2,
    "recipe__grad_clip_norm": 0.5,
    "recipe__jitter": {"brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "hue": 0.1},
    "recipe__batch_norm": "eval",
    "recipe__freeze": "stride2",
    "recipe__optimizer": {"name": "adamw", "lr": 0.003, "weight_decay": 0.01},
    "recipe__lr_factors": {"backbone": 0.5, "upsampler": 2.0, "bias": 2.0},
    "recipe__decay": "weights",
    "recipe__schedule": {"name": "step", "warmup_epochs": 1},
    "recipe__loss": {"class_weights": "median_frequency", "focal": 1.0, "dice": 0.5, "lovasz": 0.5},
}
"""A recipe with all options of training."""


def killed(trial: Trial, lab: Lab, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Run a trial until it has saved its checkpoint after an epoch."""
    save = CheckpointWriter.save

    def save_and_die(self: CheckpointWriter, state: Mapping[str, Any]) -> None:
        save(self, state)
        if len(state["epochs"]) == after:
            self.wait()
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(CheckpointWriter, "save", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            run_trial(trial, lab, checkpoint_every=0)


@pytest.mark.parametrize("head", ["fcn8s", "dilated16-aux"])
def test_a_killed_trial_with_all_recipe_options_resumes_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: str
) -> None:
    calm, rough = (Lab.find(root=_made(tmp_path / name)) for name in ("calm", "rough"))
    trial = a_trial(calm, head=head, **EVERYTHING)
    expected = run_trial(trial, calm)
    killed(trial, rough, monkeypatch, after=1)
    assert timeless_content(run_trial(trial, rough)) == timeless_content(expected)
    folders = [lab.runs / trial.key for lab in (calm, rough)]
    weights = [load_file(folder / "last.safetensors") for folder in folders]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    counts = [arrays_of(folder / "counts.npz") for folder in folders]
    assert all(np.array_equal(counts[0][name], counts[1][name]) for name in counts[0])


@pytest.mark.parametrize("ema", [None, 0.9])
def test_the_saved_weights_are_those_that_were_evaluated(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, ema: float | None
) -> None:
    trained: dict[str, torch.Tensor] = {}
    save = CheckpointWriter.save

    def note(self: CheckpointWriter, state: Mapping[str, Any]) -> None:
        save(self, state)
        trained.update({name: value.clone() for name, value in state["model"].items()})

    monkeypatch.setattr(CheckpointWriter, "save", note)
    trial = a_trial(lab, **EVERYTHING | {"recipe__ema": ema})
    record = run_trial(trial, lab, checkpoint_every=0)
    assert record is not None and record.failure is None
    kept = load_file(lab.runs / record.key / "last.safetensors")
    assert kept.keys() == trained.keys()
    same = all(torch.equal(kept[name], trained[name]) for name in kept)
    assert same == (ema is None)

    dataset = lab.open_dataset(trial.dataset)
    model = build_model(trial.variant, len(dataset.classes), trial.seed)
    model.load_state_dict(kept)
    counts = arrays_of(lab.runs / record.key / "counts.npz")
    for name in ("val", "test"):
        found = evaluate_split(
            model,
            DecodedSplit(dataset.split(name)),
            num_classes=len(dataset.classes),
            mean=model.backbone.mean,
            std=model.backbone.std,
            device=torch.device("cpu"),
            autocast=nullcontext,
        )
        assert np.array_equal(found.areas, counts[f"{name}_last"])


def test_a_finished_trial_is_not_run_again(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = a_trial(lab)
    first = run_trial(trial, lab)
    monkeypatch.setattr("fcnlab.trial.trainer.fit", lambda *_, **__: pytest.fail("trained again"))
    assert run_trial(trial, lab) == first


def test_a_trial_that_raises_is_a_failed_record_with_its_traceback(lab: Lab) -> None:
    record = run_trial(a_trial(lab, recipe__batch_size=17), lab)
    assert record.status == "failed"
    assert record.failure is not None
    assert record.failure.cause == "exception"
    assert "17" in record.failure.message
    assert "build_training" in record.failure.traceback
    assert RunFolder(lab.runs, record.key).read() == record


def test_a_nan_loss_is_recorded_as_diverged(lab: Lab) -> None:
    record = run_trial(a_trial(lab, recipe__optimizer__lr=1e30), lab)
    assert record.failure is not None
    assert record.failure.cause == "diverged"


def test_metrics_of_last_and_best_equal_those_of_the_recorded_counts(lab: Lab) -> None:
    record = run_trial(a_trial(lab, recipe__epochs=3), lab)
    counts = arrays_of(lab.runs / record.key / "counts.npz")
    by_epoch = {epoch.epoch: epoch.val_miou for epoch in record.epochs}
    assert {(s.split, s.checkpoint) for s in record.metrics} == {
        (a, b) for a in ("val", "test") for b in ("last", "best")
    }
    for score in record.metrics:
        per_image = counts[f"{score.split}_{score.checkpoint}"]
        assert len(per_image) == score.images == len(counts[f"{score.split}_ids"])
        hit, predicted, target = per_image.sum(0).T.astype(float)
        assert score.pixel_acc == pytest.approx(hit.sum() / target.sum())
        union = predicted + target - hit
        labeled = target > 0  # a class that is only predicted lowers the IoU of others, and is in no mean
        assert score.miou == pytest.approx((hit[labeled] / union[labeled]).mean())
        if score.split == "val":
            assert score.miou == by_epoch[score.epoch]
    best = record.find_metrics("val", "best")
    assert best is not None
    assert best.miou == max(value for value in by_epoch.values() if value is not None)


def test_without_a_test_split_only_val_is_evaluated(lab: Lab) -> None:
    trial = a_trial(lab, dataset__splits={"test": None})
    record = run_trial(trial, lab)
    assert {score.split for score in record.metrics} == {"val"}
    assert record.report_split == trial.report_split == "val"


def add_folder(lab: Lab, name: str, val: int, gray: int = 100) -> Lab:
    """Add a dataset of two classes: images of one gray value, the label 1 in train and `val` in val."""
    root = lab.root / name
    for split, label in (("train", 1), ("val", val)):
        for kind, size in (("images", (48, 48, 3)), ("masks", (48, 48))):
            (root / split / kind).mkdir(parents=True)
            for index in range(4):
                pixels = np.full(size, gray if kind == "images" else label, np.uint8)
                Image.fromarray(pixels).save(root / split / kind / f"{split}{index}.png")
    (lab.root / "registry").mkdir(exist_ok=True)
    values: dict[str, Any] = {"type": "folder", "nominal": {"height": 48, "width": 48}, "classes": ["a", "b"]}
    values |= {kind: f"{root}/{{split}}/{kind}" for kind in ("images", "masks")}
    write_entry(lab.root / "registry" / "datasets.yaml", name, values, lock=lab.state / "registry.lock")
    return Lab.find(root=lab.root)


def test_without_a_labeled_pixel_in_val_the_last_epoch_is_the_best(lab: Lab) -> None:
    lab = add_folder(lab, "void", val=255)
    record = run_trial(a_trial(lab, dataset="void", recipe__epochs=2, recipe__batch_size=4), lab)
    assert record.status == "finished", record.failure
    assert {(score.checkpoint, score.epoch, score.miou) for score in record.metrics} == {
        ("last", 2, None),
        ("best", 2, None),
    }


def test_another_folder_with_the_same_classes_is_another_dataset_to_evaluate_on(lab: Lab) -> None:
    lab = add_folder(add_folder(lab, "day", val=1), "night", val=1, gray=10)
    trial = a_trial(lab, dataset="day", recipe__epochs=1, recipe__batch_size=4)
    run_trial(trial, lab)
    finished = find_finished_trial(trial.key, lab)
    assert resolve_target(finished, lab, "day", None) is None
    target = resolve_target(finished, lab, "night", None)
    assert target is not None and target.dataset == "night"


def test_files_of_a_trial_have_the_permissions_of_the_umask(lab: Lab) -> None:
    before = os.umask(0o002)
    try:
        record = run_trial(a_trial(lab), lab)
    finally:
        os.umask(before)
    files = [path for path in (lab.runs / record.key).rglob("*") if path.is_file() and path.name != "lock"]
    assert {"record.json", "last.safetensors", "counts.npz"} <= {path.name for path in files}
    assert {oct(path.stat().st_mode & 0o777) for path in files} == {"0o664"}


# The last one has the field names of an earlier version.
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b'{"key": "other"}',
        b'{"key": "KEY", "status": "finished", "trial": {}, "scores": [], "parts": 1, "ended": "2026-01-01"}',
    ],
)
def test_an_incomplete_record_is_read_as_none(lab: Lab, content: bytes) -> None:
    folder = RunFolder(lab.runs, "0" * 64)
    folder.create()
    folder.record.write_bytes(content.replace(b"KEY", b"0" * 64))
    assert folder.read() is None


def test_a_record_of_another_trial_is_read_as_none(lab: Lab) -> None:
    record = run_trial(a_trial(lab), lab)
    other = RunFolder(lab.runs, "0" * 64)
    other.create()
    other.record.write_text(json.dumps(json.loads(record.model_dump_json())))
    assert other.read() is None


def test_batches_do_not_depend_on_the_head(lab: Lab) -> None:
    seen = []
    for head in ("fcn32s", "fcn8s"):
        trial = a_trial(lab, head=head)
        dataset = lab.open_dataset(trial.dataset)
        model = build_model(trial.variant, len(dataset.classes), trial.seed)
        training = build_training(trial.recipe, model, dataset, "train", trial.seed, torch.device("cpu"))
        seen.append([(images.clone(), labels.clone()) for images, labels in training.batches.epoch(1)])
    for (images, labels), (other_images, other_labels) in zip(*seen, strict=True):
        assert torch.equal(images, other_images)
        assert torch.equal(labels, other_labels)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_record_with_an_older_configuration_is_valid(lab: Lab) -> None:
    trial = a_trial(lab)
    record = run_trial(trial, lab)
    folder = RunFolder(lab.runs, trial.key)
    older = json.loads(record.model_dump_json())
    older["trial"]["recipe"] = {"a field": "that was removed"}
    folder.record.write_text(json.dumps(older))
    found = folder.read()
    assert found is not None
    assert found.metrics == record.metrics


def test_a_cost_that_cannot_be_counted_is_missing_and_does_not_fail_the_trial(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_given: object, **_options: object) -> float:
        raise ModelError("accepts only images of 224x224")

    monkeypatch.setattr("fcnlab.training.cost.count_gmacs", refuse)
    record = run_trial(a_trial(lab), lab)
    assert record is not None and record.status == "finished"
    assert record.cost is not None and record.cost.gmacs is None and record.cost.params > 0
    assert RunFolder(lab.runs, record.key).read() == record
    assert "gmacs" not in extract_columns(record, "last")


def test_score_scale_resizes_the_image_but_not_the_labels(lab: Lab) -> None:
    learns: dict[str, Any] = {
        "recipe": "quick",
        "recipe__batch_size": 4,
        "recipe__epochs": 12,
        "recipe__precision": "fp32",
    }
    trial = a_trial(lab, recipe__score_scale=0.5, **learns)
    record = run_trial(trial, lab)
    assert record.failure is None, record.failure
    model = build_model(trial.variant, len(record.classes), trial.seed).eval()
    model.load_state_dict(load_file(lab.runs / trial.key / "last.safetensors"))
    mean, std = (torch.tensor(values)[:, None, None] for values in (model.backbone.mean, model.backbone.std))
    right = counted = 0
    for sample in lab.open_dataset(trial.dataset).split("test"):
        image = (torch.tensor(sample.image).permute(2, 0, 1) / 255 - mean) / std
        with torch.inference_mode():
            half = interpolate(image[None], scale_factor=0.5, mode="bilinear", antialias=True)
            scores = interpolate(model(half), size=sample.label.shape, mode="bilinear")
        label = torch.tensor(sample.label)
        right += int((scores[0].argmax(0) == label)[label != 255].sum())
        counted += int((label != 255).sum())
    scored = record.find_metrics("test", "last")
    assert scored is not None and scored.pixel_acc == pytest.approx(right / counted, abs=0.005)
    finished = find_finished_trial(trial.key, lab)
    assert evaluate_trial(finished, lab, Protocol(), "last").metrics == scored
    assert record.cost is not None and record.cost.gmacs_size == (32, 32)
    assert scored != evaluate_trial(finished, lab, Protocol(scales=(2.0,)), "last").metrics  # at its own size


PLATEAU: dict[str, Any] = {"recipe__epochs": 6, "recipe__stop_on_plateau": {"patience": 2, "min_delta": 100.0}}
"""A mIoU never improves by 100 points, so the trial stops after the second validation that follows the first."""


@pytest.mark.parametrize("killed_after", [2, 3])
def test_a_trial_stops_on_a_plateau_also_after_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_after: int
) -> None:
    calm, rough = (Lab.find(root=_made(tmp_path / name)) for name in ("calm", "rough"))
    trial = a_trial(calm, **PLATEAU, recipe__schedule={"name": "poly"})
    record = run_trial(trial, calm)
    assert record.plateau == Plateau(epoch=3, best_epoch=1, validations=2, min_delta=100.0)
    assert record.trained_epochs == len(record.epochs) == 3 and record.status == "finished"
    found = find_finished_trial(trial.key, calm)
    last, best = (record.find_metrics("test", checkpoint) for checkpoint in ("last", "best"))
    assert (last.epoch, best.epoch) == (3, 1 + int(np.argmax([epoch.val_miou for epoch in record.epochs])))
    assert found.weights_file("last").is_file() and found.weights_file("best").is_file()
    seconds = sum((epoch.seconds for epoch in record.epochs), start=0.0)
    assert record.cost.train_seconds == pytest.approx(seconds)
    whole = create_schedule("poly", steps=6 * 4)
    assert [epoch.lr for epoch in record.epochs] == [0.01 * whole(4 * epoch - 1) for epoch in (1, 2, 3)]

    killed(trial, rough, monkeypatch, killed_after)
    resumed = run_trial(trial, rough)
    assert timeless_content(resumed) == timeless_content(record) and resumed.plateau == record.plateau
    counts = [arrays_of(lab.runs / trial.key / "counts.npz") for lab in (calm, rough)]
    assert all(np.array_equal(counts[0][name], counts[1][name]) for name in counts[0])


def test_all_ranks_stop_on_a_plateau(lab: Lab) -> None:
    trial = a_trial(lab, **PLATEAU, recipe__batch_norm="eval")
    record = run_trial(trial, lab, devices=2)
    assert record.failure is None and record.environment.devices == 2 and record.trained_epochs == 3


def test_stop_on_plateau_is_left_out_of_the_key_where_it_is_off(lab: Lab) -> None:
    assert a_trial(lab, recipe__stop_on_plateau=None).key == a_trial(lab).key
    assert a_trial(lab, recipe__stop_on_plateau={"patience": 2}).key != a_trial(lab).key


@pytest.mark.parametrize(
    ("curve", "min_delta", "stop"),
    [
        ([0.1, 0.2, 0.2, 0.2, 0.9], 0.0, Plateau(epoch=4, best_epoch=2, validations=2, min_delta=0.0)),
        ([0.1, None, 0.2, None, 0.2, None, 0.3, None], 0.0, None),
        ([0.1, None, 0.1, None, 0.1], 0.0, Plateau(epoch=5, best_epoch=1, validations=2, min_delta=0.0)),
        ([0.1, 0.104, 0.108, 0.112], 1.0, Plateau(epoch=3, best_epoch=1, validations=2, min_delta=1.0)),
        ([0.1, 0.104, 0.112, 0.116], 1.0, None),
        ([0.1], 0.0, None),
    ],
)
def test_a_plateau_is_a_number_of_validations_without_an_improvement(
    curve: list[float | None], min_delta: float, stop: Plateau | None
) -> None:
    rule = StopOnPlateau(patience=2, min_delta=min_delta)
    epochs = [epoch.model_copy(update={"epoch": n, "val_miou": miou}) for n, (epoch, miou) in
              enumerate(zip(epochs_of(len(curve)), curve, strict=True), start=1)]  # fmt: skip
    assert find_plateau(rule, epochs) == stop
    assert find_plateau(None, epochs) is None
