"""What commands draw on a terminal: bars and little histograms, in colour where a terminal has colours.

Elsewhere (a pipe, ``NO_COLOR``, ``TERM=dumb``) there is no colour, and where the encoding lacks block characters they
are drawn in ASCII.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import IO

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from logitstore.texts import one_line

WIDEST = 100
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_LEVELS = " ▁▂▃▄▅▆▇█"
_ASCII = " .:-=+*#@"
#: What kinds of words look like.
HEAD, SOFT, BAR, ODD = "bold", "dim", "cyan", "yellow"


class Screen:
    """Lines of coloured text for stdout, ``width`` columns wide; :meth:`print` prints them.

    :param console: what they are for; stdout by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(file=sys.stdout, highlight=False, markup=False, emoji=False, soft_wrap=True)
        self.width = min(WIDEST, self.console.width) if self.console.is_terminal else 80
        self.blocks = _can(self.console.file)
        self.lines: list[Text] = []

    def add(self, *parts: tuple[str, str] | str, whole: bool = False) -> None:
        """A line of texts, each as it is or with its style; what is too long for the screen is cut at its end.

        :param whole: leave it as long as it is.
        """
        line = Text()
        for part in parts:
            text, style = (part, "") if isinstance(part, str) else part
            line.append(one_line(text), style)
        if not whole:
            line.truncate(self.width, overflow="ellipsis" if self.blocks else "crop")
        line.rstrip()
        self.lines.append(line)

    def bar(self, share: float, width: int) -> str:
        """A bar as long as a share in [0, 1] of so many columns."""
        eighths = round(8 * width * min(max(share, 0.0), 1.0))
        if not self.blocks:
            return ("#" * round(eighths / 8)).ljust(width)
        full, rest = divmod(eighths, 8)
        return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(width)

    def histogram(self, counts: Sequence[int]) -> str:
        """Counts as columns of up to eight levels, one a count; what is not zero is never blank."""
        levels, most = (_LEVELS if self.blocks else _ASCII), max(counts, default=0)
        return "".join(levels[-(-8 * count // most)] if count else " " for count in counts) if most else ""

    def text(self) -> str:
        """The lines without colour."""
        return "\n".join(line.plain for line in self.lines)

    def print(self) -> None:
        """Print the lines."""
        for line in self.lines:
            self.console.print(line)


def fit(text: str, width: int, *, end: bool = False) -> str:
    """Text of exactly so many columns: filled up, or cut at its end; at its start where its ``end`` matters more."""
    text = one_line(text)
    if end and cell_len(text) > width:
        while cell_len(text) > width - 1:
            text = text[1:]
        text = f"…{text}"
    elif cell_len(text) > width:
        text = set_cell_size(text, width - 1) + "…"
    return set_cell_size(text, width)


def widest(texts: Iterable[str], most: int) -> int:
    """The columns that the longest of some texts takes, at most so many."""
    return min(most, max((cell_len(one_line(text)) for text in texts), default=0))


def _can(file: IO[str]) -> bool:
    """Whether block characters can be written there."""
    try:
        (_EIGHTHS + _LEVELS + "…").encode(getattr(file, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
