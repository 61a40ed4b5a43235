"""The build job: what a store holds, resume, failures, several builders."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from logitstore import open_store
from logitstore.audio.clips import ClipAudio
from logitstore.audio.sources import open_audio
from logitstore.errors import (
    AudioError,
    CorruptStoreError,
    MismatchError,
    ModelOutputError,
    NotAStoreError,
    RecipeError,
    UsageError,
)
from logitstore.jobs.build.dry_run import dry_run
from logitstore.jobs.build.job import Progress, build, prepare
from logitstore.jobs.status import status, watch
from logitstore.store import claims
from logitstore.store.shards import default_shard_clips
from logitstore.store.storage import LocalStorage
from logitstore.views.ops.time_mask import TimeMask
from logitstore.views.recipe import Recipe
from students import ReplayDataset
from teachers.ensemble import Ensemble
from teachers.registry import load_teacher
from tests.rendered import compared, rendered_view
from tests.stores import contents, options, write_audio

LONG = Recipe("long", (TimeMask(max_seconds=1.5),))

pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.fixture
def audio(tmp_path):
    write_audio(tmp_path / "audio", 20)
    return tmp_path


def test_a_store_holds_what_the_ensemble_says_of_every_replayed_view(audio):
    summary = build(options(audio))
    store = open_store(audio / "store")
    assert (summary.clips, summary.stored_views, summary.blocks) == (20, 60, 3)
    assert store.views == 3
    clips = ClipAudio(open_audio(str(audio / "audio")), store.clips, 16_000)
    ensemble = Ensemble([load_teacher(f"python:tones:{name}") for name in ("plain", "steep")], sample_rate=16_000)
    for view in range(3):
        classes, probabilities = store.targets(view, np.arange(20))
        for clip in range(20):
            waveform, spans = rendered_view(store, clips, clip, view)
            exact = ensemble.probabilities(waveform[None], spans.to("cpu"))[0].numpy()
            best = np.sort(exact)[::-1][:4]
            assert abs(probabilities[clip] - best).max() < 0.00308
            assert abs(exact[classes[clip]] - probabilities[clip]).max() < 0.00308
    assert compared(store, clips, 10) == (6, [])


def test_a_resumed_build_is_byte_for_byte_the_undisturbed_one(audio):
    build(options(audio))
    whole = contents(audio / "store")
    commits = sorted((audio / "store" / "commits").iterdir())
    commits[1].unlink()
    (audio / "store" / "blocks" / "000001-0-3" / "packed" / "c" / "0" / "0").unlink()
    assert build(options(audio)).made_views == 24
    assert contents(audio / "store") == whole
    assert build(options(audio)).made_views == 0


def test_other_bytes_that_lie_in_the_place_of_a_block_are_not_written_over(audio):
    """Another builder, which only stands still, may be about to commit them; what nobody commits is swept."""
    build(options(audio))
    whole = contents(audio / "store")
    before = [open_store(audio / "store").targets(view, range(12)) for view in range(3)]
    sorted((audio / "store" / "commits").iterdir())[1].unlink()
    (audio / "store" / "blocks" / "000001-0-3" / "packed" / "c" / "0" / "0").write_bytes(b"half")
    assert build(options(audio)).made_views == 24
    after = contents(audio / "store")
    moved = {name: data for name, data in whole.items() if "000001-0-3" not in name}
    assert {name: data for name, data in after.items() if "000001-0-3" not in name} == moved
    assert {name.split("/")[1] for name in after if name.startswith("blocks/000001")} == {"000001-0-3.r2"}
    for view, said in enumerate(before):
        for old, new in zip(said, open_store(audio / "store").targets(view, range(12)), strict=True):
            assert (old == new).all()


@pytest.mark.parametrize("changes", [{"workers": 1}, {"workers": 5}])
def test_the_number_of_workers_changes_no_byte(audio, changes):
    build(options(audio))
    build(options(audio, out=str(audio / "other"), **changes))
    assert contents(audio / "store") == contents(audio / "other")


KILLED = """
import os, sys, threading, signal
sys.path[:0] = {path!r}
os.chdir({root!r})
from tests.stores import options
from logitstore.jobs.build.job import Progress, build
from pathlib import Path
left = {views}
def advance(views):
    global left
    left -= views
    if left <= 0:
        os.kill(os.getpid(), signal.{signal})
