"""`fcnlab evaluate` and `fcnlab predict`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from shutil import rmtree
from types import SimpleNamespace
from zipfile import ZipFile

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from fcnlab import load
from fcnlab.cli import inference_options
from fcnlab.constants import Precision
from fcnlab.inference.load import write_safetensors
from fcnlab.inference.model import TrainedModel
from fcnlab.lab import Lab
from fcnlab.metrics.summary import compute_image_metrics, compute_metrics
from fcnlab.paths import relative_to_cwd
from fcnlab.runner.plan import make_plan
from fcnlab.training import hardware
from fcnlab.trial.run import run_trial
from fcnlab.trial.run_folder import RunFolder
from tests.cli.conftest import Call
from tests.conftest import SMOKE, arrays_of, write_grid
from tests.data.images import random_image, random_mask, save_image


@pytest.fixture
def columns() -> int:
    return 250


@pytest.fixture
def fcnlab(fcnlab: Call) -> Call:
    """Call `fcnlab` with one thread, as the trials ran."""
    torch.set_num_threads(1)
    return fcnlab


@pytest.fixture
def ran(tmp_path: Path) -> tuple[Path, list[RunFolder]]:
    """A grid of four trials; those of the first cell have finished."""
    file = write_grid(tmp_path, SMOKE)
    lab = Lab.find(file)
    keys = [
        run_trial(trial, lab).key for cell, trial in lab.load_grid(file).trials(lab.fingerprints) if "32s" in cell.label
    ]
    assert len(keys) == 2
    return file, [RunFolder(lab.runs, key) for key in keys]


def test_a_grid_is_evaluated_beside_its_plain_metrics(fcnlab: Call, ran: tuple[Path, list[RunFolder]]) -> None:
    file, folders = ran
    records = [folder.record.read_bytes() for folder in folders]
    code, out, err = fcnlab("evaluate", file, "--flip", "--scales", "0.5,1")
    assert code == 0, err
    assert "plain mIoU" in out and "fcn32s" in out and "fcn8s" not in out.split("\n", 1)[1]
    assert "Mean ± standard deviation over n seeds" in " ".join(out.split())
    assert "seed 0" in err and "of" in err
    assert [folder.record.read_bytes() for folder in folders] == records
    for folder in folders:
        kept = json.loads((folder.evaluations / "flip+0.5_1.json").read_text())
        arrays = arrays_of(folder.evaluations / "flip+0.5_1.npz")
        assert kept["key"] == folder.key and kept["flip"] is True and kept["scales"] == [0.5, 1.0]
        assert kept["metrics"]["miou"] == pytest.approx(compute_metrics(arrays["counts"]).miou)
        assert kept["metrics"]["boundary_iou"] == pytest.approx(compute_metrics(arrays["boundary"]).miou)
        assert len(arrays["ids"]) == len(arrays["counts"]) == kept["metrics"]["images"]
    page = file.parent.parent / "results" / "question" / "evaluation-flip+0.5_1.md"
    assert str(page) in out.replace("\n", "") and "flip+0.5,1" in page.read_text()
    table = pd.read_csv(page.with_suffix(".csv"))
    plain = [folder.read().find_metrics("test", "last").miou for folder in folders]
    assert table["plain_miou"][0] == pytest.approx(np.mean(plain), rel=1e-5)
    assert table["delta"][0] == pytest.approx(table["miou"][0] - table["plain_miou"][0], abs=1e-5)
    assert (table["n"][0], table["planned"][0]) == (2, 2)


def test_missing_weights_of_a_grid_are_listed_before_the_first_evaluation(
    fcnlab: Call, ran: tuple[Path, list[RunFolder]]
) -> None:
    file, (first, second) = ran
    second.weights.unlink()
    code, _, err = fcnlab("evaluate", file, "--flip")
    assert code == 2 and "the weights of 1 of 2 finished trials are missing" in err
    assert "then: fcnlab grid run" in err and second.key in err and first.key not in err and "seed 1)" in err
    assert not first.evaluations.exists(), "nothing is evaluated"
    lab = Lab.find(file)
    code, _, err = fcnlab("evaluate", second.key, "--flip", "--lab", lab.root)
    assert code == 2 and f"remove the folder {relative_to_cwd(second.path)}, then run its grid" in err
    rmtree(second.path)
    states = {one.folder.key: one.state for one in make_plan(lab.load_grid(file), lab).trials}
    assert states[second.key] == "to do", "`fcnlab grid run` trains it again"
    code, out, err = fcnlab("evaluate", file, "--flip")
    assert code == 0 and "1 of 2" in out, err


def test_an_evaluated_grid_names_the_split_of_each_dataset(fcnlab: Call, tmp_path: Path) -> None:
    for number in range(6):
        save_image(random_image(number), tmp_path / f"mine/images/{number}.png")
        save_image(random_mask(number, (0, 1)), tmp_path / f"mine/masks/{number}.png")
    entry = {"type": "folder", "images": "mine/images", "masks": "mine/masks", "classes": ["a", "b"],
             "nominal": {"height": 6, "width": 8}, "fractions": {"val": 0.5}}  # fmt: skip
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry/datasets.yaml").write_text(json.dumps({"mine": entry}), encoding="utf-8")
    text = SMOKE.replace(" dataset: shapes-mini,", "").replace("smoke}", "smoke, recipe.batch_size: 2}")
    text = text.replace("[fcn32s, fcn8s]", "[fcn32s], dataset: [shapes-mini, mine]").replace("seeds: 2", "seeds: 1")
    grid = write_grid(tmp_path, text.replace("head: fcn32s", "dataset: shapes-mini"))
    lab = Lab.find(grid)
    for _, trial in lab.load_grid(grid).trials(lab.fingerprints):
        assert run_trial(trial, lab).status == "finished"
    code, _, err = fcnlab("evaluate", grid)
    assert code == 0, err
    page = tmp_path / "results" / "question" / "evaluation-plain.md"
    assert "Protocol plain on test (shapes-mini) and val (mine) at native size" in page.read_text(encoding="utf-8")


def test_the_plain_protocol_reproduces_the_recorded_metrics(fcnlab: Call, ran: tuple[Path, list[RunFolder]]) -> None:
    folder = ran[1][0]
    for checkpoint, stem in (("last", "plain"), ("best", "plain-best")):
        code, out, err = fcnlab("evaluate", folder.key, "--checkpoint", checkpoint)
        assert code == 0, err
        record = folder.read()
        assert record is not None
        kept = json.loads((folder.evaluations / f"{stem}.json").read_text())["metrics"]
        assert kept == json.loads(record.find_metrics("test", checkpoint).model_dump_json())
        arrays, counts = arrays_of(folder.evaluations / f"{stem}.npz"), arrays_of(folder.counts)
        assert np.array_equal(arrays["counts"], counts[f"test_{checkpoint}"])
        assert np.array_equal(arrays["boundary"], counts[f"test_{checkpoint}_boundary"])
        assert "boundary IoU" in out and "recorded" in out and str(folder.evaluations) in out.replace("\n", "")
        assert_means_over_images(out, counts[f"test_{checkpoint}"])
    code, out, err = fcnlab("evaluate", folder.key, "--json")
    assert code == 0, err
    per_image = json.loads(out)["per_image"]
    found = compute_image_metrics(arrays_of(folder.counts)["test_last"])
    assert per_image["miou"] == pytest.approx(found.miou) and per_image["class_dice"] == pytest.approx(found.class_dice)
    remove_counts(folder)
    code, out, err = fcnlab("evaluate", folder.key)
    assert code == 0 and re.search(r"mIoU per image +– +\d", out), err


@pytest.mark.parametrize("array", ["counts", "boundary", "ids", "confusion"])
def test_an_evaluation_with_damaged_counts_is_computed_again(
    fcnlab: Call, ran: tuple[Path, list[RunFolder]], array: str
) -> None:
    folder = ran[1][0]
    assert fcnlab("evaluate", folder.key).code == 0
    file = folder.evaluations / "plain.npz"
    expected, content = arrays_of(file), bytearray(file.read_bytes())
    with ZipFile(file) as archive:
        start = archive.getinfo(f"{array}.npy").header_offset
    content[start + 60 : start + 80] = bytes(20)
    file.write_bytes(content)
    code, _, err = fcnlab("evaluate", folder.key)
    assert code == 0, err
    found = arrays_of(file)
    assert found.keys() == expected.keys() and all(np.array_equal(found[name], expected[name]) for name in expected)


def assert_means_over_images(out: str, counts: np.ndarray) -> None:
    """Check the means over images in the columns of the record and of the evaluation."""
    found = compute_image_metrics(counts)
    for name, value in (("mIoU", found.miou), ("Dice", found.dice)):
        assert re.search(rf"{name} per image +{100 * value:.2f} +{100 * value:.2f}\n", out)


def remove_counts(folder: RunFolder) -> None:
    """Remove the counts of a trial, as those of records without a checksum of them."""
    record = folder.read()
    assert record is not None
    folder.counts.unlink()
    folder.finish(record)


def test_the_confusion_matrix_has_the_counts_of_the_record(fcnlab: Call, ran: tuple[Path, list[RunFolder]]) -> None:
    folder = ran[1][0]
    record = folder.read()
    code, out, err = fcnlab("evaluate", folder.key, "--confusion")
    assert code == 0, err
    frame = pd.read_csv(folder.evaluations / "plain-confusion.csv")
    assert tuple(frame["label"]) == tuple(frame.columns[1:]) == record.classes
    pixels = frame.to_numpy()[:, 1:].astype(int)
    hit, predicted, labeled = arrays_of(folder.counts)["test_last"].sum(0).T
    assert np.array_equal(pixels.diagonal(), hit)
    assert np.array_equal(pixels.sum(0), predicted) and np.array_equal(pixels.sum(1), labeled)
    label = int(labeled.argmax())
    assert f"{100 * hit[label] / labeled[label]:.1f}" in out and str(folder.evaluations) in out.replace("\n", "")
    code, out, _ = fcnlab("evaluate", folder.key, "--confusion", "--json")
    assert code == 0 and json.loads(out)["confusion"] == pixels.tolist()


def test_an_evaluation_without_a_confusion_matrix_is_computed_again(
    fcnlab: Call, ran: tuple[Path, list[RunFolder]]
) -> None:
    folder = ran[1][0]
    file = folder.evaluations / "plain.npz"
    assert fcnlab("evaluate", folder.key)[0] == 0
    arrays = arrays_of(file)
    np.savez_compressed(file, **{name: array for name, array in arrays.items() if name != "confusion"})
    for broken in (None, b"PK no archive"):
        if broken is not None:
            file.write_bytes(broken)
        code, _, err = fcnlab("evaluate", folder.key, "--confusion")
        assert code == 0, err
        assert np.array_equal(arrays_of(file)["confusion"], arrays["confusion"])


def test_an_evaluation_has_the_precision_of_the_record(
    fcnlab: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faster = [True]
    monkeypatch.setattr(hardware, "is_bf16_faster", lambda: faster[0])
    monkeypatch.setattr(hardware, "has_bf16", lambda: True)
    file = write_grid(
        tmp_path, SMOKE.replace("smoke}", "smoke, recipe.precision: auto}").replace("seeds: 2", "seeds: 1")
    )
    lab = Lab.find(file)
    folders = [
        RunFolder(lab.runs, run_trial(trial, lab).key) for _, trial in lab.load_grid(file).trials(lab.fingerprints)
    ]
    faster[0] = False  # as with another number of threads
    code, out, err = fcnlab("evaluate", file)
    assert code == 0, err
    assert "bf16" in out and "so that Δ includes" not in out
    for folder in folders:
        found, recorded = arrays_of(folder.evaluations / "plain.npz"), arrays_of(folder.counts)
        assert np.array_equal(found["counts"], recorded["test_last"])
    model = load(folders[0].key, lab=lab)
    assert model.precision == "bf16"
    write_safetensors(model, tmp_path / "model.safetensors")
    assert load(tmp_path / "model.safetensors").precision == "bf16"

    record = folders[0].read()
    assert record is not None and record.environment is not None
    on_gpu = record.environment.model_copy(update={"kind": "cuda", "precision": "fp16"})
    folders[0].finish(record.model_copy(update={"environment": on_gpu}))
    code, out, err = fcnlab("evaluate", folders[0].key)
    assert code == 0, err
    assert "fp32 on" in out and "the trial was trained in fp16, the precision of its recorded metrics\n" in out
    out = " ".join(fcnlab("evaluate", file)[1].split())
    assert "The plain metrics of 1 trial are of fp16, so that Δ includes this change." in out


def seal(folder: RunFolder) -> None:
    """Write the record again, with the checksums of the files of now."""
    record = folder.read()
    assert record is not None
    folder.finish(record)


def test_an_evaluation_is_reused_until_the_weights_change(fcnlab: Call, ran: tuple[Path, list[RunFolder]]) -> None:
    folder, other = ran[1]
    ask = ("evaluate", folder.key[:12], "--window", "20x24", "--stride", "10x12")
    assert fcnlab(*ask)[0] == 0
    file = folder.evaluations / "window20x24-10x12.json"
    first = file.read_bytes()
    code, _, err = fcnlab(*ask)
    assert (code, err) == (0, "") and file.read_bytes() == first
    folder.weights.write_bytes(other.weights.read_bytes())
    seal(folder)
    assert "images" in fcnlab(*ask)[2] and file.read_bytes() != first


def test_an_export_of_a_trial_in_bf16_names_the_compared_precision(
    fcnlab: Call, ran: tuple[Path, list[RunFolder]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = ran[1][0].key
    ask = ("export", key, "--to", "safetensors", "--overwrite", "--out", tmp_path / "x.safetensors")
    code, out, _ = fcnlab(*ask)
    assert code == 0 and "compared with the model: probabilities" in out and "float32" not in out
    monkeypatch.setattr(TrainedModel, "precision", property(lambda _: "bf16"))
    code, out, _ = fcnlab(*ask)
    assert code == 0 and "compared with the model, both in float32: probabilities" in out
    assert "`fcnlab predict` uses bf16 on this device" in out and "`--precision fp32` gives the same" in out


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_precision_of_a_prediction_can_be_set(
    fcnlab: Call, ran: tuple[Path, list[RunFolder]], tmp_path: Path, precision: Precision
) -> None:
    save_image(random_image(0), image := tmp_path / "image.png")
    code, _, err = fcnlab("predict", ran[1][0].key, image, "--probabilities", "--precision", precision, "--out", "made")
    assert code == 0, err
    probabilities = arrays_of(Path("made/probabilities/image.npz"))["probabilities"]
    expected = load(ran[1][0].path, precision=precision).predict_probabilities(image)
    assert np.array_equal(probabilities, expected.astype(np.float16))


def test_the_number_of_threads_can_be_set(fcnlab: Call, ran: tuple[Path, list[RunFolder]], tmp_path: Path) -> None:
    file, (folder, _) = ran
    save_image(random_image(0), image := tmp_path / "image.png")
    calls = (
        ("evaluate", folder.key),
        ("evaluate", file),
        ("predict", folder.key, image, "--out", tmp_path / "made"),
        ("export", folder.key, "--to", "safetensors", "--out", tmp_path / "x.safetensors"),
    )
    for threads, words in enumerate(calls, start=2):
        code, _, err = fcnlab(*words, "--threads", threads)
        assert (code, torch.get_num_threads()) == (0, threads), err
    assert json.loads((folder.evaluations / "plain.json").read_text())["threads"] == 2


def test_invalid_arguments_give_an_error_of_one_line(fcnlab: Call, ran: tuple[Path, list[RunFolder]]) -> None:
    file, (folder, _) = ran
    folder.weights.unlink()
    code, out, err = fcnlab("export", folder.key, "--to", "onnx", "--out", "model.pt2")
    assert (code, out, err.count("\n")) == (2, "", 1) and ".onnx" in err
    program = file.with_name("model.pt2")
    program.touch()
    cases = {
        ("evaluate", folder.key): "weights are missing",
        ("evaluate", "f" * 64): "no key of a trial begins with",
        ("evaluate", folder.key, "--dataset", "shapes-mini", "--split", "absent"): "absent",
        ("evaluate", folder.key, "--tta", "--flip"): "--tta",
        ("predict", file, file): "is a grid file; add a cell, such as",
        ("predict", program, file): "only trials and exported .safetensors files can be loaded",
        ("evaluate", program): "is neither a grid file nor a run folder",
        ("predict", "absent/model.pt2", file): "absent/model.pt2: no such file or run folder",
        ("predict", folder.key, file): "weights are missing",
        ("export", folder.key, "--to", "onnx"): "weights are missing",
        ("evaluate", file, "--scales", "big"): "--scales",
        ("evaluate", file, "--window", "512"): "--window",
        ("evaluate", file, "--window", "512x512"): "--stride",
        ("evaluate", file.with_name("absent.yaml")): "absent.yaml",
        ("evaluate", file, "--split", "val"): "--split: only for a trial",
    }
    for arguments, message in cases.items():
        code, out, err = fcnlab(*arguments)
        assert (code, out) == (2, ""), arguments
        assert err.startswith("fcnlab: error: ") and err.count("\n") == 1 and message in err
    empty = write_grid(file.parent.parent, SMOKE.replace("smoke}", "smoke, recipe.epochs: 3}"), "later")
    code, _, err = fcnlab("evaluate", empty)
    assert code == 2 and "has finished" in err


def test_a_trial_is_evaluated_on_another_split(fcnlab: Call, ran: tuple[Path, list[RunFolder]], tmp_path: Path) -> None:
    folder = ran[1][0]
    ask = ("evaluate", folder.key[:12], "--split", "val", "--json", "--out", tmp_path / "kept")
    code, out, err = fcnlab(*ask)
    assert code == 0, err
    printed = json.loads(out)
    record = folder.read()
    assert record is not None
    assert printed["metrics"] == json.loads(record.find_metrics("val", "last").model_dump_json())
    file = tmp_path / "kept" / folder.key[:12] / "shapes-mini-val-plain.json"
    assert printed["file"] == str(file) and json.loads(file.read_text())["dataset"] == "shapes-mini"
    assert printed["classes"] == list(record.classes) and not folder.evaluations.exists()
    code, out, err = fcnlab(*ask)
    assert (code, err) == (0, "") and json.loads(out) == printed


def test_an_evaluation_counts_the_images_that_the_trial_was_trained_on(fcnlab: Call, tmp_path: Path) -> None:
    for number in range(6):
        save_image(random_image(number), tmp_path / f"mine/images/{number}.png")
        save_image(random_mask(number, (0, 1)), tmp_path / f"mine/masks/{number}.png")
    entry = {"type": "folder", "images": str(tmp_path / "mine/images"), "masks": str(tmp_path / "mine/masks"),
             "classes": ["a", "b"], "nominal": {"height": 6, "width": 8}}  # fmt: skip
    fractions = {"mine": {"val": 0.5}, "other": {"val": 0.5, "seed": 1}}
    registry = {name: entry | {"fractions": fraction} for name, fraction in fractions.items()}
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry/datasets.yaml").write_text(json.dumps(registry), encoding="utf-8")
    grid = write_grid(tmp_path, SMOKE.replace("shapes-mini", "mine").replace("smoke}", "smoke, recipe.batch_size: 2}"))
    lab = Lab.find(grid)
    _, trial = next(iter(lab.load_grid(grid).trials(lab.fingerprints)))
    assert run_trial(trial, lab).status == "finished"
    datasets = {name: lab.open_dataset(lab.registry.get("dataset", name)) for name in registry}
    common = {*datasets["mine"].split("train").ids} & {*datasets["other"].split("val").ids}
    assert 0 < len(common) < 3, "this division has common images"
    for options, count in ((("--split", "train"), 3), (("--dataset", "other", "--split", "val"), len(common))):
        code, out, err = fcnlab("evaluate", trial.key, *options, "--json")
        assert (code, json.loads(out)["training_images"]) == (0, count)
        assert f"warning: {count} of the 3 images were trained on, so the metrics are too high\n" in err


def test_a_dataset_with_other_classes_is_an_error_that_lists_the_difference(
    fcnlab: Call, ran: tuple[Path, list[RunFolder]]
) -> None:
    registry = ran[0].parent.parent / "registry"
    registry.mkdir()
    entry = "{type: folder, images: /i, masks: /m, classes: [background, tree], lists: {train: a, val: b}, nominal: "
    (registry / "datasets.yaml").write_text("woods: " + entry + "{height: 8, width: 8}}", encoding="utf-8")
    code, out, err = fcnlab("evaluate", ran[1][0].key, "--dataset", "woods")
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert "its 2 classes are not the 6" in err and "only the dataset has tree" in err


def test_images_that_cannot_be_predicted_are_reported_at_the_end(
    fcnlab: Call, ran: tuple[Path, list[RunFolder]], tmp_path: Path
) -> None:
    folder, photos = ran[1][0], tmp_path / "photos"
    (photos / "sub").mkdir(parents=True)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 70, 3), dtype=np.uint8))
    picture.save(photos / "one.jpg")
    picture.convert("L").save(photos / "sub" / "two.png")
    picture.save(photos / "stack.tif", save_all=True, append_images=[picture])
    (photos / "torn.jpg").write_bytes((photos / "one.jpg").read_bytes()[:200])
    ask = ("predict", folder.key[:10], photos, "--overlay", "--probabilities", "--out", tmp_path / "made")
    code, out, err = fcnlab(*ask)
    assert code == 1 and out.startswith("2 of 4 images predicted")
    assert err.count("not predicted") == 2 and "stack.tif: has 2 pages" in err and "torn.jpg" in err
    made = {file.relative_to(tmp_path / "made").as_posix() for file in (tmp_path / "made").rglob("*.*")}
    wanted = {"masks": "png", "overlays": "png", "probabilities": "npz"}
    assert made == {f"{kind}/{name}.{end}" for kind, end in wanted.items() for name in ("one", "sub/two")}
    labels = load(folder.path).predict(Image.open(photos / "one.jpg"))
    mask = Image.open(tmp_path / "made" / "masks" / "one.png")
    assert mask.mode == "P" and np.array_equal(np.asarray(mask), labels)
    assert mask.getpalette()[:6] == [0, 0, 0, 230, 159, 0]
    assert arrays_of(tmp_path / "made" / "probabilities" / "one.npz")["probabilities"].shape == (6, 40, 70)
    code, _, err = fcnlab(*ask)
    assert code == 2 and "--overwrite" in err and err.count("\n") == 1
    assert fcnlab(*ask, "--overwrite")[0] == 1
    before = (tmp_path / "made/masks/one.png").read_bytes()
    code, _, err = fcnlab("predict", folder.key, tmp_path / "made/masks/one.png", "--out", ask[-1], "--overwrite")
    assert code == 2 and "one.png: its prediction would overwrite this image; choose another --out" in err
    assert (tmp_path / "made/masks/one.png").read_bytes() == before


def test_a_prediction_reports_the_range_of_values_of_images_of_more_than_8_bits(
    fcnlab: Call, ran: tuple[Path, list[RunFolder]], tmp_path: Path
) -> None:
    photos, gray = tmp_path / "photos", random_image(0)[..., 0]
    for name, image in (
        ("a.png", gray.astype(np.uint16) * 16),
        ("b.png", gray.astype(np.uint16)),
        ("c.tif", gray / np.float32(255)),
        ("d.png", gray),
    ):
        save_image(image, photos / name)
    ask = ("predict", ran[1][0].key, photos, "--overwrite", "--out", tmp_path / "made")
    code, out, err = fcnlab(*ask)
    assert (code, out.startswith("3 of 4 images predicted")) == (1, True)
    line, error = err.splitlines()
    assert line == (
        f"2 images have 16 bits and values up to {16 * int(gray.max())}, which are scaled as 0..65535; if their range "
        "is 0..4095, pass --value-range 0 4095"
    )
    assert "c.tif: mode F: the values have no fixed range; set 'value_range: [LOW, HIGH]' of the dataset" in error
    assert "for a prediction, pass --value-range LOW HIGH" in error
    code, out, err = fcnlab(*ask, "--value-range", "0", "4080")
    assert (code, out.startswith("4 of 4 images predicted")) == (0, True)
    assert f"2 images have 16 bits and values up to {16 * int(gray.max())}, which are scaled as 0..4080\n" in err
    assert "1 image has floating-point numbers and values up to" in err
    masks = [np.asarray(Image.open(tmp_path / "made/masks" / f"{name}.png")) for name in "ad"]
    assert np.array_equal(*masks)
    code, _, err = fcnlab(*ask, "--value-range", "9", "0")
    assert code == 2 and err == "fcnlab: error: the range of values must increase and be finite, not 9 to 0\n"


def test_an_evaluation_on_other_data_reports_their_range_of_values(fcnlab: Call, tmp_path: Path) -> None:
    registry = {}
    for name, factor in (("mine", np.uint8(1)), ("wide", np.uint16(16))):
        for number in range(6):
            save_image(random_image(number)[..., 0] * factor, tmp_path / f"{name}/images/{number}.png")
            save_image(random_mask(number, (0, 1)), tmp_path / f"{name}/masks/{number}.png")
        registry[name] = {"type": "folder", "images": str(tmp_path / name / "images"), "classes": ["a", "b"],
                          "masks": str(tmp_path / name / "masks"), "nominal": {"height": 6, "width": 8},
                          "fractions": {"val": 0.5}}  # fmt: skip
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry/datasets.yaml").write_text(json.dumps(registry), encoding="utf-8")
    grid = write_grid(tmp_path, SMOKE.replace("shapes-mini", "mine").replace("smoke}", "smoke, recipe.batch_size: 2}"))
    lab = Lab.find(grid)
    _, trial = next(iter(lab.load_grid(grid).trials(lab.fingerprints)))
    assert run_trial(trial, lab).status == "finished"
    code, _, err = fcnlab("evaluate", trial.key, "--split", "train", "--json")
    assert code == 0 and "scaled as" not in err
    code, _, err = fcnlab("evaluate", trial.key, "--dataset", "wide", "--json")
    assert code == 0
    assert "3 images have 16 bits and values up to 4" in err
    assert "scaled as 0..65535; if their range is 0..4095, set value_range: [0, 4095] of dataset wide\n" in err


def test_weights_of_another_network_are_one_error_line(fcnlab: Call, ran: tuple[Path, list[RunFolder]]) -> None:
    file, (folder, _) = ran
    image = file.with_name("image.png")
    Image.new("RGB", (64, 64)).save(image)
    state = {key: value.clone() for key, value in load_file(folder.weights).items()}  # the file, mapped, is overwritten
    (last, *_), bias = [key for key in state if key.startswith("head.")], torch.zeros(99)
    lacking = {key: value for key, value in state.items() if not key.startswith("backbone.body.layer4")}
    for content, expected in (
        (lacking, f"{len(state) - len(lacking)} of {len(state)} keys are missing, first 'backbone.body.layer4"),
        ({**state, "extra.bias": bias}, "the network has no key for 1, first 'extra.bias'"),
        ({**state, last: bias}, f"'{last}' has shape (99,), the network's is {tuple(state[last].shape)}"),
    ):
        save_file(content, folder.weights)
        seal(folder)
        for words in (("evaluate", folder.key, "--flip"), ("predict", folder.key, image)):
            code, _, err = fcnlab(*words)
            assert code == 2 and err.count("\n") == 1, err
            assert f"{folder.weights}: these are not weights of the trial's network: {expected}" in err
            assert "Traceback" not in err and "torch.Size" not in err


def test_progress_in_a_log_is_a_line_every_ten_seconds_and_at_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = iter([0.0, *(4.0 * image for image in range(1, 20))])
    monkeypatch.setattr(inference_options, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    print_progress = inference_options.create_progress("fcn8s")
    for done in range(1, 5):
        print_progress(done, 4)
    assert capsys.readouterr().err == "fcn8s: 3 of 4 images\nfcn8s: 4 of 4 images\n"
