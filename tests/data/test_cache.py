"""The cache of decoded samples: it is built once, completely or not at all, and its content is verified."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fcnlab.data.cache import build, format, maintenance
from fcnlab.data.cache.budget import RESERVE, CacheUnavailableError
from fcnlab.data.cache.build import open_or_build_cache, try_open_or_build_cache
from fcnlab.data.cache.format import MappedCache, compute_cache_key, decoded_cache_folder
from fcnlab.data.datasets import fingerprint
from fcnlab.data.datasets.camvid import CamVid
from fcnlab.data.datasets.shapes import Shapes
from fcnlab.errors import DataError
from fcnlab.settings import cache_folder
from tests.patience import patience

SIZES = ((6, 8), (5, 9), (1, 1), (7, 3))


@pytest.fixture(autouse=True)
def _logs_again() -> None:
    """Messages that a process logs once are logged once per test."""
    build.warn_once.cache_clear()


@pytest.fixture
def camvid(tmp_path: Path) -> CamVid:
    """Four images in train and two in val, of several sizes."""
    return make_camvid(tmp_path / "camvid")


def make_camvid(root: Path) -> CamVid:
    draw = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for folder in (root / split, root / f"{split}annot"):
            folder.mkdir(parents=True)
        for number, size in enumerate(SIZES[:count]):
            image, mask = draw.integers(0, 256, (*size, 3)), draw.integers(0, 12, size)
            Image.fromarray(image.astype(np.uint8)).save(root / split / f"{split}{number}.png")
            Image.fromarray(mask.astype(np.uint8)).save(root / f"{split}annot" / f"{split}{number}.png")
    return CamVid(root)


def pixels_of(found: MappedCache) -> list[tuple[bytes, bytes]]:
    """The bytes of each sample's image and label."""
    samples = []
    for offset, height, width, _ in found.index.places.tolist():
        size = height * width
        raw = found.pixels[offset : offset + 4 * size].tobytes()
        samples.append((raw[: 3 * size], raw[3 * size :]))
    return samples


def direct(dataset: Any, split: str) -> list[tuple[bytes, bytes]]:
    return [(sample.image.tobytes(), sample.label.tobytes()) for sample in dataset.split(split)]


def folder_of(dataset: Any, split: str = "train") -> Path:
    return decoded_cache_folder() / compute_cache_key(dataset, split)


def left() -> list[str]:
    """Return the names in the folder of the caches, except for locks."""
    return (
        sorted(path.name for path in decoded_cache_folder().iterdir() if path.suffix != ".lock")
        if decoded_cache_folder().is_dir()
        else []
    )


def test_cached_samples_equal_decoded_samples_and_are_decoded_once(camvid: CamVid) -> None:
    first = open_or_build_cache(camvid, "train")
    assert first.index.ids == camvid.split("train").ids
    assert (first.index.dataset, first.index.split) == ("camvid", "train")
    assert pixels_of(first) == direct(camvid, "train")
    moved: list[str] = []
    second = open_or_build_cache(camvid, "train", lambda what, count: moved.append(what) or (lambda: None))
    assert moved == [] and pixels_of(second) == direct(camvid, "train")


def test_progress_is_reported_for_every_sample(camvid: CamVid) -> None:
    events: list[Any] = []
    open_or_build_cache(camvid, "train", lambda what, count: events.append((what, count)) or (lambda: events.append(1)))
    assert events == [("camvid train", 4), 1, 1, 1, 1]


class Renumbered(CamVid):
    ignored_value = 12


