from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from logitstore.audio.audiofile import Audio, Pcm
from logitstore.audio.decode import decode
from logitstore.audio.scan import scan
from logitstore.audio.sources import open_source
from logitstore.errors import AudioError, QueryError, QueryLimitError, SourceError

RATE = 8000


class Memory:
    """A source of silent files of given lengths; a negative length cannot be read."""

    kind = "memory"

    def __init__(self, frames: dict[str, int], listing: pa.Table | None = None, rate: int = RATE) -> None:
        self.frames = frames
        self.rate = rate
        self.segmented = listing is not None
        self._listing = listing if listing is not None else pa.table({"path": pa.array(list(frames), pa.string())})

    def listing(self) -> pa.Table:
        return self._listing

    def read(self, path: str) -> Audio:
        frames = self.frames[path]
        if frames < 0:
            raise AudioError("gone")
        return Pcm(frames, self.rate, lambda start, stop: np.zeros(stop - start, dtype=np.int16))


def spans(table: pa.Table) -> list[tuple[str, int, int]]:
    return [(row["path"], row["start"], row["length"]) for row in table.select(["path", "start", "length"]).to_pylist()]


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        (0, [(0, 0)]),
        (1, [(0, 1)]),
        (7999, [(0, 7999)]),
        (8000, [(0, 8000)]),
        (11999, [(0, 8000)]),
        (12000, [(0, 8000), (8000, 4000)]),
        (16000, [(0, 8000), (8000, 8000)]),
        (19999, [(0, 8000), (8000, 8000)]),
    ],
)
def test_long_files_are_cut_and_short_ends_dropped(frames: int, expected: list[tuple[int, int]]) -> None:
    table = scan(Memory({"a": frames}), clip_seconds=1)
    assert [span[1:] for span in spans(table)] == expected
    assert table.schema.types[:4] == [pa.string(), pa.int64(), pa.int64(), pa.int32()]
    assert table.column_names == ["path", "start", "length", "rate"]


@given(st.integers(0, 100_000), st.sampled_from([107, 8000, 11025, 44100]), st.floats(0.3, 12))
@settings(deadline=None, max_examples=60)
def test_clips_tile_the_file(frames: int, rate: int, clip_seconds: float) -> None:
    table = scan(Memory({"a": frames}, rate=rate), clip_seconds=clip_seconds)
    clip = max(1, int(np.floor(clip_seconds * rate + 0.5)))
    end = 0
    for _, start, length in spans(table):
        assert start == end
        assert length <= clip
        end = start + length
    assert frames - end < clip / 2 or end == frames
    assert all(2 * length >= clip for _, _, length in spans(table)[1:])


def test_rows_of_a_manifest_are_cut_like_files(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(4 * RATE), RATE)
    (tmp_path / "m.csv").write_text(
        "path,start,duration,label,n\n"
        "a.wav,,0.5,whole,1\n"
        "a.wav,0.50005,2.5,long,2\n"
        "a.wav,3.5,9,clipped,3\n"
        "a.wav,7,1,past,4\n"
    )
    source = open_source(str(tmp_path / "m.csv"))
    table = scan(source, clip_seconds=1)
    assert table.column_names == ["path", "start", "length", "rate", "label", "n"]
    assert [(row["start"], row["length"], row["label"], row["n"]) for row in table.to_pylist()] == [
        (0, 4000, "whole", 1),
        (4000, 8000, "long", 2),
        (12000, 8000, "long", 2),
        (20000, 4000, "long", 2),
        (28000, 4000, "clipped", 3),
        (56000, 0, "past", 4),
    ]
    with pytest.raises(AudioError, match="starts at frame 56000 of a file of 32000 frames"):
        decode(source, "a.wav", 56000, 0, RATE, 16000)


def test_half_frames_round_up() -> None:
    listing = pa.table({"path": ["a", "a"], "start": [0.5 / RATE, 2.5 / RATE], "duration": [1.5 / RATE, 1.49 / RATE]})
    assert spans(scan(Memory({"a": 100}, listing), clip_seconds=1)) == [("a", 1, 2), ("a", 3, 1)]


def test_an_unreadable_file_keeps_one_row_and_its_columns(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "b.wav", np.zeros(RATE), RATE)
    (tmp_path / "a.wav").write_text("no audio")
    (tmp_path / "m.csv").write_text("path,start,duration,fold\na.wav,1,2,7\na.wav,3,2,8\nb.wav,0,1,9\nc.wav,0,1,10\n")
    assert scan(open_source(str(tmp_path / "m.csv")), clip_seconds=10).to_pylist() == [
        {"path": "a.wav", "start": 0, "length": 0, "rate": 0, "fold": 7},
        {"path": "b.wav", "start": 0, "length": RATE, "rate": RATE, "fold": 9},
        {"path": "c.wav", "start": 0, "length": 0, "rate": 0, "fold": 10},
    ]


@given(st.dictionaries(st.text(min_size=1, max_size=6), st.integers(-1, 30_000), min_size=1, max_size=12), st.data())
@settings(deadline=None, max_examples=40)
def test_order_of_listing_and_workers_change_nothing(frames: dict[str, int], data: st.DataObject) -> None:
    paths = [path for path in frames if path.encode(errors="replace").decode() == path]
    frames = {path: frames[path] for path in paths}
    if not frames:
        return
    shuffled = {path: frames[path] for path in data.draw(st.permutations(paths))}
    one, other = (scan(Memory(order), clip_seconds=1, workers=n) for order, n in ((frames, 1), (shuffled, 4)))
    assert one == other
    ordered = [(path.encode(), start, length) for path, start, length in spans(one)]
    assert ordered == sorted(set(ordered))


