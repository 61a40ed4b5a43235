"""Stores with a quality: what a view may lose is held, and every reader sees as many classes as a view keeps."""

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logitstore import open_store
from logitstore.errors import CorruptStoreError, MismatchError
from logitstore.jobs.options import VerifyOptions
from logitstore.jobs.verify.job import verify
from logitstore.queries import questions
from logitstore.store.format import layout, quality
from logitstore.store.format.codec import quantizer
from logitstore.store.format.commits import decode, encode
from logitstore.store.look import look
from logitstore.store.measures import jensen_shannon
from logitstore.store.pieces import Pieces
from logitstore.store.summary import summarise
from tests.small_store import Spec, make_store

SPEC = Spec(quality=0.1, topk=12, view_ranges=((0, 2), (2, 3)), keep_members=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    labels = pa.array([f"class {number % 12}" for number in range(37)])
    return make_store(tmp_path_factory.mktemp("quality") / "store", SPEC, label=labels)


def said(seed: int, views: int, classes: int, scores: str) -> np.ndarray:
    """What an ensemble may say: some views are sure, some are not, and some classes are impossible."""
    random = np.random.default_rng(seed)
    logits = random.normal(-4, 3, (views, classes)) * random.uniform(0.2, 2, (views, 1))
    if scores == "sigmoid":
        logits[random.random(logits.shape) < 0.1] = -200
        return (1 / (1 + np.exp(-logits))).astype(np.float32)
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (p / p.sum(axis=1, keepdims=True)).astype(np.float32)


def read_back(found: quality.Answers, chosen: quality.Chosen, classes: int, scores: str) -> np.ndarray:
    used = np.arange(found.classes.shape[1]) < chosen.counts[:, None]
    labels = np.where(used, found.classes, classes)
    return quality.dense(
        labels, quantizer(scores, 8).table()[chosen.codes], classes, quality.REST.table()[chosen.rests]
    )


@pytest.mark.parametrize("scores", ["sigmoid", "softmax"])
@pytest.mark.parametrize("classes", [1, 2, 10, 60])
def test_what_is_lost_is_what_was_asked_or_less(scores, classes):
    exact, kept = said(classes, 300, classes, scores), []
    found = quality.answers(exact, classes, scores)
    for asked in (0.005, 0.02, 0.1, 0.5, 3.0):
        chosen = quality.choose(found, asked, scores, classes, np.ones(300, bool))
        lost = quality.loss(exact, read_back(found, chosen, classes, scores), scores).mean()
        assert lost <= asked * (1 + 1e-5)
        assert lost == pytest.approx(chosen.loss, rel=1e-4, abs=1e-6)
        assert 1 <= chosen.counts.min() <= chosen.counts.max() <= classes
        kept.append(chosen.counts.mean())
    assert kept == sorted(kept, reverse=True) or classes < 10  # bits are traded for classes, so not to the last view


def test_a_bound_that_costs_more_than_what_is_asked_is_told():
    exact = said(1, 300, 60, "sigmoid")
    found = quality.answers(exact, 3, "sigmoid")
    best = quality.choose(found, 1e-3, "sigmoid", 60, np.ones(300, bool)).loss
    chosen = quality.choose(found, 0.1, "sigmoid", 60, np.ones(300, bool))
    assert 0.1 < chosen.loss <= best + 0.05
    lost = quality.loss(exact, read_back(found, chosen, 60, "sigmoid"), "sigmoid").mean()
    assert lost == pytest.approx(chosen.loss, rel=1e-4)


def test_views_that_failed_decide_nothing():
    exact = said(2, 100, 10, "sigmoid")
    readable = np.arange(100) % 3 > 0
    alone = quality.choose(quality.answers(exact[readable], 10, "sigmoid"), 0.1, "sigmoid", 10, np.ones(66, bool))
    among = quality.choose(quality.answers(exact, 10, "sigmoid"), 0.1, "sigmoid", 10, readable)
    assert (among.counts[readable] == alone.counts).all()
    assert (among.bits, among.loss) == (alone.bits, alone.loss)


@pytest.mark.parametrize("total", [1 - 1e-4, 1 + 1e-4, 0.6])
def test_softmax_answers_that_do_not_sum_to_1_lose_what_their_shares_lose(total):
    """Rounding, and classes that were left out; what is lost is never less than nothing, so that it can be stored."""
    exact = np.random.default_rng(0).dirichlet(np.full(9, 0.4), 50).astype(np.float32) * np.float32(total)
    for asked in (0.001, 0.05):
        found = quality.answers(exact, 9, "softmax")
        chosen = quality.choose(found, asked, "softmax", 9, np.ones(50, bool))
        lost = quality.loss(exact, read_back(found, chosen, 9, "softmax"), "softmax")
        assert (lost > -1e-6).all()
        assert 0 <= chosen.loss == pytest.approx(lost.mean(), abs=1e-5)
        assert chosen.loss <= asked or chosen.bits == 8


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(1, 9),
    views=st.integers(1, 19),
    classes=st.integers(1, 700),
    k=st.integers(1, 25),
    bits=st.sampled_from(quality.BITS),
)
def test_targets_survive(seed, rows, views, classes, k, bits):
    random, k = np.random.default_rng(seed), min(k, classes)
    readable = random.random(rows) > 0.2
    counts = np.where(readable[:, None], random.integers(1, k + 1, (rows, views)), 0).astype(np.uint16)
    used = np.arange(k) < counts[:, :, None]
    labels = random.permuted(np.tile(np.arange(classes), (rows, views, 1)), axis=2)[..., :k]
    codes = np.where(used, quality.fine(random.integers(0, 1 << bits, used.shape).astype(np.uint16), bits), 0)
    labels = np.where(used, labels, np.where(readable, classes, 0)[:, None, None])
    order = np.lexsort((labels, -codes.astype(np.int64), ~used), axis=-1)
    labels, codes = (np.take_along_axis(each, order, -1).astype(np.uint16) for each in (labels, codes))
    rests = np.where(readable[:, None], random.integers(0, quality.REST.cells, (rows, views)), 0).astype(np.uint8)
    targets = layout.Targets(labels, codes, readable, layout.Kept(counts, rests, bits))
    members = np.where(used, random.integers(0, 256, (2, *used.shape)), 0).astype(np.uint16)
    arrays = layout.encode_targets(targets, classes, 1, members, version=4)
    back, heard = layout.decode_block(arrays, rows, views, k, classes, 4, bits)
    for name in ("classes", "codes", "readable"):
        np.testing.assert_array_equal(getattr(back, name), getattr(targets, name))
    np.testing.assert_array_equal(back.kept.counts, counts)
    np.testing.assert_array_equal(back.kept.rests, rests)
    np.testing.assert_array_equal(heard, members)


