"""The audio of the clips of a table: decoded when asked for, by the clip's number."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from logitstore.arrays import F32
from logitstore.audio.decode import decode

if TYPE_CHECKING:
    import pyarrow as pa

    from logitstore.audio.source import Source


class ClipAudio:
    """Decoded clips by their numbers, at one sample rate. Safe to share between threads.

    :param table: a clip table with the columns path, start, length and rate.
    :param cache_bytes: how much decoded audio to keep, the most recently used first; none by default.
    """

    def __init__(self, source: Source, table: pa.Table, sample_rate: int, cache_bytes: int = 0) -> None:
        self._source = source
        self._paths = table["path"]
        self._starts, self._lengths, self._rates = (
            table[name].to_numpy().astype(np.int64) for name in ("start", "length", "rate")
        )
        self._sample_rate = sample_rate
        self._cache: OrderedDict[int, F32] = OrderedDict()
        self._limit = cache_bytes
        self._cached = 0
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._starts)

    def place(self, clip: int) -> str:
        """Where a clip is: its path, and where in that file it starts."""
        return clip_place(self._paths[clip].as_py(), int(self._starts[clip]), int(self._rates[clip]))

    def __getitem__(self, clip: int) -> F32:
        """A clip's own samples, float32 (n,), mono.

        :raises AudioError: it cannot be decoded; the message is the reason.
        """
        with self._lock:
            kept = self._cache.get(clip)
            if kept is not None:
                self._cache.move_to_end(clip)
                return kept
        samples = decode(
            self._source,
            self._paths[clip].as_py(),
            int(self._starts[clip]),
            int(self._lengths[clip]),
            int(self._rates[clip]),
            self._sample_rate,
        )
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


def clip_place(path: str, start: int, rate: int) -> str:
    """A clip for people: its path and, unless it begins with its file, the second that it starts at.

    :param start: in frames at ``rate`` (Hz); 0 where the file could not be read.
    """
    return f"{path} from {start / rate:g} s" if start and rate else path


def joined_clips(
    sources: Sequence[Source], tables: Sequence[pa.Table], sample_rate: int, cache_bytes: int = 0
) -> ClipAudio:
    """The clips of some tables, numbered through; the cache is shared out by their numbers of clips."""
    total = max(1, sum(table.num_rows for table in tables))
    clips = [
        ClipAudio(source, table, sample_rate, cache_bytes * table.num_rows // total)
        for source, table in zip(sources, tables, strict=True)
    ]
    return clips[0] if len(clips) == 1 else JoinedClips(clips)
