"""One piece of encoded or raw audio, wherever it lies: how long it is, and its frames.

What the header says is compared with the bytes (:mod:`logitstore.audio.containers`); a file that holds what it says is
opened as it stands. Others are opened with their header put right, part by part, or from their start on where nothing
can be sought, so that all of the sound is heard or the reason is known. Every clip gets a handle of its own: Vorbis
seeks are exact on a fresh handle, and not always on one that has been read from before.
"""

from __future__ import annotations

import io
import os
import stat
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
import soundfile

from logitstore.arrays import F32
from logitstore.audio import media
from logitstore.audio.containers import MP3_SLACK, Anatomy, Stream, changes, examine
from logitstore.audio.sequence import Blocks, from_start
from logitstore.errors import AudioError

#: What libsndfile reads by header, by the usual endings of its files.
SNDFILE_SUFFIXES = frozenset(
    f".{ending}"
    for ending in (
        *("wav", "wave", "w64", "rf64", "flac", "ogg", "oga", "opus", "mp3"),
        *("aif", "aiff", "aifc", "au", "snd", "caf", "nist", "sph"),
    )
)
#: What is searched for in folders and archives; some of it needs the extra ``media``.
AUDIO_SUFFIXES = SNDFILE_SUFFIXES | media.SUFFIXES

#: More frames than this are not believed: 18 days at 44.1 kHz.
MAX_FRAMES = 1 << 36
#: Rates in Hz below this are not believed.
LEAST_RATE = 100
#: Nor more than these a byte of the file: FLAC holds silence in the least, up to 65,535 frames in some 10 bytes.
MAX_FRAMES_A_BYTE = 1 << 14

_READ = 1 << 16  # frames at a time where a stream is read from its start on
_MOST_KNOWN = 4096  # files of whose bytes this process remembers what they say


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


class Length(NamedTuple):
    """How long a piece of audio is.

    :param frames: that are there, at ``rate`` Hz. :param promised: that should be there, where that is known.
    :param breaks_off: whether what follows the last frame is missing, whoever knows how much that is.
    """

    frames: int
    rate: int
    promised: int
    breaks_off: bool = False


@dataclass(frozen=True)
class Opened:
    """An open piece of audio.

    :param rate: in Hz.
    :param length: () -> :class:`Length`; may decode the whole. It raises AudioError where the file has no one length.
    :param breaks_off: an Ogg file that ends inside a page; its last frames are not there.
    :param read: (start, length) -> float32 (frames read, channels), and what the decoder says of missing ones or "".
    """

    rate: int
    length: Callable[[], Length]
    breaks_off: bool
    read: Callable[[int, int], tuple[F32, str]]

    @property
    def frames(self) -> int:
        """How many there are, or should be."""
        return self.length().promised


@contextmanager
def opened(audio: Audio) -> Iterator[Opened]:
    """Open a piece of audio for one reader.

    :raises AudioError: what cannot be read; its message holds no path, so it may be stored.
    """
    if isinstance(audio, Pcm):
        whole = Length(audio.frames, audio.rate, audio.frames)
        _require_rate(audio.rate)
        yield Opened(audio.rate, lambda: whole, False, lambda start, length: _read_pcm(audio, start, length))
        return
    with ExitStack() as stack:
        stream = stack.enter_context(_stream(audio))
        size = stream.seek(0, os.SEEK_END)
        if not size:
            raise AudioError("empty: zero bytes")
        sound = _opened(audio, stream, size, _known(audio, stream, size))
        stack.callback(sound.close)
        found = sound.opened()
        _require_rate(found.rate)
        yield found


def _require_rate(rate: int) -> None:
    """Refuse a rate that no sound has: at 1 Hz, 32 KB would be four hours."""
    if rate < LEAST_RATE:
        raise AudioError(f"the header says {rate} Hz; less than {LEAST_RATE} Hz is no sound: mend the header")


def _opened(audio: Path | BinaryIO, stream: BinaryIO, size: int, known: _Known) -> _Streams | _Media:
    kind = media.kind_of(stream)
    if kind is not None:
        return _Media(audio, stream, kind, known)
    try:
        return _Streams(audio, stream, size, known)
    except soundfile.LibsndfileError as error:
        complaint = f"not readable as audio: {_complaint(error)}{_looks_like(stream)}"
    kind = media.kind_of(stream, shared=True)  # a codec that libsndfile does not have
    if kind is None:
        raise AudioError(complaint)
    if not media.installed():
        raise AudioError(f"{complaint}; other codecs in {media.kind_name(kind)} are read with: {media.HOW}")
    try:
        return _Media(audio, stream, kind, known)
    except AudioError:
        raise AudioError(complaint) from None


def frame_count(audio: Audio) -> Length:
    """How long a file is: as its header says where that is true, and as it was decoded where not.

    :raises AudioError: it cannot be read, or its rate changes on the way.
    """
    with opened(audio) as sound:
        return sound.length()


