"""SONYC-UST's official measure: against the original code's numbers, by counting clip by clip, and by hand."""

import csv
import itertools
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from pyarrow.csv import read_csv

from logitstore import evaluate as evaluate_job
from logitstore.audio.sonyc import COARSE, COARSE_OF, IS_UNCERTAIN, TAGS, coarse_of, read_annotations, targets
from logitstore.errors import SourceError, UsageError
from logitstore.evaluation import sonyc
from logitstore.evaluation.sonyc import Curve, Truth, area, coarse_curve, f1_at, fine_curve, lwlrap, micro_curve
from tests.sonyc import make_sonyc

FILES = {"measure": "sonyc", "annotations": "annotations.csv", "predictions": "scores.csv"}
MODELS = {
    "fine_model_fine": ("fine", "fine"),
    "fine_model_coarse": ("fine", "coarse"),
    "coarse_model_coarse": ("coarse", "coarse"),
}


@pytest.mark.parametrize("model", MODELS)
def test_it_equals_the_original_code(shared, model):
    folder = shared / "data/sonyc_reference"
    expected = json.loads((folder / "expected.json").read_text())["evaluation"][model]
    file, level = MODELS[model]
    truth = sonyc.read_truth(str(folder / "annotations.csv"), "validate")
    found = sonyc.measure(truth, sonyc.read_predictions(str(folder / f"predictions_{file}.csv")), level).to_dict()
    close = {"rel": 0, "abs": 1e-9}
    for name in ("micro_auprc", "macro_auprc"):
        assert found[name] == pytest.approx(expected["stable"][name], **close)
        low, high = found["bounds"][name]
        for versions in expected["original"].values():
            assert low - 1e-9 <= versions[name] <= high + 1e-9
    assert found["bounds"]["micro_auprc"] == pytest.approx(expected["bounds"]["micro_auprc"], **close)
    for name in COARSE:
        number = name.partition("_")[0]
        assert found["class_auprc"][name] == pytest.approx(expected["stable"]["class_auprc"][number], **close)
        assert found["bounds"]["class_auprc"][name] == pytest.approx(expected["bounds"]["class_auprc"][number], **close)
    assert found["micro_f1"] == pytest.approx(expected["micro_f1"], **close)
    assert found["micro_f1_threshold"] == expected["micro_f1_threshold"]
    other = {name.replace("_sklearn", "_ties"): value for name, value in expected["other"].items()}
    for name in found["other"].keys() & other.keys():
        assert found["other"][name] == pytest.approx(other[name], **close), name


@pytest.mark.parametrize("model", MODELS)
def test_the_counts_are_those_of_the_original_code(shared, model):
    folder = shared / "data/sonyc_reference"
    expected = json.loads((folder / "expected.json").read_text())["evaluation"][model]
    file, level = MODELS[model]
    truth = sonyc.read_truth(str(folder / "annotations.csv"), "validate")
    given = sonyc.read_predictions(str(folder / f"predictions_{file}.csv"))
    order = [given.files.index(name) for name in truth.files]
    for each, name in enumerate(COARSE):
        number = name.partition("_")[0]
        own = each == COARSE_OF
        if level == "fine":
            curve = fine_curve(truth.tags[:, own], given.fine[order][:, own], uncertain=bool(IS_UNCERTAIN[own].any()))
        else:
            curve = coarse_curve(coarse_of(truth.tags)[:, each], given.coarse[order][:, each])
        assert len(curve.thresholds) == expected["thresholds"][number]
        for least, counts in expected["counts"].items():
            at, *wanted = counts[number]
            place = int(np.searchsorted(curve.thresholds, float(least)))
            assert curve.thresholds[place] == pytest.approx(at)
            assert [curve.tp[place], curve.fp[place], curve.fn[place]] == wanted


