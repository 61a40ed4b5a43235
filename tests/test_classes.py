"""Class lists: the AudioSet table, matching by any of its columns, permutations, differences, subset files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from logitstore.classes import ClassIndex, audioset, audioset_indices, positions, read_classes
from logitstore.errors import TeacherError


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
    with pytest.raises(TeacherError, match="'Dog' occurs twice"):
        read_classes(file)
    file.write_text("\n", encoding="utf-8")
    with pytest.raises(TeacherError, match="at least one"):
        read_classes(file)
    with pytest.raises(TeacherError, match="cannot be read"):
        read_classes(tmp_path / "missing.txt")
