from __future__ import annotations

import multiprocessing
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from logitstore.audio.audiofile import InMemory, frame_count, opened
from logitstore.audio.decode import decode
from logitstore.audio.lengths import samples_at
from logitstore.audio.scan import scan
from logitstore.audio.source import Source
from logitstore.audio.sources import open_audio, open_source
from logitstore.errors import AudioError

RATE = 44100
FORMATS = {
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "aiff": ("AIFF", "PCM_16"),
}


def sound(frames: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (frames, channels))


def write(folder: Path, ending: str, samples: np.ndarray, rate: int = RATE) -> Path:
    path = folder / f"x.{ending}"
    soundfile.write(path, samples, rate, format=FORMATS[ending][0], subtype=FORMATS[ending][1])
    return path


def reason(source: Source, path: str, start: int = 0, length: int = 100, rate: int = RATE) -> str:
    with pytest.raises(AudioError, match=r".") as caught:
        decode(source, path, start, length, rate, 16000)
    text = str(caught.value)
    assert "\n" not in text
    assert "0x" not in text
    assert "/" not in text
    return text


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_channels_are_averaged(tmp_path: Path, channels: int) -> None:
    write(tmp_path, "wav", sound(1000, channels), 16000)
    stored, _ = soundfile.read(tmp_path / "x.wav", dtype="float64", always_2d=True)
    got = decode(open_audio(str(tmp_path)), "x.wav", 0, 1000, 16000, 16000)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, stored.mean(axis=1).astype(np.float32))


@pytest.mark.parametrize("ending", sorted(FORMATS))
def test_a_clip_is_those_frames_of_the_file(tmp_path: Path, ending: str) -> None:
    rate = 48000
    path = write(tmp_path, ending, sound(3 * rate, 2), rate)
    whole, _ = soundfile.read(path, dtype="float32", always_2d=True)
    source = open_audio(str(tmp_path))
    for start in (0, 1, 12345, 2 * rate):
        got = decode(source, path.name, start, rate, rate, rate)
        np.testing.assert_allclose(got, whole[start : start + rate].mean(axis=1), atol=1e-6)


def test_resampling_keeps_a_tone_and_gives_the_exact_length(tmp_path: Path) -> None:
    seconds = np.arange(RATE) / RATE
    write(tmp_path, "wav", 0.5 * np.sin(2 * np.pi * 1000 * seconds)[:, None])
    got = decode(open_audio(str(tmp_path)), "x.wav", 0, RATE, RATE, 16000)
    assert got.shape == (16000,)
    expected = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
    np.testing.assert_allclose(got[500:-500], expected[500:-500], atol=1e-3)


def test_what_lies_around_a_clip_does_not_change_it(tmp_path: Path) -> None:
    samples = sound(3 * RATE)
    write(tmp_path, "wav", samples)
    got = decode(open_audio(str(tmp_path)), "x.wav", RATE, RATE, RATE, 16000)
    samples[:RATE] = 0.9
    samples[2 * RATE :] = -0.9
    write(tmp_path, "wav", samples)
    np.testing.assert_array_equal(got, decode(open_audio(str(tmp_path)), "x.wav", RATE, RATE, RATE, 16000))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 4000),
    st.sampled_from([8000, 11025, 22050, 44100, 48000, 96000]),
    st.sampled_from([8000, 16000, 32000]),
)
def test_length_in_samples_is_exact(
    tmp_path_factory: pytest.TempPathFactory, length: int, rate: int, sample_rate: int
) -> None:
    folder = tmp_path_factory.getbasetemp() / "lengths"
    folder.mkdir(exist_ok=True)
    write(folder, "wav", sound(length), rate)
    expected = samples_at(length, rate, sample_rate)
    if expected:
        got = decode(open_audio(str(folder)), "x.wav", 0, length, rate, sample_rate)
        assert got.shape == (expected,)
        assert np.isfinite(got).all()
    else:
        with pytest.raises(AudioError, match="less than one sample"):
            decode(open_audio(str(folder)), "x.wav", 0, length, rate, sample_rate)


