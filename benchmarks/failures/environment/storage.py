"""Full, limited and read-only storage."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from unittest.mock import patch

from benchmarks.failures.environment.commands import FILE, Workbench, find_problems, set_environment
from benchmarks.failures.environment.mounts import drop_rights, enlarge, make_readonly, mounted

ROOM = "No space left on device.*(MB|no) free"


def fill_lab(bench: Workbench, share: float, *arguments: str) -> list[str]:
    """Run a grid in a lab whose file system has room for a share of it, make room, and run it again.

    Args:
        bench: the workbench.
        share: share of the size of the finished lab.
        *arguments: more arguments of both runs.
    """
    with mounted(bench.root / "full", max(64 * 1024, int(share * bench.size))) as folder:
        lab = bench.copy(onto=folder)
        ended = bench.run(lab, *arguments)
        bad = find_problems(ended, 2, mentions=ROOM)
        finished = read_finished(lab)
        enlarge(folder)
        return bad + bench.rerun(lab, *arguments) + find_rewritten(lab, finished)


def fill_lab_with_files(bench: Workbench, files: int) -> list[str]:
    """Run a grid in a lab whose file system allows a small number of files.

    Args:
        bench: the workbench.
        files: the number.
    """
    with mounted(bench.root / "files", 2**28, files=files) as folder:
        lab = bench.copy(onto=folder)
        bad = find_problems(bench.run(lab), 2, mentions=ROOM)
        enlarge(folder)
        return bad + bench.rerun(lab)


def fill_other(bench: Workbench, variable: str, size: int) -> list[str]:
    """Run a grid with a small file system in place of the cache or of the folder for temporary files.

    Args:
        bench: the workbench.
        variable: environment variable with the folder.
        size: bytes of the file system.
    """
    with mounted(bench.root / "small", size) as folder:
        lab = bench.copy()
        prepare = partial(set_environment, **{variable: str(folder)})
        ended = bench.run(lab, prepare=prepare)
        return find_problems(ended, 0) + bench.find_changes(lab)


def fill_cache_while_decoding(bench: Workbench, size: int) -> list[str]:
    """Decode a dataset into a cache on a file system that has less room than its free space promised.

    Args:
        bench: the workbench.
        size: bytes of the file system.
    """

    def prepare() -> None:
        set_environment(FCNLAB_CACHE=str(bench.root / "small"))
        patch("fcnlab.data.cache.build.find_room", lambda: 2**40).start()

    with mounted(bench.root / "small", size) as folder:
        lab = bench.copy()
        ended = bench.run(lab, prepare=prepare)
        left = [path.name for path in folder.rglob("*.partial")]
        bad = [f"left behind: {left}"] if left else []
        return bad + find_problems(ended, 0) + bench.find_changes(lab)


def limit_file_size(bench: Workbench, size: int) -> list[str]:
    """Run a grid with a limit of the size of files, as `ulimit -f` sets it.

    Args:
        bench: the workbench.
        size: the limit in bytes.
    """
    lab = bench.copy()
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size, size))
    bad = find_problems(bench.run(lab, prepare=limit), 2, mentions="File too large.*ulimit -f")
    return bad + bench.rerun(lab)


def exceed_quota(bench: Workbench, writes: int) -> list[str]:
    """Run a grid while the disk quota is used up after a number of files.

    Args:
        bench: the workbench.
        writes: the number of files that can be renamed to their final name.
    """

    def prepare() -> None:
        left = [writes]
        replace = os.replace

        def limited(source: object, target: object, **options: object) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), str(source), None, str(target))
            replace(source, target, **options)  # type: ignore[arg-type]

        patch("os.replace", limited).start()

    lab = bench.copy()
    bad = find_problems(bench.run(lab, prepare=prepare), 2, mentions="quota")
    return bad + bench.rerun(lab)


def read_only_lab(bench: Workbench, command: Sequence[str], codes: Sequence[int], *, finished: bool) -> list[str]:
    """Call a command in a lab that cannot be written, also by root.

    Args:
        bench: the workbench.
        command: the command.
        codes: expected exit codes.
        finished: whether the grid has been run before.
    """
    lab = bench.copy()
    bad = find_problems(bench.run(lab), 0) if finished else []
    ended = bench.call(lab, *command, prepare=partial(make_readonly, lab))
    return bad + find_problems(ended, *codes, mentions="Read-only file system") + bench.rerun(lab)


def lab_of_another_user(bench: Workbench, mode: int, command: Sequence[str], codes: Sequence[int]) -> list[str]:
    """Call a command as a user who may not write, or not even read, a lab.

    Args:
        bench: the workbench.
        mode: permissions of all folders of the lab.
        command: the command.
        codes: expected exit codes.
    """
    lab = bench.copy()
    bad = find_problems(bench.run(lab), 0)
    folders = [lab, *(path for path in lab.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(mode)

    bench.root.chmod(0o755)
    ended = bench.call(lab, *command, prepare=partial(_become_other_user, bench))
    for folder in folders:
        folder.chmod(0o755)
    return bad + find_problems(ended, *codes, mentions="Permission denied|no such") + bench.rerun(lab)


def _become_other_user(bench: Workbench) -> None:
    set_environment(FCNLAB_CACHE=str(bench.root / "nowhere"), HOME="/nonexistent")
    drop_rights()


def unreadable_file(bench: Workbench, name: str) -> list[str]:
    """Run a grid as a user who may write a lab, but not read a file of a finished trial; `status` names the file.

    Args:
        bench: the workbench.
        name: name of the file in the run folder.
    """
    lab = bench.copy()
    bad = find_problems(bench.run(lab), 0)
    for path in (lab, *lab.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
    file = min(lab.glob(f"runs/*/{name}"))
    file.chmod(0o600)

    bench.root.chmod(0o755)
    prepare, finished = partial(_become_other_user, bench), read_finished(lab)
    shown = bench.call(lab, "grid", "status", FILE, prepare=prepare)
    bad += find_problems(shown, 1)
    if f"{file}: it cannot be read: Permission denied" not in shown.output:
        bad.append(f"`status` does not name the file: {shown.output}")
    bad += find_problems(bench.run(lab, prepare=prepare), 2, mentions=f"{name}: it cannot be read: Permission denied")
    if (lab / "runs" / ".quarantine").exists():
        bad.append("an intact file was moved")
    return bad + bench.rerun(lab) + find_rewritten(lab, finished)


def read_only_cache(bench: Workbench, *, filled: bool) -> list[str]:
    """Run a grid with a cache that cannot be written.

    Args:
        bench: the workbench.
        filled: whether the cache contains what the grid needs.
    """
    lab = bench.copy()
    cache = bench.root / "readonly"
    shutil.rmtree(cache, ignore_errors=True)
    if filled:
        shutil.copytree(bench.cache, cache)
    cache.mkdir(exist_ok=True)

    def prepare() -> None:
        set_environment(FCNLAB_CACHE=str(cache))
        make_readonly(cache)

    return find_problems(bench.run(lab, prepare=prepare), 0) + bench.find_changes(lab)


def read_finished(lab: Path) -> dict[Path, bytes]:
    """Return the content of the finished records of a lab.

    Args:
        lab: the lab.
    """
    return {file: file.read_bytes() for file in (lab / "runs").glob("*/record.json")}


def find_rewritten(lab: Path, records: dict[Path, bytes]) -> list[str]:
    """Return the finished records that are not in the lab as they were.

    Args:
        lab: the lab.
        records: the former records.
    """
    now = read_finished(lab)
    return [f"{file.parent.name[:6]}: its record has changed" for file in records if now.get(file) != records[file]]
