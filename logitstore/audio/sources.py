"""Opening a source of clips from what a user gives, whatever kind it is of.

========  ==========================================================  =======================================
kind      given as                                                    key (``path``) of a piece of audio
========  ==========================================================  =======================================
folder    a folder, searched recursively                              path below the folder
files     an audio file, or a pattern of them (``audio/*.wav``)       path below the pattern's folder
manifest  a table: .csv, .tsv, .jsonl, .json or .parquet              its path, below the audio root
labels    .txt of Audacity or Raven, a folder, or a pattern of them   path of the recording below the audio root
tar       .tar, a folder of them, or a pattern (``shards/*.tar``)     shard/member
parquet   .parquet with audio bytes, likewise                         shard/row
hdf5      .h5 or .hdf5, likewise                                      shard/name
several   more than one of these                                      as above, below a folder that holds them all
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
from collections.abc import Sequence
from pathlib import Path

import logitstore.audio
from logitstore.audio.audiofile import AUDIO_SUFFIXES, SNDFILE_SUFFIXES
from logitstore.audio.folder import FolderSource, walk
from logitstore.audio.labelfiles import SUFFIX, LabelFiles, is_label_file
from logitstore.audio.manifest import SUFFIXES, ManifestSource, is_manifest, table_suffix
from logitstore.audio.packed import KINDS
from logitstore.audio.several import AnythingBelow, AudioFiles, Several
from logitstore.audio.source import ColumnNames, Source, normal_path, text_key
from logitstore.errors import SourceError

for _module in pkgutil.iter_modules(logitstore.audio.__path__):
    if _module.name != "sources":
        importlib.import_module(f"logitstore.audio.{_module.name}")


def open_source(
    source: str | Sequence[str], audio_root: str | None = None, columns: ColumnNames | None = None
) -> Source:
    """The source that ``source`` names, for listing and reading.

    :param source: one, or several to be read as one: a folder, a table, label files, audio files, a packed file, a
        folder of packed files, or a pattern of files with ``*``, ``?``, ``[a-z]``, ``{a,b}`` or ``{000..127}``.
    :param audio_root: what a table's paths are relative to (a folder or packed; the table's own folder if None);
        for the other kinds a folder above the source, from which keys then start.
    :param columns: which columns of a table say what; by their usual names by default.
    :raises SourceError: missing, empty, ambiguous, or of no known kind.
    """
    given = [source] if isinstance(source, str) else list(dict.fromkeys(source))
    if not given:
        raise SourceError("no source was given; give a folder of audio, a table, or packed audio")
    files, root = _files(given[0]) if len(given) == 1 else ([], Path())
    if len(given) == 1 and len(files) < 2:
        return _single(files[0] if files else Path(given[0]), given[0], audio_root, columns)
    if len(given) > 1:
        found = [_files(each) for each in given]
        if all(each and not any(map(_is_table, each)) and _ending(each[0]) in KINDS for each, _ in found):
            kinds = sorted({KINDS[_ending(file)].kind for each, _ in found for file in each if _ending(file) in KINDS})
            if len(kinds) == 1:
                files = [file for each, _ in found for file in each]
        if all(each and all(_ending(file) in AUDIO_SUFFIXES for file in each) for each, _ in found):
            files = [file for each, _ in found for file in each]
        root = _common([below for _, below in found])
    if files and not any(map(_is_table, files)):
        if all(_ending(file) in AUDIO_SUFFIXES for file in files):
            return _audio_files(files, _root_above(root, audio_root))
        return _packed(", ".join(given), files, _root_above(root, audio_root))
    if files and all(_ending(file) == SUFFIX for file in files):
        return LabelFiles(tuple(files), root, open_audio(audio_root if audio_root is not None else str(root)))
    return _joined(given, files, root, audio_root, columns)


def _joined(
    given: list[str], files: list[Path], root: Path, audio_root: str | None, columns: ColumnNames | None
) -> Source:
    """Several sources of any kind, under one root: what was given, or the files of one pattern of tables."""
    what = ", ".join(given)
    base = root if audio_root is None else Path(audio_root)
    sources: list[tuple[str, Source]] = []
    for each in files or given:
        if isinstance(each, Path):
            one = _single(each, str(each), audio_root, columns)
        else:
            one = open_source(each, audio_root if audio_root is not None or _names_tables(each) else str(root), columns)
        below = ""
        if audio_root is None and one.kind in ("manifest", "labels", "several"):
            folder = _files(each)[1] if isinstance(each, str) else each.parent
            below = Path(os.path.relpath(folder, root)).as_posix()
        sources.append(("" if below == "." else below, one))
    if not base.is_dir() and any(one.kind not in ("manifest", "labels") for _, one in sources):
        raise SourceError(f"{audio_root}: the audio root of several sources must be a folder above them")
    return Several(sources, open_audio(str(base)) if not base.is_dir() else AnythingBelow(base), what)


def open_audio(audio_root: str) -> Source:
    """The audio of a store's clips, for reading by key: a folder, or whatever packed source the store was built from.

    :raises SourceError: missing or of no known kind.
    """
    path = Path(audio_root)
    if path.is_dir():
        files = _packed_below(path)
        if len({KINDS[_ending(file)].kind for file in files}) != 1:
            return AnythingBelow(path)
        return _packed(audio_root, files, path)
    files, root = _files(audio_root)
    if all(_ending(file) in AUDIO_SUFFIXES for file in files):
        return _audio_files(files, root)
    return _packed(audio_root, files, root)


def _files(source: str) -> tuple[list[Path], Path]:
    """The files that a source names, and the folder that it lies in; no files for a folder.

    :raises SourceError: there is nothing of this name.
    """
    path = Path(source)
    if path.is_dir():
        return [], path
    if path.is_file():
        return [path], path.parent
    if any(mark in source for mark in "*?[{"):
        return _expand(source)
    if path.exists():
        raise SourceError(f"{source}: neither a regular file nor a folder; save what it gives as a file")
    raise SourceError(
        f"{source}: no such file or folder; give a folder of audio, a manifest ({', '.join(SUFFIXES)}, .parquet) "
        "or packed audio (.tar, .parquet, .h5)"
    )


def _single(path: Path, source: str, audio_root: str | None, columns: ColumnNames | None) -> Source:
    """The source that is one file or one folder."""
    if path.is_dir():
        files = _packed_below(path)
        if files:
            return _packed(source, files, _root_above(path, audio_root))
        labels = _label_files(path)
        if labels:
            return LabelFiles(tuple(labels), path, open_audio(audio_root if audio_root is not None else str(path)))
        found = FolderSource(_root_above(path, audio_root), path)
        found.reading.notes += _unread(path)
        return found
    if is_manifest(path):
        return ManifestSource(path, open_audio(audio_root if audio_root is not None else str(path.parent)), columns)
    if _ending(path) == SUFFIX:
        return LabelFiles((path,), path.parent, open_audio(audio_root if audio_root is not None else str(path.parent)))
    if _ending(path) in AUDIO_SUFFIXES:
        return _audio_files([path], _root_above(path.parent, audio_root))
    return _packed(source, [path], _root_above(path.parent, audio_root))


def _packed(source: str, files: list[Path], root: Path) -> Source:
    endings = {_ending(file) for file in files}
    kinds = sorted({KINDS[ending].kind if ending in KINDS else ending or "no ending" for ending in endings})
    if len(kinds) > 1:
        raise SourceError(f"{source}: files of several kinds ({', '.join(kinds)}); give a pattern of one, as in *.tar")
    packed = KINDS.get(endings.pop())
    if packed is None:
        raise SourceError(
            f"{source}: unknown kind of source {kinds[0]!r}; allowed are a folder of audio, audio files, label files "
            f"({SUFFIX}), {', '.join((*SUFFIXES, *sorted(KINDS)))}"
        )
    return packed(root, tuple(sorted(_keys(files, root, source))))


def _audio_files(files: list[Path], root: Path) -> Source:
    return AudioFiles(root, tuple(dict.fromkeys(_keys(files, root, str(root)))))


def _keys(files: list[Path], root: Path, source: str) -> list[str]:
    return [text_key(Path(os.path.relpath(file, root)).as_posix(), source) for file in files]


def _ending(path: Path) -> str:
    return path.suffix.lower()


def _is_table(path: Path) -> bool:
    return _ending(path) == SUFFIX or (path.is_file() and is_manifest(path))


def _names_tables(source: str) -> bool:
    """Whether a source is tables or label files, whose audio lies below their own folder."""
    files, folder = _files(source)
    return any(map(_is_table, files)) or (not files and not _packed_below(folder) and bool(_label_files(folder)))


def _common(folders: list[Path]) -> Path:
    """The deepest folder that holds all of some folders."""
    try:
        shared = Path(os.path.commonpath([folder.absolute() for folder in folders]))
    except ValueError:
        raise SourceError("the sources lie on several drives; give them from one") from None
    return Path(os.path.relpath(shared)) if not any(folder.is_absolute() for folder in folders) else shared


def _label_files(folder: Path) -> list[Path]:
    """The label files of a folder that has no audio of its own; none where it has some."""
    found = []
    for key in walk(folder, folder, AUDIO_SUFFIXES | KINDS.keys() | {SUFFIX}):
        if posixpath.splitext(key)[1].lower() != SUFFIX:
            return []
        found.append(folder / key)
    return found


def _unread(folder: Path) -> list[str]:
    """A note of the tables and label files that lie in a folder of audio, and are not read."""
    with os.scandir(folder) as entries:
        seen = [entry for entry in entries if not entry.name.startswith(".")]
        names = sorted(entry.name for entry in seen if os.path.isfile(entry.path))  # noqa: PTH113  # loops are none
    tables = [name for name in names if table_suffix(Path(name)) in SUFFIXES]
    labels = [name for name in names if _ending(Path(name)) == SUFFIX and is_label_file(folder / name)]
    notes = [f"{folder / name} is not read; give it as the source to use what it says" for name in tables[:1]]
    if labels:
        notes.append(
            f"{len(labels)} label files such as {labels[0]!r} are not read; give '{folder}/*{SUFFIX}' as the source"
        )
    return notes


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
    for key in walk(folder, folder, SNDFILE_SUFFIXES | KINDS.keys()):
        if posixpath.splitext(key)[1].lower() in SNDFILE_SUFFIXES:
            return []
        found.append(folder / key)
    return found


def _expand(pattern: str) -> tuple[list[Path], Path]:
    """The files of a brace and glob pattern, and the folder before its first part with a mark."""
    parts = Path(pattern).parts
    fixed = list(itertools.takewhile(lambda part: not any(mark in part for mark in "*?[{"), parts))
    files: list[Path] = []
    folders: list[str] = []
    for alternative in _braces(pattern):
        if any(mark in alternative for mark in "*?["):
            matches = sorted(glob.glob(alternative, recursive=True))  # noqa: PTH207
        else:
            matches = [alternative]
            if not Path(alternative).is_file():
                raise SourceError(f"{alternative}: no such file, named by the pattern {pattern}")
        files.extend(Path(match) for match in matches if Path(match).is_file())
        folders += [match for match in matches if Path(match).is_dir()]
    if not files:
        found = f", only the folders {', '.join(folders[:3])}: give them without quotes" if folders else ""
        raise SourceError(f"{pattern}: no file matches this pattern{found}")
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
