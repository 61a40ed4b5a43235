"""A file of verdicts: what counts, undo, several writers, and files that are none."""

import csv
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pyarrow as pa
import pytest

from logitstore import open_store
from logitstore.errors import MismatchError, OutputError, UsageError
from logitstore.store.subset import read_subset
from logitstore.store.verdicts import COLUMNS, Verdicts, agreed, beside, corrected_cells, read_verdicts
from tests.small_store import Spec, make_store

ONE, TWO = ("a/1.wav", 0, 16_000), ("a/2.wav", 16_000, 8_000)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "verdicts.csv"


def said(file, key=ONE):
    return {person: each.verdict for person, each in Verdicts(file).of(key).items()}


def test_the_last_line_of_each_person_counts_and_an_empty_one_takes_it_away(file):
    verdicts = Verdicts(file)
    assert verdicts.give("ann", ONE, 16_000, None) is None
    with pytest.raises(UsageError, match="no verdict of ann to undo"):
        verdicts.undo("ann")
    assert not file.exists()
    verdicts.give("ann", ONE, 16_000, "right")
    verdicts.give("ben", ONE, 16_000, "unsure", note="a horn?")
    verdicts.give("ann", ONE, 16_000, "wrong", "siren", "two\nlines\tof note")
    verdicts.give("ann", TWO, 16_000, "right")
    assert verdicts.give("ann", TWO, 16_000, None) is None
    assert said(file) == {"ann": "wrong", "ben": "unsure"}
    assert said(file, TWO) == {}
    assert read_verdicts(file) == verdicts.all()
    assert (verdicts.of(ONE)["ann"].label, verdicts.of(ONE)["ann"].note) == ("siren", "two lines of note")
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert tuple(rows[0]) == COLUMNS
    assert [row["verdict"] for row in rows] == ["right", "unsure", "wrong", "right", ""]
    assert rows[0]["at"] < rows[2]["at"] < rows[3]["at"]


def test_undo_goes_back_step_by_step_whoever_reads_the_file(file):
    verdicts = Verdicts(file)
    for verdict in ("right", "wrong", "right"):
        verdicts.give("ann", ONE, 16_000, verdict)
    verdicts.give("ben", ONE, 16_000, "unsure")
    verdicts.give("ann", TWO, 16_000, "unsure")
    assert Verdicts(file).undo("ann") == (TWO, None)
    assert Verdicts(file).undo("ann")[1].verdict == "wrong"
    assert verdicts.undo("ann")[1].verdict == "right"
    verdicts.give("ann", ONE, 16_000, "unsure")
    assert Verdicts(file).undo("ann")[1].verdict == "right"
    assert Verdicts(file).undo("ann") == (ONE, None)
    for reader in (verdicts, Verdicts(file)):
        with pytest.raises(UsageError, match="no verdict of ann to undo"):
            reader.undo("ann")
    assert said(file) == {"ben": "unsure"}


@pytest.mark.parametrize("text", ["=1+1", "'=1+1", "'tis", "-5", "@x", '"quoted"', "a,b", "ünï"])
def test_texts_come_back_as_they_were_and_no_spreadsheet_runs_them(file, text):
    key = (f"{text}\n.wav", 1, 2)
    Verdicts(file).give("ann", key, 8_000, "wrong", text, text)
    assert (Verdicts(file).of(key)["ann"].label, Verdicts(file).of(key)["ann"].note) == (text, text)
    with file.open(newline="") as opened:
        cell = next(csv.DictReader(opened))["label"]
    assert cell[0] not in "=@+"
    assert not cell.startswith("-") or cell == "-5"


def give_some(file, person):
    verdicts = Verdicts(file)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda n: verdicts.give(person, (f"{person}{n}", 0, 1), 1, "right"), range(20)))
    verdicts.undo(person)


def test_several_processes_and_threads_write_to_one_file(file):
    context = get_context("spawn")
    others = [context.Process(target=give_some, args=(file, person)) for person in ("ann", "ben")]
    for each in others:
        each.start()
    give_some(file, "eve")
    for each in others:
        each.join()
    assert [each.exitcode for each in others] == [0, 0]
    found = read_verdicts(file)
    assert sorted({person for of in found.values() for person in of}) == ["ann", "ben", "eve"]
    assert len(found) == 57
    assert len(file.read_text().splitlines()) == 1 + 3 * 21


