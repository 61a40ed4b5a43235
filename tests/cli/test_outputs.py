"""Where answers go: files appear whole, what is no file is written through, and any value of SQL can be written."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from logitstore.cli.formats import write
from logitstore.errors import OutputError, UsageError
from logitstore.files import check_out, open_out
from logitstore.sql.limits import Limits
from logitstore.sql.sandbox import Sandbox
from tests.small_store import Spec, make_store

PROGRAM = "from logitstore.cli.main import main; main()"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    hostile = ["\x1b]0;x\x07", "=1+1", "a\nError: forged", "\u202egnp", "[bold]x[/bold]"]
    column = pa.array([hostile[i % len(hostile)] for i in range(37)])
    return make_store(tmp_path_factory.mktemp("outputs") / "store", Spec(), tag=column).path


def program(*arguments, **more):
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)], capture_output=True, timeout=60, check=False, **more
    )


# places


def put(place, content=b"new\n"):
    with open_out(place) as file:
        file.write(content)


def test_a_file_appears_whole_and_keeps_its_mode(tmp_path):
    place = tmp_path / "out.csv"
    put(place)
    assert place.read_bytes() == b"new\n"
    place.write_bytes(b"old")
    place.chmod(0o640)
    put(place)
    assert place.stat().st_mode & 0o777 == 0o640
    with pytest.raises(TypeError, match="bytes-like"):
        put(place, "no bytes")
    assert place.read_bytes() == b"new\n"
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("absolute", [True, False])
def test_a_link_stays_and_its_target_is_written(tmp_path, there, absolute):
    (tmp_path / "deep").mkdir()
    target, link, second = tmp_path / "deep" / "real", tmp_path / "link", tmp_path / "second"
    if there:
        target.write_bytes(b"old")
    link.symlink_to(target if absolute else Path("deep/real"))
    second.symlink_to("link")
    put(second)
    assert second.is_symlink()
    assert link.is_symlink()
    assert not target.is_symlink()
    assert target.read_bytes() == b"new\n"


def test_a_pipe_is_written_through(tmp_path):
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    (tmp_path / "link").symlink_to("pipe")
    for place in (pipe, tmp_path / "link"):
        reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
        reader.start()
        put(place)
        reader.join(10)
    assert read == [b"new\n"] * 2
    assert pipe.is_fifo()


def test_a_device_is_written_through():
    before = Path("/dev/null").stat()
    put("/dev/null")
    assert Path("/dev/null").stat().st_ino == before.st_ino
    with pytest.raises(OutputError, match="'/dev/full' cannot be written: No space left"):
        put("/dev/full", b"x" * 10**6)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("", "is no name of a file"),
        ("a\0b", "is no name of a file"),
        ("folder", "is a folder; give the name of a file"),
        ("folder/", "is a folder"),
        ("none/x.csv", "there is no folder .*none.; make it, or give another place"),
        ("file/x.csv", "there is no folder|cannot be written"),
        ("circle", "leads in a circle"),
        ("to_folder", "is a folder"),
        ("x" * 300, "cannot be written: File name too long"),
    ],
)
def test_places_that_cannot_be_written(tmp_path, monkeypatch, place, message):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("file").touch()
    Path("circle").symlink_to("circle2")
    Path("circle2").symlink_to("circle")
    Path("to_folder").symlink_to("folder")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match=f"--out .*{message}"):
        put(place)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["a.csv", "A.CSV", "b.Json", "c.x.csv"])
def test_endings_that_are_known(tmp_path, name):
    check_out(tmp_path / name, endings=(".csv", ".json"))


@pytest.mark.parametrize("name", ["a.xlsx", "a.feather", "a.csv.gz", "a.arrow", "csv"])
def test_endings_that_are_not(tmp_path, name):
    with pytest.raises(UsageError, match=r"must end in \.csv or \.json"):
        check_out(tmp_path / name, endings=(".csv", ".json"))


@pytest.mark.parametrize(
    ("out", "code", "start"),
    [
        ("a.csv", 0, b"n\n"), ("A.CSV", 0, b"n\n"), ("a.json", 0, b"["),
        ("a.jsonl", 0, b"{"), ("a.Parquet", 0, b"PAR1"),
        ("a", 0, b"  n"), ("a.txt", 0, b"  n"), ("a.xlsx", 2, None), ("a.feather", 2, None), ("a.csv.gz", 2, None),
    ],
)  # fmt: skip
def test_the_ending_says_the_format(store, tmp_path, monkeypatch, capsys, out, code, start):
    assert run_here(monkeypatch, "inspect", store, "SELECT 1 AS n", "--out", tmp_path / out) == code
    assert "Traceback" not in (said := capsys.readouterr().err)
    if start is None:
        assert "must end in .csv" in said
        assert not (tmp_path / out).exists()
    else:
        assert (tmp_path / out).read_bytes().lstrip().startswith(start.strip())


def run_here(monkeypatch, *arguments):
    from logitstore.cli.command import run
    from logitstore.cli.main import cli

    monkeypatch.setattr(sys, "argv", ["logitstore", *map(str, arguments)])
    with pytest.raises(SystemExit, match=r"\d") as left:
        run(cli)
    return int(left.value.code or 0)


def test_a_link_to_an_own_stream_is_written_where_it_stands(tmp_path):
    with (tmp_path / "log").open("ab") as log:
        log.write(b"before ")
        log.flush()
        (tmp_path / "link").symlink_to(f"/proc/self/fd/{log.fileno()}")
        for place in (f"/dev/fd/{log.fileno()}", tmp_path / "link"):
            with open_out(place) as file:
                file.write(b"new")
    assert (tmp_path / "log").read_bytes() == b"before newnew"


def test_own_streams_are_written_where_they_stand(store, tmp_path):
    with (tmp_path / "said").open("wb") as file:
        file.write(b"before\n")
        file.flush()
        line = [
            sys.executable,
            "-c",
            PROGRAM,
            "inspect",
            store,
            "SELECT 1 AS n",
            "--format",
            "csv",
            "-o",
            "/dev/stdout",
        ]
        assert subprocess.run(line, stdout=file, timeout=60, check=False).returncode == 0
    assert (tmp_path / "said").read_bytes() == b"before\nn\n1\n"


def test_a_reader_that_has_enough_ends_the_program_quietly(store):
    line = [
        sys.executable,
        "-c",
        PROGRAM,
        "inspect",
        str(store),
        "SELECT i FROM range(3000000) t(i)",
        "--format",
        "csv",
    ]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout.readline() == b"i\n"
        running.stdout.close()
        said = running.stderr.read()
        assert running.wait(60) == 141
    assert said == b""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_with_one_line(store, number):
    line = [
        sys.executable,
        "-c",
        PROGRAM,
        "inspect",
        str(store),
        "SELECT i FROM range(10000000000) t(i)",
        "--format",
        "csv",
    ]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout.readline() == b"i\n"
        running.send_signal(number)
        drained = threading.Thread(target=running.stdout.read)
        drained.start()
        said = running.stderr.read()
        drained.join(60)
        assert running.wait(60) == 130
    assert said.strip() == b"Error: interrupted"


# texts


@pytest.mark.parametrize("kind", ["table", "json", "ndjson"])
def test_an_answer_shows_hostile_texts_escaped(store, monkeypatch, capfdbinary, kind):
    assert run_here(monkeypatch, "inspect", store, "SELECT DISTINCT tag FROM clips", "--format", kind) == 0
    out = capfdbinary.readouterr().out.decode()
    assert all(line.isprintable() for line in out.split("\n"))
    assert "[bold]x[/bold]" in out
    assert not any(line.startswith("Error:") for line in out.split("\n"))


def test_csv_holds_texts_as_they_are_or_marked(store, tmp_path, monkeypatch):
    for more, mark in (([], ""), (["--spreadsheet-safe"], "'")):
        out = tmp_path / "tags.csv"
        assert run_here(monkeypatch, "inspect", store, "SELECT DISTINCT tag FROM clips", "--out", out, *more) == 0
        with out.open(newline="", encoding="utf-8") as file:
            assert {row[0] for row in csv.reader(file)} >= {
                "\x1b]0;x\x07",
                f"{mark}=1+1",
                "\u202egnp",
                "a\nError: forged",
            }


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect", "no\x1b[2Jwhere\nError: forged"],
        ["inspect", "x", "--no\x1b[2J"],
        ["in\x1b[2Jspect"],
        ["verify", "x", "more\u202e"],
        ["inspect", "STORE", "SELECT '\x1b' AS \"a\x1bb"],
        ["inspect", "STORE", "FROM clips", "--out", "\x07/x.csv"],
        ["inspect", "STORE", "FROM clips", "--format", "\x1b[2J"],
        ["inspect", "x", "--config", "\x1b.yaml"],
        ["build", "\udcff\x1b.csv", "--out", "s", "--teacher", "python:a:b"],
    ],
    ids=ascii,
)
def test_errors_show_hostile_texts_escaped(store, monkeypatch, capsys, arguments):
    assert run_here(monkeypatch, *(store if each == "STORE" else each for each in arguments)) == 2
    said = capsys.readouterr()
    assert not said.out
    assert sum(line.startswith("Error: ") for line in said.err.split("\n")) == 1
    assert all(line.isprintable() for line in said.err.split("\n")), said.err


def test_warnings_and_notes_are_lines_that_print(monkeypatch, capsys):
    import warnings

    import click

    from logitstore.cli import command

    @click.command()
    def program():
        command.echo(warnings.formatwarning("a\x1bb\nc", UserWarning, "a.py", 1), err=True)
        command.note("[red]x[/red]\x1b[2J\nError: forged")
        command.stderr.print("bar \x9b31m [bold]")
        command.echo("out\x00\u2028put")

    monkeypatch.setattr(sys, "argv", ["program"])
    with pytest.raises(SystemExit, match="0"):
        command.run(program)
    out, err = capsys.readouterr()
    assert out == "out\\x00\\u2028put\n"
    assert "Warning: a\\x1bb\\nc\n" in err
    assert "note       [red]x[/red]\\x1b[2J\\nError: forged\n" in err
    assert "bar \\x9b31m [bold]" in err


def test_a_file_that_ends_too_soon_is_no_interrupt(monkeypatch):
    """click takes every EOFError for the end of the keyboard's input; a cut file raises it too."""
    import click

    from logitstore.cli import command

    @click.command()
    def program():
        raise EOFError("marshal data too short")

    monkeypatch.setattr(sys, "argv", ["program"])
    with pytest.raises(EOFError, match="marshal data too short"):
        command.run(program)


