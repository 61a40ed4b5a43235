"""The command ``logitstore inspect``: summary, formats, parameters, errors, start-up, interrupt."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

import logitstore
from logitstore.cli.ask import typed
from logitstore.cli.formats import write
from logitstore.cli.inspect import inspect_command
from logitstore.errors import NotAStoreError, QueryError, UsageError
from logitstore.store.summary import summarise
from tests.small_store import Made, Spec, make_store

COMMAND = [sys.executable, "-c", "from logitstore.cli.main import main; main()", "inspect"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    spec = Spec(keep_members=True, skip_blocks=("000004-0-3",))
    return make_store(tmp_path_factory.mktemp("inspect") / "store", spec, fold=pa.array(range(37)))


def inspect(made: Made, *arguments: str, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(inspect_command, [str(made.path), *arguments], input=stdin)


def printed(made: Made, *arguments: str, stdin: str | None = None) -> str:
    result = inspect(made, *arguments, stdin=stdin)
    assert result.exception is None, result.exception
    return result.stdout


def written(table: pa.Table, kind: str, width: int | None = None, **more: bool) -> str:
    file = io.BytesIO()
    assert write(table.to_reader(), kind, file, width, **more) == table.num_rows
    return file.getvalue().decode()


# the summary


def test_summary_counts(made: Made) -> None:
    found = summarise(logitstore.open_store(made.path)).to_dict()
    files = sum(file.stat().st_size for file in made.path.rglob("*") if file.is_file())
    expected = {
        "clips": 37, "clips_failed": 1, "views": 3, "views_stored": 31 * 3, "blocks": 4, "shards": 5,
        "shards_finished": 4, "topk": 5, "classes": 12, "scores": "sigmoid", "value_bits": 8, "bytes": files,
        "bytes_a_view": files / 93, "percent_of_pcm": 100 * files / (36 * 16000 * 2), "columns": ["fold"],
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected


def test_summary_is_for_people(made: Made) -> None:
    lines = {line.split()[0]: line for line in printed(made).splitlines()}
    assert "37 of 2 s at 16,000 Hz, 1 failed" in lines["clips"]
    assert "4 in 4 of 5 shards, 1 shard not finished: run the same build again" in lines["blocks"]
    assert "top 5 of 12 classes, sigmoid, 8 bits" in lines["targets"]
    assert "ced: roll, time_mask, frequency_mask; seed 7" in lines["recipe"]
    assert "a view" in lines["size"]
    assert "% of the clips' 16-bit PCM" in lines["size"]
    assert "members" in lines["tables"]
    assert json.loads(printed(made, "--format", "json")) == summarise(logitstore.open_store(made.path)).to_dict()


def test_summary_of_a_store_without_blocks(tmp_path: Path) -> None:
    made = make_store(tmp_path / "store", Spec(skip_blocks=tuple(f"00000{i}-0-3" for i in range(5))))
    text = summarise(logitstore.open_store(made.path)).render()
    assert "0 in 0 of 5 shards" in text
    assert "a view" not in text


# formats


def test_table_is_aligned_and_plain(made: Made) -> None:
    text = printed(made, "SELECT clip, path, NULL AS gone, clip / 3 AS third FROM clips WHERE clip < 2 ORDER BY clip")
    assert text.splitlines() == [
        "clip  path                    gone     third",
        "────  ──────────────────────  ────  ────────",
        "   0  folder/clip 000000.wav  NULL         0",
        "   1  folder/clip 000001.wav  NULL  0.333333",
    ]


def test_csv_json_and_ndjson(made: Made) -> None:
    sql = "SELECT class, probability, probability > 0.9 AS sure, count(*) OVER () AS n FROM topk WHERE clip = 3 LIMIT 4"
    rows = json.loads(printed(made, sql, "--format", "json"))
    assert len(rows) == 4
    assert rows[0].keys() == {"class", "probability", "sure", "n"}
    lines = printed(made, sql, "--format", "ndjson").splitlines()
    assert [json.loads(line) for line in lines] == rows
    table = list(csv.DictReader(io.StringIO(printed(made, sql, "--format", "csv"))))
    assert [(row["class"], float(row["probability"]), row["sure"]) for row in table] == [
        (row["class"], row["probability"], str(row["sure"]).lower()) for row in rows
    ]


def test_output_takes_its_format_from_its_name(made: Made, tmp_path: Path) -> None:
    for name in ("out.csv", "out.json", "out.ndjson", "out.parquet", "out.txt"):
        assert printed(made, "FROM topk ORDER BY clip, view, rank", "--out", str(tmp_path / name)) == ""
    expected = logitstore.open_store(made.path).sql("FROM topk ORDER BY clip, view, rank")
    assert pq.read_table(tmp_path / "out.parquet").equals(expected)
    assert len(json.loads((tmp_path / "out.json").read_text())) == expected.num_rows
    assert (tmp_path / "out.csv").read_text().startswith("clip,view,rank,class_index,class,probability,")
    assert (tmp_path / "out.txt").read_text().startswith("clip  view  rank")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["out.csv", "out.json", "out.ndjson", "out.parquet", "out.txt"]
    )


def test_parquet_to_a_pipe(made: Made) -> None:
    result = inspect(made, "FROM failures", "--format", "parquet")
    assert pq.read_table(pa.BufferReader(result.stdout_bytes)).num_rows == 1


def test_values_of_every_kind() -> None:
    table = pa.table(
        {
            "x": pa.array([0.1, None, float("nan")], pa.float32()),
            "total": pa.array([Decimal(12345678901234567890), None, Decimal(1)], pa.decimal128(38, 0)),
            "text": ["a,b", "", None],
            "list": [[1, 2], [], None],
            "day": pa.array([0, 1, None], pa.date32()),
            "raw": [b"\x00\xff", b"", None],
        }
    )
    assert json.loads(written(table, "json"), parse_float=str) == [
        {"x": "0.1", "total": 12345678901234567890, "text": "a,b", "list": [1, 2], "day": "1970-01-01", "raw": "AP8="},
        {"x": None, "total": None, "text": "", "list": [], "day": "1970-01-02", "raw": ""},
        {"x": None, "total": 1, "text": None, "list": None, "day": None, "raw": None},
    ]
    assert written(table, "csv").splitlines() == [
        "x,total,text,list,day,raw",
        '0.1,12345678901234567890,"a,b","[1,2]",1970-01-01,AP8=',
        ",,,[],1970-01-02,",
        "nan,1,,,,",
    ]
    assert "NULL" in written(table, "table")


def test_an_empty_answer_in_every_format() -> None:
    empty = pa.table({"x": pa.array([], pa.int64())})
    assert written(empty, "json") == "[]\n"
    assert written(empty, "ndjson") == ""
    assert written(empty, "csv") == "x\n"
    assert written(empty, "table") == "x\n─\n"


def test_columns_of_one_name_stay_apart_in_json() -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["n", "n"])
    assert json.loads(written(table, "ndjson")) == {"n": 1, "n_2": 2}


def test_a_terminal_cuts_text_and_never_numbers() -> None:
    table = pa.table({"path": ["x" * 60, "短い" * 20], "n": [123456789, 1]})
    lines = written(table, "table", width=30).splitlines()
    assert lines[2] == "x" * 18 + "…  123456789"
    assert all(len(line) <= 30 for line in lines)
    assert "…" in lines[3]
    assert "x" * 60 in written(table, "table")


def test_a_path_is_cut_in_its_middle_and_names_of_columns_before_texts_to_their_least() -> None:
    table = pa.table({"path": ["dog_bark/1-17565-A-and-more.ogg"], "a_long_name_of_a_column": [7], "class": ["Dog"]})
    lines = written(table, "table", width=40).splitlines()
    assert lines[2].split() == ["dog_bar…and-more.ogg", "7", "Dog"]
    assert all(len(line) <= 40 for line in lines)
    lines = written(table, "table", width=26).splitlines()
    assert lines[0].split() == ["path", "a_l…", "class"]
    assert lines[2].split()[1:] == ["7", "Dog"]


def test_columns_that_cannot_fit_are_left_out_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    table = pa.table({f"column {i}": [10**12 + i] for i in range(9)})
    lines = written(table, "table", width=50).splitlines()
    assert lines[2].split() == [str(10**12 + i) for i in range(3)]
    assert lines[0].endswith("…")
    assert all(len(line) <= 50 for line in lines)
    said = capsys.readouterr().err.split()
    assert "too narrow for 9 columns; the first 3 are shown, without column 3, column 4" in " ".join(said)
    assert said[-3:] == ["--transpose", "shows", "all"]
    assert len(written(table, "table").splitlines()[2].split()) == 9


def test_transposed_rows_stand_below_each_other(made: Made) -> None:
    table = pa.table({"path": ["x" * 200, None], "n": [1, 2]})
    assert written(table, "table", 30, transpose=True).splitlines() == [
        "── row 1 ───", f"path  {'x' * 200}", "n     1", "── row 2 ───", "path  NULL", "n     2",
    ]  # fmt: skip
    assert written(table, "markdown", transpose=True).split("\n\n")[1].splitlines() == [
        "| column | value |", "| ------ | ----- |", "| path   | NULL  |", "| n      | 2     |",
    ]  # fmt: skip
    assert written(table.slice(0, 0), "table", transpose=True) == ""
    assert "path" in printed(made, "FROM clips LIMIT 1", "--transpose")


def test_markdown_is_a_table_and_no_text_becomes_markup(made: Made, tmp_path: Path) -> None:
    evil = "a|b <img src=x> [y](z) `c` *d* _e_ f_g &lt; \\ $h$\n# i"
    plain = r"a\|b \<img src=x\> \[y\](z) \`c\` \*d\* \_e\_ f_g \&lt; \\ \$h\$\\n# i"
    lines = written(pa.table({"n": [1.5, 22], "te|xt": [evil, None]}), "markdown").splitlines()
    assert [line.split() for line in lines] == [
        ["|", "n", "|", r"te\|xt", "|"],
        ["|", "--:", "|", "-" * (len(lines[0]) - 10), "|"],
        ["|", "1.5", "|", *plain.split(), "|"],
        ["|", "22", "|", "NULL", "|"],
    ]
    assert len({len(line) for line in lines}) == 1
    printed(made, "SELECT clip FROM clips ORDER BY clip LIMIT 1", "--out", str(tmp_path / "a.md"))
    assert (tmp_path / "a.md").read_text() == "| clip |\n| ---: |\n|    0 |\n"


def test_nothing_in_a_name_steers_the_terminal() -> None:
    text = written(pa.table({"a\nb": ["\x1b[31mred\n\u202eevil"]}), "table")
    assert text.splitlines()[0].startswith("a\\nb")
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert len(text.splitlines()) == 3


# SQL, parameters


def test_sql_from_stdin(made: Made) -> None:
    assert "37" in printed(made, "-", stdin="SELECT count(*) n\nFROM clips;\n")


def test_parameters_are_typed(made: Made) -> None:
    assert typed((("a", "5"), ("b", "-1.5e3"), ("c", "nan"), ("$d", "1_0"), ("e", " 5"), ("f", "007"))) == {
        "a": 5, "b": -1500.0, "c": "nan", "d": "1_0", "e": " 5", "f": 7,
    }  # fmt: skip
    sql = "SELECT clip FROM clips WHERE fold < $most AND path LIKE $like"
    assert printed(made, sql, "-p", "most", "12", "-p", "like", "%1.wav", "--format", "csv") == "clip\n1\n11\n"


# questions, and what an answer took


def test_a_question_is_printed_as_sql_that_answers_it(made: Made) -> None:
    text = printed(made, "@classes", "-p", "limit", "3", "--sql")
    assert text.startswith("-- Which classes do the teachers hear?\n-- For every class")
    assert "-- $limit = 3: how many classes to show" in text
    asked = printed(made, "@classes", "-p", "limit", "3")
    assert printed(made, "-", "-p", "limit", "3", stdin=text) == asked
    found = json.loads(printed(made, "@classes", "--sql", "--json"))
    assert found["name"] == "classes"
    assert found["sql"].startswith("SELECT")
    assert [each["name"] for each in found["parameters"]] == ["limit"]


def test_the_list_of_questions_says_which_a_store_cannot_answer(made: Made, tmp_path: Path) -> None:
    lines = printed(made, "@").splitlines()
    assert "@classes Which classes do the teachers hear? -p limit 20" in [" ".join(line.split()) for line in lines]
    assert not any("--keep-members" in line for line in lines)
    other = make_store(tmp_path / "store")
    text = printed(other, "@")
    remedy, below = text.index("To ask these, build a store with --keep-members"), text.index("@member_disagreement")
    assert text.index("@uncertain_clips") < remedy < below
    listed = {each["name"]: each for each in json.loads(printed(other, "@", "--json"))["questions"]}
    assert listed["classes"]["answerable"]
    assert not listed["member_disagreement"]["answerable"]


def test_what_was_decoded_is_explained(made: Made) -> None:
    asked = ("SELECT view FROM topk JOIN clips USING (clip) WHERE clip = 9", "--explain")
    found = json.loads(printed(made, *asked, "--json"))
    assert len(found["rows"]) == 15
    tables = {each["table"]: each for each in found["explain"]["tables"]}
    assert (tables["topk"]["parts"], tables["topk"]["rows"]) == (4, 32 * 3 * 5)
    (scan,) = tables["topk"]["scans"]
    assert set(scan["columns"]) == {"clip", "view"}
    assert (scan["decoded"], scan["skipped"], scan["rows"], scan["passed"]) == (["000001-0-3"], 3, 8 * 3 * 5 - 15, 15)
    assert scan["bytes"] >= scan["rows"] * (8 + 4)
    assert "Arrow Scan" in found["explain"]["plan"].title().replace("_", " ")
    done = inspect(made, *asked)
    assert "1 of 4 parts decoded (3 ruled out by filters): 000001-0-3" in done.stderr
    assert "DuckDB's plan" in done.stderr
    assert done.stdout == printed(made, asked[0])
    assert "explain" not in json.loads(printed(made, asked[0], "--json"))
    small = inspect(made, "FROM teachers", "--explain")
    assert "2 rows, known without decoding anything" in small.stderr


def test_the_sessions_of_the_page_run(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/inspect.md, on a store of made-up answers: each command prints the first line that the page shows."""
    page = (Path(__file__).parents[2] / "docs" / "inspect.md").read_text()
    monkeypatch.chdir(made.path.parent)
    ran = re.findall(r"^\$ (.*)\n(.*)$", page, re.MULTILINE)
    assert len(ran) == page.count("\n$ ")
    for command, first in ran:
        given, _, last = command.rpartition(" | ")
        text = shlex.split(given)[1].encode().decode("unicode_escape") if given else None
        program, name, *arguments = shlex.split(last)
        assert (program, name) == ("logitstore", "inspect")
        done = CliRunner().invoke(inspect_command, arguments, input=text)
        assert done.exit_code == 0, (command, done.exception)
        assert done.output.splitlines()[0].split() == first.split(), command
    Path("subset.parquet").unlink()


