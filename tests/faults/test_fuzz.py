"""Recipes, manifests of clips, SQL and roots as nobody should write them: a typed error or a right answer."""

from __future__ import annotations

import json
import math
import string
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from logitstore import open_store
from logitstore.audio.scan import scan
from logitstore.audio.sources import open_source
from logitstore.errors import LogitstoreError
from logitstore.store.format.manifest import Manifest, decode_root, encode_root
from logitstore.views.ops import OPS, Place
from logitstore.views.recipe import draw, load_recipe, masks
from tests.faults.conftest import size
from tests.small_store import Spec, make_store

faults = settings.get_profile("faults")
PLACE = Place(32_000, 16_000, 8)
FRAMES, RATE = 24_000, 8000


tried = {"inputs": 0}


@pytest.fixture(autouse=True)
def count_inputs(counted):
    """How many inputs a test tried."""
    before = tried["inputs"]
    yield
    counted("fuzzed recipes, manifests, queries and roots answered or refused", tried["inputs"] - before)


def one_line(error: LogitstoreError) -> None:
    """An error's message is one line and not empty."""
    assert str(error)
    assert "\n" not in str(error)


# recipes


def _draws_are_right(recipe: Any) -> None:
    keys = [("a.wav", 0, 16_000), ("b.wav", 5, 1), ("c.wav", 0, 32_000)]
    lengths = np.array([16_000, 1, 32_000])
    drawn = draw(recipe, seed=7, keys=keys, view=3, lengths=lengths, place=PLACE, shard_rows=3)
    for name, (low, high) in recipe.ranges(PLACE).items():
        assert (low <= drawn.columns[name]).all()
        assert (drawn.columns[name] < high).all()
    spans = masks(recipe, drawn)
    if spans is not None:
        assert (spans.time_start <= spans.time_end).all()
        assert (spans.freq_low <= spans.freq_high).all()


def _load(path: Path, content: bytes) -> bool:
    tried["inputs"] += 1
    path.write_bytes(content)
    try:
        recipe = load_recipe(str(path))
        recipe.check(PLACE)
    except LogitstoreError as error:
        one_line(error)
        return False
    _draws_are_right(recipe)
    return True


numbers = st.one_of(
    st.integers(-3, 3000), st.floats(-1, 3), st.floats(), st.integers(), st.just(0.5), st.sampled_from([24, 8000, 1.92])
)
values = st.one_of(numbers, numbers, st.none(), st.booleans(), st.text(max_size=5), st.lists(st.integers(), max_size=2))
parameters = st.sampled_from(
    ["probability", "max_fraction", "min_db", "max_db", "min_weight", "max_weight", "min_snr_db", "max_snr_db",
     "max_seconds", "max_steps", "min_hz", "max_hz", "op", "name", "x"]
)  # fmt: skip
ops = st.builds(
    lambda op, more: {"op": op} | more,
    st.one_of(st.sampled_from(sorted(OPS)), st.sampled_from(sorted(OPS)), values),
    st.dictionaries(parameters, values, max_size=3),
)
recipes = st.one_of(
    st.lists(ops, max_size=4),
    st.fixed_dictionaries({"ops": st.lists(ops, max_size=4)}, optional={"name": values, "else": values}),
    values,
)


@settings(faults)
@given(document=recipes)
def test_recipes(tmp_path_factory, document):
    _load(tmp_path_factory.getbasetemp() / "recipe.yaml", yaml.safe_dump(document, allow_unicode=True).encode())


yaml_pieces = st.sampled_from(
    ["- op: roll\n", "- {op: gain}\n", "- op: mixup\n", "  probability: ", "0.5\n", ".nan\n", "&a ", "*a\n", "<<: ",
     "\n", "? ", "[", "{", "2026-11-31\n", "0x\n", "1e999\n", "!!python/object:os.system ", "!!bool x", "!!timestamp x",
     "!!int x", "!!float ", "!!binary 5", "!!set ", "!!omap ", "!!pairs ", "!!str ", "!!null x"]
)  # fmt: skip
yaml_letters = st.sampled_from("-:[]{}&*!|>'\"#%@`,\n\t opsrlgainme_tk019.~<\0\u00e9\u2028")


@settings(faults)
@given(
    content=st.one_of(
        st.binary(max_size=60),
        st.text(yaml_letters, max_size=60).map(str.encode),
        st.lists(yaml_pieces, max_size=8).map(lambda parts: "".join(parts).encode()),
    )
)
def test_recipes_as_text(tmp_path_factory, content):
    _load(tmp_path_factory.getbasetemp() / "recipe.yaml", content)


def test_deep_and_repeating_recipes(tmp_path):
    """Where a parser could run out of stack, memory or patience."""
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(9)
    )
    for content in (
        "[" * 5000,
        "{a: " * 3000,
        "- " * 5000,
        bomb,
        "&a [*a]",
        "ops: &a [*a]",
        "9" * 5000,
        "- op: roll\n" * 2000,
    ):
        assert not _load(tmp_path / "recipe.yaml", content.encode())


