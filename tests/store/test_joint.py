"""Stores that heard the same views, read and merged as one ensemble."""

import pickle

import numpy as np
import pytest

from logitstore import open_store
from logitstore.errors import MismatchError, UsageError
from logitstore.jobs.build.job import build
from logitstore.jobs.merge import merge
from logitstore.jobs.options import MergeOptions, VerifyOptions
from logitstore.jobs.verify.job import verify
from logitstore.store.joint import FILL, Voice, joint_targets
from tests.small_store import Spec, make_store
from tests.stores import contents, inside, options, write_audio


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Stores of the same views by two teachers, by one other (all classes kept), and by all three at once."""
    root = tmp_path_factory.mktemp("joint")
    write_audio(root / "audio", 12)
    three = ["python:tones:plain", "python:tones:steep", "python:tones:reversed_classes"]
    with inside(root):
        build(options(root, out=str(root / "a"), teachers=three[:2], topk=8, value_bits=16))
        build(options(root, out=str(root / "b"), teachers=three[2:], topk=8, value_bits=16, like=str(root / "a")))
        build(options(root, out=str(root / "all"), teachers=three, topk=8, value_bits=16))
        build(options(root, out=str(root / "b5"), teachers=three[2:], topk=5, like=str(root / "a"), views=2))
        build(options(root, out=str(root / "seed"), teachers=three[2:], topk=8, seed=9))
        yield root


def merged(root, out, *stores, **more):
    asked = {"stores": [str(root / each) for each in stores], "ensemble": True, "out": str(out)}
    return merge(MergeOptions(**asked | more))


def test_with_all_classes_kept_they_say_what_a_build_of_all_teachers_does(root):
    both, at_once = open_store([root / "a", root / "b"]), open_store(root / "all")
    assert [each.digest for each in both.manifest.teachers] == [each.digest for each in at_once.manifest.teachers]
    for view in range(3):
        (mine, said), (theirs, wanted) = both.targets(view, range(12)), at_once.targets(view, range(12))
        dense = [np.zeros((12, 8)), np.zeros((12, 8))]
        np.put_along_axis(dense[0], mine.astype(int), said, 1)
        np.put_along_axis(dense[1], theirs.astype(int), wanted, 1)
        assert np.abs(dense[0] - dense[1]).max() < 1e-3
    assert both.sql("SELECT count(*) AS n FROM topk").to_pylist() == [{"n": 12 * 3 * 8}]
    again = pickle.loads(pickle.dumps(both))
    assert (again.targets(0, [3])[1] == both.targets(0, [3])[1]).all()


def test_a_merged_store_holds_what_is_read_and_is_made_once(root, tmp_path):
    assert merged(root, tmp_path / "m", "a", "b5").made_views == 24
    read, stored = open_store([root / "a", root / "b5"]), open_store(tmp_path / "m")
    assert stored.views == 2
    for view in range(2):
        for mine, theirs in zip(stored.targets(view, range(12)), read.targets(view, range(12)), strict=True):
            assert (mine == theirs).all()
    assert verify(VerifyOptions(store=str(tmp_path / "m"), audio_root=str(root / "audio"))).problems == ()
    before = contents(tmp_path / "m")
    min((tmp_path / "m" / "commits").iterdir()).unlink()
    assert merged(root, tmp_path / "m", "a", "b5").made_views == 16
    assert contents(tmp_path / "m") == before
    assert merged(root, tmp_path / "m", "a", "b5").made_views == 0


def test_a_store_merged_with_itself_is_itself(root, tmp_path):
    import shutil

    shutil.copytree(root / "b5", tmp_path / "twin")
    merged(root, tmp_path / "m", "b5", str(tmp_path / "twin"))
    one, two = open_store(root / "b5"), open_store(tmp_path / "m")
    for mine, theirs in zip(one.targets(0, range(12)), two.targets(0, range(12)), strict=True):
        assert (mine == theirs).all()


def test_the_order_of_stores_does_not_matter(root):
    one, other = open_store([root / "a", root / "b5"]), open_store([root / "b5", root / "a"])
    names = [store.manifest.classes for store in (one, other)]
    (mine, said), (theirs, wanted) = one.targets(1, range(12)), other.targets(1, range(12))
    here = [dict(zip([names[0][i] for i in row], p.tolist(), strict=True)) for row, p in zip(mine, said, strict=True)]
    there = [dict(zip([names[1][i] for i in r], p.tolist(), strict=True)) for r, p in zip(theirs, wanted, strict=True)]
    assert all(a[name] == pytest.approx(b[name], abs=1e-3) for a, b in zip(here, there, strict=True) for name in a)


def test_classes_that_a_store_did_not_keep_or_does_not_know():
    known = [
        Voice(np.array([0, 1, 2]), np.array([0.5, 0.5, 0.5, 0])),
        Voice(np.array([0, 1, 3]), np.array([0.5, 0.5, 0.5, 1])),
    ]
    known[0].share[2], known[1].share[2] = 1, 0
    said = [
        (np.array([[0]], np.uint16), np.array([[0.8]], np.float32)),
        (np.array([[2, 1]], np.uint16), np.array([[0.9, 0.4]], np.float32)),
    ]
    classes, probabilities = joint_targets(said, known, 3, "sigmoid", "probability")
    assert classes.tolist() == [[3, 0, 1]]
    assert probabilities[0] == pytest.approx([0.9, (0.8 + FILL * 0.4) / 2, (FILL * 0.8 + 0.4) / 2])


def test_stores_that_heard_otherwise_are_no_ensemble(root, tmp_path):
    with pytest.raises(MismatchError, match=r"did not hear the same views.*seed: 0 and 9"):
        merged(root, tmp_path / "m", "a", "seed")
    with pytest.raises(MismatchError, match=r"--store-weight is for stores that heard the same views.*seed"):
        open_store([root / "a", root / "seed"], weights=[1, 2])
    with inside(root):
        assert len(open_store([root / "b", root / "seed"])) == 24  # one after the other, as ever
    with pytest.raises(UsageError, match=r"say so with --ensemble"):
        merged(root, tmp_path / "m", "a", "b", ensemble=False)
    with pytest.raises(UsageError, match=r"1 store weights for 2 stores"):
        merged(root, tmp_path / "m", "a", "b", store_weights=[1.0])
    assert not (tmp_path / "m").exists()


def test_without_a_fingerprint_in_common_it_must_be_said(tmp_path):
    first, second = (make_store(tmp_path / name, Spec(clips=9, failed=())).path for name in "ab")
    with pytest.raises(MismatchError, match=r"no fingerprint in common .* give --store-weight"):
        open_store([first, second])
    assert len(open_store([first, second], weights=[1, 1])) == 9


def test_weights_are_shares(root):
    heavy = open_store([root / "a", root / "b"], weights=[1e9, 1])
    alone = open_store(root / "a")
    assert np.abs(heavy.targets(0, range(12))[1] - alone.targets(0, range(12))[1]).max() < 1e-3
