"""The audio of the clips of a table: decoded when asked for, by the clip's number."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from logitstore.arrays import F32
from logitstore.audio.audiofile import Audio, Pcm, opened
from logitstore.audio.cache import AudioCache
from logitstore.audio.decode import decode_audio, write_samples
from logitstore.audio.lengths import samples_at

if TYPE_CHECKING:
    import pyarrow as pa

    from logitstore.audio.source import Source


Cut: TypeAlias = tuple[int, int, int]


class ClipKeys(ABC):
    """Which part of which file each clip is, by the clip's number. Safe to share between threads."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of clips."""

    @abstractmethod
    def __getitem__(self, clip: int) -> tuple[str, Cut]:
        """Its path; start and length in frames, and their rate in Hz."""


class TableKeys(ClipKeys):
    """Those of a clip table with the columns path, start, length and rate."""

    def __init__(self, table: pa.Table) -> None:
        self.paths: pa.ChunkedArray = table["path"]
        self._cuts = [table[name] for name in ("start", "length", "rate")]  # as they are: NumPy arrays would be copies

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, clip: int) -> tuple[str, Cut]:
        path: str = self.paths[clip].as_py()
        start, length, rate = (column[clip].as_py() for column in self._cuts)
        return path, (start, length, rate)


class ClipAudio:
    """Decoded clips by their numbers, at one sample rate. Safe to share between threads.

    :param table: a clip table with the columns path, start, length and rate, or the keys of one.
    :param cache_bytes: how much decoded audio to keep, the most recently used first; none by default.
    :param disk: keeps what is dear to decode.
    """

    def __init__(
        self,
        source: Source,
        table: pa.Table | ClipKeys,
        sample_rate: int,
        cache_bytes: int = 0,
        disk: AudioCache | None = None,
    ) -> None:
        self._source = source
        self._keys = table if isinstance(table, ClipKeys) else TableKeys(table)
        self._sample_rate = sample_rate
        self._cache: OrderedDict[int, F32] = OrderedDict()
        self._limit = cache_bytes
        self._cached = 0
        self._lock = Lock()
        self._disk = disk
        self._verified = np.zeros(0 if disk is None else len(self._keys), dtype=bool)

    def __len__(self) -> int:
        return len(self._keys)

    def place(self, clip: int) -> str:
        """Where a clip is: its path, and where in that file it starts."""
        path, (start, _, rate) = self._keys[clip]
        return clip_place(path, start, rate)

    def __getitem__(self, clip: int) -> F32:
        """A clip's own samples, float32 (n,), mono.

        :raises AudioError: it cannot be decoded; the message is the reason.
        """
        kept = self._kept(clip)
        if kept is not None:
            return kept
        path, cut = self._keys[clip]
        with self._read(path) as audio:
            if self._disk is not None and cut[-1]:
                row = np.empty(max(0, int(samples_at(cut[1], cut[2], self._sample_rate))), np.float32)
                if len(row) and self._written(clip, audio, path, cut, row) == len(row):
                    return row
            return self._decoded(clip, audio, path, cut)

    def require(self, clip: int) -> None:
        """See that what holds a clip is there and opens; whether it can be decoded is left open.

        :raises AudioError: it does not; the message is the reason.
        """
        with self._read(self._keys[clip][0]) as audio, opened(audio):
            pass

    def write(self, clip: int, row: F32, turn: int = 0) -> int:
        """Write a clip into a row of a batch, as :func:`put` does; what needs no decoder goes there at once.

        :raises AudioError: it cannot be decoded; the message is the reason.
        """
        kept = self._kept(clip)
        if kept is None:
            path, cut = self._keys[clip]
            with self._read(path) as audio:
                count = self._written(clip, audio, path, cut, row, turn)
                if count:
                    row[count:] = 0
                    return count
                kept = self._decoded(clip, audio, path, cut)
        return put(kept, row, turn)

    @contextmanager
    def _read(self, path: str) -> Iterator[Audio]:
        """What the source reads; a stream, as of what lies in an archive, is closed afterwards."""
        audio = self._source.read(path)
        try:
            yield audio
        finally:
            if not isinstance(audio, Path | Pcm):
                audio.close()

    def _written(self, clip: int, audio: Audio, path: str, cut: Cut, row: F32, turn: int = 0) -> int:
        """Write a clip that need not be decoded: how many samples, 0 where it must be."""
        count = write_samples(audio, *cut, row, turn) if cut[-1] == self._sample_rate else 0
        if count or self._disk is None:
            return count
        key = self._disk.key(audio, path, *cut, self._sample_rate)
        samples = None if key is None else self._disk.open(key, self._sample_rate, not self._verified[clip])
        if samples is None:
            return 0
        try:
            count = min(samples.frames, len(row))
            self._verified[clip] = bool(count) and samples.read(0, row[:count], turn)
            return count if self._verified[clip] else 0
        finally:
            samples.close()

    def _decoded(self, clip: int, audio: Audio, path: str, cut: Cut) -> F32:
        """A clip's own samples, decoded, and kept where they are to be."""
        key = None if self._disk is None else self._disk.key(audio, path, *cut, self._sample_rate)
        samples = decode_audio(audio, *cut, self._sample_rate)
        if self._disk is not None and key is not None:
            self._disk.keep(key, samples)
        return self._keep(clip, samples)

    def _kept(self, clip: int) -> F32 | None:
        if not self._limit:
            return None
        with self._lock:
            kept = self._cache.get(clip)
            if kept is not None:
                self._cache.move_to_end(clip)
            return kept

    def _keep(self, clip: int, samples: F32) -> F32:
        if samples.nbytes <= self._limit:
            with self._lock:
                if clip not in self._cache:
                    self._cache[clip] = samples
                    self._cached += samples.nbytes
                while self._cached > self._limit:
                    self._cached -= self._cache.popitem(last=False)[1].nbytes
        return samples


