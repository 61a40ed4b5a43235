"""A store that was written by format version 1 is read by this release as it was then."""

import json
import shutil

from click.testing import CliRunner

from logitstore import open_store
from logitstore.cli.main import cli
from tests.fixtures.make_store_v1 import EXPECTED, STORE, said
from tests.stores import contents


def test_a_store_of_version_1_says_what_it_said(counted):
    """The fixture is part of the repository; without it this fails."""
    expected = json.loads(EXPECTED.read_text(encoding="utf-8"))
    assert json.loads(json.dumps(said(STORE))) == expected
    assert len(expected["clips"]) == 10
    assert [len(view["clips"]) for view in expected["views"]] == [9, 9]
    assert [reason for _, path, reason in expected["failures"] if path == "a/text.wav"]
    assert all(expected["members"])
    assert {op["op"] for op in expected["recipe"]["ops"]} == {
        "roll", "gain", "mixup", "noise", "time_mask", "frequency_mask"
    }  # fmt: skip
    counted("stores of format version 1 read")


def test_sql_over_a_store_of_version_1():
    expected = json.loads(EXPECTED.read_text(encoding="utf-8"))
    store = open_store(STORE)
    found = store.sql("SELECT clip, view, class_index, probability FROM topk ORDER BY view, clip, rank").to_pylist()
    wanted = [
        (clip, number, label, probability)
        for number, view in enumerate(expected["views"])
        for clip, labels, probabilities in zip(view["clips"], view["classes"], view["probabilities"], strict=True)
        for label, probability in zip(labels, probabilities, strict=True)
    ]
    assert [tuple(row.values()) for row in found] == wanted


def test_a_store_of_version_1_verifies(tmp_path):
    """And nothing is written into it."""
    shutil.copytree(STORE, tmp_path / "store")
    before = contents(tmp_path / "store")
    result = CliRunner().invoke(cli, ["verify", str(tmp_path / "store")])
    assert result.exit_code == 0, result.output
    assert contents(tmp_path / "store") == before
