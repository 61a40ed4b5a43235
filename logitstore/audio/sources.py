"""Opening a source of clips from what a user gives, whatever kind it is of.

========  ==========================================================  =======================================
kind      given as                                                    key (``path``) of a piece of audio
========  ==========================================================  =======================================
folder    a folder, searched recursively                              path below the folder
manifest  .csv, .tsv or .parquet with a ``path`` column               its ``path``, below the audio root
tar       .tar, a folder of them, or a pattern (``shards/*.tar``)     shard/member
parquet   .parquet with audio bytes, likewise                         shard/row
hdf5      .h5 or .hdf5, likewise                                      shard/name
========  ==========================================================  =======================================

Keys are relative, '/'-separated, in UTF-8 as they stand (not normalised), and the same on every machine. Each kind is a
file of this package; the packed ones are known by the endings of their files.
"""

from __future__ import annotations

import glob
import importlib
import itertools
import os
import pkgutil
import posixpath
import re
from pathlib import Path

import logitstore.audio
from logitstore.audio.audiofile import AUDIO_SUFFIXES
from logitstore.audio.folder import FolderSource, walk
from logitstore.audio.manifest import SUFFIXES, ManifestSource, is_manifest
from logitstore.audio.packed import KINDS
from logitstore.audio.source import Source, normal_path, text_key
from logitstore.errors import SourceError

for _module in pkgutil.iter_modules(logitstore.audio.__path__):
    if _module.name != "sources":
        importlib.import_module(f"logitstore.audio.{_module.name}")


def open_source(source: str, audio_root: str | None = None) -> Source:
    """The source that ``source`` names, for listing and reading.

    :param source: a folder, a manifest, a packed file, a folder of packed files, or a pattern of packed files with
        ``*``, ``?``, ``[a-z]``, ``{a,b}`` or ``{000..127}``.
    :param audio_root: what a manifest's paths are relative to (a folder or packed; the manifest's own folder if None);
        for the other kinds a folder above the source, from which keys then start.
    :raises SourceError: missing, empty, ambiguous, or of no known kind.
    """
    path = Path(source)
    if path.is_file() and is_manifest(path):
        return ManifestSource(path, open_audio(audio_root if audio_root is not None else str(path.parent)))
    return _open(source, audio_root)


def open_audio(audio_root: str) -> Source:
    """The audio of a store's clips, for reading by key: a folder, or whatever packed source the store was built from.

    :raises SourceError: missing or of no known kind.
    """
    return _open(audio_root, None)


def _open(source: str, audio_root: str | None) -> Source:
    path = Path(source)
    if path.is_dir():
        files, root = _packed_below(path), path
        if not files:
            return FolderSource(_root_above(path, audio_root), path)
    elif path.is_file():
        files, root = [path], path.parent
    elif any(mark in source for mark in "*?[{"):
        files, root = _expand(source)
    else:
        raise SourceError(
            f"{source}: no such file or folder; give a folder of audio, a manifest (.csv, .tsv, .parquet) "
            "or packed audio (.tar, .parquet, .h5)"
        )
    endings = {file.suffix.lower() for file in files}
    kinds = sorted({KINDS[ending].kind if ending in KINDS else ending or "no ending" for ending in endings})
    if len(kinds) > 1:
        raise SourceError(f"{source}: files of several kinds ({', '.join(kinds)}); give a pattern of one, as in *.tar")
    packed = KINDS.get(endings.pop())
    if packed is None:
        raise SourceError(
            f"{source}: unknown kind of source {kinds[0]!r}; allowed are a folder of audio, "
            f"{', '.join((*SUFFIXES, *sorted(KINDS)))}"
        )
    root = _root_above(root, audio_root)
    names = sorted(text_key(Path(os.path.relpath(file, root)).as_posix(), source) for file in files)
    return packed(root, tuple(names))


def _root_above(folder: Path, audio_root: str | None) -> Path:
    if audio_root is None:
        return folder
    root = Path(audio_root)
    if not root.is_dir():
        raise SourceError(f"{audio_root}: the audio root is not a folder; it must be a folder above the source")
    if normal_path(os.path.relpath(folder, root)) is None and not os.path.samefile(folder, root):  # noqa: PTH121
        raise SourceError(f"{folder}: not below the audio root {audio_root}; give a folder above it, or none")
    return root


def _packed_below(folder: Path) -> list[Path]:
    """The packed files of a folder that has no audio files of its own; none where it has some."""
    found = []
    for key in walk(folder, folder, AUDIO_SUFFIXES | KINDS.keys()):
        if posixpath.splitext(key)[1].lower() in AUDIO_SUFFIXES:
            return []
        found.append(folder / key)
    return found


def _expand(pattern: str) -> tuple[list[Path], Path]:
    """The files of a brace and glob pattern, and the folder before its first part with a mark."""
    parts = Path(pattern).parts
    fixed = list(itertools.takewhile(lambda part: not any(mark in part for mark in "*?[{"), parts))
    files: list[Path] = []
    for alternative in _braces(pattern):
        if any(mark in alternative for mark in "*?["):
            matches = sorted(glob.glob(alternative, recursive=True))  # noqa: PTH207
        else:
            matches = [alternative]
            if not Path(alternative).is_file():
                raise SourceError(f"{alternative}: no such file, named by the pattern {pattern}")
        files.extend(Path(match) for match in matches if Path(match).is_file())
    if not files:
        raise SourceError(f"{pattern}: no file matches this pattern")
    return list(dict.fromkeys(files)), Path(*fixed)


def _braces(pattern: str) -> list[str]:
    """``a{1..3}`` and ``a{x,y}`` written out; leading zeros keep their width."""
    found = re.search(r"\{([^{}]*)\}", pattern)
    if not found:
        return [pattern]
    body = found.group(1)
    numbers = re.fullmatch(r"(\d+)\.\.(\d+)", body)
    if numbers:
        low, high = numbers.groups()
        if int(high) - int(low) >= 1_000_000:
            raise SourceError(f"{pattern}: {{{body}}} stands for more than a million files")
        choices = [str(number).zfill(len(low)) for number in range(int(low), int(high) + 1)]
    else:
        choices = body.split(",")
    before, after = pattern[: found.start()], pattern[found.end() :]
    return [text for choice in choices for text in _braces(before + choice + after)]
