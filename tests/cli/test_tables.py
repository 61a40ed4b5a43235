"""What a user hears of a table: three lines before anything long begins, and every surprise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import logitstore as library
from tests.cli.test_cli import logitstore  # noqa: F401
from tests.stores import inside

ROWS = [(f"a/{n:03d}.wav", ("bark", "rain")[n % 2], n) for n in range(3)]


def said(err: str) -> list[str]:
    return [line for line in err.splitlines() if line.split(" ")[0] in ("source", "columns", "classes", "note")]


@pytest.fixture
def table() -> Path:
    """A table with columns that are called like those of a store, and a path of another name."""
    paths = sorted(path.relative_to("audio").as_posix() for path in Path("audio").rglob("*.wav"))[:3]
    lines = [f"{path},{label},{n},0,{n / 10},00{n}" for path, (_, label, n) in zip(paths, ROWS, strict=True)]
    Path("t.csv").write_text("filename,class,view,onset,offset2,id\n" + "\n".join(lines) + "\n")
    return Path("t.csv")


SUMMARY = [
    "source     3 files, ",
    "columns    used filename (path); kept class as source_class, view as source_view, onset, offset2, id",
    "classes    the column 'source_class' has 2 values: bark, rain",
]


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_build_says_what_it_understood(logitstore, table, more):  # noqa: F811
    code, out, err = logitstore.build(table, "--audio-root", "audio", *more)
    assert code == 0, err
    assert said(err)[0].startswith(SUMMARY[0])
    assert said(err)[1:3] == SUMMARY[1:]
    assert not said(out) or more  # a dry run's own lines go to stdout
    assert Path("store").exists() is not bool(more)
    code, _, err = logitstore.build(table, "--audio-root", "audio", *more, "-q")
    assert (code, err) == (0, "")


def test_queries_that_join_work_beside_columns_of_the_same_name(logitstore, table):  # noqa: F811
    logitstore.build(table, "--audio-root", "audio")
    query = "SELECT class, view, source_class, id FROM topk JOIN clips USING (clip) WHERE rank = 1 ORDER BY ALL LIMIT 1"
    code, out, err = logitstore("inspect", "store", query, "--format", "csv")
    assert code == 0, err
    assert out.splitlines()[0] == "class,view,source_class,id"
    assert ",00" in out
    code, out, err = logitstore("evaluate", "--stored", "store", "--label-column", "class", "--json")
    assert "no column" not in err


def test_extend_and_evaluate_say_it_too(logitstore, table):  # noqa: F811
    logitstore.build(table, "--audio-root", "audio")
    again = ("audio", "t.csv", "--audio-root", "audio", "--teacher", "python:tones:plain", "--skip-known")
    logitstore.refused(logitstore("extend", "store", *again), "duplicate clips")
    code, out, err = logitstore("extend", "store", "audio", "--teacher", "python:tones:plain", "--skip-known")
    assert code == 0, err
    assert len(said(err)) == 3
    Path("labels.csv").write_text(
        "filename,class\n" + Path("t.csv").read_text().splitlines()[1].split(",")[0] + ",tone 300 Hz\n"
    )
    code, out, err = logitstore("evaluate", "labels.csv", "--audio-root", "audio", "--label-column", "class",
                                "--teacher", "python:tones:plain", "--json")  # fmt: skip
    assert code == 0, err
    assert json.loads(out)
    assert "classes    the column 'class' has 1 value: tone 300 Hz" in said(err)


def test_a_column_of_our_own_is_never_taken_for_a_users(logitstore, table):  # noqa: F811
    Path("t.csv").write_text(Path("t.csv").read_text().replace("class", "manifest row").replace("rain", "tone 300 Hz")
                             .replace("bark", "tone 500 Hz"))  # fmt: skip
    code, _, err = logitstore("evaluate", "t.csv", "--audio-root", "audio", "--label-column", "manifest row",
                              "--teacher", "python:tones:plain")  # fmt: skip
    assert code == 0, err
    code, _, err = logitstore.build(table, "--audio-root", "audio", "--where", "\"manifest row\" = 'tone 300 Hz'")
    assert code == 0, err


@pytest.mark.parametrize(
    ("more", "part"),
    [
        (("--path-column", "filenam"), "did you mean 'filename'?"),
        (("--start-column", "onsett"), "did you mean 'onset'?"),
        (("--end-column", "nothing"), "no column 'nothing', which --end-column names"),
        (("--duration-column", "class"), "line 2: class is 'bark'"),
    ],
)
def test_a_column_that_is_not_there(logitstore, table, more, part):  # noqa: F811
    logitstore.refused(logitstore.build(table, "--audio-root", "audio", *more), part)


def test_several_sources_of_the_shell_the_config_and_the_library(logitstore, tmp_path):  # noqa: F811
    files = sorted(str(path) for path in Path("audio").rglob("*.wav"))
    code, out, err = logitstore.build(files[0], *files[1:4])
    assert code == 0, err
    assert "4 x 2 views" in out
    Path("c.yaml").write_text(f"source: [{files[0]}, {files[1]}]\nout: two\nteacher: python:tones:plain\n")
    code, out, err = logitstore("build", "--config", "c.yaml", "--views", 1, "--clip-seconds", 2)
    assert code == 0, err
    assert "2 x 1 views" in out
    with inside(tmp_path):
        summary = library.build(
            source=files[:3], out="three", teachers=["python:tones:plain"], views=1, clip_seconds=2, device="cpu"
        )
    assert summary.clips == 3
    logitstore.refused(logitstore("build", "--out", "x", "--teacher", "python:tones:plain"), "no SOURCE was given")
    logitstore.refused(logitstore.build(files[0], "nowhere"), "nowhere: no such file or folder")
