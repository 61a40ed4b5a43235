"""One piece of encoded or raw audio, wherever it lies: what its header promises, and its frames.

libsndfile quietly shortens a truncated WAV or AIFF file to what is left of it, so the promise is read from the chunks
here. An Ogg stream has no promise; its last page tells whether the file breaks off inside it. Every clip gets a handle
of its own: Vorbis seeks are exact on a fresh handle, and not always on one that has been read from before.
"""

from __future__ import annotations

import io
import os
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import soundfile

from logitstore.arrays import F32
from logitstore.errors import AudioError

#: What libsndfile reads by header, by the usual endings of its files; searched for in folders and archives.
AUDIO_SUFFIXES = frozenset(
    f".{ending}"
    for ending in (
        *("wav", "wave", "w64", "rf64", "flac", "ogg", "oga", "opus", "mp3"),
        *("aif", "aiff", "aifc", "au", "snd", "caf", "nist", "sph"),
    )
)

#: More frames than this are not believed: 18 days at 44.1 kHz.
MAX_FRAMES = 1 << 36
#: Nor more than these a byte of the file: FLAC holds silence in the least, up to 65,535 frames in some 10 bytes.
MAX_FRAMES_A_BYTE = 1 << 14

_UNKNOWN_BYTES = 0x7FFF_0000  # a WAV written to a pipe says 0, or a size near 2 or 4 GiB
_OGG_PAGE_BYTES = 27 + 255 + 255 * 255
_MP3_SLACK = 2 * 1152


@dataclass(frozen=True)
class Pcm:
    """Raw 16-bit samples that need no decoder.

    :param frames: number of samples; one channel.
    :param rate: in Hz.
    :param read: (start, stop) -> int16 (stop - start,), half-open.
    """

    frames: int
    rate: int
    read: Callable[[int, int], npt.NDArray[np.int16]]


class InMemory(io.BytesIO):
    """Encoded audio in memory; seeks before its start stop there, as damaged headers ask for them."""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.tell(), os.SEEK_END: len(self.getbuffer())}[whence]
        return super().seek(max(0, base + offset))


#: A file on disk, an open binary stream of its own for one reader, or raw samples.
Audio = Path | BinaryIO | Pcm


@dataclass(frozen=True)
class Opened:
    """An open piece of audio.

    :param frames: what the header promises; for formats without a promise, what libsndfile finds.
    :param rate: in Hz.
    :param breaks_off: an Ogg stream that ends inside a page; its last frames are not there.
    :param read: (start, length) -> float32 (frames read, channels), and libsndfile's complaint or "".
    """

    frames: int
    rate: int
    breaks_off: bool
    read: Callable[[int, int], tuple[F32, str]]


@contextmanager
def opened(audio: Audio) -> Iterator[Opened]:
    """Open a piece of audio for one reader.

    :raises AudioError: what libsndfile cannot read; its message holds no path, so it may be stored.
    """
    if isinstance(audio, Pcm):
        yield Opened(audio.frames, audio.rate, False, lambda start, length: _read_pcm(audio, start, length))
        return
    with _stream(audio) as stream:
        size = stream.seek(0, os.SEEK_END)
        if not size:
            raise AudioError("empty: zero bytes")
        promise, breaks_off = _promise(stream, size), _breaks_off(stream, size)
        stream.seek(0)
        try:
            handle = soundfile.SoundFile(stream.fileno() if isinstance(audio, Path) else stream, closefd=False)
        except soundfile.LibsndfileError as error:
            raise AudioError(f"not readable as audio: {_complaint(error)}") from None
        with handle:
            frames = promise.frames(handle.frames) if promise else handle.frames
            most = min(MAX_FRAMES, MAX_FRAMES_A_BYTE * size)
            if frames > most:
                raise AudioError(f"the header promises {frames} frames; of {size} bytes at most {most} are believed")
            yield Opened(frames, handle.samplerate, breaks_off, lambda start, length: _read(handle, start, length))


def frame_count(audio: Audio) -> tuple[int, int]:
    """The frames that a file is cut into, and its rate in Hz.

    An MP3's own count can be off by the padding of its last frames: where at most 2,304 frames are missing at the end,
    it is the number that can be decoded. Larger losses stay in the count, and the clips that meet them fail.
    """
    with opened(audio) as sound:
        frames = sound.frames
        if frames and not isinstance(audio, Pcm) and _is_mp3(audio):
            start = max(0, frames - 2 * _MP3_SLACK)
            missing = frames - start - len(sound.read(start, frames - start)[0])
            frames -= missing if missing <= _MP3_SLACK else 0
        return frames, sound.rate


