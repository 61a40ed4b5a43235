"""SONYC-UST's annotations as a source of clips and their labels."""

import csv
from pathlib import Path

import pytest
from pyarrow import parquet
from pyarrow.csv import read_csv

from logitstore.audio.sonyc import COARSE, FINE, TAGS, UNCERTAIN, read_annotations, targets
from logitstore.audio.sources import open_source
from logitstore.errors import SourceError
from tests.sonyc import CLIPS, UNVERIFIED, make_sonyc


def edit(folder: Path, change) -> str:
    """The annotations with every row changed; a row is a dictionary that ``change`` may alter."""
    path = folder / "annotations.csv"
    with path.open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        change(row)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def test_the_taxonomy_has_8_coarse_and_23_fine_classes_and_6_x():
    assert (len(COARSE), len(FINE), len(UNCERTAIN), len(TAGS)) == (8, 23, 6, 29)
    assert sorted(TAGS) == sorted(FINE + UNCERTAIN)


@pytest.mark.parametrize(("version", "below"), [("v1", "{split}/"), ("v2", "audio/")])
def test_a_clip_is_a_row_and_lies_where_its_release_has_it(tmp_path, version, below):
    make_sonyc(tmp_path, version, seconds=0.02)
    source = open_source(str(tmp_path / "annotations.csv"))
    rows = source.listing().to_pylist()
    assert len(rows) == sum(CLIPS.values()) - (UNVERIFIED if version == "v2" else 0)
    for row in rows:
        assert row["path"].startswith(below.format(split=row["split"]))
        source.read(row["path"])
    assert {tag for row in rows for tag in row["fine"]} <= set(FINE)
    assert {tag for row in rows for tag in row["uncertain"]} <= set(UNCERTAIN)
    assert sum(row["verified"] for row in rows) == CLIPS["validate"] + CLIPS["test"] - UNVERIFIED
    assert ("week" in rows[0]) == (version == "v2")


def test_coarse_is_any_fine_tag_or_x(tmp_path):
    make_sonyc(tmp_path)
    for row in open_source(str(tmp_path / "annotations.csv")).listing().to_pylist():
        assert {tag.partition("_")[0] for tag in row["coarse"]} == {tag[0] for tag in row["fine"] + row["uncertain"]}


def test_who_counts_is_what_the_baselines_take(tmp_path):
    make_sonyc(tmp_path)

    def change(row: dict[str, str]) -> None:
        volunteer = int(row["annotator_id"]) > 0
        row["8-1_dog-barking-whining_presence"] = "1.0" if volunteer and row["split"] == "validate" else "0"

    of = read_annotations(edit(tmp_path, change))
    found = targets(of)
    assert found.dropped == UNVERIFIED
    assert not found.of("validate").tags[:, -1].any()  # volunteers say so, the team does not
    old = targets(of, "2019").of("validate")
    assert len(old.files) == CLIPS["validate"]
    assert old.tags[:, -1].tolist() == (~old.agreed).tolist()  # volunteers count where the team agreed on nothing


def test_not_judged_is_never_counted(tmp_path):
    make_sonyc(tmp_path, "v1")
    tag = "1-1_small-sounding-engine_presence"

    def change(row: dict[str, str]) -> None:
        who = int(row["annotator_id"])
        row[tag] = "1" if who == 7 else "0" if who > 0 else "-1.0"
        row["annotator_id"] = str(who or -8)

    found = targets(read_annotations(edit(tmp_path, change)), "2019")
    assert found.tags[:, 0].all()  # one volunteer's 1 beside two members' -1


def test_the_coarse_column_is_not_believed_and_the_trap_is_said(tmp_path):
    make_sonyc(tmp_path)
    before = open_source(str(tmp_path / "annotations.csv")).listing().column("coarse").to_pylist()

    def change(row: dict[str, str]) -> None:
        if float(row["3_non-machinery-impact_presence"]) == 1:
            row["2_machinery-impact_presence"] = "1"

    source = open_source(edit(tmp_path, change))
    assert source.listing().column("coarse").to_pylist() == before
    (said,) = [note for note in source.reading.notes if "contradicts" in note]
    assert said.startswith("the column 2_machinery-impact_presence contradicts the fine tags")
    assert "before 0.4" in said


def test_a_table_of_parquet_is_the_same_source(tmp_path):
    make_sonyc(tmp_path, seconds=0.02)
    table = read_csv(tmp_path / "annotations.csv")
    parquet.write_table(table, tmp_path / "annotations.parquet")
    told, same = (open_source(str(tmp_path / f"annotations.{kind}")) for kind in ("csv", "parquet"))
    assert same.listing().equals(told.listing())
    assert same.reading.notes == told.reading.notes
    name = "8_dog_presence"
    at = table.column_names.index(name)
    parquet.write_table(table.set_column(at, name, table.column("split")), tmp_path / "annotations.parquet")
    with pytest.raises(SourceError, match="row 1: 8_dog_presence is 'train'; it must be a number"):
        same.listing()


def _drop(row: dict[str, str]) -> None:
    del row["6-X_music-from-uncertain-source_presence"]


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (_drop, "1 columns of SONYC-UST's annotations are missing"),
        (lambda row: row.update({"8_dog_presence": "yes"}), "line 2: 8_dog_presence is 'yes'; it must be a number"),
        (lambda row: row.update({"3-1_non-machinery-impact_presence": "2"}), "allowed are 1, 0 and -1"),
        (lambda row: row.update({"split": "dev"}), "the split is 'dev'; allowed are train, validate, test"),
        (lambda row: row.update({"annotator_id": "0"}), "agreed rows"),
        (lambda row: row.update({"audio_filename": "../" + row["audio_filename"]}), "leaves the audio root"),
    ],
)
def test_tables_that_are_not_the_releases_are_refused(tmp_path, change, wrong):
    make_sonyc(tmp_path)
    with pytest.raises(SourceError, match=wrong):
        open_source(edit(tmp_path, change)).listing()


def test_a_clip_without_a_file_is_said(tmp_path):
    make_sonyc(tmp_path, seconds=0.02)
    next((tmp_path / "audio").glob("*.wav")).unlink()
    source = open_source(str(tmp_path / "annotations.csv"))
    source.listing()
    assert any("1 of 24 clips have no file in the audio root" in note for note in source.reading.notes)