def test_a_store_gives_back_what_each_view_keeps(made):
    store = open_store(made.path)
    assert store.manifest.format_version == 4
    most = int((made.classes < 12).sum(axis=2)[made.readable].max())
    assert store.k == most < 12
    for view in range(3):
        rows = np.random.default_rng(view).permutation(np.flatnonzero(made.readable))
        classes, probabilities = store.targets(view, rows)
        np.testing.assert_array_equal(classes, made.classes[rows, view, :most])
        np.testing.assert_array_equal(probabilities, made.probabilities[rows, view, :most])
        np.testing.assert_array_equal(store.rests(view, rows), made.rests[rows, view])
        lost = quality.loss(
            made.exact[rows, view], quality.dense(classes, probabilities, 12, store.rests(view, rows)), "sigmoid"
        )
        assert lost.mean() < 0.2
    for commit in store.commits:
        rows, views = (
            slice(commit.first_clip, commit.first_clip + commit.clips),
            slice(commit.view_start, commit.view_stop),
        )
        np.testing.assert_array_equal(store.block_targets(commit)[0], made.classes[rows, views, :most])
        np.testing.assert_array_equal(store.block_rests(commit), made.rests[rows, views])
        np.testing.assert_array_equal(store.block_members(commit), made.members[:, rows, views, :most])


def test_what_was_lost_is_told_and_is_what_was_asked(made):
    store = open_store(made.path)
    kept = summarise(store).kept
    assert (kept.asked, kept.most) == (0.1, store.k)
    assert 0.05 < kept.lost <= 0.1
    whole = np.concatenate([
        quality.loss(made.exact[rows, view],
                     quality.dense(*store.targets(view, rows), 12, store.rests(view, rows)), "sigmoid")
        for view in range(3) for rows in [store.clips_of(view)]
    ])  # fmt: skip
    assert whole.mean() == pytest.approx(kept.lost, rel=1e-4)
    assert "nats a view lost, 0.1 asked" in dict(summarise(store).lines())["targets"]