@pytest.mark.parametrize("rule", ["2019", "2020"])
def test_the_targets_are_those_of_the_baselines(shared, rule):
    folder = shared / "data/sonyc_reference"
    expected = json.loads((folder / "expected.json").read_text())["targets"][rule]
    found = targets(read_annotations(str(folder / "annotations.csv")), rule)
    short = [tag.partition("_")[0] for tag in TAGS]
    train = found.of("train")
    assert {split: sorted(found.of(split).files) for split in ("train",)} == {
        "train": sorted(expected["splits"]["train"])
    }
    for name, tags in zip(train.files, train.tags, strict=True):
        wanted = expected["train_clips"][name]
        assert sorted(short[at] for at in np.flatnonzero(tags)) == sorted(wanted["fine"]), name
        there = coarse_of(tags[None])[0]
        assert [COARSE[at].partition("_")[0] for at in np.flatnonzero(there)] == sorted(wanted["coarse"]), name
    if rule == "2020":
        for split in ("validate", "test"):
            own = found.of(split)
            assert sorted(own.files) == sorted(expected["splits"][split])
            positives = expected["positives"][split]
            assert dict(zip(TAGS, own.tags.sum(axis=0).tolist(), strict=True)) == positives["fine"]
            assert dict(zip(COARSE, coarse_of(own.tags).sum(axis=0).tolist(), strict=True)) == positives["coarse"]


def test_an_area_by_hand():
    # scores .9 (true), .6 (false), .4 (true), .2 (false): P, R at thresholds .2, .4, .6, .9 and 1
    curve = coarse_curve(np.array([True, False, True, False]), np.array([0.9, 0.6, 0.4, 0.2]))
    assert curve.thresholds.tolist() == [0.2, 0.4, 0.6, 0.9, 1.0]
    assert (curve.tp.tolist(), curve.fp.tolist(), curve.fn.tolist()) == (
        [2, 2, 1, 1, 0],
        [2, 1, 1, 0, 0],
        [0, 0, 1, 1, 2],
    )
    # (0, 1), (0, 0), then at recall 1/2 precision 1 and 1/2, at recall 1 precision 2/3 and 1/2
    falling = 0.5 * (0 + 1) / 2 + 0.5 * (1 / 2 + 2 / 3) / 2
    rising = 0.5 * (0 + 1 / 2) / 2 + 0.5 * (1 + 1 / 2) / 2
    assert area(curve, rising=False).auprc == pytest.approx(falling, abs=1e-12)
    assert area(curve, rising=True).auprc == pytest.approx(rising, abs=1e-12)
    assert f1_at(curve) == (pytest.approx(0.5), 0.6)  # of .6, the next threshold: P = R = 1/2


def test_the_bounds_are_those_of_every_order():
    random = np.random.default_rng(3)
    for _ in range(20):
        true = random.random(4) < 0.5
        curve = coarse_curve(true, random.random(4).round(1))
        points = list(zip(curve.recall.tolist(), curve.precision.tolist(), strict=True))
        areas = []
        for order in itertools.permutations(points):
            x, y = zip((0.0, 1.0), *sorted(order, key=lambda point: point[0]), (1.0, 0.0), strict=True)
            areas.append(sum((b - a) * (c + d) / 2 for a, b, c, d in zip(x, x[1:], y, y[1:], strict=False)))
        found = area(curve, rising=bool(random.integers(2)))
        assert (found.least, found.largest) == (pytest.approx(min(areas)), pytest.approx(max(areas)))
        assert found.least - 1e-12 <= found.auprc <= found.largest + 1e-12


def test_x_forgives_false_alarms_and_counts_once():
    #            fine 1  fine 2  X
    true = np.array([[0, 0, 1], [1, 0, 1], [0, 0, 0], [1, 0, 0]], dtype=bool)
    score = np.array([[0.9, 0.8, 0.0], [0.1, 0.9, 0.0], [0.0, 0.0, 0.9], [0.0, 0.9, 0.2]])
    curve = fine_curve(true, score, uncertain=True)
    at = int(np.searchsorted(curve.thresholds, 0.5))
    # clip 1: a hit, once, and no false alarm; clip 2: X is hit by tag 2, tag 1 missed; clip 3: X alone is a false
    # alarm; clip 4: tag 2 is one, tag 1 missed
    assert (curve.tp[at], curve.fp[at], curve.fn[at]) == (2, 2, 2)


