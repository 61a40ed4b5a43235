"""Several sources as one, patterns of files, and label files beside their audio."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from logitstore.audio.decode import decode
from logitstore.audio.scan import scan
from logitstore.audio.source import ColumnNames
from logitstore.audio.sources import open_audio, open_source
from logitstore.errors import SourceError
from tests.audio.test_sources import encoded, put, write_hub, write_tar

RATE = 8000


def sound(path: Path, seconds: int = 4) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(seconds * RATE, np.float32), RATE, subtype="PCM_16")
    return path


def clips(source: Any, audio_root: str | None = None) -> list[dict[str, Any]]:
    rows = scan(open_source(source, audio_root), clip_seconds=10).to_pylist()
    for row in rows:
        row["start"], row["length"] = row["start"] / RATE, row["length"] / RATE
        del row["rate"]
    return rows


def paths(source: Any, audio_root: str | None = None) -> list[str]:
    return [row["path"] for row in clips(source, audio_root)]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("x/a.wav", "x/b.flac", "y/c.wav", "y/deep/d.wav"):
        sound(tmp_path / name)
    put(tmp_path / "x" / "notes.md", b"")
    return tmp_path


# audio files and patterns


def test_a_pattern_of_audio_files(tree: Path) -> None:
    assert paths(f"{tree}/x/*.wav") == ["a.wav"]
    assert paths(f"{tree}/*/*.wav") == ["x/a.wav", "y/c.wav"]
    assert paths(f"{tree}/**/*.wav") == ["x/a.wav", "y/c.wav", "y/deep/d.wav"]
    assert paths(f"{tree}/x/*.*[vc]") == ["a.wav", "b.flac"]
    assert paths(f"{tree}/{{x,y}}/*.wav") == ["x/a.wav", "y/c.wav"]
    assert paths(f"{tree}/x/*.wav", str(tree)) == ["x/a.wav"]
    with pytest.raises(SourceError, match=r"several kinds|unknown kind"):
        open_source(f"{tree}/x/*")


def test_audio_files_one_by_one(tree: Path) -> None:
    assert paths(str(tree / "x/a.wav")) == ["a.wav"]
    assert paths([str(tree / "x/a.wav"), str(tree / "y/c.wav")]) == ["x/a.wav", "y/c.wav"]
    assert paths([str(tree / "x/a.wav"), str(tree / "x/b.flac"), str(tree / "x/a.wav")]) == ["a.wav", "b.flac"]
    assert paths([f"{tree}/x/*.wav", str(tree / "x/a.wav")]) == ["a.wav"]
    audio = open_audio(str(tree / "x/a.wav"))
    assert len(decode(audio, "a.wav", 0, RATE, RATE, RATE)) == RATE


# several


def test_sources_of_every_kind_read_as_one(tree: Path) -> None:
    put(tree / "t" / "one.csv", b"path,label\n../x/a.wav,dog\n".replace(b"../", b""))
    sound(tree / "t" / "x" / "a.wav")
    write_tar(tree / "shards" / "s.tar", {"e.flac": encoded(1), "e.cls": b"3"})
    write_hub(tree / "hub.parquet", [{"audio": {"bytes": encoded(2), "path": "f.flac"}, "label": 1}])
    given = [str(tree / name) for name in ("x", "y/*.wav", "t/one.csv", "shards", "hub.parquet")]
    source = open_source(given)
    table = scan(source, clip_seconds=10)
    rows = {row["path"]: (row["label"], row["cls"]) for row in table.to_pylist()}
    assert rows == {
        "x/a.wav": (None, None), "x/b.flac": (None, None), "y/c.wav": (None, None), "t/x/a.wav": ("dog", None),
        "shards/s.tar/e.flac": (None, 3), "hub.parquet/000000000": ("1", None),
    }  # fmt: skip
    assert (table["length"].to_numpy() > 0).all()
    for root in (source, open_audio(str(tree))):
        for row in table.to_pylist():
            assert len(decode(root, row["path"], 0, 100, RATE, RATE)) == 100


def test_several_tables_under_one_audio_root(tree: Path) -> None:
    put(tree / "lists" / "one.csv", b"path,fold,start,end\nx/a.wav,1,0,1\n")
    put(tree / "lists" / "two.csv", b"filename,fold\ny/c.wav,NA\n")
    given = [str(tree / "lists" / name) for name in ("one.csv", "two.csv")]
    expected = [
        {"path": "x/a.wav", "start": 0, "length": 1, "fold": "1"},
        {"path": "y/c.wav", "start": 0, "length": 4, "fold": "NA"},
    ]
    assert clips(given, str(tree)) == expected
    assert clips(f"{tree}/lists/*.csv", str(tree)) == expected
    assert clips(given[:1] * 2, str(tree)) == [expected[0] | {"fold": 1}]


def test_an_option_for_columns_holds_for_every_table(tree: Path) -> None:
    put(tree / "one.csv", b"sound,label\nx/a.wav,dog\n")
    put(tree / "two.csv", b"sound,label\ny/c.wav,cat\n")
    source = open_source([str(tree / "one.csv"), str(tree / "two.csv")], None, ColumnNames(path="sound"))
    assert source.listing()["path"].to_pylist() == ["x/a.wav", "y/c.wav"]


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ([], "no source was given"),
        (["x", "nowhere"], "nowhere: no such file or folder"),
        (["x", "x/a.wav"], "duplicate clips, 1 in all: 'a.wav'"),
        (["one.csv", "two.csv"], r"'Label' is there twice"),
        (["x", "model.pt"], "unknown kind of source '.pt'"),
    ],
)
def test_what_several_sources_cannot_be(tree: Path, given: list[str], match: str) -> None:
    put(tree / "one.csv", b"path,label\nx/a.wav,dog\n")
    put(tree / "two.csv", b"path,Label\ny/c.wav,dog\n")
    put(tree / "model.pt", b"x")
    with pytest.raises(SourceError, match=match):
        clips([str(tree / name) for name in given])


# label files

AUDACITY = b"0.5\t1.5\tdog\n\\\t100.0\t2000.0\n2.0\t3.0\tcat, big\n0.5\t1.5\tbark\n3.5\t3.5\tpoint\n"


def test_audacity_labels_beside_their_audio(tree: Path) -> None:
    put(tree / "x" / "a.txt", AUDACITY)
    source = open_source(str(tree / "x" / "a.txt"))
    rows = scan(source, clip_seconds=10).to_pylist()
    assert [(row["path"], row["start"] / RATE, row["length"] / RATE, row["label"]) for row in rows] == [
        ("a.wav", 0.5, 1, ["dog", "bark"]),
        ("a.wav", 2, 1, ["cat, big"]),
    ]
    assert set(source.reading.notes) == {  # type: ignore[attr-defined]
        "1 labels without a length are left out", "the frequencies of 1 labels are not used",
        "1 labels are of the same span as another, and are put with it",
    }  # fmt: skip


def test_a_folder_of_label_files(tree: Path) -> None:
    put(tree / "labels" / "x" / "a.txt", b"0\t1\tdog\n")
    put(tree / "labels" / "d.txt", b"1\t2\tcat\r\n")
    put(tree / "labels" / "zz.txt", b"1\t2\tcat\n")
    put(tree / "labels" / "c.txt", b"")
    source = open_source(str(tree / "labels"), str(tree))
    table = scan(source, clip_seconds=10)
    assert {row["path"]: row["length"] / RATE for row in table.to_pylist()} == {
        "x/a.wav": 1, "y/deep/d.wav": 1, "zz.wav": 0,
    }  # fmt: skip
    notes = " ".join(source.reading.notes)  # type: ignore[attr-defined]
    assert "1 of 4 label files have no recording" in notes
    assert paths(f"{tree}/labels/*.txt", str(tree)) == ["y/deep/d.wav", "zz.wav"]


RAVEN = (
    "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tSpecies\n"
    "1\tWaveform 1\t1\t0.5\t1.5\t0\t100\towl\n1\tSpectrogram 1\t1\t0.5\t1.5\t0\t100\towl\n"
    "2\tSpectrogram 1\t1\t2\t3\t0\t100\tjay\n"
)
BIRDNET = (
    "Selection\tBegin File\tBegin Time (s)\tEnd Time (s)\tFile Offset (s)\tCommon Name\tConfidence\n"
    "1\ta.wav\t0\t3\t0\tOwl\t0.9\n2\tc.wav\t5\t7\t1\tJay\t0.5\n3\tgone.wav\t9\t10\t1\tJay\t0.5\n"
)


def test_ravens_selection_tables(tree: Path) -> None:
    put(tree / "x" / "a.Table.1.selections.txt", RAVEN.encode())
    source = open_source(str(tree / "x" / "a.Table.1.selections.txt"))
    rows = scan(source, clip_seconds=10).to_pylist()
    assert [(row["path"], row["start"] / RATE, row["length"] / RATE, row["Species"]) for row in rows] == [
        ("a.wav", 0.5, 1, "owl"),
        ("a.wav", 2, 1, "jay"),
    ]
    assert rows[0]["Selection"] == 1
    assert "1 rows are other views of the same selections, and are left out" in source.reading.notes  # type: ignore[attr-defined]
    put(tree / "all.txt", BIRDNET.encode())
    rows = clips(str(tree / "all.txt"))
    assert [(row["path"], row["start"], row["length"], row["Common Name"]) for row in rows] == [
        ("gone.wav", 0, 0, "Jay"),
        ("x/a.wav", 0, 3, "Owl"),
        ("y/c.wav", 1, 2, "Jay"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.txt", b"1\t0.5\tdog\n", r"line 1: .* is no label of Audacity's"),
        ("a.txt", b"0\t1\tdog\nhello\n", r"line 2: 'hello' is no label"),
        ("a.txt", b"-1\t1\tdog\n", r"line 1: .* is no label"),
        ("a.txt", b"the quick brown fox\n", "neither a label track of Audacity .* nor a selection table of Raven"),
        ("a.txt", b"0\t0\tpoint\n", "no label with a length"),
        ("zz.txt", b"0\t1\tdog\n", "zz.txt: there is no audio of this name"),
        ("a.txt", RAVEN.replace("2\t3", "3\t2").encode(), "line 4: it begins at 3 s and ends at 2 s"),
        ("a.txt", RAVEN.replace("2\t3", "x\t2").encode(), "line 4: Begin Time .s. is 'x'"),
        ("a.txt", RAVEN.replace("2\t3", "nan\t2").encode(), "line 4: it begins at nan s"),
        ("all.txt", BIRDNET.replace("File Offset", "Offset").encode(), "count through 3 files .*'File Offset .s.'"),
        ("a.txt", b"\xff\xfe\x00", "not UTF-16"),
    ],
)  # fmt: skip
def test_what_is_no_label_file(tree: Path, name: str, content: bytes, match: str) -> None:
    put(tree / "x" / name, content)
    with pytest.raises(SourceError, match=match) as caught:
        open_source(str(tree / "x" / name), str(tree)).listing()
    assert "\n" not in str(caught.value)


def test_a_label_file_of_two_recordings_is_ambiguous(tree: Path) -> None:
    sound(tree / "z" / "a.wav")
    put(tree / "labels" / "a.txt", b"0\t1\tdog\n")
    with pytest.raises(SourceError, match=r"it may be of x/a\.wav or z/a\.wav; keep one"):
        open_source(str(tree / "labels"), str(tree)).listing()


def test_labels_in_a_folder_of_audio_are_pointed_at(tree: Path) -> None:
    put(tree / "x" / "a.txt", b"0\t1\tdog\n")
    put(tree / "x" / "readme.txt", b"hello\n")
    put(tree / "x" / "labels.csv", b"path\na.wav\n")
    source = open_source(str(tree / "x"))
    assert source.listing()["path"].to_pylist() == ["a.wav", "b.flac"]
    assert source.reading.notes == [  # type: ignore[attr-defined]
        f"{tree}/x/labels.csv is not read; give it as the source to use what it says",
        f"1 label files such as 'a.txt' are not read; give '{tree}/x/*.txt' as the source",
    ]