def test_key_depends_only_on_what_determines_the_pixels(
    camvid: CamVid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = compute_cache_key(camvid, "train")
    elsewhere = CamVid(shutil.copytree(camvid.root, tmp_path / "elsewhere"))
    assert compute_cache_key(elsewhere, "train") == before
    (camvid.root / "val/val0.png").unlink()
    assert compute_cache_key(camvid, "train") == before, "another split has nothing to do with it"
    keys = {before, compute_cache_key(elsewhere, "val"), compute_cache_key(Renumbered(camvid.root), "train")}
    monkeypatch.setattr(Renumbered, "ignored_value", 13)
    keys.add(compute_cache_key(Renumbered(camvid.root), "train"))
    monkeypatch.setattr(format, "VERSION", format.VERSION + 1)
    keys.add(compute_cache_key(camvid, "train"))
    assert len(keys) == 5


def test_a_changed_file_gives_a_new_cache(camvid: CamVid) -> None:
    old = open_or_build_cache(camvid, "train")
    image = camvid.root / "train/train0.png"
    Image.fromarray(np.full((6, 8, 3), 77, dtype=np.uint8)).save(image)
    new = open_or_build_cache(camvid, "train")
    assert new.index.key != old.index.key
    assert pixels_of(new) == direct(camvid, "train") != pixels_of(old)
    assert left() == sorted((old.index.key, new.index.key))


# --- several processes -----------------------------------------------------------------------------------------------

SLOW = """
import sys, time, zlib
from fcnlab.data.cache import build
from fcnlab.data.datasets.shapes import Shapes

class Slow(Shapes):
    def split(self, name):
        split = super().split(name)
        original = type(split).__getitem__
        class Slowed(type(split)):
            def __getitem__(self, index):
                time.sleep(0.01)
                return original(self, index)
        split.__class__ = Slowed
        return split

dataset = Slow(train=24, val=1, test=1, height=16, width=16, seed=0)

def stop_at(owner, name):
    real = getattr(owner, name)
    def stopped(*arguments, **named):
        result = real(*arguments, **named)
        print("there", flush=True)
        sys.stdin.read()  # until killed
        return result
    setattr(owner, name, stopped)
"""
"""For processes of their own: a dataset that decodes slowly, and a way to wait at some point."""


def process(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SLOW + code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "FCNLAB_CACHE": str(cache_folder())},
    )


def test_one_of_several_processes_builds_the_cache() -> None:
    code = """
print("ready", flush=True)
sys.stdin.readline()
found = build.open_or_build_cache(dataset, "train")
print(found.index.key, zlib.crc32(found.pixels))
"""
    started = [process(code) for _ in range(4)]
    for one in started:
        assert one.stdout is not None and one.stdout.readline() == "ready\n"
    for one in started:
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()
    output = [one.communicate(timeout=patience()) for one in started]
    assert [one.returncode for one in started] == [0] * 4, output
    assert len({out for out, _ in output}) == 1
    assert sum("once (24 images)" in err for _, err in output) == 1
    assert left() == [output[0][0].split()[0]]


@pytest.mark.parametrize(
    "point",
    ["build, 'check_estimate'", "build, '_PixelFile'", "build, 'seal'", "build.os, 'fsync'"],
    ids=["locked", "started", "samples written", "all written"],
)
def test_killed_build_leaves_no_complete_cache_and_is_cleaned_up(point: str) -> None:
    killed = process(f"stop_at({point})\nbuild.open_or_build_cache(dataset, 'train')")
    assert killed.stdout is not None and killed.stdout.readline() == "there\n"
    states = [entry.state for entry in maintenance.list_caches()]
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=patience())
    started = "check_estimate" not in point
    assert states == ["being built"] * started
    assert [entry.state for entry in maintenance.list_caches()] == ["interrupted"] * started

    other = Shapes(train=3, val=1, test=1, height=8, width=8, seed=1)
    found = open_or_build_cache(other, "train")  # of another dataset: the next process cleans up
    assert left() == [found.index.key]
    assert pixels_of(found) == direct(other, "train")


def test_build_after_a_killed_build_gives_the_same_cache() -> None:
    killed = process("stop_at(build, 'seal')\nbuild.open_or_build_cache(dataset, 'train')")
    assert killed.stdout is not None and killed.stdout.readline() == "there\n"
    killed.kill()
    killed.communicate(timeout=patience())
    again = process("found = build.open_or_build_cache(dataset, 'train')\nprint(found.index.key)")
    out, err = again.communicate(timeout=patience())
    assert again.returncode == 0, err
    assert left() == [out.strip()]


# --- where there can be no cache -------------------------------------------------------------------------------------