def test_what_others_write_meanwhile_is_read(file):
    mine, theirs = Verdicts(file), Verdicts(file)
    theirs.give("ben", ONE, 1, "wrong")
    before = mine.version
    assert mine.refresh() > before
    assert mine.of(ONE)["ben"].verdict == "wrong"
    assert mine.refresh() == mine.version
    edited = file.read_text().replace("wrong", "unsure")
    file.write_text(edited)
    mine.refresh()
    assert mine.of(ONE)["ben"].verdict == "unsure"
    file.unlink()
    mine.refresh()
    assert mine.all() == {}
    mine.give("ann", ONE, 1, "right")
    assert said(file) == {"ann": "right"}


HEAD = ",".join(COLUMNS)
LINE = "a.wav,0,1,1,right,,,ann,2026-01-01T00:00:00.000Z"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("path,label\na.wav,dog\n", "its columns are 'path,label'"),
        (f"{HEAD}\n{LINE}\na.wav,0,1", "its last line has no end"),
        (f"{HEAD}\n{LINE}\n{LINE},more\n", "line 3 has 10 cells and not 9"),
        (f"{HEAD}\n{LINE.replace('right', 'fine')}\n", "line 2: 'fine' is no verdict; allowed are right, wrong"),
        (f"{HEAD}\n{LINE.replace('0,1,1', '0,x,1')}\n", "line 2: start, length and rate are '0', 'x', '1'"),
        (f"{HEAD}\n{LINE.replace('2026-01-01T', 'yesterday ')}\n", "line 2 has the person 'ann' and the time"),
        (f'{HEAD}\n"{LINE}\n', "unexpected end of data"),
        (b"\xff\xfe\n", "it is not UTF-8"),
    ],
)
def test_a_file_that_is_none_of_verdicts_is_an_error_and_left_as_it_is(file, content, reason):
    good = Verdicts(file)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    before = file.read_bytes()
    with pytest.raises(UsageError, match=reason):
        Verdicts(file)
    with pytest.raises(UsageError, match=reason):
        good.give("ann", ONE, 1, "right")
    assert file.read_bytes() == before


def test_what_cannot_be_written_is_said(file, tmp_path):
    verdicts = Verdicts(tmp_path / "no folder" / "verdicts.csv")
    with pytest.raises(OutputError, match="No such file or directory; give another place with --verdicts"):
        verdicts.give("ann", ONE, 1, "right")
    with pytest.raises(UsageError, match="'fine' is no verdict; allowed are right, wrong, unsure"):
        Verdicts(file).give("ann", ONE, 1, "fine")
    with pytest.raises(UsageError, match="the note has 1,001 characters"):
        Verdicts(file).give("ann", ONE, 1, "right", note="x" * 1001)
    with pytest.raises(UsageError, match="no regular file"):
        Verdicts(tmp_path)
    with pytest.raises(UsageError, match="there is no file of verdicts"):
        read_verdicts(file)
    assert not file.exists()


def test_people_who_differ_are_unsure(file):
    verdicts = Verdicts(file)
    verdicts.give("ann", ONE, 1, "wrong", "siren")
    verdicts.give("ben", ONE, 1, "wrong")
    both = agreed(verdicts.of(ONE).values())
    assert (both.verdict, both.label, both.person) == ("wrong", "siren", "ann, ben")
    verdicts.give("eve", ONE, 1, "wrong", "horn")
    assert agreed(verdicts.of(ONE).values()).label is None
    verdicts.give("eve", ONE, 1, "right")
    assert agreed(verdicts.of(ONE).values()).verdict == "unsure"
    assert agreed([]) is None


# what takes them


@pytest.fixture
def judged(tmp_path):
    """A store of 20 clips, of which 1 and 2 are wrong (2 with a right label), people differ on 3, and 4 is right."""
    make_store(tmp_path / "store", Spec(clips=20, failed=()), label=pa.array([f"class {n % 12}" for n in range(20)]))
    store = open_store(tmp_path / "store")
    assert beside(store) == tmp_path / "verdicts.csv"
    verdicts = Verdicts(beside(store))
    rows = store.clips.select(["path", "start", "length"]).to_pylist()
    for person, clip, verdict, label in (
        ("ann", 1, "wrong", None), ("ann", 2, "wrong", "class 9"), ("ben", 2, "wrong", None), ("ann", 3, "wrong", None),
        ("ben", 3, "right", None), ("ann", 4, "right", None),
    ):  # fmt: skip
        verdicts.give(person, tuple(rows[clip].values()), 16_000, verdict, label)
    verdicts.give("ann", ("elsewhere.wav", 0, 1), 16_000, "wrong")
    return store