@dataclass
class _Known:
    """What was found out about a file: of its bytes, and by decoding. Kept while the file stays as it is."""

    anatomy: Anatomy
    identity: tuple[str, int, int, int, int] | None = None
    length: Length | None = None
    counts: dict[int, int] = field(default_factory=dict)  # frames of its streams
    rate: int = 0  # of a file that PyAV opens


_known_files: OrderedDict[Any, _Known] = OrderedDict()


def _known(audio: Path | BinaryIO, stream: BinaryIO, size: int) -> _Known:
    if not isinstance(audio, Path):
        return _Known(examine(stream, size))
    status = os.fstat(stream.fileno())
    identity = (str(audio), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    found = _known_files.get(identity)
    if found is None:
        found = _Known(examine(stream, size), identity)
        _known_files[identity] = found
        while len(_known_files) > _MOST_KNOWN:
            try:
                _known_files.popitem(last=False)
            except KeyError:
                break
    return found


class _Streams:
    """The streams of a file that libsndfile decodes, one after the other."""

    def __init__(self, audio: Path | BinaryIO, stream: BinaryIO, size: int, known: _Known) -> None:
        self.audio, self.stream, self.known = audio, stream, known
        self.parts = known.anatomy.streams
        self.handles: dict[int, Any] = {}
        self.rate = int(self._handle(0).samplerate)
        self.most = min(MAX_FRAMES, MAX_FRAMES_A_BYTE * size)
        frames = self._handle(0).frames
        if frames > self.most:
            self.close()
            raise AudioError(f"the header promises {frames} frames; of {size} bytes at most {self.most} are believed")

    def close(self) -> None:
        for handle in self.handles.values():
            handle.close()

    def opened(self) -> Opened:
        return Opened(self.rate, self.length, self.known.anatomy.breaks_off, self.read)

    def length(self) -> Length:
        if self.known.anatomy.fault:
            raise AudioError(self.known.anatomy.fault)
        if self.known.length is None:
            last = len(self.parts) - 1
            before = sum(self._count(number) for number in range(last))
            count, promised = self._count(last), self._count(last)
            part, found = self.parts[last], self._handle(last).frames
            if self.known.anatomy.kind == "mp3":
                count, promised = self._mp3_end(part, found)
            elif part.frames is not None:  # a FLAC stream whose last frame was looked up; is it whole?
                start = max(0, found - _READ)
                count = start + len(self._read(last, start, found - start)[0])
            promised = max(promised, min(part.promised, self.most))
            self.known.length = Length(before + count, self.rate, before + promised, self.known.anatomy.breaks_off)
        return self.known.length

    def _mp3_end(self, part: Stream, found: int) -> tuple[int, int]:
        """The frames of an MP3 stream that are there and that should be.

        Its own count can be off by the padding of its last frames: where at most 2,304 frames are missing at the end,
        it is the number that can be decoded. Larger losses stay in the count, and the clips that meet them fail.
        """
        if part.sure:
            return found, found
        start = max(0, found - 2 * MP3_SLACK)
        missing = found - start - len(self._read(len(self.parts) - 1, start, found - start)[0])
        if missing <= MP3_SLACK:
            return found - missing, found - missing
        last = found if part.frames is None else min(found, part.frames)
        start = max(0, last - 2 * MP3_SLACK)
        return start + len(self._read(len(self.parts) - 1, start, last - start)[0]), found

    def read(self, start: int, length: int) -> tuple[F32, str]:
        got: list[F32] = []
        complaint, before, missing = "", 0, length
        for number in range(len(self.parts)):
            inside = start + length - missing - before
            last = number == len(self.parts) - 1
            count = missing if last else max(0, min(missing, self._count(number) - inside))
            if count or last:
                frames, complaint = self._read(number, inside, count)
                got.append(frames)
                missing -= len(frames)
                if len(frames) < count or not missing:
                    break
            before += self._count(number)
        if missing and not complaint:
            fault = self.known.anatomy.fault
            complaint = fault or self.parts[-1].why
        if len(got) == 1:
            return got[0], complaint
        same = len({frames.shape[1] for frames in got}) == 1
        return np.concatenate(got if same else [mono(frames)[:, None] for frames in got]), complaint

    def _count(self, number: int) -> int:
        """Frames of a stream, as libsndfile has them once its header is right."""
        if number not in self.known.counts:
            handle = self._handle(number)
            if int(handle.samplerate) != self.rate:
                after = sum(self._count(one) for one in range(number))
                raise AudioError(changes(self.rate, int(handle.samplerate), after))
            self.known.counts[number] = int(handle.frames)
        return self.known.counts[number]

    def _handle(self, number: int) -> Any:
        if number not in self.handles:
            self.handles[number] = self._opened(self.stream, number)
        return self.handles[number]

    def _opened(self, stream: BinaryIO, number: int) -> Any:
        part = self.parts[number]
        if self.known.anatomy.plain:
            stream.seek(0)
            handle = soundfile.SoundFile(stream.fileno() if isinstance(self.audio, Path) else stream, closefd=False)
        else:
            raw: dict[str, Any] = {}
            if part.raw is not None:
                raw = {"format": "RAW", "samplerate": part.raw.rate, "channels": part.raw.channels}
                raw |= {"subtype": part.raw.subtype, "endian": part.raw.endian}
            handle = soundfile.SoundFile(_PutRight(stream, replace(part, prefix=b"")), **raw)
        if part.prefix and part.frames is not None and abs(handle.frames - part.frames) > MP3_SLACK:
            handle.close()  # it guessed its length from its first frames
            handle = soundfile.SoundFile(_PutRight(stream, part))
        return handle

    def _read(self, number: int, start: int, length: int) -> tuple[F32, str]:
        handle = self._handle(number)
        if handle.seekable() or not length:
            return _read(handle, start, length)
        identity = self.known.identity
        return from_start(identity and (*identity, number), lambda: self._blocks(number), start, length)

    def _blocks(self, number: int) -> Blocks:
        with ExitStack() as stack:
            stream = stack.enter_context(_stream(self.audio))
            handle = stack.enter_context(self._opened(stream, number))
            while True:
                block = np.zeros((_READ, handle.channels), np.float32)
                try:
                    block = handle.read(out=block)
                except soundfile.LibsndfileError as error:
                    raise AudioError(_complaint(error)) from None
                if not len(block):
                    return
                yield block


class _Media:
    """A file that PyAV decodes, from its start on."""

    def __init__(self, audio: Path | BinaryIO, stream: BinaryIO, kind: str, known: _Known) -> None:
        self.audio, self.stream, self.kind, self.known = audio, stream, kind, known
        self.fresh: tuple[media.Sound, BinaryIO | None] | None = None
        if not known.rate:
            self.fresh = self._sound()
            known.rate = self.fresh[0].rate

    def close(self) -> None:
        if self.fresh is not None:
            _close(*self.fresh)

    def opened(self) -> Opened:
        return Opened(self.known.rate, self.length, False, self.read)

    def length(self) -> Length:
        if self.known.length is None:
            sound, owned = self._sound()
            count, broken = 0, False
            try:
                for block in sound.blocks():
                    count += len(block)
            except AudioError:
                if sound.fault or not count:
                    raise
                broken = True
            finally:
                _close(sound, owned)
            enough = sound.promised <= count + media.PADDING
            self.known.length = Length(count, sound.rate, count if enough else sound.promised, broken and enough)
        return self.known.length

    def read(self, start: int, length: int) -> tuple[F32, str]:
        return from_start(self.known.identity, self._blocks, start, length)

    def _blocks(self) -> Blocks:
        sound, owned = self.fresh or self._sound()
        self.fresh = None
        try:
            yield from sound.blocks()
        finally:
            _close(sound, owned)

    def _sound(self) -> tuple[media.Sound, BinaryIO | None]:
        owned = self.audio.open("rb") if isinstance(self.audio, Path) else None
        try:
            return media.Sound(owned or self.stream, self.kind), owned
        except BaseException:
            if owned is not None:
                owned.close()
            raise


def _close(sound: media.Sound, owned: BinaryIO | None) -> None:
    sound.close()
    if owned is not None:
        owned.close()


class Window(io.RawIOBase):
    """A part of a file as a file of its own: its place in it. What reads it says where its bytes are.

    :param size: in bytes.
    """

    def __init__(self, size: int) -> None:
        self._size, self._at = size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at


class _PutRight(Window):
    """One stream of a file, its header put right."""

    def __init__(self, stream: BinaryIO, part: Stream) -> None:
        super().__init__(len(part.prefix) + part.size)
        self._stream, self._part = stream, part

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        view = view[: max(0, min(len(view), self._size - self._at))]
        if not len(view):
            return 0
        before = len(self._part.prefix) - self._at
        if before > 0:
            count = min(before, len(view))
            view[:count] = self._part.prefix[self._at : self._at + count]
        else:
            self._stream.seek(self._part.offset - before)
            data = self._stream.read(len(view))
            count = len(data)
            view[:count] = data
            for at, patch in self._part.patches:
                low, high = max(at, -before), min(at + len(patch), count - before)
                if low < high:
                    view[low + before : high + before] = patch[low - at : high - at]
        self._at += count
        return count


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


def _looks_like(stream: BinaryIO) -> str:
    """What a file that is no audio begins with, as a rest of a sentence."""
    stream.seek(0)
    head = stream.read(64)
    if not any(head):
        return ": it begins with zeros"
    text = head.lstrip(b"\xef\xbb\xbf \r\n\t").split(b"\n")[0][:32]
    readable = len(text) > 3 and all(32 <= byte < 127 for byte in text)
    return f": it begins with the text {text.decode().strip()!r}" if readable else ""


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


def mono(frames: F32) -> F32:
    """The mean over channels in float64, channel by channel: no reduction whose order could vary."""
    if frames.shape[1] == 1:
        return frames[:, 0].copy()
    total = frames[:, 0].astype(np.float64)
    for channel in range(1, frames.shape[1]):
        total += frames[:, channel]
    mean: F32 = (total / frames.shape[1]).astype(np.float32)
    return mean
