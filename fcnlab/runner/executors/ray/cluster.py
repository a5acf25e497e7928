"""The Ray cluster: how it is reached, which nodes it has, and what of them a trial takes."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from fcnlab.errors import RunError
from fcnlab.runner.executors.gpus import visible_gpus
from fcnlab.runner.executors.process import usable_cores

LOCAL_STORE = 2**27
"""Bytes of shared memory that a cluster made here takes: its workers see the lab, so nothing large is sent."""


@dataclass(frozen=True)
class TrialResources:
    """What a trial takes of its node.

    Attributes:
        threads: of the CPU, as many of Ray's CPUs.
        gpus: how many, or the share of one: 0.5 puts two trials on each GPU.
        memory: bytes of the machine's memory, of which there are to be enough for all trials of a node.
    """

    threads: int = 1
    gpus: float = 0.0
    memory: int = 0

    @property
    def resources(self) -> dict[str, float]:
        """The same by Ray's names."""
        wanted = {"CPU": self.threads, "GPU": self.gpus, "memory": self.memory}
        return {name: amount for name, amount in wanted.items() if amount}

    def alone_on(self, node: Node) -> dict[str, float]:
        """The same for a trial that has its device to itself: a whole GPU, or all CPUs."""
        return self.resources | ({"GPU": max(1.0, self.gpus)} if self.gpus else {"CPU": node.has("CPU")})


@dataclass(frozen=True)
class Node:
    """A machine of the cluster, with its resources by Ray's names."""

    id: str
    host: str
    resources: Mapping[str, float]

    def has(self, resource: str) -> float:
        """How much there is of a resource."""
        return self.resources.get(resource, 0.0)

    def room(self, ask: TrialResources, used: Mapping[str, float]) -> int:
        """How many more trials fit on it when so much is used."""
        # Fractions of a GPU are no round numbers: three thirds are to fill one.
        free = {name: self.has(name) - used.get(name, 0.0) for name in ask.resources}
        return min(int(free[name] / amount + 1e-6) for name, amount in ask.resources.items())


def connect(address: str | None) -> bool:
    """Join the cluster at an address, or make one of this machine; False if this process is in one already.

    Raises:
        RunError: Ray is not installed, or the cluster cannot be reached.
    """
    try:
        import ray
    except ImportError:
        raise RunError("--executor ray needs Ray; install it with: pip install 'fcnlab[ray]'") from None
    if ray.is_initialized():
        return False
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        with _own_signal_handlers():
            ray.init(
                "local",
                num_cpus=usable_cores(),
                num_gpus=len(visible_gpus()),
                include_dashboard=False,
                object_store_memory=LOCAL_STORE,
                **quiet,
            )
        return True
    try:
        _knock(address)
        with _own_signal_handlers():
            ray.init(address, **quiet)
    except (OSError, RuntimeError, ValueError, ImportError) as error:
        raise RunError(
            f"--address {address}: no Ray cluster can be joined there ({_first_line(error)}); it is 'auto' on a node "
            "of the cluster, its head's HOST:PORT, or ray://HOST:10001"
        ) from None
    return True


def has_gpus(address: str | None) -> bool:
    """Whether there are GPUs in the cluster at an address, or on this machine if one is still to be made of it.

    Raises:
        RunError: as `connect`.
    """
    if address is None:
        return bool(visible_gpus())
    connect(address)
    return any(node.has("GPU") for node in living_nodes())


def _knock(address: str) -> None:
    """See whether anybody listens at HOST:PORT: Ray takes minutes to find out.

    Raises:
        OSError: nobody does.
        ValueError: it is no address.
    """
    if address != "auto":
        host, _, port = address.removeprefix("ray://").rpartition(":")
        with socket.create_connection((host, int(port)), timeout=10):
            pass


def anywhere_but(nodes: Collection[str]) -> dict[str, Any]:
    """Ray's options for a place on any node but these, where there is most room."""
    where: dict[str, Any] = {"scheduling_strategy": "SPREAD"}
    return where | ({"label_selector": {"ray.io/node-id": f"!in({','.join(sorted(nodes))})"}} if nodes else {})


def on(node: Node) -> dict[str, Any]:
    """Ray's options for a place on this node."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node.id, soft=False)}


@contextmanager
def _own_signal_handlers() -> Iterator[None]:
    """Keep the driver's answer to SIGTERM, which Ray would put its own in place of: the first ends after the epoch."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, ours)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")


def living_nodes() -> list[Node]:
    """The nodes that the cluster has now."""
    import ray

    return [
        Node(node["NodeID"], node["NodeManagerHostname"], node["Resources"]) for node in ray.nodes() if node["Alive"]
    ]


def share_of_cores(ask: TrialResources, nodes: Sequence[Node], at_once: int | None = None) -> int:
    """Return how many threads a trial takes so that the trials of a cluster use all of its GPUs, else most cores.

    Args:
        ask: what a trial takes otherwise.
        nodes: the nodes of the cluster.
        at_once: how many trials run at once at most.

    Returns:
        The share of the cores that the trials of one of the nodes have; 1 where no node has room.
    """
    with_one = replace(
        ask, threads=1, memory=min(ask.memory, int(max((node.has("memory") for node in nodes), default=0)))
    )
    rooms = [(int(node.has("CPU")), node.room(with_one, {})) for node in nodes]
    shares = {cores // min(room, at_once or room) for cores, room in rooms if room} or {1}

    def used(threads: int) -> int:
        count = sum(node.room(replace(with_one, threads=threads), {}) for node in nodes)
        return threads * min(count, at_once or count)

    return min(shares) if ask.gpus else max(sorted(shares), key=used)


def fitted(ask: TrialResources, nodes: Sequence[Node]) -> TrialResources:
    """What can be asked of these nodes: memory is an estimate, so it is never more than the largest of them has.

    Raises:
        RunError: no node has what a trial takes; Ray would wait for one for ever.
    """
    able = [node for node in nodes if node.room(replace(ask, memory=0), {})]
    if able:
        return replace(ask, memory=min(ask.memory, int(max(node.has("memory") for node in able))))
    has = ", ".join(f"{node.host}: {_amounts(node.has('CPU'), node.has('GPU'))}" for node in nodes) or "no nodes"
    raise RunError(
        f"a trial takes {_amounts(ask.threads, ask.gpus)}, and no node of the Ray cluster has them; it has {has}; "
        "lower --threads, or add a node"
    )


def _amounts(cpus: float, gpus: float) -> str:
    return f"{cpus:g} CPUs and {gpus:g} GPUs" if gpus else f"{cpus:g} CPUs"
