"""What the questions answer, against what was written into a store, reckoned with NumPy."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import soundfile

from logitstore import open_store
from logitstore.errors import MismatchError, QueryError
from logitstore.queries import cookbook, parse
from logitstore.views.recipe import NONE
from tests.small_store import RATE, Spec, make_store

LABELS = [None if clip == 20 else ["a;b", "b", "c", ""][clip % 4] for clip in range(37)]


def spec(scores="sigmoid", **changes):
    return Spec(scores=scores, keep_members=True, view_ranges=((0, 2), (2, 3)), **changes)


@pytest.fixture(scope="module", params=["sigmoid", "softmax"])
def kept(request, tmp_path_factory):
    """A store with members, what was written into it, and its kind of scores."""
    made = make_store(tmp_path_factory.mktemp(request.param) / "kept", spec(request.param), label=LABELS)
    return open_store(made.path), made, request.param


def asked(store, name, **values):
    return store.sql(f"@{name}", values).to_pylist()


def means(made):
    """Mean probability of every class over a clip's views: (clips, classes), 0 where it is not stored."""
    total = np.zeros((len(made.classes), len(made.names)))
    for view in range(made.classes.shape[1]):
        rows = np.arange(len(total))[:, None]
        np.add.at(total, (rows, made.classes[:, view].astype(int)), made.probabilities[:, view].astype(float))
    return total / made.classes.shape[1]


def entropy(p, scores):
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.nan_to_num(-p * np.log(p))
        return terms + np.nan_to_num(-(1 - p) * np.log1p(-p)) if scores == "sigmoid" else terms


def apart(shares, scores):
    """Jensen-Shannon divergence by class of distributions (M, …), equally weighted."""
    return entropy(shares.mean(axis=0), scores) - entropy(shares, scores).mean(axis=0)


def test_measures_are_those_of_numpy(kept):
    store, made, scores = kept
    rows = asked(store, "measures")
    assert [row["clip"] for row in rows] == np.flatnonzero(made.readable).tolist()
    mean = means(made)
    dense = np.zeros((3, *mean.shape))
    for view in range(3):
        np.put_along_axis(dense[view], made.classes[:, view].astype(int), made.probabilities[:, view].astype(float), 1)
    divergence = apart(dense, scores).sum(axis=1)
    of_views = entropy(made.probabilities.astype(float), scores).sum(axis=2)
    for row in rows:
        clip = row["clip"]
        first = made.classes[clip, :, 0]
        assert row["answer"] == made.names[mean[clip].argmax()]
        assert row["confidence"] == pytest.approx(mean[clip].max(), abs=1e-4)
        assert row["entropy"] == pytest.approx(of_views[clip].mean(), abs=1e-3)
        assert row["spread"] == pytest.approx(np.ptp(of_views[clip]), abs=1e-3)
        assert row["answers"] == len(set(first.tolist()))
        assert row["kept"] == pytest.approx((first == mean[clip].argmax()).mean(), abs=1e-3)
        assert row["view_disagreement"] == pytest.approx(divergence[clip], abs=1e-3)
    worst = asked(store, "view_disagreement", limit=3)
    np.testing.assert_allclose(
        [row["view_disagreement"] for row in worst], np.sort(divergence[made.readable])[::-1][:3], atol=1e-3
    )
    assert all(row["kept"] <= row["views"] == 3 and row["other"] != row["mostly"] for row in worst)


def test_members_disagree_by_jensen_and_shannon(kept):
    store, made, scores = kept
    said = made.members.astype(float)
    by_class = apart(said, scores)  # (N, V, k)
    by_view = by_class.sum(axis=2)
    rows = {row["clip"]: row for row in asked(store, "member_measures")}
    assert set(rows) == set(np.flatnonzero(made.readable).tolist())
    for clip, row in rows.items():
        assert row["member_disagreement"] == pytest.approx(by_view[clip].mean(), abs=1e-4)
        assert row["largest"] == pytest.approx(by_view[clip].max(), abs=1e-4)
    ranked = asked(store, "disputed_clips", limit=4)
    np.testing.assert_allclose(
        [row["member_disagreement"] for row in ranked],
        np.sort(by_view[made.readable].mean(axis=1))[::-1][:4], atol=1e-4,
    )  # fmt: skip
    for row in asked(store, "member_disagreement"):
        of = (made.classes == made.names.index(row["class"])) & made.readable[:, None, None]
        assert row["views"] == of.sum()
        assert row["disagreement"] == pytest.approx(by_class[of].mean(), abs=1e-5)
        assert row["mean_difference"] == pytest.approx(np.ptp(said, axis=0)[of].mean(), abs=1e-4)


