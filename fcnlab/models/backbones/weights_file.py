"""Reading of weights files: named tensors from safetensors and from PyTorch checkpoints, without running code."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fcnlab.errors import ModelError, first_line
from fcnlab.paths import check_regular_file

MAX_LEVELS = 3
"""Levels of mappings that are searched for tensors: the checkpoint, up to two inner mappings around the weights."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read all named tensors of a file; nothing but tensors and plain values is unpickled.

    The weights may be in inner mappings, as in ``{"epoch": 90, "state_dict": {...}}``; the keys of these mappings are
    joined with a dot, as in ``state_dict.conv1.weight``.

    Args:
        path: path of a safetensors file, or of a checkpoint of `torch.save`.

    Returns:
        Tensors on the CPU by name.

    Raises:
        ModelError: the file is missing, unreadable, has Python objects besides tensors, or has no named tensors.
    """
    try:
        check_regular_file(path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read as weights: {error.strerror}") from None
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_checkpoint(path)
    tensors = dict(_find_tensors(content)) if isinstance(content, Mapping) else {}
    if not tensors:
        raise ModelError(f"{path}: holds no state dict (a mapping of names to tensors){_describe(content)}")
    return tensors


def _find_tensors(content: Mapping[Any, Any], prefix: str = "", level: int = 1) -> Iterator[tuple[str, Tensor]]:
    for key, value in content.items():
        if not isinstance(key, str):
            continue
        if isinstance(value, Tensor):
            yield prefix + key, value
        elif isinstance(value, Mapping) and level < MAX_LEVELS:
            yield from _find_tensors(value, f"{prefix}{key}.", level + 1)


def _describe(content: object) -> str:
    if not isinstance(content, Mapping):
        return f"; it is of type {type(content).__name__}"
    return f"; its keys are {', '.join(map(str, list(content)[:8])) or 'none'}"


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: cannot be read as weights: {first_line(error)}{_hint(path)}") from error


def _read_checkpoint(path: Path) -> object:
    try:
        with warnings.catch_warnings():  # the errors below describe what torch warns of
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zipfile and torch raise errors of many types
        text = str(error)
        found = re.search(r"GLOBAL (\S+)", text)
        if found is not None:
            raise ModelError(_convert_first(path, found[1].rstrip("."))) from None
        if "TorchScript" in text:
            raise ModelError(
                f"{path}: is a TorchScript archive, not a state dict; save its weights once:\n"
                f"    import torch\n    torch.save(torch.jit.load({str(path)!r}).state_dict(), {_weights_name(path)!r})"
            ) from None
        raise ModelError(f"{path}: cannot be read as weights: {first_line(error)}{_hint(path)}") from error


def _convert_first(path: Path, named: str) -> str:
    """Return the error for a file with Python objects, with a conversion to paste."""
    return (
        f"{path}: cannot be read as weights: it contains a Python object ({named}) besides tensors, and reading it "
        "would run code from the file. If you trust the file, convert it once in Python and use the new file:\n"
        f"    import torch; c = torch.load({str(path)!r}, map_location='cpu', weights_only=False)\n"
        "    torch.save(c.state_dict() if hasattr(c, 'state_dict') else {k: getattr(v, 'state_dict', lambda: v)() "
        "for k, v in c.items() if hasattr(v, 'state_dict') or torch.is_tensor(v) or isinstance(v, dict) and "
        f"all(map(torch.is_tensor, v.values()))}}, {_weights_name(path)!r})"
    )


def _weights_name(path: Path) -> str:
    return str(path.with_name(path.name.partition(".")[0] + "-weights.pth"))


def _hint(path: Path) -> str:
    """Return a hint about a file that cannot be a weights file; empty if there is none."""
    try:
        with path.open("rb") as file:
            begins = file.read(64).lstrip().lower()
    except OSError:
        return ""
    if begins.startswith(b"version https://git-lfs"):
        return "; it is a pointer of Git LFS: run `git lfs pull`"
    if begins.startswith((b"<!doctype", b"<html")):
        return "; it is an HTML page: download the file itself"
    return ""
