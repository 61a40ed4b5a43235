"""Verdicts: what people say of clips that they have listened to, in a CSV file beside a store and never in it.

The file is only ever appended to, a line a verdict: path, start, length (both in frames of the file), rate (Hz),
verdict, label, note, person, at (UTC). Of each person the last line about a clip counts; an empty verdict takes an
earlier one away. A text that a spreadsheet would run as a formula has an apostrophe before it. Clips are known by
path, start and length, so one file serves every store of the same clips.

An undo is a line too. It bears the time of the verdict that it restores or, where there was none before, of the one
that it takes away; so whoever reads the file again knows which verdict the next undo is about.

Several processes may write to one file: each line is one write at its end, under a lock.
"""

from __future__ import annotations

import codecs
import csv
import fcntl
import io
import os
import re
import stat
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from logitstore.errors import MismatchError, OutputError, UsageError
from logitstore.files import MOST_TEXT
from logitstore.notes import note
from logitstore.texts import csv_line, runs_as_formula, shown

if TYPE_CHECKING:
    import pyarrow as pa

    from logitstore.store.pieces import Pieces

COLUMNS = ("path", "start", "length", "rate", "verdict", "label", "note", "person", "at")
VERDICTS = ("right", "wrong", "unsure")
#: The name of the file in the folder that a store lies in.
FILE = "verdicts.csv"
#: Characters of a note, a label or a person's name at most.
MOST_CHARACTERS = 1000
_AT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|\+00:00)")

#: A clip: its path, and its start and length in frames of its file.
Key = tuple[str, int, int]


@dataclass(frozen=True)
class Verdict:
    """What a person said of a clip: ``verdict`` is one of "right", "wrong", "unsure" about its label; ``label`` is the
    right one where that was given; ``at`` is the time in UTC, ISO 8601."""

    verdict: str
    label: str | None
    note: str
    person: str
    at: str

    def to_dict(self) -> dict[str, str | None]:
        """Plain JSON values."""
        return dict(vars(self))


@dataclass(frozen=True)
class _Step:
    """A line of the file that no undo has taken back: what it said of a clip, and what the person had said before."""

    key: Key
    rate: int
    said: Verdict | None
    before: Verdict | None
    at: str


@dataclass
class _State:
    """What the lines read so far come to: verdicts by clip and person, and of each person what can be undone."""

    verdicts: dict[Key, dict[str, Verdict]] = field(default_factory=dict)
    steps: dict[str, list[_Step]] = field(default_factory=dict)
    latest: dict[str, str] = field(default_factory=dict)

    def take(self, key: Key, rate: int, person: str, said: Verdict | None, at: str) -> None:
        """Take in a line."""
        before = self.verdicts.get(key, {}).get(person)
        steps = self.steps.setdefault(person, [])
        if steps and steps[-1].key == key and self._undoes(steps[-1], said, at):
            steps.pop()
        else:
            steps.append(_Step(key, rate, said, before, at))
        if said is None:
            self.verdicts.get(key, {}).pop(person, None)
        else:
            self.verdicts.setdefault(key, {})[person] = said
        self.latest[person] = max(at, self.latest.get(person, ""))

    @staticmethod
    def _undoes(step: _Step, said: Verdict | None, at: str) -> bool:
        return said == step.before and at == (step.at if step.before is None else step.before.at)


