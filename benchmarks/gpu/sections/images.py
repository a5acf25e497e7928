"""Images for the sections: CamVid below the data root where it is there, else generated scenes."""

from __future__ import annotations

from benchmarks.gpu.sections.settings import Settings
from fcnlab.data.datasets.base import Dataset, Sample, Split
from fcnlab.data.datasets.shapes import Shapes


def camvid(settings: Settings) -> Dataset | None:
    """Return CamVid; None where the data root does not hold it."""
    if settings.data_root is None or not (settings.data_root / "camvid" / "train").is_dir():
        return None
    from fcnlab.config.dataset import Dataset as Config
    from fcnlab.config.registry import builtin

    config = builtin().get("dataset", "camvid")
    assert isinstance(config, Config)
    return settings.lab("images").open_dataset(config)


def scenes(count: int, height: int, width: int, seed: int = 0) -> Split:
    """Return generated scenes."""
    return Shapes(train=count, val=1, test=1, height=height, width=width, seed=seed).split("train")


class Together(Split):
    """Samples of several splits, the first `count` of each, in turn."""

    def __init__(self, splits: list[Split], count: int) -> None:
        self._samples = [(split, index) for index in range(count) for split in splits]
        self.ids = tuple(f"{number}" for number in range(len(self._samples)))

    def __getitem__(self, index: int) -> Sample:
        split, of_split = self._samples[index]
        return split[of_split]


def various(settings: Settings) -> Split:
    """Return images of several sizes: larger and smaller than a crop, also along one side only."""
    sizes = [(48, 64), (96, 40)] if settings.smoke else [(360, 480), (500, 375), (200, 300), (333, 500)]
    return Together([scenes(8, *size) for size in sizes], 8 // len(sizes))


def of_one_size(settings: Settings, count: int) -> tuple[Split, str]:
    """Return images of one size and what they are."""
    found = camvid(settings)
    if found is not None:
        return Together([found.split("train")], count), "CamVid"
    size = (72, 96) if settings.smoke else (360, 480)
    return Together([scenes(count, *size)], count), "generated"