def test_what_k_cut_off(kept):
    store, made, scores = kept
    p = made.probabilities[made.readable].astype(float)
    rows = asked(store, "topk_tail", least=0.1)
    whole = p.sum(axis=2).mean() if scores == "sigmoid" else 1.0
    for k, row in enumerate(rows, 1):
        upto = p[..., :k].sum(axis=2).mean()
        assert row["k"] == k
        assert row["last"] == pytest.approx(p[..., k - 1].mean(), abs=1e-4)
        assert row["still_matters"] == pytest.approx((p[..., k - 1] >= 0.1).mean(), abs=1e-3)
        assert row["kept"] == pytest.approx(upto, abs=1e-3)
        assert row["left_out"] == pytest.approx(max(0.0, whole - upto), abs=1e-3)
    assert len(rows) == 5


def test_survival_counts_the_views_that_keep_the_answer(kept):
    store, made, _ = kept
    keeps = (made.classes[:, :, 0] == means(made).argmax(axis=1)[:, None])[made.readable]
    first, *rest = asked(store, "survival")
    assert (first["op"], first["views"]) == ("all views", keeps.size)
    assert first["kept"] == pytest.approx(keeps.mean(), abs=1e-3)
    assert {row["op"] for row in rest} == {"roll", "time_mask", "frequency_mask"}
    for op, drawn in (("time_mask", "time_length"), ("roll", "roll")):
        acted = made.draws[drawn][made.readable] != 0
        rows = [row for row in rest if row["op"] == op]
        assert sum(row["views"] for row in rows) == keeps.size
        idle = [row for row in rows if row["acted"] == "did not act"]
        assert sum(row["views"] for row in idle) == (~acted).sum()
        share = sum(row["views"] * row["kept"] for row in rows if row["acted"] == "acted") / acted.sum()
        assert share == pytest.approx(keeps[acted].mean(), abs=1e-3)
    rolled = np.abs(made.draws["roll"][made.readable]).max() / RATE
    assert max(row["at_most"] or 0 for row in rest if row["op"] == "roll") == pytest.approx(rolled, abs=1e-3)


def test_draws_stand_beside_what_the_recipe_allows(kept):
    store, *_ = kept
    rows = {row["parameter"]: row for row in asked(store, "draws")}
    assert rows["roll_samples"]["op"] == "roll"
    assert (rows["roll_samples"]["allowed_from"], rows["roll_samples"]["allowed_to"]) == (-RATE, RATE)
    assert rows["freq_high_hz"]["allowed_to"] == pytest.approx(8000)
    assert rows["time_end_ms"]["allowed_to"] == 2000
    assert all(row["allowed_from"] <= row["lowest"] <= row["highest"] <= row["allowed_to"] for row in rows.values())


def test_classes_are_counted_in_hours_pairs_and_subsets(kept):
    store, made, _ = kept
    mean = means(made)
    readable = np.flatnonzero(made.readable)
    answers = mean[readable].argmax(axis=1)
    for row in asked(store, "hours", least=0.2):
        number = made.names.index(row["class"])
        assert row["clips"] == (answers == number).sum()
        assert row["heard"] == (mean[readable, number] >= 0.2).sum()
        assert row["hours"] == pytest.approx(row["clips"] / 3600, abs=1e-4)  # a clip lasts 1 s
        assert row["expected_hours"] == pytest.approx(mean[readable, number].sum() / 3600, abs=1e-4)
    heard = mean[readable] >= 0.1
    for row in asked(store, "cooccurrence"):
        one, other = heard[:, made.names.index(row["class"])], heard[:, made.names.index(row["other"])]
        assert (row["clips"], row["of_class"], row["of_other"]) == ((one & other).sum(), one.sum(), other.sum())
        assert row["lift"] == pytest.approx((one & other).mean() / (one.mean() * other.mean()), abs=1e-2)
    subset = asked(store, "balanced", clips=2)
    counts = {name: (answers == number).sum() for number, name in enumerate(made.names)}
    taken = [row["class"] for row in subset]
    assert {name: taken.count(name) for name in taken} == {name: min(2, n) for name, n in counts.items() if n}
    assert all(row["class"] == made.names[mean[row["clip"]].argmax()] for row in subset)


