"""Comparison experiments on Fully Convolutional Networks: a question in YAML in, an ablation table out.

    import fcnlab

    model = fcnlab.build_model("fcn8s-resnet18", num_classes=21)
    grid = fcnlab.load_grid("experiments/quickstart.yaml")
    fcnlab.run_grid(grid)
    fcnlab.frame(grid)     # pandas, one row per trial
    fcnlab.summary(grid)   # pandas, one row per cell
    fcnlab.effects(grid)   # pandas, one row per effect of an axis
    fcnlab.curves(grid)    # pandas, one row per trial and epoch
    fcnlab.report(grid)    # the table, charts and page in results/
    fcnlab.compare("experiments/quickstart.yaml:fcn32s,bilinear", "experiments/quickstart.yaml:best")
    fcnlab.load("429d005e261a").predict(image)   # a finished trial on a PIL image

Importing fcnlab loads neither torch nor pandas nor mlflow; each name loads what it needs on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from fcnlab.version import __version__ as __version__

if TYPE_CHECKING:
    from fcnlab.api import (
        build_model,
        compare,
        curves,
        diff,
        effects,
        frame,
        load,
        load_grid,
        report,
        run_grid,
        summary,
    )

__all__ = [
    "__version__",
    "build_model",
    "compare",
    "curves",
    "diff",
    "effects",
    "frame",
    "load",
    "load_grid",
    "report",
    "run_grid",
    "summary",
]

# The function `report` has the name of a subpackage. Python sets a subpackage as an attribute of its package when it is
# first imported and never again: it is imported here, where that is one empty module, and the attribute is removed.
import_module("fcnlab.report")
del globals()["report"]


def __getattr__(name: str) -> object:
    if name in __all__:
        from fcnlab import api

        return getattr(api, name)
    raise AttributeError(f"module 'fcnlab' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
