"""A short form of `benchmarks/failures/tracking.py`: an MLflow server that fails, and comes back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.failures.tracking import FEW_ATTEMPTS, Harness


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in FEW_ATTEMPTS.items():
            patch.setenv(name, value)
        for name in ("FILE_STORE", "ARTIFACT_ROOT", "ARTIFACT_DESTINATION", "SERVE_ARTIFACTS"):
            patch.setenv(f"_MLFLOW_SERVER_{name}", "")  # so that they are restored
        harness = Harness(tmp_path_factory.mktemp("server"), delay=0.01)
        yield harness
        harness.server.close()


@pytest.mark.parametrize(
    ("problem", "first", "last", "reason"),
    [
        ("refused", 20, None, "the server cannot be reached"),
        ("hangs", 5, None, "the server does not answer in time"),
        ("lost", 10, 10, None),
        ("401", 1, None, "the server refuses the user or the token (error 401); set MLFLOW_TRACKING_USERNAME"),
        ("HTML", 5, None, "the server does not answer as MLflow does, but with '<html><head><title>Log in"),
    ],
)
def test_each_trial_is_published_once_after_a_failure_of_the_server(
    harness: Harness, problem: str, first: int, last: int | None, reason: str | None
) -> None:
    assert harness.publish(problem, first, last) == []
    assert (reason is None) or reason in harness.reasons[0]


def test_trials_do_not_wait_for_a_server_that_does_not_answer(harness: Harness) -> None:
    assert harness.train("hangs") == []


def test_a_run_publishes_everything_to_a_server_that_comes_back(harness: Harness) -> None:
    assert harness.train("dropped") == []


@pytest.mark.parametrize("what", ["trial", "grid", "experiment"])
def test_what_was_deleted_in_mlflow_is_published_again_or_named(harness: Harness, what: str) -> None:
    assert harness.delete(what) == []