# values

VALUES = {
    "DATE '290000-12-31'": "290000-12-31",
    "DATE '0001-01-01 (BC)'": "0001-01-01 (BC)",
    "DATE 'infinity'": "infinity",
    "TIMESTAMP '-infinity'": "-infinity",
    "TIMESTAMP '12345-06-07 08:09:10.5'": "12345-06-07 08:09:10.5",
    "TIMESTAMP '2024-02-29 01:02:03'": "2024-02-29 01:02:03",
    "TIME '24:00:00'": "24:00:00",
    "'01:02:03+05:30'::TIMETZ": "01:02:03+05:30",
    "INTERVAL '1 year 2 months -3 days 4 hours'": "1 year 2 months -3 days 04:00:00",
    "(-170141183460469231731687303715884105727)::HUGEINT": "-170141183460469231731687303715884105727",
    "340282366920938463463374607431768211455::UHUGEINT": "340282366920938463463374607431768211455",
    "12345678901234567890123456789012345.678::DECIMAL(38,3)": "12345678901234567890123456789012345.678",
    "'0101'::BIT": "0101",
    "'6ba7b810-9dad-11d1-80b4-00c04fd430c8'::UUID": "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
    "'\\x00\\xFF'::BLOB": "AP8=",
    "'NaN'::DOUBLE": "nan",
    "'-Infinity'::FLOAT": "-inf",
    "[1, NULL, 3]": "[1,null,3]",
    "{'a': [DATE '99999-01-01'], 'b': NULL}": '{"a":["99999-01-01"],"b":null}',
    "MAP {'k': 1}": None,
    "'x'::ENUM('x', 'y')": "x",
    "union_value(n := 3)": "3",
    "NULL": "",
    "true": "true",
    "'\u202e\x1b'": "\u202e\x1b",
}


