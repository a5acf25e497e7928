"""With what a grid is run: which executor, and how many trials at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fcnlab.errors import RunError
from fcnlab.execute.base import Executor
from fcnlab.execute.process import ProcessExecutor, plan_slots, planned_memory
from fcnlab.execute.serial import SerialExecutor
from fcnlab.places import Lab
from fcnlab.spec.config import Recipe

ExecutorName = Literal["process", "serial", "ray"]


@dataclass(frozen=True)
class Means:
    """With what trials are run; None leaves it to the machine.

    Attributes:
        executor: `process` has workers on this machine, `serial` runs in the driver itself, `ray` on a Ray cluster.
        workers: how many trials run at once.
        threads: of the CPU, for each trial.
        per_gpu: how many trials share a GPU.
        address: of a running Ray cluster; None starts one on this machine.
    """

    executor: ExecutorName = "process"
    workers: int | None = None
    threads: int | None = None
    per_gpu: int = 1
    address: str | None = None

    def __post_init__(self) -> None:
        if self.executor == "serial" and (self.workers or 1) > 1:
            raise RunError(f"--executor serial runs one trial at a time, not {self.workers}; leave out --workers")
        if self.executor != "ray" and self.address is not None:
            raise RunError(f"--address is that of a Ray cluster; it goes with --executor ray, not {self.executor}")

    def hire(self, lab: Lab, recipes: Sequence[Recipe]) -> Executor:
        """Make the executor for trials of these recipes.

        Raises:
            RunError: Ray is not installed, or its cluster cannot be reached or lacks what a trial needs.
        """
        if self.executor == "ray":
            return self._hire_on_ray(lab, recipes)
        if self.executor == "serial":
            return SerialExecutor(lab, plan_slots(recipes, 1, self.threads)[0].threads)
        return ProcessExecutor(lab, plan_slots(recipes, self.workers, self.threads, self.per_gpu))

    def _hire_on_ray(self, lab: Lab, recipes: Sequence[Recipe]) -> Executor:
        from fcnlab.execute.on_ray import RayExecutor
        from fcnlab.execute.ray_cluster import Ask, has_gpus

        here = plan_slots(recipes, self.workers, self.threads, self.per_gpu)
        if has_gpus(self.address):
            ask = Ask(here[0].threads, gpus=1 / self.per_gpu)
        else:
            ask = Ask(here[0].threads, memory=max(map(planned_memory, recipes)))
        return RayExecutor(lab, ask, self.address, self.workers)
