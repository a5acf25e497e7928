"""The `ray` executor: Ray workers on the nodes of a cluster.

Ray places actors and reports their failures; the driver schedules, retries and records trials. Each slot is one actor,
which Ray never restarts.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Collection
from typing import Any

from fcnlab.errors import RunError
from fcnlab.lab import Lab
from fcnlab.redaction import get_logger
from fcnlab.runner.executors.base import Executor, Job, JobExit
from fcnlab.runner.executors.ray.cluster import Node, TrialResources, connect, fitted, living_nodes, on, place_outside
from fcnlab.runner.executors.ray.slot import RaySlot, UnsuitableNode
from fcnlab.runner.executors.ray.worker import Token

CLUSTER_POLL = 2.0
"""Seconds between two queries of the nodes."""

NODE_TIMEOUT = 60.0
"""Seconds until a run fails if no node can run a trial."""

MAX_FAILED_STARTS = 3
"""Number of consecutive failed starts of workers that ends the run."""

STOP_TIMEOUT = 5.0
"""Seconds that workers have to stop their trials and remove temporary files."""


class RayExecutor(Executor):
    """Runs jobs on a Ray cluster, or on a local Ray instance."""

    def __init__(self, lab: Lab, ask: TrialResources, address: str | None = None, at_once: int | None = None) -> None:
        """Connect to the cluster and start workers.

        Args:
            lab: the driver's lab.
            ask: resources of a trial.
            address: address of a running cluster; None starts one on this machine.
            at_once: largest number of parallel trials; None sets no limit.

        Raises:
            RunError: Ray is not installed, the cluster cannot be reached, or none of its nodes can run such a trial.
        """
        self._lab, self._at_once = lab, at_once
        self._joined = connect(address)
        self._slots: list[RaySlot] = []
        self._waiting_exclusive: dict[tuple[str, str], Job] = {}  # exclusive jobs that wait, by device
        self._early_exits: list[JobExit] = []  # paused before they started
        self._unsuitable: dict[str, str] = {}  # reasons, by node
        self._failed_starts = 0
        self._is_pausing = False
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
        self._last_poll = self._had_nodes = time.monotonic()
        self._add_slots(nodes)

    @property
    def free_slots(self) -> int:
        return sum(self._is_open(slot) for slot in self._slots)

    @property
    def waiting(self) -> Collection[str]:
        return {job.trial.key for job in self._waiting_exclusive.values()}

    def start(self, job: Job) -> None:
        self._is_pausing = False
        open_slots = [slot for slot in self._slots if self._is_open(slot)]
        if not job.exclusive:
            trials_per_device = max(1, round(1 / self._ask.gpus)) if self._ask.gpus else 1
            open_slots[0].start(job.model_copy(update={"trials_per_device": trials_per_device}))
            return
        busy = Counter(slot.device for slot in self._slots if slot.job is not None)
        device = min((slot.device for slot in open_slots), key=lambda device: busy[device])
        assert device is not None, "an open slot has reported"
        self._waiting_exclusive[device] = job
        self._start_exclusive_jobs()

    def wait(self, timeout: float) -> list[JobExit]:
        import ray

        if not self._is_pausing:
            self._follow_cluster()
        self._start_exclusive_jobs()
        ended, self._early_exits = self._early_exits, []
        slots = {slot.request: slot for slot in self._slots if slot.request is not None}
        if ended or not slots:
            time.sleep(0 if ended else timeout)
        else:
            ray.wait(list(slots), timeout=timeout)
        answered, _ = ray.wait(list(slots), num_returns=len(slots), timeout=0) if slots else ([], [])
        for reference in answered:
            ended += self._handle_answer(slots[reference], reference)
        self._start_exclusive_jobs()
        return ended

    def pause(self) -> None:
        self._is_pausing = True
        self._early_exits += [JobExit(job.trial.key) for job in self._waiting_exclusive.values()]
        self._waiting_exclusive.clear()
        for slot in list(self._slots):
            if slot.job is None:
                continue
            if slot.device is None:
                self._early_exits.append(JobExit(slot.job.trial.key))
                self._stop_slot(slot)
            else:
                slot.pause()

    def close(self) -> None:
        import ray

        self._token.path.unlink(missing_ok=True)
        stopping = [slot.stop() for slot in self._slots if slot.device is not None]
        if stopping:
            ray.wait(stopping, num_returns=len(stopping), timeout=STOP_TIMEOUT)
        for slot in self._slots:
            slot.kill()
        self._slots.clear()
        if self._joined:
            ray.shutdown()
            self._joined = False

    def _is_open(self, slot: RaySlot) -> bool:
        """Return whether a slot accepts a job now."""
        idle = slot.device is not None and slot.job is None
        return idle and slot.device not in self._waiting_exclusive

    def _handle_answer(self, slot: RaySlot, reference: Any) -> list[JobExit]:
        """Handle an answer of a worker; return its job if it has ended."""
        import ray

        if slot not in self._slots:  # the slot was stopped meanwhile
            return []
        try:
            starting = slot.device is None
            ended = slot.handle(ray.get(reference))
        except (ray.exceptions.RayError, UnsuitableNode) as error:
            return self._handle_loss(slot, error)
        if ended is not None:
            if slot.reserves is not None:
                self._stop_slot(slot)
            return [ended]
        if starting:
            self._handle_start(slot)
        return []

    def _handle_start(self, slot: RaySlot) -> None:
        """Start the job of a worker that has started, or stop the worker if its node is reserved or unsuitable."""
        assert slot.device is not None
        self._failed_starts = 0
        if slot.job is not None:
            slot.start(slot.job)
        elif slot.device[0] in self._reserved() | self._unsuitable.keys():
            self._stop_slot(slot)

    def _handle_loss(self, slot: RaySlot, error: Exception) -> list[JobExit]:
        """Remove a worker that has died or is unsuitable; return the job that was lost.

        Raises:
            RunError: workers cannot be started.
        """
        self._slots.remove(slot)
        slot.kill()
        self._last_poll = -CLUSTER_POLL
        why = _reason(error)
        living = {node.id for node in living_nodes()}
        if slot.device is None:
            self._failed_starts += self._nodes <= living  # otherwise its node may have been lost
            if self._failed_starts == MAX_FAILED_STARTS:
                raise RunError(f"workers on the Ray cluster cannot be started: {why}")
        elif isinstance(error, UnsuitableNode):
            self._unsuitable[slot.device[0]] = f"{slot.host}: {why}"
            get_logger("fcnlab").warning("node %s is not used: %s", slot.host, why)
        elif slot.device[0] not in living:
            why = "its node is gone"
        return [JobExit(slot.job.trial.key, f"{slot.host}: {why}")] if slot.job is not None else []

    def _stop_slot(self, slot: RaySlot) -> None:
        """Stop an idle worker; Ray ends the actor once no reference to it remains."""
        self._slots.remove(slot)
        slot.stop()

    def _start_exclusive_jobs(self) -> None:
        """Start the exclusive jobs whose device is idle, each on a new slot with the whole device."""
        for device, job in list(self._waiting_exclusive.items()):
            there = [slot for slot in self._slots if slot.device == device]
            for slot in there:
                if slot.job is None:
                    self._stop_slot(slot)
            if all(slot.job is None for slot in there):
                del self._waiting_exclusive[device]
                self._add_exclusive_slot(job, device[0])

    def _add_exclusive_slot(self, job: Job, node_id: str) -> None:
        """Add a slot for an exclusive job, with a whole device of a node."""
        node = next((node for node in living_nodes() if node.id == node_id), None)
        if node is None:
            self._early_exits.append(JobExit(job.trial.key, "its node is gone"))
            return
        threads, resources = self._ask.threads, self._ask.exclusive_on(node)
        self._slots.append(RaySlot(self._lab, self._token, threads, resources, on(node), job=job, reserves=node_id))

    def _reserved(self) -> set[str]:
        """Return the nodes that are reserved for exclusive jobs."""
        awaited = {slot.reserves for slot in self._slots if slot.reserves is not None and slot.device is None}
        return awaited | {node for node, _ in self._waiting_exclusive}

    def _follow_cluster(self) -> None:
        """Query the nodes and add slots.

        Raises:
            RunError: no node could run a trial for NODE_TIMEOUT seconds.
        """
        now = time.monotonic()
        if now - self._last_poll < CLUSTER_POLL:
            return
        self._last_poll = now
        nodes = [node for node in living_nodes() if node.id not in self._unsuitable]
        self._nodes = {node.id for node in nodes}
        if self._slots or any(node.room(self._ask, {}) for node in nodes):
            self._had_nodes = now
        elif self._unsuitable or now - self._had_nodes > NODE_TIMEOUT:
            why = "; ".join(self._unsuitable.values()) or f"for {NODE_TIMEOUT:.0f} seconds it has had no node for them"
            raise RunError(f"the Ray cluster cannot run these trials: {why}")
        self._add_slots(nodes)

    def _add_slots(self, nodes: list[Node]) -> None:
        """Add as many slots as fit on the nodes; Ray places them."""
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
        where = place_outside(reserved | self._unsuitable.keys())
        for _ in range(room):
            self._slots.append(RaySlot(self._lab, self._token, self._ask.threads, self._ask.resources, where))


def _reason(error: Exception) -> str:
    """Return a short reason for the loss of a worker."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].partition(". ")[0].rstrip(".") if lines else type(error).__name__
