"""Plans, shares and weights: which views make the batches of an epoch."""

import hashlib

import numpy as np
import pyarrow as pa
import pytest

from logitstore import open_store
from logitstore.errors import QueryError, RunError, UsageError
from logitstore.training.sampling import order_generator, plan, share
from students.sampling import balanced, weighted_by
from students.targets import dense_targets
from tests.small_store import Spec, make_store


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """800 clips of 12 classes, each rarer than the one before it; clip 10 is unreadable."""
    spec = Spec(clips=800, shard_clips=128, view_ranges=((0, 2),), spread=4.0, skew=0.8)
    path = tmp_path_factory.mktemp("sampled") / "store"
    make_store(path, spec, quality=pa.array([None if clip == 3 else clip / 10 for clip in range(800)]))
    return open_store(path)


# plans


def same(batches, others):
    return len(batches) == len(others) and all(map(np.array_equal, batches, others))


def test_the_orders_of_earlier_releases_stay():
    batches = plan(100, 32, order_generator(3, 5))
    assert [len(batch) for batch in batches] == [25] * 4
    order = np.concatenate(batches)
    assert order[:8].tolist() == [62, 40, 78, 48, 30, 81, 42, 74]
    assert hashlib.blake2b(order.tobytes(), digest_size=8).hexdigest() == "8a8aa6be5fc6db5b"


