"""Downloads of datasets: servers that fail, and malicious archives."""

from __future__ import annotations

import hashlib
import io
import json
import re
import resource
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fcnlab.data.download import client
from fcnlab.data.download.archive import unpack
from fcnlab.data.download.client import Unreachable, download, part_path
from fcnlab.data.download.fetch import ARCHIVES, RECORD, fetch_dataset, origin_path
from fcnlab.data.download.sources import SOURCES, Archive, Source
from fcnlab.errors import DataError
from tests.patience import patience

RETRIES = 3


@pytest.fixture(autouse=True)
def retries_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PAUSES", (0.0,) * RETRIES)


# --- a server --------------------------------------------------------------------------------------------------------


@dataclass
class Site:
    """The files of a server and its errors."""

    files: dict[str, bytes]
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    ranges: bool = True
    length: bool = True
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""


def handler(site: Site) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Print nothing."""

        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            site.asked.append((self.path, asked))
            if site.statuses:
                return self.send_error(site.statuses.pop(0))
            content = site.files.get(self.path)
            if content is None:
                return self.send_error(404)
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and site.ranges else 0
            if start and start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            if site.length:
                self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            cut = site.cuts.pop(0) if site.cuts else len(content)
            self.wfile.write(content[start:][:cut])
            return None

    return Handler


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    site = Site({})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler(site)) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        site.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield site
        server.shutdown()
        thread.join()


class Quiet:
    """Record messages and progress."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.moves: list[tuple[str, int, int | None]] = []

    def log(self, line: str) -> None:
        self.lines.append(line)

    def update(self, label: str, done: int, total: int | None) -> None:
        self.moves.append((label, done, total))


CONTENT = bytes(range(256)) * 4096
"""1 MiB."""


def bring(site: Site, target: Path, path: str = "/a", **given: object) -> bytes:
    options = {"limit": 2**30, "has_checksum": False} | given
    download((site.url + path,), target, **options)
    assert not target.exists()  # naming it whole is left to who verifies it
    return part_path(target).read_bytes()


# --- downloads -------------------------------------------------------------------------------------------------------


def test_download_returns_the_complete_file(site: Site, tmp_path: Path) -> None:
    site.files["/a"] = CONTENT
    assert bring(site, tmp_path / "a") == CONTENT
    assert site.asked == [("/a", None)]


def test_closed_connection_is_resumed(site: Site, tmp_path: Path) -> None:
    site.files["/a"] = CONTENT
    site.cuts = [300_000, 300_000]
    assert bring(site, tmp_path / "a", has_checksum=True) == CONTENT
    assert site.asked == [("/a", None), ("/a", "bytes=300000-"), ("/a", "bytes=600000-")]


def test_server_without_ranges_restarts_the_download(site: Site, tmp_path: Path) -> None:
    site.files["/a"] = CONTENT
    site.cuts, site.ranges = [300_000], False
    assert bring(site, tmp_path / "a", has_checksum=True) == CONTENT


def test_without_checksum_the_download_restarts(site: Site, tmp_path: Path) -> None:
    site.files["/a"] = CONTENT
    site.cuts = [300_000]
    assert bring(site, tmp_path / "a") == CONTENT
    assert site.asked == [("/a", None), ("/a", None)]


def test_complete_part_is_not_downloaded_again(site: Site, tmp_path: Path) -> None:
    site.files["/a"] = CONTENT
    bring(site, tmp_path / "a")
    site.asked.clear()
    assert bring(site, tmp_path / "a", has_checksum=True) == CONTENT  # the server reports that there is no more
    assert bring(site, tmp_path / "a", has_checksum=True, size=len(CONTENT)) == CONTENT  # no request is sent
    assert site.asked == [("/a", f"bytes={len(CONTENT)}-")]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_temporary_errors_are_retried(site: Site, tmp_path: Path, status: int) -> None:
    site.files["/a"] = CONTENT
    site.statuses = [status] * RETRIES
    assert bring(site, tmp_path / "a") == CONTENT


