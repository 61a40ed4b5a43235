"""YAML and JSON from strangers: plain values within bounds, or one line that says where, at once."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from logitstore.documents import MOST_BYTES, DocumentError, load_json, load_yaml, parse_json, parse_yaml


def laughs(levels: int = 9) -> str:
    names = "abcdefghijklmnop"[:levels]
    first = f"- &{names[0]} [{','.join(['lol'] * 10)}]\n"
    return first + "".join(f"- &{now} [{','.join([f'*{before}'] * 10)}]\n" for before, now in itertools.pairwise(names))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 1\nb: [x, 2.5, true, null]", {"a": 1, "b": ["x", 2.5, True, None]}),
        ("a: 2024-13-45\nb: 2024-01-01", {"a": "2024-13-45", "b": "2024-01-01"}),
        ("x: &x {b: 1, c: 2}\ny: {<<: *x, c: 3}", {"x": {"b": 1, "c": 2}, "y": {"b": 1, "c": 3}}),
        ("x: &x [1]\ny: *x", {"x": [1], "y": [1]}),
        (f"seed: {2**64 - 1}", {"seed": 2**64 - 1}),
        ("\ufeffa: é", {"a": "é"}),
        ("", None),
    ],
)
def test_settings_are_read(text: str, value: Any, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(text, encoding="utf-8")
    assert load_yaml(tmp_path / "x.yaml") == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (laughs(), r"line \d+: with its aliases it holds more than 20,000 values"),
        ("a: &a [*a]", "line 1: a value holds itself by its alias"),
        ("a: &a {<<: *a}", "line 1: a value holds itself by its alias"),
        ("a:\n  " + "[" * 5000, "line 2: it is nested in more than 50 levels"),
        ("{a: " * 60 + "1" + "}" * 60, "line 1: it is nested in more than 50 levels"),
        ("- " * 300 + "x", "line 1: it is nested in more than 50 levels"),
        ("- a\n" * 30_000, "it holds more than 20,000 values"),
        ("a: 1\nb: " + "9" * 5000, "line 2: a number of 5,000 digits is too long"),
        ("a: -" + "9" * 25, "line 1: .* is more than 64 bits hold"),
        ("a: 0x" + "f" * 20, "line 1: .* is more than 64 bits hold"),
        ("a: 1\nb: 2\na: 3", "line 3: the key 'a' is there twice"),
        ("1: a", "line 1: the key '1' is not text; put it in quotes"),
        ("on: a", "line 1: the key 'on' is not text; put it in quotes"),
        ("? [a]\n: b", "line 1: a key is not text"),
        ("a: !!python/object/apply:os.system [ls]", "line 1: the tag !python/object/apply:os.system is not known"),
        ("a: !!python/name:os.system", "line 1: the tag .* is not known"),
        ("a: !!binary aGk=", "line 1: the tag !binary is not known"),
        ("a: !!set {b}", "line 1: the tag !set is not known"),
        ("a: !!int x", "line 1: 'x' is no int"),
        ("a: 1\nb: \0", "line 2: .*control characters are not allowed"),
        ("a: *b", "line 1: found undefined alias"),
        ("a: [1\nb: 2", "line 2: "),
        ("---\na: 1\n---\nb: 2", "line 3: .*another document"),
    ],
)
def test_odd_yaml_is_refused_in_a_line(text: str, message: str) -> None:
    with pytest.raises(DocumentError, match=message) as refused:
        parse_yaml(text)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested in more than 50 levels"),
        ("[" * 60 + "]" * 60, "nested in more than 50 levels"),
        ('{"a": 1, "a": 2}', "the key 'a' is there twice"),
        ("[NaN]", "NaN is no number"),
        ("[-Infinity]", "-Infinity is no number"),
        ("1e999", "too large"),
        ("9" * 5000, "a number of 5,000 digits"),
        ("[" + "1," * 30_000 + "1]", "too many values"),
        ("{\n1}", "line 2: "),
        ("", "line 1: "),
    ],
)
def test_odd_json_is_refused_in_a_line(text: str, message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        parse_json(text)


def test_json_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"a": [1, 2.5, null, {"b": "c"}]}')
    assert load_json(tmp_path / "x.json") == {"a": [1, 2.5, None, {"b": "c"}]}


def test_what_has_no_end_or_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="not a regular file"):
        load_yaml("/dev/zero")
    with (tmp_path / "large").open("wb") as large:
        large.truncate(100 * MOST_BYTES)
    with pytest.raises(DocumentError, match=f"more than {MOST_BYTES:,} bytes"):
        load_yaml(tmp_path / "large")
    (tmp_path / "x").write_bytes(b"a: 1\nb: \xff")
    for load in (load_yaml, load_json):
        with pytest.raises(DocumentError, match="line 2: it is not UTF-8 text"):
            load(tmp_path / "x")
