"""Which classes of a model each of a user's labels may stand for: a map to be looked through, not to be trusted.

A label's classes are, in this order of trust: the class of that name or MID, and what AudioSet's ontology has below it;
what it has below a node of that name that is no class itself; and guesses, by how names are spelled. A guess compares
stems of words, in every one of the names that a class may have ("Chicken, rooster"), whatever their case, underscores
and endings: the same words; a class all of whose words are in the label, those of the most words, and of two that lie
above each other the lower; at last the nearest spelling.
"""

from __future__ import annotations

import csv
import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from logitstore.classes import ClassIndex

#: What the reason of a row begins with that a user should look at.
GUESS = "guess: "
_ALIKE = "spelled alike"
_NEAR, _LEAST_NEAR = 0.9, 5  # of difflib's ratio and of characters, from which on a spelling is a slip of the pen
_BRACKETS = 2
_LEAST_STEM = 3
_ENDINGS = ("ings", "ing", "ers", "ed", "er", "es", "s", "e")
_SMALL = frozenset(("a", "an", "and", "in", "of", "on", "or", "the", "sound", "other"))


@dataclass(frozen=True)
class Node:
    """A node of AudioSet's ontology: its MID, its name, the MIDs of its children."""

    mid: str
    name: str
    children: tuple[str, ...]


@dataclass(frozen=True)
class Proposed:
    """A row of a proposal: a class that a label may stand for, and why; no class where none was found."""

    label: str
    name: str
    why: str

    @property
    def guessed(self) -> bool:
        """Whether it rests on spelling alone."""
        return self.why.startswith(GUESS)


