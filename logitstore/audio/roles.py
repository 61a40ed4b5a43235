"""Which columns of a table say which file a clip is of, and from where to where: by their usual names, or as told."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from logitstore.audio.source import ColumnNames
from logitstore.errors import SourceError
from logitstore.options import nearest

_SECONDS = ("", "_s", "_sec", "_secs", "_seconds", "_time", "_time_s", "_time_sec", "_time_secs", "_time_seconds")
_PATHS = (
    "path", "filename", "file", "file_name", "filepath", "file_path", "fname", "audio", "audio_path", "audio_file",
    "audio_filename", "audio_filepath", "audio_file_path", "wav", "wav_path", "wav_file", "wavfile", "slice_file_name",
    "ytid",
)  # fmt: skip
_STARTS = tuple(base + end for base in ("start", "onset", "begin", "segment_start") for end in _SECONDS)
_ENDS = tuple(base + end for base in ("end", "stop", "segment_end") for end in _SECONDS)
_OFFSETS = tuple("offset" + end for end in _SECONDS)  # the end beside an onset, as in DCASE; the start else, as in NeMo
_DURATIONS = tuple(base + end for base in ("duration", "dur", "segment_duration") for end in _SECONDS)


@dataclass(frozen=True)
class Roles:
    """The columns of a table that say something of the clips; None where there is none.

    ``guessed`` are those of start, end and duration that are no more than likely by the names of their columns: they
    count if these hold numbers.
    """

    path: str
    start: str | None = None
    end: str | None = None
    duration: str | None = None
    guessed: frozenset[str] = frozenset()

    def used(self) -> dict[str, str]:
        """The user's column of each of path, start, end and duration."""
        named = {"path": self.path, "start": self.start, "end": self.end, "duration": self.duration}
        return {name: column for name, column in named.items() if column is not None}


def plain(name: str) -> str:
    """A name without case, spaces and marks: 'Begin Time (s)' is begin_time_s."""
    return re.sub(r"[^0-9a-z]+", "_", name.lower()).strip("_")


def has_path(names: Sequence[str], asked: ColumnNames) -> bool:
    """Whether a header names a column of files."""
    return asked.path in names if asked.path else any(plain(name) in _PATHS for name in names)


def roles(names: Sequence[str], asked: ColumnNames, what: str) -> Roles:
    """The columns that say where clips are.

    :raises SourceError: there is no column of files, or there are several; a column that was asked for is not there.
    """
    path = _asked("path", asked.path, names, what) if asked.path else _path(names, what)
    start, end, duration = (
        _asked(role, getattr(asked, role), names, what) if getattr(asked, role) else None
        for role in ("start", "end", "duration")
    )
    if plain(path) == "slice_file_name" and asked.start is None and asked.end is None:
        # UrbanSound8K: its start and end lie in the recordings that the slices were cut from
        return Roles(path, start, end, duration)
    rest = [name for name in names if name not in (path, start, end, duration)]
    guessed: set[str] = set()
    known_start = _exact("start", rest) if start is None and asked.start is None else start
    known_end = _exact("end", rest) if end is None and asked.end is None else end
    known_duration = _exact("duration", rest) if duration is None and asked.duration is None else duration
    rest = [name for name in rest if name not in (known_start, known_end, known_duration)]
    start, end, duration = known_start, known_end, known_duration
    offsets = [name for name in rest if plain(name) in _OFFSETS]
    starts = [name for name in rest if plain(name) in _STARTS]
    ends = [name for name in rest if plain(name) in _ENDS]
    durations = [name for name in rest if plain(name) in _DURATIONS]
    if any(plain(name).startswith("onset") for name in (*starts, start or "")):
        ends += offsets
    elif start is None and not starts:
        starts = offsets
    # a start alone may be the time of day, an end alone anything: only together do they mean a piece of a file
    if start is None and asked.start is None and starts and (end or duration or ends or durations):
        start = _single("start", starts, what)
        guessed.add("start")
    if start is not None and end is None and duration is None:
        if asked.end is None and ends:
            end = _single("end", ends, what)
            guessed.add("end")
        elif asked.duration is None and durations:
            duration = _single("duration", durations, what)
            guessed.add("duration")
        elif guessed:
            start, guessed = None, set()
    return Roles(path, start, end, duration, frozenset(guessed))


def _path(names: Sequence[str], what: str) -> str:
    found = [name for name in names if name == "path"] or [name for name in names if plain(name) == "path"]
    found = found or [name for name in names if plain(name) in _PATHS]
    if not found:
        raise SourceError(
            f"{what}: no column 'path'; found {', '.join(map(repr, names)) or 'none'}; "
            "name the column of audio files with --path-column"
        )
    if len(found) > 1:
        raise SourceError(
            f"{what}: {' and '.join(map(repr, found))} may each be the column of audio files; "
            "name it with --path-column"
        )
    return found[0]


def _asked(role: str, column: str, names: Sequence[str], what: str) -> str:
    if column not in names:
        there = [name for name in names if name]
        raise SourceError(
            f"{what}: no column {column!r}, which --{role}-column names; {nearest(column, there) if there else ''}"
        )
    return column


def _exact(role: str, names: Sequence[str]) -> str | None:
    return next((name for name in names if name == role), next((name for name in names if plain(name) == role), None))


def _single(role: str, found: Sequence[str], what: str) -> str:
    if len(found) > 1:
        raise SourceError(
            f"{what}: {' and '.join(map(repr, found))} may each be the column of the {role} in seconds; "
            f"name it with --{role}-column, or none with --{role}-column ''"
        )
    return found[0]
