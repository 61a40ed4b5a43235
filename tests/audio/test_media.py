"""Sound that PyAV decodes: exact clips, whoever asks for them; named where the extra is missing."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from logitstore.audio import media
from logitstore.audio.audiofile import InMemory, frame_count
from logitstore.audio.decode import decode
from logitstore.audio.scan import scan
from logitstore.audio.sources import open_source
from logitstore.errors import AudioError, SourceError

RATE = 48000


def noise(seconds: float = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.4, 0.4, int(seconds * RATE)).astype(np.float32)


def encoded(kind: str, codec: str, *streams: np.ndarray, rate: int = RATE) -> bytes:
    av = pytest.importorskip("av")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=kind) as container:
        made = [container.add_stream(codec, rate=rate, layout="mono") for _ in streams]
        for stream, samples in zip(made, streams, strict=True):
            resampler = av.AudioResampler(format=stream.codec_context.format.name, layout="mono", rate=rate)
            frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
            frame.sample_rate, frame.pts = rate, 0
            for piece in [*resampler.resample(frame), *resampler.resample(None)]:
                container.mux(stream.encode(piece))
            container.mux(stream.encode(None))
    return buffer.getvalue()


def frames_of(content: bytes) -> np.ndarray:
    """Every frame that FFmpeg gives of the first stream, mono."""
    av: Any = pytest.importorskip("av")
    with av.open(io.BytesIO(content)) as container:
        parts = [frame.to_ndarray() for frame in container.decode(audio=0)]
    whole = np.concatenate(parts, axis=1)[0]
    return whole if whole.dtype.kind == "f" else (whole / 2.0 ** (8 * whole.itemsize - 1)).astype(np.float32)


@pytest.mark.parametrize(
    ("ending", "kind", "codec", "exact"),
    [
        ("m4a", "ipod", "alac", True),
        ("m4a", "ipod", "aac", True),
        ("mp4", "mp4", "libopus", True),
        ("mka", "matroska", "flac", True),
        ("webm", "webm", "libopus", True),
        ("wv", "wv", "wavpack", True),
        ("aac", "adts", "aac", False),  # it does not say how much of its end is padding
        ("3gp", "3gp", "aac", True),
    ],
)
def test_clips_are_the_frames_of_the_file(tmp_path: Path, ending: str, kind: str, codec: str, exact: bool) -> None:
    samples = noise()
    content = encoded(kind, codec, samples)
    (tmp_path / f"x.{ending}").write_bytes(content)
    frames, rate, promised, breaks_off = frame_count(tmp_path / f"x.{ending}")
    assert (rate, promised, breaks_off) == (RATE, frames, False)
    assert frames == len(samples) if exact else len(samples) <= frames <= len(samples) + 4096
    whole = frames_of(content)
    source = open_source(str(tmp_path))
    clips = [(start * RATE // 4, RATE // 2) for start in (9, 0, 5, 3, 10, 7, 1)] * 2
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda clip: decode(source, f"x.{ending}", *clip, RATE, RATE), clips))
    for (start, length), clip in zip(clips, found, strict=True):
        np.testing.assert_array_equal(clip, whole[start : start + length])
    assert frame_count(InMemory(content)) == frame_count(tmp_path / f"x.{ending}")


def test_lossless_sound_is_where_it_was(tmp_path: Path) -> None:
    samples = noise()
    (tmp_path / "x.m4a").write_bytes(encoded("ipod", "alac", samples))
    source = open_source(str(tmp_path))
    [row, *_] = scan(source, clip_seconds=1).to_pylist()[1:]
    got = decode(source, "x.m4a", row["start"], row["length"], RATE, RATE)
    np.testing.assert_allclose(got, samples[RATE : 2 * RATE], atol=1e-4)


def test_of_several_streams_the_first_is_heard(tmp_path: Path) -> None:
    one, other = noise(1), noise(1, 1)
    (tmp_path / "x.mka").write_bytes(encoded("matroska", "flac", one, other))
    got = decode(open_source(str(tmp_path)), "x.mka", 0, RATE, RATE, RATE)
    np.testing.assert_allclose(got, one, atol=1e-4)


def test_the_name_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_bytes(encoded("ipod", "aac", noise()))
    assert frame_count(tmp_path / "x.wav") == (3 * RATE, RATE, 3 * RATE, False)
    soundfile.write(tmp_path / "y.m4a", noise(), RATE, format="FLAC")
    assert frame_count(tmp_path / "y.m4a") == (3 * RATE, RATE, 3 * RATE, False)


def reasons(folder: Path, content: bytes, ending: str) -> tuple[int, list[str]]:
    (folder / f"x.{ending}").write_bytes(content)
    source = open_source(str(folder))
    good, failed = 0, []
    for row in scan(source, clip_seconds=1).to_pylist():
        try:
            decode(source, row["path"], row["start"], row["length"], row["rate"], RATE)
            good += 1
        except AudioError as error:
            failed.append(str(error))
    return good, failed


@pytest.mark.parametrize(("ending", "kind", "codec"), [("aac", "adts", "aac"), ("mka", "matroska", "flac")])
@pytest.mark.parametrize("share", [0.4, 0.55, 0.8])
def test_a_file_that_breaks_off_has_one_failure(
    tmp_path: Path, ending: str, kind: str, codec: str, share: float
) -> None:
    content = encoded(kind, codec, noise(6))
    good, failed = reasons(tmp_path, content[: int(len(content) * share)], ending)
    assert abs(good - 6 * share) < 1.5
    assert len(failed) == 1
    assert failed[0].startswith("truncated: ")


def test_a_damaged_place_is_a_failure_however_little_comes_before_it(tmp_path: Path) -> None:
    content = bytearray(encoded("adts", "aac", noise(4)))
    place = int(len(content) * 1.2 / 4)
    content[place : place + 300] = bytes(300)
    good, failed = reasons(tmp_path, bytes(content), "aac")
    assert good == 1
    assert len(failed) == 1
    assert failed[0].startswith("truncated: the stream breaks off after")


def test_a_rate_that_changes_is_a_failure_that_says_so(tmp_path: Path) -> None:
    content = encoded("adts", "aac", noise(2)) + encoded("adts", "aac", noise(2), rate=24000)
    good, failed = reasons(tmp_path, content, "aac")
    assert good == 0
    assert [reason.split(" Hz ")[0] for reason in failed] == ["changes: its rate goes from 48000 to 24000"]


def test_a_file_without_sound_says_what_is_in_it(tmp_path: Path) -> None:
    av: Any = pytest.importorskip("av")
    with av.open(str(tmp_path / "x.mkv"), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.width = stream.height = 16
        stream.pix_fmt = "yuvj420p"
        picture = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
        container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    with pytest.raises(AudioError, match="no sound in it: this WebM or Matroska file holds video"):
        frame_count(tmp_path / "x.mkv")


def test_a_playlist_opens_nothing_else(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "secret.wav", noise(), RATE)
    lists = ["#EXTM3U\n#EXTINF:1,\nsecret.wav\n", "ffconcat version 1.0\nfile secret.wav\n"]
    for number, text in enumerate(lists):
        path = tmp_path / f"{number}.m4a"
        path.write_text(text)
        with pytest.raises(AudioError, match="not readable as audio"):
            frame_count(path)


def test_without_the_extra_files_are_counted_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "installed", lambda: False)
    monkeypatch.setattr(media, "_module", lambda: None)
    for name in ("a.m4a", "b.M4A", "c.webm", "sub/d.aac"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\0\0\0\x20ftypM4A " + bytes(200))
    with pytest.raises(SourceError, match=r"no audio that can be read; .*1 .aac, 2 .m4a, 1 .webm.*logitstore\[media\]"):
        open_source(str(tmp_path)).listing()
    soundfile.write(tmp_path / "e.wav", noise(1), RATE)
    source = open_source(str(tmp_path))
    assert source.listing()["path"].to_pylist() == ["e.wav"]
    [note] = source.reading.notes  # type: ignore[attr-defined]
    assert note == (
        "left out are 4 files that need the extra 'media' (1 .aac, 2 .m4a, 1 .webm); "
        "to include them: pip install 'logitstore[media]'"
    )
    (tmp_path / "m.csv").write_text("path\na.m4a\ne.wav\n")
    with pytest.raises(
        AudioError, match=r"needs the extra 'media'; install it with: pip install 'logitstore\[media\]'"
    ):
        decode(open_source(str(tmp_path / "m.csv")), "a.m4a", 0, 0, 0, RATE)
