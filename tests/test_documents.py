"""YAML and JSON from elsewhere: plain values, or one line that says where; nothing grows beyond what is there."""

from __future__ import annotations

import pytest

from logitstore.documents import (
    MOST_BYTES,
    MOST_LEVELS,
    DocumentError,
    load_json,
    load_yaml,
    parse_json,
    parse_yaml,
    read_small,
)

DEEP = MOST_LEVELS + 5
#: Nine times nine times nine …: 43 million values in some hundred bytes.
BOMB = "a: &a [x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("a: 1\nb: [x, 2.5, true, null]\n", {"a": 1, "b": ["x", 2.5, True, None]}),
        ("when: 2024-02-30", {"when": "2024-02-30"}),
        ("when: 2024-02-03 04:05:06", {"when": "2024-02-03 04:05:06"}),
        ("2024-02-03: x", {"2024-02-03": "x"}),
        ("base: &b {x: 1, y: 2}\nmore: {<<: *b, y: 3}", {"base": {"x": 1, "y": 2}, "more": {"x": 1, "y": 3}}),
        ("a: &a [1, 2]\nb: *a", {"a": [1, 2], "b": [1, 2]}),
        ("\ufeffa: ünï", {"a": "ünï"}),
        ("n: 0x7fffffffffffffff", {"n": 2**63 - 1}),
    ],
)
def test_yaml_of_settings_is_read(text, value):
    assert parse_yaml(text.encode()) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, r"line \d+: with its aliases it holds more than 20,000 values"),
        ("a: &a [*a]", "line 1: a value holds itself by its alias"),
        ("a: *b", "line 1: found undefined alias"),
        ("[" * DEEP + "]" * DEEP, "line 1: it is nested in more than 50 levels"),
        ("[" * 50_000, "line 1: it is nested in more than 50 levels"),
        ("x: [" + "1, " * 30_000 + "1]", "line 1: it holds more than 20,000 values"),
        ("a: 1\nb: 2\na: 3", "line 3: the key 'a' is there twice"),
        ("a: 1\n3: b", "line 2: the key '3' is not text; put it in quotes"),
        ("yes: b", "line 1: the key 'yes' is not text; put it in quotes"),
        ("? [a]\n: b", "line 1: a key is not text"),
        ("a: !!python/object/apply:os.system [ls]", "line 1: the tag !python/object"),
        ("a: !!binary AAAA", "line 1: the tag !binary is not known"),
        ("a: !!set {x, y}", "line 1: the tag !set is not known"),
        ("a: !mine x", "line 1: the tag !!mine is not known"),
        ("a: !!int x", "line 1: 'x' is no int"),
        ("a: " + "9" * 6_000, "line 1: a number of 6,000 digits is too long"),
        ("a: 18446744073709551616", "line 1: '18446744073709551616' is more than 64 bits hold"),
        ("a: {<<: 3}", "line 1: << takes a mapping"),
        ("a: [1", "line 1|line 2"),
        ("a: 1\n\x1b[31m: 2", "line 2: "),
        ("a: 1\n---\nb: 2", r"line \d: "),
    ],
)  # fmt: skip
def test_yaml_that_is_no_settings_is_refused_in_a_line(text, message):
    with pytest.raises(DocumentError, match=message) as refused:
        parse_yaml(text)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "line 1: "),
        ('{"a": 1,\n"a": 2}', "the key 'a' is there twice"),
        ("[" * DEEP + "]" * DEEP, "nested in more than 50 levels"),
        ("[" * 100_000, "nested in more than 50 levels"),
        ("[" + "1," * 30_000 + "1]", "it holds too many values"),
        ('{"a": ' + "9" * 6_000 + "}", "a number of 6,000 digits is more than 64 bits hold"),
        ('{"a": -' + "9" * 30 + "}", "a number of 30 digits is more than 64 bits hold"),
        ('{"a": 1e999}', "the number 1e999 is too large"),
        ('{"a": NaN}', "NaN is no number"),
        ('{"a": -Infinity}', "-Infinity is no number"),
    ],
)
def test_json_that_is_no_settings_is_refused_in_a_line(text, message):
    with pytest.raises(DocumentError, match=message):
        parse_json(text)


def test_json_of_our_own_may_hold_nan():
    assert parse_json('{"a": [1e400, -Infinity, 2]}', nan=True) == {"a": [float("inf"), float("-inf"), 2]}
    with pytest.raises(DocumentError, match="digits is more than 64 bits hold"):
        parse_json('{"a": ' + "9" * 5_000 + "}", nan=True)


@pytest.mark.parametrize("load", [load_yaml, load_json])
def test_files_are_read_to_a_bound(tmp_path, load):
    (tmp_path / "small").write_bytes(b'{"a": ["\xc3\xa4"]}')
    assert load(tmp_path / "small") == {"a": ["ä"]}
    (tmp_path / "latin").write_bytes(b'{"a":\n"\xe4"}')
    with pytest.raises(DocumentError, match="line 2: it is not UTF-8 text"):
        load(tmp_path / "latin")
    (tmp_path / "large").write_bytes(b" " * (MOST_BYTES + 1))
    with pytest.raises(DocumentError, match="it has more than 1,048,576 bytes"):
        load(tmp_path / "large")
    with pytest.raises(OSError, match="not a regular file"):
        load("/dev/zero")
    with pytest.raises(OSError, match="No such file"):
        load(tmp_path / "none")


def test_read_small_takes_exactly_what_it_may(tmp_path):
    (tmp_path / "four").write_bytes(b"1234")
    assert read_small(tmp_path / "four", 4) == b"1234"
    with pytest.raises(DocumentError, match="more than 3 bytes"):
        read_small(tmp_path / "four", 3)
