"""Sound in containers that libsndfile does not know: M4A and MP4, AAC, WMA, WebM, Matroska, AMR and others, by PyAV.

The extra ``media`` brings PyAV, which holds FFmpeg's decoders. A stream is always decoded from its start on: encoders'
priming and padding are left out where the container says how long they are, and clips are cut by counting the
frames that come, never by time stamps, so a gap in these takes no time. Of several audio streams the default one is
heard, or the first. FFmpeg is told what kind of file it is to expect, so that no file can name another to be opened.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from typing import Any, BinaryIO

import numpy as np

from logitstore.arrays import F32
from logitstore.audio.containers import after_id3, changes, for_libsndfile
from logitstore.errors import AudioError

#: The usual endings of such files.
SUFFIXES = frozenset(
    f".{ending}"
    for ending in (
        *("m4a", "m4b", "m4r", "mp4", "m4v", "mov", "3gp", "3g2", "aac", "adts", "wma", "wmv", "asf"),
        *("webm", "weba", "mkv", "mka", "amr", "awb", "ac3", "eac3", "ape", "wv", "tta", "flv", "avi", "dsf"),
        *("mts", "m2ts", "mpg", "mpeg"),
    )
)
HOW = "pip install 'logitstore[media]'"
#: Frames at most that an encoder leaves at the end.
PADDING = 4096

_MAGIC = (
    *((name, 4, "mov") for name in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")),
    (b"\x1a\x45\xdf\xa3", 0, "matroska"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", 0, "asf"),
    (b"#!AMR", 0, "amr"),
    (b"wvpk", 0, "wv"),
    (b"MAC ", 0, "ape"),
    (b"TTA1", 0, "tta"),
    (b"MPCK", 0, "mpc8"),
    (b"MP+", 0, "mpc"),
    (b"FLV\1", 0, "flv"),
    (b"DSD ", 0, "dsf"),
    (b"ADIF", 0, "aac"),
    (b"AVI ", 8, "avi"),
    (b"\0\0\1\xba", 0, "mpeg"),
)
#: Containers that libsndfile opens, but not with every codec in them.
_SHARED = ((b"WAVE", 8, "wav"), (b"AIFC", 8, "aiff"), (b"OggS", 0, "ogg"), (b"caff", 0, "caf"), (b".snd", 0, "au"))
_HEAD = 4 + 2 * 192 + 1
_NAMES = {"mov": "MP4 or QuickTime", "matroska": "WebM or Matroska", "asf": "WMA", "aac": "AAC", "wv": "WavPack"}


def installed() -> bool:
    """Whether the extra is there; PyAV itself is not imported."""
    return importlib.util.find_spec("av") is not None


def kind_of(stream: BinaryIO, shared: bool = False) -> str | None:
    """FFmpeg's name of the kind of file, by its first bytes; None where it is not one for this module.

    :param shared: containers too that libsndfile tries first.
    """
    stream.seek(0)
    head = stream.read(_HEAD)
    if for_libsndfile(head) and not shared:
        return None
    if head[:3] == b"ID3":
        stream.seek(after_id3(stream, 0))
        head = stream.read(_HEAD)
    for magic, at, kind in _MAGIC + (_SHARED if shared else ()):
        if head[at : at + len(magic)] == magic:
            return kind
    if head[:1] == b"\xff" and len(head) > 6 and head[1] & 0xF6 == 0xF0 and head[2] >> 2 & 15 < 13:
        return "aac"
    if head[:2] == b"\x0b\x77" and len(head) > 5:
        return "eac3" if head[5] >> 3 > 10 else "ac3"
    for packet, at in ((188, 0), (192, 4)):
        if len(head) > at + packet and head[at] == head[at + packet] == 0x47:
            return "mpegts"
    return None


def kind_name(kind: str) -> str:
    """What people call such a file."""
    return _NAMES.get(kind, kind.upper())


class Sound:
    """The sound of one file, open for one pass."""

    def __init__(self, stream: BinaryIO, kind: str) -> None:
        av = _av(kind)
        #: Why its frames cannot all be had as one sound, once that is known.
        self.fault = ""
        stream.seek(0)
        try:
            self._container = av.open(stream, "r", format=kind, metadata_errors="ignore")
        except av.FFmpegError as error:
            raise AudioError(f"not readable as {kind_name(kind)}: {_reason(error)}") from None
        try:
            self._open(av, kind)
        except BaseException:
            self.close()
            raise

    def _open(self, av: Any, kind: str) -> None:
        streams = self._container.streams.audio
        if not streams:
            other = sorted({stream.type for stream in self._container.streams}) or ["nothing"]
            raise AudioError(f"no sound in it: this {kind_name(kind)} file holds {', '.join(other)}")
        default = int(av.stream.Disposition.default)
        self._audio = next((one for one in streams if int(one.disposition) & default), streams[0])
        self._frames = self._decoded(av)
        first = next(self._frames, None)
        self.rate, self.channels = first if isinstance(first, tuple) else (0, 0)
        if not self.rate:
            raise AudioError("empty: there is no frame of sound in it")
        exact = self._length(kind)
        self._limit = int(exact) if exact is not None and exact.denominator == 1 and kind == "mov" else None
        #: How many frames there should be; 0 where the container does not say.
        self.promised = 0 if exact is None else int(exact)

    def close(self) -> None:
        self._container.close()

    def _length(self, kind: str) -> Fraction | None:
        audio = self._audio
        if kind == "mov" and audio.duration and audio.time_base:
            return Fraction(audio.duration * audio.time_base * self.rate)
        if kind == "matroska" and (text := audio.metadata.get("DURATION")):
            return _clock(text, self.rate)
        alone = len(self._container.streams) == 1
        if kind in ("asf", "avi", "matroska") and alone and self._container.duration:
            return Fraction(self._container.duration * self.rate, 1_000_000)
        return None

    def _decoded(self, av: Any) -> Iterator[Any]:
        """Rate and channels of the first frame, then the samples of all, float32 (n, channels)."""
        told: tuple[int, int] | None = None
        count = 0
        try:
            for frame in self._container.decode(self._audio):
                if not frame.samples:
                    continue
                now = (int(frame.sample_rate), len(frame.layout.channels))
                if told is None:
                    told = now
                    yield told
                if now[0] != told[0]:
                    self.fault = changes(told[0], now[0], count)
                    raise AudioError(self.fault)
                count += frame.samples
                samples = _floats(frame, now[1])
                yield samples if now == told else _as_many(samples, told[1])
        except av.FFmpegError as error:
            if told is None:
                raise AudioError(f"not decodable: {_reason(error)}") from None
            raise AudioError(_reason(error)) from None

    def blocks(self) -> Iterator[F32]:
        """All frames, without the padding that the encoder left at the end."""
        count = 0
        held: list[F32] = []
        for samples in self._frames:
            if self._limit is None or (not held and count + len(samples) <= self._limit):
                count += len(samples)
                yield samples
                continue
            held.append(samples)
            if count + sum(map(len, held)) > self._limit + PADDING:  # more than padding: its length is not true
                yield from held
                count += sum(map(len, held))
                self._limit, held = None, []
        if held and self._limit is not None:
            yield np.concatenate(held)[: self._limit - count]


@cache
def _module() -> Any:
    try:
        import av
    except ImportError:
        return None
    return av


def _av(kind: str) -> Any:
    av = _module()
    if av is None:
        raise AudioError(f"{kind_name(kind)} needs the extra 'media'; install it with: {HOW}")
    return av


def _reason(error: Any) -> str:
    return str(error.strerror or error).splitlines()[0].rstrip(".")


def _clock(text: str, rate: int) -> Fraction | None:
    try:
        hours, minutes, seconds = text.strip("\0 ").split(":")
        return (int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)) * rate
    except ValueError:
        return None


def _floats(frame: Any, channels: int) -> F32:
    """Samples as float32 in [-1, 1], (n, channels).

    :raises AudioError: a format of samples that PyAV gives no array of, such as whole numbers of 64 bits.
    """
    try:
        samples = frame.to_ndarray()
    except ValueError as error:
        raise AudioError(f"not decodable: samples of the format {frame.format.name}, which is not known") from error
    samples = samples.T if frame.format.is_planar else samples.reshape(-1, channels)
    if samples.dtype == np.uint8:
        samples = (samples.astype(np.float32) - np.float32(128)) / np.float32(128)
    elif samples.dtype.kind == "i":
        samples = samples / 2.0 ** (8 * samples.dtype.itemsize - 1)
    floats: F32 = np.ascontiguousarray(samples, dtype=np.float32)
    return floats


def _as_many(samples: F32, channels: int) -> F32:
    """The mean of the channels, in as many as before."""
    mean: F32 = samples.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)
    return np.repeat(mean, channels, axis=1)