def test_near_duplicates_are_found(tmp_path, kept):
    """Two stores that are read as one, and say the same of the first 32 clips of either."""
    _, _, scores = kept
    made = make_store(tmp_path / "one", Spec(scores=scores, failed=()))
    store = open_store([made.path, make_store(tmp_path / "two", Spec(scores=scores, failed=(), clips=35)).path])
    rows = asked(store, "near_duplicates", limit=200)
    assert {(clip, clip + 37) for clip in range(32)} <= {(row["clip"], row["other"]) for row in rows[:32]}
    root = np.sqrt(means(made))
    for row in rows[:32]:
        assert row["distance"] == pytest.approx(0, abs=1e-3)
    for row in rows[32:]:
        one, other = root[row["clip"] % 37], root[row["other"] % 37]
        if row["other"] < 37 + 32:  # beyond, the second store's clips are others
            assert row["distance"] == pytest.approx(np.sqrt(np.square(one - other).sum() / 2), abs=1e-3)


def test_labels_are_read_in_every_form(tmp_path):
    forms = {
        "text": LABELS,
        "listed": [None if label is None else [each for each in label.split(";") if each] for label in LABELS],
        "printed": [None if label is None else str([each for each in label.split(";") if each]) for label in LABELS],
        "barred": [None if label is None else label.replace(";", " | ") for label in LABELS],
    }
    made = make_store(tmp_path / "store", spec(), **forms)
    store = open_store(made.path)
    found = [asked(store, "labels", label=form, **({"separator": "|"} if form == "barred" else {})) for form in forms]
    assert all(each == found[0] for each in found)
    own = [set(filter(None, (label or "").split(";"))) for label in LABELS]
    for row in found[0]:
        clips = [clip for clip, labels in enumerate(own) if row["label"] in labels]
        assert row["clips"] == len(clips)
        assert row["without_targets"] == sum(not made.readable[clip] for clip in clips)
        answers = means(made).argmax(axis=1)[[clip for clip in clips if made.readable[clip]]]
        most = np.bincount(answers).max()
        assert row["share"] == pytest.approx(most / len(answers), abs=1e-3)
    subset = asked(store, "balanced_labels", label="listed", clips=3)
    held = [set(row["labels"].split("; ")) for row in subset]
    assert all(sum(label in each for each in held) >= 1 for label in "abc")
    assert len(subset) == len({row["clip"] for row in subset}) <= 9


def test_a_column_is_looked_for_in_the_clip_table(kept):
    store, *_ = kept
    assert asked(store, "labels", label="LABEL") == asked(store, "labels")
    with pytest.raises(QueryError, match=r"the column 'lable' of clips .*\(did you mean label\?\); the columns"):
        asked(store, "labels", label="lable")
    with pytest.raises(QueryError, match="the columns are clip, path, start, length, rate, label; give one with -p"):
        asked(store, "labels", label='label" FROM clips; DROP TABLE clips; --')
    found = parse("mine", '-- Mine?\n-- "$column" = label: a column\nSELECT max("$column") FROM clips')
    assert found.parameters[0].column
    assert found.bound({"column": 'a"b'}, lambda: ['a"b'])[0] == 'SELECT max("a""b") FROM clips'


