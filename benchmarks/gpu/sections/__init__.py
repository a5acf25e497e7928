"""The sections of the acceptance run: their groups, their order and their time limits."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

from benchmarks.gpu.sections.settings import AcceptSettings

Section = Callable[[AcceptSettings], dict[str, Any]]
"""Returns JSON-able results, with one line for the summary under "detail"; raises an exception where it fails."""


class Group(NamedTuple):
    """Sections that run one after another in one process.

    Attributes:
        sections: names of the sections.
        phase: groups of one phase run at the same time, phases one after another.
        limit: seconds that each section may take.
        needs_gpu: the sections need a GPU.
    """

    sections: tuple[str, ...]
    phase: int
    limit: float
    needs_gpu: bool = False

    def runs_on(self, device: str) -> bool:
        """Return whether the sections run on a device unless they are named.

        Args:
            device: `cpu` or `cuda`.
        """
        return device == "cuda" or not self.needs_gpu


GROUPS = (
    Group(("environment",), 0, 40),
    Group(("determinism",), 1, 150),
    Group(("losses",), 1, 150),
    Group(("gpu_tests",), 1, 150, needs_gpu=True),
    Group(("augmentation", "counts", "steps"), 1, 150),
    Group(("grid", "export"), 1, 120),
    Group(("paper_heads",), 1, 150),
    Group(("resume",), 1, 120),
    Group(("agreement", "distributed"), 1, 120),
    Group(("compiled",), 1, 120, needs_gpu=True),
    Group(("per_gpu",), 1, 120),
    Group(("out_of_memory",), 2, 75, needs_gpu=True),
)
"""Started in this order; the longest come first."""

_MODULES = {
    "losses": ("paper_heads",),
    "trials": ("agreement", "determinism", "resume", "compiled"),
    "grids": ("per_gpu", "grid"),
    "memory": ("out_of_memory",),
    "models": ("export",),
    "suite": ("gpu_tests",),
}
"""Modules of sections that are not in a module of their own name."""


def find_section(name: str) -> Section:
    """Import the module of a section, and torch with it, and return the section's function.

    Args:
        name: name of the section.
    """
    module = next((module for module, names in _MODULES.items() if name in names), name)
    function: Section = getattr(import_module(f"benchmarks.gpu.sections.{module}"), name)
    return function