def test_sql_has_a_row_for_each_class_that_is_kept(made):
    store = open_store(made.path)
    used = made.classes < 12
    used[~made.readable] = False
    rows = store.sql("FROM topk ORDER BY clip, view, rank").to_pylist()
    assert len(rows) == used.sum()
    clip, _, place = np.nonzero(used)
    assert [row["clip"] for row in rows] == clip.tolist()
    assert [row["rank"] for row in rows] == (place + 1).tolist()
    assert [row["class_index"] for row in rows] == made.classes[used].tolist()
    assert [row["probability"] for row in rows] == made.probabilities[used].tolist()
    counted = {
        row["class"]: row["n"] for row in store.sql("SELECT class, count(*) n FROM topk GROUP BY class").to_pylist()
    }
    assert counted == {f"class {at}": n for at, n in enumerate(np.bincount(made.classes[used], minlength=12)) if n}
    views = store.sql("SELECT kept_classes, rest_probability, entropy FROM views ORDER BY clip, view").to_pylist()
    assert [row["kept_classes"] for row in views] == used.sum(axis=2)[made.readable].reshape(-1).tolist()
    assert [row["rest_probability"] for row in views] == made.rests[made.readable].reshape(-1).tolist()
    p = quality.dense(made.classes[0, :1].astype(int), made.probabilities[0, :1], 12, made.rests[0, :1]).astype(
        np.float64
    )
    assert views[0]["entropy"] == pytest.approx(float(-(p * np.log(p) + (1 - p) * np.log(1 - p)).sum()), rel=1e-5)
    members = store.sql("SELECT count(*) n, min(probability) least FROM members").to_pylist()[0]
    assert members["n"] == 2 * used.sum()
    assert members["least"] > 0
    answers = store.sql("SELECT * FROM answers WHERE clip = 3 ORDER BY rank").to_pylist()
    dense = quality.dense(made.classes[3], made.probabilities[3], 12, made.rests[3])
    named = sorted(set(made.classes[3][used[3]].tolist()))
    assert sorted(row["class_index"] for row in answers) == named
    apart = jensen_shannon(dense, [1 / len(dense)] * len(dense), "sigmoid")
    for row in answers:
        assert row["probability"] == pytest.approx(dense.mean(axis=0)[row["class_index"]], rel=1e-5)
        assert row["disagreement"] == pytest.approx(apart[row["class_index"]], abs=1e-6)
    assert [row["probability"] for row in answers] == sorted((row["probability"] for row in answers), reverse=True)
    mean = store[3].mean.probabilities
    assert mean == pytest.approx(np.sort(dense.mean(axis=0)[named])[::-1][: len(mean)], rel=1e-5)


def test_every_question_and_look_can_be_asked(made):
    store = open_store(made.path)
    asked = [
        name for name, each in questions().items() if not {"verdicts", "levels", "labels", "frames"} & set(each.needs)
    ]
    assert len(asked) > 15
    for name in asked:
        store.sql(f"@{name}")
    assert look(store).kept is not None


def test_verify_finds_it_sound_and_a_commit_that_says_otherwise_wrong(made, tmp_path):
    import shutil

    assert verify(VerifyOptions(store=str(made.path))).problems == ()
    shutil.copytree(made.path, tmp_path / "store")
    file = tmp_path / "store" / "commits" / "000000-0-2.json"
    commit = decode(file.read_bytes(), file.name)
    for wrong in ({"most": 12}, {"bits": 8}):
        file.write_bytes(encode(msgspec.structs.replace(commit, kept=msgspec.structs.replace(commit.kept, **wrong))))
        assert verify(VerifyOptions(store=str(tmp_path / "store"))).problems
    file.write_bytes(encode(msgspec.structs.replace(commit, kept=msgspec.UNSET)))
    with pytest.raises(CorruptStoreError, match=r"lacks kept, and the store has a quality of 0\.1 nats"):
        open_store(tmp_path / "store").targets(0, [0])


def test_stores_with_a_quality_and_without_are_not_read_as_one(made, tmp_path):
    other = make_store(tmp_path / "fixed", Spec(topk=12))
    with pytest.raises(MismatchError, match=r"quality: 0\.1 and None"):
        Pieces([*open_store(made.path).pieces, *open_store(other.path).pieces])
    with pytest.raises(MismatchError, match="build a store with --quality"):
        open_store(other.path).rests(0, [0])


def test_stores_of_two_qualities_are_read_one_after_the_other(made, tmp_path):
    other = make_store(tmp_path / "other", Spec(topk=9, quality=0.01, seed=5, clips=11))
    both = Pieces([*open_store(made.path).pieces, *open_store(other.path).pieces])
    rows = np.array([40, 3, 37])
    classes, probabilities = both.targets(1, rows)
    one, two = made.classes[3, 1], other.classes[[3, 0], 1]
    used = [int((each < 12).sum()) for each in (two[0], one, two[1])]
    assert [int((probabilities[at] > 0).sum()) for at in range(3)] == used
    assert classes[1, : used[1]].tolist() == one[: used[1]].tolist()
    assert (classes[probabilities == 0] == 12).all()
    assert summarise(both).kept.asked == [0.1, 0.01]
    assert len(both.commits) == len(open_store(made.path).commits) + len(open_store(other.path).commits)