@pytest.mark.parametrize("waits", [True, False])
def test_threads_open_files_only_where_that_takes_waiting(monkeypatch: pytest.MonkeyPatch, waits: bool) -> None:
    class Watched(Memory):
        def read(self, path: str) -> Audio:
            threads.add(threading.get_ident())
            time.sleep(0.001)
            return super().read(path)

    threads: set[int] = set()
    frames = {f"{number:03d}": number % 7 * RATE - 1 for number in range(100)}
    monkeypatch.setattr("logitstore.audio.scan._CHUNK", 48)
    if not waits:  # as if all the time went into the processor
        monkeypatch.setattr("logitstore.audio.scan.time.thread_time", time.perf_counter)
    seen: list[int] = []
    found = scan(Watched(frames), clip_seconds=1, workers=4, progress=lambda done, _: seen.append(done))
    assert found == scan(Memory(frames), clip_seconds=1)
    assert seen == [48, 96, 100]
    assert threading.get_ident() in threads
    assert (len(threads) > 1) == waits


def test_duplicates_are_named_and_counted() -> None:
    listing = pa.table({"path": [name for name in "abcde" for _ in range(2)]})
    with pytest.raises(SourceError, match="duplicate clips, 5 in all: 'a', 'b', 'c' and 2 more; keep one"):
        scan(Memory(dict.fromkeys("abcde", 100), listing), clip_seconds=1)
    overlap = pa.table({"path": ["a", "a"], "start": [0.0, 1.0], "duration": [2.0, 1.0]})
    with pytest.raises(SourceError, match="duplicate clips, 1 in all: 'a' start 8000 length 8000;"):
        scan(Memory({"a": 16000}, overlap), clip_seconds=1)


def labelled() -> Memory:
    listing = pa.table({"path": ["a", "b", "c"], "fold": [1, 2, None], "label": ["x", "y", "x"]})
    return Memory(dict.fromkeys("abc", 100), listing)


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        ("fold = 1", "a"),
        ("fold <> 1", "b"),
        ("label = 'x' -- only x", "ac"),
        ("path in ('b', 'c') or fold < 2", "abc"),
    ],
)
def test_where_picks_rows(where: str, kept: str) -> None:
    assert "".join(scan(labelled(), clip_seconds=1, where=where).column("path").to_pylist()) == kept


@pytest.mark.parametrize(
    ("where", "match"),
    [
        ("fold =", "syntax error"),
        ("fould = 1", r"\"fould\" not found .*columns: path, fold, label"),
        ("true; drop table clips", "at '; drop table clips': syntax error"),
        ("true) union all select 1 where (true", "not one SQL expression"),
        ("exists (select * from read_csv('/etc/passwd'))", "read_csv.. is not allowed"),
        ("exists (select * from '/etc/passwd')", "no table '/etc/passwd'; the tables are clips"),
        ("exists (select * from listing)", "no table 'listing'"),
        ("label", "Could not convert string 'x'"),
        ("count(*) > 1", "cannot contain aggregates"),
        ("", "it is empty; give a condition"),
        ("true), (false", "not one SQL expression"),
        ("true) from clips where (true", "not one SQL expression"),
        ("true) limit (1", "not one SQL expression"),
        ("fold = $fold", r"parameter \$fold and no value"),
        ("current_setting('threads') = '1'", "current_setting.. is not allowed"),
        ("(select count(*) from query('select 1')) = 1", "query.. is not allowed"),
    ],
)
def test_where_that_is_no_expression_over_the_columns(where: str, match: str) -> None:
    with pytest.raises(QueryError, match=match) as caught:
        scan(labelled(), clip_seconds=1, where=where)
    assert "\n" not in str(caught.value)


def test_where_may_ask_about_the_other_rows() -> None:
    where = "clips.label = (SELECT max(label) FROM clips AS every)"
    assert scan(labelled(), clip_seconds=1, where=where).column("path").to_pylist() == ["b"]


def test_where_has_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGITSTORE_SQL_MEMORY", "64MB")
    monkeypatch.setenv("LOGITSTORE_SQL_TEMP_SPACE", "16MB")
    where = "(SELECT count(DISTINCT hash(i)) FROM range(1000000000) t(i)) > 0"
    with pytest.raises(QueryLimitError, match=r"--where .* more than 16MB of temporary.*LOGITSTORE_SQL_TEMP_SPACE"):
        scan(labelled(), clip_seconds=1, where=where)


def test_where_that_leaves_nothing() -> None:
    with pytest.raises(SourceError, match="leaves none of 3 rows"):
        scan(labelled(), clip_seconds=1, where="fold = 9")


@pytest.mark.parametrize("clip_seconds", [0, -1, float("nan")])
def test_clip_seconds_must_be_more_than_zero(clip_seconds: float) -> None:
    with pytest.raises(SourceError, match=r"clip_seconds is .*; it must be more than 0"):
        scan(labelled(), clip_seconds=clip_seconds)


def test_progress_reaches_the_end() -> None:
    seen: list[tuple[int, int]] = []
    scan(labelled(), clip_seconds=1, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (3, 3)
