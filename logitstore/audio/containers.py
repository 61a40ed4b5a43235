"""What the bytes of a file say of the sound in it, read without a decoder, and where its header must be put right.

A header is a hint. Programs that write to a pipe leave sizes of 0 or "unknown"; sizes of 32 bits wrap round at 4 GiB;
recorders lose power; files are joined with ``cat``. So sizes are compared with the bytes that are there, frames of
FLAC and MP3 are looked up where they lie, and pages of Ogg are followed to the end. What is as its header says is left
as it is: libsndfile reads it by itself. Nothing here decodes a sample.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import BinaryIO

from logitstore.errors import AudioError

_GIB4 = 1 << 32
_NEAR = 1 << 16  # sizes this near to 2 or 4 GiB are no sizes: what is written where the end is not known yet
_BLOCK = 1 << 16
_WHOLE = 1 << 20
_SMALL = 1 << 17  # files up to this size are searched whole for a second stream, larger ones looked at in some places
_PLACES = (0.23, 0.37, 0.5, 0.61, 0.79)  # of k equal streams in a file, some of these fall out of order
_OGG_PAGE_BYTES = 27 + 255 + 255 * 255
#: How far an MP3's own count may be off by the delay and the padding of its encoder.
MP3_SLACK = 2 * 1152


@dataclass(frozen=True)
class Raw:
    """Samples without a header that can be believed, as libsndfile's RAW format."""

    rate: int
    channels: int
    subtype: str
    endian: str


@dataclass(frozen=True)
class Stream:
    """One stream of sound in a file.

    :param offset, size: where it lies, in bytes.
    :param frames: how many are there; None where libsndfile's own count is right.
    :param promised: how many its header says there are, if that is more than are there; else 0.
    :param patches: (offset in the stream, bytes) that put its header right.
    :param prefix: bytes before it that give libsndfile its length, to be used if its own count is off.
    :param raw: how to read it without its header.
    :param sure: an MP3 whose header counts its frames as they are; its end need not be decoded to know its length.
    :param why: what is odd where fewer frames are there than promised, or "".
    """

    offset: int
    size: int
    frames: int | None = None
    promised: int = 0
    patches: tuple[tuple[int, bytes], ...] = ()
    prefix: bytes = b""
    raw: Raw | None = None
    sure: bool = False
    why: str = ""


@dataclass(frozen=True)
class Anatomy:
    """The streams of a file, one after the other.

    :param kind: wav, aiff, au, w64, caf, flac, ogg, mp3, or "" for whatever else.
    :param breaks_off: an Ogg file that ends inside a page; its last frames are not there.
    :param fault: why the file as a whole cannot be cut into clips, or "".
    """

    kind: str
    streams: tuple[Stream, ...]
    breaks_off: bool = False
    fault: str = ""

    @property
    def plain(self) -> bool:
        """Whether libsndfile reads the file as it stands."""
        first = self.streams[0]
        return len(self.streams) == 1 and not (self.fault or first.offset or first.patches or first.prefix or first.raw)


def for_libsndfile(head: bytes) -> bool:
    """Whether a file that begins like this is of a kind that libsndfile knows best."""
    return head[:4] in (b"fLaC", b"OggS") or _chunked(head) is not None


def examine(stream: BinaryIO, size: int) -> Anatomy:
    """Look at a file; what is of no known kind is one stream, as libsndfile finds it."""
    streams: list[Stream] = []
    offset, kind = 0, ""
    while True:
        head = _at(stream, offset, 16)
        chunked = _chunked(head)
        if chunked is None:
            break
        kind = kind or chunked
        found = _sized(stream, offset, size, chunked)
        streams.append(found)
        offset += found.size
        if offset >= size or _chunked(_at(stream, offset, 16)) != kind:
            break
    if streams:
        return Anatomy(kind, tuple(streams))
    start = after_id3(stream, 0)
    head = _at(stream, start, 4)
    if head == b"fLaC":
        return _flac(stream, start, size)
    if head == b"OggS":
        return _ogg(stream, size)
    if start or _mp3_frame(head):
        return _mp3(stream, start, size)
    return Anatomy("", (Stream(0, size),))


