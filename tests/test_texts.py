"""Texts from elsewhere: whatever they hold, what is shown prints, keeps to its line, and is not endless."""

from __future__ import annotations

import csv
import io
import json

import pytest

from logitstore.texts import csv_line, escaped_json, in_json, in_lines, one_line, printable, shown

#: One of each kind of what can steer a terminal, forge a line, or turn text around.
HOSTILE = [
    "\x1b[2J", "\x1b]0;title\x07", "\x9b31m", "\x00", "\x08\x08", "\r", "\n", "\t", "\x7f", "\x85",
    "\u2028", "\u2029", "\u202e", "\u2066",
    "\u200b", "\u200f", "\ufeff", "\ud800", "\udc80", "\U000e0041", "\ue000", "\u00ad",
]  # fmt: skip


@pytest.mark.parametrize("hostile", HOSTILE, ids=ascii)
def test_hostile_text_is_shown_escaped_everywhere(hostile):
    text = f"dog{hostile}bark"
    for said in (
        printable(text),
        one_line(text),
        in_lines([text]),
        shown(text),
        in_json(text),
        in_json({text: [text]}),
    ):
        assert said.isprintable(), ascii(said)
        said.encode("utf-8")
    assert json.loads(in_json({text: [text]})) == {text: [text]}
    assert json.loads(escaped_json(json.dumps([text], ensure_ascii=False))) == [text]


@pytest.mark.parametrize(
    "plain", ["", "Hund, bellt", "ребёнок", "犬の鳴き声", "🐕", "a\u0301", "[bold]x[/bold]", "100 %"]
)
def test_what_prints_is_left_alone(plain):
    assert printable(plain) == one_line(plain) == in_lines([plain]) == plain
    assert in_json(plain) == json.dumps(plain, ensure_ascii=False)


def test_lines_are_kept_and_none_is_forged():
    assert in_lines(["a", "b\nError: c"]) == "a\nb\\nError: c"
    assert printable("a\n\tb\x1b", "\n\t") == "a\n\tb\\x1b"


@pytest.mark.parametrize("size", [2_001, 10_000, 3_000_000])
def test_long_text_is_cut_in_its_middle(size):
    said = one_line("a" + "\x1b" * (size - 2) + "z")
    assert len(said) < 9_000
    assert said.startswith("a")
    assert said.endswith("z")
    assert "characters) …" in said
    assert one_line("x" * 2_000) == "x" * 2_000


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        pytest.param(10**5_000, "a whole number of 16,610 bits", id="digits"),
        ("x" * 10**6, "..."),
        ([[[[[[[1]]]]]]], "[...]"),
        (list(range(10**5)), "..."),
        ({str(i): i for i in range(1_000)}, "..."),
        (b"\x1b" * 10**5, "..."),
        (0.1 + 0.2, "0.3"),
    ],
)
def test_values_are_cut_before_they_are_written_out(value, parts):
    assert parts in shown(value)
    assert len(shown(value)) < 700


def test_json_has_null_for_what_is_no_number():
    assert in_json({"a": [float("nan"), float("-inf"), (1.5,)]}) == '{"a": [null, null, [1.5]]}'


FORMULAS = [
    "=1+1",
    "+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(A1)",
    " =1",
    "\t=1",
    "\r=1",
    "\n=1",
    "＝1",
    "\ufeff=1",
    '"=1',
    "'=1",
]
PLAIN = ["dog", "-1.5", "+3e4", " 7 ", "a=b", "1-2", "dog, cat", 'say "x"', ""]


@pytest.mark.parametrize("text", FORMULAS, ids=ascii)
def test_a_spreadsheet_runs_no_cell_that_is_marked(text):
    line = csv_line([text, "x"], spreadsheet=True)
    cell = next(csv.reader(io.StringIO(line, newline="")))[0]
    assert cell == f"'{text}"
    assert next(csv.reader(io.StringIO(csv_line([text, "x"]), newline="")))[0] == text


@pytest.mark.parametrize("text", PLAIN, ids=ascii)
def test_other_cells_are_what_they_are(text):
    for spreadsheet in (False, True):
        line = csv_line([text, "x"], spreadsheet=spreadsheet)
        assert next(csv.reader(io.StringIO(line, newline=""))) == [text, "x"]


def test_numbers_are_not_marked():
    assert csv_line(["-1", "-1 x"], numbers=[True, False], spreadsheet=True) == '-1,"\'-1 x"\n'
