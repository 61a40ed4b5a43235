"""Questions that ship with the program: each can be asked of any store, and says what it asks."""

import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from logitstore.cli.inspect import inspect_command
from logitstore.errors import QueryError
from logitstore.jobs.build.job import build
from logitstore.queries import asked, names, question
from logitstore.store.reader import open_store
from tests.stores import options, write_audio


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("asked")
    write_audio(root / "audio", 6)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.syspath_prepend(str(root))
        build(options(root))
    return root / "store"


def test_there_are_questions_and_each_says_what_it_asks():
    assert {"classes", "torn"} <= set(names())
    for name, about in names().items():
        assert about.endswith("?"), name
        assert not about.startswith("-"), name


@pytest.mark.parametrize("name", names())
def test_every_question_is_answered(name, store):
    parameters = dict.fromkeys(re.findall(r"\$(\w+)", question(name)), 1)
    assert open_store(store).sql(f"@{name}", parameters).column_names


def test_the_classes_are_those_of_the_first_rank(store):
    answer = open_store(store).sql("@classes").to_pylist()
    assert sum(row["views"] for row in answer) == 6 * 3
    assert all(row["class"].startswith("tone ") and row["clips"] <= 6 for row in answer)


def test_inspect_asks_a_question_by_its_name(store):
    done = CliRunner().invoke(inspect_command, [str(store), "@classes", "--format", "csv"], catch_exceptions=False)
    assert done.exit_code == 0
    assert done.stdout.startswith("class,views,clips,mean_probability\ntone ")


def test_an_unknown_question_names_those_that_there_are():
    with pytest.raises(QueryError, match=r"there is no question @clases; there are: @classes: Which .*; @torn: "):
        asked("@clases")


def test_a_question_is_a_file_that_is_laid_there(tmp_path, monkeypatch):
    import logitstore.queries

    folder = tmp_path / "queries"
    shutil.copytree(Path(logitstore.queries.__file__).parent, folder)
    (folder / "how-many.sql").write_text("-- How many clips are there?\nSELECT count(*) AS clips FROM clips\n")
    monkeypatch.setattr(logitstore.queries, "_FOLDER", folder)
    assert names()["how-many"] == "How many clips are there?"
    assert question("how-many").endswith("FROM clips\n")
