"""What ``inspect --shell`` offers to complete a line with, by what stands before the cursor.

Commands and questions at the start of a line; tables after FROM and JOIN; columns, keywords, functions; classes as
literals. Names that would not print are never offered, for whoever made the store chose them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logitstore.store.reader import Store

#: The commands of the shell: what each takes, and does.
COMMANDS = {
    ".help": ("", "these lines"),
    ".tables": ("", "the tables and their columns"),
    ".schema": ("TABLE", "the columns of a table and their types"),
    ".questions": ("", "the questions that are ready; @NAME asks one, @NAME -p limit 5 too, @NAME --sql prints it"),
    ".format": ("F", "how answers are shown: table, markdown, csv, json or ndjson"),
    ".transpose": ("on|off", "columns below each other, row after row"),
    ".explain": ("on|off", "what was decoded for an answer"),
    ".out": ("FILE", "write the next answer there: .csv, .parquet, .json, .ndjson, .md, .txt"),
    ".set": ("NAME VALUE", "a value for $NAME in the queries that have it"),
    ".quit": ("", "leave, as Ctrl-D does"),
}  # fmt: skip
_KEYWORDS = """
    ALL AND ANTI AS ASC ASOF BETWEEN BY CASE CAST CROSS CUBE CURRENT DESC DESCRIBE DISTINCT ELSE END EXCEPT EXCLUDE
    EXISTS EXPLAIN FALSE FILTER FIRST FOLLOWING FROM FULL GROUP GROUPING HAVING ILIKE IN INNER INTERSECT INTERVAL IS
    JOIN LAST LATERAL LEFT LIKE LIMIT NATURAL NOT NULL NULLS OFFSET ON OR ORDER OUTER OVER PARTITION PIVOT POSITIONAL
    PRECEDING QUALIFY RANGE RECURSIVE REPLACE RIGHT ROLLUP ROWS SELECT SEMI SETS SHOW SIMILAR SUMMARIZE TABLES THEN TO
    TRUE UNBOUNDED UNION UNPIVOT USING VALUES WHEN WHERE WINDOW WITH
