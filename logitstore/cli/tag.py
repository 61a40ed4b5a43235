"""``logitstore tag``."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Literal

from logitstore.cli.command import answer, command, echo, fault, next_steps, note
from logitstore.errors import UsageError
from logitstore.jobs.options import TagOptions
from logitstore.options import JsonOptions, Option, SpreadsheetOptions
from logitstore.texts import csv_line, in_json, in_lines, printable

if TYPE_CHECKING:
    from logitstore.audio.raven import Recording
    from logitstore.jobs.tag import Tagged

_GAP = "   "
_ENDINGS = {".csv": "csv", ".json": "json", ".jsonl": "json", ".ndjson": "json"}
#: How the file of a recording ends, in a folder.
_IN_FOLDERS = {"table": ".txt", "csv": ".csv", "json": ".json", "audacity": ".txt", "raven": ".selections.txt",
               "sonyc": ".csv"}  # fmt: skip
_LABELS = ("audacity", "raven")
#: The least probability of a label where none is asked for, and as many classes as there are.
_THRESHOLD, _ALL = 0.5, 1 << 20
_COARSE = 3.0  # seconds of a window, above which labels are told to be coarse


@dataclass(frozen=True, kw_only=True)
class _Tag(JsonOptions, SpreadsheetOptions, TagOptions):
    format: Annotated[
        Literal["table", "csv", "json", "audacity", "raven", "sonyc"] | None,
        Option("How the answer is written: a table, CSV, a JSON object a line and file, label tracks of Audacity, "
               "selection tables of Raven, or a row a file as SONYC-UST's task takes predictions.",
               group="Output", default="by the ending of --out, else table"),
    ] = None  # fmt: skip
    out: Annotated[
        str | None,
        Option("Write there and not to the terminal: a file, or a folder (a name without an ending) for a file each.",
               group="Output", short="o", metavar="FILE|FOLDER"),
    ] = None  # fmt: skip


@command("tag", _Tag)
def tag_command(options: _Tag) -> None:
    """Say what is heard when in AUDIO: the most probable classes of every window of every file.

    A folder stands for all audio in it. The last window ends with its file. A file that cannot be read is
    named on stderr, the others are tagged all the same, and the exit code is 1.

    With --frames it is events: a class, from when to when, and its highest probability there.

    For Audacity and Raven a class that goes on from window to window is one label.

    \b
    Example:
      logitstore tag --teacher ced:ced_tiny.pt street.wav
      logitstore tag --teacher runs/t1 --seconds 2 --hop 1 --threshold 0.2 *.flac
      logitstore tag --teacher runs/t1 recordings/ --format audacity --out labels
      logitstore tag --teacher runs/crnn --frames --threshold 0.4 recordings/ --out events.csv
      logitstore tag --teacher runs/t1 --json street.wav | jq '.windows[].tags[0].class'
    """
    from logitstore.cli.afterwards import after_tag
    from logitstore.cli.progress import Meter
    from logitstore.jobs.tag import audio_files, tag
    from logitstore.notes import say

    kind = _format(options)
    named = audio_files(options.files)
    if len(named) != len(options.files) or any(path not in options.files for path, _ in named):
        say("source", f"{len(named):,} audio file{'s' * (len(named) != 1)}")
    writer = _writer(options, kind, named)
    asked = replace(options, files=[path for path, _ in named], json=options.json or kind == "json")
    if kind in _LABELS:
        asked = replace(asked, threshold=writer.threshold, top=_ALL)
    if options.frames and (kind == "sonyc" or options.top != _Tag.top):
        raise UsageError(f"--frames gives events, and --{'format sonyc' if kind == 'sonyc' else 'top'} is of windows")
    if kind == "sonyc":
        if options.threshold is not None:
            raise UsageError("--format sonyc has the score of every tag; leave --threshold out")
        asked = replace(asked, top=_ALL)
    failed, coarse = 0, 0.0
    with ExitStack() as stack:
        meter = stack.enter_context(Meter("tagging", "windows"))
        meter.stage("loading the teachers")
        write = stack.enter_context(writer)
        for found in tag(asked, meter.update, own_windows=kind in _LABELS and not options.frames):
            meter.pause()  # results and the bar may share a terminal
            failed += found.error is not None
            coarse = max([coarse, *(window.end - window.start for window in found.windows)])
            if asked.json or found.windows or (found.events is not None and found.error is None):
                write(found)
            if found.error is not None:
                fault(f"{found.path}: {found.error}")
            meter.resume()
    if kind in _LABELS and not options.json:
        _say_of_labels(writer, coarse)
    if options.out is not None:
        echo(f"wrote      {writer.said(options.out)}")
    if failed:
        sys.exit(1)
    if kind != "json":
        next_steps(
            *after_tag(options.files, options.teachers, kind == "table" and options.out is None and not options.frames)
        )


def _format(options: _Tag) -> str:
    """The format that was asked for, by name or by the ending of a file."""
    if options.json and (options.format not in (None, "json") or options.out is not None):
        given = "--out" if options.out is not None else "--format"
        raise UsageError(f"--json and {given} are both given; --json prints, and --format json is written to --out")
    if options.json:
        return "json"
    return options.format or _ENDINGS.get(Path(options.out or "").suffix.lower(), "table")


class _Writer:
    """Writes what is heard of each file, to stdout, to one file or to a file each.

    :param named: the files with their names below what was given.
    """

    def __init__(self, options: _Tag, kind: str, named: Sequence[tuple[str, str]], each: Mapping[str, Path]) -> None:
        self.options, self.kind, self.named, self.each = options, kind, dict(named), each
        self.threshold = _THRESHOLD if options.threshold is None else options.threshold
        self.files = self.labels = 0
        self._recordings: list[Recording] = []
        self._stack = ExitStack()
        self._file: IO[bytes] | None = None
        self._begun = False

    def __enter__(self) -> Callable[[Tagged], None]:
        from logitstore.files import open_out

        if self.options.out is not None and not self.each:
            self._file = self._stack.enter_context(open_out(self.options.out))
        return self.write

    def __exit__(self, *raised: object) -> None:
        if raised[0] is None and self.kind == "raven" and not self.each:
            from logitstore.audio.raven import write_table

            self._put("".join(write_table(self._recordings)))
        self._stack.__exit__(*raised)  # type: ignore[arg-type]

    def write(self, found: Tagged) -> None:
        """Write one file's."""
        self.files += 1
        if self.kind == "table" and self.options.out is None:
            width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
            answer(self.options, {}, render(found, width))
        elif self.kind == "json" and self.options.out is None:
            answer(replace(self.options, json=True), found.to_dict() | {"exit_code": _code(found)}, "")
        elif self.kind == "raven" and not self.each:
            self._recordings.append(self._recording(found))
        else:
            text = self._text(found)
            if self.each:
                self._write_one(self.each[found.path], text)
            else:
                self._put(text)

    def said(self, out: str) -> str:
        """What was written where."""
        labels = f", {self.labels:,} label{'s' * (self.labels != 1)}" if self.kind in _LABELS else ""
        return f"{out}: {self.files:,} recording{'s' * (self.files != 1)}{labels}"

    def _text(self, found: Tagged) -> str:
        if self.kind == "table":
            return render(found) + "\n"
        if self.kind == "json":
            return in_json({"command": "tag", **found.to_dict(), "exit_code": _code(found)}) + "\n"
        if self.kind == "csv":
            header = [] if self._begun and not self.each else [("path", "start", "end", "class", "probability")]
            self._begun = True
            return "".join(self._csv([*header, *_rows(found)]))
        if self.kind == "sonyc":
            begins, self._begun = not self._begun or bool(self.each), True
            return _predictions(found, header=begins)
        recording = self._recording(found)
        if self.kind == "raven":
            from logitstore.audio.raven import write_table

            return "".join(write_table([recording]))
        from logitstore.audio.audacity import write_track

        return write_track((start, end, label) for start, end, label, _ in recording.selections)

    def _csv(self, rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
        shown = printable if self.options.out is None and sys.stdout.isatty() else str
        for row in rows:
            numbers = [False, True, True, False, True]
            yield csv_line([shown(cell) for cell in row], numbers=numbers, spreadsheet=self.options.spreadsheet_safe)

    def _recording(self, found: Tagged) -> Recording:
        from logitstore.audio.raven import Recording
        from logitstore.jobs.tag import merged

        labels = merged(found.windows, self.threshold) if found.events is None else found.events
        self.labels += len(labels)
        return Recording(Path(found.path).name, found.seconds, found.sample_rate, tuple((*label,) for label in labels))

    def _put(self, text: str) -> None:
        if self._file is None:
            sys.stdout.flush()
            text = printable(text, "\n\t") if sys.stdout.isatty() else text
        file = sys.stdout.buffer if self._file is None else self._file
        file.write(text.encode("utf-8", "surrogateescape"))
        if self._file is None:
            file.flush()

    def _write_one(self, place: Path, text: str) -> None:
        from logitstore.files import open_out

        place.parent.mkdir(parents=True, exist_ok=True)
        with open_out(place) as file:
            file.write(text.encode("utf-8", "surrogateescape"))


def _predictions(found: Tagged, *, header: bool) -> str:
    """A file's row of SONYC-UST's submission format: the mean over its windows."""
    import numpy as np

    from logitstore.audio.sonyc import COARSE, TAGS
    from logitstore.evaluation.sonyc import as_text, predictions_of

    names = sorted({name for window in found.windows for name, _ in window.tags} & {*TAGS, *COARSE})
    if not names:
        raise UsageError(
            f"the teachers have none of SONYC-UST's tags, as {TAGS[0]!r} or {COARSE[0]!r}, that --format sonyc writes; "
            "give a model that was trained with --labels sonyc"
        )
    scores = np.array([[dict(window.tags)[name] for name in names] for window in found.windows])
    given = predictions_of([Path(found.path).name], names, scores.mean(axis=0)[None], derive=True)
    return as_text(given, header=header)


def _writer(options: _Tag, kind: str, named: Sequence[tuple[str, str]]) -> _Writer:
    """What writes the answer; a place that cannot be written is refused before anything is heard.

    :raises UsageError: a label track of several recordings, a folder that is a file, two recordings with one name.
    """
    from logitstore.files import check_out

    several = len(named) > 1
    if options.out is None:
        if kind == "audacity" and several:
            raise UsageError("a label track is of one recording; give --out FOLDER for the tracks of several")
        return _Writer(options, kind, named, {})
    out = Path(options.out)
    if not (out.is_dir() or options.out.endswith("/") or (not out.suffix and not out.exists())):
        if kind == "audacity" and several:
            raise UsageError(
                f"--out {options.out!r} is a file, and a label track is of one recording; give a folder for the "
                f"tracks of {len(named):,}"
            )
        check_out(options.out)
        return _Writer(options, kind, named, {})
    stems = Counter(Path(name).with_suffix("") for _, name in named)
    places: dict[str, Path] = {}
    taken: dict[Path, str] = {}
    for path, name in named:
        alone = stems[Path(name).with_suffix("")] == 1
        place = out / ((Path(name).with_suffix("").as_posix() if alone else name) + _IN_FOLDERS[kind])
        if taken.setdefault(place, path) != path:
            raise UsageError(f"{taken[place]!r} and {path!r} would both be written to {str(place)!r}; tag them apart")
        places[path] = place
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {options.out!r} cannot be made: {error.strerror}; give another place") from error
    return _Writer(options, kind, named, places)


def _say_of_labels(writer: _Writer, coarse: float) -> None:
    if not writer.labels:
        note(f"no class reaches {writer.threshold:g} anywhere; --threshold gives labels to less probable ones")
    elif coarse > _COARSE:
        note(f"labels are as coarse as the windows, of {coarse:g} s; --seconds 1 --hop 0.5 gives finer ones")


def _rows(found: Tagged) -> Iterator[tuple[str, ...]]:
    for event in found.events or ():
        yield found.path, _seconds(event.start), _seconds(event.end), event.label, f"{event.probability:.6g}"
    for window in found.windows:
        for name, probability in window.tags:
            yield found.path, _seconds(window.start), _seconds(window.end), name, f"{probability:.6g}"


def _seconds(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")


def _code(found: Tagged) -> int:
    return int(found.error is not None)


def render(found: Tagged, width: int | None = None) -> str:
    """A file and its windows, one a line, in columns; where the terminal is too narrow for that, lines are broken.

    :param width: columns to keep to; None for any.
    """
    from rich.cells import cell_len, set_cell_size

    if found.events is not None:
        places = [f"{clock(each.start)} - {clock(each.end)}" for each in found.events]
        margin = max(map(len, places), default=0) + 2
        said = [f"{each.probability:.2f} {each.label}" for each in found.events]
        events = [f"{place:>{margin}}{_GAP}{event}" for place, event in zip(places, said, strict=True)] or [
            "  no event"
        ]
        return in_lines([f"{found.path}  {clock(found.seconds)}, {found.sample_rate} Hz", *events])
    if not found.windows:
        return ""
    spans = [f"{clock(window.start)} - {clock(window.end)}" for window in found.windows]
    rows = [[f"{value:.2f} {name}" for name, value in window.tags] or ["-"] for window in found.windows]
    margin = max(map(len, spans)) + 2
    most = max(map(len, rows))
    sizes = [max(cell_len(row[rank]) for row in rows if rank < len(row)) for rank in range(most)]
    room = sum(sizes) + len(_GAP) * most if width is None else max(20, width - margin - len(_GAP))
    a_line = most
    if sum(sizes) + len(_GAP) * (most - 1) > room:
        widest = min(max(sizes), room)
        a_line, sizes = max(1, (room + len(_GAP)) // (widest + len(_GAP))), [widest] * most
    lines = [f"{found.path}  {clock(found.seconds)}, {found.sample_rate} Hz"]
    for span, row in zip(spans, rows, strict=True):
        cells = [set_cell_size(cell, size) for cell, size in zip(row, sizes, strict=False)]
        for first in range(0, len(cells), a_line):
            text = _GAP.join(cells[first : first + a_line]).rstrip()
            lines.append(f"{'' if first else span:>{margin}}{_GAP}{text}")
    return in_lines(lines)


def clock(seconds: float) -> str:
    """A time as m:ss or h:mm:ss, with hundredths where there are any: 62.5 is 1:02.5."""
    minutes, hundredths = divmod(round(seconds * 100), 6000)
    hours, minutes = divmod(minutes, 60)
    whole, part = divmod(hundredths, 100)
    fraction = f".{part:02}".rstrip("0").rstrip(".")
    return (f"{hours}:{minutes:02}" if hours else f"{minutes}") + f":{whole:02}{fraction}"