# manifests of clips


@pytest.fixture(scope="module")
def audio(tmp_path_factory) -> Path:
    """A folder with two files of three seconds, and one that is no audio."""
    root = tmp_path_factory.mktemp("audio")
    for name in ("a.wav", "b.wav"):
        soundfile.write(root / name, np.zeros(FRAMES, np.float32), RATE, subtype="PCM_16")
    (root / "c.wav").write_text("no audio")
    return root


def _scan(path: Path, audio: Path, content: bytes, where: str | None = None) -> pa.Table | None:
    tried["inputs"] += 1
    path.write_bytes(content)
    try:
        clips = scan(open_source(str(path), str(audio)), clip_seconds=1.0, where=where)
    except LogitstoreError as error:
        one_line(error)
        return None
    assert clips.num_rows
    for clip in clips.to_pylist():
        readable = clip["path"] in ("a.wav", "b.wav")
        assert clip["rate"] == (RATE if readable else 0)
        assert clip["start"] >= 0
        assert 0 <= clip["length"] <= RATE
        assert clip["start"] + clip["length"] <= FRAMES or not clip["length"]
    return clips


seconds = st.one_of(st.none(), st.floats(0, 4), st.floats(), st.sampled_from([0, 0.0, 1, 2.9999, 3, 1e300, 1e-300]))
paths = st.sampled_from(["a.wav", "b.wav", "./a.wav", "c.wav", "d/e.wav", "../a.wav", ""])
rows = st.fixed_dictionaries({"path": paths, "start": seconds, "duration": seconds})


@settings(faults)
@given(
    table=st.lists(rows, min_size=1, max_size=5),
    columns=st.sampled_from([("start",), ("duration",), ("start", "duration")]),
)
def test_manifests_with_times(tmp_path_factory, audio, table, columns):
    """The clips of a row cover its span of the file, in the file's frames."""
    names = ("path", *columns)
    lines = [",".join("" if row[name] is None else str(row[name]) for name in names) for row in table]
    path = tmp_path_factory.getbasetemp() / "times.csv"
    clips = _scan(path, audio, "\n".join([",".join(names), *lines, ""]).encode())
    if clips is None or len(table) > 1 or not clips["rate"][0].as_py():
        return
    start = (table[0]["start"] if "start" in columns else None) or 0.0
    asked = table[0]["duration"] if "duration" in columns else None
    first = min(math.floor(start * RATE + 0.5), 1 << 53)
    span = (
        max(0, FRAMES - first)
        if asked is None
        else min(math.floor(min(asked * RATE, 1 << 53) + 0.5), max(0, FRAMES - first))
    )
    found = clips.to_pylist()
    assert found[0]["start"] == first
    assert sum(clip["length"] for clip in found) >= min(span, max(1, span - RATE // 2))
    assert sum(clip["length"] for clip in found) <= span


csv_letters = st.sampled_from("path,stardurion\n\"'\r\0;\t\\ab.wv01-/\u00e9\ufeff")
csv_pieces = st.sampled_from(
    ["path", "a.wav", "b.wav", ",", "\n", "start", "clip", "rate", "1", "x", '"', "Path", "\r\n"]
)  # fmt: skip


@settings(faults)
@given(
    content=st.one_of(
        st.binary(max_size=80),
        st.binary(max_size=40).map(lambda more: b"path,start\na.wav,1\n" + more),
        st.text(csv_letters, max_size=60).map(lambda text: f"path,start,duration,label\na.wav,0,1,x\n{text}".encode()),
        st.lists(csv_pieces, max_size=14).map(lambda parts: "".join(parts).encode()),
    )
)
def test_manifests_as_bytes(tmp_path_factory, audio, content):
    for ending in ("csv", "tsv", "parquet"):
        _scan(tmp_path_factory.getbasetemp() / f"bytes.{ending}", audio, content)


@settings(faults)
@given(change=st.tuples(st.floats(0, 0.999), st.integers(1, 255)), cut=st.floats(0.3, 1.0))
def test_parquet_manifests_with_a_changed_byte(tmp_path_factory, audio, change, cut):
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"path": ["a.wav", "b.wav"], "start": [0.5, 1.0], "label": ["x", "y"]}), sink)
    content = bytearray(sink.getvalue().to_pybytes())
    content[int(change[0] * len(content))] ^= change[1]
    content = content if cut > 0.4 else content[: int(cut * len(content))]
    path = tmp_path_factory.getbasetemp() / "changed.parquet"
    path.write_bytes(bytes(content))
    tried["inputs"] += 1
    try:
        scan(open_source(str(path), str(audio)), clip_seconds=1.0)
    except LogitstoreError as error:
        one_line(error)


# SQL

