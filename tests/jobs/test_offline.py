"""The listening page as one file: which clips it holds, and what of their sounds is left."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import re
import sys

import numpy as np
import pytest
import soundfile

from logitstore.cli.main import cli
from logitstore.errors import UsageError
from logitstore.jobs.serve.offline import opus, write_listening_page
from logitstore.store.reader import open_store
from tests.heard import make_heard


@pytest.fixture(scope="module")
def heard(tmp_path_factory):
    folder = tmp_path_factory.mktemp("offline")
    make_heard(folder, clips=18)
    (folder / "audio" / "04.wav").write_bytes(b"gone since")
    return folder


@pytest.fixture
def store(heard):
    return open_store(heard / "store", audio_root=heard / "audio")


def inside(page):
    """The data of a page, and its sounds."""
    data, sounds = (
        json.loads(re.search(f'<script type="application/json" id="{name}">(.*?)</script>', page.read_text())[1])
        for name in ("data", "audio")
    )
    return json.loads(gzip.decompress(base64.b64decode(data))), sounds


@pytest.mark.parametrize("rate", [8000, 16_000, 22_050, 32_000, 44_100])
def test_a_sound_is_opus_without_room_for_comments(rate):
    time = np.arange(2 * rate) / rate
    wave = (0.3 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    file = opus(wave, rate)
    heard, at = soundfile.read(io.BytesIO(file))
    assert at in (8000, 12_000, 16_000, 24_000, 48_000)
    assert at >= rate
    assert abs(len(heard) / at - 2) < 0.01
    spectrum = np.abs(np.fft.rfft(heard[: 2 * at]))
    assert np.argmax(spectrum) == 880  # bins of 0.5 Hz
    assert file.count(b"OpusTags") == 1
    assert b"\0" * 200 not in file
    assert len(file) < 4000


def test_clips_by_number_table_and_question(store, heard, tmp_path):
    write_listening_page(store, tmp_path / "even.html", clips="4", views=1)
    data, sounds = inside(tmp_path / "even.html")
    assert [row["clip"] for row in data["rows"]] == [0, 6, 11, 17]
    assert list(sounds) == [f"{clip}/{view}" for clip in (0, 6, 11, 17) for view in ("original", 0)]
    assert data["clips"]["6"]["key"] == {"path": "06.wav", "start": 0, "length": 9600, "rate": 16_000}
    assert data["store"]["questions"] == []
    with (tmp_path / "some.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["clip"], [9], [2]])
    write_listening_page(store, tmp_path / "some.html", clips=str(tmp_path / "some.csv"))
    assert [row["clip"] for row in inside(tmp_path / "some.html")[0]["rows"]] == [2, 9]
    asked = [row["clip"] for row in store.sql("@uncertain_clips").to_pylist()]
    write_listening_page(store, tmp_path / "asked.html", clips="@uncertain_clips")
    data, _ = inside(tmp_path / "asked.html")
    assert [row["clip"] for row in data["rows"]][: len(asked)] == asked
    assert data["rankings"]["uncertain_clips"] == [row["clip"] for row in data["rows"]]
    assert [each["name"] for each in data["store"]["questions"]] == ["uncertain_clips"]


def test_a_sound_that_is_gone_is_said(heard, tmp_path, monkeypatch, capsys):
    from logitstore.cli.command import run

    line = [
        "report",
        str(heard / "store"),
        "--audio-root",
        str(heard / "audio"),
        "--listen",
        str(tmp_path / "page.html"),
    ]
    monkeypatch.setattr(sys, "argv", ["logitstore", *line, "--clips", "18"])
    with pytest.raises(SystemExit, match="0"):
        run(cli)
    told = capsys.readouterr()
    assert "clips      18, 1 of them without sound" in told.out
    assert "clip 4 (04.wav) cannot be heard: not readable as audio" in told.err
    data, sounds = inside(tmp_path / "page.html")
    assert len(data["rows"]) == 18
    assert "4/original" not in sounds


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"clips": "1001"}, "--clips 1001: give 1 to 1,000 clips, a table of clips, or @question"),
        ({"clips": "0"}, "--clips 0: give 1 to 1,000"),
        ({"clips": "@nothing"}, "there is no question @nothing"),
        ({"clips": "@coverage"}, "the answer has no column clip"),
        ({"clips": "none.csv"}, "none.csv"),
        ({"views": 3}, "--listen-views 3: .* has 2 views of each clip; give 0 to 2"),
        ({"label_column": "lable"}, "no column 'lable', which --label-column names"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_written(store, tmp_path, asked, reason):
    with pytest.raises(UsageError, match=reason):
        write_listening_page(store, tmp_path / "page.html", **asked)
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["--clips", "4"], "--clips is of the listening page, which --listen FILE.html writes"),
        (["--listen", "page.html"], "say where they lie: --audio-root DIR"),
        (["teacher-1", "--listen", "page.html", "--audio-root", "audio"], "leave runs and --teacher out"),
    ],
)
def test_options_that_do_not_go_together(heard, monkeypatch, capsys, more, reason):
    from logitstore.cli.command import run

    monkeypatch.chdir(heard)
    monkeypatch.setattr(sys, "argv", ["logitstore", "report", "store", *more])
    with pytest.raises(SystemExit, match="2"):
        run(cli)
    assert reason in capsys.readouterr().err
