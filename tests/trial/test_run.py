from __future__ import annotations

import fcntl
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

from fcnlab.config.recipe import StopOnPlateau
from fcnlab.config.registry_writer import write_entry
from fcnlab.data.decoded import DecodedSplit
from fcnlab.errors import ModelError
from fcnlab.lab import Lab
from fcnlab.models import FCN
from fcnlab.tracking.fields import extract_columns
from fcnlab.training import hardware
from fcnlab.training.evaluate import evaluate_split
from fcnlab.training.optim import create_schedule
from fcnlab.training.protocol import Protocol
from fcnlab.trial import run
from fcnlab.trial.build import build_model, build_training
from fcnlab.trial.checkpoint import CheckpointWriter
from fcnlab.trial.evaluation.evaluate import evaluate_trial, resolve_target
from fcnlab.trial.evaluation.evaluator import Evaluator
from fcnlab.trial.find import read_finished_trial
from fcnlab.trial.heartbeat import read_phase
from fcnlab.trial.plateau import find_plateau
from fcnlab.trial.record import Plateau, SplitMetrics
from fcnlab.trial.run import run_trial
from fcnlab.trial.run_folder import RunFolder
from fcnlab.trial.settings import TrialSettings
from fcnlab.trial.storage.sealed_record import compute_checksum, encode_record
from tests.builders import build_trial, create_lab, epoch_records
from tests.conftest import arrays_of
from tests.trial.interruption import interrupt_trial, timeless_content


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_a_trial_that_a_suspended_process_holds_waits_with_a_heartbeat_and_can_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "LOCK_INTERVAL", 0.05)
    lab = create_lab(tmp_path / "lab")
    trial = build_trial(lab=lab)
    folder = RunFolder(lab.runs, trial.key)
    folder.create()
    phases: list[str] = []

    def should_pause() -> bool:
        phases.append(read_phase(folder.heartbeat))
        return len(phases) == 3

    with folder.lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert run_trial(trial, lab, should_pause=should_pause) is None
    assert phases == ["", *2 * ["waiting for another process that runs the trial"]]
    assert not folder.trial.exists()


def test_two_runs_give_identical_results_and_logged_steps_change_nothing(tmp_path: Path) -> None:
    labs = [create_lab(tmp_path / name) for name in ("a", "b")]
    first, second = (
        run_trial(build_trial(lab=lab), lab, TrialSettings(log_every=every))
        for lab, every in zip(labs, (None, 1), strict=True)
    )
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
        run_trial(build_trial({"backbone": "resnet10t-scratch"}, lab=lab, ema=0.9, activation_checkpointing=what), lab)
        for what in ("none", "stride8")
    )
    assert timeless_content(kept) == timeless_content(again)
    assert kept.key != again.key


@pytest.mark.parametrize("setting", ["auto", "bf16"])
def test_a_precision_that_auto_has_selected_is_logged(
    lab: Lab, setting: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hardware, "is_bf16_faster", lambda: True)
    record = run_trial(build_trial(lab=lab, precision=setting, epochs=1), lab)
    assert record.environment is not None and record.environment.precision == "bf16"
    assert ("precision bf16, selected by precision: auto" in caplog.messages) == (setting == "auto")


def test_another_seed_gives_other_metrics(lab: Lab) -> None:
    assert timeless_content(run_trial(build_trial(lab=lab, seed=0), lab)) != timeless_content(
        run_trial(build_trial(lab=lab, seed=1), lab)
    )


@pytest.mark.parametrize(("killed_after", "damaged"), [(1, 0), (2, 0), (2, 1), (2, 2)])
def test_a_trial_killed_after_an_epoch_resumes_with_equal_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_after: int, damaged: int
) -> None:
    """Also from the checkpoint before if the last one is damaged, and from the start if both are."""
    calm, rough = (create_lab(tmp_path / name) for name in ("calm", "rough"))
    trial = build_trial(lab=calm, epochs=3, validate_every=2)
    expected = run_trial(trial, calm)

    interrupt_trial(trial, rough, monkeypatch, after=killed_after)
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
    "epochs": 2,
    "ema": 0.9,
    "train_size": 0.75,
    "steps_per_epoch": 2,
    "grad_accum_steps": 2,
    "grad_clip_norm": 0.5,
    "jitter": {"brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "hue": 0.1},
    "batch_norm": "eval",
    "freeze": "stride2",
    "optimizer": {"name": "adamw", "lr": 0.003, "weight_decay": 0.01},
    "lr_factors": {"backbone": 0.5, "upsampler": 2.0, "bias": 2.0},
    "decay": "weights",
    "schedule": {"name": "step", "warmup_epochs": 1},
    "loss": {"class_weights": "median_frequency", "focal": 1.0, "dice": 0.5, "lovasz": 0.5},
}
"""A recipe with all options of training."""


