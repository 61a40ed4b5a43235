"""SQL over stores: right answers from few blocks, and nothing but answers."""

from __future__ import annotations

import pickle
import threading
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import logitstore
from logitstore.errors import CorruptStoreError, QueryError
from logitstore.sql.limits import Limits
from logitstore.sql.sandbox import connect
from logitstore.store.reader import Store
from logitstore.store.sql.lazy import LazyTable, TablePart
from logitstore.store.sql.query import run_query, stream_query
from logitstore.store.sql.tables import tables
from logitstore.views.ops.frequency_mask import FrequencyMask
from logitstore.views.ops.gain import Gain
from logitstore.views.ops.mixup import Mixup
from logitstore.views.ops.noise import Noise
from logitstore.views.ops.time_mask import TimeMask
from logitstore.views.recipe import NONE, Draws, Recipe, masks
from tests.small_store import Made, Spec, damage, make_store

CLIPS = 37


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    spec = Spec(clips=CLIPS, keep_members=True, view_ranges=((0, 2), (2, 3)))
    fold = pa.array([row % 3 for row in range(CLIPS)])
    return make_store(tmp_path_factory.mktemp("query") / "store", spec, fold=fold)


@pytest.fixture
def store(made: Made) -> Store:
    return logitstore.open_store(made.path)