def test_counting_by_sorting_is_counting_clip_by_clip():
    random = np.random.default_rng(7)
    for size in (1, 3, 4):
        true = random.random((30, size + 1)) < 0.3
        score = random.random((30, size + 1)).round(2)
        curve = fine_curve(true, score, uncertain=True)
        for place, threshold in enumerate(curve.thresholds):
            tp = fp = fn = 0
            for t, s in zip(true, score >= threshold, strict=True):
                (fine, x), (said, y) = (t[:-1], t[-1]), (s[:-1], s[-1])
                tp += int((fine & said).sum()) + int(x and (y or said.any()) and not (fine & said).any())
                fp += 0 if x else int((~fine & said).sum())
                fp += int(not x and not fine.any() and y and not said.all())
                fn += int((fine & ~said).sum()) + int(x and not fine.any() and not (y or said.any()))
            assert (curve.tp[place], curve.fp[place], curve.fn[place]) == (tp, fp, fn)


def test_a_micro_curve_takes_of_every_class_its_next_threshold():
    one = Curve(np.array([0.2, 1.0]), np.array([3, 0]), np.array([2, 0]), np.array([0, 3]))
    two = Curve(np.array([0.5, 1.0]), np.array([1, 0]), np.array([4, 0]), np.array([0, 1]))
    both = micro_curve([one, two])
    assert both.thresholds.tolist() == [0.2, 0.5, 1.0]
    assert both.tp.tolist() == [4, 1, 0]
    assert both.fp.tolist() == [6, 4, 0]
    assert both.fn.tolist() == [0, 3, 4]


def test_scores_below_a_hundredth_are_no_thresholds():
    curve = coarse_curve(np.array([True, True]), np.array([0.009, 0.01]))
    assert curve.thresholds.tolist() == [0.01, 1.0]
    assert curve.tp.tolist() == [1, 0]


def test_classes_without_positives_count_as_nothing():
    tags = np.zeros((4, len(TAGS)), dtype=bool)
    tags[:2, TAGS.index("8-1_dog-barking-whining")] = True
    files = tuple("abcd")
    score = np.zeros((4, len(TAGS)))
    score[:, -1] = (0.9, 0.8, 0.2, 0.1)
    given = sonyc.predictions_of(files, TAGS, score, derive=True)
    for level in ("coarse", "fine"):
        found = sonyc.measure(Truth(files, tags, "validate"), given, level)
        assert found.without_positives == COARSE[:7]
        assert found.by_class[-1].area.largest == pytest.approx(1 - 0.25, abs=1e-12)  # of the way from (0, 0)
        assert found.macro.auprc == pytest.approx(found.by_class[-1].area.auprc / 8)
        assert found.average_precision_macro == 1.0  # which leaves such classes out


def test_lwlrap_by_hand():
    labels = np.array([[True, False, True], [False, True, False]])
    scores = np.array([[0.9, 0.5, 0.1], [0.4, 0.4, 0.4]])
    # ranks of the true: 1 (1 of 1), 3 (2 of 3); of three alike the middle one is 2nd from the last, or 3rd together
    assert lwlrap(labels, scores) == pytest.approx((1 + 2 / 3 + 1 / 2) / 3)
    assert lwlrap(labels, scores, together=True) == pytest.approx((1 + 2 / 3 + 1 / 3) / 3)


