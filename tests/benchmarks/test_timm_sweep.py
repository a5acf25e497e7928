"""The sweep over timm's models: the rows of single models, and the groups of the page."""

from __future__ import annotations

import argparse

import pytest

from benchmarks import timm_sweep


def test_a_model_of_one_scale_is_refused_with_the_reason_of_the_page() -> None:
    row = timm_sweep.try_model("vit_tiny_patch16_224", budget=12)
    assert row["state"] == "refused" and timm_sweep.ONE_SCALE in row["reason"]


def test_a_model_without_features_is_refused_with_the_reason_of_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("features_only not implemented")

    monkeypatch.setattr("timm.create_model", fails)
    row = timm_sweep.try_model("resnet14t", budget=12)
    assert row["state"] == "refused" and timm_sweep.NO_FEATURES in row["reason"]


def test_a_supported_model_is_served_with_every_head() -> None:
    row = timm_sweep.try_model("test_resnet", budget=12)
    assert row["state"] == "served" and row["run"] == "values"
    assert row["heads"] == dict.fromkeys(timm_sweep.HEADS, "ok")


def test_the_page_counts_models_by_reason() -> None:
    about = {"date": "2026-01-01", "code": timm_sweep.CODE}
    reasons = f"timm's 'a'{timm_sweep.NO_FEATURES}: ...", f"timm's 'b' has maps at stride 16{timm_sweep.ONE_SCALE} ..."
    rows = [
        {"model": "a", "state": "refused", "reason": reasons[0], **about},
        {"model": "b", "state": "refused", "reason": reasons[1], **about},
        {"model": "c", "state": "served", "run": "values", "heads": dict.fromkeys(timm_sweep.HEADS, "ok"), **about},
    ]
    page = timm_sweep.page(rows, 3, argparse.Namespace(budget=12.0))
    assert "- **2** expose features; of these **1** have maps at several strides" in page
    assert "fcnlab rejects the other 1, and the 1 without features" in page
    assert "| fcn8s | 1 | 1 | 100.0 |" in page
