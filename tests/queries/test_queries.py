"""The questions that ship with the tool: each has an answer of every store, and says so where it has none."""

import csv
import io

import numpy as np
import pytest
from click.testing import CliRunner

from logitstore import open_store
from logitstore.cli.inspect import inspect_command
from logitstore.errors import MismatchError, QueryError
from logitstore.queries import parse, question, questions
from logitstore.store.sql.tables import tables
from logitstore.views.recipe import NONE
from tests.small_store import Spec, make_store

NAMES = (
    "balanced", "balanced_labels", "classes", "cooccurrence", "coverage", "disputed_clips", "draws", "duplicates",
    "events", "failures", "hours", "label_errors", "labels", "longest_events", "loudest", "measures",
    "member_disagreement", "member_measures",
    "near_duplicates", "near_silent", "survival", "topk_tail", "torn", "uncertain_clips", "view_disagreement",
)  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_store(
        tmp_path_factory.mktemp("queries") / "kept", Spec(keep_members=True, view_ranges=((0, 2), (2, 3)), hop_ms=40)
    )


@pytest.fixture(scope="module")
def stores(made, tmp_path_factory):
    """A store with members, one of another kind without draws, two read as one, and one without blocks."""
    root = tmp_path_factory.mktemp("others")
    plain = make_store(root / "plain", Spec(recipe=NONE, scores="softmax", failed=())).path
    begun = make_store(root / "begun", Spec(skip_blocks=tuple(f"00000{i}-0-3" for i in range(5)))).path
    other = make_store(root / "other", Spec(keep_members=True, seed=3, clips=35, hop_ms=40)).path
    return [open_store(place) for place in (made.path, plain, [made.path, other], begun)]


def ask(store, name, **values):
    return store.sql(f"@{name}", values)


def test_the_questions_are_found_and_explained():
    assert tuple(questions()) == NAMES
    for each in questions().values():
        assert each.asks.endswith("?")
        assert len(each.tells) > 40
        assert all(parameter.meaning for parameter in each.parameters)


@pytest.mark.parametrize("name", NAMES)
def test_every_question_has_an_answer_of_any_store_that_has_its_tables(name, stores):
    for store in stores:
        if set(question(name).needs) <= set(tables(store)):
            values = {each.name: "path" for each in question(name).parameters if each.column}
            assert ask(store, name, **values).column_names


def test_answers_are_those_of_what_was_written(made):
    store = open_store(made.path)
    assert ask(store, "coverage").to_pylist() == [
        {"view": view, "clips": 36, "without_targets": 1, "blocks": 5} for view in range(3)
    ]
    counts = np.bincount(made.classes[made.readable].reshape(-1), minlength=12)
    found = {row["class"]: row["views"] for row in ask(store, "classes").to_pylist()}
    assert found == {f"class {number}": count for number, count in enumerate(counts) if count}
    assert ask(store, "failures").to_pylist() == [
        {"reason": "not audio", "clips": 1, "example": "folder/clip 000010.wav", "example_clip": 10}
    ]
    apart = made.members.max(axis=0) - made.members.min(axis=0)
    largest = ask(store, "member_disagreement").to_pylist()
    assert max(row["largest"] for row in largest) == pytest.approx(apart[made.readable].max(), abs=1e-4)
    drawn = {row["parameter"]: row for row in ask(store, "draws").to_pylist()}
    assert drawn["roll_samples"]["highest"] == made.draws["roll"][made.readable].max()
    clips = ask(store, "uncertain_clips", limit=3)
    assert clips.num_rows == 3
    assert (np.diff(clips["mean_entropy"].to_numpy()) <= 0).all()


def test_a_store_without_members_says_what_to_do(stores):
    with pytest.raises(MismatchError, match=r"@member_disagreement needs the table members, not in .*plain; build a "):
        stores[1].sql("@member_disagreement")


def test_wrong_names_are_refused_with_similar_ones(stores):
    with pytest.raises(QueryError, match=r"@clases \(did you mean classes\?\); the questions are balanced, "):
        stores[0].sql("@clases")
    with pytest.raises(QueryError, match=r"no parameter 'limt' \(did you mean limit\?\); it takes limit"):
        stores[0].sql("@classes", {"limt": 3})
    with pytest.raises(QueryError, match=r"@coverage has no parameter 'limit'; it takes none"):
        stores[0].sql("@coverage", {"limit": 3})


def test_a_file_is_read_by_its_header(stores):
    found = parse("mine", "-- Mine?\n-- One\n-- two.\n-- $share = 0.5: a share\n\nSELECT $share, $most\n")
    assert (found.asks, found.tells, found.sql) == ("Mine?", "One two.", "SELECT $share, $most")
    assert found.values({}) == {"share": 0.5}
    assert found.values({"share": 1, "most": 2}) == {"share": 1, "most": 2}
    with pytest.raises(QueryError, match=r"the parameter \$most and no value for it; give -p most VALUE"):
        stores[0].sql(found.sql, found.values({}))
    for text in ("SELECT 1", "-- Nothing?"):
        with pytest.raises(ValueError, match=r"mine.sql needs a line of comment, .*, and SQL below it"):
            parse("mine", text)


def inspect(*arguments):
    return CliRunner().invoke(inspect_command, list(map(str, arguments)))


def test_inspect_lists_and_asks_them(made, stores):
    listed = inspect(made.path, "@").output
    names = [line.split()[0] for line in listed.splitlines() if line.startswith("@")]
    assert sorted(names) == [f"@{name}" for name in NAMES]
    assert "Which classes do the teachers hear?  -p limit 20" in listed
    printed = inspect(made.path, "@classes", "-p", "limit", "2", "--format", "csv").output
    assert [row["class"] for row in csv.DictReader(io.StringIO(printed))] == [
        row["class"] for row in ask(open_store(made.path), "classes", limit=2).to_pylist()
    ]
    assert isinstance(inspect(made.path, "@nothing").exception, QueryError)
    assert "--keep-members" in str(inspect(stores[1].location, "@member_disagreement").exception)


def test_events_are_the_stretches_that_are_loud(made, stores):
    store = stores[0]
    clip, view, least = 4, 1, 0.4
    dense = store.frames(view, [clip]).dense()[0]
    expected = []
    for label in range(dense.shape[1]):
        loud = np.flatnonzero(np.diff(np.concatenate([[0], dense[:, label] >= least, [0]]).astype(int)))
        for start, stop in loud.reshape(-1, 2):
            expected.append((made.names[label], round(start * 0.04, 3), min(2.0, round(stop * 0.04, 3))))
    found = ask(store, "events", clip=clip, view=view, least=least, gap=0.0).to_pylist()
    assert sorted((row["class"], row["start_s"], row["end_s"]) for row in found) == sorted(expected)
    assert len(expected) > 3
    assert len(ask(store, "events", clip=clip, view=view, least=least, gap=5.0)) == len({name for name, *_ in expected})
    longest = ask(store, "longest_events", least=least, limit=100).to_pylist()
    rows = store.sql("SELECT * FROM frames WHERE view = 0 AND probability >= 0.4").to_pylist()
    assert {row["class"] for row in longest} == {row["class"] for row in rows}
    assert all(row["longest_s"] >= row["end_s"] - row["start_s"] - 0.01 for row in longest for row in [row | next(
        each for each in rows if each["class"] == row["class"])])  # fmt: skip


def test_a_store_that_does_not_say_when_says_what_to_do(stores):
    with pytest.raises(
        MismatchError, match=r"@events needs the table frames, not in .*plain; build a store with --frame"
    ):
        ask(stores[1], "events")
