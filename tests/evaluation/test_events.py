"""Events: found in frame probabilities, read from tables, and measured against strong labels."""

import numpy as np
import pytest

from logitstore.errors import SourceError
from logitstore.evaluation.events import (
    SCENARIOS,
    Event,
    Scenario,
    event_f1,
    filtered,
    found_events,
    psds,
    read_events,
)

CLASSES = ("a", "b", "c")


def events(*given):
    return {"f.wav": tuple(Event(*each) for each in given)}


def f1(truth, found, **asked):
    return event_f1(events(*truth), events(*found), CLASSES, **asked)


@pytest.mark.parametrize(
    ("found", "hits", "false"),
    [
        ([(1.0, 2.0, "a")], 1, 0),
        ([(1.2, 2.2, "a")], 1, 0),  # onset and offset exactly as late as may be
        ([(0.79, 2.0, "a")], 0, 1),
        ([(1.0, 2.21, "a")], 0, 1),
        ([(1.0, 2.0, "b")], 0, 1),
        ([(1.0, 2.0, "a"), (1.1, 2.1, "a")], 1, 1),  # one true event accounts for one
        ([(1.0, 1.5, "a"), (1.5, 2.0, "a")], 0, 2),
        ([], 0, 0),
    ],
)
def test_an_event_is_found_within_the_collars(found, hits, false):
    measured = f1([(1.0, 2.0, "a")], found)
    assert sum(each.hits for each in measured.by_class) == hits
    assert sum(each.false for each in measured.by_class) == false
    assert measured.by_class[0].events == 1
    assert measured.micro == pytest.approx(2 * hits / (1 + hits + false))


def test_the_offset_of_a_long_event_may_be_missed_by_a_share_of_it():
    assert f1([(0.0, 10.0, "a")], [(0.1, 8.0, "a")]).macro == 1
    assert f1([(0.0, 10.0, "a")], [(0.1, 7.9, "a")]).macro == 0
    assert f1([(0.0, 10.0, "a")], [(0.1, 8.0, "a")], share=0.1).macro == 0
    assert f1([(0.0, 10.0, "a")], [(0.5, 10.0, "a")], collar=0.5).macro == 1


def test_as_many_events_are_paired_as_can_be():
    """The first found event fits both true ones, the second only the first: a greedy pairing would lose one."""
    assert f1([(1.0, 2.0, "a"), (1.3, 2.3, "a")], [(1.15, 2.15, "a"), (0.85, 1.85, "a")]).by_class[0].hits == 2


def test_means_are_over_the_classes_that_have_true_events():
    measured = f1([(1.0, 2.0, "a"), (3.0, 4.0, "b")], [(1.0, 2.0, "a"), (0.0, 1.0, "c")])
    assert [each.f1 for each in measured.by_class] == [1.0, 0.0, 0.0]
    assert measured.macro == pytest.approx(0.5)
    assert measured.micro == pytest.approx(2 / 4)
    with pytest.raises(SourceError, match="there is no true event of these classes"):
        f1([], [(1.0, 2.0, "a")])


def test_events_are_stretches_of_frames():
    said = np.array([[0.9, 0.1], [0.6, 0.5], [0.2, 0.7], [0.8, 0.5], [0.9, 0.1]], np.float32)
    found = found_events(said, ("a", "b"), 0.1, threshold=0.5, end=0.47)
    assert [each[:3] for each in found] == [(0.0, 0.2, "a"), (0.1, 0.4, "b"), (0.3, 0.47, "a")]
    assert [each.probability for each in found] == pytest.approx([0.9, 0.7, 0.9])
    found = found_events(said, ("a", "b"), 0.1, threshold=0.5, shortest=0.2, end=0.47)
    assert [each[:3] for each in found] == [(0.0, 0.2, "a"), (0.1, 0.4, "b")]


def test_a_median_over_time_takes_away_what_is_short_of_half_of_it():
    said = np.zeros((20, 2), np.float32)
    said[5:7, 0], said[12:16, 0], said[18:, 1] = 1, 1, 0.5
    smooth = filtered(said, 0.1, 0.5)
    assert np.flatnonzero(smooth[:, 0]).tolist() == [12, 13, 14, 15]
    assert smooth[19, 1] == 0.5
    assert filtered(said, 0.1, 0.19) is said


