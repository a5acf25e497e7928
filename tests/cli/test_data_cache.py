"""`fcnlab data cache`: lists, verifies and removes caches, with its exit codes."""

from __future__ import annotations

import json
from functools import partial

import pytest

from fcnlab.data.cache.format import INDEX, PIXELS, decoded_cache_folder
from tests.cli.conftest import Call


@pytest.fixture
def columns() -> int:
    return 250


@pytest.fixture
def data_cache(fcnlab: Call) -> Call:
    """Call `fcnlab data cache`."""
    return partial(fcnlab, "data", "cache")


@pytest.fixture
def made(data_cache: Call) -> list[str]:
    """The keys of the three splits of shapes-mini, which are cached."""
    code, out, _ = data_cache("make", "shapes-mini")
    assert code == 0
    lines = out.splitlines()
    assert [line.split(",")[0] for line in lines] == ["train: 16 images", "val: 4 images", "test: 6 images"]
    return [line.split()[-1] for line in lines]


def test_nothing_is_cached_at_first(data_cache: Call) -> None:
    assert data_cache("list") == (0, f"{decoded_cache_folder()}: nothing is cached\n", "")
    assert data_cache("verify") == (0, "", "")
    assert data_cache("clear", "--all") == (0, "0.0 MiB freed\n", "")


def test_list_shows_every_cache_with_its_state(data_cache: Call, made: list[str]) -> None:
    (decoded_cache_folder() / made[1] / PIXELS).write_bytes(b"torn")
    (decoded_cache_folder() / ("0" * 32 + ".partial")).mkdir()
    code, out, _ = data_cache("list")
    assert code == 0
    rows = {line.split()[0]: line for line in out.splitlines()[1:-1]}
    listed = json.loads(data_cache("list", "--json")[1])["caches"]
    assert {one["key"][:12] for one in listed} == rows.keys()
    assert rows.keys() == {key[:12] for key in (*made, "0" * 32)}
    whole, torn, unfinished = rows[made[0][:12]], rows[made[1][:12]], rows["0" * 12]
    assert "shapes" in whole and "train" in whole and " 16 " in whole
    assert "complete" in whole and "broken" in torn and "interrupted" in unfinished


def test_second_make_keeps_existing_caches(data_cache: Call, made: list[str]) -> None:
    before = {key: (decoded_cache_folder() / key / PIXELS).stat().st_ino for key in made}
    assert data_cache("make", "shapes-mini")[0] == 0
    assert {key: (decoded_cache_folder() / key / PIXELS).stat().st_ino for key in made} == before


def test_make_reports_the_reason_of_a_failure(data_cache: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FCNLAB_CACHE_BUDGET", "0")
    code, _, err = data_cache("make", "shapes-mini")
    assert code == 2 and "shapes-mini train: a cache of" in err and "FCNLAB_CACHE_BUDGET" in err


def test_verify_exits_with_2_and_names_damaged_caches(data_cache: Call, made: list[str]) -> None:
    code, out, err = data_cache("verify")
    assert (code, err) == (0, "") and out.count(": 0 problems") == 3
    with (decoded_cache_folder() / made[0] / PIXELS).open("r+b") as file:
        byte = file.read(1)[0]
        file.seek(0)
        file.write(bytes([byte ^ 128]))
    (decoded_cache_folder() / made[1] / INDEX).write_bytes(b"{}")
    code, out, err = data_cache("verify")
    assert code == 2 and out.count(": 0 problems") == 1
    lines = [line for line in err.splitlines() if line.startswith("fcnlab: error: ")]
    assert len(lines) == 2
    assert any(made[0] in line and "'train_" in line and "differs from its checksum" in line for line in lines)
    assert any(made[1] in line and "its index is incomplete" in line for line in lines)
    assert data_cache("verify", made[2])[0] == 0
    assert data_cache("verify", made[0][:12])[0] == 2


def test_caches_are_removed_by_key_by_age_and_all(data_cache: Call, made: list[str]) -> None:
    code, out, _ = data_cache("clear", made[0][:12])
    assert code == 0 and f"{made[0]}: removed" in out
    assert data_cache("clear", "--older-than", "1") == (0, "0.0 MiB freed\n", "")
    assert data_cache("list")[1].count("complete") == 2
    assert data_cache("clear", "--all")[1].count("removed") == 2
    assert "nothing is cached" in data_cache("list")[1]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ((), ("specify what to remove",)),
        (("--all", "--older-than", "3"), ("specify what to remove",)),
        (("zzz",), ("'zzz'", "no such cache", "valid: ")),
        (("",), ("matches 3 keys",)),
    ],
)
def test_clear_requires_exactly_one_selection(
    data_cache: Call, made: list[str], arguments: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    code, _, err = data_cache("clear", *arguments)
    assert code == 2 and all(part in err for part in parts)
    assert all((decoded_cache_folder() / key).is_dir() for key in made)
