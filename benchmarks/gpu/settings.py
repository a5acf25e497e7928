"""The settings of a run of accept.py or bench.py, which its sections read."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from benchmarks.gpu.results import write_json


@dataclass(frozen=True)
class Settings:
    """The settings of a run.

    Args:
        out: Folder for results and logs.
        scratch: Folder for everything else: labs, caches, images. It is removed at the end.
        device: `cuda` or `cpu`.
        smoke: Use tiny sizes.
    """

    out: Path
    scratch: Path
    device: str
    smoke: bool = False

    def write(self, section: str) -> Path:
        """Write the settings to a file for a child process and return its path.

        Args:
            section: the first section of the child; each child has a file of its own.
        """
        path = self.scratch / f"settings-{section}.json"
        path.write_text(json.dumps(asdict(self), default=str))
        return path

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file written by `write`.

        Args:
            path: the file.
        """
        given: dict[str, Any] = json.loads(path.read_text())
        for name in ("out", "scratch", "data_root"):
            if given.get(name) is not None:
                given[name] = Path(given[name])
        return cls(**given)

    @property
    def cuda(self) -> bool:
        """Return whether the device is a GPU."""
        return self.device == "cuda"

    @property
    def patience(self) -> int:
        """Return the factor of time limits: small runs are for machines of any speed."""
        return 20 if self.smoke else 1

    def environment(self) -> dict[str, str]:
        """Return the environment of processes that run sections: the device, and the cache in the scratch folder."""
        return os.environ | {"FCNLAB_CACHE": str(self.scratch / "cache"), "FCNLAB_DEVICE": self.device}

    def log(self, name: str) -> Path:
        """Return the log file of a section; its folder is created.

        Args:
            name: name of the section.
        """
        folder = self.out / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{name}.txt"

    def keep(self, section: str, result: dict[str, Any]) -> None:
        """Save the measurements of a section so far, in case it is stopped or killed.

        Args:
            section: name of the section.
            result: JSON-able measurements.
        """
        write_json(self._kept(section), result)

    def kept(self, section: str) -> dict[str, Any]:
        """Return the saved measurements of a section; empty if there are none.

        Args:
            section: name of the section.
        """
        file = self._kept(section)
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}

    def _kept(self, section: str) -> Path:
        return self.scratch / f"result-{section}.json"
