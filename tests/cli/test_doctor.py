"""`fcnlab doctor` and `fcnlab --version`."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
from pathlib import Path

import pytest

from fcnlab import doctor
from fcnlab.doctor import Check, check_installation
from fcnlab.lab import Lab
from fcnlab.version import __version__
from tests.cli.conftest import Call


def find(checks: list[Check], name: str) -> Check:
    return next(check for check in checks if check.name == name)


def test_prints_the_version(fcnlab: Call) -> None:
    assert fcnlab("--version").out.split() == ["fcnlab", __version__]


def test_a_working_installation_has_no_errors(fcnlab: Call) -> None:
    result = fcnlab("doctor")
    assert result.code == 0, result.err
    assert "0 errors" in result.out


def test_prints_checks_as_json(fcnlab: Call) -> None:
    checks = json.loads(fcnlab("doctor", "--json").out)["checks"]
    assert {"fcnlab", "packages", "torchvision", "CPU", "MLflow store"} <= {check["name"] for check in checks}
    assert {check["status"] for check in checks} <= {"ok", "warning", "error"}


def test_reports_a_package_outside_the_supported_range(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    original = importlib.metadata.version
    monkeypatch.setattr("fcnlab.doctor.version", lambda name: "1.0" if name == "mlflow" else original(name))
    packages = find(check_installation(lab), "packages")
    assert packages.status == "error"
    assert "mlflow 1.0 is outside" in packages.found


def test_reports_a_gpu_that_torch_cannot_use(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    gpu = find(check_installation(lab), "GPU")
    assert gpu.status == "error"
    assert "driver" in gpu.remedy


def test_reports_a_missing_compiler(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcnlab.kernels.build.load_library", lambda _name: None)
    assert find(check_installation(lab), "C kernels").status == "warning"


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_reports_a_lab_that_cannot_be_written(lab: Lab) -> None:
    (lab.root / "experiments").mkdir()
    lab.root.chmod(0o500)
    try:
        assert find(check_installation(lab), "lab").status == "error"
    finally:
        lab.root.chmod(0o700)


def test_warns_of_a_full_disk(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    (lab.root / "experiments").mkdir()
    monkeypatch.setattr(doctor, "MIN_FREE_DISK", 10 * shutil.disk_usage(lab.root).total)
    assert find(check_installation(lab), "lab").status == "warning"


def test_warns_of_an_unreachable_store_without_its_password(lab: Lab) -> None:
    elsewhere = Lab.find(root=lab.root, tracking_uri="http://alice:s3cr3t@127.0.0.1:9")
    store = find(check_installation(elsewhere), "MLflow store")
    assert store.status == "warning"
    assert "s3cr3t" not in store.found
    assert "fcnlab grid sync" in store.remedy


def test_does_not_create_a_store(lab: Lab) -> None:
    check_installation(lab)
    assert not list(lab.root.glob("mlflow.db*"))


def test_lists_the_datasets_below_the_data_root(lab: Lab, real_data: Path) -> None:
    datasets = find(check_installation(Lab.find(root=lab.root, data_root=real_data)), "datasets")
    assert {"shapes", "camvid"} <= set(datasets.found.split(": ")[1].split(", "))


def test_an_unexpected_exception_is_the_result_of_its_check(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_name: str) -> None:
        raise ValueError("broken installation")

    monkeypatch.setattr("fcnlab.kernels.build.load_library", broken)
    checks = check_installation(lab)
    assert find(checks, "kernels") == Check("kernels", "error", "ValueError: broken installation")
    assert find(checks, "cache").status == "ok"
