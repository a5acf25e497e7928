"""Matching of the tensors of a weights file with a network: the prefix of the names, and the names that are left over.

Weights are published under many names: `module.conv1.weight` (DataParallel), `state_dict.model.encoder.conv1.weight`
(Lightning), `state_dict.module.encoder_q.conv1.weight` (MoCo), `teacher.backbone.conv1.weight` (DINO). The prefix is
not looked up in a list: it is the text before the network's keys in the file, and each of the keys must follow it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from timm.models import adapt_input_conv
from torch import Tensor

from fcnlab.errors import ModelError, list_some, nearest

COUNTER = "num_batches_tracked"
"""Buffer of batch norm that files from before PyTorch 0.4.1 lack; only a batch norm without momentum uses it."""

TRAINING_COPIES = {"encoder_k": "encoder_q"}
"""Networks that exist for training only, with the network that is evaluated instead (MoCo)."""

MAX_NAMES = 3

State = Mapping[str, Tensor]
Rename = Callable[[str], str]


@dataclass(frozen=True)
class MatchedWeights:
    """Tensors for all keys of a network.

    Attributes:
        state: tensors under the network's keys.
        prefix: text that was removed from the beginning of the names in the file.
        counters: number of `num_batches_tracked` that the file lacks and that are 0 in `state`.
        unused: names after the prefix for which the network has no key.
        outside: number of tensors whose names do not begin with the prefix.
        is_other: True if an unused name is inside a module of the network, as in weights of another network.
    """

    state: dict[str, Tensor]
    prefix: str
    counters: int
    unused: tuple[str, ...]
    outside: int
    is_other: bool

    @property
    def note(self) -> str:
        """The changes and the unused names in one line; empty if the file has all of the network's keys.

        Unused layers that follow those of the network, such as a classifier, are only listed beside changes.
        """
        if not (self.prefix or self.counters or self.outside or self.is_other):
            return ""
        named = list_some(self.unused, MAX_NAMES)
        outside = f"{self.outside} tensors without the prefix" if self.outside else ""
        unused = ", ".join(filter(None, (named, outside)))
        parts = (
            f"prefix '{self.prefix}' removed" if self.prefix else "",
            f"{self.counters} missing {COUNTER} set to 0" if self.counters else "",
            f"not used: {unused}" if unused else "",
        )
        return "; ".join(filter(None, parts))


def match_weights(tensors: State, own: State, rename: Rename, source: str, prefix: str | None = None) -> MatchedWeights:
    """Find the tensors of a network in a file.

    Linear layers [out, in] are reshaped to the kernels of convolutions with the same numbers, and a first convolution
    for RGB images is adapted to the number of channels.

    Args:
        tensors: tensors of the file, by name.
        own: the network's state dict, of which keys and shapes are read.
        rename: returns the network's key for a published name.
        source: the file, for messages.
        prefix: prefix of the names in the file; None to find it.

    Raises:
        ModelError: keys are missing, a shape differs, the prefix does not occur, or several prefixes fit.
    """
    by_prefix = _find_prefixes(tensors, own, rename)
    if prefix is not None:
        given = f"{prefix.removesuffix('.')}." if prefix else ""
        if given and not any(name.startswith(given) for name in tensors):
            raise ModelError(
                f"{source}: weights_prefix: no name in the file begins with '{given}'; {nearest(given, by_prefix)}"
            )
        by_prefix = {given: by_prefix.get(given, {})}
    required = {key for key in own if not key.endswith(f".{COUNTER}")}
    fitting = {candidate: names for candidate, names in by_prefix.items() if required <= names.keys()}
    if not fitting:
        raise ModelError(f"{source}: does not fit: {_describe_missing(tensors, own, required, by_prefix)}")
    chosen = _choose(tensors, fitting, source)
    names = fitting[chosen]
    state = {key: _to_shape(tensors[names[key]], value) for key, value in own.items() if key in names}
    for key, value in state.items():
        if value.shape != own[key].shape:
            raise ModelError(
                f"{source}: '{key}' has shape {tuple(value.shape)}, the model's is {tuple(own[key].shape)}"
            )
    counters = [key for key in own if key not in state]
    state |= {key: torch.zeros((), dtype=torch.long) for key in counters}
    below = [name for name in tensors if name.startswith(chosen)]
    used = set(names.values())
    unused = tuple(name.removeprefix(chosen) for name in below if name not in used)
    modules = {name.removeprefix(chosen).partition(".")[0] for name in used}
    is_other = any(name.partition(".")[0] in modules for name in unused)
    return MatchedWeights(state, chosen, len(counters), unused, len(tensors) - len(below), is_other)


def _find_prefixes(tensors: State, own: State, rename: Rename) -> dict[str, dict[str, str]]:
    """Return for each prefix in the file the network's keys that follow it, with their full names in the file."""
    by_prefix: dict[str, dict[str, str]] = {}
    for name in tensors:
        parts = name.split(".")
        for length in range(len(parts)):
            key = rename(".".join(parts[length:]))
            if key in own:
                prefix = "".join(f"{part}." for part in parts[:length])
                by_prefix.setdefault(prefix, {}).setdefault(key, name)
    return by_prefix