class Verdicts:
    """A file of verdicts. Safe to share between threads, and with other processes that have the same file.

    :param file: where it lies; it need not be there yet, and is made with the first verdict.
    :raises UsageError: what is there is no file of verdicts, or one that is damaged; it is left as it is.
    """

    def __init__(self, file: str | os.PathLike[str]) -> None:
        self.file = Path(file)
        self.version = 0  # rises whenever the file has changed
        self._lock = threading.RLock()
        self._content = b""
        self._lines = 0
        self._seen: tuple[int, ...] | None = None
        self._state = _State()
        self.refresh()

    def refresh(self) -> int:
        """Read what others have written since; gives :attr:`version`.

        :raises UsageError: the file is no file of verdicts any more.
        """
        with self._lock:
            try:
                found = self.file.stat()
            except FileNotFoundError:
                if self._seen is not None:
                    self._forget(None)
                return self.version
            except OSError as error:
                raise self._unreadable(error) from error
            if _identity(found) != self._seen:
                if not stat.S_ISREG(found.st_mode):
                    raise UsageError(f"the file of verdicts {str(self.file)!r} is no regular file; give another place")
                try:
                    with self.file.open("rb") as file:
                        fcntl.flock(file, fcntl.LOCK_SH)
                        self._read(file.fileno())
                except OSError as error:
                    raise self._unreadable(error) from error
            return self.version

    def all(self) -> Mapping[Key, Mapping[str, Verdict]]:
        """The verdicts that count, by clip and person."""
        with self._lock:
            return {key: dict(said) for key, said in self._state.verdicts.items() if said}

    def of(self, key: Key) -> dict[str, Verdict]:
        """The verdicts on a clip, by person."""
        with self._lock:
            return dict(self._state.verdicts.get(key, {}))

    def give(
        self, person: str, key: Key, rate: int, verdict: str | None, label: str | None = None, note: str = ""
    ) -> Verdict | None:
        """Write a verdict at the end of the file; None takes the person's verdict on the clip away.

        :param rate: of the clip's file, in Hz. :returns: what stands now.
        :raises UsageError: there is no such verdict, a text is too long, or the file is none of verdicts.
        :raises OutputError: it cannot be written; the file is as it was.
        """
        if verdict is not None and verdict not in VERDICTS:
            raise UsageError(f"{shown(verdict)} is no verdict; allowed are {', '.join(VERDICTS)}")
        person = person_name(person)
        label = None if verdict is None else _text("label", label or "") or None
        note = "" if verdict is None else _text("note", note)
        if verdict is None and not self.file.exists():
            return None
        with self._open() as handle:
            at = self._now(person)
            said = None if verdict is None else Verdict(verdict, label, note, person, at)
            if said is None and self._state.verdicts.get(key, {}).get(person) is None:
                return None
            self._write(handle, key, rate, person, said, at)
            return said

    def undo(self, person: str) -> tuple[Key, Verdict | None]:
        """Take back what the person said last; gives the clip, and what the person's verdict on it is now.

        :raises UsageError: there is nothing to undo. :raises OutputError: as :meth:`give`.
        """
        nothing = UsageError(f"there is no verdict of {person} to undo")
        if not self.file.exists():
            raise nothing
        with self._open() as handle:
            steps = self._state.steps.get(person)
            if not steps:
                raise nothing
            step = steps[-1]
            at = step.at if step.before is None else step.before.at
            self._write(handle, step.key, step.rate, person, step.before, at)
            return step.key, step.before

    # the file

    @contextmanager
    def _open(self) -> Iterator[int]:
        """The file, locked and read to its end, as a descriptor to append to."""
        with self._lock:
            handle = self._locked()
            try:
                if _identity(os.fstat(handle)) != self._seen:
                    self._read(handle)
                yield handle
            finally:
                os.close(handle)

    def _locked(self) -> int:
        while True:
            try:
                handle = os.open(self.file, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
            except OSError as error:
                raise OutputError(
                    f"the verdict cannot be written to {str(self.file)!r}: {error.strerror or error}; give another "
                    "place with --verdicts"
                ) from error
            fcntl.flock(handle, fcntl.LOCK_EX)
            try:
                there, opened = self.file.stat(), os.fstat(handle)
                if (there.st_dev, there.st_ino) == (opened.st_dev, opened.st_ino):
                    return handle
            except FileNotFoundError:
                pass
            os.close(handle)  # it was replaced meanwhile

    def _read(self, handle: int) -> None:
        """Take in what is new in the file, or all of it where what was known has changed."""
        found = os.fstat(handle)
        if found.st_size > MOST_TEXT:
            raise self._wrong(f"it has more than {MOST_TEXT >> 20} MiB")
        content = os.pread(handle, found.st_size, 0)
        if not content.startswith(self._content) or (self._seen and self._seen[:2] != _identity(found)[:2]):
            self._forget(None)
        new = content[len(self._content) :]
        if new:
            self._take(new)
            self._content = content
            self.version += 1
        self._seen = _identity(found)

    def _take(self, new: bytes) -> None:
        if not new.endswith(b"\n"):
            raise self._wrong("its last line has no end: it was cut short")
        try:
            text = new.decode("utf-8-sig" if not self._content else "utf-8")
        except UnicodeDecodeError:
            raise self._wrong("it is not UTF-8") from None
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        line, state = self._lines, self._state
        try:
            for row in reader:
                line = self._lines + reader.line_num
                if not self._content and line == 1 and tuple(row) != COLUMNS:
                    raise self._wrong(f"its columns are {shown(','.join(row))}, not {','.join(COLUMNS)}")
                if row and tuple(row) != COLUMNS:
                    state.take(*self._parsed(row, line))
        except csv.Error as error:
            raise self._wrong(f"line {line + 1}: {error}") from None
        except UsageError:
            self._forget(None)
            raise
        self._lines += reader.line_num

    def _parsed(self, row: list[str], line: int) -> tuple[Key, int, str, Verdict | None, str]:
        if len(row) != len(COLUMNS):
            raise self._wrong(f"line {line} has {len(row)} cells and not {len(COLUMNS)}")
        path, start, length, rate, verdict, label, note, person, at = row
        numbers = (start, length, rate)
        if not all(re.fullmatch(r"\d{1,18}", each, re.ASCII) for each in numbers):
            raise self._wrong(f"line {line}: start, length and rate are {', '.join(map(shown, numbers))}")
        if verdict not in ("", *VERDICTS):
            raise self._wrong(f"line {line}: {shown(verdict)} is no verdict; allowed are {', '.join(VERDICTS)}")
        if not person or not _AT.fullmatch(at):
            raise self._wrong(f"line {line} has the person {shown(person)} and the time {shown(at)}")
        path, label, note, person = map(_unmarked, (path, label, note, person))
        said = Verdict(verdict, label or None, note, person, at) if verdict else None
        return (path, int(start), int(length)), int(rate), person, said, at

    def _write(self, handle: int, key: Key, rate: int, person: str, said: Verdict | None, at: str) -> None:
        path, start, length = key
        verdict, label, note = ("", "", "") if said is None else (said.verdict, said.label or "", said.note)
        path, label, note, person_cell = map(_marked, (path, label, note, person))
        line = csv_line([path, str(start), str(length), str(rate), verdict, label, note, person_cell, at])
        head = "" if self._content else csv_line(COLUMNS)
        new = (head + line).encode()
        size = os.fstat(handle).st_size
        try:
            if os.write(handle, new) != len(new):
                raise OSError(28, os.strerror(28))
            os.fsync(handle)
        except OSError as error:
            os.ftruncate(handle, size)
            raise OutputError(f"the verdict cannot be written to {str(self.file)!r}: {error.strerror}") from error
        self._content += new
        self._lines += (head + line).count("\n")
        self._state.take(key, rate, person, said, at)
        self._seen = _identity(os.fstat(handle))
        self.version += 1

    def _forget(self, seen: tuple[int, ...] | None) -> None:
        self._content, self._lines, self._state, self._seen = b"", 0, _State(), seen
        self.version += 1

    def _now(self, person: str) -> str:
        """The time, later than that of any earlier verdict of the person."""
        now = _at(datetime.now(UTC))
        latest = self._state.latest.get(person, "")
        if now <= latest:
            now = _at(datetime.fromisoformat(latest) + timedelta(milliseconds=1))
        return now

    def _wrong(self, what: str) -> UsageError:
        return UsageError(
            f"{str(self.file)!r} is no file of verdicts that can be used: {what}; it is left as it is: mend it, or "
            "give another with --verdicts"
        )

    def _unreadable(self, error: OSError) -> UsageError:
        return UsageError(f"the file of verdicts {str(self.file)!r} cannot be read: {error.strerror or error}")


def read_verdicts(file: str | os.PathLike[str]) -> Mapping[Key, Mapping[str, Verdict]]:
    """The verdicts that count in a file that must be there, by clip and person.

    :raises UsageError: there is none, or it is damaged.
    """
    if not Path(file).exists():
        raise UsageError(
            f"there is no file of verdicts {os.fspath(file)!r}; give one that logitstore serve has written"
        )
    return Verdicts(file).all()


def judged(clips: pa.Table, file: str | os.PathLike[str]) -> dict[int, dict[str, Verdict]]:
    """The verdicts that count in a file, by the number of the clip that they are about, and by person.

    :param clips: of a store. :raises UsageError: as :func:`read_verdicts`.
    """
    said = read_verdicts(file)
    return {clip: dict(said[key]) for clip, key in clip_numbers(clips, said).items()}


def is_verdicts(file: str | os.PathLike[str]) -> bool:
    """Whether a file begins as one of verdicts does."""
    head = csv_line(COLUMNS).encode().rstrip()
    try:
        with Path(file).open("rb") as opened:
            return opened.read(len(head) + 3).removeprefix(codecs.BOM_UTF8)[: len(head)] == head
    except OSError:
        return False


def agreed(said: Iterable[Verdict]) -> Verdict | None:
    """What the verdicts of several people on one clip come to; None where there are none.

    Where they differ the clip is unsure. A right label counts where all who gave one gave the same.
    """
    each = sorted(said, key=lambda verdict: verdict.at)
    if not each:
        return None
    if len(each) == 1:
        return each[0]
    verdicts = {verdict.verdict for verdict in each}
    labels = {verdict.label for verdict in each if verdict.label is not None}
    same = len(verdicts) == 1
    return Verdict(
        verdicts.pop() if same else "unsure",
        labels.pop() if same and len(labels) == 1 else None,
        "; ".join(verdict.note for verdict in each if verdict.note),
        ", ".join(verdict.person for verdict in each),
        each[-1].at,
    )


def corrected_cells(store: Pieces, cells: Sequence[Any], file: str, option: str = "--verdicts") -> list[Any]:
    """Cells of labels, one a clip of a store, corrected by the verdicts in a file; what was done is said.

    A clip that is judged wrong has the right label where that was given, and None, which says nothing, otherwise.

    :param option: what a user calls the file.
    :raises UsageError: as :func:`read_verdicts`. :raises MismatchError: no verdict is about a clip of the store.
    """
    corrected, lost, said = list(cells), 0, judged_some(store, file, option)
    wrong = {clip: found for clip, of in said.items() if (found := agreed(of.values())) and found.verdict == "wrong"}
    for clip, found in wrong.items():
        corrected[clip] = found.label
        lost += found.label is None
    note(
        f"{option} {file}: of {len(said):,} judged clips {len(wrong):,} are wrong: {len(wrong) - lost:,} have the "
        f"right label now, {lost:,} none{disputed(said)}"
    )
    return corrected


def judged_some(store: Pieces, file: str, option: str) -> dict[int, dict[str, Verdict]]:
    """As :func:`judged`, of a file that must be about this store.

    :raises MismatchError: there are verdicts, and none is about a clip of the store.
    """
    said = judged(store.clips, file)
    if not said and read_verdicts(file):
        raise MismatchError(
            f"none of the verdicts in {option} {file!r} is about a clip of {store.location}; its first clip is "
            f"{store.clips['path'][0].as_py()!r}"
        )
    return said


def disputed(said: Mapping[int, Mapping[str, Verdict]]) -> str:
    """The end of a line about verdicts: on how many clips people differ; nothing where they do on none."""
    count = sum(len({each.verdict for each in of.values()}) > 1 for of in said.values())
    return f"; people differ on {count:,}, which count as unsure" if count else ""


def clip_numbers(clips: pa.Table, keys: Iterable[Key]) -> dict[int, Key]:
    """The clips of a clip table that verdicts are about: the clip of each number.

    :param clips: with the columns path, start and length.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    wanted = set(keys)
    if not wanted:
        return {}
    paths = pa.array(sorted({path for path, _, _ in wanted}), pa.string())
    found = pc.indices_nonzero(pc.is_in(clips["path"], value_set=paths))
    rows = clips.select(["path", "start", "length"]).take(found)
    columns = (rows[name].to_pylist() for name in ("path", "start", "length"))
    numbered = zip(found.to_pylist(), zip(*columns, strict=True), strict=True)
    return {number: key for number, key in numbered if key in wanted}


def verdicts_of(store: Pieces) -> Path | None:
    """The file of verdicts that a store is read with: the one that it was given, or the one beside it, if any."""
    if store.verdicts is not None:
        return Path(store.verdicts)
    file = beside(store)
    return file if file is not None and file.is_file() else None


def beside(store: Pieces) -> Path | None:
    """Where the verdicts on a store's clips lie by default, there or not: in the folder that the store lies in; None
    for a store that lies in no folder of this machine."""
    from logitstore.store.storage import LocalStorage

    storage = store.pieces[0].storage
    return storage.root.resolve().parent / FILE if isinstance(storage, LocalStorage) else None


def person_name(name: str) -> str:
    """A person's name as it is written.

    :raises UsageError: it is empty or too long.
    """
    kept = _text("person", name)
    if not kept:
        raise UsageError("a verdict needs the name of the person; give one")
    return kept


def _text(what: str, text: str) -> str:
    """A text of a person as one line: ends of lines and other characters that do not print become spaces."""
    if len(text) > MOST_CHARACTERS:
        raise UsageError(f"the {what} has {len(text):,} characters; at most {MOST_CHARACTERS:,} are allowed")
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())


def _marked(text: str) -> str:
    """A text as it stands in the file: with an apostrophe before it where a spreadsheet would run it, or it has one."""
    return f"'{text}" if text.startswith("'") or runs_as_formula(text) else text


def _unmarked(cell: str) -> str:
    return cell.removeprefix("'")


def _at(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _identity(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