class JoinedClips(ClipAudio):
    """The clips of several tables, one after the other, each from a source of its own.

    :param clips: of each table.
    """

    def __init__(self, clips: Sequence[ClipAudio]) -> None:
        self._clips = tuple(clips)
        self._firsts = np.cumsum([0, *(len(each) for each in self._clips)])

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def place(self, clip: int) -> str:
        number = int(np.searchsorted(self._firsts, clip, side="right")) - 1
        return self._clips[number].place(clip - int(self._firsts[number]))

    def __getitem__(self, clip: int) -> F32:
        number = int(np.searchsorted(self._firsts, clip, side="right")) - 1
        return self._clips[number][clip - int(self._firsts[number])]

    def require(self, clip: int) -> None:
        number = int(np.searchsorted(self._firsts, clip, side="right")) - 1
        self._clips[number].require(clip - int(self._firsts[number]))

    def write(self, clip: int, row: F32, turn: int = 0) -> int:
        number = int(np.searchsorted(self._firsts, clip, side="right")) - 1
        return self._clips[number].write(clip - int(self._firsts[number]), row, turn)


def put(samples: F32, row: F32, turn: int = 0) -> int:
    """Write samples at the start of a row and zeros after them; what does not fit is cut off first.

    :param samples: float32 (m,). :param row: float32 (S,).
    :param turn: ``row[(i + turn) mod n]`` is the i-th of the n samples that are written.
    :returns: n, the smaller of m and S.
    """
    count = min(len(samples), len(row))
    turn = turn % count if count else 0
    row[turn:count] = samples[: count - turn]
    row[:turn] = samples[count - turn : count]
    row[count:] = 0
    return count


def clip_place(path: str, start: int, rate: int) -> str:
    """A clip for people: its path and, unless it begins with its file, the second that it starts at.

    :param start: in frames at ``rate`` (Hz); 0 where the file could not be read.
    """
    return f"{path} from {start / rate:g} s" if start and rate else path


def joined_clips(
    sources: Sequence[Source],
    clips: Sequence[ClipKeys],
    sample_rate: int,
    cache_bytes: int = 0,
    disk: AudioCache | None = None,
) -> ClipAudio:
    """The clips of some tables, numbered through; the cache in memory is shared out by their numbers of clips."""
    total = max(1, sum(map(len, clips)))
    each = [
        ClipAudio(source, keys, sample_rate, cache_bytes * len(keys) // total, disk)
        for source, keys in zip(sources, clips, strict=True)
    ]
    return each[0] if len(each) == 1 else JoinedClips(each)
