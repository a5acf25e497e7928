"""Heads, dataset types, losses, transforms, executors and trackers from a user's own package or lab.

A package declares its classes as entry points of the groups `fcnlab.heads`, `fcnlab.datasets`, `fcnlab.losses`,
`fcnlab.transforms`, `fcnlab.executors` and `fcnlab.trackers`. A lab lists them in `registry/extensions.yaml`. Nothing
is imported before a configuration names a type that is not built in, and Python files of a lab are only run if the user
allows it. See `docs/extending.md`.
"""

from fcnlab.extensions.find import BUILTIN, Extensions, fcnlab_command

__all__ = ["BUILTIN", "Extensions", "fcnlab_command"]
