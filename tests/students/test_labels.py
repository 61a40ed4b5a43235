"""Labels of a store's own clips: what each cell says, and what of it is told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from logitstore.audio.sonyc import FINE, TAXONOMY
from logitstore.errors import RunError, TeacherError
from students.labels import clip_labels

CLASSES = ("Dog", "Bark", "Male speech, man speaking")


def store(cells: Any, scores: str = "sigmoid") -> Any:
    clips = pa.table({"path": [f"{number}.wav" for number in range(len(cells))], "marks": cells})
    return SimpleNamespace(clips=clips, location="store", manifest=SimpleNamespace(classes=CLASSES, scores=scores))


@pytest.mark.parametrize(
    ("cells", "separator"),
    [
        (["Dog;Bark", "Bark", "", None, "nan"], None),
        (["Dog|Bark", "Bark|", "", None, "NaN"], None),
        (["Dog,Bark", "Bark", " ", None, "null"], None),
        (["Dog / Bark", "Bark", "", None, "nan"], "/"),
        (['["Dog", "Bark"]', "['Bark']", "[]", None, "nan"], None),
        ([["Bark", "Dog"], ["Bark"], [], None, None], None),
    ],
)
def test_every_form_of_a_cell_says_the_same(
    cells: Any, separator: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    labels, labelled = clip_labels(store(cells), "marks", separator)(np.arange(5))
    assert labels.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert labelled.tolist() == [True, True, True, False, False]
    assert (
        "of 5 clips, 2 have no label in the column 'marks' (NULL) and add nothing to the loss; 1 have an" in caplog.text
    )


def test_numbers_with_gaps_are_the_classes_that_they_name() -> None:
    some = store(pa.array([0.0, float("nan"), 2.0]))
    some.manifest.classes = ("0", "1", "2")
    labels, labelled = clip_labels(some, "marks")(np.arange(3))
    assert (labels.argmax(axis=1)[[0, 2]].tolist(), labelled.tolist()) == ([0, 2], [True, False, True])


def test_labels_that_are_no_class_or_nothing_are_refused() -> None:
    with pytest.raises(TeacherError, match=r"'dog' \(perhaps 'Dog'\)"):
        clip_labels(store(["dog"]), "marks")
    with pytest.raises(TeacherError, match="if 'Dog,Cow' is several, say --label-separator"):
        clip_labels(store(["Dog,Cow"]), "marks")
    with pytest.raises(RunError, match="no clip of store has labels in the column 'marks'"):
        clip_labels(store([None, "nan"]), "marks")
    with pytest.raises(RunError, match="has an empty cell"):
        clip_labels(store(["Dog", ""], "softmax"), "marks")


def test_classes_of_which_nothing_is_known_do_not_go_with_softmax_scores() -> None:
    """They would have the label -1, and a distribution has none such: the loss was no number."""
    tag, unsure = TAXONOMY[0].fine[0], TAXONOMY[4].uncertain
    for scores in ("sigmoid", "softmax"):
        some = store([[tag], [tag]], scores)
        some.manifest.classes = FINE
        some.clips = some.clips.append_column("uncertain", pa.array([[], [unsure]], pa.list_(pa.string())))
        if scores == "sigmoid":
            assert (clip_labels(some, "marks", masked=True)(np.arange(2))[0] < 0).any(axis=1).tolist() == [False, True]
            continue
        with pytest.raises(RunError, match=r"clip 1 \(1.wav\) has an X, so nothing is known of some"):
            clip_labels(some, "marks", masked=True)