def test_persistent_errors_end_after_the_last_retry(site: Site, tmp_path: Path) -> None:
    site.statuses = [503] * 20
    with pytest.raises(Unreachable, match=r"HTTP 503 Service Unavailable \(tried 4 times\)"):
        bring(site, tmp_path / "a")
    assert len(site.asked) == 4


def test_pauses_grow_and_restart_when_data_arrive(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("fcnlab.data.download.client.time.sleep", slept.append)
    monkeypatch.setattr(client, "PAUSES", (1.0, 2.0, 4.0))
    site.files["/a"] = CONTENT
    site.cuts = [0, 0, 1000, 0, 0]
    assert bring(site, tmp_path / "a") == CONTENT
    assert slept == [1, 2, 1, 1, 2]


def test_missing_file_is_not_retried(site: Site, tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="HTTP 404"):
        bring(site, tmp_path / "a")
    assert len(site.asked) == 1


def test_second_address_is_used_if_the_first_fails(site: Site, tmp_path: Path) -> None:
    site.files["/b"] = CONTENT
    urls = ("http://nowhere.invalid/a", f"{site.url}/a", f"{site.url}/b")
    used = download(urls, tmp_path / "a", limit=2**30, has_checksum=True)
    assert used == f"{site.url}/b" and part_path(tmp_path / "a").read_bytes() == CONTENT


def test_unknown_host_is_not_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("fcnlab.data.download.client.time.sleep", slept.append)
    with pytest.raises(Unreachable, match=r"nowhere\.invalid"):
        download(("http://nowhere.invalid/a",), tmp_path / "a", limit=1, has_checksum=True)
    assert slept == []


def test_unexpected_size_is_rejected_before_the_transfer(site: Site, tmp_path: Path) -> None:
    site.files["/a"] = CONTENT
    with pytest.raises(Unreachable, match="the file has 1,048,576 bytes instead of 5"):
        bring(site, tmp_path / "a", size=5)
    assert not part_path(tmp_path / "a").exists()


def test_endless_stream_is_stopped_at_the_limit(site: Site, tmp_path: Path) -> None:
    site.files["/a"], site.length = CONTENT, False
    with pytest.raises(Unreachable, match="received more than 1,000 bytes"):
        bring(site, tmp_path / "a", limit=1000)


def test_a_write_that_stores_only_a_part_of_its_bytes_is_an_error(site: Site, tmp_path: Path) -> None:
    site.files["/a"] = CONTENT
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(CONTENT) - 1000, before[1]))  # as a disk that becomes full
    try:
        with pytest.raises(OSError, match="File too large"):
            bring(site, tmp_path / "a")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(1, 40_000), max_size=6), ranges=st.booleans(), checked=st.booleans())
def test_repeatedly_closed_connections_give_the_exact_bytes(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], ranges: bool, checked: bool
) -> None:
    site = Site({"/a": CONTENT[:50_000]}, cuts=list(cuts), ranges=ranges)
    with pytest.MonkeyPatch.context() as patch, ThreadingHTTPServer(("127.0.0.1", 0), handler(site)) as server:
        patch.setenv("no_proxy", "127.0.0.1")
        patch.setattr(client, "PAUSES", (0.0,) * 8)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.005})
        thread.start()
        site.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            target = tmp_path_factory.mktemp("cut") / "a"
            assert bring(site, target, has_checksum=checked) == CONTENT[:50_000]
        finally:
            server.shutdown()
            thread.join()


# --- archives --------------------------------------------------------------------------------------------------------

Entry = tuple[str, bytes] | tarfile.TarInfo