build(options(Path({root!r})), Progress(advance=advance))
"""


@pytest.mark.parametrize("views", [8, 24, 40, 56])
def test_a_killed_build_resumes_to_the_same_bytes(audio, views):
    build(options(audio, out=str(audio / "undisturbed")))
    repository = str(Path(__file__).parents[2])
    code = KILLED.format(path=[repository, str(audio)], root=str(audio), views=views, signal="SIGKILL")
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert status(str(audio / "store")).missing > 0
    build(options(audio))
    assert contents(audio / "store") == contents(audio / "undisturbed")


def test_two_builders_share_a_store(audio):
    build(options(audio, out=str(audio / "undisturbed"), shard_clips=2))
    repository = str(Path(__file__).parents[2])
    code = (
        f"import sys, os; sys.path[:0] = {[repository, str(audio)]!r}; os.chdir({str(audio)!r});"
        "from pathlib import Path; from tests.stores import options; from logitstore.jobs.build.job import build;"
        f"print(build(options(Path({str(audio)!r}), shard_clips=2)).made_views)"
    )
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    made = [int(process.communicate(timeout=120)[0]) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum(made) == 60
    assert contents(audio / "store") == contents(audio / "undisturbed")


def test_a_claim_of_a_dead_builder_holds_up_nobody(audio):
    storage = LocalStorage(audio / "store")
    storage.create("claims/000001.json", b'{"host":"elsewhere","pid":1,"token":"x","expires":%d}' % (time.time() - 1))
    assert build(options(audio)).made_views == 60
    assert not (audio / "store" / "claims").exists()


def test_a_live_claim_is_waited_for(tmp_path):
    storage = LocalStorage(tmp_path / "store")
    with claims.Claimer(storage) as first, claims.Claimer(storage) as second:
        assert first.take(4)
        assert not second.take(4)
        assert claims.claimed_shards(storage) == [4]
        first.drop(4)
        assert second.take(4)
    assert claims.claimed_shards(storage) == []


def test_more_views_are_added_and_nothing_there_is_touched(audio):
    build(options(audio))
    before = contents(audio / "store")
    assert build(options(audio, views=5)).made_views == 40
    after = contents(audio / "store")
    assert {name: after[name] for name in before} == before
    store = open_store(audio / "store")
    assert store.views == 5
    build(options(audio, views=5, out=str(audio / "at once")))
    at_once = open_store(audio / "at once")
    for view in range(5):
        for one, other in zip(store.targets(view, [3, 17]), at_once.targets(view, [3, 17]), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)
        assert (store.draws(view).columns["roll"] == at_once.draws(view).columns["roll"]).all()


def test_clips_that_cannot_be_decoded_are_recorded_and_the_build_goes_on(audio):
    folder = audio / "audio"
    (folder / "text.wav").write_text("this is no audio")
    (folder / "empty.flac").write_bytes(b"")
    whole = (folder / "a" / "000.wav").read_bytes()
    (folder / "truncated.wav").write_bytes(whole[: len(whole) // 2])
    soundfile.write(folder / "nan.wav", np.full(16_000, np.nan, np.float32), 16_000, subtype="FLOAT")
    summary = build(options(audio))
    failed = {failure.path: failure.reason for failure in summary.failures}
    assert set(failed) == {"text.wav", "empty.flac", "truncated.wav", "nan.wav"}
    assert str(audio) not in "".join(failed.values())
    store = open_store(audio / "store")
    assert len(store.clips_of(0)) == 20
    assert store.clips.num_rows == 24
    clip = store.clips["path"].to_pylist().index("nan.wav")
    with pytest.raises(UsageError, match=f"clip {clip} has no targets, it failed: .*finite"):
        store.targets(0, [clip])
    with pytest.raises(AudioError, match=r"^empty.flac: empty: zero bytes"):
        build(options(audio, out=str(audio / "strict"), strict=True))

    assert build(options(audio, retry_failed=True)).made_views == 0
    random = np.random.default_rng(0)
    soundfile.write(folder / "nan.wav", random.standard_normal(16_000).astype(np.float32) / 9, 16_000, subtype="FLOAT")
    assert build(options(audio, retry_failed=True)).made_views == 3
    mended = open_store(audio / "store")
    assert mended.targets(0, [clip])[0].shape == (1, 4)
    assert "nan.wav" not in [failure.path for failure in build(options(audio)).failures]
    assert len([name for name in contents(audio / "store") if name.endswith("packed/zarr.json")]) == 3


def test_a_clip_deleted_between_scan_and_decode_is_recorded(audio):
    job = prepare(options(audio))
    (audio / "audio" / "a" / "004.wav").unlink()
    from logitstore.jobs.build.job import Progress, run

    summary = run(job, Progress())
    assert [failure.path for failure in summary.failures] == ["a/004.wav"]
    assert build(options(audio)).made_views == 0


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        ("nan", "python:tones:nan.* gave NaN"),
        ("shape", r"gave the shape \(8, 7\)"),
        ("out_of_range", "probabilities lie in"),
    ],
)
def test_a_teacher_that_fails_midway_leaves_what_was_committed(audio, teacher, message):
    with pytest.raises(ModelOutputError, match=message):
        build(options(audio, teachers=[f"python:tones:{teacher}"], batch_size=8, shard_clips=4))
    assert status(str(audio / "store")).shards_finished == 1
    assert not (audio / "store" / "claims").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "seed: stored 0, asked 1"),
        ({"recipe": "none"}, "recipe: stored .*ced.*asked .*none"),
        ({"topk": 3}, "topk: stored 4, asked 3"),
        ({"teachers": ["python:tones:plain"]}, "teachers: stored .*plain.*steep.*asked .*plain"),
        ({"clip_seconds": 2.5}, "clip_seconds: stored 2.0, asked 2.5"),
        ({"value_bits": 6}, "value_bits: stored 8, asked 6"),
        ({"batch_size": 16}, "batch_size"),
        ({"shard_clips": 4}, "shard_clips: stored 8, asked 4"),
    ],
)
def test_another_command_on_a_store_is_refused_with_the_difference(audio, changes, message):
    build(options(audio))
    before = contents(audio / "store")
    with pytest.raises(MismatchError, match=message) as caught:
        build(options(audio, **changes))
    assert "\n" not in str(caught.value)
    assert contents(audio / "store") == before


def test_other_audio_on_a_store_is_refused(audio):
    build(options(audio))
    write_audio(audio / "more", 22)
    with pytest.raises(MismatchError, match="2 clips are new"):
        build(options(audio, source=str(audio / "more")))


def test_a_folder_that_is_no_store_is_left_alone(audio):
    (audio / "store").mkdir()
    (audio / "store" / "thesis.tex").write_text("dear")
    with pytest.raises(NotAStoreError, match=r"is not a store \(it holds thesis.tex\)"):
        build(options(audio))
    assert contents(audio / "store") == {"thesis.tex": b"dear"}
    (audio / "file").write_text("")
    with pytest.raises(NotAStoreError, match="is a file"):
        build(options(audio, out=str(audio / "file")))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"topk": 9}, UsageError, "--topk 9 is more than the 8 classes"),
        ({"views": 0}, UsageError, "--views is 0; it must be at least 1"),
        ({"clip_seconds": 1.0, "recipe": LONG}, RecipeError, r"longer than a view of 1 s; .* \(max_share\)"),
        (
            {"recipe": "ced", "teachers": ["python:tones:plain", "python:tones:deaf"]},
            UsageError,
            "'python:tones:deaf' takes only waveforms.*'time_mask'.*--recipe wave",
        ),
        ({"teachers": ["python:tones:plain", "python:tones:softmax"]}, UsageError, "softmax.*sigmoid"),
        ({"value_bits": 9}, UsageError, "9 bits"),
        ({"device": "cuda:7"}, UsageError, "--device cuda:7 cannot be used here"),
        ({"teachers": []}, UsageError, "no teacher"),
    ],
)
def test_options_that_cannot_be_right(audio, changes, error, message):
    with pytest.raises(error, match=message) as caught:
        build(options(audio, **changes))
    assert "\n" not in str(caught.value)
    assert not (audio / "store").exists()


def test_classes_in_another_order_are_permuted(audio):
    build(options(audio, teachers=["python:tones:plain"]))
    mixed = options(audio, teachers=["python:tones:plain", "python:tones:reversed_classes"], out=str(audio / "mixed"))
    build(mixed)
    one, other = open_store(audio / "store"), open_store(audio / "mixed")
    for left, right in zip(one.targets(1, range(20)), other.targets(1, range(20)), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-6)


def test_members_are_kept_where_asked(audio):
    build(options(audio, keep_members=True))
    store = open_store(audio / "store")
    clips = ClipAudio(open_audio(str(audio / "audio")), store.clips, 16_000)
    commit = store.commits[0]
    members, (classes, _) = store.block_members(commit), store.block_targets(commit)
    assert members.shape == (2, 8, 3, 4)
    waveform, spans = rendered_view(store, clips, 5, 2)
    for number, name in enumerate(("plain", "steep")):
        with torch.inference_mode():
            said = load_teacher(f"python:tones:{name}").probabilities(waveform[None], spans.to("cpu"))[0].numpy()
        assert abs(members[number, 5, 2] - said[classes[5, 2]]).max() < 0.00308


@pytest.mark.parametrize("bits", [4, 16])
def test_other_value_bits(audio, bits):
    build(options(audio, value_bits=bits))
    build(options(audio, out=str(audio / "eight")))
    some, eight = (
        open_store(audio / "store").targets(0, range(20))[1],
        open_store(audio / "eight").targets(0, range(20))[1],
    )
    assert abs(some - eight).max() < (0.0522 if bits == 4 else 0.0036)


def test_softmax_ensembles(audio):
    build(options(audio, teachers=["python:tones:softmax"]))
    store = open_store(audio / "store")
    assert store.manifest.scores == "softmax"
    assert store.manifest.quantizer.scale == "log"
    probabilities = store.targets(0, range(20))[1]
    assert (probabilities.sum(axis=1) < 1.1).all()


MIXUP = """
- {op: roll}
- {op: mixup, probability: 1.0, min_weight: 0.2, max_weight: 0.5}
- {op: noise, probability: 1.0, min_snr_db: 5, max_snr_db: 20}
- {op: time_mask, max_seconds: 0.5}
"""


def test_mixup_replays_and_an_unreadable_partner_has_weight_zero(audio):
    (audio / "mixup.yaml").write_text(MIXUP)
    (audio / "audio" / "a" / "broken.wav").write_text("no audio")
    build(options(audio, recipe="mixup.yaml"))
    store = open_store(audio / "store")
    clips = ClipAudio(open_audio(str(audio / "audio")), store.clips, 16_000)
    ensemble = Ensemble([load_teacher(f"python:tones:{name}") for name in ("plain", "steep")], sample_rate=16_000)
    broken = store.clips["path"].to_pylist().index("a/broken.wav")
    unmixed = 0
    for view in range(3):
        rows = store.clips_of(view)
        drawn = store.draws(view, rows).columns
        unmixed += int((drawn["mixup_weight"] == 0).sum())
        assert broken not in store.partners(rows, store.draws(view, rows))
        for clip in rows[:4]:
            waveform, spans = rendered_view(store, clips, int(clip), view)
            exact = ensemble.probabilities(waveform[None], spans.to("cpu"))[0].numpy()
            classes, probabilities = store.targets(view, [clip])
            assert abs(exact[classes[0]] - probabilities[0]).max() < 0.00308
    assert unmixed > 0
    assert compared(store, clips, 10)[1] == []


def test_a_failed_clip_does_not_change_the_others(audio):
    build(options(audio, out=str(audio / "whole")))
    (audio / "audio" / "a" / "004.wav").write_bytes((audio / "audio" / "a" / "004.wav").read_bytes()[:3000])
    build(options(audio))
    whole, holed = open_store(audio / "whole"), open_store(audio / "store")
    rows = holed.clips_of(1)
    assert len(rows) == 19
    for one, other in zip(whole.targets(1, rows), holed.targets(1, rows), strict=True):
        np.testing.assert_array_equal(one, other)


def test_dry_run_writes_nothing_and_says_what_would_be_done(audio):
    (audio / "audio" / "text.wav").write_text("no audio")
    said = dry_run(prepare(options(audio))).render()
    assert not (audio / "store").exists()
    for line in ("clips      21", "63 in all, in 3 blocks", "python:tones:plain", "1 files cannot be read", "text.wav"):
        assert line in said


def test_status_counts_blocks(audio):
    build(options(audio))
    (audio / "store" / "commits" / "000001-0-3.json").unlink()
    found = status(str(audio / "store"))
    assert (found.shards_finished, found.missing, found.shards, found.claimed) == (2, 1, 3, ())
    assert "2 of 3 shards done, 0 claimed, 1 missing" in found.render()


def test_a_build_is_watched_until_it_is_finished(audio):
    build(options(audio, shards="0:1"))
    looks = watch(str(audio / "store"), 0.01)
    first = next(looks)
    assert (first.done, first.shards, first.finished) == (1, 3, False)
    assert (first.views, first.all_views) == (24, 60)
    assert str(first) == "1 of 3 shards, nobody at work"
    with claims.Claimer(LocalStorage(audio / "store")) as claimer:
        assert claimer.take(1)
        assert next(looks).builders == {socket.gethostname(): 1}
        claimer.drop(1)
    build(options(audio))
    last = next(looks)
    assert (last.done, last.views, last.finished) == (3, 60, True)
    assert next(looks, None) is None


def test_a_watch_of_a_damaged_store_is_one_error(audio):
    build(options(audio))
    commits = audio / "store" / "commits"
    (commits / "000000-0-3.json").rename(commits / "000007-0-3.json")
    with pytest.raises(CorruptStoreError):
        next(watch(str(audio / "store"), 0.01))


def test_the_default_shard_suits_the_number_of_clips():
    assert [default_shard_clips(n) for n in (1, 320, 400, 8192, 2_000_000)] == [64, 64, 64, 512, 4096]
    for clips in (1500, 10_000, 50_000):
        assert 8 <= clips / default_shard_clips(clips) <= 16


def test_an_audio_cache_changes_no_byte_and_serves_the_next_who_replays(tmp_path):
    write_audio(tmp_path / "audio", 6, rate=22_050)
    notes = []
    build(options(tmp_path, out=str(tmp_path / "plain")))
    cached = options(tmp_path, out=str(tmp_path / "first"), audio_cache=str(tmp_path / "cache"))
    build(cached, Progress(note=notes.append))
    assert contents(tmp_path / "first") == contents(tmp_path / "plain")
    (said,) = [note for note in notes if "audio cache" in note]
    assert ", 6 decoded and kept; it takes 0 of" in said
    data = ReplayDataset(tmp_path / "first", tmp_path / "audio", audio_cache=tmp_path / "cache")
    other = ReplayDataset(tmp_path / "plain", tmp_path / "audio")
    batch, expected = (next(iter(DataLoader(each, batch_size=6))) for each in (data, other))
    assert torch.equal(batch["waveform"], expected["waveform"])
    assert data.audio_cache.made == 0
    with pytest.raises(UsageError, match="--audio-cache-size bounds a folder that --audio-cache names; give that too"):
        options(tmp_path, audio_cache_size=1.0)