def check_unavailable(dataset: Any, caplog: pytest.LogCaptureFixture, *parts: str) -> None:
    """Check that there is no cache, that one line states the reason, and that no file is left."""
    caplog.clear()
    assert try_open_or_build_cache(dataset, "train") is None
    output = [record.getMessage() for record in caplog.records if "when it is needed" in record.getMessage()]
    assert len(output) == 1 and "\n" not in output[0]
    for part in parts:
        assert part in output[0]
    assert left() == []


def test_uncreatable_folder_is_reported(
    camvid: CamVid, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("FCNLAB_CACHE", str(tmp_path / "file"))
    check_unavailable(camvid, caplog, "camvid train", str(tmp_path / "file"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder_is_reported(camvid: CamVid, caplog: pytest.LogCaptureFixture) -> None:
    cache_folder().chmod(0o555)
    check_unavailable(camvid, caplog, "Permission denied")


def test_cache_of_another_user_is_only_read(
    camvid: CamVid, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    another = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: another)
    check_unavailable(camvid, caplog, "belongs to another user")
    monkeypatch.undo()
    open_or_build_cache(camvid, "train")
    monkeypatch.setattr(os, "geteuid", lambda: another)
    found = try_open_or_build_cache(camvid, "train")
    assert found is not None and pixels_of(found) == direct(camvid, "train")
    assert try_open_or_build_cache(camvid, "val") is None


def test_cache_permissions_follow_the_umask(camvid: CamVid, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "KEPT_AFTER", 0.0)  # the digests of new files are not kept
    before = os.umask(0o022)
    try:
        folder = decoded_cache_folder() / open_or_build_cache(camvid, "train").index.key
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o755
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}
    assert {path.stat().st_mode & 0o044 for path in (cache_folder() / "digests").iterdir()} == {0o044}


def test_full_disk_is_reported(
    camvid: CamVid, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = os.pwrite, []

    def pwrite(*arguments: Any) -> int:
        calls.append(1)
        if len(calls) > 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments)

    monkeypatch.setattr(os, "pwrite", pwrite)
    check_unavailable(camvid, caplog, "No space left on device")


def test_short_writes_are_continued(camvid: CamVid, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: real(file, data[:7], offset))
    assert pixels_of(open_or_build_cache(camvid, "train")) == direct(camvid, "train")


def test_reserve_of_the_disk_remains_free(
    camvid: CamVid, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(cache_folder())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=RESERVE))
    check_unavailable(camvid, caplog, "is more than the 0.0 MB", "fcnlab data cache clear", "FCNLAB_CACHE_BUDGET")
    many = Shapes(train=20, val=1, test=1, height=16, width=16, seed=0)
    check_unavailable(many, caplog, "is more than the 0.0 MB")


def test_too_large_split_is_not_started(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FCNLAB_CACHE_BUDGET", str(2**-20))
    monkeypatch.setattr(build, "_write_samples", lambda *_: pytest.fail("started"))
    check_unavailable(Shapes(train=100, val=1, test=1, height=16, width=16, seed=0), caplog, "GiB")


def test_budget_limits_the_total_size(camvid: CamVid, monkeypatch: pytest.MonkeyPatch) -> None:
    size = (decoded_cache_folder() / open_or_build_cache(camvid, "train").index.key / format.PIXELS).stat().st_size
    monkeypatch.setenv("FCNLAB_CACHE_BUDGET", str((size + 100) / 2**30))
    with pytest.raises(CacheUnavailableError, match="more than"):
        open_or_build_cache(camvid, "val")
    monkeypatch.setenv("FCNLAB_CACHE_BUDGET", str((size + 4096) / 2**30))
    assert pixels_of(open_or_build_cache(camvid, "val")) == direct(camvid, "val")
    monkeypatch.setenv("FCNLAB_CACHE_BUDGET", "0")
    assert pixels_of(open_or_build_cache(camvid, "val")) == direct(camvid, "val"), (
        "what is there is used whatever the budget"
    )


@pytest.mark.parametrize("output", ["much", "-1", "nan", "inf"])
def test_invalid_budget_is_an_error(camvid: CamVid, output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FCNLAB_CACHE_BUDGET", output)
    with pytest.raises(DataError, match=f"FCNLAB_CACHE_BUDGET={output}: not a number of GiB"):
        try_open_or_build_cache(camvid, "train")


def test_too_little_memory_for_the_map_is_reported(
    camvid: CamVid, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_or_build_cache(camvid, "train")

    def memmap(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(np, "memmap", memmap)
    assert try_open_or_build_cache(camvid, "train") is None
    assert "Cannot allocate memory" in caplog.text
    assert left() == [compute_cache_key(camvid, "train")], "the cache is sound and stays"


def test_invalid_file_gives_the_same_error_as_without_a_cache(camvid: CamVid) -> None:
    (camvid.root / "train/train2.png").write_bytes(b"no image")
    with pytest.raises(DataError) as expected:
        camvid.split("train")[2]
    with pytest.raises(DataError) as found:
        try_open_or_build_cache(camvid, "train")
    assert str(found.value) == str(expected.value)
    assert left() == []


def test_files_changed_during_decoding_are_not_cached(camvid: CamVid, caplog: pytest.LogCaptureFixture) -> None:
    def change() -> None:
        with (camvid.root / "train/train0.png").open("ab") as file:
            file.write(b"more")

    with pytest.raises(CacheUnavailableError, match="changed while"):
        open_or_build_cache(camvid, "train", lambda what, count: change)
    assert left() == []


# --- files in the folder are not trusted -----------------------------------------------------------------------------


def sealed(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change an index and seal it again, as a malicious user would."""
    output = json.loads((folder / format.INDEX).read_text())
    change(output)
    raw = json.dumps(output).encode()
    (folder / format.INDEX).write_bytes(raw)
    pixels = (folder / format.PIXELS).read_bytes()
    (folder / format.PIXELS).write_bytes(pixels[: -format.SEAL] + hashlib.sha256(raw).digest())


def _of(folder: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    (folder / name).write_bytes(change((folder / name).read_bytes()))


HARM: dict[str, Callable[[Path], object]] = {
    "truncated pixels": lambda f: _of(f, format.PIXELS, lambda raw: raw[:-40]),
    "pixels that go on": lambda f: _of(f, format.PIXELS, lambda raw: raw + bytes(40)),
    "no pixels": lambda f: (f / format.PIXELS).unlink(),
    "empty pixels": lambda f: (f / format.PIXELS).write_bytes(b""),
    "no seal": lambda f: _of(f, format.PIXELS, lambda raw: raw[:-32] + bytes(32)),
    "torn index": lambda f: _of(f, format.INDEX, lambda raw: raw[: len(raw) // 2]),
    "no index": lambda f: (f / format.INDEX).unlink(),
    "empty index": lambda f: (f / format.INDEX).write_bytes(b""),
    "an index that is a list": lambda f: (f / format.INDEX).write_bytes(b"[]"),
    "an index of bytes": lambda f: (f / format.INDEX).write_bytes(b"\xff\xfe"),
    "a key that is not the folder's": lambda f: sealed(f, lambda output: output.update(key="0" * 32)),
    "a key that is a number": lambda f: sealed(f, lambda output: output.update(key=3)),
    "other ids": lambda f: sealed(f, lambda output: output["ids"].reverse()),
    "fewer ids": lambda f: sealed(f, lambda output: output["ids"].pop()),
    "a word too many": lambda f: sealed(f, lambda output: output.update(more=1)),
    "an offset below zero": lambda f: sealed(f, lambda output: output["places"][0].__setitem__(0, -64)),
    "an offset beyond the end": lambda f: sealed(f, lambda output: output["places"][0].__setitem__(0, 2**40)),
    "a height that overflows": lambda f: sealed(f, lambda output: output["places"][0].__setitem__(1, 2**62)),
    "a height beyond all integers": lambda f: sealed(f, lambda output: output["places"][0].__setitem__(1, 2**70)),
    "a height of zero": lambda f: sealed(f, lambda output: output["places"][0].__setitem__(1, 0)),
    "places that are text": lambda f: sealed(f, lambda output: output.update(places=[["a"] * 4] * 4)),
}


@pytest.mark.parametrize("harm", HARM)
def test_damaged_or_foreign_cache_is_rebuilt(camvid: CamVid, harm: str) -> None:
    folder = decoded_cache_folder() / open_or_build_cache(camvid, "train").index.key
    HARM[harm](folder)
    assert pixels_of(open_or_build_cache(camvid, "train")) == direct(camvid, "train")
    assert [entry.state for entry in maintenance.list_caches()] == ["complete"]


def test_index_of_another_cache_is_detected(camvid: CamVid, tmp_path: Path) -> None:
    folder = decoded_cache_folder() / open_or_build_cache(camvid, "train").index.key
    other = make_camvid(tmp_path / "other")
    Image.fromarray(np.zeros((6, 8, 3), dtype=np.uint8)).save(other.root / "train/train0.png")
    foreign = decoded_cache_folder() / open_or_build_cache(other, "train").index.key
    shutil.copy(foreign / format.INDEX, folder / format.INDEX)
    assert any(entry.state.startswith("broken: its index is that of") for entry in maintenance.list_caches())
    assert pixels_of(open_or_build_cache(camvid, "train")) == direct(camvid, "train")
    _of(foreign, format.INDEX, lambda raw: raw.replace(b'"made":"2', b'"made":"1'))  # of one key; only the seal differs
    assert any(entry.state == "broken: its index is not that of its pixels" for entry in maintenance.list_caches())
    assert pixels_of(open_or_build_cache(other, "train")) == direct(other, "train")


# --- upkeep ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sample", range(4))
@pytest.mark.parametrize("place", ["first", "last"])
def test_verification_names_the_damaged_sample(camvid: CamVid, sample: int, place: str) -> None:
    found = open_or_build_cache(camvid, "train")
    (entry,) = maintenance.list_caches()
    assert list(maintenance.find_problems(entry)) == []
    offset = int(found.index.places[sample, 0]) + (0 if place == "first" else int(found.index.sizes[sample]) - 1)
    with (entry.folder / format.PIXELS).open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))
    (problem,) = maintenance.find_problems(entry)
    assert f"'train{sample}'" in problem and entry.key in problem


def test_removed_cache_stays_mapped(camvid: CamVid) -> None:
    found = open_or_build_cache(camvid, "train")
    (entry,) = maintenance.list_caches()
    assert maintenance.remove_cache(entry)
    assert left() == []
    assert pixels_of(found) == direct(camvid, "train")
    assert pixels_of(open_or_build_cache(camvid, "train")) == direct(camvid, "train")


def test_cache_that_is_being_built_is_not_removed() -> None:
    maker = process("stop_at(build, 'seal')\nbuild.open_or_build_cache(dataset, 'train')")
    assert maker.stdout is not None and maker.stdout.readline() == "there\n"
    (entry,) = maintenance.list_caches()
    assert not maintenance.remove_cache(entry)
    assert left() == [f"{entry.key}.partial"]
    maker.kill()
    maker.communicate(timeout=patience())
    assert maintenance.remove_cache(entry)
    assert left() == []


def test_unused_caches_are_found_by_last_use(camvid: CamVid) -> None:
    old, new = open_or_build_cache(camvid, "train").index.key, open_or_build_cache(camvid, "val").index.key
    os.utime(decoded_cache_folder() / old / format.INDEX, (0, 0))
    assert [entry.key for entry in maintenance.find_unused_caches(timedelta(days=30))] == [old]
    assert [entry.key for entry in maintenance.list_caches()] == [new, old]
    open_or_build_cache(camvid, "train")
    assert maintenance.find_unused_caches(timedelta(days=30)) == [], "it was used"


def test_other_files_are_neither_listed_nor_removed(camvid: CamVid) -> None:
    for name in ("holidays", "download.partial", "f" * 31):
        (decoded_cache_folder() / name).mkdir(parents=True)
        (decoded_cache_folder() / name / "photo.jpg").write_bytes(b"mine")
    key = open_or_build_cache(camvid, "train").index.key
    assert [entry.key for entry in maintenance.list_caches()] == [key]
    assert len(list(decoded_cache_folder().rglob("photo.jpg"))) == 3
