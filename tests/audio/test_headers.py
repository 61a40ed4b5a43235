"""Headers that say something false: all of the sound is heard, or one failure says what is wrong."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile

from logitstore.audio.audiofile import InMemory, frame_count
from logitstore.audio.containers import examine
from logitstore.audio.decode import decode
from logitstore.audio.scan import scan
from logitstore.audio.sources import open_source
from logitstore.errors import AudioError

RATE = 16000
SECONDS = 6


def noise(seconds: float = SECONDS, seed: int = 0, rate: int = RATE) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.4, 0.4, int(seconds * rate)).astype(np.float32)


def encoded(samples: np.ndarray, kind: str, subtype: str | None = None, rate: int = RATE) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def whole(content: bytes) -> np.ndarray:
    """What libsndfile decodes of an honest file, from its start to its end."""
    with soundfile.SoundFile(InMemory(content)) as file:
        block = np.zeros((file.frames, file.channels), np.float32)
        return np.asarray(file.read(out=block))[:, 0]


def put(content: bytes, at: int, form: str, value: int) -> bytes:
    changed = bytearray(content)
    struct.pack_into(form, changed, at, value)
    return bytes(changed)


def heard(folder: Path, content: bytes) -> tuple[np.ndarray, list[str]]:
    """The clips of 2 s of a file one after the other, and why others failed."""
    (folder / "x.wav").write_bytes(content)
    source = open_source(str(folder))
    parts, reasons = [np.zeros(0, np.float32)], []
    for row in scan(source, clip_seconds=2).to_pylist():
        try:
            parts.append(decode(source, "x.wav", row["start"], row["length"], row["rate"], row["rate"] or RATE))
        except AudioError as error:
            reasons.append(str(error))
    return np.concatenate(parts), reasons


def flac_total(content: bytes, total: int) -> bytes:
    fields = struct.unpack_from(">Q", content, 18)[0] >> 36 << 36
    return put(content, 18, ">Q", fields | total)


def xing(content: bytes, frames: int) -> bytes:
    return put(content, content.index(b"Xing") + 8, ">I", frames)


def after(content: bytes, name: bytes, form: str, value: int) -> bytes:
    return put(content, content.index(name) + len(name), form, value)


FALSE_LENGTHS: dict[str, tuple[str, str | None, Callable[[bytes], bytes]]] = {
    **{
        f"wav {size:#x}, riff {riff:#x}": (
            "WAV", "PCM_16", lambda c, size=size, riff=riff: put(after(c, b"data", "<I", size), 4, "<I", riff)
        )
        for size in (0, 2000, 0xFFFFFFFF, 0x7FFFFFDB, 0x80000000)
        for riff in (0, 36, 0xFFFFFFFF)
    },
    **{f"wav {sub} 0": ("WAV", sub, lambda c: after(c, b"data", "<I", 0)) for sub in ("PCM_24", "FLOAT", "ULAW")},
    **{f"au {size:#x}": ("AU", "PCM_16", lambda c, s=size: put(c, 8, ">I", s)) for size in (0, 0xFFFFFFFF, 0x7FFFFFFF)},
    **{f"caf {size}": ("CAF", "PCM_16", lambda c, s=size: after(c, b"data", ">q", s)) for size in (0, 4, -1)},
    **{f"rf64 {size:#x}": ("RF64", "PCM_16", lambda c, s=size: put(c, 28, "<Q", s)) for size in (0, (1 << 64) - 1)},
    "aiff": ("AIFF", "PCM_16", lambda c: put(after(c, b"SSND", ">I", 0), c.index(b"COMM") + 10, ">I", 0)),
    **{
        f"flac {total}": ("FLAC", "PCM_16", lambda c, total=total: flac_total(c, total))
        for total in (0, 1000, SECONDS * RATE - 1, (1 << 36) - 1)
    },
    **{f"mp3 {frames}": ("MP3", None, lambda c, n=frames: xing(c, n)) for frames in (1, 60, 900, 1 << 31)},
}  # fmt: skip


@pytest.mark.parametrize("name", FALSE_LENGTHS)
def test_a_false_length_hides_nothing(tmp_path: Path, name: str) -> None:
    kind, subtype, spoil = FALSE_LENGTHS[name]
    honest = encoded(noise(), kind, subtype)
    samples, reasons = heard(tmp_path, spoil(honest))
    assert reasons == []
    assert len(samples) == SECONDS * RATE
    np.testing.assert_allclose(samples, whole(honest), atol=1e-4)


@pytest.mark.parametrize("subtype", ["GSM610", "G721_32", "NMS_ADPCM_32", "MS_ADPCM", "IMA_ADPCM"])
@pytest.mark.parametrize("size", [None, 0])
def test_what_cannot_be_sought_is_read_from_its_start(tmp_path: Path, subtype: str, size: int | None) -> None:
    content = encoded(noise(), "WAV", subtype, 8000)
    spoilt = content if size is None else after(content, b"data", "<I", size)
    samples, reasons = heard(tmp_path, spoilt)
    assert reasons == []
    assert len(samples) >= len(noise()) - 8000
    np.testing.assert_array_equal(samples, whole(content)[: len(samples)])
    source = open_source(str(tmp_path))
    clips = [(start * 4000, 4000) for start in (9, 0, 5, 3, 11, 7, 1)] * 3
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda clip: decode(source, "x.wav", *clip, 8000, 8000), clips))
    for (start, length), clip in zip(clips, found, strict=True):
        np.testing.assert_array_equal(clip, whole(content)[start : start + length])


@pytest.mark.parametrize(
    ("kind", "subtype"),
    [
        *(("WAV", s) for s in ("PCM_16", "FLOAT", "GSM610")),
        *((kind, "PCM_16") for kind in ("AIFF", "AU", "W64", "CAF", "RF64", "NIST", "FLAC")),
        *(("OGG", s) for s in ("VORBIS", "OPUS")),
        ("MP3", None),
    ],
)
def test_streams_one_after_the_other_are_all_heard(tmp_path: Path, kind: str, subtype: str | None) -> None:
    rate = 8000 if subtype == "GSM610" else RATE
    one, other = (encoded(noise(4, seed, rate), kind, subtype, rate) for seed in (0, 1))
    for contents in ([one, one], [one, other, one]):
        samples, reasons = heard(tmp_path, b"".join(contents))
        assert reasons == []
        expected = np.concatenate([whole(content) for content in contents])
        assert len(samples) == len(expected)
        np.testing.assert_allclose(samples, expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_a_rate_that_changes_is_one_failure_that_says_so(tmp_path: Path, kind: str) -> None:
    one, other = encoded(noise(4), kind), encoded(noise(4, 1, 48000), kind, rate=48000)
    samples, reasons = heard(tmp_path, one + other)
    assert len(samples) == 0
    assert [reason.split(" Hz ")[0] for reason in reasons] == ["changes: its rate goes from 16000 to 48000"]
    source = open_source(str(tmp_path))  # clips that were listed of its first part are as they were
    np.testing.assert_allclose(decode(source, "x.wav", 0, RATE, RATE, RATE), whole(one)[:RATE], atol=1e-4)


def test_channels_may_change(tmp_path: Path) -> None:
    mono, stereo = encoded(noise(4), "FLAC"), encoded(np.stack([noise(4), noise(4, 1)], 1), "FLAC")
    samples, reasons = heard(tmp_path, mono + stereo)
    assert reasons == []
    np.testing.assert_allclose(samples[-RATE:], (noise(4) + noise(4, 1))[-RATE:] / 2, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "spoil"),
    [
        ("WAV", lambda c: after(c, b"data", "<I", 1 << 30)),
        ("W64", lambda c: put(c, c.index(b"data") + 16, "<Q", 1 << 40)),
        ("CAF", lambda c: after(c, b"data", ">q", 1 << 40)),
        ("RF64", lambda c: put(c, 28, "<Q", 1 << 40)),
        ("AU", lambda c: put(c, 8, ">I", 10**8)),
        ("FLAC", lambda c: flac_total(c, 10**9)),
    ],
)
def test_a_length_far_beyond_the_file_is_one_failure(
    tmp_path: Path, kind: str, spoil: Callable[[bytes], bytes]
) -> None:
    samples, reasons = heard(tmp_path, spoil(encoded(noise(), kind, "PCM_16")))
    assert len(samples) == SECONDS * RATE
    assert reasons == ["truncated: 0 of 32000 frames"]


@pytest.mark.parametrize("kind", ["WAV", "AIFF", "AU", "W64", "CAF", "NIST", "FLAC", "OGG", "MP3"])
def test_a_file_cut_off_has_one_failure_whatever_its_kind(tmp_path: Path, kind: str) -> None:
    content = encoded(noise(20), kind)
    samples, reasons = heard(tmp_path, content[: len(content) * 11 // 20])
    assert 8 * RATE <= len(samples) <= 11 * RATE
    assert len(reasons) == 1
    assert reasons[0].startswith("truncated: ")


@pytest.mark.parametrize("over", [6, 3 * 3600])
@pytest.mark.parametrize(("kind", "at", "form"), [("WAV", 40, "<I"), ("AU", 8, ">I")])
def test_a_size_that_wrapped_round_at_4_gib(tmp_path: Path, kind: str, at: int, form: str, over: int) -> None:
    header = encoded(np.zeros((1, 2)), kind, "PCM_16", 96000)[:-4]
    size = (1 << 32) + over * 96000 * 4
    with (tmp_path / "x.wav").open("wb") as file:
        file.write(put(header, at, form, size % (1 << 32)))
        file.truncate(len(header) + size)
    if (tmp_path / "x.wav").stat().st_blocks * 512 > 1 << 20:
        pytest.skip("no sparse files here")
    assert frame_count(tmp_path / "x.wav") == (size // 4, 96000, size // 4, False)
    assert not decode(open_source(str(tmp_path)), "x.wav", size // 4 - 96000, 96000, 96000, 16000).any()


def test_an_mp3_without_lengths_is_counted_frame_by_frame(tmp_path: Path) -> None:
    """Its first frames are of silence and small, so a guess from them is far off."""
    quiet = np.concatenate([np.zeros(3 * RATE, np.float32), noise(9)])
    buffer = io.BytesIO()
    soundfile.write(buffer, quiet, RATE, format="MP3", bitrate_mode="VARIABLE", compression_level=0.5)
    content = buffer.getvalue()
    bare = content[content.index(b"\xff\xf3", 10) :]
    with soundfile.SoundFile(InMemory(bare)) as guess:
        assert abs(guess.frames - len(quiet)) > RATE
    samples, reasons = heard(tmp_path, bare)
    assert reasons == []
    assert len(samples) == len(quiet)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3", "AIFF", "CAF", "W64", "AU"])
@pytest.mark.parametrize("tail", [b"", b"TAG" + bytes(125), bytes(70000)])
def test_an_honest_file_is_left_to_libsndfile(kind: str, tail: bytes) -> None:
    content = encoded(noise(2), kind) + tail
    anatomy = examine(InMemory(content), len(content))
    assert anatomy.plain
    assert frame_count(InMemory(content))[0] >= 2 * RATE
    assert frame_count(InMemory(content)).breaks_off is False


def test_bytes_behind_the_sound_that_are_no_chunk_are_named(tmp_path: Path) -> None:
    samples, reasons = heard(tmp_path, encoded(noise(), "WAV", "PCM_16") + noise(2).tobytes())
    assert len(samples) == SECONDS * RATE
    assert reasons == [
        "truncated: 0 of 32000 frames (the header says 96000 frames, and 128000 bytes that are no chunk follow)"
    ]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (1e29, "too loud: its largest sample is 1e+29; at most 1e+06 is sound"),
        (-1e19, "too loud: its largest sample is 1e+19; at most 1e+06 is sound"),
        (np.nan, "not finite: 1 of 32000 frames are NaN or infinite"),
    ],
)
def test_samples_that_are_no_sound(tmp_path: Path, value: float, reason: str) -> None:
    samples = noise()
    samples[40000] = value
    got, reasons = heard(tmp_path, encoded(samples, "WAV", "FLOAT"))
    assert reasons == [reason]
    assert len(got) == 4 * RATE
    samples[40000] = 32767
    assert heard(tmp_path, encoded(samples, "WAV", "FLOAT"))[1] == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<!DOCTYPE html>\n<html>", "not readable as audio: .*begins with the text '<!DOCTYPE html>'"),
        (bytes(3000), "not readable as audio: .*begins with zeros"),
        (b"OggS", "not readable as audio"),
        (b"ID3", "not readable as audio"),
        (b"\xff\xfb\x90\x00", "not readable as audio"),
        (b".snd", "not readable as audio"),
        (b"", "empty: zero bytes"),
    ],
)
def test_another_kind_than_the_name_says(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "x.wav").write_bytes(content)
    with pytest.raises(AudioError, match=reason):
        frame_count(tmp_path / "x.wav")
    assert len(heard(tmp_path, encoded(noise(), "FLAC"))[0]) == SECONDS * RATE


def test_a_file_of_empty_chunks_ends(tmp_path):
    for name, head in (("a.wav", b"RIFF\0\0\0\0WAVE"), ("b.aiff", b"FORM\0\0\0\0AIFF")):
        with (tmp_path / name).open("wb") as file:
            file.write(head)
            file.truncate(1_500_000_000)  # a hole: no room is taken
        with pytest.raises(AudioError, match="more than 10,000 chunks come before any sound"):
            frame_count(tmp_path / name)


@pytest.mark.parametrize("rate", [1, 7, 99])
def test_a_rate_that_no_sound_has_is_not_believed(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", np.zeros(100), rate)
    with pytest.raises(AudioError, match=f"the header says {rate} Hz; less than 100 Hz is no sound"):
        frame_count(tmp_path / "a.wav")