# errors


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["SELCT"], "line 1, column 1"),
        (["SELECT 1; SELECT 2"], "2 statements"),
        (["COPY topk TO 'x'"], "read-only"),
        (["FROM read_csv('/etc/passwd')"], "no file, network, setting or environment"),
        (["SELECT $x", "-p", "y", "1"], r"parameter \$x"),
        (["SELECT $x", "-p", "x y", "1"], "no name of a parameter"),
        (["SELECT $x", "-p", "x", "1", "-p", "x", "2"], "given twice"),
        (["-p", "x", "1"], "there is no SQL"),
        (["--format", "csv"], "summary cannot be printed as csv; allowed are table and json"),
        (["--transpose"], "--transpose is for the answer to a question"),
        (["--explain"], "--explain is about one question, and there is none"),
        (["@", "--sql"], "--sql is about one question, and there is none"),
        (["@classes", "--sql", "--explain"], "nothing to --explain"),
        (["FROM clips", "--sql"], "--sql prints the SQL of a question that is ready; give @NAME"),
        (["@classes", "--sql", "-p", "most", "1"], "has no parameter 'most'"),
        (
            ["FROM clips", "--transpose", "--format", "csv"],
            "--transpose is for table and markdown, and the format is csv",
        ),
        (["FROM clips", "--out", "/nowhere/at/all.csv"], "cannot be written"),
        (["FROM clips", "--timeout", "soon"], "--timeout is 'soon'; give seconds"),
        (["FROM clips", "--memory", "all"], "--memory is 'all'; give a size"),
        (["FROM clips", "--temp-space", "1 disk"], "--temp-space is '1 disk'; give a size"),
    ],
)
def test_errors_are_usage_errors(made: Made, arguments: list[str], match: str) -> None:
    result = inspect(made, *arguments)
    with pytest.raises(UsageError, match=match):
        raise result.exception or AssertionError(result.output)


