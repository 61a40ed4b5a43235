"""What a plan says: arithmetic on rates, the sizes of a dry run, and a store's own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from logitstore import open_store
from logitstore.cli.main import cli
from logitstore.errors import UsageError
from logitstore.jobs.build import sizes
from logitstore.jobs.options import PlanOptions
from logitstore.jobs.plan import plan
from logitstore.store.summary import summarise
from tests.small_store import Spec, make_store
from tests.stores import inside, options, write_audio

PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"


def planned(**values: Any) -> Any:
    return plan(PlanOptions(**{"clips": 2e6, "teachers": ("a", "b"), "rates": ("100", "50")} | values))


def test_time_and_money_are_those_of_all_teachers_after_each_other() -> None:
    found = planned(views=4, devices=3, price=2.0)
    hours = 8e6 * (1 / 100 + 1 / 50) / 3600
    assert found.device_hours == pytest.approx(hours)
    assert found.seconds == pytest.approx(hours * 1200)
    assert found.money == pytest.approx(2 * hours)
    assert planned(rates=("100",)).rates == (100, 100)
    assert planned().money is None


def test_objects_and_requests_go_by_shards() -> None:
    found = planned(shard_clips=1000)
    assert (found.shards, found.objects) == (2000, 8002)
    assert (found.build_requests, found.verify_requests, found.open_requests) == (18_030, 8_017, 2_004)


def test_sizes_are_those_of_a_store(tmp_path: Path) -> None:
    """A plan is as near to what is written as a dry run, which it shares its constants with."""
    made = summarise(open_store(make_store(tmp_path / "store", Spec(clips=300, shard_clips=64, failed=())).path))
    like = planned(clips=1000, views=3, like=str(tmp_path / "store"))
    assert like.bytes_a_view == pytest.approx(made.bytes_a_view)
    assert like.bytes == pytest.approx(made.bytes_a_view * 3000)
    count = sum(len(list((tmp_path / "store").rglob(name))) for name in ("zarr.json", "0", "*.parquet", "0*.json"))
    folders = sum(path.is_dir() for path in (tmp_path / "store").rglob("0"))
    assert count - folders == sizes.BLOCK_OBJECTS * made.shards + sizes.STORE_OBJECTS


def test_a_teacher_is_measured_where_no_rate_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("logitstore.jobs.plan._SECONDS", 0.01)
    write_audio(tmp_path / "audio", 2)
    with inside(tmp_path):
        teacher = options(tmp_path).teachers[0]
        found = planned(teachers=(teacher, "other"), rates=("measured", "7"), clip_seconds=0.5, device="cpu")
    assert found.rates[0] > 0
    assert found.rates[1] == 7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rates": ("fast",)}, "--rate 'fast' is no number of views a second; give one of at least 1e-06, or measured"),
        ({"rates": ("0",)}, "--rate '0' is no number"),
        ({"rates": ("1e-320",)}, "--rate '1e-320' is no number"),
        ({"value_bits": -50}, "-50 bits a value cannot be stored"),
        ({"rates": ("nan",)}, "--rate 'nan' is no number"),
        ({"rates": ("1", "2", "3")}, "3 rates for 2 teachers; give one --rate for all of them, or one for each"),
        ({"teachers": ()}, "a plan needs at least one --teacher"),
    ],
)
def test_what_cannot_be_planned_is_said(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        planned(**changes)


def test_the_plans_of_the_page_are_what_is_printed() -> None:
    """docs/scaling.md, line by line."""
    sessions = re.findall(r"^```console\n\$ logitstore (.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(sessions) >= 3
    for session in sessions:
        words, said = session.replace("\\\n", " ").split("\n", 1)
        done = CliRunner().invoke(cli, words.split())
        assert done.exit_code == 0, done.output
        assert done.output == said, words
