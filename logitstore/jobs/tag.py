"""Tagging: the most probable classes of every window of audio files.

Files are cut into windows that start every ``hop`` seconds; the last one ends with the file (to 2 % of a window), so
that only a file shorter than one window is padded. Windows are decoded as they are heard, a batch and the next at a
time: memory does not grow with the length of a file.

With ``--frames`` the ensemble says of every frame of a window what it hears, and a frame in several windows gets the
mean. Events are the stretches in which a class then has a probability, found when all of a file was heard.
"""

from __future__ import annotations

import glob
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from logitstore import notebook
from logitstore.arrays import F32, I64
from logitstore.audio.audiofile import AUDIO_SUFFIXES, Audio, frame_count
from logitstore.audio.clips import ClipAudio
from logitstore.audio.folder import FolderSource
from logitstore.audio.lengths import clip_samples
from logitstore.errors import AudioError, UsageError
from logitstore.evaluation.events import Event, filtered, found_events
from logitstore.evaluation.scores import decoded
from logitstore.jobs.options import TagOptions
from logitstore.notes import note
from logitstore.store.format.frames import FrameSpec

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

    from logitstore.audio.cache import AudioCache
    from teachers.ensemble import Ensemble


#: Length of a window where neither the user nor a teacher says otherwise.
DEFAULT_SECONDS = 10.0
#: Milliseconds of a frame of ``--frames``, and the least probability of an event where none is asked for.
FRAME_MS, THRESHOLD = 40, 0.5
_SHOWN = 60  # windows, in a notebook
#: A rest at the end of a file of at most this share of a window is not heard: encoders leave some milliseconds there.
_REST = 0.02


@dataclass(frozen=True)
class Window:
    """[start, end) in seconds of the file, and its tags: (class, probability in [0, 1]), falling."""

    start: float
    end: float
    tags: tuple[tuple[str, float], ...]


class FrameScores:
    """The mean probabilities of a file's frames, window by window.

    :param seconds: of the file. :param hop: seconds of a frame. :param classes: C names.
    """

    def __init__(self, seconds: float, hop: float, classes: Sequence[str]) -> None:
        self.hop, self.classes = hop, classes
        self._sums = np.zeros((max(1, math.ceil(seconds / hop - 1e-6)), len(classes)), np.float32)
        self._counts = np.zeros(len(self._sums), np.float32)

    def add(self, start: float, said: F32) -> None:
        """What was said of the frames (t, C) of a window that starts at so many seconds."""
        at = ((start + (np.arange(len(said)) + 0.5) * self.hop) / self.hop + 1e-6).astype(np.int64)
        inside = at < len(self._sums)  # a short file's window reaches beyond its end
        np.add.at(self._sums, at[inside], said[inside])
        np.add.at(self._counts, at[inside], 1.0)

    @property
    def probabilities(self) -> F32:
        """float32 (T, C); 0 where no window was heard."""
        means: F32 = np.divide(self._sums, np.maximum(self._counts, 1)[:, None], dtype=np.float32)
        return means


