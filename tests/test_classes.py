"""Class lists: the AudioSet table, matching by any of its columns, permutations, differences, subset files."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
import pytest

from logitstore.classes import ClassIndex, audioset, audioset_indices, positions, read_classes
from logitstore.errors import TeacherError
from logitstore.models.sidecar import read_sidecar


def test_the_audioset_table_is_whole() -> None:
    table = audioset()
    assert [row.index for row in table] == list(range(527))
    assert len({row.mid for row in table}) == len({row.display_name for row in table}) == 527
    assert (table[0].mid, table[0].display_name) == ("/m/09x0r", "Speech")
    assert table[1].display_name == "Male speech, man speaking"
    assert table[526].display_name == "Field recording"


@pytest.mark.parametrize("label", ["Speech", "/m/09x0r", "0"])
def test_a_label_is_found_by_index_mid_or_display_name(label: str) -> None:
    for classes in (
        [row.display_name for row in audioset()],
        [row.mid for row in reversed(audioset())],
        [str(row.index) for row in audioset()],
    ):
        position = ClassIndex(classes).find(label)
        assert position is not None
        assert audioset_indices([classes[position]]) == [0]


def test_other_class_lists_are_matched_literally_only() -> None:
    index = ClassIndex(["dog_bark", "rain", "0"])
    assert index.find("0") == 2
    assert index.find("Speech") is None
    assert index.find_all(["rain", "wind", "hail"]) == ({"rain": 1}, ["hail", "wind"])


def test_positions_put_a_teachers_outputs_in_the_wanted_order() -> None:
    theirs, wanted = ["c", "a", "b"], ["a", "b", "c"]
    at = positions(theirs, wanted, whose="teacher")
    assert np.array(theirs)[at].tolist() == wanted
    mids = [row.mid for row in reversed(audioset())]
    at = positions(mids, [row.display_name for row in audioset()], whose="teacher")
    assert at.tolist() == list(range(526, -1, -1))
    assert positions(theirs, ["b"], whose="teacher", subset=True).tolist() == [2]


def test_a_difference_is_shown_with_counts_and_a_few_names() -> None:
    with pytest.raises(TeacherError, match=r"teacher 'x' .*: 1 missing \('b'\) and 4 extra \('p', 'q', 'r', …\)"):
        positions(["a", "p", "q", "r", "s"], ["a", "b"], whose="teacher 'x'")
    with pytest.raises(TeacherError, match=r"1 missing \('z'\) .*take them out of the --classes file"):
        positions(["a", "b"], ["a", "z"], whose="teacher 'x'", subset=True)
    speech = ["Speech", "/m/09x0r"]
    with pytest.raises(TeacherError, match="the same class of AudioSet"):
        positions([row.display_name for row in audioset()], speech, whose="teacher 'x'", subset=True)


def test_a_class_file_has_one_name_a_line(tmp_path: Path) -> None:
    file = tmp_path / "keep.txt"
    file.write_text("Male speech, man speaking\n\n  Dog \n", encoding="utf-8")
    assert read_classes(file) == ("Male speech, man speaking", "Dog")
    file.write_text("Dog\nDog\n", encoding="utf-8")
    with pytest.raises(TeacherError, match="line 2: the name 'Dog' stands on line 1 too"):
        read_classes(file)
    file.write_text("\n", encoding="utf-8")
    with pytest.raises(TeacherError, match="at least one"):
        read_classes(file)
    with pytest.raises(TeacherError, match="cannot be read"):
        read_classes(tmp_path / "missing.txt")


TWO = ("Speech", "Male speech, man speaking")


@pytest.mark.parametrize(
    ("content", "classes"),
    [
        ('index,mid,display_name\n0,/m/09x0r,"Speech"\n1,/m/05zppz,"Male speech, man speaking"\n', TWO),
        ("index,mid,display_name\r\n0,/m/09x0r,Speech\r\n1,/m/05zppz,Male speech, man speaking\r\n", TWO),
        ("display_name\tindex\nMale speech, man speaking\t1\nSpeech\t0\n", TWO),
        ("Index;Display Name\n1;Male speech, man speaking\n0;Speech\n", TWO),
        ('mid,index,name,count\n/m/05zppz,1,"Male speech, man speaking",7\n/m/09x0r,0,Speech,9\n', TWO),
        (',name\n0,Speech\n1,"Male speech, man speaking"\n', TWO),
        ('0,Speech,/m/09x0r\n1,"Male speech, man speaking",/m/05zppz\n', TWO),
        ("0 Speech\n1 Male speech, man speaking\n", TWO),
        ("# of AudioSet\n\nSpeech \n\tMale speech, man speaking\r", TWO),
        ('display_name\nSpeech\n"Male speech, man speaking"\n', TWO),
        ("Speech\nMale speech, man speaking", TWO),
        ("Male speech, man speaking\nFemale speech, woman speaking\n", (TWO[1], "Female speech, woman speaking")),
        ('["Speech", "Male speech, man speaking"]', TWO),
        ('{"id2label": {"1": "Male speech, man speaking", "0": "Speech"}}', TWO),
        ('{"Male speech, man speaking": 1, "Speech": 0}', TWO),
        ('[{"id": "/m/09x0r", "name": "Speech"}, {"id": "/m/05zppz", "name": "Male speech, man speaking"}]', TWO),
        ("mid\n/m/09x0r\n/m/05zppz\n", ("/m/09x0r", "/m/05zppz")),
        ("0\n1\n2\n", ("0", "1", "2")),
        ("3 o'clock\n10 bells\n", ("3 o'clock", "10 bells")),
        ("[noise]\nname\n", ("[noise]", "name")),
        ("Dog,\nCat,\n", ("Dog", "Cat")),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_a_class_file_is_understood_as_it_was_published(
    tmp_path: Path, content: str, classes: tuple[str, ...], encoding: str
) -> None:
    file = tmp_path / "classes"
    file.write_bytes(content.encode(encoding))
    assert read_classes(file) == classes
    if not content.startswith(("3 o", "0\n")):
        assert read_classes(file, outputs=True) == classes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("index,name\n0,a\n0,b\n", "line 3: the index 0 stands on line 2 too"),
        ("index,name\n0,a\nx,b\n", "line 3: the index is 'x'; it must be a number"),
        ("index,name\n0,a\n1\n", "line 3 is '1': 1 columns"),
        ("0,a,red\n1,b,blue\n", "line 1 has 3 columns .* which has the names is not clear"),
        ("Dog\tloud\nCat\tquiet\n", r"line 1 is 'Dog\\tloud': a tab"),
        ("Dog\nCat\nDog \n", "line 3: the name 'Dog' stands on line 1 too"),
        ('{"a": "b"}', "maps neither indices to names nor names to indices"),
        ('["a", 3]', "item 2 of its JSON list has no name"),
        ("index,name\n0,a\n72,b\n", "line 3: 2 classes have indices from 0 to 72; .* without a gap"),
        ("name\n", None),
        ("Apus apus,Common Swift\nParus major,Great Tit\nPica pica,Magpie\n", "every line has 2 parts .* not clear"),
    ],
)
def test_a_class_file_that_is_not_understood_is_refused_with_the_line(
    tmp_path: Path, content: str, message: str | None
) -> None:
    file = tmp_path / "classes.csv"
    file.write_text(content, encoding="utf-8")
    if message is None:
        assert read_classes(file) == ("name",)
        return
    with pytest.raises(TeacherError, match=message):
        read_classes(file, outputs=True)


def test_a_class_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "classes.json"
    for content, message in (
        (b"Dog\nCaf\xe9\n", "line 2 is not UTF-8"),
        (b"Dog\n\0\n", "line 2 has a zero byte"),
        (b'["Dog",', "is not readable as JSON"),
    ):
        file.write_bytes(content)
        with pytest.raises(TeacherError, match=message):
            read_classes(file)


def test_what_was_understood_of_a_class_file_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "classes"
    for content, said in (
        ("name\nDog\nCat\n", "line 1, 'name', is taken for a header"),
        ("index,name\n72,Dog\n0,Cat\n", r"the indices have gaps \(0 to 72\); the classes are in their order"),
        ("index,name\n2,Dog\n1,Cat\n", "the indices count from 1; class 1, 'Cat', is the first"),
        ("#a\nDog\n", "1 lines that begin with '#'"),
        ("a,b\nc,d\ne,f\n", "every line has 2 parts separated by ','.* each line is taken for one name"),
        ("\n".join(["What it is", *(each.display_name for each in audioset())]), "line 1, 'What it is', is taken"),
        ("index,mid,display_name\n0,/m/09x0r,Speech\n", "its column 'display_name' has the names, such as 'Speech'"),
    ):
        file.write_text(content)
        with caplog.at_level(logging.WARNING, "logitstore"):
            read_classes(file)
        assert re.search(said, caplog.text)
        caplog.clear()
    file.write_text("Dog\nCat\n")
    read_classes(file)
    assert caplog.text == ""


def test_a_label_in_another_unicode_form_is_the_same_label() -> None:
    index = ClassIndex(["caf\u00e9", "Dog"])
    assert index.find("cafe\u0301") == 0
    assert index.find("dog") is None


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_side_file_that_another_system_wrote_is_read(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "m.onnx.json").write_bytes('{"classes": ["Dog", "caf\u00e9"]}\r\n'.encode(encoding))
    sidecar = read_sidecar(tmp_path / "m.onnx")
    assert sidecar is not None
    assert sidecar.classes == ("Dog", "caf\u00e9")