class Decoded:
    """Counts what a store decodes, by the method that is asked for it (not those that it calls in turn)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
        self.blocks: dict[str, list[str]] = {}
        self._within = threading.local()
        for name in ("block_targets", "block_draws", "block_members", "block_classes"):
            self.blocks[name] = []
            monkeypatch.setattr(store, name, self._counted(name, getattr(store, name)))

    def _counted(self, name: str, method: Any) -> Any:
        def call(commit: Any) -> Any:
            if getattr(self._within, "call", False):
                return method(commit)
            self.blocks[name].append(commit.name)
            self._within.call = True
            try:
                return method(commit)
            finally:
                self._within.call = False

        return call

    @property
    def used(self) -> dict[str, int]:
        return {name: len(blocks) for name, blocks in self.blocks.items() if blocks}


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch, store: Store) -> Decoded:
    return Decoded(monkeypatch, store)


def columns(table: pa.Table) -> dict[str, np.ndarray]:
    return {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}


# right answers


def test_topk_is_what_was_written(store: Store, made: Made) -> None:
    got = columns(run_query(store, "FROM topk ORDER BY clip, view, rank"))
    rows = np.flatnonzero(made.readable)
    shape = (len(rows), 3, 5)
    assert (got["clip"].reshape(shape) == rows[:, None, None]).all()
    assert (got["view"].reshape(shape) == np.arange(3)[:, None]).all()
    assert (got["rank"].reshape(shape) == np.arange(1, 6)).all()
    assert (got["class_index"].reshape(shape) == made.classes[rows]).all()
    assert (got["class"] == np.array(made.names)[got["class_index"]]).all()
    assert (got["probability"].reshape(shape) == made.probabilities[rows]).all()


def test_members_are_what_was_written(store: Store, made: Made) -> None:
    got = run_query(store, "FROM members JOIN teachers USING (member) ORDER BY digest, clip, view, rank")
    rows = np.flatnonzero(made.readable)
    values = got["probability"].to_numpy().reshape(2, len(rows), 3, 5)
    assert (values == made.members[:, rows]).all()
    assert (got["class_index"].to_numpy().reshape(values.shape) == made.classes[rows]).all()
    assert got["member"].to_pylist()[:: len(rows) * 15] == ["net", "net #2"]


def test_views_show_draws_in_plain_units(store: Store, made: Made) -> None:
    got = columns(run_query(store, "FROM views ORDER BY clip, view"))
    rows = np.flatnonzero(made.readable)
    flat = {name: values[rows].reshape(-1) for name, values in made.draws.items()}
    spans = masks(store.manifest.recipe, Draws(flat))
    assert spans is not None
    assert (got["roll_samples"] == flat["roll"]).all()
    assert np.allclose(got["time_start_ms"] / 1000, spans.time_start)
    assert np.allclose(got["time_end_ms"] / 1000, spans.time_end)
    assert (got["freq_low_step"] == flat["freq_low"]).all()
    assert (got["freq_high_step"] - got["freq_low_step"] == flat["freq_steps"]).all()
    assert np.allclose(got["freq_low_hz"], spans.freq_low)
    assert np.allclose(got["freq_high_hz"], spans.freq_high)
    assert (got["top1"] == np.array(made.names)[made.classes[rows][:, :, 0].reshape(-1)]).all()
    assert (got["top1_probability"] == made.probabilities[rows][:, :, 0].reshape(-1)).all()
    p = made.probabilities[rows].astype(np.float64)
    expected = -(p * np.log(p) + (1 - p) * np.log(1 - p)).sum(-1)
    assert np.allclose(got["entropy"], expected.reshape(-1))


def test_softmax_entropy_is_of_the_stored_classes(tmp_path: Path) -> None:
    made = make_store(tmp_path / "store", Spec(clips=9, scores="softmax", failed=()))
    got = run_query(logitstore.open_store(made.path), "SELECT entropy FROM views ORDER BY clip, view")
    p = made.probabilities.astype(np.float64)
    assert np.allclose(got["entropy"].to_numpy(), -(p * np.log(p)).sum(-1).reshape(-1))


def test_views_of_every_other_op(tmp_path: Path) -> None:
    ops = (
        Gain(min_db=-3, max_db=3),
        Mixup(),
        Noise(),
        TimeMask(max_seconds=0.5),
        FrequencyMask(min_hz=50, max_hz=7000),
    )
    made = make_store(tmp_path / "store", Spec(clips=20, recipe=Recipe("all", ops)))
    store = logitstore.open_store(made.path)
    got = run_query(store, "FROM views ORDER BY clip, view").to_pydict()
    rows = np.flatnonzero(made.readable)
    flat = {name: values[rows].reshape(-1) for name, values in made.draws.items()}
    assert np.allclose(got["gain_db"], flat["gain_cdb"] / 100)
    assert np.allclose(got["mixup_weight"], flat["mixup_weight"] / 1024)
    first = np.array(got["clip"]) // 8 * 8
    mixed = flat["mixup_weight"] > 0
    assert mixed.any()
    assert not mixed.all()
    partners = np.where(mixed, first + flat["mixup_partner"], -1)
    assert [-1 if value is None else value for value in got["mixup_partner_clip"]] == partners.tolist()
    noisy = flat["noise_key"] > 0
    assert [value is not None for value in got["noise_snr_db"]] == noisy.tolist()
    assert [value for value in got["noise_key"] if value] == flat["noise_key"][noisy].tolist()
    assert min(got["freq_low_hz"]) >= 50 - 1e-9
    assert max(got["freq_high_hz"]) <= 7000 + 1e-9


def test_a_store_without_draws_or_members(tmp_path: Path) -> None:
    made = make_store(tmp_path / "store", Spec(recipe=NONE))
    store = logitstore.open_store(made.path)
    assert run_query(store, "FROM views").column_names == ["clip", "view", "entropy", "top1", "top1_probability"]
    with pytest.raises(QueryError, match="no table 'members'; the tables are clips, views, topk, answers, teachers"):
        run_query(store, "FROM members")


def test_clips_failures_teachers_and_blocks(store: Store, made: Made) -> None:
    clips = run_query(store, "FROM clips ORDER BY clip")
    assert clips.column_names == ["clip", "path", "start", "length", "rate", "fold"]
    assert clips["clip"].to_pylist() == list(range(CLIPS))
    assert run_query(store, "FROM failures").to_pylist() == [
        {"clip": 10, "path": "folder/clip 000010.wav", "start_s": None, "reason": "not audio",
         "view_start": 0, "view_stop": 3}
    ]  # fmt: skip
    assert run_query(store, "SELECT member, weight FROM teachers").num_rows == 2
    blocks = run_query(store, "FROM blocks ORDER BY name").to_pylist()
    assert len(blocks) == 10
    assert [block["name"] for block in blocks[:2]] == ["000000-0-2", "000000-2-3"]
    assert blocks[2]["failed"] == 1
    on_disk = sum(file.stat().st_size for file in (made.path / "blocks" / "000001-0-2").rglob("*") if file.is_file())
    assert blocks[2]["bytes"] == on_disk


def test_joins_self_joins_and_subqueries(store: Store, made: Made) -> None:
    agree = run_query(
        store,
        "SELECT count(*) n FROM topk a JOIN topk b USING (clip, rank) "
        "WHERE a.view = 0 AND b.view = 2 AND a.class = b.class",
    )
    rows = np.flatnonzero(made.readable)
    assert agree["n"].to_pylist() == [int((made.classes[rows, 0] == made.classes[rows, 2]).sum())]
    by_fold = run_query(
        store,
        "WITH best AS (SELECT clip, max(probability) p FROM topk GROUP BY clip) "
        "SELECT fold, count(*) n FROM best JOIN clips USING (clip) WHERE p >= (SELECT min(p) FROM best) "
        "GROUP BY fold ORDER BY fold",
    )
    assert by_fold["n"].to_pylist() == [int((rows % 3 == fold).sum()) for fold in range(3)]


def test_a_store_without_blocks(tmp_path: Path) -> None:
    every = tuple(f"00000{shard}-0-3" for shard in range(5))
    made = make_store(tmp_path / "store", Spec(skip_blocks=every))
    store = logitstore.open_store(made.path)
    for table in ("views", "topk", "failures", "blocks"):
        assert run_query(store, f"FROM {table}").num_rows == 0
    assert run_query(store, "SELECT count(*) n FROM clips")["n"].to_pylist() == [CLIPS]


def test_store_sql_takes_parameters(store: Store) -> None:
    got = store.sql(
        "SELECT clip, path FROM clips WHERE clip < $most AND path LIKE $like", {"most": 3, "like": "%2.wav"}
    )
    assert got.to_pylist() == [{"clip": 2, "path": "folder/clip 000002.wav"}]


CONDITIONS = st.recursive(
    st.one_of(
        st.builds("{} {} {}".format, st.sampled_from(["clip", "view", "rank", "class_index"]),
                  st.sampled_from(["<", "<=", "=", "<>", ">=", ">"]), st.integers(-2, 40)),
        st.builds("clip IN ({}, {}, NULL)".format, st.integers(0, 40), st.integers(0, 40)),
        st.builds("view BETWEEN {} AND {}".format, st.integers(0, 3), st.integers(0, 3)),
        st.builds("class {} 'class {}'".format, st.sampled_from(["=", "<", ">="]), st.integers(0, 13)),
        st.builds("class IN ('class {}', 'class {}', 'nothing')".format, st.integers(0, 13), st.integers(0, 13)),
        st.builds("probability {} {}".format, st.sampled_from(["<", ">="]), st.floats(0, 1, width=16)),
        st.sampled_from(["class LIKE '%1'", "clip % 3 = 1", "view IS NULL", "clip IS NOT NULL", "clip = view"]),
    ),
    lambda inner: st.one_of(
        st.builds("({} AND {})".format, inner, inner),
        st.builds("({} OR {})".format, inner, inner),
        st.builds("(NOT {})".format, inner),
    ),
    max_leaves=4,
)  # fmt: skip


@pytest.fixture(scope="module")
def whole(made: Made) -> Any:
    connection = duckdb.connect()
    maker = tables(logitstore.open_store(made.path))["topk"]
    connection.register("topk", maker().scanner().to_reader().read_all())
    yield connection
    connection.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(condition=CONDITIONS)
def test_filters_agree_with_a_plain_table(store: Store, whole: Any, condition: str) -> None:
    sql = f"SELECT count(*), sum(clip), sum(view), sum(rank), min(class), max(class) FROM topk WHERE {condition}"
    expected = whole.execute(sql).fetchone()
    assert tuple(column[0].as_py() for column in run_query(store, sql).columns) == expected


ODD = pa.table(
    {
        "d": pa.array([0.0, 1.0, None, float("nan"), float("inf"), float("-inf"), 0.5, -0.0]),
        "f": pa.array([0.0, 1.0, None, float("nan"), float("inf"), float("-inf"), 0.5, -0.0], pa.float32()),
        "i": pa.array([0, 1, None, 3, 4, -5, 6, 7]),
        "s": pa.array(["a", None, "c", "", "b", "d", "e", "f"]),
        "b": pa.array([True, None, False, True, True, False, None, False]),
        "cat": pa.array(["a", None, "c", "a", "b", "d", "e", "f"]).dictionary_encode(),
        "st": pa.array([{"x": 1.0}, None, {"x": None}, {"x": float("nan")}, {"x": 2.0}, {"x": 0.0}, None, {"x": -1.0}]),
    }
)
ODD_VALUES = {
    "d": ("0", "0.5", "'nan'::DOUBLE", "'inf'::DOUBLE", "NULL"),
    "f": ("0", "'nan'::FLOAT", "'-inf'::FLOAT", "NULL"),
    "i": ("0", "3", "NULL"),
    "s": ("'a'", "''", "NULL"),
    "b": ("true", "false", "NULL"),
    "cat": ("'a'", "NULL"),
    "st.x": ("0", "'nan'::DOUBLE", "NULL"),
}
COMPARISONS = ("<", "<=", "=", "<>", ">=", ">", "IS DISTINCT FROM", "IS NOT DISTINCT FROM")


@pytest.mark.parametrize("column", ODD_VALUES)
def test_filters_that_are_pushed_down_keep_nan_and_null_right(column: str) -> None:
    def decode(columns: Any) -> pa.Table:
        return ODD.select([name for name in ODD.column_names if name in columns])

    conditions = [f"{column} IS NULL", f"{column} IS NOT NULL"]
    for value in ODD_VALUES[column]:
        conditions += [f"{column} IN ({value}, NULL)", f"{column} NOT IN ({value})"]
        for comparison in COMPARISONS:
            one = f"{column} {comparison} {value}"
            conditions += [
                one,
                f"NOT ({one})",
                f"({one} OR {column} IS NULL)",
                f"({one} OR i = 1)",
                f"({one} AND i > 0)",
            ]
    connection = duckdb.connect()
    try:
        connection.register("odd", ODD)
        connection.execute("CREATE TABLE plain AS FROM odd")
        connection.register("lazy", LazyTable(ODD.schema, [TablePart({}, len(ODD), decode)]))
        for condition in conditions:
            expected, found = (
                sorted(map(repr, connection.execute(f"SELECT i, d, s FROM {table} WHERE {condition}").fetchall()))
                for table in ("plain", "lazy")
            )
            assert found == expected, condition
    finally:
        connection.close()


# few blocks, few columns


@pytest.mark.parametrize(
    ("sql", "used"),
    [
        ("SELECT count(*) FROM topk", {}),
        ("SELECT max(rank), max(view) FROM topk", {}),
        ("SELECT class, count(*) FROM topk GROUP BY class", {"block_classes": 10}),
        ("SELECT view, class_index, count(*) FROM topk GROUP BY ALL", {"block_classes": 10}),
        ("SELECT avg(probability) FROM topk", {"block_targets": 10}),
        ("SELECT avg(roll_samples) FROM views", {"block_draws": 10}),
        ("SELECT avg(entropy) FROM views", {"block_targets": 10}),
        ("SELECT count(*) FROM views WHERE view = 2", {}),
        ("SELECT count(*) FROM clips", {}),
        ("SELECT member, count(*) FROM members GROUP BY member", {}),
        ("SELECT max(reason) FROM clips JOIN failures USING (clip)", {}),
    ],
)
def test_only_the_columns_asked_for_are_decoded(store: Store, decoded: Decoded, sql: str, used: dict[str, int]) -> None:
    run_query(store, sql)
    assert decoded.used == used


@pytest.mark.parametrize(
    ("condition", "blocks"),
    [
        ("clip = 9", ["000001-0-2", "000001-2-3"]),
        ("clip = 9 AND view = 2", ["000001-2-3"]),
        ("view < 2 AND clip BETWEEN 7 AND 8", ["000000-0-2", "000001-0-2"]),
        ("clip IN (0, 36) AND view = 0", ["000000-0-2", "000004-0-2"]),
        ("(clip < 3 OR clip > 33) AND view = 1", ["000000-0-2", "000004-0-2"]),
        ("clip < 5 AND class = 'class 3' AND view > 1", ["000000-2-3"]),
        ("view = 7", []),
        ("clip < 0", []),
    ],
)
def test_filters_decode_only_the_blocks_they_need(
    store: Store, decoded: Decoded, condition: str, blocks: list[str]
) -> None:
    run_query(store, f"SELECT avg(probability) FROM topk WHERE {condition}")
    assert sorted(decoded.blocks["block_targets"]) == blocks


def test_an_answer_that_is_read_in_part_decodes_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_store(tmp_path / "store", Spec(clips=200, shard_clips=4, view_ranges=((0, 1),), failed=()))
    store = logitstore.open_store(made.path)
    decoded = Decoded(monkeypatch, store)
    with stream_query(store, "SELECT clip, probability FROM topk LIMIT 3") as reader:
        assert reader.read_all().num_rows == 3
    assert len(decoded.blocks["block_targets"]) < 40


def test_a_reader_can_be_left_early(store: Store) -> None:
    for _ in range(5):
        with stream_query(store, "FROM range(10000000)") as reader:
            assert reader.read_next_batch().num_rows > 0


# nothing but answers

OUTSIDE = "is not allowed: SQL reads its tables and no file, network, setting or environment"

ATTACKS = [
    ("SELECT 1; SELECT 2", "holds 2 statements; allowed is one SELECT"),
    ("SELECT 1; DROP VIEW topk", "holds 2 statements"),
    ("", "holds no statements"),
    ("-- nothing", "holds no statements"),
    ("COPY topk TO 'out.csv'", "kind COPY, and SQL is read-only here"),
    ("COPY (SELECT 1) TO '/tmp/out.parquet'", "kind COPY"),
    ("ATTACH 'other.db'", "kind ATTACH"),
    ("INSTALL httpfs", "kind LOAD"),
    ("LOAD httpfs", "kind LOAD"),
    ("PRAGMA database_list", "kind PRAGMA"),
    ("SET threads = 1", "kind SET"),
    ("RESET threads", "kind"),
    ("CREATE TABLE t AS SELECT 1", "kind CREATE"),
    ("CREATE MACRO f() AS getenv('HOME')", "kind CREATE"),
    ("INSERT INTO topk SELECT * FROM topk", "kind INSERT"),
    ("DELETE FROM topk", "kind DELETE"),
    ("UPDATE topk SET view = 1", "kind UPDATE"),
    ("EXPORT DATABASE 'x'", "kind EXPORT"),
    ("CALL pragma_version()", "kind CALL"),
    ("EXPLAIN COPY topk TO 'out.csv'", "cannot be checked .Only SELECT statements"),
    ("EXPLAIN SELECT getenv('HOME')", "getenv.. " + OUTSIDE),
    ("/* a */ explain -- b\n analyze FROM read_text('/etc/passwd')", OUTSIDE),
    ("EXPLAIN ANALYZE FROM '/etc/passwd'", "no table '/etc/passwd'"),
    ("EXPLAIN ANALYZE CREATE TABLE t AS SELECT 1", "cannot be checked .Only SELECT statements"),
    ("EXPLAIN SELECT 1; DROP TABLE topk", "holds 2 statements"),
    ("PREPARE q AS SELECT 1", "kind PREPARE"),
    ("FROM read_csv('/etc/passwd')", "read_csv.. " + OUTSIDE),
    ("FROM read_text('/etc/passwd')", OUTSIDE),
    ("FROM read_blob('/etc/passwd')", OUTSIDE),
    ("FROM parquet_scan('*.parquet')", OUTSIDE),
    ("FROM glob('/*')", OUTSIDE),
    ("FROM sniff_csv('/etc/passwd')", OUTSIDE),
    ("FROM '/etc/passwd'", "no table '/etc/passwd'; the tables are clips, views, topk"),
    ("FROM 'https://example.com/x.csv'", "no table 'https"),
    ("FROM query('SELECT 1')", OUTSIDE),
    ("FROM query_table('topk')", OUTSIDE),
    ("FROM duckdb_settings()", OUTSIDE),
    ("FROM duckdb_secrets()", OUTSIDE),
    ("FROM pragma_database_size()", OUTSIDE),
    ("FROM arrow_scan(1, 2, 3)", OUTSIDE),
    ("FROM json_execute_serialized_sql('{}')", OUTSIDE),
    ("FROM information_schema.tables", "no table 'information_schema.tables'"),
    ("FROM sqlite_master", "no table 'sqlite_master'"),
    ("FROM duckdb_tables", "no table 'duckdb_tables'"),
    ("FROM memory.main.topk", "no table 'memory.main.topk'"),
    ("FROM store", "no table 'store'"),
    ("WITH duckdb_views AS (FROM duckdb_views) FROM duckdb_views", "no table 'duckdb_views'"),
    (
        "WITH RECURSIVE duckdb_views AS (FROM duckdb_views UNION ALL SELECT 1) FROM duckdb_views",
        "no table 'duckdb_views'",
    ),
    ("SELECT * FROM (WITH pg_class AS (SELECT 1) FROM pg_class), pg_class", "no table 'pg_class'"),
    ("SHOW DATABASES", "SHOW databases is not possible"),
    ("SHOW TABLES FROM system", "this SHOW is not possible; allowed are SHOW TABLES, and DESCRIBE or SUMMARIZE of"),
    ("DESCRIBE duckdb_settings", "no table 'duckdb_settings'"),
    ("SUMMARIZE SELECT * FROM duckdb_settings()", OUTSIDE),
    ("FROM histogram('topk', 'rank')", OUTSIDE),
    ("FROM main.topk", "no table 'main.topk'"),
    ("FROM a.b.c.topk", "no table 'a.b.c.topk'"),
    ("SELECT version()", OUTSIDE),
    ("SELECT setseed(0.5)", OUTSIDE),
    ("SELECT finalize(x) FROM topk", OUTSIDE),
    ("FROM nofunction()", "no table function nofunction.., or it is newer"),
    ("SELECT getenv('HOME')", "getenv.. " + OUTSIDE),
    ("SELECT 'HOME'.getenv()", OUTSIDE),
    ("SELECT GETENV('HOME') FROM topk", OUTSIDE),
    ("SELECT system.main.getenv('HOME')", OUTSIDE),
    ("SELECT current_setting('threads')", OUTSIDE),
    ("SELECT getvariable('x')", OUTSIDE),
    ("SELECT list_transform(['a'], x -> current_setting(x))", OUTSIDE),
    ("SELECT 1 FROM topk ORDER BY current_setting('threads')", OUTSIDE),
    ("SELECT sum(clip) OVER (PARTITION BY current_setting('threads')) FROM clips", OUTSIDE),
    ("SELECT * FROM clips WHERE path IN (SELECT * FROM read_text('/etc/hostname'))", OUTSIDE),
    ("SELECT json_serialize_plan('SELECT current_setting(''threads'')')", OUTSIDE),
    ("SELECT write_log('x')", OUTSIDE),
    ("SELECT nextval('x')", OUTSIDE),
    ("SELECT sleep_ms(100000)", OUTSIDE),
    ("SELECT pg_sleep(100)", OUTSIDE),
    ("PIVOT topk ON class USING count(*)", "list them: PIVOT"),
    ("SELECT 'a\0b'", "zero byte"),
    ("SELECT '\udc80'", "not UTF-8"),
    ("SELECT " + "(" * 5000 + "1" + ")" * 5000, "nested too deeply"),
    ("SELECT " + "+".join(["1"] * 990), "nested too deeply"),
    ("SELECT " + "(SELECT " * 400 + "1" + ")" * 400, "nested too deeply"),
]


@pytest.mark.parametrize(("sql", "match"), ATTACKS, ids=[sql[:60] for sql, _ in ATTACKS])
def test_refused(store: Store, sql: str, match: str) -> None:
    with pytest.raises(QueryError, match=match) as caught:
        run_query(store, sql)
    assert "\n" not in str(caught.value)


def test_a_delete_within_a_with(store: Store) -> None:
    with pytest.raises(QueryError, match=r"holds a DELETE|near|A CTE needs a SELECT"):
        run_query(store, "WITH gone AS (DELETE FROM topk RETURNING *) FROM gone")


@pytest.mark.parametrize(
    "sql",
    [
        "FROM read_csv('/etc/passwd')",
        "FROM read_text('/etc/hostname')",
        "FROM '/etc/passwd'",
        "COPY (SELECT 1) TO 'out.csv'",
        "ATTACH 'other.db'",
        "INSTALL httpfs",
        "SET enable_external_access = true",
        "SET memory_limit = '100GB'",
        "FROM local_variable",
    ],
)
def test_the_second_fence_holds_without_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sql: str) -> None:
    local_variable = pa.table({"x": [1]})
    monkeypatch.chdir(tmp_path)
    connection = connect(Limits(), "")
    try:
        with pytest.raises(duckdb.Error, match=r"disabled|locked|does not exist|restricted|ermission"):
            connection.execute(sql)
    finally:
        connection.close()
    assert local_variable.num_rows == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "sql",
    [
        "VALUES (1), (2)",
        "FROM topk LIMIT 1",
        "TABLE teachers",
        "DESCRIBE topk",
        "SUMMARIZE failures",
        "SHOW TABLES",
        "WITH a AS (FROM clips), b AS (FROM a) SELECT count(*) FROM b",
        "WITH a AS MATERIALIZED (FROM clips) SELECT * FROM a x JOIN a y USING (clip)",
        "WITH RECURSIVE r AS (SELECT 1 n UNION ALL SELECT n + 1 FROM r WHERE n < 5) FROM r",
        "WITH topk AS (SELECT 1 x) FROM topk",
        "SELECT * FROM (PIVOT topk ON rank IN (1, 2) USING avg(probability) GROUP BY view)",
        "SELECT a FROM range(3) t(a), LATERAL (SELECT a + 1)",
        "SELECT unnest(['a', 'b'])",
        "SELECT random(), now(), uuid() FROM Clips LIMIT 1",
        "SELECT columns('cl.*') FROM topk LIMIT 1",
        "FROM clips TABLESAMPLE 5 ROWS",
        "SELECT rank() OVER (ORDER BY probability) FROM topk",
        "SELECT clip FROM topk UNION SELECT clip FROM failures;",
        "SHOW ALL TABLES",
        "DESCRIBE",
        "DESC clips",
        "DESCRIBE SELECT clip + 1 FROM clips",
        "SUMMARIZE SELECT probability FROM topk WHERE view = 1",
        "SELECT * FROM (DESCRIBE topk) WHERE column_name = 'clip'",
        "EXPLAIN SELECT clip FROM clips",
        "explain analyze FROM topk WHERE view = 1;",
        "-- why so slow?\n/* really */ EXPLAIN -- please\n SELECT 1",
        "EXPLAIN WITH a AS (FROM clips) FROM a",
        "FROM json_each('[1, 2]')",
    ],
)
def test_allowed(store: Store, sql: str) -> None:
    assert run_query(store, sql).num_columns > 0


def test_show_tables_names_the_tables(store: Store) -> None:
    names = run_query(store, "SHOW TABLES")["name"].to_pylist()
    assert names == ["answers", "blocks", "clips", "failures", "members", "ops", "recipe", "teachers", "topk", "views"]
    described = run_query(store, "DESCRIBE topk")
    columns = ["clip", "view", "rank", "class_index", "class", "probability", "disagreement"]
    assert described["column_name"].to_pylist() == columns
    assert run_query(store, "SUMMARIZE topk")["count"].to_pylist() == [36 * 15] * 7


def test_explain_decodes_nothing_and_takes_parameters(store: Store, decoded: Decoded) -> None:
    plan = run_query(store, "EXPLAIN SELECT avg(probability) FROM topk WHERE clip < $most", {"most": 5})
    assert plan.column_names == ["explain_key", "explain_value"]
    assert decoded.used == {}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1 + 1", 2), ("5 - 3", 2), ("-(2)", -2), ("3 * 4 % 5", 2), ("7 // 2", 3), ("2 ** 3", 8.0), ("2 ^ 3", 8.0),
        ("1 / 4", 0.25), ("5!", 120), ("@ -3", 3), ("~1", -2), ("6 & 3", 2), ("6 | 3", 7), ("1 << 3", 8), ("8 >> 1", 4),
        ("xor(6, 3)", 5), ("'a' || 'b'", "ab"), ("'abc' LIKE 'a%'", True), ("'abc' NOT ILIKE 'A%'", False),
        ("'abc' ~ 'abc'", True), ("'abc' SIMILAR TO 'a.c'", True), ("'abc' GLOB 'a*'", True), ("'abc' ^@ 'a'", True),
        ("2 BETWEEN 1 AND 3", True), ("NULL IS DISTINCT FROM 1", True), ("1 IN (1, 2)", True), ("'1'::INT", 1),
        ("TRY_CAST('x' AS INT)", None), ("TRY(CAST('x' AS INT))", None), ("[x + 1 FOR x IN [1, 2] IF x > 1]", [3]),
        ("list_transform([1, 2], lambda x: x * 2)", [2, 4]), ("list_reduce([1, 2, 3], lambda a, b: a + b)", 6),
        ("[1, 2, 3][2:]", [2, 3]), ("{'a': 1}.a", 1), ("map {'a': 1}['a']", 1), ("'[7]'::JSON ->> 0", "7"),
        ("[1, 2] && [2]", True), ("[1, 2] @> [1]", True), ("array_value(1, 2) <-> array_value(1, 3)", 1.0),
        ("CASE WHEN 1 < 2 THEN 'a' ELSE 'b' END", "a"), ("coalesce(NULL, 1)", 1), ("nullif(1, 1)", None),
        ("if(1 > 2, 1, 2)", 2), ("extract(year FROM DATE '2020-02-03')", 2020), ("position('b' IN 'abc')", 2),
        ("epoch(INTERVAL 2 MINUTE)", 120.0), ("trim(BOTH 'x' FROM 'xax')", "a"), ("substring('abc' FROM 2 FOR 1)", "b"),
        ("'abc'.upper()", "ABC"), ("list_avg([1, 2])", 1.5), ("geomean(2.0)", 2.0), ("1 = ANY ([1, 2])", True),
        ("'B' COLLATE NOCASE = 'b'", True), ("hash(1) = hash(1)", True), ("regexp_extract('a1', '[0-9]')", "1"),
        ("split_part('a-b', '-', 2)", "b"), ("(TIMESTAMP '2020-01-01' AT TIME ZONE 'UTC') IS NOT NULL", True),
        ("count(*) FILTER (WHERE true)", 1), ("string_agg('a', ',')", "a"), ("unnest([3])", 3),
    ],
)  # fmt: skip
def test_operators_casts_lambdas_and_macros(store: Store, expression: str, value: Any) -> None:
    assert run_query(store, f"SELECT {expression} AS x")["x"].to_pylist() == [value]


# errors


@pytest.mark.parametrize(
    ("sql", "match"),
    [
        ("SELCT 1", r"^SQL, line 1, column 1, at 'SELCT 1': syntax error"),
        ("SELECT *\nFROM topk\nWHER view = 1", r"^SQL, line 3, column \d+, at .*: syntax error"),
        ("SELECT foo FROM topk", r"^SQL.*column \"foo\" not found"),
        ("SELECT nofunction(1)", "there is no function nofunction.., or it is newer"),
        ("SELECT medan(clip) FROM clips", "near it are median"),
        ("SELECT CAST(class AS INT) FROM topk", "Could not convert string 'class"),
        (
            "FROM topc",
            "there is no table 'topc'; the tables are clips, views, topk, answers, members, teachers, recipe, ops, ",
        ),
        ("SELECT $x", r"parameter \$x and no value for it; give -p x VALUE"),
        ("SELECT ?", r"write \$name"),
    ],
)
def test_errors_are_one_clear_line(store: Store, sql: str, match: str) -> None:
    with pytest.raises(QueryError, match=match) as caught:
        run_query(store, sql)
    assert "\n" not in str(caught.value)


def test_a_value_without_a_parameter(store: Store) -> None:
    with pytest.raises(QueryError, match=r"no parameter \$fold; it has \$view"):
        run_query(store, "SELECT $view", {"view": 1, "fold": 2})


def test_damage_is_told_as_damage_and_only_where_it_matters(tmp_path: Path) -> None:
    made = make_store(tmp_path / "store", Spec())
    file = damage(made.path, "000002-0-3")
    store = logitstore.open_store(made.path)
    with pytest.raises(CorruptStoreError, match=f"{file.relative_to(made.path)} is not the object that was committed"):
        run_query(store, "SELECT class, count(*) FROM topk GROUP BY class")
    assert run_query(store, "SELECT class FROM topk WHERE clip < 16").num_rows == 15 * 15
    assert run_query(store, "SELECT avg(roll_samples) FROM views WHERE clip < 16").num_rows == 1
    table = made.path / "clips" / "00000.parquet"
    table.write_bytes(table.read_bytes()[:-1] + b"?")
    with pytest.raises(
        CorruptStoreError, match=r"clips/00000\.parquet is damaged \(it is no Parquet file, or not whole\)"
    ):
        run_query(logitstore.open_store(made.path), "FROM clips")


def test_a_table_is_not_pickled(store: Store) -> None:
    with pytest.raises(TypeError, match="open the store in each process"):
        pickle.dumps(tables(store)["topk"]())


def test_nothing_of_the_store_changes(made: Made, store: Store) -> None:
    before = {file: file.read_bytes() for file in made.path.rglob("*") if file.is_file()}
    run_query(store, "SELECT * FROM topk JOIN views USING (clip, view) JOIN clips USING (clip)")
    assert {file: file.read_bytes() for file in made.path.rglob("*") if file.is_file()} == before
