"""A store that was begun when tables were read otherwise goes on with the same table."""

from __future__ import annotations

import datetime
from typing import Any

import pyarrow as pa
import pytest

from logitstore.errors import MismatchError
from logitstore.store.format.parts import Part, parts_of_source, plan_extension


def clips(**columns: Any) -> pa.Table:
    keys = {"path": ["a", "b", "c"], "start": [0, 0, 0], "length": [8, 8, 8], "rate": pa.array([8] * 3, pa.int32())}
    return pa.table(keys | columns)


def part(table: pa.Table) -> Part:
    return Part("clips/00000.parquet", "", table, 0, 0)


SAME = [
    ([7, 12, None], ["007", "12", "NA"]),
    ([1e5, 2.0, 3.0], ["1e5", "2", "3"]),
    ([0.5, None, 1.0], ["0.50", "nan", "1"]),
    ([True, False, None], ["True", "false", ""]),
    ([datetime.date(2020, 1, 2), None, None], ["2020-01-02", "", "NA"]),
    ([datetime.datetime(2020, 1, 2, 3), None, None], ["2020-01-02 03:00:00", "", ""]),
    (pa.array([36000, None, 1], pa.time32("s")), ["10:00:00", "", "00:00:01"]),
    ([0, 1, 1], ["Dog", "Cat", "Cat"]),
    ([[0], [0, 1], []], [["Dog"], ["Dog", "Cat"], []]),
    ([0, -1, None], ["Dog", None, None]),
    (pa.array(["x", "y", "x"]).dictionary_encode(), ["x", "y", "x"]),
    (pa.array(["x", "y", "x"], pa.large_string()), ["x", "y", "x"]),
    ([float("nan"), 1.0, None], [float("nan"), 1.0, None]),
]
OTHER = [
    ([7, 12, 3], ["007", "12", "007"]),
    ([0, 1, 1], ["Dog", "Dog", "Cat"]),
    ([0, 1, 2], ["Dog", "Dog", "Cat"]),
    ([0, None, 1], ["Dog", "x", "Cat"]),
    ([[0], [0, 1], []], [["Dog"], ["Dog"], []]),
    ([1.5, 2.0, 3.0], ["a", "b", "c"]),
    (["1", "2", "3"], ["1", "2", "4"]),
    ([float("nan"), 1.0, None], [None, 1.0, float("nan")]),
    ([1.0, 2.0, 3.0], [1.0, 2.0, 4.0]),
]


@pytest.mark.parametrize(("stored", "scanned"), SAME)
def test_columns_that_say_the_same(stored: Any, scanned: Any) -> None:
    old = part(clips(x=stored))
    assert parts_of_source([old], clips(x=scanned), "store") == (old,)


@pytest.mark.parametrize(("stored", "scanned"), OTHER)
def test_columns_that_do_not(stored: Any, scanned: Any) -> None:
    with pytest.raises(MismatchError, match="the same and their other columns differ"):
        parts_of_source([part(clips(x=stored))], clips(x=scanned), "store")


def test_columns_under_their_former_names() -> None:
    former = {"class": ["x", "y", "z"], "": [0, 1, 2], "source_view": [1, 2, 3]}
    now = {"source_class": ["x", "y", "z"], "column_1": [0, 1, 2], "source_view": [1, 2, 3]}
    old = part(clips(**former))
    assert parts_of_source([old], clips(**now), "store") == (old,)
    more = clips(**now).set_column(0, "path", pa.array(["d", "e", "f"]))
    _, fresh = plan_extension([old], more, "store", skip_known=False)
    assert fresh is not None
    assert fresh.column_names == old.table.column_names
    with pytest.raises(MismatchError, match=r"have the columns .* source now gives"):
        parts_of_source([part(clips(**{"Class": ["x", "y", "z"]}))], clips(source_class=["x", "y", "z"]), "store")
