"""Images for the sections: CamVid if the data root contains it, else generated scenes."""

from __future__ import annotations

from benchmarks.gpu.sections.settings import AcceptSettings
from fcnlab.data.datasets.base import Dataset, Sample, Split
from fcnlab.data.datasets.shapes import Shapes


def camvid(settings: AcceptSettings) -> Dataset | None:
    """Return CamVid; None if the data root does not contain it.

    Args:
        settings: settings of the run.
    """
    if settings.data_root is None or not (settings.data_root / "camvid" / "train").is_dir():
        return None
    from fcnlab.config.dataset import Dataset as Config
    from fcnlab.config.registry import builtin

    config = builtin().get("dataset", "camvid")
    assert isinstance(config, Config)
    return settings.lab("images").open_dataset(config)


def scenes(count: int, height: int, width: int, seed: int = 0) -> Split:
    """Return generated scenes.

    Args:
        count: number of scenes.
        height: height of an image.
        width: width of an image.
        seed: seed of the scenes.
    """
    return Shapes(train=count, val=1, test=1, height=height, width=width, seed=seed).split("train")


class JoinedSplit(Split):
    """The first samples of several splits, alternating between the splits."""

    def __init__(self, splits: list[Split], count: int) -> None:
        self._samples = [(split, index) for index in range(count) for split in splits]
        self.ids = tuple(f"{number}" for number in range(len(self._samples)))

    def __getitem__(self, index: int) -> Sample:
        split, of_split = self._samples[index]
        return split[of_split]


def various(settings: AcceptSettings) -> Split:
    """Return images of several sizes: larger and smaller than a crop, also along one side only.

    Args:
        settings: settings of the run.
    """
    sizes = [(48, 64), (96, 40)] if settings.smoke else [(360, 480), (500, 375), (200, 300), (333, 500)]
    return JoinedSplit([scenes(8, *size) for size in sizes], 8 // len(sizes))


def of_one_size(settings: AcceptSettings, count: int) -> tuple[Split, str]:
    """Return images of one size and their name.

    Args:
        settings: settings of the run.
        count: number of images.
    """
    found = camvid(settings)
    if found is not None:
        return JoinedSplit([found.split("train")], count), "CamVid"
    size = (72, 96) if settings.smoke else (360, 480)
    return JoinedSplit([scenes(count, *size)], count), "generated"