def test_predictions_are_written_and_read_as_the_task_has_them(tmp_path):
    make_sonyc(tmp_path)
    given = sonyc.read_predictions(str(tmp_path / "scores.csv"))
    sonyc.write_predictions(given, str(tmp_path / "again.csv"))
    with (tmp_path / "again.csv").open() as file:
        assert next(csv.reader(file)) == ["audio_filename", *TAGS, *COARSE]
    again = sonyc.read_predictions(str(tmp_path / "again.csv"))
    assert again.files == given.files
    assert np.array_equal(again.fine, given.fine)
    assert np.array_equal(again.coarse, given.coarse)


def test_a_tag_that_is_not_predicted_counts_as_zero_and_is_said(tmp_path, caplog):
    make_sonyc(tmp_path)
    found = _edited(tmp_path, lambda rows: [row[:1] + row[1 + len(TAGS) :] for row in rows])
    assert [each.level for each in found.levels] == ["coarse"]
    assert not caplog.messages
    (fine,) = _edited(tmp_path, lambda rows: [row[:1] + row[1 + len(TAGS) :] for row in rows], level="fine").levels
    assert fine.micro.auprc == 0
    assert "29 of 29 fine tags are not predicted" in caplog.text


@pytest.mark.parametrize(
    ("mark", "ends", "encoding"), [(",", "\r\n", "utf-8-sig"), (";", "\n", "utf-8"), ("\t", "\r\n", "utf-16")]
)
def test_a_file_is_read_alike_however_it_was_saved(tmp_path, mark, ends, encoding):
    make_sonyc(tmp_path)
    with (tmp_path / "scores.csv").open() as file:
        rows = list(csv.reader(file))
    order = np.random.default_rng(1).permutation(len(rows[0])).tolist()
    rows = [[row[at] for at in order] for row in (rows[0], *rows[:0:-1])]  # and whatever the order
    with (tmp_path / "edited.csv").open("w", newline="", encoding=encoding) as file:
        csv.writer(file, delimiter=mark, lineterminator=ends).writerows(rows)
    found, expected = (
        sonyc.evaluate(
            "it", sonyc.read_truth(str(tmp_path / "annotations.csv"), "validate"), sonyc.read_predictions(name)
        )
        for name in (str(tmp_path / "edited.csv"), str(tmp_path / "scores.csv"))
    )
    assert found == expected


@pytest.mark.parametrize("text", ["5e-1", ".50", " +0.5 "])
def test_a_number_is_read_however_it_is_written(tmp_path, text):
    make_sonyc(tmp_path)
    halves = _edited(tmp_path, lambda rows: [rows[0], *([row[0], "0.5", *row[2:]] for row in rows[1:])])
    assert _edited(tmp_path, lambda rows: [rows[0], *([row[0], text, *row[2:]] for row in rows[1:])]) == halves


@pytest.mark.parametrize("score", ["0", "1"])
def test_one_score_for_everything_is_measured(tmp_path, score):
    make_sonyc(tmp_path)
    coarse, _ = _edited(tmp_path, lambda rows: [rows[0], *([row[0], *([score] * 37)] for row in rows[1:])]).levels
    share = sum(each.positives for each in coarse.by_class) / (8 * coarse.clips)
    area, f1 = ((1 + share) / 2, 2 * share / (1 + share)) if score == "1" else (0, 0)
    assert coarse.micro.auprc == pytest.approx(area)
    assert (coarse.micro_f1, coarse.micro_f1_threshold) == (pytest.approx(f1), 1.0)


