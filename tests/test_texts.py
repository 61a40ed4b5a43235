"""Texts from elsewhere as they are shown, and as CSV and JSON hold them."""

from __future__ import annotations

import csv
import io
import json

import pytest

from logitstore.texts import MOST, csv_line, in_json, in_lines, one_line, printable, shown

STEERING = [
    "\x1b[2J",
    "\x07",
    "\b",
    "\r",
    "\x7f",
    "\x9b31m",
    "\x9d0;t\x9c",
    "\u202e",
    "\u2066",
    "\u2028",
    "\u200b",
    "\udcff",
]


@pytest.mark.parametrize("text", STEERING)
def test_what_does_not_print_is_escaped(text: str) -> None:
    for found in (printable(f"a{text}b"), one_line(f"a{text}b"), in_lines([f"a{text}b"])):
        assert found.isprintable()
        assert (
            found.encode("utf-8")
            .decode("unicode_escape")
            .encode("utf-16", "surrogatepass")
            .decode("utf-16", "surrogatepass")
            == f"a{text}b"
        )
    document = {f"k{text}": [text, 1]}
    assert in_json(document).isprintable()
    assert json.loads(in_json(document)) == document
    assert json.loads(in_json(document, indent=1)) == document


def test_what_prints_stays() -> None:
    text = "Grüße, 短い [bold]x[/bold] [link=http://x]y[/link] \\x1b 👍"
    assert printable(text) == one_line(text) == text


def test_a_name_makes_no_line() -> None:
    assert in_lines(["one\nError: forged", "two\r"]) == "one\\nError: forged\ntwo\\r"
    assert printable("a\n\tb\n", "\n\t") == "a\n\tb\n"


def test_long_texts_are_cut_in_their_middle() -> None:
    found = one_line("a" * 10**6 + "end")
    assert len(found) < MOST + 100
    assert "characters" in found
    assert found.endswith("end")
    assert one_line("a" * MOST) == "a" * MOST


def test_json_has_no_nan() -> None:
    assert json.loads(in_json({"x": [float("nan"), float("inf"), 1.5], "y": (1, None)})) == {
        "x": [None, None, 1.5],
        "y": [1, None],
    }


def test_a_value_is_cut_short_before_it_is_written_out() -> None:
    laughs: object = "lol"
    for _ in range(30):
        laughs = [laughs] * 10
    for value in (laughs, {"a": laughs}, "x" * 10**7, 10**5000, list(range(10**5)), b"x" * 10**6):
        assert len(shown(value)) < 400
    assert [shown(each) for each in (0.5, "a", 3, [1, "b"], None)] == ["0.5", "'a'", "3", "[1, 'b']", "None"]


@pytest.mark.parametrize(
    "cell",
    ["plain", "a,b", 'a"b', "a\rb", "a\nb", "a\r\nb", " a", "", "\u2028", "\x0b", "x\x85y", "=1+1", "\x1b"],
)
def test_a_cell_stays_a_cell(cell: str) -> None:
    line = csv_line([cell, "next"])
    assert list(csv.reader(io.StringIO(line, newline=""))) == [[cell, "next"]]
    assert list(csv.reader(io.StringIO(csv_line([cell]), newline=""))) == [[cell]]
    assert len([row for row in csv.reader(line.splitlines(keepends=True)) if row]) == 1 or "\n" in cell or "\r" in cell


@pytest.mark.parametrize(
    "cell",
    [
        "=HYPERLINK(1)",
        "+1+cmd",
        "-1+1",
        "@SUM(1)",
        "\t=1",
        "\r=1",
        "\nx",
        " =1",
        '"=1',
        "'=1",
        "\ufeff=1",
        "＝1",
        "＠x",
    ],
)
def test_a_formula_is_marked_where_that_is_asked(cell: str) -> None:
    read = next(csv.reader(io.StringIO(csv_line([cell, "5"], numbers=[False, True], spreadsheet=True), newline="")))
    assert read == [f"'{cell}", "5"]
    assert next(csv.reader(io.StringIO(csv_line([cell, "5"]), newline=""))) == [cell, "5"]


def test_numbers_and_plain_texts_are_not_marked() -> None:
    cells = ["-5", "+3.5e4", "-1", "a=b", "e-mail", "", "1;=2"]
    assert (
        csv_line(cells, numbers=[True, *[False] * 6], spreadsheet=True) == '-5,"+3.5e4","-1","a=b","e-mail",,"1;=2"\n'
    )