"""
_TOKEN = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*\n|/\*.*?\*/", re.DOTALL)
_PLAIN = re.compile(r"[A-Za-z_]\w*")
_MOST = 40
_FEWEST = 2  # letters before functions and classes are offered, of which there are hundreds


@dataclass(frozen=True)
class Word:
    """What may be put in the place of the last ``replaces`` characters; ``about`` says what it is."""

    text: str
    replaces: int
    about: str = ""


@dataclass(frozen=True)
class Vocabulary:
    """The names that a store has: the columns of each table, classes, and questions with what they ask."""

    tables: Mapping[str, Sequence[str]]
    classes: Sequence[str]
    questions: Mapping[str, str]
    functions: Sequence[str] = ()
    parameters: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @staticmethod
    def of(store: Store) -> Vocabulary:
        """The names of a store."""
        from logitstore.queries import questions
        from logitstore.sql.functions import FUNCTIONS
        from logitstore.store.sql.tables import tables

        ready = questions()
        return Vocabulary(
            tables={name: list(make().schema.names) for name, make in tables(store).items()},
            classes=store.manifest.classes,
            questions={name: each.asks for name, each in ready.items()},
            functions=sorted(name for name in FUNCTIONS if _PLAIN.fullmatch(name) and not name.startswith("_")),
            parameters={name: [one.name for one in each.parameters] for name, each in ready.items()},
        )

    def suggest(self, before: str, asked: bool = True) -> list[Word]:
        """What may stand at the cursor, the likeliest first.

        :param before: the text before the cursor, from the start of the query or command.
        :param asked: whether the user asked, with Tab: otherwise nothing is offered where no letter stands yet.
        """
        return list(islice((word for word in self._words(before, asked) if word.text.isprintable()), _MOST))

    def _words(self, before: str, asked: bool) -> Iterator[Word]:
        text = before.lstrip()
        if text.startswith("."):
            yield from self._of_command(text)
        elif text.startswith("@"):
            yield from self._of_question(text)
        else:
            plain = _TOKEN.sub(lambda found: " " * len(found[0]), before)
            if "'" in plain:  # a literal that is not closed
                yield from self._literals(before[plain.rindex("'") + 1 :], 1)
            elif "--" not in plain and "/*" not in plain and '"' not in plain:
                yield from self._of_sql(plain, asked)

    def _of_command(self, text: str) -> Iterator[Word]:
        name, space, rest = text.partition(" ")
        if not space:
            yield from (Word(each, len(name), what) for each, (_, what) in COMMANDS.items() if each.startswith(name))
            return
        choices: dict[str, Collection[str]] = {
            ".schema": self.tables, ".format": ("table", "markdown", "csv", "json", "ndjson"),
            ".transpose": ("on", "off"), ".explain": ("on", "off"),
        }  # fmt: skip
        yield from (Word(each, len(rest)) for each in choices.get(name, ()) if each.startswith(rest))

    def _of_question(self, text: str) -> Iterator[Word]:
        name, space, rest = text[1:].partition(" ")
        if not space:
            yield from (
                Word(f"@{each}", len(name) + 1, asks) for each, asks in self.questions.items() if each.startswith(name)
            )
            return
        last = re.split(r"\s+", rest)[-1]
        yield from (
            Word(each, len(last))
            for each in [*(f"-p {one}" for one in self.parameters.get(name, ())), "--sql"]
            if each.startswith(last)
        )

    def _of_sql(self, text: str, asked: bool) -> Iterator[Word]:
        dotted = re.search(r"\b(\w+)\.(\w*)$", text)
        if dotted:
            table = dotted[1] if dotted[1] in self.tables else self._alias(text, dotted[1])
            yield from _fitting(self.tables.get(table, ()), dotted[2], table)
            return
        typed = re.search(r"\w*$", text)
        start = typed[0] if typed else ""
        if not start and not asked:
            return
        if re.search(r"\b(FROM|JOIN|DESCRIBE|SUMMARIZE)\s+\w*$", text, re.IGNORECASE):
            yield from _fitting(self.tables, start, "table")
            return
        read = [name for name in self.tables if re.search(rf"\b{name}\b", text, re.IGNORECASE)]
        about: dict[str, list[str]] = {}
        for table in read or self.tables:
            for column in self.tables[table]:
                about.setdefault(column, []).append(table)
        yield from (
            word for name, where in about.items() for word in _fitting([name], start, ", ".join(where))
        )  # fmt: skip
        yield from _fitting(self.tables, start, "table")
        lower = start.islower()
        yield from _fitting([each.lower() if lower else each for each in _KEYWORDS.split()], start, "")
        if len(start) >= _FEWEST:
            yield from self._literals(start, 0)
            yield from (
                Word(f"{word.text}(", word.replaces, "function") for word in _fitting(self.functions, start, "")
            )

    def _alias(self, text: str, alias: str) -> str:
        """The table that a query gives a name to; "" for none."""
        names = "|".join(self.tables)
        found = re.search(rf"\b({names})\s+(?:AS\s+)?{alias}\b", text, re.IGNORECASE)
        return found[1].lower() if found else ""

    def _literals(self, start: str, more: int) -> Iterator[Word]:
        """Classes in which a word begins like this, as literals. :param more: characters to replace before these."""
        begins = re.compile(rf"(?<!\w){re.escape(start)}", re.IGNORECASE)
        matching = [each for each in self.classes if begins.search(each)]
        for name in sorted(matching, key=lambda each: not begins.match(each)):
            yield Word("'" + name.replace("'", "''") + "'", len(start) + more, "class")


def _fitting(names: Iterable[str], start: str, about: str) -> Iterator[Word]:
    """Those of some names that begin like this, quoted where SQL needs it."""
    for name in names:
        if name.lower().startswith(start.lower()) and (name != start):
            quoted = name if _PLAIN.fullmatch(name) else '"' + name.replace('"', '""') + '"'
            yield Word(quoted, len(start), about)
