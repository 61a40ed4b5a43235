"""Decoded clips kept on disk: the same bits, for all who ask, whatever happens to the folder."""

from __future__ import annotations

import fcntl
import io
import os
import pickle
import shutil
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from logitstore.audio import clips as module
from logitstore.audio.cache import AudioCache
from logitstore.audio.clips import ClipAudio
from logitstore.audio.sources import open_audio
from logitstore.errors import AudioError, UsageError

RATE = 16_000
KINDS = {
    "a.flac": RATE, "b.ogg": RATE, "c.wav": 44_100, "d.mp3": 44_100, "stereo.wav": RATE, "deep.wav": RATE,
    "plain.wav": RATE, "late.flac": RATE,
}  # fmt: skip
KEPT = len(KINDS) - 1  # all but plain.wav


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    folder = tmp_path / "audio"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name, rate in KINDS.items():
        sound = random.uniform(-0.5, 0.5, (3 * rate, 2 if name.startswith("stereo") else 1))
        soundfile.write(folder / name, sound, rate, subtype="PCM_24" if name.startswith("deep") else None)
    return folder


def clips(folder: Path, disk: AudioCache | None) -> ClipAudio:
    below = "audio.tar/" if folder.suffix else ""
    starts = [RATE if name.startswith("late") else 0 for name in KINDS]
    lengths = [rate if name.startswith("late") else 2 * rate for name, rate in KINDS.items()]
    table = pa.table(
        {"path": [below + name for name in KINDS], "start": starts, "length": lengths, "rate": list(KINDS.values())}
    )
    return ClipAudio(open_audio(str(folder)), table, RATE, disk=disk)


def bits(audio: ClipAudio) -> list[bytes]:
    return [audio[clip].tobytes() for clip in range(len(audio))]


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("??/*.pcm"))