def answered(sql, kind):
    file = io.BytesIO()
    with Sandbox(Limits()) as sandbox, sandbox.stream(sql) as reader:
        assert write(reader, kind, file) == 1
    return file.getvalue()


@pytest.fixture(scope="module")
def values():
    """One answer with every value, but the unions that no file of Parquet holds."""
    named = [(f"c{i}", sql) for i, sql in enumerate(VALUES)]
    return "SELECT " + ", ".join(f"{sql} AS {name}" for name, sql in named)


def test_every_value_is_written_as_csv(values):
    rows = list(csv.reader(io.StringIO(answered(values, "csv").decode(), newline="")))
    wrong = [
        (sql, cell, wanted)
        for (sql, wanted), cell in zip(VALUES.items(), rows[1], strict=True)
        if wanted not in (None, cell)
    ]
    assert not wrong


def test_every_value_is_written_for_people_and_as_json(values):
    table = answered(values, "table").decode()
    assert all(line.isprintable() for line in table.split("\n"))
    for text in ("290000-12-31", "infinity", "340282366920938463463374607431768211455", "\\u202e\\x1b"):
        assert text in table
    (row,) = json.loads(answered(values, "json"))
    assert [row] == [json.loads(line) for line in answered(values, "ndjson").splitlines()]
    named = dict(zip(VALUES, row.values(), strict=True))
    assert named["'NaN'::DOUBLE"] is None
    assert named["[1, NULL, 3]"] == [1, None, 3]
    assert named["{'a': [DATE '99999-01-01'], 'b': NULL}"] == {"a": ["99999-01-01"], "b": None}
    assert named["TIMESTAMP '2024-02-29 01:02:03'"] == "2024-02-29T01:02:03"
    assert named["'\u202e\x1b'"] == "\u202e\x1b"


@pytest.mark.parametrize("sql", VALUES, ids=ascii)
def test_every_value_is_written_as_parquet_or_refused_by_name(sql):
    try:
        content = answered(f"SELECT {sql} AS x", "parquet")
    except UsageError as error:
        assert "cast it to VARCHAR" in str(error)  # noqa: PT017
        assert "union" in sql
        return
    assert pq.read_table(pa.BufferReader(content)).num_rows == 1
