"""Label files as sources: Audacity's label tracks and Raven's selection tables, each of one recording or of several.

A file belongs to the recording of its own name (``a.txt`` to ``a.wav``, ``a.Table.1.selections.txt`` likewise), unless
it names one itself. Every labelled span is a clip, or several; spans that are labelled twice have both labels.
"""

from __future__ import annotations

import os
import posixpath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from logitstore.audio import audacity, raven
from logitstore.audio.audiofile import Audio
from logitstore.audio.delimited import decoded
from logitstore.audio.source import Reading, Source, join_tables, normal_path, text_key, user_columns
from logitstore.audio.stems import Stems
from logitstore.errors import SourceError

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIX = ".txt"


def is_label_file(file: Path) -> bool:
    """Whether a text file is of labels, by its first bytes."""
    try:
        with file.open("rb") as stream:
            head = stream.read(4096).decode("utf-8-sig", "replace")
    except OSError:
        return False
    return raven.is_table(head) or audacity.is_track(head)


class LabelFiles:
    """Text files of labels, and the audio that they are of.

    :param files: of labels. :param folder: that their names are relative to. :param audio: where the recordings are.
    """

    kind = "labels"
    segmented = True

    def __init__(self, files: tuple[Path, ...], folder: Path, audio: Source) -> None:
        self.files = files
        self.folder = folder
        self.audio = audio
        self.reading = Reading()

    def read(self, path: str) -> Audio:
        return self.audio.read(path)

    def listing(self) -> pa.Table:

        self.reading = Reading()
        stems = Stems(self.audio.listing().column("path").to_pylist())
        tables, notes, absent = [], dict[str, int](), list[Path]()
        for file in self.files:
            found: list[str] = []
            table = self._table(file, stems, found, absent)
            if table.num_rows:
                tables.append(table)
            for note in found:
                notes[note] = notes.get(note, 0) + 1
        self.reading.notes += [note if count == 1 else f"{note} ({count} files)" for note, count in notes.items()]
        if not tables:
            raise SourceError(f"{self.folder}: no label with a length in {len(self.files)} files")
        if len(absent) == len(self.files):
            raise SourceError(
                f"{absent[0]}: there is no audio of this name in the audio root; call a recording and its labels "
                "alike, or give the audio's folder as --audio-root"
            )
        if absent:
            self.reading.notes.append(
                f"{len(absent)} of {len(self.files)} label files have no recording, such as {absent[0]}; their clips "
                "will be failures"
            )
        return _merged(join_tables(tables, str(self.folder)), self.reading.notes)

    def _table(self, file: Path, stems: Stems, notes: list[str], absent: list[Path]) -> pa.Table:
        import pyarrow as pa

        text, read = decoded(file)
        if raven.is_table(text):
            rows, files = raven.read_table(file, notes)
            keys = [self._recording(name or "", file, stems, absent) for name in files]
            start, end = (rows.table.column(name).to_pylist() for name in ("start", "end"))
            others = user_columns(rows.table.drop_columns(["start", "end"]), str(file), self.reading)
            self.reading.used.update(path="Begin File", start="Begin Time (s)", end="End Time (s)")
        elif audacity.is_track(text):
            notes += read
            labels = audacity.read_track(file, text, notes)
            key = self._recording("", file, stems, absent)
            keys, start, end = [key] * len(labels), [one for one, _, _ in labels], [one for _, one, _ in labels]
            others = pa.table(
                {"label": pa.array([[each[2]] if each[2] else [] for each in labels], pa.list_(pa.string()))}
            )
        elif not text.strip():
            notes.append("label files without a label")
            return pa.table({"path": pa.array([], pa.string())})
        else:
            raise SourceError(
                f"{file}: neither a label track of Audacity (START<tab>END<tab>TEXT) nor a selection table of Raven "
                "(with 'Begin Time (s)'); a table of files with a header is a .csv or .tsv"
            )
        spans = [stop - first for first, stop in zip(start, end, strict=True)]
        times = {"path": pa.array(keys, pa.string()), "start": pa.array(start, pa.float64()),
                 "duration": pa.array(spans, pa.float64())}  # fmt: skip
        return pa.table(times | {name: others.column(name) for name in others.column_names})

    def _recording(self, named: str, file: Path, stems: Stems, absent: list[Path]) -> str:
        """The key of the recording that a label file is of; one that there is not will fail, by the name it has."""
        below = text_key(Path(os.path.relpath(file, self.folder)).as_posix(), str(file))
        if named:
            folder = posixpath.dirname(below)
            name = named.replace("\\", "/").rpartition("/")[2]
            beside = normal_path(posixpath.join(folder, name))
            found = [key for key in (stems.find(beside or name), stems.find(name)) if key is not None]
            if not found and len(stems.several(name)) > 1:
                raise SourceError(f"{file}: {name!r} may be {' or '.join(stems.several(name)[:3])}; keep one of them")
            return found[0] if found else beside or name
        name = posixpath.splitext(below)[0]
        while True:
            for each in (name, posixpath.basename(name)):
                if (key := stems.find(each)) is not None:
                    return key
                if len(stems.several(each)) > 1:
                    raise SourceError(f"{file}: it may be of {' or '.join(stems.several(each)[:3])}; keep one of them")
            shorter, dot, _ = name.rpartition(".")
            if not dot or "/" in name[len(shorter) :]:
                absent.append(file)
                return posixpath.splitext(below)[0] + ".wav"
            name = shorter


def _merged(table: pa.Table, notes: list[str]) -> pa.Table:
    """One row a span: labels of the same span are put together, as lists where they are text."""
    import pyarrow as pa

    keys = list(zip(*(table.column(name).to_pylist() for name in ("path", "start", "duration")), strict=True))
    if len(set(keys)) == len(keys):
        return table
    groups: dict[Any, list[int]] = {}
    for row, key in enumerate(keys):
        groups.setdefault(key, []).append(row)
    notes.append(f"{len(keys) - len(groups)} labels are of the same span as another, and are put with it")
    firsts = table.take([rows[0] for rows in groups.values()])
    for at, name in enumerate(table.column_names):
        kind = table.schema.field(name).type
        if name in ("path", "start", "duration") or not (pa.types.is_string(kind) or pa.types.is_list(kind)):
            continue
        values = table.column(name).to_pylist()
        joined = [[values[row] for row in rows] for rows in groups.values()]
        flat = [
            list(dict.fromkeys(one for each in parts for one in (each if isinstance(each, list) else [each]) if one))
            for parts in joined
        ]
        if pa.types.is_list(kind) or any(len(each) > 1 for each in flat):
            firsts = firsts.set_column(at, name, pa.array(flat, pa.list_(pa.string())))
    return firsts
