"""Tables that name clips of a store: which are chosen, and what is refused."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from logitstore import open_store
from logitstore.errors import MismatchError, SourceError
from logitstore.store.subset import numbering, read_subset
from tests.small_store import Spec, make_store


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    made = make_store(tmp_path_factory.mktemp("subset") / "store")
    return open_store(made.path)


def written(folder, **columns):
    file = folder / "subset.parquet"
    pq.write_table(pa.table(columns), file)
    return str(file)


def test_numbers_choose_clips_in_any_order_each_once(store, tmp_path, caplog):
    caplog.set_level("INFO", "logitstore")
    subset = read_subset(store, written(tmp_path, clip=[7, 3, 7, 30]))
    assert subset.clips.tolist() == [3, 7, 30]
    assert "4 rows name 3 clips" in caplog.text


def test_what_a_data_frame_and_a_csv_make_of_numbers_is_the_same_subset(store, tmp_path):
    (tmp_path / "subset.csv").write_text("n,clip\n1,30\n2,3\n")
    from_csv = read_subset(store, str(tmp_path / "subset.csv"))
    from_floats = read_subset(store, written(tmp_path, clip=[3.0, 30.0]))
    assert from_csv.clips.tolist() == from_floats.clips.tolist() == [3, 30]
    assert from_csv.digest == from_floats.digest
    assert from_csv.digest != read_subset(store, written(tmp_path, clip=[3, 31])).digest


def test_places_choose_clips(store, tmp_path):
    rows = store.clips.select(["path", "start", "length"]).take([5, 2])
    whole = read_subset(store, written(tmp_path, **{name: rows[name] for name in rows.column_names}))
    assert whole.clips.tolist() == [2, 5]
    assert read_subset(store, written(tmp_path, path=rows["path"])).clips.tolist() == [2, 5]
    moved = written(tmp_path, path=rows["path"], start=np.array(rows["start"]) + 1, length=rows["length"])
    with pytest.raises(MismatchError, match=r"2 of the 2 clips that --clips names are not in .*: .*its first clip is"):
        read_subset(store, moved)


def test_a_file_of_several_clips_is_not_named_by_its_path_alone(tmp_path):
    clips = pa.table({"path": ["a.wav", "a.wav"], "start": [0, 100], "length": [100, 100]})
    store = SimpleNamespace(clips=clips, location="store")
    with pytest.raises(
        SourceError, match=r"'a\.wav' is 2 clips of store; say which, in the column clip or in start and"
    ):
        read_subset(store, written(tmp_path, path=["a.wav"]))


def test_clips_that_the_store_lacks_are_named(store, tmp_path):
    (tmp_path / "subset.csv").write_text("clip\n1\n99\n-1\n37\n38\n")
    with pytest.raises(
        MismatchError,
        match=r"4 of the 5 clips .* not in .*: 99 \(.*subset.csv, line 3\), -1 .*, 37 .*, …; its clips are 0 to 36",
    ):
        read_subset(store, str(tmp_path / "subset.csv"))


def test_numbers_of_another_store_are_found_out_by_their_paths(store, tmp_path):
    with pytest.raises(
        MismatchError, match=r"row 2: --clips says that the path of clip 4 is 'x\.wav'.*of another store"
    ):
        read_subset(store, written(tmp_path, clip=[3, 4], path=[store.clips["path"][3].as_py(), "x.wav"]))


def test_numbers_that_inspect_wrote_are_of_their_store_alone(store, tmp_path):
    file = tmp_path / "asked.parquet"
    table = pa.table({"clip": [5, 6]}).replace_schema_metadata(numbering(store))
    pq.write_table(table, file)
    assert read_subset(store, str(file)).clips.tolist() == [5, 6]
    longer = make_store(tmp_path / "longer", Spec(clips=45))
    assert read_subset(open_store(longer.path), str(file)).clips.tolist() == [5, 6]
    shorter = make_store(tmp_path / "shorter", Spec(clips=30))
    with pytest.raises(MismatchError, match=r"the 37 clips of a store, and they are not the first of the 30 clips of"):
        read_subset(open_store(shorter.path), str(file))
    other = make_store(tmp_path / "other", Spec(failed=(3,)))
    with pytest.raises(MismatchError, match=r"the table is of another store; ask this one anew"):
        read_subset(open_store(other.path), str(file))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"name": ["a"], "view": [1]}, "no column clip, and no path, start and length, .*found 'name', 'view'"),
        ({"clip": pa.array([], pa.int64())}, "has no rows"),
        ({"clip": ["a"]}, "the column clip is of the type string; give whole numbers"),
        ({"clip": [1.5]}, "the column clip is of the type double"),
        ({"clip": [1, None]}, "row 2: --clips has no number in the column clip"),
    ],
    ids=["no such column", "empty", "text", "fraction", "null"],
)
def test_what_names_no_clips_is_refused(store, tmp_path, columns, message):
    with pytest.raises(SourceError, match=message):
        read_subset(store, written(tmp_path, **columns))


def test_what_is_no_table_is_refused(store, tmp_path):
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(SourceError, match="not readable as Parquet"):
        read_subset(store, str(tmp_path / "broken.parquet"))
    with pytest.raises(SourceError, match=r"--clips .*: not a regular file"):
        read_subset(store, str(tmp_path))
    (tmp_path / "cut.csv").write_text("clip,n\n1,2\n3\n")
    with pytest.raises(SourceError, match=r"--clips .*cut.csv, line 3: 1 cell where the header has 2"):
        read_subset(store, str(tmp_path / "cut.csv"))