def test_tables_may_be_parquet(tmp_path):
    make_sonyc(tmp_path)
    for name in ("annotations", "scores"):
        parquet.write_table(read_csv(tmp_path / f"{name}.csv"), tmp_path / f"{name}.parquet")
    found, expected = (
        evaluate_job(measure="sonyc", annotations=str(tmp_path / f"annotations.{kind}"),
                     predictions=str(tmp_path / f"scores.{kind}")).levels
        for kind in ("parquet", "csv")
    )  # fmt: skip
    assert found == expected
    table = parquet.read_table(tmp_path / "scores.parquet")
    name = table.column_names[3]
    holed = pa.array([None, *table.column(name).to_pylist()[1:]])
    parquet.write_table(table.set_column(3, name, holed), tmp_path / "scores.parquet")
    with pytest.raises(SourceError, match="row 1: 1-3_large-sounding-engine is None; it must be a number"):
        sonyc.read_predictions(str(tmp_path / "scores.parquet"))


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (lambda rows: rows[:-1], "1 have no prediction"),
        (lambda rows: [*rows, ["x.wav", *rows[1][1:]]], "1 are predicted and not among them, as 'x.wav'"),
        (lambda rows: [*rows, rows[1]], "is there twice"),
        (lambda rows: [rows[0], *([row[0], "1.5", *row[2:]] for row in rows[1:])], r"lies in \[0, 1\]"),
        (lambda rows: [rows[0], *([row[0], "nan", *row[2:]] for row in rows[1:])], "must be a number"),
        (lambda rows: [rows[0], *([row[0], "much", *row[2:]] for row in rows[1:])], "is 'much'"),
        (lambda rows: [rows[0], *([row[0], "1.0000001", *row[2:]] for row in rows[1:])], r"is 1\.0000001; a"),
        (lambda rows: [rows[0], *([row[0], "-1e-9", *row[2:]] for row in rows[1:])], "is -1e-09; a score lies"),
        (lambda rows: [rows[0], *([row[0], "inf", *row[2:]] for row in rows[1:])], "must be a number"),
        (lambda rows: [rows[0], *([row[0], "", *row[2:]] for row in rows[1:])], "is ''; it must be a number"),
        (lambda rows: [rows[0], *([row[0], "0,5", *row[2:]] for row in rows[1:])], "must be a number"),
        (lambda rows: [rows[0], *(row[:-1] for row in rows[1:])], "37 cells where the header has 38"),
        (lambda rows: [rows[0], *(["audio/" + row[0], *row[1:]] for row in rows[1:])], "8 have no prediction"),
        (lambda rows: rows[:1], "no rows under the header"),
        (lambda rows: [row[:1] for row in rows], "none of the columns is a tag"),
        (lambda rows: [["file", *rows[0][1:]], *rows[1:]], "no column 'audio_filename'"),
    ],
)  # fmt: skip
def test_files_that_do_not_fit_are_refused(tmp_path, change, wrong):
    make_sonyc(tmp_path)
    with pytest.raises(SourceError, match=wrong):
        _edited(tmp_path, change)


@pytest.mark.parametrize(
    ("asked", "wrong"),
    [
        ({"predictions": "scores.csv"}, "give --measure sonyc too"),
        ({"measure": "sonyc", "predictions": "scores.csv"}, "give SONYC-UST's annotations.csv"),
        ({"measure": "sonyc", "annotations": "annotations.csv"}, "needs scores"),
        (FILES | {"manifest": "annotations.csv"}, "give one of them"),
        (FILES | {"where": "true"}, "--where"),
        (FILES | {"teachers": ["t"]}, "already"),
        (FILES | {"split": "train"}, "no agreed row"),
        ({"manifest": "annotations.csv", "teachers": ["t"]}, "--label-column is given neither"),
        ({"manifest": "annotations.csv", "teachers": ["t"], "label_column": "x", "level": "fine"}, "--labels sonyc"),
    ],
)  # fmt: skip
def test_options_that_do_not_go_together_are_refused(tmp_path, monkeypatch, asked, wrong):
    make_sonyc(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=wrong):
        evaluate_job(**asked)


def _edited(folder: Path, change, level=None):
    with (folder / "scores.csv").open() as file:
        rows = list(csv.reader(file))
    with (folder / "edited.csv").open("w", newline="") as file:
        csv.writer(file).writerows(change(rows))
    return evaluate_job(
        measure="sonyc",
        annotations=str(folder / "annotations.csv"),
        predictions=str(folder / "edited.csv"),
        level=level,
    )