@pytest.mark.parametrize("own_classes", [True, False], ids=["own classes", "other words"])
def test_wrong_labels_come_first(tmp_path, own_classes):
    """Labels by the likeliest class, under its name or another, a few of them wrong."""
    chosen = Spec(clips=80, spread=3.0, failed=(), classes=4, topk=4)
    answers = means(make_store(tmp_path / "plain", chosen)).argmax(axis=1)
    labels = [f"class {answer}" if own_classes else "abcd"[answer] for answer in answers]
    names, wrong = sorted(set(labels)), [5, 33, 71]
    for clip in wrong:
        labels[clip] = next(name for name in names if name != labels[clip])
    store = open_store(make_store(tmp_path / "store", chosen, label=labels).path)
    rows = asked(store, "label_errors", limit=80)
    assert len(rows) == 80
    assert {row["clip"] for row in rows[:3]} == set(wrong)
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    right = [f"class {answers[row['clip']]}" if own_classes else "abcd"[answers[row["clip"]]] for row in rows[:3]]
    assert [row["suggested"] for row in rows[:3]] == right
    assert all(row["answer"] == f"class {answers[row['clip']]}" for row in rows)


def test_label_errors_reckons_as_naive_bayes_does(kept):
    store, made, _ = kept
    own = [set(filter(None, (label or "").split(";"))) for label in LABELS]
    clips = [clip for clip in np.flatnonzero(made.readable).tolist() if own[clip]]
    root = np.sqrt(means(made)[clips])
    weight = root / root.sum(axis=1, keepdims=True)
    has = {label: np.array([label in own[clip] for clip in clips]) for label in "abc"}
    share = weight.mean(axis=0)

    def fit(row, label):
        others = np.arange(len(clips)) != row
        there, elsewhere = weight[others & has[label]], weight[others & ~has[label]]
        with np.errstate(divide="ignore", invalid="ignore"):
            here = (there.sum(axis=0) + share) / (len(there) + 1)
            rest = (elsewhere.sum(axis=0) + share) / (len(elsewhere) + 1)
            return np.nansum(weight[row] * np.log(here / rest))

    for found in asked(store, "label_errors"):
        row = clips.index(found["clip"])
        fits = {label: fit(row, label) for label in "abc"}
        mine = {label: fits[label] for label in own[found["clip"]]}
        other = {label: fits[label] for label in "abc" if label not in mine}
        assert found["label"] == min(mine, key=mine.get)
        assert found["score"] == pytest.approx(max(other.values()) - min(mine.values()), abs=2e-3)


@pytest.fixture(scope="module")
def loud(tmp_path_factory):
    """A store whose clips can be heard: clip 0 silent, 1 clipped, 2 and 3 the same, 4 missing."""
    root = tmp_path_factory.mktemp("loud")
    (root / "folder").mkdir()
    time = np.arange(RATE) / RATE
    waves = {0: 0 * time, 1: np.sign(np.sin(99.5 * time)), 2: 0.5 * np.sin(2 * np.pi * 100 * time)}
    for clip in (0, 1, 2, 3, *range(5, 9)):
        wave = waves.get(2 if clip == 3 else clip, 0.01 * clip * np.sin(2 * np.pi * 50 * clip * time))
        soundfile.write(root / "folder" / f"clip {clip:06d}.wav", wave, RATE, subtype="FLOAT")
    made = make_store(root / "store", Spec(clips=9, failed=(), recipe=NONE))
    return open_store(made.path, audio_root=root)


def test_levels_are_those_of_the_samples(loud):
    rows = loud.sql("SELECT * FROM levels ORDER BY clip").to_pylist()
    assert [row["rms_db"] for row in rows[:2]] == pytest.approx([-150, 0], abs=1e-2)
    assert rows[2]["peak_db"] == pytest.approx(20 * np.log10(0.5), abs=1e-3)
    assert rows[2]["rms_db"] == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=1e-3)
    assert (rows[0]["silent_share"], rows[2]["silent_share"]) == (1, 0)
    assert rows[1]["clipped_share"] > 0.99
    assert "No such file" in rows[4]["unreadable"]
    assert rows[4]["rms_db"] is None
    (same,) = asked(loud, "duplicates")
    assert (same["clips"], same["numbers"]) == (2, [2, 3])
    assert [row["clip"] for row in asked(loud, "near_silent")] == [0]
    assert [row["clip"] for row in asked(loud, "loudest", limit=1)] == [1]


