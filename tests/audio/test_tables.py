"""Tables of every form that people write: what is in them is used, kept, or said to be left out."""

from __future__ import annotations

import bz2
import datetime
import decimal
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from logitstore.audio.manifest import ManifestSource
from logitstore.audio.scan import scan, understood
from logitstore.audio.source import ColumnNames, kept_names
from logitstore.audio.sources import open_source
from logitstore.errors import SourceError

RATE = 8000


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds each of a.wav, b.wav and sub/c.wav."""
    root = tmp_path_factory.mktemp("audio")
    (root / "sub").mkdir()
    for name in ("a.wav", "b.wav", "sub/c.wav"):
        soundfile.write(root / name, np.zeros(4 * RATE, np.float32), RATE, subtype="PCM_16")
    return root


def read(folder: Path, content: str | bytes, name: str = "m.csv", **columns: str) -> ManifestSource:
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    source = open_source(str(folder / name), str(folder), ColumnNames(**columns))
    assert isinstance(source, ManifestSource)
    return source


def cut(source: ManifestSource, audio: Path) -> list[tuple[str, float, float]]:
    """The clips of a table in seconds."""
    source = ManifestSource(source.path, open_source(str(audio)), source.columns)
    table = scan(source, clip_seconds=10)
    return [(row["path"], row["start"] / RATE, row["length"] / RATE) for row in table.to_pylist()]


# where clips begin and end


@pytest.mark.parametrize(
    ("text", "asked", "clips"),
    [
        ("path,start,end\na.wav,1,3\n", {}, [("a.wav", 1, 2)]),
        ("path,end\na.wav,3\n", {}, [("a.wav", 0, 3)]),
        ("path,start,end\na.wav,,3\nb.wav,1,\n", {}, [("a.wav", 0, 3), ("b.wav", 1, 3)]),
        ("path,start,duration,end\na.wav,1,2,3\n", {}, [("a.wav", 1, 2)]),
        ("path,start,duration,end\na.wav,1,,3\nb.wav,1,1,\n", {}, [("a.wav", 1, 2), ("b.wav", 1, 1)]),
        ("path,start,duration,end\na.wav,0.33,0.67,1.01\n", {}, [("a.wav", 0.33, 0.67)]),
        ("Path,Start,End\na.wav,1,3\n", {}, [("a.wav", 1, 2)]),
        ("filename,onset,offset,event_label\na.wav,1,3,Dog\n", {}, [("a.wav", 1, 2)]),
        ("audio_filepath,offset,duration,text\na.wav,1,2,hello\n", {}, [("a.wav", 1, 2)]),
        ("file_name,start_time,end_time\na.wav,1,3\n", {}, [("a.wav", 1, 2)]),
        ("file,start_seconds,end_seconds\na.wav,1,3\n", {}, [("a.wav", 1, 2)]),
        ("filepath,begin,stop\na.wav,1,3\n", {}, [("a.wav", 1, 2)]),
        ("audio,Begin Time (s),End Time (s)\na.wav,1,3\n", {}, [("a.wav", 1, 2)]),
        ("path,start,stop\na.wav,1,3\n", {}, [("a.wav", 1, 2)]),
        ("path,start,duration_s\na.wav,1,2\n", {}, [("a.wav", 1, 2)]),
        ("sound,from,to\na.wav,1,3\n", {"path": "sound", "start": "from", "end": "to"}, [("a.wav", 1, 2)]),
        ("path,t0,len\na.wav,1,2\n", {"start": "t0", "duration": "len"}, [("a.wav", 1, 2)]),
        ("path,start,end,t0\na.wav,1,3,2\n", {"start": "t0"}, [("a.wav", 2, 1)]),
        ("path,start,end\na.wav,1,3\n", {"start": "", "end": ""}, [("a.wav", 0, 4)]),
        ("path,start,end\na.wav,1,3\n", {"end": ""}, [("a.wav", 1, 3)]),
        # neither of these cuts anything: one of a pair alone, and times that are no seconds
        ("path,onset\na.wav,1\n", {}, [("a.wav", 0, 4)]),
        ("path,offset\na.wav,1\n", {}, [("a.wav", 0, 4)]),
        ("path,dur\na.wav,1\n", {}, [("a.wav", 0, 4)]),
        ("path,begin,stop\na.wav,2020-01-01,2020-01-02\n", {}, [("a.wav", 0, 4)]),
        ("slice_file_name,start,end,class\na.wav,101.5,105.5,siren\n", {}, [("a.wav", 0, 4)]),
    ],
)
def test_times(tmp_path: Path, audio: Path, text: str, asked: dict[str, str], clips: list[Any]) -> None:
    assert cut(read(tmp_path, text, **asked), audio) == clips
    as_tabs = read(tmp_path, text.replace(",", "\t"), "m.tsv", **asked)
    assert cut(as_tabs, audio) == clips
    names, *rows = (line.split(",") for line in text.splitlines())
    lines = "".join(json.dumps({k: v for k, v in zip(names, row, strict=True) if v}) + "\n" for row in rows)
    assert cut(read(tmp_path, lines, "m.jsonl", **asked), audio) == clips
    values = {name: [row[at] or None for row in rows] for at, name in enumerate(names)}
    pq.write_table(pa.table(values), tmp_path / "m.parquet")
    assert cut(ManifestSource(tmp_path / "m.parquet", open_source(str(audio)), ColumnNames(**asked)), audio) == clips


@pytest.mark.parametrize(
    ("text", "asked", "match"),
    [
        ("path,start,end\na.wav,1,2\nb.wav,3,2\n", {}, "line 3: it starts at 3 s and ends at 2 s; .* --end-column"),
        ("path,start,end\na.wav,2,2\n", {}, "line 2: it starts at 2 s and ends at 2 s"),
        ("path,start,end\na.wav,1,-2\n", {}, "line 2: end is -2 s; allowed is more than 0"),
        ("path,start,end\na.wav,nan,2\n", {}, "line 2: start is 'nan'; it must be a number of seconds"),
        ("path,start,end\na.wav,1,NA\n", {}, "line 2: end is 'NA'"),
        ("path,start,end\na.wav,0:01,0:02\n", {}, "line 2: start is '0:01'"),
        ("path;start;end\na.wav;1,5;2\n", {}, "line 2: start is '1,5'"),
        (
            "path,start,end,duration\na.wav,0,2,1\n",
            {},
            "line 2: 'end' and 'duration' contradict each other: .* 2 s.* 1 s",
        ),
        ("path,start,begin,end\na.wav,0,1,2\n", {"start": "startt"}, "no column 'startt', .* did you mean 'start'"),
        ("path,b\na.wav,0\n", {"path": "pth"}, "no column 'pth', which --path-column names; did you mean 'path'"),
        ("filename,file\na.wav,a.wav\n", {}, "'filename' and 'file' may each be .*--path-column"),
        ("path,begin,onset,end\na.wav,0,1,2\n", {}, "'begin' and 'onset' may each be the column of the start"),
    ],
)
def test_times_that_cannot_be(tmp_path: Path, text: str, asked: dict[str, str], match: str) -> None:
    with pytest.raises(SourceError, match=match) as caught:
        read(tmp_path, text, **asked).listing()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("values", [[1.0, float("nan")], [1.0, float("inf")], [1.0, -1.0]])
def test_a_stated_nan_of_parquet_is_no_empty_cell(tmp_path: Path, values: list[float]) -> None:
    table = pa.table({"path": ["a.wav", "b.wav"], "start": pa.array(values)})
    pq.write_table(table, tmp_path / "m.parquet")
    with pytest.raises(SourceError, match="row 2: start is"):
        open_source(str(tmp_path / "m.parquet")).listing()
    pq.write_table(table.set_column(1, "start", pa.array([1.0, None])), tmp_path / "m.parquet")
    assert open_source(str(tmp_path / "m.parquet")).listing()["start"].to_pylist() == [1.0, None]


# text stays text


@pytest.mark.parametrize(
    "cells",
    [
        ["007", "12"],
        ["1e5", "2"],
        ["NA", "1"],
        ["null", "NULL"],
        ["True", "false"],
        ["nan", "0.5"],
        ["inf", "1"],
        ["2020-01-02", "2020-01-03"],
        ["12:30:00", "1"],
        ["+1", "2"],
        ["1_000", "2"],
        ["0x1F", "1"],
        ["-0", "1"],
        ["12345678901234567890", "1"],
        ["0.12345678901234567890", "1"],
        [".5", "1"],
        ["1.", "2"],
        ["N/A", "-"],
        ["#N/A", "1"],
        [" 1", "2"],
        ["1,5", "2"],
        ["٣", "1"],
        ["1\n2", "3"],
        ["", "NA"],
        ["None", "1"],
        ["-nan", "1"],
        ["１", "2"],
        ["1 ", "2"],
        ["=1+1", "2"],
    ],
)
def test_text_stays_as_it_is_written(tmp_path: Path, cells: list[str]) -> None:
    rows = "".join(f'{name}.wav,"{cell}"\n' for name, cell in zip("ab", cells, strict=True))
    source = read(tmp_path, "path,x\n" + rows)
    assert source.listing()["x"].to_pylist() == cells


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["1", "-2"], [1, -2]),
        (["0", ""], [0, None]),
        (["0.5", "1"], [0.5, 1.0]),
        (["0.50", "-1.25"], [0.5, -1.25]),
        (["1e-05", "0.30000000000000004"], [1e-05, 0.30000000000000004]),
        (["", ""], [None, None]),
        (["999999999999999999", "1"], [999999999999999999, 1]),
    ],
)
def test_columns_of_numbers_are_numbers(tmp_path: Path, cells: list[str], values: list[Any]) -> None:
    rows = "".join(f"{name}.wav,{cell}\n" for name, cell in zip("ab", cells, strict=True))
    assert read(tmp_path, "path,x\n" + rows).listing()["x"].to_pylist() == values


def test_a_column_that_is_text_for_one_cell_says_which(tmp_path: Path) -> None:
    source = read(tmp_path, "path,fold\na.wav,1\n\nb.wav,NA\n")
    assert source.listing()["fold"].to_pylist() == ["1", "NA"]
    assert source.reading.notes == ["the column 'fold' has numbers and is kept as text for 'NA' (line 4)"]


# encodings, separators and what editors leave behind

PLAIN = "path,label\na.wav,Gerät\nb.wav,cat\n"


@pytest.mark.parametrize(
    ("content", "name", "note"),
    [
        (PLAIN.encode(), "m.csv", None),
        (PLAIN.encode("utf-8-sig"), "m.csv", None),
        (b"\xff\xfe" + PLAIN.encode("utf-16-le"), "m.csv", "decoded from UTF-16-LE"),
        (b"\xfe\xff" + PLAIN.encode("utf-16-be"), "m.csv", "decoded from UTF-16-BE"),
        (PLAIN.encode("utf-32"), "m.csv", "decoded from UTF-32-LE"),
        (PLAIN.replace(",", ";").encode(), "m.csv", "separated by semicolons"),
        (PLAIN.replace(",", "\t").encode(), "m.csv", "separated by tabs"),
        (PLAIN.replace(",", "|").encode(), "m.csv", "separated by bars"),
        (PLAIN.replace(",", "\t").encode(), "m.tsv", None),
        (PLAIN.encode(), "m.tsv", "separated by commas"),
        (PLAIN.replace("\n", "\r\n").encode(), "m.csv", None),
        (PLAIN.replace("\n", "\r").encode(), "m.csv", None),
        (PLAIN[:-1].encode(), "m.csv", None),
        (PLAIN.replace("\nb", "\n\n\nb").encode(), "m.csv", None),
        (PLAIN.replace("\n", ",\n").encode(), "m.csv", None),
        (PLAIN.replace("cat\n", "cat,,\n").encode(), "m.csv", None),
        ((PLAIN + ",\n,\n").encode(), "m.csv", "2 lines without any text left out"),
        (("sep=;\n" + PLAIN.replace(",", ";")).encode(), "m.csv", "separated by semicolons"),
        (("# made by hand\n" + PLAIN).encode(), "m.csv", "1 lines of comment skipped"),
        (PLAIN.replace(",", ", ").encode(), "m.csv", None),
        (PLAIN.replace("Gerät", '"Gerät"').encode(), "m.csv", None),
        (gzip.compress(PLAIN.encode(), mtime=0), "m.csv.gz", "unpacked from gzip"),
        (bz2.compress(PLAIN.encode()), "m.csv.bz2", "unpacked from bz2"),
        (pa.compress(PLAIN.encode(), "zstd", asbytes=True), "m.csv.zst", "unpacked from zstd"),
        (gzip.compress(PLAIN.encode("utf-8-sig"), mtime=0), "m.csv", "unpacked from gzip"),
        (b'{"path": "a.wav", "label": "Ger\xc3\xa4t"}\n\n{"path": "b.wav", "label": "cat"}', "m.jsonl", None),
        (
            b'\xef\xbb\xbf{"path": "a.wav", "label": "Ger\\u00e4t"}\r\n{"path": "b.wav", "label": "cat"}\r\n',
            "m.ndjson",
            None,
        ),
        (b'[{"path": "a.wav", "label": "Ger\xc3\xa4t"}, {"path": "b.wav", "label": "cat"}]', "m.json", None),
        (
            gzip.compress(b'{"path": "a.wav", "label": "Ger\xc3\xa4t"}\n{"path": "b.wav", "label": "cat"}', mtime=0),
            "m.jsonl.gz",
            "unpacked from gzip",
        ),
    ],
)
def test_forms_of_one_table(tmp_path: Path, content: bytes, name: str, note: str | None) -> None:
    source = read(tmp_path, content, name)
    assert source.listing().to_pydict() == {"path": ["a.wav", "b.wav"], "label": ["Gerät", "cat"]}
    assert source.reading.notes == ([] if note is None else [note])


@pytest.mark.parametrize(
    ("content", "name", "match"),
    [
        (PLAIN.encode("cp1252"), "m.csv", "line 2: the column 'label' is not UTF-8; .*'a.wav,Gerät' in Windows-1252"),
        ("path,gerät\na.wav,1\n".encode("latin-1"), "m.csv", "line 1: .* is not UTF-8"),
        (PLAIN.encode("utf-16-le"), "m.csv", "NUL characters|not UTF-8"),
        (b"path,label\na.wav,x\0y\n", "m.csv", "NUL characters"),
        (b"PK\x03\x04rest", "m.csv", "a spreadsheet or an archive: save it as CSV"),
        (b"PAR1rest", "m.csv", "call it .parquet"),
        (b"\x1f\x8bbroken", "m.csv.gz", "cannot be read"),
        (b"path,label\na.wav,dog,x\n", "m.csv", r"line 2: 3 cells where the header has 2 \('a.wav', 'dog', 'x'\)"),
        (b"path,label\na.wav,dog\nb.wav\n", "m.csv", "line 3: 1 cell where"),
        (b'path,label\n"a\n.wav",dog\nb.wav\n', "m.csv", "line 4: 1 cell where"),
        (b'path,label\na.wav,"dog\nb.wav,cat\n', "m.csv", "line 2: not readable as a table: .*a quote is not closed"),
        (b"path,label,label\na.wav,x,y\n", "m.csv", "'label' is there twice"),
        (b"path,label,Label\na.wav,x,y\n", "m.csv", "'Label' is there twice"),
        (b"path,label\na.wav,x\n,y\n", "m.csv", "line 3: the path is empty"),
        (b"a.wav,dog\nb.wav,cat\n", "m.csv", "no column 'path'; found 'a.wav', 'dog'"),
        (b'{"path": "a.wav"}\n{"path": ', "m.jsonl", "line 2: not readable as JSON"),
        (b'{"path": "a.wav"}\n[1]\n', "m.jsonl", "line 2: not an object"),
        (b'{"path": "a.wav", "path": "b.wav"}\n', "m.jsonl", "line 1: the key 'path' is there twice"),
        (b'{"path": "a.wav"}\n{"label": "x"}\n', "m.jsonl", "line 2: the path is empty"),
        (b'["a.wav"]', "m.json", "item 1: not an object"),
        (b"[]", "m.json", "no rows"),
        (b"\n", "m.jsonl", "no rows"),
        (b'{"path": ["a.wav"]}', "m.json", "line 1: the column 'path' must hold paths as text; it is list"),
        (b"[" * 100000, "m.json", "not readable as JSON: it is nested too deeply"),
    ],
)
def test_what_is_no_table_is_one_line_that_says_where(tmp_path: Path, content: bytes, name: str, match: str) -> None:
    with pytest.raises(SourceError, match=match) as caught:
        read(tmp_path, content, name).listing()
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


def test_quoted_newlines_and_the_lines_that_messages_count(tmp_path: Path) -> None:
    text = 'path,label\n"a.wav","dog\nbig"\n\nb.wav,cat\n../c.wav,x\n'
    with pytest.raises(SourceError, match="line 6: the path"):
        read(tmp_path, text).listing()
    source = read(tmp_path, text.replace("../", ""))
    assert source.listing()["label"].to_pylist() == ["dog\nbig", "cat", "x"]


def test_columns_without_a_name(tmp_path: Path) -> None:
    source = read(tmp_path, ",path,,label\n0,a.wav,,x\n1,b.wav,,y\n")
    assert source.listing().to_pydict() == {"path": ["a.wav", "b.wav"], "column_1": [0, 1], "label": ["x", "y"]}
    assert source.reading.notes == ["columns without a name are kept as column_1"]


def test_json_keeps_lists_and_names_what_is_nested(tmp_path: Path) -> None:
    rows = [
        {"path": "a.wav", "tags": ["x", "y"], "n": 1, "meta": {"k": 1}, "mixed": 1, "ok": True, "id": "007"},
        {"path": "b.wav", "tags": "z", "n": 2.5, "mixed": "one", "big": 10**30},
    ]
    source = read(tmp_path, "\n".join(map(json.dumps, rows)), "m.jsonl")
    assert source.listing().to_pydict() == {
        "path": ["a.wav", "b.wav"],
        "tags": [["x", "y"], ["z"]],
        "n": [1.0, 2.5],
        "mixed": ["1", "one"],
        "ok": [True, None],
        "id": ["007", None],
        "big": [None, str(10**30)],
    }
    assert source.reading.ignored == {"meta": "nested"}


# names of columns


def test_columns_that_are_called_like_our_own_are_kept_under_another_name(tmp_path: Path, audio: Path) -> None:
    source = read(tmp_path, "file,path,Rate,clip,failed,length,source_clip\na.wav,x,1,2,3,4,5\n", path="file")
    source = ManifestSource(source.path, open_source(str(audio)), source.columns)
    table = scan(source, clip_seconds=10, taken={"view"})
    assert {name: table[name][0].as_py() for name in table.column_names[4:]} == {
        "source_path": "x",
        "source_Rate": 1,
        "source_clip_2": 2,
        "source_failed": 3,
        "source_length": 4,
        "source_clip": 5,
    }


def test_names_that_are_kept_do_not_depend_on_anything_else() -> None:
    assert kept_names(["Class", "x"], {"class"}) == {"Class": "source_Class"}
    assert kept_names(["class", "source_class", "SOURCE_CLASS_2"], {"class"}) == {"class": "source_class_3"}
    assert kept_names(["view", "rank"], {"class"}) == {}


def test_a_scan_says_what_it_understood(tmp_path: Path, audio: Path) -> None:
    text = "filename,onset,offset,label,rate\na.wav,1,3,dog big,1\nsub/c.wav,0,9,cat,1\nb.wav,5,6,,1\nz.wav,0,1,cat,1\n"
    source = read(tmp_path, text)
    source = ManifestSource(source.path, open_source(str(audio)), source.columns)
    table = scan(source, clip_seconds=10)
    said = understood(source, table, 4, {"rate": "source_rate"}, ["one note"])
    assert said == [
        ("source", "4 files, 0.0017 hours in 4 clips; 1 cannot be read"),
        ("columns", "used filename (path), onset (start), offset (end); kept label, rate as source_rate"),
        ("classes", "the column 'label' has 2 values: cat, dog big"),
        ("note", "one note"),
    ]


def test_rows_that_leave_their_file_are_said(tmp_path: Path, audio: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = read(tmp_path, "path,start,end\na.wav,5,6\nb.wav,3,4.04\nsub/c.wav,3,5\n")
    source = ManifestSource(source.path, open_source(str(audio)), source.columns)
    with caplog.at_level("INFO", "logitstore"):
        scan(source, clip_seconds=10)
    said = "\n".join(record.getMessage() for record in caplog.records)
    assert "1 rows begin after the end of their file and will be failures, such as 'a.wav' at 5 s of 4 s" in said
    assert "1 rows end after their file does and are cut there, such as 'sub/c.wav', to 5 s of 4 s" in said


# Parquet


def test_every_type_of_parquet_is_kept_or_named(tmp_path: Path, audio: Path) -> None:
    two = [decimal.Decimal("1.10"), None]
    columns = {
        "path": pa.array(["a.wav", "b.wav"]),
        "half": pa.array(np.array([1, 0.5], np.float16)),
        "decimal": pa.array(two),
        "wide": pa.array(two, pa.decimal256(20, 2)),
        "widest": pa.array(two, pa.decimal256(50, 2)),
        "when": pa.array([datetime.datetime(2020, 1, 1), None]),
        "day": pa.array([datetime.date(2020, 1, 1), None]),
        "view": pa.array(["x", None], pa.string_view()),
        "bytes view": pa.array([b"x", None], pa.binary_view()),
        "fixed": pa.array([b"xy", None], pa.binary(2)),
        "dictionary": pa.array(["x", None]).dictionary_encode(),
        "large": pa.array(["x", None], pa.large_string()),
        "struct": pa.array([{"a": 1}, None]),
        "half struct": pa.array([{"a": np.float16(1)}, None], pa.struct([("a", pa.float16())])),
        "list": pa.array([["x"], []]),
        "list view": pa.array([["x"], []], pa.list_view(pa.string())),
        "large list": pa.array([["x"], []], pa.large_list(pa.large_string())),
        "list of bytes": pa.array([[b"x"], []]),
        "null": pa.nulls(2),
        "big": pa.array([2**64 - 1, None], pa.uint64()),
        "class": pa.array(["x", "y"]),
    }
    pq.write_table(pa.table(columns), tmp_path / "m.parquet")
    source = ManifestSource(tmp_path / "m.parquet", open_source(str(audio)))
    table = scan(source, clip_seconds=10)
    first = {name: table[name][0].as_py() for name in table.column_names[4:]}
    assert first == {
        "half": 1.0,
        "decimal": two[0],
        "wide": two[0],
        "widest": 1.1,
        "when": datetime.datetime(2020, 1, 1),
        "day": datetime.date(2020, 1, 1),
        "view": "x",
        "fixed": b"xy",
        "dictionary": "x",
        "large": "x",
        "struct": {"a": 1},
        "half struct": {"a": 1.0},
        "list": ["x"],
        "list view": ["x"],
        "large list": ["x"],
        "null": None,
        "big": 2**64 - 1,
        "class": "x",
    }
    assert set(source.reading.ignored) == {"bytes view", "list of bytes"}
    import duckdb

    clips = table
    assert clips.num_rows
    assert len(duckdb.sql("SELECT * FROM clips").fetchall()) == 2


def hub(features: dict[str, Any]) -> dict[bytes, bytes]:
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}


NAMES = {"names": ["Dog", "Rain", "Music"], "_type": "ClassLabel"}


@pytest.mark.parametrize(
    ("feature", "values", "expected"),
    [
        (NAMES, pa.array([0, 2, None, -1]), ["Dog", "Music", None, None]),
        (NAMES, pa.array([0, 2, 1, 1], pa.int8()), ["Dog", "Music", "Rain", "Rain"]),
        (
            {"feature": NAMES, "_type": "Sequence"},
            pa.array([[0, 1], [], None, [2]]),
            [["Dog", "Rain"], [], None, ["Music"]],
        ),
        (
            {"feature": NAMES, "_type": "List"},
            pa.array([[0], [1], [2], [0]], pa.large_list(pa.int64())),
            [["Dog"], ["Rain"], ["Music"], ["Dog"]],
        ),
        ([NAMES], pa.array([[0], [1], [2], [0]], pa.list_(pa.int64(), 1)), [["Dog"], ["Rain"], ["Music"], ["Dog"]]),
        ({"_type": "Value", "dtype": "int64"}, pa.array([0, 1, 2, 3]), [0, 1, 2, 3]),
        (NAMES, pa.array(["Dog", "Rain", "a", "b"]), ["Dog", "Rain", "a", "b"]),
    ],
)
def test_class_labels_are_their_names(tmp_path: Path, feature: Any, values: pa.Array, expected: list[Any]) -> None:
    table = pa.table({"label": values}).replace_schema_metadata(hub({"label": feature, "gone": NAMES}))
    sound = pa.array([{"bytes": b"x", "path": "a.wav"}] * 4)
    pq.write_table(table.append_column("audio", sound), tmp_path / "hub.parquet", row_group_size=2)
    packed = open_source(str(tmp_path / "hub.parquet"))
    assert packed.kind == "parquet"
    assert packed.listing()["label"].to_pylist() == expected
    pq.write_table(table.append_column("file", pa.array(["a", "b", "c", "d"])), tmp_path / "m.parquet")
    assert open_source(str(tmp_path / "m.parquet")).listing()["label"].to_pylist() == expected


def test_a_class_label_without_a_name_is_refused(tmp_path: Path) -> None:
    table = pa.table({"path": ["a.wav", "b.wav"], "label": [0, 3]}).replace_schema_metadata(hub({"label": NAMES}))
    pq.write_table(table, tmp_path / "m.parquet")
    with pytest.raises(SourceError, match=r"'label', row 2: 3 is none of the 3 classes \(ClassLabel\)"):
        open_source(str(tmp_path / "m.parquet")).listing()


@pytest.mark.parametrize(
    "metadata",
    [
        b"",
        b"[]",
        b"null",
        b'{"info": 3}',
        b'{"info": {"features": {"label": {"names": 3, "_type": "ClassLabel"}}}}',
        b"\xff",
    ],
)
def test_metadata_of_another_form_is_none(tmp_path: Path, metadata: bytes) -> None:
    table = pa.table({"path": ["a.wav"], "label": [0]}).replace_schema_metadata({b"huggingface": metadata})
    pq.write_table(table, tmp_path / "m.parquet")
    assert open_source(str(tmp_path / "m.parquet")).listing()["label"].to_pylist() == [0]


# AudioSet

SEGMENTS = """# Segments csv created Sun Mar  5 10:54:31 2017
# num_ytids=3, num_segs=3, num_unique_labels=5, num_positive_labels=5
# YTID, start_seconds, end_seconds, positive_labels
--aaaaaaaaa, 0.000, 2.000, "/m/068hy,/m/07q6cd_"
-bbbbbbbbbb, 1.000, 3.000, "/m/03l9g"
ccccccccccc, 30.000, 32.000, "/m/03l9g"
"""


@pytest.mark.parametrize(
    ("files", "clips"),
    [
        # whole recordings; the third is not there
        ({"--aaaaaaaaa.wav": 4, "-bbbbbbbbbb.wav": 4}, [("--aaaaaaaaa.wav", 0, 2), ("-bbbbbbbbbb.wav", 1, 2)]),
        # cut out already, and in folders
        (
            {"x/--aaaaaaaaa.flac": 2, "y/-bbbbbbbbbb.flac": 2, "y/ccccccccccc.flac": 2},
            [("x/--aaaaaaaaa.flac", 0, 2), ("y/-bbbbbbbbbb.flac", 0, 2), ("y/ccccccccccc.flac", 0, 2)],
        ),
        ({"Y--aaaaaaaaa.wav": 2}, [("Y--aaaaaaaaa.wav", 0, 2)]),
        (
            {"-bbbbbbbbbb_1000.wav": 2, "ccccccccccc_30.000.wav": 2},
            [("-bbbbbbbbbb_1000.wav", 0, 2), ("ccccccccccc_30.000.wav", 0, 2)],
        ),
        (
            {"ccccccccccc_30000_32000.wav": 2, "-bbbbbbbbbb_1.wav": 2},
            [("-bbbbbbbbbb_1.wav", 0, 2), ("ccccccccccc_30000_32000.wav", 0, 2)],
        ),
    ],
)
def test_audiosets_segments(tmp_path: Path, files: dict[str, int], clips: list[Any]) -> None:
    for name, seconds in files.items():
        path = tmp_path / "audio" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.zeros(seconds * RATE, np.float32), RATE)
    (tmp_path / "balanced.csv").write_text(SEGMENTS)
    source = open_source(str(tmp_path / "balanced.csv"), str(tmp_path / "audio"))
    table = scan(source, clip_seconds=10)
    found = [(row["path"], row["start"] / RATE, row["length"] / RATE) for row in table.to_pylist() if row["rate"]]
    assert found == sorted(clips)
    assert table.num_rows == 3
    labels = dict(zip(table["path"].to_pylist(), table["positive_labels"].to_pylist(), strict=True))
    assert ["/m/068hy", "/m/07q6cd_"] in labels.values()
    assert source.reading.used == {"path": "YTID", "start": "start_seconds", "end": "end_seconds"}
    if len(files) < 3:
        absent = 3 - len(files)
        assert f"{absent} of 3 segments have no file in the audio root, and will be failures" in source.reading.notes


def test_names_without_endings_are_files(tmp_path: Path, audio: Path) -> None:
    (tmp_path / "m.csv").write_text("fname,labels\na,x\nsub/c,y\nzz,z\n")
    source = open_source(str(tmp_path / "m.csv"), str(audio))
    assert source.listing()["path"].to_pylist() == ["a.wav", "sub/c.wav", "zz"]
    assert source.reading.notes == ["2 names without an ending are files of the audio root"]