def changes(before: int, after: int, frames: int) -> str:
    """Why a file whose sound is not of one rate cannot be cut into clips."""
    return f"changes: its rate goes from {before} to {after} Hz after {frames} frames; cut the file there"


def _at(stream: BinaryIO, offset: int, count: int) -> bytes:
    stream.seek(offset)
    return stream.read(count)


# WAV, RF64, AIFF, AU, Wave64, CAF: samples in one chunk whose size stands before it


@dataclass(frozen=True)
class _Size:
    """A number in a header that says how long something is: where, how written, of what, and with how much added."""

    at: int
    form: str
    of: str  # "samples" (bytes), "file" (bytes) or "frames"
    plus: int = 0


@dataclass
class _Chunk:
    """The chunk of samples of a file, as its header has it."""

    at: int = 0  # where the samples begin
    says: int = 0  # bytes
    wraps: bool = True  # the size has 32 bits
    unit: int = 0  # bytes of a frame or of a block; 0 where unknown
    unit_frames: int = 1
    stated: int = 0  # frames, where the header has them too
    raw: Raw | None = None
    sizes: list[_Size] = field(default_factory=list)
    outer: int = 0  # where the outermost chunk says that it ends

    def frames(self, count: int) -> int:
        return count // self.unit * self.unit_frames if self.unit else 0


def _chunked(head: bytes) -> str | None:
    if head[:4] in (b"RIFF", b"RF64", b"BW64", b"RIFX") and head[8:12] == b"WAVE":
        return "wav"
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "aiff"
    if head[:4] in (b".snd", b"dns."):
        return "au"
    if head[:4] == b"riff" and head[4:8] == b"\x2e\x91\xcf\x11":
        return "w64"
    return "caf" if head[:6] == b"caff\0\1" else "nist" if head[:8] == b"NIST_1A\n" else None


