"""The `serial` executor: one trial at a time in the driver's process, for debugging."""

from __future__ import annotations

import os
from threading import Event, Thread

from fcnlab.errors import RunError, describe_error
from fcnlab.lab import Lab
from fcnlab.runner.executors.base import Executor, Job, JobExit
from fcnlab.runner.executors.slots import Slot
from fcnlab.settings import DEVICE_VARIABLE


class SerialExecutor(Executor):
    """Runs jobs in a thread of this process. A crash of torch also ends the driver."""

    shares_devices = False

    def __init__(self, lab: Lab, slot: Slot) -> None:
        """Prepare to train on the first GPU of a slot, or on the CPU.

        Raises:
            RunError: torch does not see the device.
        """
        from fcnlab.runner.executors.device_check import count_devices, describe_device_error

        kind = slot.environment[DEVICE_VARIABLE]
        if (error := describe_device_error(kind, count_devices(), 1, verify=slot.verify)) is not None:
            raise RunError(error)
        self._lab = lab
        self._threads = slot.threads
        self._former_device = os.environ.get(DEVICE_VARIABLE)
        os.environ[DEVICE_VARIABLE] = kind
        self._pause = Event()
        self._job: Job | None = None
        self._thread: Thread | None = None
        self._error: str | None = None
        self._stop: str | None = None

    @property
    def free_slots(self) -> int:
        return int(self._job is None)

    def start(self, job: Job) -> None:
        self._job, self._error, self._stop = job, None, None
        self._pause.clear()
        self._thread = Thread(target=self._run, args=(job,), daemon=True)
        self._thread.start()

    def wait(self, timeout: float) -> list[JobExit]:
        if self._job is None or self._thread is None:
            return []
        self._thread.join(timeout)
        if self._thread.is_alive():
            return []
        ended = JobExit(self._job.trial.key, self._error, self._stop)
        self._job = self._thread = None
        return [ended]

    def pause(self) -> None:
        self._pause.set()

    def close(self) -> None:
        """Pause the trial and wait for the end of its epoch, because a thread cannot be stopped."""
        self._pause.set()
        if self._thread is not None:
            self._thread.join()
        if self._former_device is None:
            os.environ.pop(DEVICE_VARIABLE, None)
        else:
            os.environ[DEVICE_VARIABLE] = self._former_device

    def _run(self, job: Job) -> None:
        from fcnlab.runner.executors.worker import run_job

        try:
            run_job(job, self._lab, threads=self._threads, pause=self._pause)
        except RunError as error:
            self._stop = str(error)
        except Exception as error:  # noqa: BLE001 - `wait` reports the error
            self._error = describe_error(error)
