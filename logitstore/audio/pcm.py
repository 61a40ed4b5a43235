"""16-bit samples that need no decoder, read from where they lie in a WAV file.

Nothing is guessed: a file is read here only where its header is plain and its sizes are those of the bytes that are
there, so that libsndfile would read the same samples. Whatever is not so is left to it, and to what
:mod:`logitstore.audio.audiofile` knows of files whose headers are wrong.
"""

from __future__ import annotations

import os
import re
import stat
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from logitstore.arrays import F32
from logitstore.audio.audiofile import LEAST_RATE, Audio, Pcm

_HEAD = 1 << 12  # bytes of a file in which its samples have to begin
_MOST_TAIL = 1 << 16  # bytes after the samples that are looked at
_AT_A_TIME = 1 << 17  # samples: what is read stays in the processor's cache until it is converted
_MOST_CHANNELS = 64
_SCALE = np.float32(1 / 32768)
_PCM_GUID = bytes.fromhex("0100000000001000800000aa00389b71")
#: Chunks that say something about the sound and change nothing in it.
_BESIDE = frozenset((b"JUNK", b"junk", b"PAD ", b"FLLR", b"bext", b"iXML", b"id3 "))

_own = threading.local()


class Samples:
    """The samples of a piece of audio, open for one reader.

    ``frames`` of ``channels`` samples each at ``rate`` Hz; ``at``: byte of the file at which they begin; ``width``: 2
    for int16, 4 for float32, which are taken as they are.
    """

    def __init__(
        self, file: int | None, pcm: Pcm | None, frames: int, channels: int, rate: int, at: int = 0, width: int = 2
    ) -> None:
        self._file, self._pcm = file, pcm
        self.frames, self.channels, self.rate = frames, channels, rate
        self._at, self._width = at, width

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)

    def read(self, start: int, out: F32, turn: int = 0) -> bool:
        """Write samples in [-1, 1): ``out[(i + turn) mod n]`` is the i-th from frame ``start`` on; of several channels
        one after the other. Whether all n of ``out`` were there, and could be read: what is wrong the decoder says.

        :param out: float32 (n,), written even where some are not.
        """
        count = len(out)
        turn %= count
        for first, last, to in ((0, count - turn, turn), (count - turn, count, 0)):
            while first < last:
                some = min(_AT_A_TIME, last - first)
                try:
                    whole = self._read(start * self.channels + first, out[to : to + some])
                except OSError:
                    whole = False
                if not whole:
                    return False
                first, to = first + some, to + some
        return True

    def _read(self, first: int, part: F32) -> bool:
        if self._width == 4:
            assert self._file is not None
            return os.preadv(self._file, [part.data.cast("B")], self._at + 4 * first) == part.nbytes
        values = self._values(first, len(part))
        if len(values) < len(part):
            return False
        part[...] = values
        part *= _SCALE
        return True

    def _values(self, first: int, count: int) -> npt.NDArray[np.int16]:
        if self._pcm is not None:
            return self._pcm.read(first, first + count)
        assert self._file is not None
        try:
            buffer = _own.buffer
        except AttributeError:
            buffer = _own.buffer = np.empty(_AT_A_TIME, "<i2")
        values: npt.NDArray[np.int16] = buffer[:count]
        got = os.preadv(self._file, [values.data.cast("B")], self._at + 2 * first)
        return values[: got // 2]


def open_samples(audio: Audio) -> Samples | None:
    """The samples of what needs no decoder, to be closed; None of everything else."""
    if isinstance(audio, Pcm):
        return Samples(None, audio, audio.frames, 1, audio.rate) if audio.rate >= LEAST_RATE else None
    if not isinstance(audio, Path):
        return None
    try:
        file = os.open(audio, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None  # which the decoder says better
    try:
        found = _found(file)
    except OSError:
        found = None
    if found is None:
        os.close(file)
    return found


def _found(file: int) -> Samples | None:
    """The samples of a WAV file of 16 bits whose header is as plain as can be."""
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode):
        return None
    head = os.pread(file, _HEAD, 0)
    if head[:4] != b"RIFF" or head[8:16] != b"WAVEfmt " or len(head) < 44:
        return None
    size, tag, channels, rate, a_second, unit, bits = struct.unpack_from("<IHHIIHH", head, 16)
    if size not in (16, 18, 40) or bits != 16 or not 0 < channels <= _MOST_CHANNELS or rate < LEAST_RATE:
        return None
    if unit != 2 * channels or a_second != unit * rate:
        return None
    extensible = tag == 0xFFFE and size == 40 and head[36:40] == b"\x16\0\x10\0" and head[44:60] == _PCM_GUID
    if tag != 1 and not extensible:
        return None
    at = 20 + size
    while at + 8 <= len(head):
        name, says = struct.unpack_from("<4sI", head, at)
        at += 8
        if name == b"data":
            end = at + says
            whole = says > 0 and end <= status.st_size and _only_beside(file, end + says % 2, status.st_size)
            return Samples(file, None, says // unit, channels, rate, at) if whole else None
        if not _beside(name, says, head[at : at + says]):
            return None
        at += says + says % 2
    return None


def _only_beside(file: int, start: int, end: int) -> bool:
    """Whether nothing follows the samples but whole chunks that change nothing."""
    if start >= end:
        return True
    if end - start > _MOST_TAIL:
        return False
    tail = os.pread(file, end - start, start)
    return all(_beside(*chunk) for chunk in _chunks(tail))


def _chunks(content: bytes) -> Iterator[tuple[bytes, int, bytes]]:
    """Name, size and content of each chunk, whatever is left over with a name of its own."""
    at = 0
    while at < len(content):
        name, says = struct.unpack_from("<4sI", content, at) if at + 8 <= len(content) else (b"left", 0)
        yield name, says, content[at + 8 : at + 8 + says]
        at += 8 + says + says % 2


def _beside(name: bytes, says: int, content: bytes) -> bool:
    """Whether a chunk is whole, and one that libsndfile takes and that changes nothing in the sound."""
    if len(content) < says:
        return False
    if name == b"LIST":
        return content[:4] == b"INFO" and all(
            re.fullmatch(rb"[A-Z0-9]{4}", each) and size == len(text) for each, size, text in _chunks(content[4:])
        )
    return name in _BESIDE or (name == b"fact" and says == 4)
