"""Limits of the process, and its environment: open files, shared memory, folders, the home and the locale."""

from __future__ import annotations

import resource
from functools import partial

from benchmarks.failures.environment.commands import FILE, Workbench, find_problems, set_environment
from benchmarks.failures.environment.mounts import drop_rights, hide_shared_memory


def limit_open_files(bench: Workbench, files: int, executor: str) -> list[str]:
    """Run a grid with a limit of open files; it ends with its table, or with one line and exit code 2.

    Args:
        bench: the workbench.
        files: the limit.
        executor: name of the executor.
    """
    lab = bench.copy()
    limit = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (files, files))
    ended = bench.run(lab, "--executor", executor, prepare=limit)
    bad = find_problems(ended, 0, 2, mentions="Too many open files.*ulimit -n")
    return bad + (bench.find_changes(lab) if ended.code == 0 else bench.rerun(lab))


def without_shared_memory(bench: Workbench, executor: str) -> list[str]:
    """Run a grid where /dev/shm cannot be written.

    Args:
        bench: the workbench.
        executor: name of the executor.
    """
    lab = bench.copy()
    ended = bench.run(lab, "--executor", executor, prepare=hide_shared_memory)
    return find_problems(ended, 0) + bench.find_changes(lab)


def with_variables(bench: Workbench, executor: str, **values: str | None) -> list[str]:
    """Run a grid with other variables of the environment, or without them.

    Args:
        bench: the workbench.
        executor: name of the executor.
        **values: values by name; None removes the variable.
    """
    lab = bench.copy()
    ended = bench.run(lab, "--executor", executor, prepare=partial(set_environment, **values))
    return find_problems(ended, 0) + bench.find_changes(lab)


def without_home(bench: Workbench) -> list[str]:
    """Run a grid as a user without a home and without FCNLAB_CACHE.

    Args:
        bench: the workbench.
    """
    lab = bench.copy()
    for path in (bench.root, lab, *lab.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)

    def prepare() -> None:
        set_environment(HOME=None, FCNLAB_CACHE=None, XDG_CACHE_HOME=None)
        drop_rights(54321)  # a user without a name

    ended = bench.run(lab, prepare=prepare)
    return find_problems(ended, 0, 2, mentions="FCNLAB_CACHE") + (bench.find_changes(lab) if ended.code == 0 else [])


def in_ascii(bench: Workbench, name: str) -> list[str]:
    """Run a grid in a lab with another name, in a process whose locale has only ASCII characters.

    Args:
        bench: the workbench.
        name: name of the lab's folder.
    """
    lab = bench.copy(name)
    variables = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": None}
    ended = bench.start(lab, "grid", "run", FILE, "--workers", "1", "--threads", "1", "--tracker", "none", **variables)
    return find_problems(ended, 0) + bench.find_changes(lab)
