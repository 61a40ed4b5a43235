"""Text tables as people write them: CSV and its relatives, read so that no cell changes and no row moves.

The encoding is read from the byte order mark, and is UTF-8 without one; the separator is the one that the header has.
A column is one of numbers only where every cell is written as a program would write that number again; all else stays
text: "007", "1e5", "NA", "True", dates. Lines are counted as an editor counts them.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
import stat
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from logitstore.audio.source import first_line
from logitstore.errors import SourceError
from logitstore.files import require_no_hole

if TYPE_CHECKING:
    import pyarrow as pa

#: A text table may hold so many bytes, unpacked.
MOST_BYTES = 1 << 31
_CELL = 1 << 24  # characters in one cell: an unpaired quote swallows the rest of a file
_CHUNK = 1 << 16
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2"}
_MARKS = {
    codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF32_LE: "utf-32-le", codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be",
}  # fmt: skip
_WHOLE = r"-?[1-9][0-9]{0,17}|0"
_DECIMAL = r"-?(0|[1-9][0-9]*)\.[0-9]+"
_MOST_CHARACTERS = 16  # of a decimal number that a float64 holds as it is written


@dataclass
class Rows:
    """The cells of a table, as text columns, and where each row began.

    ``where`` gives the place of a row for messages. ``notes`` say how the file was read, where that is no matter of
    course.
    """

    table: pa.Table
    where: Callable[[int], str]
    notes: list[str] = field(default_factory=list)


def content(path: Path) -> tuple[bytes, list[str]]:
    """The bytes of a text file, unpacked where it is compressed, and a note of that.

    :raises SourceError: no regular file, unreadable, or unpacked larger than any list of clips.
    """
    import pyarrow as pa

    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise SourceError(f"{path}: not a regular file; save the table as a file")
        require_no_hole(path)
        with path.open("rb") as file:
            head = file.read(4)
            file.seek(0)
            packed = next((name for mark, name in _PACKED.items() if head.startswith(mark)), None)
            stream: Any = file if packed is None else pa.CompressedInputStream(file, packed)
            read = bytearray()
            while chunk := stream.read(1 << 22):
                read += chunk
                if len(read) > MOST_BYTES:
                    raise SourceError(f"{path}: more than {MOST_BYTES >> 30} GiB of text; give it as Parquet")
    except (OSError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise SourceError(f"{path}: cannot be read: {reason}") from None
    return bytes(read), [] if packed is None else [f"unpacked from {packed}"]


def decoded(path: Path) -> tuple[str, list[str]]:
    """The text of a file, and notes of how it was read.

    :raises SourceError: it is not text, or in an encoding that it does not state.
    """
    raw, notes = content(path)
    if raw[:4] in (b"PK\x03\x04", b"PAR1"):
        found = "Parquet: call it .parquet" if raw[:3] == b"PAR" else "a spreadsheet or an archive: save it as CSV"
        raise SourceError(f"{path}: this is no text but {found}")
    mark = next((mark for mark in sorted(_MARKS, key=len, reverse=True) if raw.startswith(mark)), b"")
    encoding = _MARKS.get(mark, "utf-8")
    if encoding != "utf-8":
        notes.append(f"decoded from {encoding.upper()}")
    try:
        text = raw[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise SourceError(f"{path}: not {encoding.upper()}, as its first bytes say; save it as UTF-8") from None
        line = raw.count(b"\n", 0, error.start) + 1
        around = raw[max(0, error.start - 20) : error.start + 20].decode("cp1252", "replace").splitlines()
        context = next((part for part in around if any(ord(letter) > 127 for letter in part)), "")
        raise SourceError(
            f"{path}, line {line}: {_column(raw, line)} is not UTF-8; save the manifest as UTF-8 "
            f"(it reads {context.strip()!r} in Windows-1252)"
        ) from None
    if "\0" in text:
        raise SourceError(f"{path}: holds NUL characters; if it is UTF-16, save it as UTF-8")
    return text, notes


def _column(raw: bytes, line: int) -> str:
    """Which column of a line is not UTF-8, as well as can be told."""
    lines = raw.split(b"\n")
    try:
        mark = max((b",", b";", b"\t"), key=lines[0].count)
        names, cells = lines[0].split(mark), lines[line - 1].split(mark)
        for name, cell in zip(names, cells, strict=False):
            try:
                cell.decode()
            except UnicodeDecodeError:
                return f"the column {name.decode().strip()!r}" if line > 1 else "a name of a column"
    except UnicodeDecodeError:
        return "a name of a column"
    return "this"


def read_rows(path: Path, known: Callable[[list[str]], bool], separator: str | None = None) -> Rows:
    """The rows of a text table under its header.

    :param known: whether a header is one that the reader understands; decides between separators.
    :param separator: the one to try first: a tab for .tsv, a comma else.
    :raises SourceError: not text, no header, or a row that does not have a cell for each name of the header.
    """
    text, notes = decoded(path)
    first = last = 0
    while text.startswith("#", first):  # lines of comment before the header
        last, first = first, (text.find("\n", first) + 1) or len(text)
    said = re.match(r"sep=([,;|\t])\r?\n", text[first : first + 16])  # as Excel writes it
    start = first + (said.end() if said else 0)
    preferred = said.group(1) if said else separator or ","
    commented = text[last:first].lstrip("#").strip()
    if commented and _understood(commented, known):  # the header is itself a comment, as in AudioSet's lists
        mark, spaced = _separator(commented, preferred, known)
        header = next(csv.reader([commented], delimiter=mark, skipinitialspace=spaced))
        rows = _records(path, text, start, mark, spaced)
    else:
        mark, spaced = _separator(text[start:].split("\n", 1)[0].strip("\r"), preferred, known)
        rows = _records(path, text, start, mark, spaced)
        try:
            _, header = next(rows)
        except StopIteration:
            raise SourceError(f"{path}: not readable as a manifest: it is empty") from None
        if first:
            notes.append(f"{text.count(chr(10), 0, first)} lines of comment skipped")
    if mark != (separator or ","):
        notes.append(f"separated by {_SEPARATORS[mark]}")
    return _table(path, [name.strip() for name in header], rows, notes)


def _understood(header: str, known: Callable[[list[str]], bool]) -> bool:
    return any(known(_cells(header, mark)) for mark in _SEPARATORS)


def _cells(header: str, mark: str) -> list[str]:
    try:
        return [name.strip() for name in next(csv.reader([header], delimiter=mark, skipinitialspace=True), [])]
    except csv.Error:
        return []


def _separator(header: str, preferred: str, known: Callable[[list[str]], bool]) -> tuple[str, bool]:
    """The separator of a header, and whether a space follows each."""
    marks = sorted(_SEPARATORS, key=lambda mark: mark != preferred)
    names = {mark: _cells(header, mark) for mark in marks}
    understood = [mark for mark in marks if known(names[mark])]
    mark = next(iter(understood), max(marks, key=lambda mark: (len(names[mark]) > 1, mark == preferred)))
    raw = header.split(mark)
    return mark, len(raw) > 1 and mark != "\t" and all(name.startswith(" ") for name in raw[1:])


def _records(path: Path, text: str, start: int, mark: str, spaced: bool) -> Iterator[tuple[int, list[str]]]:
    """The records after an offset of a text, each with the line that it begins in; blank ones are left out."""
    before = text.count("\n", 0, start)
    csv.field_size_limit(_CELL)
    reader = csv.reader(
        io.StringIO(text[start:] if start else text, newline=""), delimiter=mark, skipinitialspace=spaced, strict=True
    )
    while True:
        line = before + reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise SourceError(
                f"{path}, line {line}: not readable as a table: {first_line(error)}; perhaps a quote is not closed"
            ) from None
        if cells:
            yield line, cells


def _table(path: Path, header: list[str], rows: Iterator[tuple[int, list[str]]], notes: list[str]) -> Rows:
    import pyarrow as pa

    lines = array("q")
    chunks: list[list[pa.Array]] = [[] for _ in header]
    waiting: list[list[str]] = []
    empty = 0

    def flush() -> None:
        for into, cells in zip(chunks, zip(*waiting, strict=True), strict=True):
            into.append(pa.array(cells, pa.string()))
        waiting.clear()

    width = len(header)
    for line, cells in rows:
        if len(cells) != width:
            if len(cells) > width and not any(cells[width:]):
                del cells[width:]  # commas at the end of the line
            elif not any(cells):
                empty += 1
                continue
            else:
                raise SourceError(
                    f"{path}, line {line}: {len(cells)} cell{'s' * (len(cells) != 1)} where the header has {width} "
                    f"({', '.join(map(repr, cells[:4]))}{', …' if len(cells) > 4 else ''}); mend this line"
                )
        if width > 1 and not any(cells):
            empty += 1
            continue
        lines.append(line)
        waiting.append(cells)
        if len(waiting) == _CHUNK:
            flush()
    if waiting:
        flush()
    if empty:
        notes.append(f"{empty} lines without any text left out")
    columns = [pa.chunked_array(each, pa.string()) for each in chunks]
    names, unnamed = _named(header, columns)
    if unnamed:
        notes.append(f"columns without a name are kept as {', '.join(unnamed)}")
    kept = [at for at, name in enumerate(names) if name]
    table = pa.table([columns[at] for at in kept], names=[names[at] for at in kept])
    return Rows(table, lambda row: f"{path}, line {lines[row]}", notes)


def _named(header: list[str], columns: list[Any]) -> tuple[list[str], list[str]]:
    """Names of the columns: one without a name is called by its place, or not at all where it is empty."""
    import pyarrow.compute as pc

    names = list(header)
    unnamed = []
    for at, name in enumerate(header):
        if not name and pc.any(pc.greater(pc.utf8_length(columns[at]), 0)).as_py():
            names[at] = f"column_{at + 1}"
            while names.count(names[at]) > 1:
                names[at] += "_"
            unnamed.append(names[at])
    return names, unnamed


def typed(rows: Rows, name: str, notes: list[str]) -> pa.ChunkedArray:
    """A column of text as what it is: whole numbers, numbers, or the text itself.

    An empty cell is null among numbers, and empty text among text; a column of empty cells is null throughout.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    column = rows.table.column(name)
    cells = pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
    if cells.null_count == len(cells):
        return cells
    whole = pc.match_substring_regex(cells, f"^({_WHOLE})$")
    if pc.all(whole).as_py():
        return cells.cast(pa.int64())
    decimal = pc.match_substring_regex(cells, f"^({_DECIMAL})$")
    short = pc.less_equal(pc.utf8_length(cells), _MOST_CHARACTERS)
    plain = pc.or_(whole, pc.and_(decimal, short))
    others = [text for text in pc.unique(pc.filter(cells, pc.invert(plain))).to_pylist() if text is not None]
    other = next((text for text in others if not _is_float(text)), None)
    if other is None:
        return cells.cast(pa.float64())
    if pc.any(plain).as_py():
        row = cast(int, pc.index(column, other).as_py())
        place = rows.where(row).rpartition(", ")[2]
        notes.append(f"the column {name!r} has numbers and is kept as text for {other!r} ({place})")
    return column


def _is_float(text: str) -> bool:
    """Whether a float64 prints as just this text."""
    try:
        return repr(float(text)) == text and text not in ("nan", "inf", "-inf")
    except ValueError:
        return False