@pytest.mark.parametrize("head", ["fcn8s", "dilated16-aux"])
def test_a_killed_trial_with_all_recipe_options_resumes_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: str
) -> None:
    calm, rough = (create_lab(tmp_path / name) for name in ("calm", "rough"))
    trial = build_trial({"head": head}, lab=calm, **EVERYTHING)
    expected = run_trial(trial, calm)
    interrupt_trial(trial, rough, monkeypatch, after=1)
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
    trial = build_trial(lab=lab, **EVERYTHING | {"ema": ema})
    record = run_trial(trial, lab, TrialSettings(checkpoint_every=0))
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
            autocast=nullcontext,
        )
        assert np.array_equal(found.areas, counts[f"{name}_last"])


def test_a_finished_trial_is_not_run_again(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = build_trial(lab=lab)
    first = run_trial(trial, lab)
    monkeypatch.setattr("fcnlab.trial.trainer.fit", lambda *_, **__: pytest.fail("trained again"))
    assert run_trial(trial, lab) == first


def test_a_trial_that_raises_is_a_failed_record_with_its_traceback(lab: Lab) -> None:
    record = run_trial(build_trial(lab=lab, batch_size=17), lab)
    assert record.status == "failed"
    assert record.failure is not None
    assert record.failure.cause == "exception"
    assert "17" in record.failure.message
    assert "build_training" in record.failure.traceback
    assert RunFolder(lab.runs, record.key).read() == record


def test_a_nan_loss_is_recorded_as_diverged(lab: Lab) -> None:
    record = run_trial(build_trial(lab=lab, lr=1e30), lab)
    assert record.failure is not None
    assert record.failure.cause == "diverged"


@pytest.mark.parametrize(("epochs_with_nan", "status"), [((1,), "finished"), ((1, 2), "failed")])
def test_scores_that_are_not_numbers_have_no_metrics(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, epochs_with_nan: tuple[int, ...], status: str
) -> None:
    compute, validate, epoch = FCN.coarse_scores, Evaluator.validate, [0]

    def count_epochs(self: Evaluator, model: FCN, *, is_last: bool) -> Any:
        epoch[0] += 1
        return validate(self, model, is_last=is_last)

    def overflow(self: FCN, images: torch.Tensor) -> torch.Tensor:
        scores = compute(self, images)
        return scores if self.training or epoch[0] not in epochs_with_nan else scores * float("nan")

    monkeypatch.setattr(Evaluator, "validate", count_epochs)
    monkeypatch.setattr(FCN, "coarse_scores", overflow)
    record = run_trial(build_trial(lab=lab, epochs=2), lab)
    assert record.status == status
    if status == "finished":
        assert record.epochs[0].val_miou is None and record.epochs[1].val_miou is not None
        assert {metrics.epoch for metrics in record.metrics} == {2}
    else:
        assert record.failure is not None and record.failure.cause == "diverged"
        assert "scores of epoch 2 on val are not numbers" in record.failure.message


def test_infinite_weights_after_the_last_step_are_recorded_as_diverged(lab: Lab) -> None:
    # There is one step. Its loss is finite, and no later loss shows what its gradient does to the weights.
    trial = build_trial(lab=lab, epochs=1, batch_size=16, lr=3e38, loss={"reduction": "pixel_sum"})
    record = run_trial(trial, lab)
    assert record.failure is not None and record.failure.cause == "diverged"
    assert "weights and statistics of epoch 1 are not finite" in record.failure.message
    assert record.metrics == () and not RunFolder(lab.runs, trial.key).weights.exists()


def test_best_weights_that_are_not_finite_are_recorded_as_diverged(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate = Evaluator.evaluate_checkpoints

    def with_damaged_best(self: Evaluator, model: FCN, **options: Any) -> list[SplitMetrics]:
        state = {name: value.clone() for name, value in model.state_dict().items()}
        state["head.upsample.weight"][:] = float("nan")
        return evaluate(self, model, **options | {"best_epoch": 1, "best_state": state})

    monkeypatch.setattr(Evaluator, "evaluate_checkpoints", with_damaged_best)
    trial = build_trial({"head": "fcn32s"}, lab=lab, epochs=2)
    record = run_trial(trial, lab)
    assert record.failure is not None and record.failure.cause == "diverged"
    assert "of epoch 1 are not finite, such as 'head.upsample.weight'" in record.failure.message
    assert not RunFolder(lab.runs, trial.key).best_weights.exists()


def test_metrics_of_last_and_best_equal_those_of_the_recorded_counts(lab: Lab) -> None:
    record = run_trial(build_trial(lab=lab, epochs=3), lab)
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
    trial = build_trial({"dataset.splits": {"test": None}}, lab=lab)
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
    record = run_trial(build_trial({"dataset": "void"}, lab=lab, epochs=2, batch_size=4), lab)
    assert record.status == "finished", record.failure
    assert {(score.checkpoint, score.epoch, score.miou) for score in record.metrics} == {
        ("last", 2, None),
        ("best", 2, None),
    }


def test_another_folder_with_the_same_classes_is_another_dataset_to_evaluate_on(lab: Lab) -> None:
    lab = add_folder(add_folder(lab, "day", val=1), "night", val=1, gray=10)
    trial = build_trial({"dataset": "day"}, lab=lab, epochs=1, batch_size=4)
    run_trial(trial, lab)
    finished = read_finished_trial(RunFolder(lab.runs, trial.key))
    assert resolve_target(finished, lab, "day", None) is None
    target = resolve_target(finished, lab, "night", None)
    assert target is not None and target.dataset == "night"


def test_files_of_a_trial_have_the_permissions_of_the_umask(lab: Lab) -> None:
    before = os.umask(0o002)
    try:
        record = run_trial(build_trial(lab=lab), lab)
    finally:
        os.umask(before)
    files = [path for path in (lab.runs / record.key).rglob("*") if path.is_file() and path.name != "lock"]
    assert {"record.json", "last.safetensors", "counts.npz"} <= {path.name for path in files}
    assert {oct(path.stat().st_mode & 0o777) for path in files} == {"0o664"}


def _seal(**content: object) -> bytes:
    content["files"] = {}
    return json.dumps(content | {"checksum": compute_checksum(content)}).encode()


# The last one has the field names of an earlier version.
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        _seal(key="other"),
        _seal(key="0" * 64, status="finished", trial={}, scores=[], parts=1, ended="2026-01-01"),
    ],
)
def test_an_incomplete_record_is_read_as_none(lab: Lab, content: bytes) -> None:
    folder = RunFolder(lab.runs, "0" * 64)
    folder.create()
    folder.record.write_bytes(content)
    assert folder.read() is None