tables = [
    "clips",
    "views",
    "topk",
    "failures",
    "blocks",
    "teachers",
    "members",
    "nowhere",
    "sqlite_master",
    "'/etc/passwd'",
]
names = ["clip", "view", "class", "probability", "path", "rank", "roll", "entropy", "top1", "x", "*", "class_index"]
functions = ["count", "max", "sum", "read_csv", "getenv", "glob", "list", "regexp_matches", "sleep", "random", "unnest"]
names_in_sql = st.sampled_from(names)
atoms = st.one_of(
    names_in_sql, st.integers(-9, 10**20).map(str), st.floats().map(str),
    st.text(string.printable, max_size=6).map(lambda text: "'" + text.replace("'", "''") + "'"),
    st.sampled_from(["NULL", "$name", "?", "DATE '2026-02-30'", "[1, 2]", "{'a': 1}", "INTERVAL 1 DAY", "x -> x + 1"]),
)  # fmt: skip
expressions = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.builds(
            "({} {} {})".format,
            inner,
            st.sampled_from(["+", "/", "=", "<", "AND", "LIKE", "||", "IN", "::", "%"]),
            inner,
        ),
        st.builds("{}({})".format, st.sampled_from(functions), inner),
        st.builds("CASE WHEN {} THEN {} END".format, inner, inner),
        st.builds("CAST({} AS {})".format, inner, st.sampled_from(["INT", "VARCHAR", "UTINYINT", "BLOB", "nothing"])),
    ),
    max_leaves=5,
)
selects = st.builds(
    "{}SELECT {} FROM {}{}{}".format,
    st.sampled_from(["", "", "WITH t AS (SELECT 1) ", "EXPLAIN ", "DESCRIBE ", "COPY ", "DELETE FROM clips; "]),
    st.lists(expressions, min_size=1, max_size=3).map(", ".join),
    st.sampled_from(tables),
    st.one_of(st.just(""), expressions.map(" WHERE {}".format), names_in_sql.map(" GROUP BY {}".format)),
    st.sampled_from(
        [
            "",
            "",
            " ORDER BY ALL",
            " LIMIT 3",
            " LIMIT -1",
            ";",
            " --",
            " /*",
            " UNION SELECT 1",
            " JOIN views USING (clip)",
        ]
    ),
)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Any:
    """A store to ask."""
    folder = tmp_path_factory.mktemp("asked") / "store"
    make_store(folder, Spec(clips=9, shard_clips=4, failed=(2,)))
    return open_store(folder)


def _ask(store: Any, sql: str) -> None:
    tried["inputs"] += 1
    try:
        store.sql(sql)
    except LogitstoreError as error:
        one_line(error)


sql_pieces = st.sampled_from(
    ["SELECT", "FROM", "topk", "(", ")", ",", "*", "WHERE", "1", "'", '"', ";", "GROUP BY", "ATTACH", "PRAGMA", "SET",
     "::", "$$", "\\"]
)  # fmt: skip
anything = st.lists(st.one_of(sql_pieces, atoms), max_size=9).map(" ".join)


@settings(faults, max_examples=max(12, size("examples") // 2))
@given(sql=st.one_of(selects, selects, st.text(max_size=40), anything))
def test_sql(store, sql):
    before = store.sql("SELECT count(*) AS n FROM topk").to_pylist()
    _ask(store, sql)
    assert store.sql("SELECT count(*) AS n FROM topk").to_pylist() == before


@settings(faults, max_examples=max(12, size("examples") // 2))
@given(where=st.one_of(expressions, st.text(max_size=30)))
def test_where_of_a_source(tmp_path_factory, audio, where):
    _scan(tmp_path_factory.getbasetemp() / "where.csv", audio, b"path,start,label\na.wav,0,1\nb.wav,1,2\n", where)


# the root of a store


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=4,
)


@settings(faults)
@given(field=st.floats(0, 0.999), value=json_values, extra=st.booleans())
def test_roots_with_another_value(store, tmp_path_factory, field, value, extra):
    """What is read is what was written, or it is refused; all that a reader derives from it as well."""
    root = json.loads(encode_root(store.manifest))
    manifest = root["attributes"]["logitstore"]
    manifest["unknown" if extra else list(manifest)[int(field * len(manifest))]] = value
    folder = tmp_path_factory.getbasetemp() / "root"
    folder.mkdir(exist_ok=True)
    (folder / "zarr.json").write_text(json.dumps(root))
    _open(folder)


documents = st.one_of(json_values, json_values.map(lambda value: {"attributes": {"logitstore": value}}))


@settings(faults)
@given(content=st.one_of(st.binary(max_size=60), documents.map(lambda value: json.dumps(value).encode())))
def test_roots_as_bytes(tmp_path_factory, content):
    folder = tmp_path_factory.getbasetemp() / "root"
    folder.mkdir(exist_ok=True)
    (folder / "zarr.json").write_bytes(content)
    _open(folder)


def _open(folder: Path) -> None:
    tried["inputs"] += 1
    try:
        manifest = decode_root((folder / "zarr.json").read_bytes(), str(folder))
        assert isinstance(manifest, Manifest)
        assert open_store(folder).views == 0
    except LogitstoreError as error:
        one_line(error)
        return
    for derived in ("recipe", "place", "columns", "quantizer"):
        try:
            getattr(manifest, derived)
        except LogitstoreError as error:
            one_line(error)