def test_sql_has_them_as_a_table(judged, tmp_path):
    found = judged.sql("SELECT clip, verdict, label, person FROM verdicts ORDER BY clip, person").to_pylist()
    assert [tuple(row.values()) for row in found] == [
        (1, "wrong", None, "ann"), (2, "wrong", "class 9", "ann"), (2, "wrong", None, "ben"),
        (3, "wrong", None, "ann"), (3, "right", None, "ben"), (4, "right", None, "ann"),
    ]  # fmt: skip
    assert judged.sql("SELECT given_at FROM verdicts").schema.field("given_at").type == pa.timestamp("us")
    other = tmp_path / "other.csv"
    Verdicts(other).give(
        "eve", tuple(judged.clips.select(["path", "start", "length"]).to_pylist()[7].values()), 1, "right"
    )
    judged.verdicts = str(other)
    assert judged.sql("SELECT clip, person FROM verdicts").to_pylist() == [{"clip": 7, "person": "eve"}]
    judged.verdicts = None
    (tmp_path / "verdicts.csv").unlink()
    with pytest.raises(UsageError, match="there is no table 'verdicts'"):
        judged.sql("FROM verdicts")


def test_clips_leaves_out_those_that_are_judged_wrong(judged, tmp_path, caplog):
    caplog.set_level("INFO", "logitstore")
    chosen = read_subset(judged, str(tmp_path / "verdicts.csv"))
    assert sorted(set(range(20)) - set(chosen.clips.tolist())) == [1, 2]
    assert "2 of 4 judged clips are wrong and left out; people differ on 1, which count as unsure" in caplog.text
    foreign = tmp_path / "foreign.csv"
    Verdicts(foreign).give("ann", ONE, 1, "wrong")
    with pytest.raises(MismatchError, match=r"none of the verdicts in --clips .* is about a clip of"):
        read_subset(judged, str(foreign))


def test_labels_are_corrected_by_them(judged, tmp_path, caplog):
    caplog.set_level("INFO", "logitstore")
    cells = judged.clips["label"].to_pylist()
    found = corrected_cells(judged, cells, str(tmp_path / "verdicts.csv"))
    assert {clip: cell for clip, cell in enumerate(found) if cell != cells[clip]} == {1: None, 2: "class 9"}
    assert "of 4 judged clips 2 are wrong: 1 have the right label now, 1 none; people differ on 1" in caplog.text


def test_corrected_labels_are_evaluated_and_trained_on(judged, tmp_path, monkeypatch):
    from logitstore.jobs.evaluate import EvaluateOptions, evaluate
    from students.labels import clip_labels

    monkeypatch.chdir(tmp_path)
    asked = {"stored": "store", "label_column": "label"}
    plain = evaluate(EvaluateOptions(manifest=None, **asked))
    corrected = evaluate(EvaluateOptions(manifest=None, verdicts="verdicts.csv", **asked))
    assert (plain.rows, corrected.rows) == (20, 19)
    names = judged.clips["path"].to_pylist()
    lines = [f"{names[clip]},class {clip % 12}" for clip in range(8)]
    (tmp_path / "labels.csv").write_text("path,label\n" + "\n".join(lines) + "\n")
    by_hand = tmp_path / "by_hand.csv"
    fixed = [line.replace("class 2", "class 9") for clip, line in enumerate(lines) if clip != 1]
    by_hand.write_text("path,label\n" + "\n".join(fixed) + "\n")
    joined = evaluate(EvaluateOptions(manifest="labels.csv", verdicts="verdicts.csv", **asked))
    expected = evaluate(EvaluateOptions(manifest="by_hand.csv", **asked))
    assert joined.rows == 7
    assert joined.stored.metrics.mAP == expected.stored.metrics.mAP
    assert joined.stored.metrics.mAP != evaluate(EvaluateOptions(manifest="labels.csv", **asked)).stored.metrics.mAP
    with pytest.raises(UsageError, match="--verdicts are about clips of a store; give --stored STORE"):
        evaluate(EvaluateOptions(manifest="labels.csv", label_column="label", teachers=["t"], verdicts="verdicts.csv"))
    labels = clip_labels(judged, "label", None, "verdicts.csv")
    values, there = labels(np.arange(5))
    assert there.tolist() == [True, False, True, True, True]
    assert np.argmax(values[[0, 2, 3, 4]], axis=1).tolist() == [0, 9, 3, 4]
    assert labels.digest != clip_labels(judged, "label").digest