def test_a_record_of_another_trial_is_read_as_none(lab: Lab) -> None:
    record = run_trial(build_trial(lab=lab), lab)
    other = RunFolder(lab.runs, "0" * 64)
    other.create()
    other.record.write_bytes((lab.runs / record.key / "record.json").read_bytes())
    assert other.read() is None


def test_batches_do_not_depend_on_the_head(lab: Lab) -> None:
    seen = []
    for head in ("fcn32s", "fcn8s"):
        trial = build_trial({"head": head}, lab=lab)
        dataset = lab.open_dataset(trial.dataset)
        model = build_model(trial.variant, len(dataset.classes), trial.seed)
        training = build_training(trial.recipe, model, dataset, split="train", seed=trial.seed)
        seen.append([(images.clone(), labels.clone()) for images, labels in training.batches.epoch(1)])
    for (images, labels), (other_images, other_labels) in zip(*seen, strict=True):
        assert torch.equal(images, other_images)
        assert torch.equal(labels, other_labels)


def test_a_record_with_an_older_configuration_is_valid(lab: Lab) -> None:
    trial = build_trial(lab=lab)
    record = run_trial(trial, lab)
    folder = RunFolder(lab.runs, trial.key)
    trial_of_earlier_version = {**record.trial, "recipe": {"a field": "that was removed"}}
    folder.record.write_bytes(encode_record(record.model_copy(update={"trial": trial_of_earlier_version}), {}))
    found = folder.read()
    assert found is not None
    assert found.metrics == record.metrics


