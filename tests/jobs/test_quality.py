"""Builds with a quality: what they hold, that nothing but the block decides, and all that is done with such stores."""

import h5py
import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from logitstore import open_store
from logitstore.audio.clips import ClipAudio
from logitstore.audio.sources import open_audio
from logitstore.errors import UsageError
from logitstore.jobs.build.extend import extend
from logitstore.jobs.build.job import build
from logitstore.jobs.export import export_ced, export_parquet
from logitstore.jobs.merge import merge
from logitstore.jobs.options import ExtendOptions, MergeOptions, VerifyOptions
from logitstore.jobs.verify.job import verify
from logitstore.store.format import quality
from logitstore.store.summary import summarise
from logitstore.views.recipe import NONE
from students.data import stored_views
from students.sampling import balanced
from students.targets import dense_targets
from teachers.ensemble import Ensemble
from teachers.registry import load_teacher
from tests.rendered import rendered_view
from tests.small_store import Spec, make_store
from tests.stores import contents, inside, options, write_audio

ASKED = 0.05
TEACHERS = ["python:tones:plain", "python:tones:steep"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A store of 12 clips, of which 8 and 4 are a block; and its teachers can be found."""
    root = tmp_path_factory.mktemp("quality")
    write_audio(root / "audio", 12)
    with inside(root):
        build(options(root, topk=None, quality=ASKED))
        yield root


def test_what_is_lost_of_what_the_teachers_say_is_what_was_asked_or_less(root):
    store = open_store(root / "store")
    clips = ClipAudio(open_audio(str(root / "audio")), store.clips, 16_000)
    ensemble = Ensemble([load_teacher(spec) for spec in TEACHERS], sample_rate=16_000)
    lost = []
    for view in range(3):
        classes, probabilities = store.targets(view, range(12))
        read = quality.dense(classes, probabilities, 8, store.rests(view, range(12)))
        for clip in range(12):
            waveform, spans = rendered_view(store, clips, clip, view)
            exact = ensemble.probabilities(waveform[None], spans.to("cpu")).numpy()
            lost.append(quality.loss(exact, read[clip : clip + 1], "sigmoid")[0])
    kept = summarise(store).kept
    assert np.mean(lost) == pytest.approx(kept.lost, rel=1e-3)
    assert kept.lost <= ASKED


def test_a_block_is_the_same_whatever_was_built_before(root):
    whole = contents(root / "store")
    with inside(root):
        build(options(root, topk=None, quality=ASKED, out=str(root / "parts"), shards="1:2"))
        build(options(root, topk=None, quality=ASKED, out=str(root / "parts"), shards="0:1"))
        assert contents(root / "parts") == whole
        build(options(root, topk=None, quality=ASKED, out=str(root / "parts")))
        build(options(root, topk=None, value_bits=None, out=str(root / "parts")))  # nothing asked: as it was begun
    assert contents(root / "parts") == whole


def test_bits_and_a_quality_do_not_go_together(root):
    with pytest.raises(UsageError, match="--quality chooses the bits itself, and --value-bits 6"):
        build(options(root, quality=ASKED, value_bits=6, out=str(root / "no")))


def test_the_teachers_say_it_again(root):
    found = verify(
        VerifyOptions(store=str(root / "store"), audio_root=str(root / "audio"), teachers=TEACHERS, recompute=12)
    )
    assert found.problems == ()
    assert found.recomputed.changed == 0
    assert found.recomputed.largest_difference < 0.01


def test_a_store_is_extended_with_its_quality(root):
    with inside(root):
        build(options(root, topk=None, quality=ASKED, out=str(root / "more")))
        write_audio(root / "further", 3)
        for folder in sorted((root / "further").iterdir()):
            folder.rename(folder.with_name(f"further {folder.name}"))
        extend(ExtendOptions(store=str(root / "more"), source=str(root / "further"), teachers=TEACHERS, workers=1))
    store = open_store(root / "more")
    assert len(store) == 15
    assert store.manifest.quality == ASKED
    assert all(commit.kept.loss <= ASKED for commit in store.commits)


@pytest.mark.parametrize("second", [{"quality": 0.02, "topk": None}, {"topk": 3, "value_bits": 8}])
def test_stores_are_read_and_merged_as_an_ensemble_with_a_quality(root, tmp_path, second):
    with inside(root):
        build(options(root, out=str(tmp_path / "b"), teachers=["python:tones:reversed_classes"],
                      like=str(root / "store"), **second))  # fmt: skip
        read = open_store([root / "store", tmp_path / "b"])
        asked = [str(root / "store"), str(tmp_path / "b")]
        merge(MergeOptions(stores=asked, ensemble=True, out=str(tmp_path / "merged")))
        merged = open_store(tmp_path / "merged")
        assert verify(VerifyOptions(store=str(tmp_path / "merged"))).problems == ()
    assert read.manifest.quality == merged.manifest.quality == ASKED
    for view in range(3):
        for mine, theirs in zip(read.targets(view, range(12)), merged.targets(view, range(12)), strict=True):
            assert (mine[:, : merged.k] == theirs).all()
        assert (read.rests(view, range(12)) == merged.rests(view, range(12))).all()
    assert read.sql("SELECT class, count(*) n FROM topk GROUP BY class ORDER BY class") == merged.sql(
        "SELECT class, count(*) n FROM topk GROUP BY class ORDER BY class"
    )
    with pytest.raises(UsageError, match="a quality that chooses the bits"):
        merge(MergeOptions(stores=asked, ensemble=True, out=str(tmp_path / "no"), value_bits=4))


def test_like_a_store_with_a_quality_topk_is_the_most_that_a_view_keeps(root, tmp_path):
    with inside(root):
        build(options(root, out=str(tmp_path / "b"), like=str(root / "store"), topk=2))
    store = open_store(tmp_path / "b")
    assert (store.manifest.quality, store.manifest.topk) == (ASKED, 2)


@pytest.mark.parametrize("scores", ["sigmoid", "softmax"])
@pytest.mark.parametrize("other", [0.1, None])
def test_stores_are_merged_where_a_shard_has_no_readable_clip_and_scores_sum_to_less(tmp_path, scores, other):
    """Of softmax scores that a top k cut off, the mean is one of shares, and what is lost is no less than nothing."""
    given = {"clips": 8, "shard_clips": 4, "failed": (4, 5, 6, 7), "scores": scores, "topk": 5}
    make_store(tmp_path / "a", Spec(**given, quality=0.1))
    make_store(tmp_path / "b", Spec(**given, quality=other))
    asked = [str(tmp_path / "a"), str(tmp_path / "b")]
    read = open_store(asked, weights=[1, 1])
    assert read.sql("SELECT count(*) AS n FROM views").to_pylist() == [{"n": 12}]
    merge(MergeOptions(stores=asked, store_weights=(1, 1), ensemble=True, out=str(tmp_path / "merged")))
    assert verify(VerifyOptions(store=str(tmp_path / "merged"))).problems == ()
    assert all(commit.kept.loss >= 0 for commit in open_store(tmp_path / "merged").commits)


def test_exports_hold_what_each_view_keeps(root, tmp_path):
    store = open_store(root / "store")
    export_parquet(store, tmp_path / "flat.parquet", class_indices=True)
    used = 0
    for row in pq.read_table(tmp_path / "flat.parquet").to_pylist():
        classes, probabilities = store.targets(row["view"], [row["clip"]])
        count = int((probabilities[0] > 0).sum())
        assert row["classes"] == classes[0, :count].tolist()
        assert row["probabilities"] == probabilities[0, :count].tolist()
        used += count
    assert used == store.sql("SELECT count(*) n FROM topk").to_pylist()[0]["n"]
    with inside(root):
        build(options(root, topk=None, quality=ASKED, recipe=NONE, views=1, out=str(tmp_path / "still")))
    still = open_store(tmp_path / "still")
    export_ced(still, tmp_path / "ced")
    with h5py.File(tmp_path / "ced" / "logits_ep1_0.h5") as file:
        at, values = file["topk_indexes"][:], file["topk_values"][:]
    assert all(len(set(row)) == len(row) for row in at.tolist())
    read = quality.dense(*still.targets(0, range(12)), 8, still.rests(0, range(12)))
    np.testing.assert_allclose(values, np.take_along_axis(read, at.astype(int), 1), rtol=1e-3)


def test_students_learn_what_stands_for_the_classes_that_are_not_kept(root):
    store, rows = open_store(root / "store"), np.arange(12)
    classes, probabilities = store.targets(1, rows)
    rests = store.rests(1, rows)
    learnt = stored_views(store, 1, rows).targets(rows)
    np.testing.assert_array_equal(learnt, quality.dense(classes, probabilities, 8, rests))
    least = np.where(probabilities > 0, probabilities, 1).min(axis=1)
    left = 8 - (probabilities > 0).sum(axis=1)
    for tail, fill in (("zero", 0 * least), ("half", least / 2), ("mean", least / np.maximum(left, 1)),
                       ("uniform", 0 * least + 1 / 8)):  # fmt: skip
        np.testing.assert_allclose(
            stored_views(store, 1, rows, tail=tail).targets(rows),
            quality.dense(classes, probabilities, 8, fill.astype(np.float32)), rtol=1e-6,
        )  # fmt: skip
    drawn = dense_targets(classes, probabilities, 8, "random", clips=rows, view=1)
    kept = quality.dense(classes, probabilities, 8, None) > 0
    assert ((drawn < least[:, None]) | kept).all()
    assert (drawn[~kept] > 0).any()
    assert (balanced(store, 1, rows) > 0).all()


def test_a_fixed_number_of_classes_knows_no_rest(root):
    with inside(root):
        build(options(root, out=str(root / "fixed")))
    with pytest.raises(UsageError, match="--tail stored"):
        stored_views(open_store(root / "fixed"), 0, tail="stored")


def test_a_manifest_says_what_was_asked(root):
    attributes = msgspec.json.decode((root / "store" / "zarr.json").read_bytes())["attributes"]["logitstore"]
    assert (attributes["format_version"], attributes["quality"], attributes["topk"]) == (4, ASKED, 8)
