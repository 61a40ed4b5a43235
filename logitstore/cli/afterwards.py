"""What one usually does after a command, as one would type it: with the places that the command was given.

Each function gives the commands that :func:`logitstore.cli.command.next_steps` prints, by what came out.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from shlex import join, quote

_TABLES = frozenset((".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".txt"))
_MARKS = frozenset("*?[{")
#: What stands where a command was given no audio.
AUDIO = "AUDIO"


def audio_root(source: str | Sequence[str], given: str | None) -> str:
    """The folder that the paths of a store's clips are relative to, as its build had it."""
    if given is not None:
        return given
    sources = [source] if isinstance(source, str) else list(source)
    if not sources:
        return AUDIO
    roots = [_root(each) for each in sources]
    return roots[0] if len(roots) == 1 else os.path.commonpath([os.path.abspath(each) for each in roots])  # noqa: PTH100


def _root(source: str) -> str:
    path = Path(source)
    if path.is_dir():
        return source
    if _MARKS & set(source):
        fixed = source[: min(source.find(mark) for mark in _MARKS if mark in source)]
        return os.path.dirname(fixed) or "."  # noqa: PTH120
    return str(path.parent) if _is_table(path) else source


def _is_table(path: Path) -> bool:
    from logitstore.audio.audiofile import AUDIO_SUFFIXES
    from logitstore.audio.manifest import is_manifest

    ending = path.suffix.lower()
    return ending in _TABLES | AUDIO_SUFFIXES or (path.is_file() and is_manifest(path))


def with_teachers(specs: Sequence[str]) -> str:
    """The teachers of a command line."""
    return " ".join(f"--teacher {quote(each)}" for each in specs)


def after_build(store: str, root: str, failures: int, missing: int, again: str) -> list[str]:
    """After a build: the rest of it, what failed, a look at what it holds, a student.

    :param missing: shards that are not finished. :param again: the command that goes on.
    """
    place, audio = quote(store), quote(root)
    steps = [f"logitstore status {place}", again] if missing else []
    if failures:
        steps.append(f'logitstore inspect {place} "FROM failures"')
    if missing:
        return steps
    return [
        *steps,
        f"logitstore look {place}",
        f"logitstore report {place} -o report.html",
        f"logitstore serve {place} --audio-root {audio}",
        f"train-student {place} --audio-root {audio} --out student",
    ]


def after_store(store: str, failures: int) -> list[str]:
    """After a summary of a store."""
    place = quote(store)
    steps = [f'logitstore inspect {place} "FROM failures"'] if failures else []
    return [*steps, f"logitstore inspect {place} @", f"logitstore look {place}"]


def after_report(page: str, store: str, audio: str | None) -> list[str]:
    """After a report: look at it, and hear what it shows."""
    return [f"open {quote(page)} in a browser", f"logitstore serve {quote(store)} --audio-root {quote(audio or AUDIO)}"]


def after_student(run: str, stores: Sequence[str], roots: Sequence[str]) -> list[str]:
    """After the training of a student: how far it agrees, the file to ship, what it hears."""
    place, audio = quote(run), quote(roots[0]) if roots else AUDIO
    steps = [] if len(stores) > 1 else [f"logitstore compare {quote(stores[0])} {place} {audio}"]
    return [*steps, f"logitstore tag --teacher {place} {audio}", f"export-student {place} --out {quote(_onnx(run))}"]


def after_teacher(run: str, manifest: str, root: str | None) -> list[str]:
    """After the training of a teacher: a store of what it says."""
    audio = "" if root is None else f" --audio-root {quote(root)}"
    return [
        f"logitstore teachers check {quote(run)}",
        f"logitstore build {quote(manifest)}{audio} --teacher {quote(run)} --out store",
    ]


def after_export_student(run: str, files: Sequence[str]) -> list[str]:
    """After the export of a student: its file is a teacher."""
    return [
        f"logitstore compare {quote(run)} {quote(files[-1])} {AUDIO}",
        f"logitstore tag --teacher {quote(f'onnx:{files[-1]}')} {AUDIO}",
    ]


def after_compare(b: str, source: str | None, given: str | None = None) -> list[str]:
    """After a comparison: what was measured is heard, and a student exported.

    :param source: of the clips that it was measured on. :param given: the audio root that was given beside it.
    """
    path = Path(b)
    where = quote(audio_root(source or (), given))
    if (path / "zarr.json").is_file():
        return [f"logitstore look {quote(b)}"]
    spec = f"onnx:{b}" if path.suffix == ".onnx" else b
    steps = [f"logitstore tag --teacher {quote(spec)} {where}"]
    return [*steps, f"export-student {quote(b)} --out {quote(_onnx(b))}"] if path.is_dir() else steps


def after_tag(files: Sequence[str], teachers: Sequence[str], table: bool) -> list[str]:
    """After tagging: labels that other programs show, and a store of the same audio.

    :param table: whether it was a table on the terminal.
    """
    audio = join(files[:1]) + (" …" if len(files) > 1 else "")
    steps = [f"logitstore tag {audio} {with_teachers(teachers)} --format audacity --out labels"] if table else []
    return [*steps, f"logitstore build {audio} {with_teachers(teachers)} --out store"]


def _onnx(run: str) -> str:
    return f"{run.rstrip('/')}.onnx"