@pytest.mark.parametrize(("views", "batch_size"), [(1, 32), (31, 32), (33, 32), (100, 7)])
def test_without_steps_every_view_comes_up_once_in_batches_of_nearly_one_size(views, batch_size):
    batches = plan(views, batch_size, order_generator(0, 0))
    sizes = [len(batch) for batch in batches]
    assert sorted(np.concatenate(batches).tolist()) == list(range(views))
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    assert len(batches) == -(-views // batch_size)


@pytest.mark.parametrize(("views", "steps"), [(100, 3), (100, 10), (5, 4), (32, 2)])
def test_with_steps_there_are_exactly_so_many_whole_batches(views, steps):
    batches = plan(views, 32, order_generator(0, 1), steps=steps)
    assert [len(batch) for batch in batches] == [32] * steps
    counts = np.bincount(np.concatenate(batches), minlength=views)
    assert counts.max() - counts.min() <= 1  # permutations one after the other
    assert same(batches, plan(views, 32, order_generator(0, 1), steps=steps))
    assert not np.array_equal(batches[0], plan(views, 32, order_generator(0, 2), steps=steps)[0])


def test_the_sum_of_large_weights_does_not_overflow():
    batches = plan(4, 2, order_generator(0, 0), weights=np.array([0, 1e308, 1e308, 0]), steps=20)
    assert set(np.concatenate(batches).tolist()) == {1, 2}


def test_weights_decide_how_often_a_view_is_drawn():
    weights = np.array([0.0, 1.0, 0.0, 4.0, 5.0, 0.0])
    batches = plan(6, 50, order_generator(0, 0), weights=weights, steps=400)
    assert [len(batch) for batch in batches] == [50] * 400
    rates = np.bincount(np.concatenate(batches), minlength=6) / 20_000
    assert rates == pytest.approx(weights / 10, abs=0.012)  # three standard deviations
    assert rates[weights == 0].tolist() == [0, 0, 0]
    without = plan(6, 4, order_generator(0, 0), weights=weights)
    assert [len(batch) for batch in without] == [3, 3]
    assert same(without, plan(6, 4, order_generator(0, 0), weights=weights))


# shares of several processes


@pytest.mark.parametrize("parts", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [1, 2, 7, 8, 32, 33])
def test_shares_are_disjoint_together_everything_and_keep_the_pairs_of_batch_mixup(count, parts):
    shares = [share(count, parts, part) for part in range(parts)]
    assert sorted(np.concatenate(shares).tolist()) == list(range(count))
    sizes = [len(own) for own in shares]
    assert max(sizes) - min(sizes) <= 2
    assert min(sizes) > 0 or count < 2 * parts - 1
    for own in shares:
        assert np.all(np.diff(own) > 0)
        assert np.array_equal(own[::-1], count - 1 - own)


# weights from what is stored


def dense(store, view, rows):
    classes, probabilities = store.targets(view, rows)
    return dense_targets(classes, probabilities, 12).astype(np.float64)


def test_balanced_weights_follow_their_formula_whatever_the_order_of_the_clips(store):
    rows = store.clips_of(1)[::-3]
    squares = dense(store, 1, rows) ** 2
    expected = (squares / np.maximum(squares.sum(axis=0), 1)).sum(axis=1)
    assert balanced(store, 1, rows) == pytest.approx(expected, rel=1e-12)


def test_balanced_draws_have_a_flatter_mass_of_classes(store):
    rows = store.clips_of(0)
    probabilities = dense(store, 0, rows)

    def mass(weights):
        return probabilities.T @ (weights / weights.sum())

    def uneven(weights):
        return np.std(mass(weights)) / np.mean(mass(weights))

    def evened(values):
        return (values / np.maximum(values.sum(axis=0), 1)).sum(axis=1)

    weights, plain = balanced(store, 0, rows), np.ones(len(rows))
    assert mass(plain).max() > 50 * mass(plain).min()  # the store is skewed
    assert mass(weights).min() > 10 * mass(plain).min()
    # as the module says: against no weights, p for p², and true labels
    found = [uneven(each) for each in (plain, weights, evened(probabilities), evened(probabilities > 0.5))]
    assert found == pytest.approx([0.97, 0.54, 0.62, 0.51], abs=0.01)
    drawn = np.concatenate(plan(len(rows), 32, order_generator(0, 0), weights=weights, steps=200))
    assert probabilities[drawn].mean(axis=0) == pytest.approx(mass(weights), rel=0.15)


def test_a_class_that_is_hardly_heard_draws_no_whole_share(store):
    rows = store.clips_of(0)
    squares = dense(store, 0, rows) ** 2
    mass = squares.sum(axis=0)
    assert mass.min() < 1 < 100 < mass.max()
    weights = balanced(store, 0, rows)
    assert weights.sum() == pytest.approx(np.minimum(mass, 1).sum())  # a share a class, at most
    assert weights.min() > 0


def test_weights_by_sql_come_in_the_order_of_the_clips(store):
    rows = store.clips_of(1)[::-7]
    table = store.sql("SELECT clip, entropy, top1_probability FROM views WHERE view = 1")
    entropy = dict(zip(table["clip"].to_pylist(), table["entropy"].to_pylist(), strict=True))
    assert weighted_by(store, 1, rows, "entropy").tolist() == [entropy[clip] for clip in rows]
    # columns of the clip table too, comments, and conditions
    assert weighted_by(store, 1, rows, "coalesce(quality, 1) * 2 -- twice").tolist() == [clip / 10 * 2 for clip in rows]
    assert weighted_by(store, 1, rows, "clip > 400").tolist() == [float(clip > 400) for clip in rows]


@pytest.mark.parametrize(
    ("sql", "error", "message"),
    [
        ("quality", RunError, r"is NULL or NaN for clip 3 \(folder/clip 000003\.wav\), and no weight for 1 of 799"),
        ("5 - clip", RunError, r"is -1 for clip 6 \(folder/clip 000006\.wav\), and no weight for 793 of 799 clips"),
        ("1e300 * exp(clip)", RunError, r"is inf for clip 20 "),
        (
            "0",
            RunError,
            r"is 0 for all 799 clips, from clip 0 \(folder/clip 000000\.wav\) on; some weights must be more",
        ),
        ("random()", RunError, r"--weight-by 'random\(\)' gives other weights every time"),
        ("entropyy", QueryError, r"--weight-by 'entropyy': SQL: Referenced column \"entropyy\" not found"),
        ("top1", QueryError, r"--weight-by 'top1': .*Could not convert"),
        ("getenv('HOME')", QueryError, r"the function getenv\(\) is not allowed"),
    ],
)
def test_what_cannot_be_a_weight_is_refused(store, sql, error, message):
    with pytest.raises(error, match=message) as caught:
        weighted_by(store, 0, store.clips_of(0), sql)
    assert "\n" not in str(caught.value)


def test_weights_of_a_clip_without_targets_are_refused(store):
    with pytest.raises(UsageError, match="clip 10 has no targets for view 1"):
        weighted_by(store, 1, [9, 10], "entropy")