def test_only_the_clips_asked_for_are_decoded(loud, monkeypatch):
    decoded = []
    audio = loud.audio
    monkeypatch.setattr(type(audio), "__getitem__", lambda self, clip: decoded.append(clip) or np.zeros(9, np.float32))
    monkeypatch.setattr("logitstore.store.sql.levels._GROUP", 2)
    assert loud.sql("SELECT rms_db FROM levels WHERE clip = 5").num_rows == 1
    assert sorted(decoded) == [4, 5]
    assert loud.sql("SELECT count(*) FROM (SELECT clip FROM levels)").num_rows == 1
    assert sorted(decoded) == [4, 5]


def test_levels_need_the_audio(kept):
    with pytest.raises(MismatchError, match=r"@loudest needs the table levels, not in .*; give --audio-root DIR"):
        asked(kept[0], "loudest")


def test_the_cookbook_is_that_of_the_questions():
    page = Path(__file__).parents[2] / "docs" / "sql.md"
    assert page.read_text(encoding="utf-8").rstrip() == cookbook.cookbook()
    named = list(itertools.chain(*cookbook.PARTS.values()))
    assert len(named) == len(set(named))


#: The Jensen-Shannon divergence of a clip's views from each other, by the table ``topk`` alone.
DIVERGENCE = """
    WITH
        kind AS (SELECT bool_and(scores = 'sigmoid') AS sigmoid FROM teachers),
        said AS (
            SELECT
                clip, class_index, sum(probability::DOUBLE) AS total, -sum(probability * ln(probability)) AS yes,
                -sum((1.0 - probability) * ln(1.0 - probability)) AS no
            FROM topk GROUP BY clip, class_index
        ),
        seen AS (SELECT clip, count(*) AS views FROM views GROUP BY clip)
    SELECT
        clip,
        sum(-total / views * ln(total / views) - yes / views) + CASE
            WHEN any_value(sigmoid) THEN sum(-(1.0 - total / views) * ln(1.0 - total / views) - no / views) ELSE 0
        END AS apart
    FROM said JOIN seen USING (clip) CROSS JOIN kind GROUP BY clip
"""


@pytest.mark.parametrize("cells", [1, 1 << 22])
def test_the_table_of_answers_is_the_mean_over_the_views(kept, monkeypatch, cells):
    """Also where a shard is gone through a clip at a time."""
    from logitstore.store.sql import tables

    monkeypatch.setattr(tables, "_MOST_CELLS", cells)
    store, *_ = kept
    said = store.sql("SELECT * FROM answers ORDER BY clip, rank").to_pylist()
    plain = store.sql(
        "WITH seen AS (SELECT clip, count(*) AS views FROM views GROUP BY clip) "
        "SELECT clip, class_index, any_value(class) AS class, any_value(views) AS views, "
        "sum(probability::DOUBLE) / any_value(views) AS probability "
        "FROM topk JOIN seen USING (clip) GROUP BY clip, class_index ORDER BY clip, probability DESC, class_index"
    ).to_pylist()
    assert len(said) == len(plain)
    for one, other in zip(said, plain, strict=True):
        assert one.pop("rank") >= 1
        assert one.pop("disagreement") >= 0
        assert one.pop("probability") == pytest.approx(other.pop("probability"), rel=1e-6)
        assert one == other
    apart = {row["clip"]: row["apart"] for row in store.sql(DIVERGENCE).to_pylist()}
    for row in store.sql("SELECT clip, sum(disagreement) AS apart FROM answers GROUP BY clip").to_pylist():
        assert row["apart"] == pytest.approx(apart[row["clip"]], abs=1e-6)
    firsts = store.sql("SELECT clip, min(rank) AS low, max(rank) AS high, count(*) AS n FROM answers GROUP BY clip")
    assert all(row["low"] == 1 and row["high"] == row["n"] for row in firsts.to_pylist())
