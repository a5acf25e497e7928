"""The `ray` executor: outposts on the nodes of a Ray cluster, as many as it carries.

Ray places processes and tells of their death; what is run, retried and kept is the driver's affair. So this is Ray Core
alone: an actor for each slot, never restarted by Ray.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from typing import Any

from fcnlab.errors import RunError
from fcnlab.lab import Lab
from fcnlab.runner.executors.base import Executor, Job, JobExit
from fcnlab.runner.executors.ray.cluster import Node, TrialResources, anywhere_but, connect, fitted, living_nodes, on
from fcnlab.runner.executors.ray.slot import RaySlot, Unfit
from fcnlab.runner.executors.ray.worker import Token

LOOK_AT_CLUSTER = 2.0
"""Seconds between two looks at which nodes there are."""

WITHOUT_NODES = 60.0
"""Seconds that a cluster may be without a node that can run a trial."""

STILLBORN = 3
"""How many outposts in a row may fail to start."""

FAREWELL = 5.0
"""Seconds that outposts have to stop their trials and to clear up."""


class RayExecutor(Executor):
    """Jobs on a Ray cluster, or on this machine's cores under a Ray of its own."""

    def __init__(self, lab: Lab, ask: TrialResources, address: str | None = None, at_once: int | None = None) -> None:
        """`address` is that of a running cluster; `at_once` bounds how many trials run at once.

        Raises:
            RunError: Ray is not installed, the cluster cannot be reached, or none of its nodes can run such a trial.
        """
        self._lab, self._at_once = lab, at_once
        self._joined = connect(address)
        self._slots: list[RaySlot] = []
        self._clearing: dict[tuple[str, str], Job] = {}  # by device: what is to run there alone, once it is clear
        self._dropped: list[JobExit] = []  # paused before they had begun
        self._unfit: dict[str, str] = {}  # by node: why
        self._stillborn = 0
        self._token = Token.write(lab)
        try:
            nodes = living_nodes()
            self._ask = ask = fitted(ask, nodes)
        except BaseException:
            self.close()
            raise
        self._nodes = {node.id for node in nodes}
        several = any(node.room(ask, {}) > 1 for node in nodes)
        self.shares_devices = at_once != 1 and (ask.gpus % 1 > 0 if ask.gpus else several)
        self._looked = self._had_nodes = time.monotonic()
        self._hire(nodes)

    @property
    def free_slots(self) -> int:
        return sum(self._is_open(slot) for slot in self._slots)

    def start(self, job: Job) -> None:
        open_slots = [slot for slot in self._slots if self._is_open(slot)]
        if not job.exclusive:
            sharing = max(1, round(1 / self._ask.gpus)) if self._ask.gpus else 1
            open_slots[0].begin(job.model_copy(update={"sharing": sharing}))
            return
        busy = Counter(slot.device for slot in self._slots if slot.job is not None)
        device = min((slot.device for slot in open_slots), key=lambda device: busy[device])
        assert device is not None, "an open slot has reported"
        self._clearing[device] = job
        self._start_where_clear()

    def wait(self, timeout: float) -> list[JobExit]:
        import ray

        self._follow_cluster()
        self._start_where_clear()
        ended, self._dropped = self._dropped, []
        slots = {slot.asked: slot for slot in self._slots if slot.asked is not None}
        if ended or not slots:
            time.sleep(0 if ended else timeout)
        else:
            ray.wait(list(slots), timeout=timeout)
        answered, _ = ray.wait(list(slots), num_returns=len(slots), timeout=0) if slots else ([], [])
        for reference in answered:
            ended += self._hear(slots[reference], reference)
        self._start_where_clear()
        return ended

    def pause(self) -> None:
        self._dropped += [JobExit(job.trial.key) for job in self._clearing.values()]
        self._clearing.clear()
        for slot in list(self._slots):
            if slot.job is None:
                continue
            if slot.device is None:
                self._dropped.append(JobExit(slot.job.trial.key))
                self._dismiss(slot)
            else:
                slot.pause()

    def close(self) -> None:
        import ray

        self._token.path.unlink(missing_ok=True)
        stopping = [slot.stop() for slot in self._slots if slot.device is not None]
        if stopping:
            ray.wait(stopping, num_returns=len(stopping), timeout=FAREWELL)
        for slot in self._slots:
            slot.kill()
        self._slots.clear()
        if self._joined:
            ray.shutdown()
            self._joined = False

    def _is_open(self, slot: RaySlot) -> bool:
        """Whether a slot takes a job now."""
        idle = slot.device is not None and slot.job is None
        return idle and slot.device not in self._clearing

    def _hear(self, slot: RaySlot, reference: Any) -> list[JobExit]:
        """Take in what a slot answers; gives its job if it has ended."""
        import ray

        if slot not in self._slots:  # dismissed meanwhile
            return []
        try:
            ended = slot.hear(ray.get(reference))
        except (ray.exceptions.RayError, Unfit) as error:
            return self._lose(slot, error)
        if ended is not None:
            if slot.reserves is not None:
                self._dismiss(slot)
            return [ended]
        if slot.asked is None:
            self._welcome(slot)
        return []

    def _welcome(self, slot: RaySlot) -> None:
        """A slot has reported."""
        assert slot.device is not None
        self._stillborn = 0
        if slot.job is not None:
            slot.begin(slot.job)
        elif slot.device[0] in self._reserved() | self._unfit.keys():
            self._dismiss(slot)

    def _lose(self, slot: RaySlot, error: Exception) -> list[JobExit]:
        """An outpost has died, or is of no use: say which trial it took along. Another is hired in its place.

        Raises:
            RunError: none can be started.
        """
        self._slots.remove(slot)
        slot.kill()
        self._looked = -LOOK_AT_CLUSTER
        why = _reason(error)
        living = {node.id for node in living_nodes()}
        if slot.device is None:
            self._stillborn += self._nodes <= living  # otherwise it may have been on a node that has gone
            if self._stillborn == STILLBORN:
                raise RunError(f"workers on the Ray cluster cannot be started: {why}")
        elif isinstance(error, Unfit):
            self._unfit[slot.device[0]] = f"{slot.host}: {why}"
            logging.getLogger("fcnlab").warning("node %s is not used: %s", slot.host, why)
        elif slot.device[0] not in living:
            why = "its node is gone"
        return [JobExit(slot.job.trial.key, f"{slot.host}: {why}")] if slot.job is not None else []

    def _dismiss(self, slot: RaySlot) -> None:
        """Let an outpost go that runs nothing; Ray ends it once it has stopped and nobody knows it any more."""
        self._slots.remove(slot)
        slot.stop()

    def _start_where_clear(self) -> None:
        """Hire for what is to be alone, once its device is clear, with all of the device."""
        for device, job in list(self._clearing.items()):
            there = [slot for slot in self._slots if slot.device == device]
            for slot in there:
                if slot.job is None:
                    self._dismiss(slot)
            if all(slot.job is None for slot in there):
                del self._clearing[device]
                self._hire_for(job, device[0])

    def _hire_for(self, job: Job, node_id: str) -> None:
        """Hire a slot for one job, with all of a device of a node."""
        node = next((node for node in living_nodes() if node.id == node_id), None)
        if node is None:
            self._dropped.append(JobExit(job.trial.key, "its node is gone"))
            return
        threads, resources = self._ask.threads, self._ask.alone_on(node)
        self._slots.append(RaySlot(self._lab, self._token, threads, resources, on(node), job=job, reserves=node_id))

    def _reserved(self) -> set[str]:
        """The nodes where room is being made for a job that is to be alone."""
        awaited = {slot.reserves for slot in self._slots if slot.reserves is not None and slot.device is None}
        return awaited | {node for node, _ in self._clearing}

    def _follow_cluster(self) -> None:
        """See which nodes there are, and hire where there is room.

        Raises:
            RunError: there has been none for some time.
        """
        now = time.monotonic()
        if now - self._looked < LOOK_AT_CLUSTER:
            return
        self._looked = now
        nodes = [node for node in living_nodes() if node.id not in self._unfit]
        self._nodes = {node.id for node in nodes}
        if self._slots or any(node.room(self._ask, {}) for node in nodes):
            self._had_nodes = now
        elif self._unfit or now - self._had_nodes > WITHOUT_NODES:
            why = "; ".join(self._unfit.values()) or f"for {WITHOUT_NODES:.0f} seconds it has had no node for them"
            raise RunError(f"the Ray cluster cannot run these trials: {why}")
        self._hire(nodes)

    def _hire(self, nodes: list[Node]) -> None:
        """Hire as many slots as the nodes carry; where, and when others leave room there, is Ray's affair."""
        reserved = self._reserved()
        used: dict[str, Counter[str]] = defaultdict(Counter)
        unplaced = 0
        for slot in self._slots:
            if slot.device is not None:
                used[slot.device[0]].update(slot.resources)
            else:
                unplaced += slot.reserves is None
        room = sum(node.room(self._ask, used[node.id]) for node in nodes if node.id not in reserved) - unplaced
        if self._at_once is not None:
            room = min(room, self._at_once - len(self._slots))
        where = anywhere_but(reserved | self._unfit.keys())
        for _ in range(room):
            self._slots.append(RaySlot(self._lab, self._token, self._ask.threads, self._ask.resources, where))


def _reason(error: Exception) -> str:
    """Why an outpost is lost, in a few words."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].partition(". ")[0].rstrip(".") if lines else type(error).__name__