def test_a_failed_query_leaves_no_output(made: Made, tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    target.write_text("before")
    result = inspect(made, "SELECT CAST(class AS INT) FROM topk", "--out", str(target))
    assert isinstance(result.exception, QueryError)
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]


def test_the_store_is_no_place_for_output(made: Made) -> None:
    result = inspect(made, "FROM clips", "--out", str(made.path / "zarr.json"))
    with pytest.raises(UsageError, match="lies in the store, which is read-only"):
        raise result.exception or AssertionError(result.output)


def test_no_store(tmp_path: Path) -> None:
    result = CliRunner().invoke(inspect_command, [str(tmp_path)])
    with pytest.raises(NotAStoreError, match="no store at"):
        raise result.exception or AssertionError(result.output)


def test_the_help_has_examples() -> None:
    text = CliRunner().invoke(inspect_command, ["--help"]).output
    assert "logitstore inspect store" in text
    assert "-p name Dog" in text
    for default in ("120", "384MB", "500MB"):
        assert f"[default: {default}]" in " ".join(text.split())


def test_plain_sql_is_answered(made: Made) -> None:
    assert printed(made, "SELECT 1+1 AS n", "--format", "csv") == "n\n2\n"
    assert "Scan" in printed(made, "EXPLAIN SELECT clip FROM clips").replace("SCAN", "Scan")
    assert "clip" in printed(made, "DESCRIBE clips")
    assert "topk" in printed(made, "SHOW TABLES")


