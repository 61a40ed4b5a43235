"""Selection tables of Raven, which BirdNET writes too: tabs, a header, one selection a row (or a row for each view).

``Begin File`` names the recording; where a table lacks it, the table's own name does. ``File Offset (s)`` is the start
in that file, where ``Begin Time (s)`` may count through several files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from logitstore.audio.delimited import Rows, read_rows, typed
from logitstore.audio.roles import plain
from logitstore.errors import SourceError

BEGIN, END, FILE, OFFSET = "begin_time_s", "end_time_s", "begin_file", "file_offset_s"


_COLUMNS = (
    "Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)", "Begin File",
    "File Offset (s)", "Label", "Probability",
)  # fmt: skip


@dataclass(frozen=True)
class Recording:
    """What a table says of one file: its ``name``, length in ``seconds``, ``rate`` in Hz, and its selections as (start
    and end in seconds of the file, label, probability)."""

    name: str
    seconds: float
    rate: int
    selections: tuple[tuple[float, float, str, float], ...]


def is_table(text: str) -> bool:
    """Whether a text is a selection table, by its header."""
    names = {plain(name) for name in text.split("\n", 1)[0].split("\t")}
    return BEGIN in names and END in names


def read_table(path: Path, notes: list[str]) -> tuple[Rows, list[str | None]]:
    """The selections of a table with ``start`` and ``end`` in the file, in seconds, and the file that each row names.

    :raises SourceError: not readable, a time that is no number, or times that count through several files.
    """
    import pyarrow as pa

    rows = read_rows(path, lambda names: BEGIN in map(plain, names), "\t")
    notes += rows.notes
    by_name = {plain(name): name for name in rows.table.column_names}
    rows = _once(rows, by_name, notes)
    files: list[str | None] = [None] * rows.table.num_rows
    if FILE in by_name:
        files = [name or None for name in rows.table.column(by_name[FILE]).to_pylist()]
    begin, end = (_seconds(rows, by_name[name]) for name in (BEGIN, END))
    start = list(begin)
    if OFFSET in by_name:
        start = _seconds(rows, by_name[OFFSET])
    elif len(set(files)) > 1:
        raise SourceError(
            f"{path}: the times count through {len(set(files))} files ({BEGIN.replace('_', ' ')}); "
            "export the table with the column 'File Offset (s)'"
        )
    stop = [at + (last - first) for at, first, last in zip(start, begin, end, strict=True)]
    for row, (first, last) in enumerate(zip(start, stop, strict=True)):
        if not 0 <= first < last:
            raise SourceError(
                f"{rows.where(row)}: it begins at {first:g} s and ends at {last:g} s; mend this selection"
            )
    own = [by_name[name] for name in (BEGIN, END, FILE, OFFSET) if name in by_name]
    others = {name: typed(rows, name, notes) for name in rows.table.column_names if name not in own}
    table = pa.table({"start": start, "end": stop} | others)
    return Rows(table, rows.where, []), files


def write_table(recordings: Iterable[Recording]) -> Iterator[str]:
    """The lines of a selection table, as :func:`read_table` reads it; times count through the files as Raven's do.

    Blanks stand for tabs and ends of lines in names and labels, which a table cannot hold.
    """
    yield "\t".join(_COLUMNS) + "\n"
    before, number = 0.0, 0
    for each in recordings:
        for start, end, label, probability in each.selections:
            number += 1
            cells = (
                str(number), "Spectrogram 1", "1", f"{before + start:.6f}", f"{before + end:.6f}", "0.0",
                f"{each.rate / 2:.1f}", each.name, f"{start:.6f}", label, f"{probability:.4f}",
            )  # fmt: skip
            yield "\t".join(" ".join(cell.split()) for cell in cells) + "\n"
        before += each.seconds


def _once(rows: Rows, by_name: dict[str, str], notes: list[str]) -> Rows:
    """Each selection once, where a table has a row for its waveform and one for its spectrogram."""
    if "selection" not in by_name or "view" not in by_name:
        return rows
    numbers = rows.table.column(by_name["selection"]).to_pylist()
    first = {number: row for row, number in reversed(list(enumerate(numbers)))}
    kept = sorted(first.values())
    if len(kept) == len(numbers):
        return rows
    notes.append(f"{len(numbers) - len(kept)} rows are other views of the same selections, and are left out")
    return Rows(rows.table.take(kept), lambda row: rows.where(kept[row]), rows.notes)


def _seconds(rows: Rows, column: str) -> list[float]:
    found = []
    for row, text in enumerate(rows.table.column(column).to_pylist()):
        try:
            found.append(float(text))
        except ValueError:
            raise SourceError(f"{rows.where(row)}: {column} is {text!r}; it must be a number of seconds") from None
    return found