@dataclass
class Tagged:
    """A file's length in seconds, its rate in Hz, its windows in order; what was wrong with it, or None.

    With ``--frames`` it has ``events``, by start, in the place of windows, and the ``frames`` that they were found in,
    through the median filter: float32 (T, C), of ``classes``.
    """

    path: str
    seconds: float = 0.0
    sample_rate: int = 0
    windows: list[Window] = field(default_factory=list)
    error: str | None = None
    events: list[Event] | None = None
    frames: F32 | None = field(default=None, repr=False)
    classes: Sequence[str] = field(default=(), repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        if self.events is not None:
            events = [
                {"class": each.label, "start": each.start, "end": each.end, "probability": each.probability}
                for each in self.events
            ]
            return {
                "path": self.path,
                "seconds": self.seconds,
                "sample_rate": self.sample_rate,
                "events": events,
                "error": self.error,
            }
        windows = [
            {
                "start": window.start,
                "end": window.end,
                "tags": [{"class": name, "probability": value} for name, value in window.tags],
            }
            for window in self.windows
        ]
        return {
            "path": self.path,
            "seconds": self.seconds,
            "sample_rate": self.sample_rate,
            "windows": windows,
            "error": self.error,
        }

    def _repr_html_(self) -> str:
        if self.events is not None:
            rows = [
                (
                    f"{_clock(each.start)} to {_clock(each.end)}  {each.label}",
                    each.probability,
                    [f"{each.probability:.2f}"],
                )
                for each in self.events[:_SHOWN]
            ]
            return notebook.card(self._told(), notebook.bars(rows) if rows else notebook.note("no event"))
        rows = [
            (f"{_clock(each.start)} to {_clock(each.end)}  {name}", share, [f"{share:.2f}", more])
            for each in self.windows[:_SHOWN]
            for name, share in each.tags[:1]
            for more in [", ".join(f"{other} {p:.2f}" for other, p in each.tags[1:])]
        ]
        left = len(self.windows) - _SHOWN
        return notebook.card(
            self._told(),
            notebook.bars(rows) if rows else "",
            notebook.note(f"{left:,} more windows") if left > 0 else "",
            notebook.note(f"could not be read: {self.error}") if self.error else "",
        )

    def _told(self) -> str:
        return f"{self.path}, {_clock(self.seconds)}, {self.sample_rate:,} Hz"


def _clock(seconds: float) -> str:
    return f"{int(seconds // 60)}:{seconds % 60:05.2f}"


def tag(
    options: TagOptions,
    progress: Callable[[int, int], None] | None = None,
    *,
    own_windows: bool = False,
    disk: AudioCache | None = None,
) -> Iterator[Tagged]:
    """What the ensemble hears in every file, in their order, each as soon as its last window was heard.

    A file that cannot be read, or not to its end, has an ``error`` that says why and keeps what was heard before that.

    :param progress: told (windows done, windows).
    :param own_windows: cut windows as a teacher itself does, where one does and no length is asked for.
    :param disk: keeps windows that are dear to decode.
    :raises UsageError: no such window, options that do not go together; also what
        :class:`teachers.ensemble.Ensemble` refuses, as teachers without frame outputs under ``frames``.
    """
    from logitstore.views.render import pad
    from teachers.ensemble import load_ensemble

    _check(options)
    workers = options.workers or os.cpu_count() or 1
    ensemble = load_ensemble(
        options.teachers,
        options.weights,
        options.average,
        options.classes,
        device=options.device,
        precision=options.precision,
    )
    for line in ensemble.notes:
        note(line)
    seconds, hop = _windows(ensemble, options, own_windows)
    spec = None
    if options.frames:
        ensemble.require_frames(seconds)
        spec = FrameSpec(hop_ms=FRAME_MS, count=math.ceil(seconds * 1000 / FRAME_MS - 1e-6), bits=8, floor=0.0)
    paths = [path for path, _ in audio_files(options.files)]
    with ThreadPoolExecutor(workers, "open") as pool:
        files = list(pool.map(_opened, paths))
    cuts = [cut(round(file.seconds * file.sample_rate), file.sample_rate, seconds, hop) for file in files]
    source = _Files(paths)
    audio = ClipAudio(source, _table(source, files, cuts), ensemble.sample_rate, disk=disk)
    ends = np.cumsum([len(starts) for starts, _ in cuts])
    samples = max(1, clip_samples(seconds, ensemble.sample_rate))
    failures: dict[int, str] = {}
    scores: dict[int, FrameScores] = {}  # of files that are being heard
    current = 0  # the file whose windows are being heard
    done = 0
    with ThreadPoolExecutor(workers, "decode") as pool:
        for done, windows, waveforms in decoded(audio, options.batch_size, pool, failures):
            said = np.zeros((0, len(ensemble.classes)), np.float32)
            if len(windows):
                said = _said(ensemble, pad(waveforms, samples)[0], spec)
            owner = np.searchsorted(ends, windows, side="right")
            for window, file, values in zip(windows.tolist(), owner.tolist(), said, strict=True):
                starts, lengths = cuts[file]
                place, rate = window - (int(ends[file]) - len(starts)), files[file].sample_rate
                start = int(starts[place])
                span = (start / rate, (start + int(lengths[place])) / rate)
                if spec is None:
                    files[file].windows.append(Window(*span, _tags(values, ensemble.classes, options)))
                    continue
                if file not in scores:
                    scores[file] = FrameScores(files[file].seconds, spec.hop, ensemble.classes)
                scores[file].add(span[0], values)
            if progress is not None:
                progress(done, len(audio))
            while current < len(files) and ends[current] <= done:
                heard, until = _finished(files[current], cuts[current], int(ends[current]), failures)
                if spec is not None:
                    _find_events(heard, scores.pop(current, None), until, options)
                yield heard
                current += 1
    yield from files[current:]  # those after the last window: none could be opened


def _said(ensemble: Ensemble, waveforms: torch.Tensor, spec: FrameSpec | None) -> F32:
    """Probabilities of windows, float32 (B, C), or of their frames, (B, T, C)."""
    if spec is None:
        whole: F32 = ensemble.probabilities(waveforms, None).cpu().numpy()
        return whole
    by_frame = ensemble.outputs(waveforms, None, features=False, frames=spec).frames
    assert by_frame is not None  # they were asked for
    said: F32 = by_frame.cpu().numpy()
    return said


def _find_events(file: Tagged, heard: FrameScores | None, until: float, options: TagOptions) -> None:
    """The events of a file that was heard up to so many seconds."""
    file.events = []
    if heard is None:
        return
    frames = heard.probabilities[: math.ceil(until / heard.hop - 1e-6)]
    file.frames, file.classes = filtered(frames, heard.hop, options.median_filter), heard.classes
    file.events = found_events(
        file.frames, heard.classes, heard.hop, threshold=THRESHOLD if options.threshold is None else options.threshold,
        shortest=options.shortest, end=until,
    )  # fmt: skip


def audio_files(given: Sequence[str]) -> list[tuple[str, str]]:
    """The files that are meant, each with its name below what was given: of a folder all audio that is in it.

    Audio in folders is known by its ending, and what is left out is said in notes. What is no folder and no pattern is
    a file, there or not.

    :raises UsageError: a folder without audio, or a pattern that nothing is called like.
    """
    found: list[tuple[str, str]] = []
    for each in given:
        path = Path(each)
        if path.is_dir():
            found += _below(path)
        elif path.exists() or not glob.has_magic(each):
            found.append((each, path.name))
        else:
            found += _matching(each)
    return found


def _below(folder: Path) -> list[tuple[str, str]]:
    source = FolderSource(folder)
    names = source.listing()["path"].to_pylist()
    for line in source.reading.notes:
        note(line)
    return [(str(folder / name), name) for name in names]


def _matching(pattern: str) -> list[tuple[str, str]]:
    matches = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207
    files = [each for each in matches if each.is_file() and each.suffix.lower() in AUDIO_SUFFIXES]
    files = files or [each for each in matches if each.is_file()]
    fixed = Path(*takewhile(lambda part: not glob.has_magic(part), Path(pattern).parts))
    found = [(str(each), each.relative_to(fixed).as_posix()) for each in files]
    if "**" not in pattern:  # which goes into folders by itself
        for folder in (each for each in matches if each.is_dir()):
            found += [(path, (folder.relative_to(fixed) / name).as_posix()) for path, name in _below(folder)]
    if not found:
        raise UsageError(f"{pattern}: no file is called like this pattern; give another, or a folder")
    return found


def _windows(ensemble: Ensemble, options: TagOptions, own_windows: bool) -> tuple[float, float]:
    """The length of a window and the time from one to the next, in seconds."""
    own = None
    if own_windows and options.seconds is None:
        windows = [(each.contract.window, each.contract.sample_rate) for each in ensemble.members]
        own = min(((w.samples / rate, w.hop / rate) for w, rate in windows if w is not None), default=None)
        if own is None:
            note("no teacher cuts windows of its own; shorter ones are heard with --seconds and --hop")
    seconds, hop = (window_seconds(ensemble, options.seconds), None) if own is None else own
    return seconds, options.hop or hop or seconds


def merged(windows: Sequence[Window], threshold: float) -> list[tuple[float, float, str, float]]:
    """Windows as labels (start and end in seconds, class, highest probability), by start, then end and class.

    A class that goes on from a window to the next one is one label.

    :param threshold: the least probability of a class in a window that has the label.
    """
    begun: dict[str, tuple[float, float, float]] = {}  # start, end, probability
    done: list[tuple[float, float, str, float]] = []
    for window in windows:
        for name, probability in window.tags:
            if probability < threshold:
                continue
            start, end, highest = begun.get(name, (window.start, window.end, 0.0))
            if window.start > end + 1e-6:
                done.append((start, end, name, highest))
                start, highest = window.start, 0.0
            begun[name] = (start, window.end, max(highest, probability))
    done += [(start, end, name, highest) for name, (start, end, highest) in begun.items()]
    return sorted(done, key=lambda each: each[:3])


def window_seconds(ensemble: Ensemble, asked: float | None) -> float:
    """The length of a window: what was asked, or the shortest that a member learnt from, or 10 s.

    :raises UsageError: longer than a member hears whole.
    """
    limits = [
        (each.contract.max_seconds, each.spec) for each in ensemble.members if each.contract.max_seconds is not None
    ]
    longest, spec = min(limits, default=(float("inf"), ""))
    if asked is None:
        learnt = [
            each.contract.trained_seconds for each in ensemble.members if each.contract.trained_seconds is not None
        ]
        return min(*learnt, longest) if learnt else min(DEFAULT_SECONDS, longest)
    if asked > longest:
        raise UsageError(
            f"--seconds is {asked:g} and teacher {spec!r} hears at most {longest:.2f} s; choose shorter windows"
        )
    return asked


def cut(frames: int, rate: int, seconds: float, hop: float) -> tuple[I64, I64]:
    """Starts and lengths of a file's windows, in its own frames: int64 (n,) each, none of a file of no frames.

    :param frames: of the file, at ``rate`` (Hz). :param seconds: length of a window. :param hop: from start to start.
    """
    if not frames:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    window = max(1, int(seconds * rate + 0.5))
    if frames <= window:
        return np.zeros(1, np.int64), np.array([frames], np.int64)
    step = hop * rate
    starts = np.floor(np.arange(int((frames - window) / step) + 1) * step + 0.5).astype(np.int64)
    if frames - (starts[-1] + window) > _REST * window:
        starts = np.append(starts, frames - window)
    return starts, np.full(len(starts), window, np.int64)


def _opened(path: str) -> Tagged:
    try:
        frames, rate, promised, broken = frame_count(Path(path))
    except AudioError as error:
        return Tagged(path, error=str(error))
    if not frames:
        return Tagged(path, sample_rate=rate, error="empty: the file has no frames")
    short = None
    if frames < promised or broken:
        whole = f" of {promised}" if frames < promised else ""
        short = f"from {frames / rate:g} s on: truncated: {frames}{whole} frames"
    return Tagged(path, frames / rate, rate, error=short)


def _table(source: _Files, files: Sequence[Tagged], cuts: Sequence[tuple[I64, I64]]) -> pa.Table:
    """The windows as a clip table."""
    import pyarrow as pa

    of_file = np.repeat(np.arange(len(files)), [len(starts) for starts, _ in cuts])
    return pa.table(
        {
            "path": source.listing()["path"].take(pa.array(of_file)),
            "start": np.concatenate([starts for starts, _ in cuts]),
            "length": np.concatenate([lengths for _, lengths in cuts]),
            "rate": np.array([file.sample_rate for file in files])[of_file],
        }
    )


def _tags(scores: F32, classes: Sequence[str], options: TagOptions) -> tuple[tuple[str, float], ...]:
    best = np.argsort(-scores, kind="stable")[: options.top].tolist()
    return tuple((classes[index], float(scores[index])) for index in best if scores[index] >= (options.threshold or 0))


def _finished(file: Tagged, windows: tuple[I64, I64], end: int, failures: dict[int, str]) -> tuple[Tagged, float]:
    """The file, with the windows after the first that could not be decoded taken off, and the seconds before that."""
    starts, _ = windows
    first = end - len(starts)
    failed = [window - first for window in range(first, end) if window in failures]
    if failed:
        at = starts[failed[0]] / file.sample_rate
        file.windows = [window for window in file.windows if window.start < at]
        file.error = f"from {at:g} s on: {failures[first + failed[0]]}" if at else failures[first]
        return file, float(at)
    return file, file.seconds


class _Files:
    """Audio files wherever they lie, known by their number: a path need not be UTF-8."""

    kind = "files"
    segmented = False

    def __init__(self, files: Sequence[str]) -> None:
        self.files = files

    def listing(self) -> pa.Table:
        import pyarrow as pa

        return pa.table({"path": pa.array([str(number) for number in range(len(self.files))])})

    def read(self, path: str) -> Audio:
        return Path(self.files[int(path)])


def _check(options: TagOptions) -> None:
    if not options.teachers:
        raise UsageError("no teacher was given; give at least one --teacher SPEC")
    if not options.files:
        raise UsageError("no audio was given; name at least one file or folder")
    if not options.frames:
        for name in ("median_filter", "shortest"):
            if getattr(options, name) != getattr(TagOptions, name):
                raise UsageError(f"--{name.replace('_', '-')} is for events, and --frames is not given")
