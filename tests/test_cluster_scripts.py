"""The SLURM scripts of the documentation, with programs in place of SLURM, Ray and fcnlab."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.patience import wait_until

SCRIPTS = re.findall(
    r"^```bash\n(#!/bin/bash\n.*?)^```", (REPOSITORY / "docs/clusters.md").read_text("utf-8"), re.M | re.S
)

PROGRAMS = {
    "srun": 'while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"',
    "scontrol": 'echo "$@" >> scontrol.txt',
    "ray": "exec sleep 0.1",
    "openssl": "echo 1234",
    "fcnlab": """
trap 'echo paused > fcnlab.txt; exit 130' TERM
echo started > fcnlab.txt
for _ in $(seq ${STEPS:-0}); do sleep 0.05; done
exit ${CODE:-0}
""",
}

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")


@pytest.fixture
def job(tmp_path: Path) -> dict[str, str]:
    """Write the programs, and return the environment variables of a job."""
    for name, text in PROGRAMS.items():
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/bash\n{text}\n", encoding="utf-8")
        program.chmod(0o755)
    outside = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    job = {"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "2", "SLURMD_NODENAME": "127.0.0.1"}
    return outside | job | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}


@pytest.fixture
def head() -> socket.socket:
    """The port of the head of a Ray cluster."""
    return socket.create_server(("127.0.0.1", 0))


def start(script: str, folder: Path, variables: dict[str, str], head: socket.socket) -> subprocess.Popen[bytes]:
    file = folder / "job.sh"
    file.write_text(script.replace("6379", str(head.getsockname()[1])), encoding="utf-8")
    return subprocess.Popen(["bash", str(file)], cwd=folder, env=variables, stderr=subprocess.DEVNULL)


def read(file: Path) -> str:
    return file.read_text(encoding="utf-8").strip() if file.exists() else ""


def test_the_page_has_a_script_without_ray_and_one_with_it() -> None:
    assert ["--executor ray" in script for script in SCRIPTS] == [False, True]


@pytest.mark.parametrize("script", SCRIPTS, ids=["drivers", "ray"])
@pytest.mark.parametrize(
    ("code", "requeued"), [(0, ""), (1, ""), (2, ""), (130, "requeue 7"), (143, "requeue 7"), (137, "")]
)
def test_a_job_is_requeued_if_its_trials_are_paused_and_keeps_the_exit_code(
    tmp_path: Path, job: dict[str, str], head: socket.socket, script: str, code: int, requeued: str
) -> None:
    with head:
        assert start(script, tmp_path, job | {"CODE": str(code)}, head).wait(60) == code
    assert read(tmp_path / "scontrol.txt") == requeued


def test_a_task_of_a_job_array_requeues_itself_and_not_the_array(
    tmp_path: Path, job: dict[str, str], head: socket.socket
) -> None:
    task = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2", "CODE": "130"}  # the id of the job is the array's
    with head:
        assert start(SCRIPTS[0], tmp_path, job | task, head).wait(60) == 130
    assert read(tmp_path / "scontrol.txt") == "requeue 7_2"


def test_a_signal_to_the_script_of_a_ray_cluster_pauses_the_trials(
    tmp_path: Path, job: dict[str, str], head: socket.socket
) -> None:
    with head:
        running = start(SCRIPTS[1], tmp_path, job | {"STEPS": "1200"}, head)
        wait_until(lambda: read(tmp_path / "fcnlab.txt") == "started", "the driver has started")
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 130
    assert read(tmp_path / "fcnlab.txt") == "paused"
    assert read(tmp_path / "scontrol.txt") == "requeue 7"
