from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fcnlab
from fcnlab.inference.mlflow_model import log_models
from fcnlab.lab import Lab
from tests.conftest import SMOKE, write_grid


def test_a_trials_model_is_kept_once_and_mlflow_loads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow.pytorch

    path = write_grid(tmp_path, SMOKE.replace("seeds: 2", "seeds: 1"))
    grid, lab = fcnlab.load_grid(path), Lab.find(path)
    fcnlab.run_grid(grid, threads=1, quiet=True)
    heard: list[str] = []
    assert log_models(grid, lab, heard.append) == 2 == len(heard)
    assert log_models(grid, lab, heard.append) == 0
    frame = fcnlab.frame(grid)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", lab.tracking_uri)
    network = mlflow.pytorch.load_model(f"runs:/{frame['run_id'][0]}/model")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8))
    pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None]
    with torch.no_grad():
        probabilities = network(pixels)[0].numpy()
    ours = fcnlab.load(str(frame["key"][0]), lab=lab).probabilities(image)
    np.testing.assert_allclose(probabilities, ours, atol=1e-5)
