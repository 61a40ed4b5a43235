"""The labels of a cell: in lists, in text that is a list, with separators; what is guessed is said."""

from __future__ import annotations

import logging
import re
from decimal import Decimal
from typing import Any

import pytest

from logitstore.errors import SourceError
from logitstore.evaluation.cells import read_cells

CLASSES = ("Dog", "Bark", "Male speech, man speaking", "007", "caf\u00e9")


def read(cells: list[Any], **options: Any) -> list[Any]:
    return list(read_cells(cells, column="labels", source="m.csv", **options).labels)


@pytest.mark.parametrize(
    ("cell", "labels"),
    [
        ("Dog", ("Dog",)),
        (" Dog ; Bark;;Dog; ", ("Dog", "Bark")),
        ("Dog,", ("Dog",)),
        (["Dog", "Bark", "Dog"], ("Dog", "Bark")),
        ([" Dog ", None, float("nan"), ""], ("Dog",)),
        (["a;b", "c,d"], ("a;b", "c,d")),
        ([3, 7], ("3", "7")),
        ([], ()),
        ('["Dog", "Bark"]', ("Dog", "Bark")),
        ("['Dog', 'Bark, loud']", ("Dog", "Bark, loud")),
        ("('Dog', 'Bark')", ("Dog", "Bark")),
        ("{'Dog', 'Bark'}", ("Bark", "Dog")),
        ("['Dog' 'Bark']", ("Dog", "Bark")),
        ("[1 2]", ("1", "2")),
        ("[np.str_('Dog'), np.str_('Bark')]", ("Dog", "Bark")),
        ("array(['Dog', 'Bark'], dtype=object)", ("Dog", "Bark")),
        ("[0, 12]", ("0", "12")),
        ("[]", ()),
        ("[noise]", ("[noise]",)),
        ("(inaudible)", ("(inaudible)",)),
        ("007", ("007",)),
        ("1e5", ("1e5",)),
        ("NA", ("NA",)),
        ("none", ("none",)),
        (7, ("7",)),
        (3.0, ("3",)),
        (0.5, ("0.5",)),
        (Decimal("2.50"), ("2.50",)),
        (True, ("True",)),
        (b"Dog", ("Dog",)),
        ("", ()),
        (" \t", ()),
        (None, None),
        (float("nan"), None),
        ("nan", None),
        ("NaN", None),
        ("<NA>", None),
        ("null", None),
        ("\ufeffDog\xa0", ("Dog",)),
    ],
)
def test_a_cell_is_read_as_it_was_written(cell: Any, labels: Any) -> None:
    assert read([cell, "Cow"]) == [labels, ("Cow",)]


@pytest.mark.parametrize(
    ("cells", "options", "labels", "said"),
    [
        # without classes, labels that stand alone elsewhere are known
        (["Dog,Bark", "Dog", "Bark"], {}, [("Dog", "Bark"), ("Dog",), ("Bark",)], "'Dog,Bark' is read as 2 labels"),
        (["Dog | Bark", "Dog", "Bark"], {}, [("Dog", "Bark"), ("Dog",), ("Bark",)], "separated by '|'"),
        (["Dog,Bark", "Dog", "Cat"], {}, [("Dog,Bark",), ("Dog",), ("Cat",)], "'Dog,Bark' is taken for one label"),
        (["Dog|Bark"], {}, [("Dog|Bark",)], "say --label-separator '|'"),
        (["/m/09x0r,/t/dd00088"], {}, [("/m/09x0r", "/t/dd00088")], "read as 2 labels"),
        (["Male speech, man speaking", "Dog"], {}, [("Male speech, man speaking",), ("Dog",)], None),
        # with classes
        (["Dog,Bark"], {"classes": CLASSES}, [("Dog", "Bark")], "each part is a class"),
        (["Male speech, man speaking"], {"classes": CLASSES}, [("Male speech, man speaking",)], None),
        (
            ["Dog,Male speech, man speaking,"],
            {"classes": CLASSES},
            [("Dog", "Male speech, man speaking")],
            "read as 2 labels",
        ),
        (["Dog;Male speech, man speaking"], {"classes": CLASSES}, [("Dog", "Male speech, man speaking")], None),
        (["Dog,Cow"], {"classes": CLASSES}, [("Dog,Cow",)], None),  # refused as no class, with the cell
        (["[Dog, Bark]"], {"classes": CLASSES}, [("Dog", "Bark")], None),
        (["nan"], {"classes": ("nan", "Dog")}, [("nan",)], None),
        # said by the user
        (["Dog,Cow", "a;b"], {"separator": ","}, [("Dog", "Cow"), ("a;b",)], None),
        (["Dog\tCow"], {"separator": "\\t"}, [("Dog", "Cow")], None),
        (["Dog / Cow /"], {"separator": "/"}, [("Dog", "Cow")], None),
        (["Dog,Male speech, man speaking"], {"separator": ",", "classes": CLASSES},
         [("Dog", "Male speech, man speaking")], None),
        (["Dog,Cow"], {"separator": ";"}, [("Dog,Cow",)], "no cell has ';'"),
    ],
)  # fmt: skip
def test_what_separates_labels_is_known_said_or_asked_for(
    cells: list[Any], options: Any, labels: Any, said: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "logitstore"):
        assert read(cells, **options) == labels
    assert (re.search(re.escape(said), caplog.text) is not None) if said else caplog.text == ""


@pytest.mark.parametrize(
    ("cells", "options", "message"),
    [
        (["Dog", {"a": 1}], {}, r"m\.csv: the column 'labels', row 2: \{'a': 1\} is a mapping"),
        (['{"label": "Dog"}'], {}, r"row 1: .* is a mapping"),
        ([[["Dog"]]], {}, r"is a list of lists"),
        (["['Dog', nan]"], {}, r"row 1: .*nan.* looks like a list"),
        ([b"\xff"], {}, "is not UTF-8"),
        (["Dog"], {"separator": ""}, "--label-separator is empty"),
    ],
)
def test_a_cell_that_holds_something_else_is_named(cells: list[Any], options: Any, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        read(cells, **options)
