"""A store at a glance: every count is what a slow and plain count gives, block by block and over several stores."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from logitstore import open_store
from logitstore.store.look import BINS, look
from logitstore.views.recipe import NONE
from tests.small_store import Made, Spec, make_store


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Made:
    spec = Spec(keep_members=True, view_ranges=((0, 2), (2, 5)), spread=0.7, skip_blocks=("000003-2-5",))
    return make_store(tmp_path_factory.mktemp("look") / "store", spec)


def plain(made: Made) -> dict[int, tuple[list[int], list[float], int]]:
    """By clip: the first class and probability of each of its views, and its own answer."""
    found = {}
    for clip in np.flatnonzero(made.readable).tolist():
        views = range(2 if clip // 8 == 3 else 5)
        total = np.zeros(len(made.names))
        for view in views:
            total[made.classes[clip, view]] += made.probabilities[clip, view]
        first = [int(made.classes[clip, view, 0]) for view in views]
        found[clip] = first, [float(made.probabilities[clip, view, 0]) for view in views], int(total.argmax())
    return found


def test_counts_are_those_of_a_plain_count(made):
    found, clips = look(open_store(made.path)), plain(made)
    first = Counter(name for said, _, _ in clips.values() for name in said)
    own = Counter(answer for _, _, answer in clips.values())
    assert [(each.name, each.views, each.clips) for each in found.commonest] == [
        (made.names[name], count, own[name])
        for name, count in sorted(first.items(), key=lambda one: (-one[1], one[0]))[:10]
    ]
    assert found.classes_first == len(first)
    sure = {
        name: [p for said, ps, _ in clips.values() for at, p in zip(said, ps, strict=True) if at == name]
        for name in first
    }
    for each in found.commonest:
        assert each.probability == pytest.approx(np.mean(sure[made.names.index(each.name)]), rel=1e-5)
    kept = sum(name == answer for said, _, answer in clips.values() for name in said)
    assert 0.3 < kept / sum(first.values()) < 1
    assert found.kept == pytest.approx(kept / sum(first.values()))
    assert found.hours == pytest.approx(36 / 3600)
    assert found.summary.stored_views == sum(found.top1.counts) == sum(found.entropy.counts) == sum(first.values())


def test_histograms_hold_the_values_that_sql_shows(made):
    store = open_store(made.path)
    found = look(store)
    rows = store.sql("SELECT top1_probability::DOUBLE AS p, entropy FROM views").to_pydict()
    for histogram, values in ((found.top1, rows["p"]), (found.entropy, rows["entropy"])):
        wanted, _ = np.histogram(values, bins=BINS, range=(histogram.low, histogram.high))
        assert sum(histogram.counts) == len(values)
        assert np.abs(np.array(histogram.counts) - wanted).sum() <= 2  # values on the edge of a bin
        assert histogram.median == pytest.approx(np.median(values), abs=0.01)
        assert max(values) <= histogram.high
    assert found.top1.high == 1


def test_the_oddest_clips_are_the_oddest(made):
    store = open_store(made.path)
    found, clips = look(store), plain(made)
    rows = store.sql("SELECT clip, avg(entropy) AS e FROM views GROUP BY clip ORDER BY e DESC LIMIT 3").to_pylist()
    assert [each.clip for each in found.uncertain] == [row["clip"] for row in rows]
    assert [each.value for each in found.uncertain] == pytest.approx([row["e"] for row in rows], rel=1e-4)
    shares = {clip: (np.mean([name == own for name in said]), -np.mean(p)) for clip, (said, p, own) in clips.items()}
    wanted = sorted(clips, key=lambda clip: (*shares[clip], clip))[:3]
    assert [each.clip for each in found.torn] == wanted
    for each in found.torn:
        said, _, own = clips[each.clip]
        assert each.value == pytest.approx(shares[each.clip][0])
        assert each.path == f"folder/clip {each.clip:06d}.wav"
        assert each.answers[0] == made.names[own]
        assert set(each.answers) == {made.names[name] for name in {own, *said}}


def test_members_that_disagree_are_found(made):
    found = look(open_store(made.path))

    def nats(p):
        return -(p * np.log(p) + (1 - p) * np.log(1 - p))

    said = np.clip(made.members.astype(np.float64), 1e-9, 1 - 1e-9)  # (M, N, V, k); 0 where nothing is stored
    apart = (nats(said.mean(axis=0)) - nats(said).mean(axis=0)).sum(axis=-1)
    by_clip = {
        clip: apart[clip, : 2 if clip // 8 == 3 else 5].mean() for clip in np.flatnonzero(made.readable).tolist()
    }
    wanted = sorted(by_clip, key=lambda clip: -by_clip[clip])[:3]
    assert [each.clip for each in found.disputed] == wanted
    assert [each.value for each in found.disputed] == pytest.approx([by_clip[clip] for clip in wanted], rel=1e-3)


def test_survival_counts_views_by_how_much_each_op_did(made):
    store = open_store(made.path)
    found, clips = look(store), plain(made)
    assert [each.op for each in found.survival] == ["roll", "time_mask", "frequency_mask"]
    mask = found.survival[1]
    assert (mask.most, mask.unit) == (1.91, "s")
    steps = {step: [0, 0] for step in range(5)}
    for clip, (said, _, own) in clips.items():
        for view, name in enumerate(said):
            step = int(np.ceil(4 * made.draws["time_length"][clip, view] / 191))
            steps[step][0] += 1
            steps[step][1] += name == own
    assert mask.views == tuple(views for views, _ in steps.values())
    assert mask.kept == pytest.approx(tuple(kept / views if views else None for views, kept in steps.values()))
    assert all(sum(each.views) == sum(mask.views) for each in found.survival)


def test_a_store_of_one_view_without_ops_or_members_has_less_to_say(tmp_path):
    found = look(open_store(make_store(tmp_path / "store", Spec(view_ranges=((0, 1),), recipe=NONE)).path))
    assert (found.kept, found.survival, found.torn, found.disputed) == (None, (), (), None)
    assert len(found.uncertain) == 3


def test_a_store_without_blocks_is_looked_at_too(tmp_path):
    spec = Spec(skip_blocks=tuple(f"00000{i}-0-3" for i in range(5)))
    found = look(open_store(make_store(tmp_path / "store", spec).path))
    assert (found.commonest, found.kept, found.top1.median, found.uncertain) == ((), None, None, ())
    assert found._repr_html_().startswith("<div")


def test_several_stores_are_looked_at_as_one(tmp_path):
    first = make_store(tmp_path / "a", Spec(clips=13)).path
    second = make_store(tmp_path / "b", Spec(clips=11, seed=4, failed=())).path
    both, alone = look(open_store([first, second])), [look(open_store(each)) for each in (first, second)]
    assert sum(both.top1.counts) == sum(sum(each.top1.counts) for each in alone)
    least = sorted((-each.value, each.clip + 13 * at) for at, one in enumerate(alone) for each in one.uncertain)[:3]
    assert [each.clip for each in both.uncertain] == [clip for _, clip in least]


def test_softmax_entropies_are_those_of_sql(tmp_path):
    store = open_store(make_store(tmp_path / "store", Spec(scores="softmax", keep_members=True)).path)
    found = look(store)
    (row,) = store.sql("SELECT median(entropy) AS e FROM views").to_pylist()
    assert found.entropy.median == pytest.approx(row["e"], abs=0.01)
    assert all(each.value >= 0 for each in found.disputed)


def test_questions_say_the_same(made):
    store = open_store(made.path)
    found = look(store)
    survival = store.sql("@survival").to_pylist()
    assert found.kept == pytest.approx(survival[0]["kept"], abs=1e-4)
    nothing = {row["op"]: (row["views"], row["kept"]) for row in survival if row["acted"] == "did not act"}
    for each in found.survival:
        views, kept = nothing.get(each.op, (0, None))
        assert each.views[0] == views
        assert each.kept[0] == (None if kept is None else pytest.approx(kept, abs=1e-4))
    by_clip = {row["clip"]: row for row in store.sql("@measures").to_pylist()}
    assert {each.clip: by_clip[each.clip]["kept"] for each in found.torn} == {
        each.clip: pytest.approx(each.value, abs=1e-3) for each in found.torn
    }
    assert all(by_clip[each.clip]["answer"] == each.answers[0] for each in (*found.torn, *found.uncertain))
    apart = {row["clip"]: row["member_disagreement"] for row in store.sql("@member_measures").to_pylist()}
    assert [each.clip for each in found.disputed] == sorted(apart, key=lambda clip: -apart[clip])[:3]


def test_members_are_as_far_apart_as_sql_says_whatever_they_weigh(tmp_path):
    store = open_store(make_store(tmp_path / "store", Spec(keep_members=True, weights=(0.9, 0.1))).path)
    apart = store.sql(
        "SELECT clip, avg(total) AS nats FROM (SELECT clip, view, sum(disagreement) AS total FROM topk GROUP BY ALL) "
        "GROUP BY clip ORDER BY nats DESC LIMIT 3"
    ).to_pylist()
    assert [(each.clip, each.value) for each in look(store).disputed] == [
        (row["clip"], pytest.approx(row["nats"], rel=1e-5)) for row in apart
    ]
