"""The Ray cluster: connection, nodes and the resources of a trial."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from fcnlab.errors import RunError, first_line
from fcnlab.limits import usable_cores
from fcnlab.runner.executors.gpus import visible_gpus

LOCAL_STORE = 2**27
"""Bytes of the object store of a local cluster; its workers share the lab's disk, so messages are small."""


@dataclass(frozen=True)
class TrialResources:
    """Resources of one trial.

    Attributes:
        threads: CPU threads; one Ray CPU each.
        gpus: number of GPUs; 0.5 puts two trials on each GPU.
        memory: bytes of memory of the node.
    """

    threads: int = 1
    gpus: float = 0.0
    memory: int = 0

    @property
    def resources(self) -> dict[str, float]:
        """The resources by Ray's names."""
        wanted = {"CPU": self.threads, "GPU": self.gpus, "memory": self.memory}
        return {name: amount for name, amount in wanted.items() if amount}

    def exclusive_on(self, node: Node) -> dict[str, float]:
        """Return the resources of an exclusive trial on a node: a whole GPU, or all CPUs.

        Args:
            node: the node of the trial.

        Returns:
            Amounts by Ray's names.
        """
        return self.resources | ({"GPU": max(1.0, self.gpus)} if self.gpus else {"CPU": node.has("CPU")})


@dataclass(frozen=True)
class Node:
    """A node of the cluster, with its resources by Ray's names."""

    id: str
    host: str
    resources: Mapping[str, float]

    def has(self, resource: str) -> float:
        """Return the amount of a resource; 0 if the node has none.

        Args:
            resource: Ray's name of the resource.
        """
        return self.resources.get(resource, 0.0)

    def room(self, ask: TrialResources, used: Mapping[str, float]) -> int:
        """Return how many more trials fit on the node.

        Args:
            ask: resources of a trial.
            used: resources in use, by Ray's names.
        """
        # The tolerance lets three thirds fill one GPU.
        free = {name: self.has(name) - used.get(name, 0.0) for name in ask.resources}
        return min(int(free[name] / amount + 1e-6) for name, amount in ask.resources.items())


def _require_token() -> None:
    """Require a token for connections to the cluster that this process starts; only its processes have the token.

    Ray listens on all networks, and who can connect can run code. Ray reads these variables when it is imported; a
    process that has imported it, or in which they are set, keeps its setting.
    """
    if "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


def connect(address: str | None) -> bool:
    """Connect to a cluster, or start one on this machine.

    Args:
        address: address of the cluster; None starts one.

    Returns:
        False if this process was already connected.

    Raises:
        RunError: Ray is not installed, or the cluster cannot be reached.
    """
    if address is None:
        _require_token()
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
        _check_port(address)
        with _own_signal_handlers():
            ray.init(address, **quiet)
    except (OSError, RuntimeError, ValueError, ImportError) as error:
        raise RunError(
            f"--address {address}: no Ray cluster can be joined there ({first_line(error).rstrip('.')}); it is 'auto' "
            "on a node of the cluster, its head's HOST:PORT, or ray://HOST:10001"
        ) from None
    return True


def has_gpus(address: str | None) -> bool:
    """Return whether the cluster has GPUs.

    Args:
        address: address of the cluster; None checks this machine.

    Raises:
        RunError: as `connect`.
    """
    if address is None:
        return bool(visible_gpus())
    connect(address)
    return any(node.has("GPU") for node in living_nodes())


def _check_port(address: str) -> None:
    """Check that HOST:PORT accepts connections, because Ray takes minutes to fail.

    Raises:
        OSError: the port is closed.
        ValueError: the address is invalid.
    """
    if address != "auto":
        host, _, port = address.removeprefix("ray://").rpartition(":")
        with socket.create_connection((host, int(port)), timeout=10):
            pass


def place_outside(nodes: Collection[str]) -> dict[str, Any]:
    """Return Ray's options that spread actors over all nodes except these.

    Args:
        nodes: ids of the excluded nodes.
    """
    where: dict[str, Any] = {"scheduling_strategy": "SPREAD"}
    return where | ({"label_selector": {"ray.io/node-id": f"!in({','.join(sorted(nodes))})"}} if nodes else {})


def on(node: Node) -> dict[str, Any]:
    """Return Ray's options that place an actor on a node.

    Args:
        node: the node.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node.id, soft=False)}


@contextmanager
def _own_signal_handlers() -> Iterator[None]:
    """Restore the driver's SIGTERM handler, which pauses trials, after Ray has installed its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, ours)


def living_nodes() -> list[Node]:
    """Return the nodes of the cluster that are alive."""
    import ray

    return [
        Node(node["NodeID"], node["NodeManagerHostname"], node["Resources"]) for node in ray.nodes() if node["Alive"]
    ]


def choose_threads(ask: TrialResources, nodes: Sequence[Node], at_once: int | None = None) -> int:
    """Return the threads of a trial with which a cluster's trials use all GPUs, or else most cores.

    Args:
        ask: the other resources of a trial.
        nodes: the nodes of the cluster.
        at_once: largest number of parallel trials.

    Returns:
        The number of threads; 1 if no node fits a trial.
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
    """Limit the memory of a trial to that of the largest node, because it is an estimate.

    Args:
        ask: resources of a trial.
        nodes: nodes of the cluster.

    Returns:
        The resources to request.

    Raises:
        RunError: no node has the resources of a trial; Ray would wait for one without a limit.
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