# as a process


def test_exit_codes_and_one_line(made: Made, tmp_path: Path) -> None:
    for arguments in ([str(made.path), "SELECT 1; SELECT 2"], [str(tmp_path)], [str(made.path), "FROM '/etc/passwd'"]):
        ended = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert ended.stderr.startswith("Error: ")
        assert ended.stderr.count("\n") == 1


def test_no_heavy_imports(made: Made) -> None:
    code = (
        "import sys; from logitstore.cli.inspect import inspect_command as c; "
        "c.main([*sys.argv[1:], '-q'], standalone_mode=False); "
        "sys.exit(','.join(m for m in ('torch', 'zarr', 'students', 'teachers') if m in sys.modules) or 0)"
    )
    for sql in ([], ["FROM topk LIMIT 1"]):
        ended = subprocess.run(
            [sys.executable, "-c", code, str(made.path), *sql], capture_output=True, text=True, timeout=60
        )
        assert (ended.returncode, ended.stderr) == (0, "")
    light = code.replace("('torch', 'zarr', ", "('duckdb', 'pyarrow.dataset', 'numcodecs', ")
    ended = subprocess.run([sys.executable, "-c", light, str(made.path)], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")


ENDLESS = [
    "SELECT sum(hash(a.range + b.range)) FROM range(10000000) a, range(100000) b",
    "SELECT jaro_similarity(repeat('ab', 4000000), repeat('ba', 4000000))",  # one call, in which DuckDB hears nothing
]


@pytest.mark.parametrize("sql", ENDLESS)
def test_an_interrupt_ends_a_query_at_once(made: Made, tmp_path: Path, sql: str) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        [*COMMAND, str(made.path), sql], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    time.sleep(2.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    try:
        stdout, stderr = process.communicate(timeout=20)
    finally:
        process.kill()  # nothing where it has ended
    assert time.monotonic() - started < 2  # a second, and one for a machine that is busy
    assert (process.returncode, stdout) == (130, "")
    assert stderr.strip() == "Error: interrupted"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("sql", "limits", "said"),
    [
        (ENDLESS[0], ["--timeout", "0.5"], "ended after 0.5 s; narrow it"),
        (ENDLESS[1], ["--timeout", "0.5"], "ended after 0.5 s; narrow it"),
        ("SELECT list(i) FROM range(1000000000) t(i)", ["--memory", "64MB"], "more than 64MB of memory; narrow it"),
        (
            "SELECT count(DISTINCT hash(i)) FROM range(1000000000) t(i)",
            ["--memory", "64MB", "--temp-space", "20MB"],
            "more than 20MB of temporary disk space; narrow it",
        ),
    ],
)
def test_a_limit_ends_a_query_with_one_line(made: Made, tmp_path: Path, sql: str, limits: list[str], said: str) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    ended = subprocess.run(
        [*COMMAND, str(made.path), sql, *limits], capture_output=True, text=True, timeout=60, env=environment
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("Error: ")
    assert ended.stderr.count("\n") == 1
    assert said in ended.stderr
    assert f"raise that limit with {limits[-2]} of inspect" in ended.stderr
    assert not list(tmp_path.iterdir())
