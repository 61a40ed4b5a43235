"""Texts from elsewhere as they are shown: nothing in a name can steer a terminal, forge a line or fill a screen.

Paths, classes, labels, reasons and whatever a store says come from anywhere. Whatever is printed goes through here,
and shows characters that do not print as Python writes them (``\\x1b``); files that are written hold texts as they are.
"""

from __future__ import annotations

import json
import math
import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

#: Characters of a line that are shown, and those of a text of many lines; what is longer is cut in its middle.
MOST = 2000

_FORMULA = re.compile(r"""[\s"'\ufeff\u200b]*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n]""")
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
_QUOTED = re.compile(r'[",\r\n\x0b\x0c\x1c-\x1e\x85\u2028\u2029]|^\s|\s$')


def printable(text: str, keep: str = "") -> str:
    """Text whose characters all print, those that do not as Python escapes them; ``keep`` are left alone."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in keep else _escaped(each) for each in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")


def one_line(text: str, most: int = MOST) -> str:
    """Text as one line that prints, cut in its middle where it is longer than ``most``."""
    if len(text) > most:
        head, tail = most * 3 // 4, most // 5
        text = f"{text[:head]} … ({len(text) - head - tail:,} characters) … {text[-tail:]}"
    return printable(text)


def in_lines(lines: Iterable[str]) -> str:
    """Lines under each other, each as :func:`one_line` shows it, so that no name in one can make another."""
    return "\n".join(map(one_line, lines))


def in_json(document: Any, indent: int | None = None) -> str:
    """A document as JSON in which every character prints; reading it gives back the texts as they were."""
    return escaped_json(json.dumps(_finite(document), ensure_ascii=False, indent=indent, default=str))


def _finite(value: Any) -> Any:
    """A document without NaN and infinities, which JSON does not have: null stands for them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


def escaped_json(text: str) -> str:
    """JSON with every character that does not print escaped as JSON does; line ends between values stay."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each == "\n" else json.dumps(each)[1:-1] for each in text)


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxstring = self.maxother = 80
        self.maxlong = 40

    def repr_int(self, x: int, level: int) -> str:
        """An integer, without writing out one of thousands of digits."""
        return f"a whole number of {x.bit_length():,} bits" if x.bit_length() > 256 else super().repr_int(x, level)


_short = _Short()


def shown(value: Any) -> str:
    """A value as a message shows it: as Python writes it, cut short before it is written out."""
    return f"{value:g}" if isinstance(value, float) else _short.repr(value)


def csv_line(cells: Sequence[str], *, numbers: Sequence[bool] | None = None, spreadsheet: bool = False) -> str:
    """One line of CSV with its end; a cell that holds a comma, a quote or any line end is quoted.

    :param numbers: which cells are no text. :param spreadsheet: quote all texts, and mark those that a spreadsheet
        would run as a formula with an apostrophe before them.
    """
    if len(cells) == 1 and not cells[0]:
        return '""\n'
    plain = numbers or [False] * len(cells)
    return ",".join(_cell(cell, number, spreadsheet) for cell, number in zip(cells, plain, strict=True)) + "\n"


def runs_as_formula(text: str) -> bool:
    """Whether a spreadsheet would run a cell of that text as a formula, or a part of it."""
    return _FORMULA.match(text) is not None and _NUMBER.fullmatch(text) is None


def _cell(text: str, number: bool, spreadsheet: bool) -> str:
    if spreadsheet and not number and text:
        text = f"'{text}" if runs_as_formula(text) else text
        return f'"{text.replace(chr(34), 2 * chr(34))}"'
    return f'"{text.replace(chr(34), 2 * chr(34))}"' if _QUOTED.search(text) else text