@pytest.mark.parametrize("seed", range(3))
def test_psds_is_that_of_sed_scores_eval(seed):
    """What sed_scores_eval 0.0.4 gave, on pandas 2, for the same scores: two scenarios, with alpha_st and without."""
    expected = [
        (0.5572718019079548, 0.5756613756613757, 0.8540961010434380, 0.9153439153439153),
        (0.10861142044086865, 0.48333333333333334, 0.7154822031355753, 0.8333333333333335),
        (0.25594382665197, 0.45079365079365075, 0.45972037466155036, 0.7047619047619048),
    ][seed]
    random = np.random.default_rng(seed)
    frames = (50, 63, 125)[seed]
    hop = 5.0 / frames
    truth, scores = {}, {}
    for number in range(12):
        own = []
        for _ in range(int(random.integers(0, 5))):
            length = float(np.round(random.uniform(0.2, 2), 3))
            start = float(np.round(random.uniform(0, 5 - length), 3))
            name, end = CLASSES[int(random.integers(3))], round(start + length, 3)
            if all(each.label != name or start + length <= each.start or start >= each.end for each in own):
                own.append(Event(start, end, name))
        said = random.uniform(0, 0.5, (frames, 3))
        for start, end, name, _ in own:
            said[int(start / hop) : int(end / hop) + 1, CLASSES.index(name)] += random.uniform(0, 0.5)
        said = np.stack([np.convolve(said[:, at], np.ones(5) / 5, "same") for at in range(3)], axis=1)
        truth[f"{number}.wav"], scores[f"{number}.wav"] = own, np.round(said, 2).astype(np.float32)
    kinds = [
        Scenario(each.dtc, each.gtc, each.cttc, each.alpha_ct, st) for each in SCENARIOS.values() for st in (1.0, 0.0)
    ]
    found = [psds(scores, hop, truth, dict.fromkeys(scores, 5.0), CLASSES, each) for each in kinds]
    assert found == pytest.approx(expected, abs=1e-9)


def test_strong_labels_are_read_as_dcase_and_as_tag_write_them(tmp_path):
    file = tmp_path / "strong.tsv"
    file.write_text("filename\tonset\toffset\tevent_label\nb.wav\t2\t3.5\tdog\nb.wav\t0.5\t1\tcat\nquiet.wav\t\t\t\n")
    assert read_events(file) == {"b.wav": (Event(0.5, 1, "cat"), Event(2, 3.5, "dog")), "quiet.wav": ()}
    (tmp_path / "found.csv").write_text("path,start,end,class,probability\nb.wav,0.52,1.04,cat,0.8\n")
    assert read_events(tmp_path / "found.csv") == {"b.wav": (Event(0.52, 1.04, "cat", 0.8),)}
    (tmp_path / "own.csv").write_text("file,start,end,species\nb.wav,1,2,Parus major\n")
    assert read_events(tmp_path / "own.csv", "species")["b.wav"][0].label == "Parus major"
    with pytest.raises(SourceError, match="no column event_label or label or class of classes; it has path"):
        read_events(tmp_path / "own.csv")
    file.write_text("filename\tonset\toffset\tevent_label\nb.wav\t2\t\tdog\n")
    with pytest.raises(SourceError, match=r"event 1, 'dog' in b.wav: no offset: .*; strong labels have both"):
        read_events(file)


@pytest.mark.parametrize(
    ("row", "wrong"),
    [
        ("soon,2,cat,", r"event 1, 'cat' in b.wav: no onset: onset is 'soon', offset is 2; strong labels have both"),
        ("1,2,cat,high", "its probability is 'high'; allowed is a number from 0 to 1, or nothing"),
        ("1,2,cat,nan", "its probability is 'nan'"),
        ("1,2,cat,1.5", "its probability is 1.5"),
    ],
)
def test_a_cell_that_is_no_number_is_named(tmp_path, row, wrong):
    (tmp_path / "strong.csv").write_text(f"filename,onset,offset,event_label,probability\nb.wav,{row}\n")
    with pytest.raises(SourceError, match=wrong):
        read_events(tmp_path / "strong.csv")


def test_a_file_too_short_for_a_frame_is_missed_and_nothing_true_is_refused():
    scores = {"a.wav": np.array([[0.9], [0.1]], np.float32), "b.wav": np.zeros((0, 1), np.float32)}
    truth = {"a.wav": (Event(0, 0.04, "dog"),), "b.wav": (Event(0, 0.01, "dog"),)}
    lengths = {"a.wav": 0.08, "b.wav": 0.01}
    found = psds(scores, 0.04, truth, lengths, ("dog",), Scenario(0.7, 0.7))
    assert found == pytest.approx(0.5)
    with pytest.raises(SourceError, match="no true event of these classes"):
        psds(scores, 0.04, dict.fromkeys(scores, ()), lengths, ("dog",), Scenario(0.7, 0.7))
    with pytest.raises(SourceError, match="a length of 0 s"):
        psds(scores, 0.04, truth, dict.fromkeys(scores, 0.0), ("dog",), Scenario(0.7, 0.7))