def _digest(root: str, clips: list[tuple[str, int, int, int]]) -> list[bytes]:
    source = open_audio(root)
    return [decode(source, *clip, 16000).tobytes() for clip in clips]


def test_bit_identical_from_threads_and_processes(tmp_path: Path) -> None:
    clips = []
    for ending in sorted(FORMATS):
        path = write(tmp_path, ending, sound(4 * 48000, 2, seed=len(ending)), 48000)
        clips += [(path.name, start * 48000, 48000, 48000) for start in range(3)]
    alone = _digest(str(tmp_path), clips)
    source = open_audio(str(tmp_path))

    def one(clip: tuple[str, int, int, int]) -> bytes:
        return decode(source, *clip, 16000).tobytes()

    with ThreadPoolExecutor(8) as pool:
        threaded = list(pool.map(one, list(reversed(clips)) * 2))
    assert threaded == list(reversed(alone)) * 2
    with multiprocessing.get_context("spawn").Pool(1) as processes:
        assert processes.apply(_digest, (str(tmp_path), clips)) == alone


@pytest.mark.forks
def test_hdf5_is_read_across_a_fork(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("no fork here")
    samples = np.random.default_rng(0).integers(-9999, 9999, 16000, dtype=np.int16)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a"] = samples
    clips = [("a.h5/a", 0, 16000, 16000)]
    alone = _digest(str(tmp_path), clips)
    with multiprocessing.get_context("fork").Pool(2) as processes:
        assert processes.starmap(_digest, [(str(tmp_path), clips)] * 4) == [alone] * 4
    assert _digest(str(tmp_path), clips) == alone


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "empty: zero bytes"),
        (b"this is a text file, not audio\n" * 10, "not readable as audio: Format not recognised"),
        (b"RIFF\0\0\0\0WAVE", "not readable as audio"),
    ],
)
def test_what_is_no_audio(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "x.wav").write_bytes(content)
    assert reason(open_audio(str(tmp_path)), "x.wav", 0, 0, 0).startswith(expected)
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        tar.add(tmp_path / "x.wav", "x.wav")
    assert reason(open_audio(str(tmp_path / "t.tar")), "t.tar/x.wav", 0, 0, 0).startswith(expected)


def test_missing_and_odd_files(tmp_path: Path) -> None:
    (tmp_path / "folder.wav").mkdir()
    source = open_audio(str(tmp_path))
    assert reason(source, "gone.wav") == "cannot be opened: No such file or directory"
    assert reason(source, "folder.wav") == "not a regular file"
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.wav")
        assert reason(source, "pipe.wav") == "not a regular file"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite(tmp_path: Path, bad: float) -> None:
    samples = sound(1000, 2)
    samples[500, 1] = bad
    soundfile.write(tmp_path / "x.wav", samples, RATE, subtype="FLOAT")
    source = open_audio(str(tmp_path))
    assert reason(source, "x.wav", 0, 1000) == "not finite: 1 of 1000 frames are NaN or infinite"
    assert len(decode(source, "x.wav", 0, 500, RATE, RATE)) == 500


def test_no_frames_and_spans_past_the_end(tmp_path: Path) -> None:
    write(tmp_path, "wav", sound(0))
    source = open_audio(str(tmp_path))
    assert reason(source, "x.wav", 0, 0) == "empty: the file has no frames"
    write(tmp_path, "wav", sound(1000))
    assert reason(source, "x.wav", 5000, 0) == "empty: starts at frame 5000 of a file of 1000 frames"
    assert reason(source, "x.wav", 500, 600) == "truncated: 500 of 600 frames"
    assert reason(source, "x.wav", 0, 1000, 48000).startswith("changed: the file is at 44100 Hz")
    assert reason(source, "x.wav", 0, 0, 0).startswith("changed: readable now")


