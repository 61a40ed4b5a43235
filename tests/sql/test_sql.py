"""SQL's lists of functions against the installed DuckDB, and the limits that end a query."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from logitstore.errors import LogitstoreError, QueryError, QueryLimitError, UsageError
from logitstore.sql import sandbox as sandbox_module
from logitstore.sql.functions import (
    FUNCTIONS,
    REFUSED_FUNCTIONS,
    REFUSED_TABLE_FUNCTIONS,
    TABLE_FUNCTIONS,
    TIME_AND_CHANCE,
)
from logitstore.sql.limits import VARIABLES, Limits, size
from logitstore.sql.sandbox import Sandbox, abandoned

ENDLESS = "SELECT sum(hash(a.range + b.range)) FROM range(10000000) a, range(100000) b"
#: One call of one function, in which DuckDB does not look whether it was interrupted.
DEAF = "SELECT jaro_similarity(repeat('ab', 600000), repeat('ba', 600000))"


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for variable in VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)
    yield tmp_path
    assert [path for path in tmp_path.iterdir() if path.name.startswith("logitstore")] == []


def answer(sql: str, limits: Limits) -> pa.Table:
    with Sandbox(limits) as sandbox, sandbox.stream(sql) as reader:
        return reader.read_all()


# the lists


@pytest.fixture(scope="module")
def installed() -> list[tuple[str, str, str, bool]]:
    """Name, kind, stability, side effects of every function of the DuckDB that is installed."""
    with duckdb.connect() as connection:
        return connection.execute(
            "SELECT DISTINCT lower(function_name), function_type, coalesce(stability, ''), "
            "coalesce(has_side_effects, false) FROM duckdb_functions() ORDER BY ALL"
        ).fetchall()


def test_every_function_of_this_duckdb_is_allowed_or_refused(installed: list[tuple[str, str, str, bool]]) -> None:
    tables = {name for name, kind, *_ in installed if kind in ("table", "table_macro")}
    others = {name for name, kind, *_ in installed if kind not in ("table", "table_macro", "pragma")}
    new = others - FUNCTIONS - REFUSED_FUNCTIONS
    assert not new, f"DuckDB {duckdb.__version__} has functions that nobody has looked at (sql/functions.py): {new}"
    new = tables - TABLE_FUNCTIONS - REFUSED_TABLE_FUNCTIONS
    assert not new, f"DuckDB {duckdb.__version__} has table functions that nobody has looked at: {new}"


def test_no_function_is_allowed_and_refused() -> None:
    assert not FUNCTIONS & REFUSED_FUNCTIONS
    assert not TABLE_FUNCTIONS & REFUSED_TABLE_FUNCTIONS
    assert TIME_AND_CHANCE <= FUNCTIONS


def test_what_duckdb_calls_volatile_is_refused_but_time_and_chance(
    installed: list[tuple[str, str, str, bool]],
) -> None:
    volatile = {name for name, kind, stability, effects in installed if stability == "VOLATILE" or effects}
    assert volatile - REFUSED_FUNCTIONS <= TIME_AND_CHANCE


def test_nothing_allowed_sounds_of_the_outside() -> None:
    outside = re.compile(
        r"read_.*|.*_scan|duckdb_.*|pragma_.*|parquet_.*|.*secret.*|.*setting.*|.*env|.*sleep.*|.*_log|glob|query.*"
        r"|__internal.*|.*variable|.*_plan|.*seriali[sz]e.*|nextval|currval|set(seed|val)|has_.*_privilege|inet_.*"
    )
    assert [name for name in sorted(FUNCTIONS | TABLE_FUNCTIONS) if outside.fullmatch(name)] == []


def test_no_refused_function_can_be_called_without_parentheses() -> None:
    with duckdb.connect() as connection:
        for name in sorted(REFUSED_FUNCTIONS):
            with pytest.raises(duckdb.BinderException, match="not found"):
                connection.execute(f'SELECT "{name}"')


# the limits


def test_a_query_ends_by_its_time() -> None:
    begun = time.monotonic()
    with pytest.raises(QueryLimitError, match=r"ended after 0\.5 s; .* --timeout of inspect or LOGITSTORE_SQL_TIMEOUT"):
        answer(ENDLESS, Limits(timeout=0.5))
    assert time.monotonic() - begun < 2
    assert not abandoned()


def test_only_the_time_of_the_query_counts() -> None:
    with (
        Sandbox(Limits(timeout=1)) as sandbox,
        sandbox.stream("SELECT range, repeat('x', 100) FROM range(300000)") as reader,
    ):
        rows = 0
        for batch in reader:
            rows += batch.num_rows
            time.sleep(0.4)
    assert rows == 300_000


def test_a_query_ends_by_its_memory() -> None:
    with pytest.raises(QueryLimitError, match=r"more than 64MB of memory; .* --memory of .* LOGITSTORE_SQL_MEMORY"):
        answer("SELECT list(i) FROM range(1000000000) t(i)", Limits(memory=64 * 10**6))


def test_a_query_ends_by_its_temporary_space(own_folder: Path) -> None:
    sql = "SELECT count(DISTINCT hash(i)) FROM range(1000000000) t(i)"
    with pytest.raises(QueryLimitError, match=r"more than 20MB of temporary disk space; .* --temp-space of inspect or"):
        answer(sql, Limits(memory=64 * 10**6, temp_space=20 * 10**6))
    with pytest.raises(QueryLimitError, match=r"temporary disk space|of memory"):
        answer(sql, Limits(memory=64 * 10**6, temp_space=0))


def test_a_query_that_needs_less_than_its_limits_goes_on() -> None:
    sql = "SELECT count(*) AS n FROM (SELECT DISTINCT hash(i) FROM range(3000000) t(i))"
    assert answer(sql, Limits(memory=64 * 10**6))["n"].to_pylist() == [3_000_000]


def test_memory_that_duckdb_does_not_count_ends_a_query_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_module, "_UNCOUNTED", 100 * 10**6)
    with pytest.raises(QueryLimitError, match="more than 64MB of memory"):
        answer("SELECT sum(len(range(60000000 + i))) FROM range(2) t(i)", Limits(memory=64 * 10**6))
    ended = time.monotonic() + 60
    while abandoned() and time.monotonic() < ended:
        time.sleep(0.1)
    assert not abandoned()


def test_a_query_that_does_not_hear_is_left_alone() -> None:
    begun = time.monotonic()
    with pytest.raises(QueryLimitError, match=r"ended after 0\.3 s"):
        answer(DEAF, Limits(timeout=0.3))
    assert time.monotonic() - begun < 2
    assert abandoned()
    ended = time.monotonic() + 60
    while abandoned() and time.monotonic() < ended:
        time.sleep(0.1)
    assert not abandoned()


def test_a_limit_is_a_failed_job_and_a_query_error() -> None:
    error = Limits().exceeded("timeout")
    assert isinstance(error, QueryError)
    assert isinstance(error, LogitstoreError)
    assert error.exit_code == 1
    assert all("\n" not in str(Limits().exceeded(name)) for name in VARIABLES)


def test_limits_are_read_from_options_and_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Limits.of() == Limits() == Limits(120, 384_000_000, 500_000_000)
    assert Limits.of("0", "2GiB", "0") == Limits(0, 2 << 30, 0)
    monkeypatch.setenv("LOGITSTORE_SQL_TIMEOUT", "2.5")
    monkeypatch.setenv("LOGITSTORE_SQL_TEMP_SPACE", "1.5 gb")
    assert Limits.of(memory="64mb") == Limits(2.5, 64_000_000, 1_500_000_000)
    assert Limits.of(timeout="7").timeout == 7
    assert [size(count) for count in (384 * 10**6, 10**9, 1_500_000_000, 5)] == ["384MB", "1GB", "1.5GB", "5"]


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"timeout": "-1"}, "--timeout is '-1'; give seconds such as 60, or 0 for no limit"),
        ({"timeout": "nan"}, "give seconds"),
        ({"memory": "much"}, "--memory is 'much'; give a size such as 500MB or 2GB"),
        ({"memory": "1MB"}, "a query needs at least 32MB"),
        ({"temp_space": "-5GB"}, "--temp-space is '-5GB'; give a size"),
    ],
)
def test_limits_that_are_none(given: dict[str, str], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        Limits.of(**given)


def test_a_limit_in_the_environment_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGITSTORE_SQL_MEMORY", "lots")
    with pytest.raises(UsageError, match="LOGITSTORE_SQL_MEMORY is 'lots'; give a size"):
        Limits.of()


# temporary files


def test_what_a_killed_process_left_is_removed(own_folder: Path) -> None:
    names = ("logitstore-sql-killed", "logitstore-sql-used", "logitstore-sql-new", "other")
    for name in names:
        (own_folder / name).mkdir()
        (own_folder / name / "block").write_bytes(b"x")
        if not name.endswith("new"):
            os.utime(own_folder / name, (0, 0))
    (own_folder / "logitstore-sql-link").symlink_to(own_folder / "other")
    held = os.open(own_folder / "logitstore-sql-used", os.O_RDONLY | os.O_DIRECTORY)
    sandbox_module.fcntl.flock(held, sandbox_module.fcntl.LOCK_EX)
    answer("SELECT 1", Limits())
    left = sorted(path.name for path in own_folder.iterdir())
    assert left == ["logitstore-sql-link", "logitstore-sql-new", "logitstore-sql-used", "other"]
    os.close(held)
    (own_folder / "logitstore-sql-link").unlink()
    for name in left[1:3]:
        shutil.rmtree(own_folder / name)


def test_no_thread_is_left(own_folder: Path) -> None:
    before = threading.active_count()
    answer("SELECT 1", Limits())
    with pytest.raises(QueryError, match="division"):
        answer("SELECT error('division')", Limits())
    assert threading.active_count() == before