def test_what_is_kept_has_the_bits_that_were_decoded(
    audio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = bits(clips(audio, None))
    folder = tmp_path / "cache"
    first = AudioCache(folder)
    assert bits(clips(audio, first)) == expected
    assert (first.read, first.made) == (0, KEPT)
    widths = [file.stat().st_size // RATE for file in files(folder)]
    assert sorted(widths) == [2, 4, 8, 8, 8, 8, 8]  # FLAC as 16 bits, all others as float32
    assert int.from_bytes((folder / "size").read_bytes(), "little") == sum(f.stat().st_size for f in files(folder))
    monkeypatch.setattr(module, "decode_audio", None)  # nothing is decoded any more
    second = pickle.loads(pickle.dumps(AudioCache(folder)))
    again = clips(audio, second)
    assert bits(again) == expected
    for clip in range(len(again)):
        row, turned = np.empty(3 * RATE, np.float32), np.zeros(3 * RATE, np.float32)
        sound = np.frombuffer(expected[clip], np.float32)
        assert again.write(clip, row, 777) == len(sound)
        turned[: len(sound)] = np.roll(sound, 777)
        np.testing.assert_array_equal(row, turned)
    assert (second.read, second.made) == (2 * KEPT, 0)
    assert f"clips were read from it {2 * KEPT:,} times, 0 decoded and kept" in second.summary()


def test_clips_of_an_archive_are_known_by_their_bytes(audio: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "audio.tar", "w") as archive:
        for name in KINDS:
            archive.add(audio / name, name)
    disk = AudioCache(tmp_path / "cache")
    expected = bits(clips(audio, None))
    assert bits(clips(tmp_path / "audio.tar", disk)) == expected
    assert bits(clips(tmp_path / "audio.tar", disk)) == expected
    assert (disk.made, disk.read) == (KEPT + 1, KEPT + 1)  # what lies in an archive is decoded, however plain


def test_streams_of_an_archive_are_closed(audio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tarfile.open(tmp_path / "audio.tar", "w") as archive:
        for name in KINDS:
            archive.add(audio / name, name)
    opened: list[BinaryIO] = []
    kept = clips(tmp_path / "audio.tar", AudioCache(tmp_path / "cache"))
    read = kept._source.read
    monkeypatch.setattr(kept._source, "read", lambda path: opened.append(read(path)) or opened[-1])
    row = np.empty(2 * RATE, np.float32)
    for clip in (0, 0, 1, 2):  # decoded, then kept, then decoded into a row and kept there
        bits(kept)
        kept.write(clip, row)
    assert len(opened) == 4 * (len(KINDS) + 1)
    assert all(stream.closed for stream in opened)


def test_a_file_that_changed_is_decoded_anew(audio: Path, tmp_path: Path) -> None:
    disk = AudioCache(tmp_path / "cache")
    before = clips(audio, disk)[0]
    soundfile.write(audio / "a.flac", np.random.default_rng(9).uniform(-0.5, 0.5, 3 * RATE), RATE)
    os.utime(audio / "a.flac", ns=(1, 1))
    after = clips(audio, disk)[0]
    assert not np.array_equal(before, after)
    np.testing.assert_array_equal(after, clips(audio, None)[0])
    (audio / "a.flac").write_bytes(b"no audio")
    with pytest.raises(AudioError, match="not readable as audio"):
        clips(audio, disk)[0]


def test_files_of_two_folders_that_look_alike_are_two(audio: Path, tmp_path: Path) -> None:
    """As a deterministic archive leaves them: the same names, sizes and times, and other sound."""
    other = tmp_path / "other"
    other.mkdir()
    random = np.random.default_rng(1)
    for name, rate in KINDS.items():
        if name == "c.wav":
            soundfile.write(other / name, random.uniform(-0.5, 0.5, 3 * rate), rate)
        else:
            (other / name).write_bytes((audio / name).read_bytes())
        os.utime(audio / name, (0, 0))
        os.utime(other / name, (0, 0))
    assert (other / "c.wav").stat().st_size == (audio / "c.wav").stat().st_size
    for folder in (audio, other):
        assert bits(clips(folder, AudioCache(tmp_path / "cache"))) == bits(clips(folder, None))


@pytest.mark.parametrize("how", ["a bit", "cut off", "longer", "empty", "another clip's"])
def test_what_was_damaged_is_decoded_anew(audio: Path, tmp_path: Path, how: str) -> None:
    expected, folder = bits(clips(audio, None)), tmp_path / "cache"
    bits(clips(audio, AudioCache(folder)))
    contents = [file.read_bytes() for file in files(folder)]
    for number, file in enumerate(files(folder)):
        content = bytearray(contents[number])
        content[len(content) // 2] ^= 4
        changed = {
            "a bit": bytes(content), "cut off": contents[number][:-2], "longer": contents[number] + b"\0\0",
            "empty": b"", "another clip's": contents[number - 1],
        }  # fmt: skip
        file.write_bytes(changed[how])
    disk = AudioCache(folder)
    assert bits(clips(audio, disk)) == expected
    assert (disk.damaged, disk.made) == (KEPT, KEPT)
    assert [file.read_bytes() for file in files(folder)] == contents
    assert f"{KEPT} damaged and decoded anew" in disk.summary()


def test_it_takes_no_more_than_told(audio: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected, folder = bits(clips(audio, None)), tmp_path / "cache"
    disk = AudioCache(folder, 300_000)
    sounds = clips(audio, disk)
    with ThreadPoolExecutor(4) as pool:
        for _ in range(2):
            assert [sound.tobytes() for sound in pool.map(sounds.__getitem__, range(len(sounds)))] == expected
    assert 0 < disk.made < KEPT
    assert sum(file.stat().st_size for file in files(folder)) <= 300_000
    assert caplog.text.count("takes no more: it has its") == 1
    assert "decoded and not kept for want of room" in disk.summary()


def test_several_writers_make_one_file_a_clip(audio: Path, tmp_path: Path) -> None:
    expected, folder = bits(clips(audio, None)), tmp_path / "cache"

    def work(_: int) -> bool:
        return bits(clips(audio, AudioCache(folder))) == expected

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
    assert len(files(folder)) == KEPT
    assert not list((folder / "partial").iterdir())
    assert int.from_bytes((folder / "size").read_bytes(), "little") == sum(f.stat().st_size for f in files(folder))


def test_folders_that_are_something_else_are_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.png").write_bytes(b"")
    with pytest.raises(UsageError, match=r"photos' holds 'me.png' and is no audio cache; give a new folder"):
        AudioCache(tmp_path / "photos")
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / "logitstore-audio-cache").write_bytes(b"7\n")
    with pytest.raises(UsageError, match="is of version"):
        AudioCache(tmp_path / "newer")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match=r"cannot be used: .*; give a folder that can be written"):
        AudioCache(tmp_path / "file")


def test_what_a_killed_writer_left_goes(tmp_path: Path) -> None:
    AudioCache(tmp_path / "cache")
    old, new = (tmp_path / "cache" / "partial" / name for name in ("old", "new"))
    old.write_bytes(b"1")
    new.write_bytes(b"1")
    os.utime(old, (0, 0))
    AudioCache(tmp_path / "cache")
    assert not old.exists()
    assert new.exists()


def test_signed_zeros_and_loud_samples_stay(tmp_path: Path) -> None:
    disk = AudioCache(tmp_path / "cache")
    for number, sound in enumerate(([-0.0, 0.5], [1.0, 0.0], [-1.0, 0.25], [3e5, -1e6])):
        samples = np.array(sound, np.float32)
        key = disk.key(io.BytesIO(b"x"), str(number), 0, 2, RATE, RATE)
        assert key is not None
        disk.keep(key, samples)
        kept = disk.open(key, RATE, True)
        assert kept is not None
        out = np.empty(2, np.float32)
        assert kept.read(0, out)
        kept.close()
        assert out.tobytes() == samples.tobytes()


def test_room_that_people_made_is_found(audio: Path, tmp_path: Path) -> None:
    """The number of bytes is kept in a file, and clips may go without it."""
    folder = tmp_path / "cache"
    expected = bits(clips(audio, AudioCache(folder)))
    taken = sum(path.stat().st_size for path in files(folder))
    for path in files(folder):
        path.unlink()
    full = AudioCache(folder, most_bytes=taken)
    assert bits(clips(audio, full)) == expected
    assert full.left == 0
    assert len(files(folder)) == KEPT


def test_a_summary_of_a_folder_that_is_gone_is_one_all_the_same(audio: Path, tmp_path: Path) -> None:
    cache = AudioCache(tmp_path / "cache")
    bits(clips(audio, cache))
    shutil.rmtree(tmp_path / "cache")
    assert "cannot be told" in cache.summary()


def test_a_lock_ends_with_its_work_whoever_else_has_the_file_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a process that is forked meanwhile: an open file that it shares must not keep the others out."""
    cache = AudioCache(tmp_path / "cache")
    shared = []
    real = os.pread

    def forked(file: int, *given: int) -> bytes:
        shared.append(os.dup(file))
        return real(file, *given)

    monkeypatch.setattr("logitstore.audio.cache.os.pread", forked)
    cache.summary()
    monkeypatch.undo()
    with (tmp_path / "cache" / "size").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    for file in shared:
        os.close(file)
