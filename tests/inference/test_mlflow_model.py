"""Models logged to MLflow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fcnlab
from fcnlab.errors import TrackingError
from fcnlab.inference.mlflow_model import log_models, register_best_model
from fcnlab.lab import Lab
from tests.conftest import SMOKE, write_grid


def test_each_model_is_logged_once_and_can_be_loaded_by_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow.pytorch

    path = write_grid(tmp_path, SMOKE.replace("seeds: 2", "seeds: 1"))
    grid, lab = fcnlab.load_grid(path), Lab.find(path)
    fcnlab.run_grid(grid, threads=1, quiet=True)
    logged: list[str] = []
    assert log_models(grid, lab, logged.append) == 2 == len(logged)
    assert log_models(grid, lab, logged.append) == 0
    frame = fcnlab.frame(grid)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", lab.tracking_uri)
    network = mlflow.pytorch.load_model(f"runs:/{frame['run_id'][0]}/model")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8))
    pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None]
    with torch.no_grad():
        probabilities = network(pixels)[0].numpy()
    expected = fcnlab.load(str(frame["key"][0]), lab=lab).predict_probabilities(image)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)

    best = fcnlab.load(f"{path}:best", lab=lab)
    label, version = register_best_model(grid, lab, "segmenter")
    assert version == "1"
    assert register_best_model(grid, lab, "segmenter") == (label, None), "it is registered once"
    registered = mlflow.pytorch.load_model("models:/segmenter/1")
    with torch.no_grad():
        np.testing.assert_allclose(registered(pixels)[0].numpy(), best.predict_probabilities(image), atol=1e-5)
    with pytest.raises(TrackingError, match=r"^model name 'a/b': MLflow permits no '/' and no ':'; try 'a-b'$"):
        register_best_model(grid, lab, "a/b")
