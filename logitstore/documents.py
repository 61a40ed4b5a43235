"""YAML and JSON from elsewhere: read within bounds, into plain values, or refused in a line that says where.

A document is a few settings that somebody wrote. So it is small and flat, each key stands in it once and is text, and
its values are text, numbers, true, false, null, lists and mappings. Nothing in it can make more of itself than is
there, become an object of Python, or be a number that cannot be computed with.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from logitstore.files import require_end
from logitstore.texts import one_line, shown

#: Bytes, values and levels that a document may have; a value that an alias (``*name``) stands for counts again.
MOST_BYTES = 1 << 20
MOST_VALUES = 20_000
MOST_LEVELS = 50
_MOST_BITS = 64


class DocumentError(ValueError):
    """What is wrong with a document, and where; the caller says with which."""


def load_yaml(path: str | os.PathLike[str]) -> Any:
    """The plain values of a YAML file.

    :raises OSError: it cannot be read. :raises DocumentError: it is no YAML, or not of the kind that settings are.
    """
    return parse_yaml(read_small(path))


def load_json(
    path: str | os.PathLike[str], most: int = MOST_BYTES, values: int = MOST_VALUES, *, nan: bool = False
) -> Any:
    """The plain values of a JSON file.

    :param most: bytes that it may have. :param values: how many it may hold. :param nan: whether NaN and infinities
        are numbers, as they are to Python, which writes them.
    :raises OSError: it cannot be read. :raises DocumentError: it is no JSON, or not of the kind that settings are.
    """
    return parse_json(read_small(path, most), values, nan=nan)


def read_small(path: str | os.PathLike[str], most: int = MOST_BYTES) -> bytes:
    """The content of a file, which need not have an end.

    :raises OSError: it cannot be read. :raises DocumentError: there is more of it than ``most`` bytes.
    """
    require_end(path)
    with Path(path).open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise DocumentError(f"it has more than {most:,} bytes")
    return content


def parse_yaml(content: bytes | str) -> Any:
    """The plain values of YAML; dates are text.

    :raises DocumentError: it is no YAML, or not of the kind that settings are; the line is named.
    """
    import yaml

    text = content if isinstance(content, str) else _text(content)
    fast = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _bounded(yaml.parse(text, Loader=fast))
        root = yaml.compose(text, Loader=fast)
        return None if root is None else _Values().of(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}: " if mark else ""
        raise DocumentError(f"{place}{one_line(error.problem or error.context or 'no YAML', 200)}") from error
    except yaml.YAMLError as error:
        place = f"line {text.count(chr(10), 0, getattr(error, 'position', 0)) + 1}: "
        raise DocumentError(place + one_line(str(error).split("\n")[0], 200)) from error


def parse_json(content: bytes | str, values: int = MOST_VALUES, *, nan: bool = False) -> Any:
    """The plain values of JSON.

    :param values: how many it may hold. :param nan: whether NaN and infinities are numbers.
    :raises DocumentError: it is no JSON, or not of the kind that settings are.
    """
    text = content if isinstance(content, str) else _text(content)
    try:
        document = json.loads(
            text,
            object_pairs_hook=unique_keys,
            parse_int=_integer,
            parse_float=None if nan else _float,
            parse_constant=None if nan else _constant,
        )
    except json.JSONDecodeError as error:
        raise DocumentError(f"line {error.lineno}: {error.msg}") from error
    except RecursionError:
        raise DocumentError(f"it is nested in more than {MOST_LEVELS} levels") from None
    left, level = [document], 0
    while left:
        level += 1
        values -= len(left)
        if level > MOST_LEVELS:
            raise DocumentError(f"it is nested in more than {MOST_LEVELS} levels")
        if values < 0:
            raise DocumentError("it holds too many values")
        left = [inner for each in left if isinstance(each, list | dict) for inner in _inside(each)]
    return document


def _inside(value: Any) -> Iterator[Any]:
    return iter(value.values() if isinstance(value, dict) else value)


def _text(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DocumentError(f"line {line}: it is not UTF-8 text") from None


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of JSON that has these pairs, for ``json.loads``.

    :raises DocumentError: a key is there twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise DocumentError(f"the key {shown(twice)} is there twice")
    return found


def _integer(text: str) -> int:
    number = int(text) if len(text) < 40 else None
    if number is None or number.bit_length() > _MOST_BITS:
        raise DocumentError(f"a number of {len(text.lstrip('+-')):,} digits is more than {_MOST_BITS} bits hold")
    return number


def _float(text: str) -> float:
    number = float(text) if len(text) < 400 else float("inf")
    if number in (float("inf"), float("-inf")):
        raise DocumentError(f"the number {one_line(text, 40)} is too large")
    return number


def _constant(text: str) -> float:
    raise DocumentError(f"{text} is no number")


def _bounded(events: Iterator[Any]) -> None:
    """Refuse a YAML stream that is nested too deeply or holds too much, before anything is made of it."""
    level = count = 0
    for event in events:
        kind = type(event).__name__
        count += kind in ("ScalarEvent", "SequenceStartEvent", "MappingStartEvent", "AliasEvent")
        level += kind.endswith(("SequenceStartEvent", "MappingStartEvent")) - kind.endswith(
            ("SequenceEndEvent", "MappingEndEvent")
        )
        line = event.start_mark.line + 1
        if level > MOST_LEVELS:
            raise DocumentError(f"line {line}: it is nested in more than {MOST_LEVELS} levels")
        if count > MOST_VALUES:
            raise DocumentError(f"line {line}: it holds more than {MOST_VALUES:,} values")


class _Values:
    """Makes plain values of YAML's nodes, those that aliases stand for too, within the bounds."""

    def __init__(self) -> None:
        from yaml.constructor import SafeConstructor

        self._left = MOST_VALUES
        self._above: set[int] = set()
        self._made_of = SafeConstructor()

    def of(self, node: Any) -> Any:
        """The value of a node.

        :raises DocumentError: it is no plain one.
        """
        self._left -= 1
        if self._left < 0:
            raise _refused(node, f"with its aliases it holds more than {MOST_VALUES:,} values")
        if id(node) in self._above or len(self._above) > MOST_LEVELS:
            inside = "a value holds itself by its alias" if id(node) in self._above else "it is nested too deeply"
            raise _refused(node, inside)
        self._above.add(id(node))
        try:
            return self._made(node)
        finally:
            self._above.discard(id(node))

    def _made(self, node: Any) -> Any:
        tag = node.tag.removeprefix("tag:yaml.org,2002:")
        if node.id == "sequence" and tag == "seq":
            return [self.of(each) for each in node.value]
        if node.id == "mapping" and tag == "map":
            return self._mapping(node)
        if node.id != "scalar" or tag not in _SCALARS:
            known = "text, numbers, true, false, null, lists and mappings"
            raise _refused(node, f"the tag !{one_line(tag, 60)} is not known; a value is {known}")
        if tag in ("str", "timestamp"):
            return node.value
        if tag in ("int", "float") and len(node.value) > 40:
            raise _refused(node, f"a number of {len(node.value):,} digits is too long")
        try:
            value = self._made_of.construct_object(node, deep=True)
        except (ValueError, OverflowError, ArithmeticError, LookupError):
            raise _refused(node, f"{shown(node.value)} is no {tag}") from None
        if isinstance(value, int) and value.bit_length() > _MOST_BITS:
            raise _refused(node, f"{shown(node.value)} is more than {_MOST_BITS} bits hold")
        return value

    def _mapping(self, node: Any) -> dict[str, Any]:
        """A mapping; ``<<`` brings in the keys of another, which those written here win over."""
        found: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key, value in node.value:
            if key.tag.endswith(":merge"):
                others = self.of(value)
                for other in others if isinstance(others, list) else [others]:
                    if not isinstance(other, dict):
                        raise _refused(value, "<< takes a mapping, or a list of mappings")
                    merged = other | merged
                continue
            name = key.value if key.id == "scalar" else ""
            if key.id != "scalar" or not key.tag.endswith((":str", ":timestamp")):
                advice = f"the key {shown(name)} is not text; put it in quotes"
                raise _refused(key, advice if key.id == "scalar" else "a key is not text")
            if name in found:
                raise _refused(key, f"the key {shown(name)} is there twice")
            found[name] = self.of(value)
        return merged | found


_SCALARS = frozenset(("str", "timestamp", "int", "float", "bool", "null"))


def _refused(node: Any, what: str) -> DocumentError:
    return DocumentError(f"line {node.start_mark.line + 1}: {what}")
