"""Differences between records."""

from __future__ import annotations

from fcnlab.trial.diff import Difference, diff_records, find_divergence, have_equal_metrics
from tests.builders import build_trial, epoch_records, finished_record


def test_a_record_equals_itself_and_times_are_not_compared() -> None:
    record = finished_record(build_trial())
    assert diff_records(record, record) == [] and have_equal_metrics(record, record)
    slower = finished_record(build_trial(), seconds=2.0)
    assert have_equal_metrics(record, slower)
    assert [one.field for one in diff_records(record, slower)] == ["train_seconds"]


def test_fields_of_the_configuration_have_dotted_names() -> None:
    found = diff_records(
        finished_record(build_trial()), finished_record(build_trial({"recipe.lr": 0.5, "head": "fcn32s"}, seed=3))
    )
    assert {(one.field, one.a, one.b) for one in found if one.section == "configuration"} == {
        ("recipe.optimizer.lr", build_trial().recipe.optimizer.lr, 0.5),
        ("head.stride", 8, 32),
        ("seed", 0, 3),
    }


def test_causes_come_before_metrics_and_metrics_have_a_difference() -> None:
    a = finished_record(build_trial(), miou=0.5)
    b = finished_record(
        build_trial(), miou=0.75, commit="ffff", threads=2, versions={"fcnlab": "0.1.0", "torch": "2.12.0"}
    )
    found = diff_records(a, b)
    assert [one.section for one in found] == ["code", "environment", "environment", "metrics", "metrics"]
    assert Difference("environment", "torch", "2.11.0", "2.12.0") in found
    assert Difference("metrics", "val mIoU", 0.5, 0.75).delta == 0.25
    assert Difference("environment", "torch", "2.11.0", "2.12.0").delta is None
    assert not have_equal_metrics(a, b)


def test_the_best_epoch_of_one_record_is_compared_with_that_of_the_other() -> None:
    """Only the first record has its best epoch before its last one."""
    a, b = finished_record(build_trial(), miou=0.5), finished_record(build_trial(), miou=0.7)
    early = {"epoch": 1, "miou": 0.6}
    metrics = tuple(one.model_copy(update=early if one.checkpoint == "best" else {}) for one in a.metrics)
    found = diff_records(a.model_copy(update={"metrics": metrics}), b)
    assert [(one.field, one.a, one.b) for one in found if one.section == "metrics"] == [
        ("val mIoU", 0.5, 0.7),
        ("test mIoU", 0.5, 0.7),
        ("val mIoU (best)", 0.6, 0.7),
        ("test mIoU (best)", 0.6, 0.7),
    ]


def test_the_first_epoch_with_another_loss_is_found() -> None:
    record = finished_record(build_trial())
    other = [*epoch_records(1), epoch_records(2)[1].model_copy(update={"loss": 0.5000000001})]
    assert find_divergence(record, record) is None
    assert find_divergence(record, record.model_copy(update={"epochs": tuple(other)})) == 2