def _is_mp3(audio: Path | BinaryIO) -> bool:
    with _stream(audio) as stream:
        stream.seek(0)
        head = stream.read(12)
    return head[:3] == b"ID3" or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0)


@contextmanager
def _stream(audio: Path | BinaryIO) -> Iterator[BinaryIO]:
    if not isinstance(audio, Path):
        yield audio
        return
    try:
        mode = audio.stat().st_mode
        if not stat.S_ISREG(mode):
            raise AudioError("not a regular file")
        stream = audio.open("rb", buffering=0)
    except OSError as error:
        raise AudioError(f"cannot be opened: {error.strerror}") from None
    with stream:
        yield stream


def _complaint(error: soundfile.LibsndfileError) -> str:
    text = str(error.error_string).strip().removeprefix("Error : ")
    return text.rstrip(".")


def _read(handle: Any, start: int, length: int) -> tuple[F32, str]:
    available = min(length, max(0, handle.frames - start))
    data = np.zeros((available, handle.channels), dtype=np.float32)
    if not available:
        return data, ""
    try:
        handle.seek(start)  # to 0 as well: an MP3 that was never sought differs in its last bits
        return data[: len(handle.read(out=data))], ""
    except soundfile.LibsndfileError as error:
        complaint = _complaint(error)
    try:
        got = handle.tell() - start
    except soundfile.LibsndfileError:
        got = 0
    return data[: min(max(0, got), available)], complaint


def _read_pcm(audio: Pcm, start: int, length: int) -> tuple[F32, str]:
    stop = min(start + length, audio.frames)
    samples = audio.read(min(start, stop), stop)
    return (samples.astype(np.float32) / np.float32(32768))[:, None], ""


@dataclass(frozen=True)
class _Promise:
    """Sizes of the sample data of a file that is shorter than its header says."""

    promised_bytes: int
    available_bytes: int
    frame_bytes: int
    stated_frames: int  # 0 where the header does not say

    def frames(self, found: int) -> int:
        if self.stated_frames:
            return max(found, self.stated_frames)
        if self.frame_bytes and found == self.available_bytes // self.frame_bytes:
            return self.promised_bytes // self.frame_bytes
        return max(found, found * self.promised_bytes // max(1, self.available_bytes))


def _promise(stream: BinaryIO, size: int) -> _Promise | None:
    """The promise of a WAV, RF64 or AIFF file that is cut short; None for a whole one, and for other formats."""
    stream.seek(0)
    head = stream.read(12)
    big = head[:4] == b"FORM" and head[8:] in (b"AIFF", b"AIFC")
    if not big and not (head[:4] in (b"RIFF", b"RF64") and head[8:] == b"WAVE"):
        return None
    frame_bytes = stated_frames = long_size = 0
    position = 12
    while position + 8 <= size:
        stream.seek(position)
        name, chunk = struct.unpack(">4sI" if big else "<4sI", stream.read(8))
        position += 8
        body = stream.read(min(chunk, 24)) if name in (b"fmt ", b"COMM", b"ds64") else b""
        if name == b"fmt " and len(body) >= 14:
            frame_bytes = struct.unpack_from("<H", body, 12)[0]
        elif name == b"COMM" and len(body) >= 6:
            stated_frames = struct.unpack_from(">I", body, 2)[0]
        elif name == b"ds64" and len(body) >= 16:
            long_size = struct.unpack_from("<Q", body, 8)[0]
        elif name in (b"data", b"SSND"):
            offset = 8 if big else 0  # SSND begins with an offset and a block size
            promised = (long_size if chunk == 0xFFFF_FFFF and long_size else chunk) - offset
            known = long_size == promised or 0 < promised < _UNKNOWN_BYTES
            available = max(0, size - position - offset)
            if not known or promised <= available:
                return None
            return _Promise(promised, available, frame_bytes, stated_frames)
        position += chunk + chunk % 2
    return None


def _breaks_off(stream: BinaryIO, size: int) -> bool:
    """Whether an Ogg file ends inside a page."""
    stream.seek(0)
    if stream.read(4) != b"OggS":
        return False
    stream.seek(max(0, size - _OGG_PAGE_BYTES))
    tail = stream.read(_OGG_PAGE_BYTES)
    at = tail.rfind(b"OggS\0")
    if at < 0:
        return False
    if len(tail) < at + 27 or len(tail) < at + 27 + tail[at + 26]:
        return True
    end = at + 27 + tail[at + 26] + sum(tail[at + 27 : at + 27 + tail[at + 26]])
    rest = tail[end:]
    return end > len(tail) or (0 < len(rest) < 5 and b"OggS\0".startswith(rest))