@pytest.mark.parametrize("ending", sorted(FORMATS))
@pytest.mark.parametrize("fraction", [0.3, 0.6, 0.95])
def test_truncated_files_fail_where_they_break_off(tmp_path: Path, ending: str, fraction: float) -> None:
    rate = 48000
    path = write(tmp_path, ending, sound(6 * rate), rate)
    head = decode(open_audio(str(tmp_path)), path.name, 0, rate // 2, rate, 16000)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * fraction)])
    source = open_audio(str(tmp_path))
    # cut before the break: the clip table has the file's true length
    assert reason(source, path.name, 0, 6 * rate, rate).startswith("truncated: ")
    # listed after the break: the clip that meets it fails, the clips before it are as they were
    [whole] = scan(open_source(str(tmp_path)), clip_seconds=6).to_pylist()
    assert reason(source, path.name, whole["start"], whole["length"], rate).startswith("truncated: ")
    np.testing.assert_array_equal(decode(source, path.name, 0, rate // 2, rate, 16000), head)
    if ending in ("wav", "aiff", "flac"):
        assert whole["length"] == 6 * rate


def test_truncation_says_how_much_is_there(tmp_path: Path) -> None:
    path = write(tmp_path, "wav", sound(1000))
    path.write_bytes(path.read_bytes()[: 44 + 2 * 700])
    assert frame_count(path) == (700, RATE, 1000, False)
    assert reason(open_audio(str(tmp_path)), "x.wav", 0, 1000) == "truncated: 700 of 1000 frames"


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFF000])
def test_a_wav_from_a_pipe_is_not_truncated(tmp_path: Path, size: int) -> None:
    path = write(tmp_path, "wav", sound(1000))
    content = bytearray(path.read_bytes())
    assert content[36:40] == b"data"
    content[40:44] = size.to_bytes(4, "little")
    path.write_bytes(content)
    assert frame_count(path) == (1000, RATE, 1000, False)
    assert len(decode(open_audio(str(tmp_path)), "x.wav", 0, 1000, RATE, RATE)) == 1000


def test_an_ogg_of_whole_pages_is_whole(tmp_path: Path) -> None:
    path = write(tmp_path, "ogg", sound(3 * RATE))
    with opened(path) as whole:
        assert not whole.breaks_off
    content = path.read_bytes()
    path.write_bytes(content + b"TAGjunk after the last page")
    with opened(path) as tagged:
        assert not tagged.breaks_off
    path.write_bytes(content[:-1])
    with opened(path) as cut:
        assert cut.breaks_off


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["wav", "flac", "aiff"]), st.integers(0, 90), st.binary(min_size=1, max_size=8))
def test_a_damaged_header_is_an_audio_error_or_audio(
    tmp_path_factory: pytest.TempPathFactory, ending: str, at: int, damage: bytes
) -> None:
    folder = tmp_path_factory.getbasetemp() / "damage"
    folder.mkdir(exist_ok=True)
    content = bytearray(write(folder, ending, sound(2000)).read_bytes())
    content[at : at + len(damage)] = damage
    message = ""
    try:
        with opened(InMemory(content)) as sounded:
            frames, _ = sounded.read(0, min(sounded.frames, 4000))
            assert len(frames) <= 4000
    except AudioError as error:
        message = str(error)
    assert "\n" not in message


def test_real_ogg_files_decode(shared: Path) -> None:
    source = open_source(str(shared / "data/esc10/audio"))
    table = scan(source, clip_seconds=5, workers=2)
    assert table.num_rows == 400
    for row in table.slice(0, 400).to_pylist()[::20]:
        waveform = decode(source, row["path"], row["start"], row["length"], row["rate"], 16000)
        assert waveform.shape == (samples_at(row["length"], row["rate"], 16000),)
        assert 0 < np.abs(waveform).max() <= 1.5
