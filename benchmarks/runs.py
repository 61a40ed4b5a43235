"""Many trainings under one folder: each finished one is a line of ``runs.jsonl``, and interrupted ones go on."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import logitstore
import students
import teachers
from logitstore.errors import RunError
from logitstore.models.machine import keep_freed_memory, versions

RUNS, SETTINGS = "runs.jsonl", "settings.json"


def begin(out: Path, settings: Mapping[str, Any], names: Iterable[str]) -> None:
    """Open a folder; one of other settings, code or versions is refused, for runs of the two could not be compared.

    :param settings: JSON values, or what becomes them. :param names: of the benchmark's own files.
    """
    out.mkdir(parents=True, exist_ok=True)
    asked = json.loads(json.dumps(dict(settings) | {"code": code_digest(names), "versions": versions()}))
    path = out / SETTINGS
    if path.is_file():
        there = json.loads(path.read_text(encoding="utf-8"))
        changed = [name for name in asked if there.get(name) != asked[name]]
        if changed:
            raise RunError(f"{out} holds runs of other {' and '.join(changed)}; give another --out")
    path.write_text(json.dumps(asked, indent=2) + "\n", encoding="utf-8")
    runs = out / RUNS
    if runs.is_file():  # what an interruption cut off
        content = runs.read_bytes()
        runs.write_bytes(content[: content.rfind(b"\n") + 1])


def settings_of(out: Path) -> dict[str, Any]:
    """The settings of a folder. :raises RunError: it has none."""
    path = out / SETTINGS
    if not path.is_file():
        raise RunError(f"{out} holds no runs: no {SETTINGS} in it; give the --out of a run")
    there: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return there


def read_lines(out: Path) -> list[dict[str, Any]]:
    """The finished runs under a folder; a line that an interruption cut off is none."""
    path = out / RUNS
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


@contextmanager
def processes(workers: int) -> Iterator[Executor]:
    """So many processes of one thread each; what still waits is dropped at the end."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_begin_worker)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def each(out: Path, pool: Executor, work: Callable[[Any], dict[str, Any]], tasks: Sequence[Any], what: str) -> None:
    """Do some tasks; what comes of each is a line, written when it is done."""
    began = time.monotonic()
    with (out / RUNS).open("a", encoding="utf-8") as lines:
        for count, future in enumerate(as_completed([pool.submit(work, task) for task in tasks]), start=1):
            lines.write(json.dumps(future.result()) + "\n")
            lines.flush()
            left = (time.monotonic() - began) / count * (len(tasks) - count)
            print(f"{what} {count} of {len(tasks)}, {left / 60:.0f} min left", file=sys.stderr, flush=True)


def code_digest(names: Iterable[str]) -> str:
    """BLAKE2b-64 of all that a run's result depends on: files of this folder, students, teachers and the store."""
    digest = hashlib.blake2b(digest_size=8)
    files = [Path(__file__).parent / f"{name}.py" for name in names]
    for package in (logitstore, students, teachers):
        files += sorted(Path(package.__path__[0]).rglob("*.py"))
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def _begin_worker() -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