def _sized(stream: BinaryIO, base: int, end: int, kind: str) -> Stream:
    """A stream whose samples lie in one chunk, with the sizes that its bytes bear out."""
    chunk = {"wav": _riff, "aiff": _aiff, "au": _au, "w64": _w64, "caf": _caf, "nist": _nist}[kind](stream, base, end)
    whole = Stream(base, end - base)
    if chunk is None or (kind == "nist" and not chunk.says):
        return whole
    there = max(0, end - chunk.at)
    if chunk.says > there:
        unknown = any(abs(chunk.says - limit) <= _NEAR for limit in (_GIB4 >> 1, _GIB4)) or chunk.says >= 1 << 62
        claimed = 0 if unknown else max(chunk.stated, chunk.frames(chunk.says))
        fixed = _put_right(chunk, whole, there) if kind == "caf" or (unknown and kind in ("au", "wav")) else whole
        return replace(fixed, promised=claimed if claimed > chunk.frames(there) else 0)
    if chunk.says:
        rest = there - chunk.says
        if chunk.wraps and rest >= _GIB4:
            return _put_right(chunk, whole, chunk.says + rest // _GIB4 * _GIB4)
        after = chunk.at + chunk.says + (chunk.says % 2 if kind in ("wav", "aiff") else 0)
        if end - after < 8 or _chunks_follow(stream, after, end, kind):
            return whole
        if _chunked(_at(stream, after, 16)):
            return Stream(base, after - base)
        if kind == "wav" and (chunk.outer <= base + 44 or after + 8 < chunk.outer):
            return _put_right(chunk, whole, there)
        if not any(_at(stream, after, _BLOCK)) and not any(_at(stream, max(after, end - _BLOCK), _BLOCK)):
            return whole  # room that was reserved
        why = f"the header says {chunk.frames(chunk.says)} frames, and {end - after} bytes that are no chunk follow"
        return replace(whole, promised=chunk.frames(there), why=why)
    if there < max(1, chunk.unit) or _chunks_follow(stream, chunk.at, end, kind):
        return whole
    return _put_right(chunk, whole, there)


def _put_right(chunk: _Chunk, whole: Stream, count: int) -> Stream:
    """The stream with ``count`` bytes of samples, whatever its header says."""
    if not chunk.wraps or whole.size < _GIB4:
        values = {"samples": count, "file": whole.size, "frames": chunk.frames(count)}
        patches = [
            (size.at - whole.offset, struct.pack(size.form, values[size.of] + size.plus)) for size in chunk.sizes
        ]
        return replace(whole, patches=tuple(patches))
    if chunk.raw is None:
        return replace(whole, promised=chunk.frames(count), why="its size has wrapped round at 4 GiB")
    return Stream(chunk.at, count // chunk.unit * chunk.unit, raw=chunk.raw)


def _chunks_follow(stream: BinaryIO, at: int, end: int, kind: str) -> bool:
    """Whether nothing but whole chunks lies from here to the end of the file, but for a few bytes."""
    form = {"wav": "<4sI", "aiff": ">4sI", "caf": ">4sq"}.get(kind)
    head = struct.calcsize(form) if form else 8
    while form and at + head <= end:
        name, size = struct.unpack(form, _at(stream, at, head))
        if not re.fullmatch(rb"[ -~]{4}", name) or not 0 <= size <= end - at - head or _chunked(_at(stream, at, 16)):
            return False
        at += head + size + (size % 2 if kind != "caf" else 0)
    return at >= end - 8


_PCM = {1: {8: "PCM_U8", 16: "PCM_16", 24: "PCM_24", 32: "PCM_32"}, 3: {32: "FLOAT", 64: "DOUBLE"}}
_LAWS = {6: "ALAW", 7: "ULAW"}
_MOST_CHUNKS = 10_000


def _few() -> Iterator[None]:
    """As many steps as the chunks before the sound can need: a file of nothing but empty ones has millions.

    :raises AudioError: after all of them.
    """
    yield from (None for _ in range(_MOST_CHUNKS))
    raise AudioError(f"not readable as audio: more than {_MOST_CHUNKS:,} chunks come before any sound")


def _riff(stream: BinaryIO, base: int, end: int) -> _Chunk | None:
    head = _at(stream, base, 12)
    order = ">" if head[:4] == b"RIFX" else "<"
    chunk = _Chunk(outer=base + 8 + struct.unpack_from(order + "I", head, 4)[0])
    chunk.sizes.append(_Size(base + 4, order + "I", "file", -8))
    long_outer, long_size, long_at, position = 0, 0, 0, base + 12
    for _ in _few():
        if position + 8 > end:
            break
        name, size = struct.unpack(order + "4sI", _at(stream, position, 8))
        position += 8
        body = _at(stream, position, min(size, 40)) if name in (b"fmt ", b"ds64") else b""
        if name == b"fmt " and len(body) >= 16:
            tag, channels, rate, _, chunk.unit, bits = struct.unpack_from(order + "HHIIHH", body)
            if tag == 0xFFFE and len(body) >= 26:
                tag = struct.unpack_from(order + "H", body, 24)[0]
            subtype = _PCM.get(tag, {}).get(bits) or (_LAWS.get(tag) if bits == 8 else None)
            if subtype and 0 < chunk.unit == channels * bits // 8:
                chunk.raw = Raw(rate, channels, subtype, "BIG" if order == ">" else "LITTLE")
            elif len(body) >= 20 and not subtype:  # blocks that say how many frames each holds; GSM 6.10 has 320
                chunk.unit_frames = struct.unpack_from(order + "H", body, 18)[0] or 1
        elif name == b"ds64" and len(body) >= 16:
            long_outer, long_size = struct.unpack_from("<2Q", body)
            long_at = position + 8
        elif name == b"data":
            chunk.at, chunk.says = position, size
            if size == 0xFFFF_FFFF and long_at:
                chunk.says, chunk.wraps = long_size, False
                chunk.outer = base + 8 + long_outer
                chunk.sizes = [_Size(long_at - 8, "<Q", "file", -8), _Size(long_at, "<Q", "samples")]
            else:
                chunk.sizes.append(_Size(position - 4, order + "I", "samples"))
            return chunk
        position += size + size % 2
    return None


_AIFF_UNITS = {b"NONE": 0, b"sowt": 0, b"twos": 0, b"raw ": 0, b"in24": 3, b"in32": 4, b"fl32": 4, b"FL32": 4}
_AIFF_UNITS |= {b"fl64": 8, b"FL64": 8, b"alaw": 1, b"ALAW": 1, b"ulaw": 1, b"ULAW": 1}


def _aiff(stream: BinaryIO, base: int, end: int) -> _Chunk | None:
    chunk = _Chunk(sizes=[_Size(base + 4, ">I", "file", -8)])
    position = base + 12
    for _ in _few():
        if position + 8 > end:
            break
        name, size = struct.unpack(">4sI", _at(stream, position, 8))
        position += 8
        if name == b"COMM":
            body = _at(stream, position, min(size, 22))
            if len(body) < 18:
                return None
            channels, chunk.stated, bits = struct.unpack_from(">hIh", body)
            width = _AIFF_UNITS.get(body[18:22] or b"NONE")
            chunk.unit = 0 if width is None else max(0, channels * (width or (bits + 7) // 8))
            if chunk.unit:
                chunk.sizes.append(_Size(position + 2, ">I", "frames"))
        elif name == b"SSND":
            chunk.at, chunk.says = position + 8, max(0, size - 8)
            chunk.sizes.append(_Size(position - 4, ">I", "samples", 8))
            return chunk
        position += size + size % 2
    return None


_AU_BYTES = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}
_AU_SUBTYPES = {1: "ULAW", 2: "PCM_S8", 3: "PCM_16", 4: "PCM_24", 5: "PCM_32", 6: "FLOAT", 7: "DOUBLE", 27: "ALAW"}


def _au(stream: BinaryIO, base: int, end: int) -> _Chunk | None:
    head = _at(stream, base, 24)
    if len(head) < 24:
        return None
    order = ">" if head[:4] == b".snd" else "<"
    offset, says, encoding, rate, channels = struct.unpack_from(order + "5I", head, 4)
    unit = _AU_BYTES.get(encoding, 0) * channels
    raw = Raw(rate, channels, _AU_SUBTYPES[encoding], "BIG" if order == ">" else "LITTLE") if unit else None
    return _Chunk(base + offset, says, unit=unit, raw=raw, sizes=[_Size(base + 8, order + "I", "samples")])


def _w64(stream: BinaryIO, base: int, end: int) -> _Chunk | None:
    chunk = _Chunk(wraps=False, sizes=[_Size(base + 16, "<Q", "file")])
    position = base + 40
    for _ in _few():
        if position + 24 > end:
            break
        name, size = struct.unpack("<16sQ", _at(stream, position, 24))
        if name[:4] == b"fmt " and size >= 40:
            chunk.unit = struct.unpack_from("<H", _at(stream, position + 24, 16), 12)[0]
        elif name[:4] == b"data":
            chunk.at, chunk.says = position + 24, max(0, size - 24)
            chunk.sizes.append(_Size(position + 16, "<Q", "samples", 24))
            return chunk
        position += max(24, size + -size % 8)
    return None


def _caf(stream: BinaryIO, base: int, end: int) -> _Chunk | None:
    chunk = _Chunk(wraps=False)
    position = base + 8
    for _ in _few():
        if position + 12 > end:
            break
        name, size = struct.unpack(">4sq", _at(stream, position, 12))
        position += 12
        if name == b"desc" and size >= 32:
            bytes_packet, frames_packet = struct.unpack_from(">2I", _at(stream, position, 32), 16)
            chunk.unit = bytes_packet if frames_packet == 1 else 0
        elif name == b"data":
            chunk.at, chunk.says = position + 4, (1 << 63) - 1 if size < 0 else max(0, size - 4)
            chunk.sizes.append(_Size(position - 8, ">q", "samples", 4))
            return chunk
        if size < 0:
            return None
        position += size
    return None


def _nist(stream: BinaryIO, base: int, end: int) -> _Chunk | None:
    head = _at(stream, base, 1024)
    told = dict(re.findall(rb"\n(\w+) -i (\d{1,15})", head.partition(b"end_head")[0]))
    size = re.match(rb"NIST_1A\n *(\d{1,6})\n", head)
    if size is None or not told.keys() >= {b"sample_count", b"sample_n_bytes", b"channel_count"}:
        return None
    unit = int(told[b"sample_n_bytes"]) * int(told[b"channel_count"])
    return _Chunk(base + int(size[1]), int(told[b"sample_count"]) * unit, wraps=False, unit=unit)


# FLAC: every frame has its place and its length


_CRC8 = []
for _value in range(256):
    for _ in range(8):
        _value = (_value << 1) ^ (0x107 if _value & 0x80 else 0)
    _CRC8.append(_value & 0xFF)
_FLAC_BLOCKS = (0, 192, 576, 1152, 2304, 4608, 0, 0, *(256 << n for n in range(8)))
_FLAC_MAGIC = re.compile(rb"fLaC[\x00\x80]\0\0\x22")


def after_id3(stream: BinaryIO, at: int) -> int:
    """Where the ID3v2 tags that begin here end."""
    while True:
        head = _at(stream, at, 10)
        if len(head) < 10 or head[:3] != b"ID3" or max(head[6:10]) > 127:
            return at
        size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
        at += 10 + size + (10 if head[5] & 0x10 else 0)


def _flac(stream: BinaryIO, start: int, end: int) -> Anatomy:
    starts = [start]
    if end <= _SMALL or not _rising(stream, start, end):
        starts += _flac_starts(stream, start + 4, end)
    bounds = zip(starts, pairwise([0, *starts[1:], end]), strict=True)
    return Anatomy("flac", tuple(_flac_stream(stream, at, base, stop) for at, (base, stop) in bounds))


def _flac_info(stream: BinaryIO, start: int) -> tuple[int, int, int, int] | None:
    """Smallest and largest block in frames, largest frame in bytes, total; None without a STREAMINFO."""
    head = _at(stream, start, 42)
    if len(head) < 42 or head[4] & 0x7F or head[5:8] != b"\0\0\x22":
        return None
    low, high = struct.unpack_from(">HH", head, 8)
    return low, high, int.from_bytes(head[15:18], "big"), int.from_bytes(head[18:26], "big") & ((1 << 36) - 1)


def _flac_stream(stream: BinaryIO, start: int, base: int, end: int) -> Stream:
    """One FLAC stream in the bytes [base, end) of a file; ``start`` is where its marker lies."""
    whole = Stream(base, end - base)
    info = _flac_info(stream, start)
    last = _flac_last(stream, start, end, info) if info else None
    if info is None or last is None or last == info[3]:
        return whole
    fields = int.from_bytes(_at(stream, start + 18, 8), "big") >> 36 << 36 | last
    patch = (start - base + 18, fields.to_bytes(8, "big"))
    return replace(whole, frames=last, promised=info[3] if last < info[3] < 1 << 35 else 0, patches=(patch,))


def _flac_last(stream: BinaryIO, start: int, end: int, info: tuple[int, int, int, int]) -> int | None:
    """The frame after the last that lies before the byte ``end``; None where no frame is found."""
    low, high, largest, _ = info
    reach = 2 * largest or _BLOCK
    begin = max(start + 42, end - reach)
    tail = _at(stream, begin, end - begin)
    sync = b"\xff\xf8" if low == high else b"\xff\xf9"
    at = len(tail)
    while (at := tail.rfind(sync, 0, at)) >= 0:
        place = _flac_frame(tail[at : at + 16], low if low == high else 0, high)
        if place is not None:
            return place[0] + place[1]
    return None


def _flac_frame(head: bytes, fixed: int, largest: int) -> tuple[int, int] | None:
    """First sample and number of samples of the frame whose header this is; None if it is none."""
    if len(head) < 6 or head[3] & 1 or head[3] >> 4 > 10:
        return None
    block, rate = head[2] >> 4, head[2] & 15
    lead = head[4]
    more = 0 if lead < 0x80 else 8 - (lead ^ 0xFF).bit_length() - 1
    if block == 0 or rate == 15 or (lead >= 0x80 and more < 1):
        return None
    number = lead if lead < 0x80 else lead & (0x3F >> more)
    at = 5
    for byte in head[5 : 5 + more]:
        number, at = number << 6 | byte & 0x3F, at + 1
    extra = {6: 1, 7: 2}.get(block, 0)
    frames = int.from_bytes(head[at : at + extra], "big") + 1 if extra else _FLAC_BLOCKS[block]
    at += extra + {12: 1, 13: 2, 14: 2}.get(rate, 0)
    if at >= len(head) or frames > largest:
        return None
    crc = 0
    for byte in head[:at]:
        crc = _CRC8[crc ^ byte]
    return (number * fixed if fixed else number, frames) if crc == head[at] else None


def _rising(stream: BinaryIO, start: int, end: int) -> bool:
    """Whether frames at some places of a large FLAC file come one after the other, as those of one stream do."""
    info = _flac_info(stream, start)
    if info is None:
        return True
    bounds = (start + int((end - start) * share) for share in (*_PLACES, 1))
    places = [_flac_last(stream, start, bound, info) for bound in bounds]
    return all(one < other for one, other in pairwise(place for place in places if place is not None))


def _flac_starts(stream: BinaryIO, at: int, end: int) -> Iterator[int]:
    """Where further FLAC streams begin."""
    for offset, block in _blocks(stream, at, end, 8):
        for match in _FLAC_MAGIC.finditer(block):
            if _flac_info(stream, offset + match.start()):
                yield offset + match.start()


def _blocks(stream: BinaryIO, at: int, end: int, overlap: int) -> Iterator[tuple[int, bytes]]:
    """The bytes from here on in blocks that share ``overlap`` - 1 bytes."""
    while at < end:
        block = _at(stream, at, _WHOLE)
        yield at, block
        if len(block) < _WHOLE:
            return
        at += len(block) - overlap + 1


# Ogg: pages, each with the number of its logical stream


def _ogg(stream: BinaryIO, size: int) -> Anatomy:
    """Links of a chained Ogg file; a link begins with pages that say that they are the first of their streams."""
    starts: list[int] = []
    beginning = False
    for at, first in _pages(stream, size) if size <= _SMALL or not _one_link(stream, size) else ():
        if first and not beginning:
            starts.append(at)
        beginning = first
    streams = tuple(Stream(begin, stop - begin) for begin, stop in pairwise([0, *starts[1:], size]))
    return Anatomy("ogg", streams, breaks_off(stream, size))


def _one_link(stream: BinaryIO, size: int) -> bool:
    """Whether pages at some places of a large Ogg file are of one stream and come one after the other."""
    places = [0, *(int(size * share) for share in _PLACES), max(0, size - _OGG_PAGE_BYTES)]
    found = []
    for place in places:
        block = _at(stream, place, _OGG_PAGE_BYTES if place == places[-1] else _OGG_PAGE_BYTES // 4)
        at = (block.rfind if place == places[-1] else block.find)(b"OggS\0")
        if 0 <= at <= len(block) - 22:
            found.append(struct.unpack_from("<II", block, at + 14))
    return all(one[0] == other[0] and one[1] < other[1] for one, other in pairwise(dict.fromkeys(found)))


def _pages(stream: BinaryIO, size: int) -> Iterator[tuple[int, bool]]:
    """Where the pages of an Ogg file begin, and whether each is the first of its stream."""
    at = 0
    while at + 27 <= size:
        head = _at(stream, at, 282)
        if head[:5] != b"OggS\0" or len(head) < 27:
            for offset, block in _blocks(stream, at + 1, size, 5):
                found = block.find(b"OggS\0")
                if found >= 0:
                    at = offset + found
                    break
            else:
                return
            continue
        yield at, bool(head[5] & 2)
        at += 27 + head[26] + sum(head[27 : 27 + head[26]])


def breaks_off(stream: BinaryIO, size: int) -> bool:
    """Whether an Ogg file ends inside a page."""
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


# MP3 and its kin: frames one after the other, each with its own rate


@dataclass(frozen=True)
class _Frame:
    """What the four bytes before a frame of MPEG audio say: bytes, samples, Hz, channels, bytes to its tag."""

    size: int
    samples: int
    rate: int
    channels: int
    tag: int
    kind: tuple[int, ...]  # what frames of one run have in common


_TAGGED = 200  # bytes of a frame that can hold its tag
_MPEG_KBPS = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_mpeg_frames: dict[int, _Frame | None] = {}


def _mp3_frame(head: bytes) -> _Frame | None:
    if len(head) < 4 or head[0] != 0xFF:
        return None
    key = head[1] << 16 | head[2] << 8 | head[3] & 0xC0
    if key not in _mpeg_frames:
        _mpeg_frames[key] = _mpeg(key >> 16, key >> 8 & 0xFF, key & 0xC0)
    return _mpeg_frames[key]


def _mpeg(second: int, third: int, fourth: int) -> _Frame | None:
    version, layer = {0: 3, 2: 2, 3: 1}.get(second >> 3 & 3, 0), 4 - (second >> 1 & 3)
    kbps, rate = third >> 4, third >> 2 & 3
    if second & 0xE0 != 0xE0 or not version or layer == 4 or not 0 < kbps < 15 or rate == 3:
        return None
    hz = (44100, 48000, 32000)[rate] >> (version - 1)
    low = min(2, version)
    bits = _MPEG_KBPS[low, layer if low == 1 else min(layer, 2)][kbps - 1] * 1000
    pad = third >> 1 & 1
    channels = 1 if fourth == 0xC0 else 2
    tag = 4 + ((32 if channels == 2 else 17) if low == 1 else (17 if channels == 2 else 9))
    if layer == 1:
        return _Frame((12 * bits // hz + pad) * 4, 384, hz, channels, 0, (layer, hz, channels))
    samples = 1152 if layer == 2 or low == 1 else 576
    size = samples // 8 * bits // hz + pad
    return _Frame(size, samples, hz, channels, tag if layer == 3 else 0, (layer, hz, channels))


@dataclass
class _Run:
    """Frames of MPEG audio of one kind that follow each other."""

    at: int
    first: _Frame
    frames: int = 0
    end: int = 0
    whole: bool = True  # its last frame is there to its end


def _mp3(stream: BinaryIO, start: int, size: int) -> Anatomy:
    """The runs of frames of an MP3 file; a tag or a frame of lengths in the middle begins a new one."""
    runs = _mp3_runs(stream, start, size)
    if not runs:
        return Anatomy("", (Stream(0, size),))
    done, fault = 0, ""
    streams = []
    for number, run in enumerate(runs):
        if run.first.rate != runs[0].first.rate:
            fault = changes(runs[0].first.rate, run.first.rate, done)
            break
        begin, stop = run.at if number else 0, runs[number + 1].at if number + 1 < len(runs) else size
        streams.append(_mp3_stream(stream, run, begin, stop))
        done += run.frames * run.first.samples
    if len(streams) == 1 and fault:
        streams = [replace(streams[0], size=size)]  # the first part is read as it always was
    return Anatomy("mp3", tuple(streams), fault=fault)


def _mp3_runs(stream: BinaryIO, start: int, size: int) -> list[_Run]:
    runs: list[_Run] = []
    at, offset, block = start, start, b""
    while at + 4 <= size:
        here = at - offset
        if here + _TAGGED > len(block) and offset + len(block) < size:
            offset, block, here = at, _at(stream, at, _WHOLE), 0
        if runs and runs[-1].end == at:
            here = _follow(runs[-1], block, here, size - offset, offset + len(block) >= size)
            if offset + here > at:
                at = offset + here
                continue
        head = block[here : here + 4]
        frame = _mp3_frame(head)
        tagged = after_id3(stream, at) if head[:3] == b"ID3" else at
        if tagged > at:
            at = tagged
        elif frame is not None and _in_step(stream, at, frame, size):
            counted = 0 if _tagged(block, here, frame.tag) else 1
            runs.append(_Run(at, frame, counted, min(size, at + frame.size), at + frame.size <= size))
            at += frame.size
        else:
            found = block.find(b"\xff", here + 1)
            at = offset + found if found >= 0 else offset + max(here + 1, len(block))
    return runs


def _follow(run: _Run, block: bytes, at: int, size: int, last: bool) -> int:
    """Go on along a run as far as a block of bytes goes; where in the block it stopped. The file ends at ``size``."""
    begin, end, count = at, len(block) - (4 if last else _TAGGED) + 1, 0
    tags = [place for place in _tags(block, run.first.tag) if begin <= place < end] if run.first.tag else []
    sizes: dict[bytes, int] = {}
    for stop in (*tags, end):
        while at < stop:
            head = block[at : at + 4]
            step = sizes.get(head, 0)
            if not step:
                frame = _mp3_frame(head)
                if frame is None or frame.kind != run.first.kind:
                    break
                step = sizes[head] = frame.size
            at += step
            count += 1
        if at <= stop:
            break
    if at > begin:
        run.frames += count
        run.whole = at <= size
        at = min(at, size)
        run.end += at - begin
    return at


def _tags(block: bytes, tag: int) -> list[int]:
    """Where frames would begin that hold lengths instead of sound, rising."""
    found = []
    for name, before in ((b"Xing", tag), (b"Info", tag), (b"VBRI", 36)):
        place = -1
        while (place := block.find(name, place + 1)) >= 0:
            found.append(place - before)
    return sorted(found)


def _tagged(block: bytes, at: int, tag: int) -> bool:
    """Whether a frame holds lengths instead of sound."""
    return tag > 0 and (block[at + tag : at + tag + 4] in (b"Xing", b"Info") or block[at + 36 : at + 40] == b"VBRI")


def _in_step(stream: BinaryIO, at: int, frame: _Frame, size: int) -> bool:
    """Whether three more frames of this rate follow, or as many as the file has room for."""
    for _ in range(3):
        at += frame.size
        if at + 4 > size:
            return True
        head = _at(stream, at, 4)
        following = _mp3_frame(head)
        if following is None:
            return head[:3] in (b"TAG", b"ID3", b"APE")
        if following.rate != frame.rate:
            return False
        frame = following
    return True


def _lengths(body: bytes, frame: _Frame) -> tuple[int, int, int] | None:
    """Where a frame says how many frames follow, how many, and in how many bytes (0: it does not say)."""
    if body[frame.tag : frame.tag + 4] in (b"Xing", b"Info"):
        flags = int.from_bytes(body[frame.tag + 4 : frame.tag + 8], "big")
        at = frame.tag + 8
        frames = int.from_bytes(body[at : at + 4], "big") if flags & 1 else 0
        size_at = at + (4 if flags & 1 else 0)
        return at if flags & 1 else 0, frames, int.from_bytes(body[size_at : size_at + 4], "big") if flags & 2 else 0
    if body[36:40] == b"VBRI":
        return 50, int.from_bytes(body[50:54], "big"), int.from_bytes(body[46:50], "big")
    return None


def _mp3_stream(stream: BinaryIO, run: _Run, begin: int, stop: int) -> Stream:
    whole = Stream(begin, stop - begin)
    frames = run.frames * run.first.samples
    lengths = _lengths(_at(stream, run.at, _TAGGED), run.first) if run.first.tag else None
    if lengths is None or not lengths[1]:
        return replace(whole, frames=frames, prefix=_length_frame(_at(stream, run.at, 4), run))
    at, says, count = lengths
    if abs(says - run.frames) <= 2:
        return replace(whole, sure=says == run.frames and run.whole)
    if says > run.frames and (not run.whole or count > run.end - run.at + run.first.size):
        return replace(whole, promised=says * run.first.samples, frames=frames)
    patch = (run.at - begin + at, run.frames.to_bytes(4, "big"))
    return replace(whole, frames=frames, patches=(patch,))


def _length_frame(head: bytes, run: _Run) -> bytes:
    """A frame without sound that says how many frames follow it."""
    for kbps in range(1, 15):
        candidate = bytes([0xFF, head[1] | 1, kbps << 4 | head[2] & 0x0C, head[3] & 0xCC])
        frame = _mp3_frame(candidate)
        if frame is not None and frame.tag and frame.size >= frame.tag + 16:
            text = b"Info" + (1).to_bytes(4, "big") + run.frames.to_bytes(4, "big")
            return (candidate + bytes(frame.tag - 4) + text).ljust(frame.size, b"\0")
    return b""
