"""The audio that more views are made of is the one that was heard: of every kind of source, and of a clip alone."""

from __future__ import annotations

import io
import shutil

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from logitstore import open_store
from logitstore.errors import MismatchError
from logitstore.jobs.build.extend import ExtendOptions, extend
from logitstore.jobs.build.job import Progress, build
from tests.audio.test_sources import write_tar
from tests.stores import RATE, contents, options

pytestmark = pytest.mark.usefixtures("own_folder")
TEACHERS = ["python:tones:plain", "python:tones:steep"]


def tone(hz, seconds=1.0, rate=RATE):
    """One of the tones that the teachers tell apart."""
    return (0.3 * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def sounds(count=5, **changed):
    return {f"{n}.wav": tone(changed.get(f"n{n}", (300, 500, 800, 1300, 2100, 3400, 5500, 7000)[n % 8]))
            for n in range(count)}  # fmt: skip


def encoded(wave, rate=RATE):
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def folder(root, waves):
    shutil.rmtree(root / "audio", ignore_errors=True)
    (root / "audio").mkdir()
    for name, wave in waves.items():
        (root / "audio" / name).write_bytes(encoded(wave))
    return {"source": str(root / "audio")}


def manifest(root, waves):
    folder(root, waves)
    (root / "m.csv").write_text("path,label\n" + "".join(f"{name},x\n" for name in waves))
    return {"source": str(root / "m.csv"), "audio_root": str(root / "audio")}


def fresh(root, name):
    """A new place for a file: a process keeps open what it has read."""
    number = len(list(root.glob("made*")))
    (root / f"made{number}").mkdir()
    return root / f"made{number}" / name


def tar(root, waves):
    return {"source": str(write_tar(fresh(root, "audio.tar"), {n: encoded(wave) for n, wave in waves.items()}))}


def parquet(root, waves):
    rows = [{"audio": {"bytes": encoded(wave), "path": name}} for name, wave in waves.items()]
    pq.write_table(pa.Table.from_pylist(rows), file := fresh(root, "audio.parquet"))
    return {"source": str(file)}


def hdf5(root, waves):
    with h5py.File(place := fresh(root, "audio.h5"), "w") as file:
        for name, wave in waves.items():
            file[name] = (wave * 32767).astype(np.int16)
    return {"source": str(place)}


KINDS = [folder, manifest, tar, parquet, hdf5]


@pytest.mark.parametrize("kind", KINDS)
def test_more_views_of_the_same_audio_are_made(tmp_path, kind):
    build(options(tmp_path, **kind(tmp_path, sounds())))
    assert build(options(tmp_path, views=4, **kind(tmp_path, sounds()))).made_views == 5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clip", [0, 3])
def test_more_views_of_one_other_sound_are_refused_by_its_name(tmp_path, kind, clip):
    """The first clip has a fingerprint; of the others the teachers say otherwise."""
    build(options(tmp_path, **kind(tmp_path, sounds())))
    before = contents(tmp_path / "store")
    changed = kind(tmp_path, sounds(**{f"n{clip}": 7000}))
    with pytest.raises(
        MismatchError, match=rf"is not the one that .* was made from: clip {clip} \(.*{clip}(\.wav)?\), v"
    ):
        build(options(tmp_path, views=4, **changed))
    assert {name: contents(tmp_path / "store").get(name) for name in before} == before
    assert open_store(tmp_path / "store").views == 3


@pytest.mark.parametrize(
    ("wave", "rate", "message"),
    [
        (tone(300, 0.9), RATE, r"not as they were \(as 1\.wav at 0\+14400\)"),
        (tone(300, 1.1), RATE, r"not as they were \(as 1\.wav at 0\+17600\)"),
        (tone(300, 2.0, 8000), 8000, "1.wav was at 16000 Hz and is at 8000 Hz"),
    ],
)
def test_a_file_of_another_length_or_rate_is_refused_by_its_name(tmp_path, wave, rate, message):
    build(options(tmp_path, **folder(tmp_path, sounds())))
    (tmp_path / "audio" / "1.wav").write_bytes(encoded(wave, rate))
    with pytest.raises(MismatchError, match=message):
        build(options(tmp_path, views=4))


def test_what_failed_is_tried_again_only_beside_the_same_audio(tmp_path):
    folder(tmp_path, sounds())
    soundfile.write(tmp_path / "audio" / "2.wav", np.full(RATE, np.nan, np.float32), RATE, subtype="FLOAT")
    build(options(tmp_path))
    folder(tmp_path, sounds(n4=300))
    with pytest.raises(MismatchError, match=r"clip 4 \(4\.wav\), view"):
        build(options(tmp_path, retry_failed=True))
    folder(tmp_path, sounds(n2=300))
    assert build(options(tmp_path, retry_failed=True)).made_views == 3


def test_a_clip_that_has_gone_is_a_failure_of_the_new_views_alone(tmp_path):
    build(options(tmp_path, **folder(tmp_path, sounds())))
    (tmp_path / "audio" / "0.wav").unlink()
    summary = build(options(tmp_path, views=4))
    assert (summary.made_views, [failure.path for failure in summary.failures]) == (4, ["0.wav"])


def more(root, **changes):
    return ExtendOptions(**({"store": str(root / "store"), "source": str(root / "audio"), "teachers": TEACHERS,
                             "workers": 1, "skip_known": True} | changes))  # fmt: skip


def test_an_extension_hears_known_clips_that_its_source_gives_again(tmp_path):
    build(options(tmp_path, **folder(tmp_path, sounds())))
    folder(tmp_path, sounds(7))
    assert extend(more(tmp_path)).made_views == 6
    folder(tmp_path, sounds(8, n3=7000))
    with pytest.raises(MismatchError, match=r"clip 3 \(3\.wav\), view"):
        extend(more(tmp_path))
    folder(tmp_path, sounds(8, n6=300))
    with pytest.raises(MismatchError, match=r"clip 6 \(6\.wav\), view"):
        extend(more(tmp_path))
    folder(tmp_path, sounds(8))
    assert extend(more(tmp_path)).clips == 8


@pytest.mark.parametrize(
    ("wave", "rate", "message"),
    [(tone(300, 0.9), RATE, "'1.wav' has 14400 frames from frame 0 on and had 16000"),
     (tone(300, 2.0, 8000), 8000, "'1.wav' is at 8000 Hz and was at 16000 Hz")],
)  # fmt: skip
def test_a_known_file_of_another_length_is_no_new_clip(tmp_path, wave, rate, message):
    build(options(tmp_path, **folder(tmp_path, sounds())))
    folder(tmp_path, sounds(6))
    (tmp_path / "audio" / "1.wav").write_bytes(encoded(wave, rate))
    with pytest.raises(MismatchError, match=message):
        extend(more(tmp_path))


def test_other_segments_of_a_known_file_are_new_clips(tmp_path):
    folder(tmp_path, sounds(2))
    (tmp_path / "first.csv").write_text("path,start,duration\n0.wav,0,0.4\n")
    (tmp_path / "more.csv").write_text("path,start,duration\n0.wav,0,0.5\n0.wav,0.5,0.4\n")
    of = {"audio_root": str(tmp_path / "audio")}
    build(options(tmp_path, source=str(tmp_path / "first.csv"), **of))
    assert extend(more(tmp_path, source=str(tmp_path / "more.csv"), skip_known=False, **of)).clips == 3


RANDOM = """
import torch

class Random(torch.nn.Module):
    classes, sample_rate, scores, digest = ["a", "b"], 16_000, "sigmoid", "v1"

    def forward(self, waveforms):
        return torch.rand(len(waveforms), 2)

def make():
    return Random()
"""


def test_a_teacher_that_never_says_the_same_twice_does_not_speak_for_the_audio(tmp_path):
    (tmp_path / "dice.py").write_text(RANDOM)
    asked = {"teachers": ["python:dice:make"], "topk": 2, **folder(tmp_path, sounds())}
    build(options(tmp_path, **asked))
    assert build(options(tmp_path, views=4, **asked), Progress()).made_views == 5
