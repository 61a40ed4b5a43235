"""Samples that need no decoder: the same bits as libsndfile gives, or left to it."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from logitstore.audio.audiofile import Pcm
from logitstore.audio.clips import ClipAudio, put
from logitstore.audio.decode import write_samples
from logitstore.audio.pcm import open_samples
from logitstore.audio.sources import open_audio
from logitstore.errors import AudioError

RATE = 16_000
GUID = bytes.fromhex("0100000000001000800000aa00389b71")
SOUND = np.random.default_rng(0).integers(-32768, 32768, (1000, 2)).astype("<i2")


def chunk(name: bytes, content: bytes, says: int | None = None) -> bytes:
    return name + struct.pack("<I", len(content) if says is None else says) + content + b"\0" * (len(content) % 2)


def form(channels: int = 1, *, kind: str = "plain", bits: int = 16) -> bytes:
    unit = channels * bits // 8
    head = struct.pack("<HHIIHH", 0xFFFE if kind == "extensible" else 1, channels, RATE, RATE * unit, unit, bits)
    more = {"plain": b"", "long": b"\0\0", "extensible": struct.pack("<HHI", 22, bits, (0, 4, 3)[channels]) + GUID}
    return chunk(b"fmt ", head + more[kind])


def wav(*chunks: bytes, riff: bytes = b"RIFF") -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return riff + struct.pack("<I", len(body)) + body


MONO, STEREO = SOUND[:, 0].tobytes(), SOUND.tobytes()
INFO = chunk(b"LIST", b"INFO" + chunk(b"ISFT", b"Lavf58.29.100\0") + chunk(b"ICMT", b"odd"))
PLAIN = {
    "mono": wav(form(), chunk(b"data", MONO)),
    "stereo": wav(form(2), chunk(b"data", STEREO)),
    "a longer header": wav(form(kind="long"), chunk(b"data", MONO)),
    "extensible": wav(form(kind="extensible"), chunk(b"fact", struct.pack("<I", 1000)), chunk(b"data", MONO)),
    "extensible, stereo": wav(form(2, kind="extensible"), chunk(b"data", STEREO)),
    "chunks before and after": wav(form(), INFO, chunk(b"bext", b"x" * 603), chunk(b"data", MONO), INFO),
    "room before": wav(form(), chunk(b"JUNK", bytes(3001)), chunk(b"data", MONO)),
    "half a sample more": wav(form(), chunk(b"data", MONO + b"\1")),
    "half a frame more": wav(form(2), chunk(b"data", STEREO + b"\1\2")),
}
LEFT = {
    "24 bits": wav(form(bits=24), chunk(b"data", MONO[:1998])),
    "cut off": wav(form(), chunk(b"data", MONO))[:-10],
    "no size": wav(form(), chunk(b"data", MONO, 0)),
    "an endless size": wav(form(), chunk(b"data", MONO, 0xFFFFFFFF)),
    "another chunk before": wav(form(), chunk(b"PEAK", bytes(16)), chunk(b"data", MONO)),
    "samples twice": wav(form(), chunk(b"data", MONO), chunk(b"data", MONO)),
    "two files in one": wav(form(), chunk(b"data", MONO)) * 2,
    "bytes behind it": wav(form(), chunk(b"data", MONO)) + b"\1" * 100,
    "big-endian": wav(form(), chunk(b"data", MONO), riff=b"RIFX"),
    "RF64": wav(chunk(b"ds64", struct.pack("<QQQI", 2072, 2000, 1000, 0)), form(), chunk(b"data", MONO), riff=b"RF64"),
    "samples far behind": wav(form(), chunk(b"JUNK", bytes(5000)), chunk(b"data", MONO)),
    "no audio": b"RIFF of no use" * 10,
}


def clips(folder: Path, *rows: tuple[str, int, int], cache_bytes: int = 0) -> ClipAudio:
    paths, starts, lengths = zip(*rows, strict=True)
    table = pa.table({"path": paths, "start": starts, "length": lengths, "rate": [RATE] * len(rows)})
    return ClipAudio(open_audio(str(folder)), table, RATE, cache_bytes)


@pytest.mark.parametrize("name", PLAIN)
def test_what_is_plain_is_read_as_libsndfile_reads_it(tmp_path: Path, name: str) -> None:
    file = tmp_path / "x.wav"
    file.write_bytes(PLAIN[name])
    expected, _ = soundfile.read(file, dtype="float32", always_2d=True)
    samples = open_samples(file)
    assert samples is not None
    assert (samples.frames, samples.channels, samples.rate) == (*expected.shape, RATE)
    out = np.empty(expected.size, np.float32)
    assert samples.read(0, out)
    samples.close()
    np.testing.assert_array_equal(out.reshape(expected.shape), expected)
    audio = clips(tmp_path, ("x.wav", 0, len(expected)), ("x.wav", 100, 50))
    mean = expected.astype(np.float64).mean(axis=1).astype(np.float32)
    np.testing.assert_array_equal(audio[0], mean)
    np.testing.assert_array_equal(audio[1], mean[100:150])


@pytest.mark.parametrize("name", LEFT)
def test_everything_else_is_left_to_the_decoder(tmp_path: Path, name: str) -> None:
    (tmp_path / "x.wav").write_bytes(LEFT[name])
    assert open_samples(tmp_path / "x.wav") is None
    assert open_samples(tmp_path / "none.wav") is None
    assert open_samples(tmp_path) is None


def test_headers_that_were_damaged_are_read_as_libsndfile_reads_them(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    contents, file, plain = list(PLAIN.values()), tmp_path / "x.wav", 0
    for _ in range(400):
        content = bytearray(contents[random.integers(len(contents))])
        at = int(random.integers(4, 80))
        width = int(random.choice([1, 4]))
        content[at : at + width] = random.choice([0, 1, 2, 255, 2000], width).astype(np.uint8).tobytes()
        file.write_bytes(bytes(content[: len(content) - int(random.integers(3))]))
        samples = open_samples(file)
        if samples is None:
            continue
        plain += 1
        out = np.empty(samples.frames * samples.channels, np.float32)
        assert not len(out) or samples.read(0, out)
        samples.close()
        expected, rate = soundfile.read(file, dtype="float32", always_2d=True)
        assert rate == samples.rate
        np.testing.assert_array_equal(out.reshape(samples.frames, samples.channels), expected)
    assert plain > 20


@pytest.mark.parametrize("turn", [0, 1, -1, 499, 1003, -2500])
@pytest.mark.parametrize("length", [1, 600, 1000])
def test_a_clip_is_turned_while_it_is_written(tmp_path: Path, turn: int, length: int) -> None:
    (tmp_path / "x.wav").write_bytes(PLAIN["mono"])
    soundfile.write(tmp_path / "x.flac", SOUND[:, 0], RATE)
    for width in (400, 1000, 1200):
        expected = np.zeros(width, np.float32)
        count = min(width, length)
        expected[:count] = np.roll(SOUND[:count, 0].astype(np.float32) / 32768, turn)
        for audio in (
            clips(tmp_path, ("x.wav", 0, length)),
            clips(tmp_path, ("x.flac", 0, length)),
            clips(tmp_path, ("x.flac", 0, length), cache_bytes=1 << 20),
        ):
            for _ in range(2):
                row = np.full(width, np.nan, np.float32)
                assert audio.write(0, row, turn) == count
                np.testing.assert_array_equal(row, expected)
        row = np.full(width, np.nan, np.float32)
        pcm = Pcm(1000, RATE, lambda start, stop: SOUND[start:stop, 0])
        assert write_samples(pcm, 0, length, RATE, row, turn) == count
        np.testing.assert_array_equal(row[:count], expected[:count])
    assert put(np.zeros(0, np.float32), row, turn) == 0
    assert not row.any()


def test_a_file_longer_than_what_is_read_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from logitstore.audio import pcm

    (tmp_path / "x.wav").write_bytes(PLAIN["mono"])
    monkeypatch.setattr(pcm, "_AT_A_TIME", 300)
    row = np.empty(900, np.float32)
    assert clips(tmp_path, ("x.wav", 50, 900)).write(0, row, 333) == 900
    np.testing.assert_array_equal(row, np.roll(SOUND[50:950, 0].astype(np.float32) / 32768, 333))


def test_what_is_not_as_it_was_listed_is_an_error_as_ever(tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_bytes(PLAIN["mono"])
    row = np.empty(2000, np.float32)
    with pytest.raises(AudioError, match="truncated: 500 of 600 frames"):
        clips(tmp_path, ("x.wav", 500, 600)).write(0, row)
    other = pa.table({"path": ["x.wav"], "start": [0], "length": [10], "rate": [8000]})
    with pytest.raises(AudioError, match="changed: the file is at 16000 Hz; it was at 8000 Hz"):
        ClipAudio(open_audio(str(tmp_path)), other, 8000).write(0, row)
    audio = clips(tmp_path, ("x.wav", 0, 1000))
    (tmp_path / "x.wav").write_bytes(PLAIN["mono"][:-400])
    with pytest.raises(AudioError, match="truncated: 800 of 1000 frames"):
        audio.write(0, row)


def test_an_error_of_reading_is_left_to_the_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which says what is wrong, so that the clip fails and no more."""
    (tmp_path / "a.wav").write_bytes(PLAIN["mono"])
    samples = open_samples(tmp_path / "a.wav")
    assert samples is not None

    def broken(*given: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("logitstore.audio.pcm.os.preadv", broken)
    assert not samples.read(0, np.zeros(10, np.float32))
    samples.close()
