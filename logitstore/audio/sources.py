"""Sources of clips: one small interface (list the audio, read a piece of it), and what lies behind it.

========  ==========================================================  =======================================
kind      given as                                                    key (``path``) of a piece of audio
========  ==========================================================  =======================================
folder    a folder, searched recursively                              path below the folder
manifest  .csv, .tsv or .parquet with a ``path`` column               its ``path``, below the audio root
tar       .tar, a folder of them, or a pattern (``shards/*.tar``)     shard/member
parquet   .parquet with audio bytes, likewise                         shard/row
hdf5      .h5 or .hdf5, likewise                                      shard/name
========  ==========================================================  =======================================

Keys are relative, '/'-separated, in UTF-8 as they stand (not normalised), and the same on every machine.
"""

from __future__ import annotations

import glob
import itertools
import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from logitstore.audio.audiofile import AUDIO_SUFFIXES, Audio
from logitstore.audio.source import Source, normal_path, text_key
from logitstore.errors import AudioError, SourceError

if TYPE_CHECKING:
    import pyarrow as pa

PACKED_SUFFIXES = {".tar": "tar", ".parquet": "parquet", ".h5": "hdf5", ".hdf5": "hdf5"}
_MANIFEST_SUFFIXES = (".csv", ".tsv")


def open_source(source: str, audio_root: str | None = None) -> Source:
    """The source that ``source`` names, for listing and reading.

    :param source: a folder, a manifest, a packed file, a folder of packed files, or a pattern of packed files with
        ``*``, ``?``, ``[a-z]``, ``{a,b}`` or ``{000..127}``.
    :param audio_root: what a manifest's paths are relative to (a folder or packed; the manifest's own folder if None);
        for the other kinds a folder above the source, from which keys then start.
    :raises SourceError: missing, empty, ambiguous, or of no known kind.
    """
    path = Path(source)
    if path.is_file() and (path.suffix.lower() in _MANIFEST_SUFFIXES or _is_manifest(path)):
        return ManifestSource(path, open_audio(audio_root if audio_root is not None else str(path.parent)))
    return _open(source, audio_root)


def open_audio(audio_root: str) -> Source:
    """The audio of a store's clips, for reading by key: a folder, or whatever packed source the store was built from.

    :raises SourceError: missing or of no known kind.
    """
    return _open(audio_root, None)


class FolderSource:
    """Audio files below a folder; hidden files and folders are skipped, symbolic links followed."""

    kind = "folder"
    segmented = False

    def __init__(self, root: Path, below: Path | None = None) -> None:
        self.root = root
        self.below = below or root

    def listing(self) -> pa.Table:
        import pyarrow as pa

        keys = [text_key(key, str(self.below)) for key in _walk(self.root, self.below, AUDIO_SUFFIXES)]
        if not keys:
            raise SourceError(
                f"{self.below}: no audio found; files are known by their endings: {', '.join(sorted(AUDIO_SUFFIXES))}"
            )
        return pa.table({"path": pa.array(keys, pa.string())})

    def read(self, path: str) -> Audio:
        if normal_path(path) != path:
            raise AudioError("the path leaves the audio root")
        return self.root / path


class ManifestSource:
    """Rows of a table that name audio below a root; see :mod:`logitstore.audio.manifest` for the columns."""

    kind = "manifest"
    segmented = True

    def __init__(self, path: Path, audio: Source) -> None:
        self.path = path
        self.audio = audio

    def listing(self) -> pa.Table:
        from logitstore.audio.manifest import read_manifest

        return read_manifest(self.path)

    def read(self, path: str) -> Audio:
        return self.audio.read(path)


def _is_manifest(path: Path) -> bool:
    if path.suffix.lower() != ".parquet":
        return False
    from logitstore.audio.manifest import is_manifest_parquet

    return is_manifest_parquet(path)


def _open(source: str, audio_root: str | None) -> Source:
    path = Path(source)
    if path.is_dir():
        kinds, files = _packed_below(path)
        if not kinds:
            root = _root_above(path, audio_root)
            return FolderSource(root, path)
        root = path
    elif path.is_file():
        files, root = [path], path.parent
    elif any(mark in source for mark in "*?[{"):
        files, root = _expand(source)
    else:
        raise SourceError(
            f"{source}: no such file or folder; give a folder of audio, a manifest (.csv, .tsv, .parquet) "
            "or packed audio (.tar, .parquet, .h5)"
        )
    kinds = sorted({PACKED_SUFFIXES.get(file.suffix.lower(), file.suffix.lower() or "no ending") for file in files})
    if len(kinds) > 1:
        raise SourceError(f"{source}: files of several kinds ({', '.join(kinds)}); give a pattern of one, as in *.tar")
    if kinds[0] not in PACKED_SUFFIXES.values():
        raise SourceError(
            f"{source}: unknown kind of source {kinds[0]!r}; allowed are a folder of audio, "
            f".csv, .tsv, {', '.join(PACKED_SUFFIXES)}"
        )
    root = _root_above(root, audio_root)
    names = sorted(text_key(Path(os.path.relpath(file, root)).as_posix(), source) for file in files)
    return _packed(kinds[0], root, tuple(names))


def _packed(kind: str, root: Path, names: tuple[str, ...]) -> Source:
    if kind == "tar":
        from logitstore.audio.tar import TarSource

        return TarSource(root, names)
    if kind == "parquet":
        from logitstore.audio.parquet import ParquetSource

        return ParquetSource(root, names)
    from logitstore.audio.hdf5 import Hdf5Source

    return Hdf5Source(root, names)


def _root_above(folder: Path, audio_root: str | None) -> Path:
    if audio_root is None:
        return folder
    root = Path(audio_root)
    if not root.is_dir():
        raise SourceError(f"{audio_root}: the audio root is not a folder; it must be a folder above the source")
    if normal_path(os.path.relpath(folder, root)) is None and not os.path.samefile(folder, root):  # noqa: PTH121
        raise SourceError(f"{folder}: not below the audio root {audio_root}; give a folder above it, or none")
    return root


def _packed_below(folder: Path) -> tuple[list[str], list[Path]]:
    """Packed files of a folder that has no audio files of its own."""
    found = []
    for key in _walk(folder, folder, AUDIO_SUFFIXES | PACKED_SUFFIXES.keys()):
        suffix = posixpath.splitext(key)[1].lower()
        if suffix in AUDIO_SUFFIXES:
            return [], []
        found.append(folder / key)
    return sorted({PACKED_SUFFIXES[file.suffix.lower()] for file in found}), found


def _walk(root: Path, below: Path, suffixes: Any) -> Iterator[str]:
    """Keys below ``root`` of the files with these endings under ``below``; a loop of links is cut where it closes."""

    def visit(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[str]:
        status = folder.stat()
        identity = (status.st_dev, status.st_ino)
        if identity in above:
            return
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from visit(folder / entry.name, above | {identity})
            elif posixpath.splitext(entry.name)[1].lower() in suffixes:
                yield Path(os.path.relpath(entry.path, root)).as_posix()

    try:
        yield from visit(below, frozenset())
    except OSError as error:
        raise SourceError(f"{error.filename or below}: cannot be listed: {error.strerror}") from None


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