def test_a_cost_that_cannot_be_counted_is_missing_and_does_not_fail_the_trial(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_given: object, **_options: object) -> float:
        raise ModelError("accepts only images of 224x224")

    monkeypatch.setattr("fcnlab.training.cost.count_gmacs", refuse)
    record = run_trial(build_trial(lab=lab), lab)
    assert record is not None and record.status == "finished"
    assert record.cost is not None and record.cost.gmacs is None and record.cost.params > 0
    assert RunFolder(lab.runs, record.key).read() == record
    assert "gmacs" not in extract_columns(record, "last")


def test_score_scale_resizes_the_image_but_not_the_labels(lab: Lab) -> None:
    trial = build_trial({"recipe": "quick"}, lab=lab, batch_size=4, epochs=12, precision="fp32", score_scale=0.5)
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
    finished = read_finished_trial(RunFolder(lab.runs, trial.key))
    assert evaluate_trial(finished, lab, Protocol(), "last").metrics == scored
    assert record.cost is not None and record.cost.gmacs_size == (32, 32)
    assert scored != evaluate_trial(finished, lab, Protocol(scales=(2.0,)), "last").metrics  # at its own size


PLATEAU: dict[str, Any] = {"epochs": 6, "stop_on_plateau": {"patience": 2, "min_delta": 100.0}}
"""A mIoU never improves by 100 points, so the trial stops after the second validation that follows the first."""


@pytest.mark.parametrize("killed_after", [2, 3])
def test_a_trial_stops_on_a_plateau_also_after_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_after: int
) -> None:
    calm, rough = (create_lab(tmp_path / name) for name in ("calm", "rough"))
    trial = build_trial(lab=calm, **PLATEAU, schedule={"name": "poly"})
    record = run_trial(trial, calm)
    assert record.plateau == Plateau(epoch=3, best_epoch=1, validations=2, min_delta=100.0)
    assert record.trained_epochs == len(record.epochs) == 3 and record.status == "finished"
    found = read_finished_trial(RunFolder(calm.runs, trial.key))
    last, best = (record.find_metrics("test", checkpoint) for checkpoint in ("last", "best"))
    assert (last.epoch, best.epoch) == (3, 1 + int(np.argmax([epoch.val_miou for epoch in record.epochs])))
    assert found.weights_file("last").is_file() and found.weights_file("best").is_file()
    seconds = sum((epoch.seconds for epoch in record.epochs), start=0.0)
    assert record.cost.train_seconds == pytest.approx(seconds)
    whole = create_schedule("poly", steps=6 * 4)
    assert [epoch.lr for epoch in record.epochs] == [0.01 * whole(4 * epoch - 1) for epoch in (1, 2, 3)]

    interrupt_trial(trial, rough, monkeypatch, after=killed_after)
    resumed = run_trial(trial, rough)
    assert timeless_content(resumed) == timeless_content(record) and resumed.plateau == record.plateau
    counts = [arrays_of(lab.runs / trial.key / "counts.npz") for lab in (calm, rough)]
    assert all(np.array_equal(counts[0][name], counts[1][name]) for name in counts[0])


def test_all_ranks_stop_on_a_plateau(lab: Lab) -> None:
    trial = build_trial(lab=lab, **PLATEAU, batch_norm="eval")
    record = run_trial(trial, lab, devices=2)
    assert record.failure is None and record.environment.devices == 2 and record.trained_epochs == 3


def test_stop_on_plateau_is_left_out_of_the_key_where_it_is_off(lab: Lab) -> None:
    assert build_trial(lab=lab, stop_on_plateau=None).key == build_trial(lab=lab).key
    assert build_trial(lab=lab, stop_on_plateau={"patience": 2}).key != build_trial(lab=lab).key


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
              enumerate(zip(epoch_records(len(curve)), curve, strict=True), start=1)]  # fmt: skip
    assert find_plateau(rule, epochs) == stop
    assert find_plateau(None, epochs) is None