@cache
def ontology() -> dict[str, Node]:
    """The 632 nodes of AudioSet's ontology by MID; 527 of them are its classes."""
    text = resources.files("logitstore").joinpath("audioset_ontology.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    nodes = (Node(row["mid"], row["display_name"], tuple(row["children"].split())) for row in rows)
    return {node.mid: node for node in nodes}


def below(mid: str) -> list[Node]:
    """All nodes below one, each once, those nearest to it first."""
    found: dict[str, Node] = {}
    level = [mid]
    while level:
        level = [child for each in level for child in ontology()[each].children if child not in found]
        found |= {child: ontology()[child] for child in level}
    found.pop(mid, None)
    return list(found.values())


def propose(labels: Sequence[str], classes: Sequence[str]) -> list[Proposed]:
    """Rows for every label, in their order.

    :param labels: unique. :param classes: of the model, in any vocabulary.
    """
    vocabulary = _Vocabulary(classes)
    return [row for label in labels for row in vocabulary.rows(label)]


class _Vocabulary:
    """A model's classes by their name, by their place in the ontology and by the stems of their words."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self.find = ClassIndex(classes).find
        by_name = {node.name: node.mid for node in ontology().values()}
        self.by_name = by_name
        self.names = {mid: found for mid in ontology() if (found := self._class_of(ontology()[mid])) is not None}
        self.mid_of = {name: mid for mid, name in self.names.items()}
        # a node that is no class stands for those below it
        abstract = [node.name for mid, node in ontology().items() if self.names and mid not in self.names]
        self.forms = [
            (name, rank, _stems(form)) for name in (*self.classes, *abstract) for form, rank in _forms(name).items()
        ]
        self.spelled = {_plain(form): name for name in reversed(self.classes) for form in reversed(_forms(name))}

    def rows(self, label: str) -> Iterator[Proposed]:
        found = {row.name: row for row in self._found(label)}
        yield from found.values() or [Proposed(label, "", "no class found: give one, or leave it out")]

    def _found(self, label: str) -> Iterator[Proposed]:
        at = None if label.isdecimal() and label not in self.classes else self.find(label)  # a number is no index here
        if at is not None:
            yield from self._with_those_below(label, self.classes[at], "MID" if label[:1] == "/" else "name")
            return
        mid = label if label in ontology() else self.by_name.get(label)
        if mid is not None and (rows := list(self._below(label, mid, ""))):
            yield from rows
            return
        for name, why in self._guesses(label):
            if why == _ALIKE or name not in self.classes:
                yield from self._with_those_below(label, name, GUESS + why)
            else:
                yield Proposed(label, name, GUESS + why)

    def _with_those_below(self, label: str, name: str, why: str) -> Iterator[Proposed]:
        """A class, or a node of the ontology that is none, and the classes below it."""
        if name in self.classes:
            yield Proposed(label, name, why)
        mid = self.mid_of.get(name) or self.by_name.get(name)
        if mid is not None:
            yield from self._below(label, mid, GUESS if why.startswith(GUESS) else "")

    def _below(self, label: str, mid: str, guess: str) -> Iterator[Proposed]:
        for node in below(mid):
            if node.mid in self.names:
                yield Proposed(label, self.names[node.mid], f"{guess}below {ontology()[mid].name}")

    def _guesses(self, label: str) -> Iterator[tuple[str, str]]:
        """Names of classes or nodes, and why."""
        wanted = _stems(label)
        same = [each for each in self.forms if set(each[2]) == set(wanted) or "".join(each[2]) == "".join(wanted)]
        if wanted and same:
            yield from ((name, _ALIKE) for name in self._lowest(_best(same)))
            return
        within = [each for each in self.forms if each[2] and set(each[2]) < set(wanted)]
        if within:
            most = max(len(stems) for _, _, stems in within)
            names = self._lowest(_best([each for each in within if len(each[2]) == most]))
            yield from ((name, "some of its words") for name in names)
            return
        plain = _plain(label)
        near = difflib.get_close_matches(plain, self.spelled, n=1, cutoff=_NEAR) if len(plain) >= _LEAST_NEAR else []
        yield from ((self.spelled[each], "the nearest spelling") for each in near)

    def _lowest(self, names: Sequence[str]) -> list[str]:
        """Names without those that lie above another one."""
        every = list(dict.fromkeys(names))
        mids = {name: self.mid_of.get(name) or self.by_name.get(name) for name in every}
        lower = {name: {node.mid for node in below(mid)} if mid else set() for name, mid in mids.items()}
        return [name for name in every if not any(mids[other] in lower[name] for other in every)]

    def _class_of(self, node: Node) -> str | None:
        """The model's class that is a node of the ontology, by name or MID."""
        at = self.find(node.mid)
        at = self.find(node.name) if at is None else at
        return None if at is None else self.classes[at]


def _forms(name: str) -> dict[str, int]:
    """The names that one name may hold, and how far each is from it: all of it 0; 1 for its parts between commas and
    both names of ``Turdus merula_Blackbird``; 2 for those without what stands in brackets."""
    parts = [*name.split(","), *(name.split("_") if "_" in name and " " in name else ())]
    bare = [re.sub(r"\(.*?\)", " ", part) for part in (name, *parts) if "(" in part]
    ranked = {part: rank for rank, several in ((2, bare), (1, parts), (0, [name])) for part in several}
    return {part: rank for part, rank in ranked.items() if _plain(part)}


def _best(found: Sequence[tuple[str, int, list[str]]]) -> list[str]:
    """Names of the forms found: of those of the same words the nearest to their name, and brackets only alone."""
    least = min(rank for _, rank, _ in found)
    nearest: dict[frozenset[str], int] = {}
    for _, rank, stems in found:
        words = frozenset(stems)
        nearest[words] = min(rank, nearest.get(words, rank))
    return [
        name
        for name, rank, stems in found
        if rank == nearest[frozenset(stems)] and (rank < _BRACKETS or least == _BRACKETS)
    ]


def _plain(text: str) -> str:
    """A name without case, underscores and marks."""
    return " ".join(re.findall(r"[^\W_]+", text.casefold()))


def _stems(text: str) -> list[str]:
    """The stems of the words that say something."""
    return [_stem(word) for word in _plain(text).split() if word not in _SMALL]


def _stem(word: str) -> str:
    """A word without its ending, where enough is left: waves, wave, waving are one."""
    if len(word) > _LEAST_STEM + 1 and word.endswith("ies"):
        return word[:-3] + "y"
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= _LEAST_STEM and not word.endswith("ss"):
            return word[: -len(ending)]
    return word