def _choose(tensors: State, fitting: Mapping[str, Mapping[str, str]], source: str) -> str:
    """Return the only prefix that fits; of prefixes with equal tensors the shortest."""
    different: list[str] = []
    for prefix in sorted(fitting, key=len):
        names = fitting[prefix]
        if not any(_are_equal(tensors, names, fitting[other]) for other in different):
            different.append(prefix)
    copies = {f"{evaluated}.": f"{copy}." for copy, evaluated in TRAINING_COPIES.items()}
    excluded = {prefix.replace(*pair) for prefix in different for pair in copies.items() if pair[0] in prefix}
    different = [prefix for prefix in different if prefix not in excluded]
    if len(different) > 1:
        listed = ", ".join(f"'{prefix}'" for prefix in different)
        raise ModelError(
            f"{source}: contains several sets of weights that fit, with the prefixes {listed}; choose one with "
            f"weights_prefix: {different[-1]}"
        )
    return different[0]


def _are_equal(tensors: State, names: Mapping[str, str], others: Mapping[str, str]) -> bool:
    """Return whether two sets of names have the same tensors, as when a module is registered twice."""
    return names.keys() == others.keys() and all(
        tensors[name] is tensors[others[key]]
        or (tensors[name].shape == tensors[others[key]].shape and torch.equal(tensors[name], tensors[others[key]]))
        for key, name in names.items()
    )


def _describe_missing(
    tensors: State, own: State, required: set[str], by_prefix: Mapping[str, Mapping[str, str]]
) -> str:
    best = max(by_prefix, key=lambda prefix: len(by_prefix[prefix]), default="")
    if 2 * len(by_prefix.get(best, {})) < len(required):  # a few equal names are a coincidence
        best = ""
    missing = sorted(required - by_prefix.get(best, {}).keys())
    after = f" after the prefix '{best}'" if best else ""
    begins = next(iter(tensors), "nothing")
    return (
        f"{len(missing)} of {len(own)} keys are missing{after}, first '{missing[0]}'; the file begins with '{begins}'"
    )


def _to_shape(value: Tensor, own: Tensor) -> Tensor:
    """Reshape the weights of a linear layer [out, in] to those of a convolution [out, in / (h w), h, w]."""
    is_linear = value.ndim == 2 and own.ndim == 4 and own[:1].numel() == value[:1].numel()
    return value.reshape(own.shape) if is_linear and len(value) == len(own) else _adapt_channels(value, own)


def _adapt_channels(value: Tensor, own: Tensor) -> Tensor:
    """Convert the weight of a first convolution for RGB to another number of channels, as timm does for its weights."""
    is_first = value.ndim == own.ndim == 4 and value.shape[1] == 3 and own.shape[1] in (1, 4)
    if not is_first or (value.shape[0], *value.shape[2:]) != (own.shape[0], *own.shape[2:]):
        return value
    adapted: Tensor = adapt_input_conv(own.shape[1], value)
    return adapted