def tar_of(*entries: Entry, mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                tar.addfile(entry)
            else:
                info = tarfile.TarInfo(entry[0])
                info.size = len(entry[1])
                tar.addfile(info, io.BytesIO(entry[1]))
    return buffer.getvalue()


def zip_of(*entries: tuple[str, bytes], mode: int = 0) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        for name, content in entries:
            info = zipfile.ZipInfo(name)
            info.filename = name  # as it is: ZipInfo would tidy it
            info.external_attr = mode << 16
            zipped.writestr(info, content)
    return buffer.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


GOOD = (("set/a/1.png", b"one"), ("set/2.png", b"two"), ("other/3.png", b"three"))


@pytest.mark.parametrize(
    "content", [tar_of(*GOOD), tar_of(*GOOD, mode="w:gz"), tar_of(*GOOD, mode="w:xz"), zip_of(*GOOD)],
    ids=["tar", "tgz", "txz", "zip"],
)  # fmt: skip
def test_only_the_requested_folder_is_unpacked(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content)
    moved: list[int] = []
    assert unpack(tmp_path / "x", "set", tmp_path / "out", limit=100, progress=moved.append) == 6 == moved[-1]
    assert tree(tmp_path / "out") == {"a/1.png": b"one", "2.png": b"two"}


ESCAPES = {
    "upwards": "../evil",
    "upwards from within": "set/../../evil",
    "absolute": "/tmp/fcnlab-evil",
    "a drive": "C:/evil",
    "backslashes": "set\\..\\evil",
}


@pytest.mark.parametrize("make", [tar_of, zip_of], ids=["tar", "zip"])
@pytest.mark.parametrize("name", ESCAPES.values(), ids=ESCAPES)
def test_names_that_lead_outside_are_rejected_before_writing(
    make: Callable[..., bytes], name: str, tmp_path: Path
) -> None:
    (tmp_path / "x").write_bytes(make(*GOOD, (name, b"evil")))
    with pytest.raises(DataError, match=r"x: the name '.*' leads outside; the archive is not unpacked"):
        unpack(tmp_path / "x", "set", tmp_path / "in" / "out", limit=10**6)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["x"]


SPECIAL = {
    "a symlink upwards": special("set/l", tarfile.SYMTYPE, "../../evil"),
    "an absolute symlink": special("set/l", tarfile.SYMTYPE, "/etc/passwd"),
    "a symlink to a folder": special("set/l", tarfile.SYMTYPE, "a"),
    "a symlink to itself": special("set/l", tarfile.SYMTYPE, "l"),
    "a hard link upwards": special("set/l", tarfile.LNKTYPE, "../evil"),
    "an absolute hard link": special("set/l", tarfile.LNKTYPE, "/etc/passwd"),
    "a hard link to nothing": special("set/l", tarfile.LNKTYPE, "set/none"),
    "a character device": special("set/l", tarfile.CHRTYPE),
    "a block device": special("set/l", tarfile.BLKTYPE),
    "a pipe": special("set/l", tarfile.FIFOTYPE),
}


@pytest.mark.parametrize("entry", SPECIAL.values(), ids=SPECIAL)
def test_links_and_devices_are_left_out(entry: tarfile.TarInfo, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(tar_of(entry, *GOOD))
    unpack(tmp_path / "x", "set", tmp_path / "out", limit=10**6)
    assert tree(tmp_path / "out") == {"a/1.png": b"one", "2.png": b"two"}
    assert not list((tmp_path / "out").rglob("l"))


def test_files_are_never_written_through_links(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    link = special("set/l", tarfile.SYMTYPE, str(tmp_path / "outside"))
    (tmp_path / "x").write_bytes(tar_of(link, ("set/l/file", b"content")))
    unpack(tmp_path / "x", "set", tmp_path / "out", limit=10**6)
    assert tree(tmp_path / "out") == {"l/file": b"content"} and not list((tmp_path / "outside").iterdir())


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices_in_zip_files_are_left_out(kind: int, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(zip_of(("set/l", b"/etc/passwd"), mode=kind | 0o777))
    with pytest.raises(DataError, match="contains no files in set/"):
        unpack(tmp_path / "x", "set", tmp_path / "out", limit=10**6)


@pytest.mark.parametrize("stated", [1, 10**5])
def test_no_more_bytes_are_unpacked_than_the_header_states(tmp_path: Path, stated: int) -> None:
    content = bytearray(zip_of(("set/a", bytes(10**6))))
    size_at = content.index(b"PK\x01\x02") + 24  # in the central directory, which zipfile reads
    content[size_at : size_at + 4] = stated.to_bytes(4, "little")
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack(tmp_path / "x", "set", tmp_path / "out", limit=stated)
    assert (tmp_path / "out/a").stat().st_size <= stated


def test_permissions_of_the_archive_are_ignored(tmp_path: Path) -> None:
    info = tarfile.TarInfo("set/tool")
    info.mode = 0o6777
    (tmp_path / "x").write_bytes(tar_of(info))
    unpack(tmp_path / "x", "set", tmp_path / "out", limit=10)
    assert (tmp_path / "out/tool").stat().st_mode & 0o7111 == 0


@pytest.mark.parametrize("make", [lambda *e: tar_of(*e, mode="w:gz"), zip_of], ids=["tgz", "zip"])
def test_archive_larger_than_the_limit_is_rejected(make: Callable[..., bytes], tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(make(("set/big", bytes(10**6))))
    with pytest.raises(DataError, match="would unpack to more than 999,999 bytes"):
        unpack(tmp_path / "x", "set", tmp_path / "out", limit=10**6 - 1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("make", [tar_of, zip_of], ids=["tar", "zip"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicate_names_are_rejected(make: Callable[..., bytes], tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(make(("set/a", b"one"), ("set/./a", b"two")))
    with pytest.raises(DataError, match="set/a occurs twice"):
        unpack(tmp_path / "x", "set", tmp_path / "out", limit=100)


@pytest.mark.parametrize("content", [b"", b"no archive", tar_of(*GOOD)[:700], zip_of(*GOOD)[:-30], b"PK\x03\x04"])
def test_invalid_archive_error_names_the_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(DataError, match=r"x: (cannot be unpacked|contains no files)"):
        unpack(tmp_path / "x", "other", tmp_path / "out", limit=10**6)


def test_a_damaged_zip_file_is_an_error(tmp_path: Path) -> None:
    content = zip_of(("set/a", b"A" * 1000))
    (tmp_path / "x").write_bytes(content.replace(b"A" * 1000, b"B" * 1000))
    with pytest.raises(DataError, match="cannot be unpacked: Bad CRC-32"):
        unpack(tmp_path / "x", "set", tmp_path / "out", limit=10**6)


@settings(max_examples=60, deadline=None)
@given(
    parts=st.lists(st.sampled_from(["..", ".", "a", "b", "", "~", "set", "\\", "c:"]), min_size=1, max_size=6),
    kind=st.sampled_from([tar_of, zip_of]),
)
def test_no_member_name_writes_outside(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str], kind: Callable[..., bytes]
) -> None:
    assume(kind is tar_of or "/".join(parts))  # zipfile writes no empty name
    folder = tmp_path_factory.mktemp("names")
    (folder / "x").write_bytes(kind(("/".join(parts), b"evil")))
    try:
        unpack(folder / "x", "", folder / "in" / "out", limit=100)
    except DataError as error:
        assert str(folder / "x") in str(error)  # noqa: PT017 - either outcome is right, another exception is not
    assert set(tree(folder)) - {"x"} == {str(p) for p in map(Path, tree(folder)) if p.parts[:2] == ("in", "out")}


# --- fetching --------------------------------------------------------------------------------------------------------

FILES = (("top/train/1.png", b"one"), ("top/train/2.png", b"two"), ("top/val/3.png", b"three"))
WHOLE = zip_of(*FILES)


def source_at(site: Site, content: bytes = WHOLE, **changed: object) -> Source:
    site.files["/set.zip"] = content
    archive = Archive("set.zip", (f"{site.url}/set.zip",), "top", checksum=f"md5:{hashlib.md5(WHOLE).hexdigest()}")
    given = {k: changed.pop(k) for k in ("bytes", "checksum", "urls") if k in changed}
    source = Source("set", (replace(archive, **given),), {"train/*.png": 2, "val/*.png": 1}, 10**6, "terms", "page")
    return replace(source, **changed)


def fetched(source: Source, root: Path, **given: object) -> tuple[Path, Quiet]:
    watch = Quiet()
    return fetch_dataset("mine", source, root, watch, **given), watch


def test_fetched_dataset_has_a_record_and_no_archive(site: Site, tmp_path: Path) -> None:
    place, _ = fetched(source_at(site), tmp_path)
    assert place == tmp_path / "set"
    record = json.loads((place / RECORD).read_text())
    assert tree(place).keys() - {RECORD} == {"train/1.png", "train/2.png", "val/3.png"}
    (archive,) = record["archives"]
    assert archive["sha256"] == hashlib.sha256(WHOLE).hexdigest()
    assert archive["url"] == f"{site.url}/set.zip" and archive["verified"].startswith("md5:")
    assert record["terms"] == "terms" and record["files"] == {"train/*.png": 2, "val/*.png": 1}
    assert not [p for p in (tmp_path / ARCHIVES).iterdir() if not p.name.endswith(".lock")]


def test_folder_of_the_registry_entry_is_used(site: Site, tmp_path: Path) -> None:
    place, _ = fetched(source_at(site), tmp_path, folder="deep/elsewhere")
    assert place == tmp_path / "deep/elsewhere" and (place / "val/3.png").read_bytes() == b"three"


def test_kept_archives_are_reused(site: Site, tmp_path: Path) -> None:
    source = source_at(site)
    place, _ = fetched(source, tmp_path, keep_archives=True)
    assert (tmp_path / ARCHIVES / "set.zip").read_bytes() == WHOLE
    place.rename(tmp_path / "away")
    site.asked.clear()
    _, watch = fetched(source, tmp_path, keep_archives=True)
    assert site.asked == [] and any("found in" in line for line in watch.lines)


def test_complete_dataset_is_not_downloaded_again(site: Site, tmp_path: Path) -> None:
    source = source_at(site)
    fetched(source, tmp_path)
    site.asked.clear()
    _, watch = fetched(source, tmp_path)
    assert site.asked == [] and watch.lines == [f"{tmp_path / 'set'}: is already complete"]


def test_other_content_in_the_target_folder_is_never_changed(site: Site, tmp_path: Path) -> None:
    (tmp_path / "set/train").mkdir(parents=True)
    (tmp_path / "set/train/mine.png").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"set: already exists but differs from mine \(1 instead of 2 train/"):
        fetched(source_at(site), tmp_path)
    assert tree(tmp_path / "set") == {"train/mine.png": b"mine"} and site.asked == []


def test_wrong_checksum_removes_the_download(site: Site, tmp_path: Path) -> None:
    source = source_at(site, content=WHOLE[:-1] + b"x")
    expected, found = (hashlib.md5(c).hexdigest() for c in (WHOLE, WHOLE[:-1] + b"x"))
    with pytest.raises(
        DataError, match=rf"its md5 is {found} instead of {expected} .*it was removed; run the command again"
    ):
        fetched(source, tmp_path)
    assert not tree(tmp_path / ARCHIVES).keys() - {".mine.lock"} and not (tmp_path / "set").exists()
    fetched(source_at(site), tmp_path)


def test_without_published_checksum_sha256_is_recorded(site: Site, tmp_path: Path) -> None:
    place, watch = fetched(source_at(site, checksum=None), tmp_path)
    digest = hashlib.sha256(WHOLE).hexdigest()
    assert f"set.zip: no published checksum; recorded: sha256 {digest}" in watch.lines
    (archive,) = json.loads((place / RECORD).read_text())["archives"]
    assert archive["sha256"] == digest and "no published checksum" in archive["verified"]


def test_incomplete_archive_is_not_installed(site: Site, tmp_path: Path) -> None:
    source = source_at(site, counts={"train/*.png": 3, "val/*.png": 1})
    with pytest.raises(DataError, match="not contain the complete dataset: 2 instead of 3 train/"):
        fetched(source, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [ARCHIVES]


def test_malicious_archive_installs_nothing(site: Site, tmp_path: Path) -> None:
    hostile = zip_of(*FILES, ("../evil", b"evil"))
    source = source_at(site, content=hostile, checksum=None)
    with pytest.raises(DataError, match="leads outside"):
        fetched(source, tmp_path / "root")
    assert [p.name for p in (tmp_path / "root").iterdir()] == [ARCHIVES]
    assert [p.name for p in tmp_path.iterdir()] == ["root"]


def test_unreachable_host_message_lists_files_and_target_folder(site: Site, tmp_path: Path) -> None:
    source = source_at(site, urls=("http://nowhere.invalid/set.zip",), bytes=len(WHOLE))
    with pytest.raises(DataError) as caught:
        fetched(source, tmp_path)
    output = str(caught.value)
    assert "\n" not in output
    for part in (
        "mine: http://nowhere.invalid/set.zip: ",
        f"Download by hand: set.zip ({len(WHOLE)} bytes, md5:{hashlib.md5(WHOLE).hexdigest()})",
        "from http://nowhere.invalid/set.zip",
        f"Put the files into {tmp_path / ARCHIVES}/ and run the command again",
    ):
        assert part in output


def test_manually_downloaded_archive_is_verified_unpacked_and_kept(site: Site, tmp_path: Path) -> None:
    source = source_at(site, urls=("http://nowhere.invalid/set.zip",))
    (tmp_path / ARCHIVES).mkdir()
    (tmp_path / ARCHIVES / "set.zip").write_bytes(WHOLE)
    place, _ = fetched(source, tmp_path)
    assert (place / "val/3.png").is_file() and (tmp_path / ARCHIVES / "set.zip").read_bytes() == WHOLE


def test_wrong_manually_downloaded_archive_is_rejected_and_kept(site: Site, tmp_path: Path) -> None:
    (tmp_path / ARCHIVES).mkdir()
    (tmp_path / ARCHIVES / "set.zip").write_bytes(b"mine")
    with pytest.raises(DataError, match="replace it"):
        fetched(source_at(site), tmp_path)
    assert (tmp_path / ARCHIVES / "set.zip").read_bytes() == b"mine"


def test_all_archives_that_need_a_login_are_listed(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        fetch_dataset("cityscapes", SOURCES["cityscapes"], tmp_path, Quiet())
    output = str(caught.value)
    assert "\n" not in output and "https://www.cityscapes-dataset.com/downloads/" in output
    assert "leftImg8bit_trainvaltest.zip" in output and "gtFine_trainvaltest.zip" in output


def test_two_archives_become_one_folder(tmp_path: Path) -> None:
    (tmp_path / ARCHIVES).mkdir()
    images = zip_of(("leftImg8bit/train/x/1.png", b"i"), ("license.txt", b"terms"))
    masks = zip_of(("gtFine/train/x/1_labelIds.png", b"m"), ("license.txt", b"terms"))
    (tmp_path / ARCHIVES / "leftImg8bit_trainvaltest.zip").write_bytes(images)
    (tmp_path / ARCHIVES / "gtFine_trainvaltest.zip").write_bytes(masks)
    source = replace(SOURCES["cityscapes"], counts={"leftImg8bit/train/*/*.png": 1, "gtFine/train/*/*.png": 1})
    place = fetch_dataset("cityscapes", source, tmp_path, Quiet())
    assert tree(place).keys() - {RECORD} == {"leftImg8bit/train/x/1.png", "gtFine/train/x/1_labelIds.png"}


def test_leftovers_of_an_interrupted_fetch_are_replaced(site: Site, tmp_path: Path) -> None:
    (tmp_path / ".set.unpacking/train").mkdir(parents=True)
    (tmp_path / ".set.unpacking/train/1.png").write_bytes(b"half")
    place, _ = fetched(source_at(site), tmp_path)
    assert (place / "train/1.png").read_bytes() == b"one" and not (tmp_path / ".set.unpacking").exists()


def test_concurrent_fetch_is_rejected(site: Site, tmp_path: Path) -> None:
    class Nested(Quiet):
        def log(self, line: str) -> None:
            if not self.lines:
                self.lines.append(line)
                with pytest.raises(DataError, match="another download of mine is running"):
                    fetched(source_at(site), tmp_path)

    fetch_dataset("mine", source_at(site, checksum=None), tmp_path, Nested())


KILLED = """
import sys
from fcnlab.data.download import archive
from fcnlab.data.download import client
from fcnlab.data.download.fetch import fetch_dataset
from fcnlab.data.download.sources import Archive, Source

class Slow:
    def log(self, line): pass
    def update(self, label, done, total):
        if label.startswith(sys.argv[4]) and done >= 500_000:
            print("there", flush=True)
            sys.stdin.read()  # until killed

client.CHUNK = archive.CHUNK = 100_000
source = Source("set", (Archive("set.tar", (sys.argv[1],), "top", checksum=sys.argv[2]),), {"*.bin": 1}, 10**7, "", "")
fetch_dataset("mine", source, __import__("pathlib").Path(sys.argv[3]), Slow())
"""


@pytest.mark.parametrize("during", ["set.tar", "unpacking"])
def test_killed_fetch_leaves_no_complete_folder_and_resumes(site: Site, tmp_path: Path, during: str) -> None:
    content = tar_of(("top/a.bin", CONTENT))
    site.files["/set.tar"] = content
    checksum = f"sha256:{hashlib.sha256(content).hexdigest()}"
    command = [sys.executable, "-c", KILLED, f"{site.url}/set.tar", checksum, str(tmp_path), during]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdin is not None
    assert process.stdout.readline() == "there\n"
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=patience())
    process.stdout.close()
    process.stdin.close()
    assert not (tmp_path / "set").exists()
    archive = Archive("set.tar", (f"{site.url}/set.tar",), "top", checksum=checksum)
    part = part_path(tmp_path / ARCHIVES / "set.tar")
    site.asked.clear()
    if during == "set.tar":
        assert not (tmp_path / ARCHIVES / "set.tar").exists() and 0 < part.stat().st_size < len(content)
        expected = [("/set.tar", f"bytes={part.stat().st_size}-")]
    else:
        expected = []
    place, _ = fetched(Source("set", (archive,), {"*.bin": 1}, 10**7, "", ""), tmp_path)
    assert (place / "a.bin").read_bytes() == CONTENT and site.asked == expected
    left = tree(tmp_path / ARCHIVES).keys() - {".mine.lock"}
    assert left == set() and not origin_path(tmp_path / ARCHIVES / "set.tar").exists()


# --- the table -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SOURCES)
def test_sources_are_complete(name: str) -> None:
    source = SOURCES[name]
    assert source.archives and source.counts and source.terms and source.page.startswith(("http://", "https://"))
    assert not Path(source.folder).is_absolute() and ".." not in source.folder
    for archive in source.archives:
        assert all(url.startswith(("http://", "https://")) for url in archive.urls)
        assert Path(archive.file).name == archive.file
        lengths = {"md5": 32, "sha1": 40, "sha256": 64}
        if archive.checksum is not None:
            algorithm, _, digest = archive.checksum.partition(":")
            assert re.fullmatch(rf"[0-9a-f]{{{lengths[algorithm]}}}", digest)
        if archive.bytes is not None:
            assert archive.bytes < source.expanded


def test_checksums_equal_those_of_torchvision() -> None:
    from torchvision.datasets import SBDataset
    from torchvision.datasets.voc import DATASET_YEAR_DICT

    (voc,), (sbd,) = SOURCES["voc2012"].archives, SOURCES["sbd"].archives
    assert voc.checksum == f"md5:{DATASET_YEAR_DICT['2012']['md5']}" and DATASET_YEAR_DICT["2012"]["url"] in voc.urls
    assert sbd.checksum == f"md5:{SBDataset.md5}" and SBDataset.url in sbd.urls
