"""The proposal of a map: a teacher and a table of labels in, rows of label and class out, guesses marked."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from logitstore.classes import read_classes
from logitstore.errors import UsageError
from logitstore.evaluation.labelled import label_names, read_listing
from logitstore.evaluation.mapping import HEADER
from logitstore.evaluation.proposal import Proposed, propose
from logitstore.files import read_text
from logitstore.jobs.options import MapOptions
from logitstore.texts import csv_line

#: The column of labels where none is named and the table has it.
DEFAULT_COLUMN = "label"


@dataclass(frozen=True)
class Proposal:
    """The rows of a map, in the order of the labels, and the teacher that they are for."""

    teacher: str
    rows: tuple[Proposed, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, each once."""
        return tuple(dict.fromkeys(row.label for row in self.rows))

    @property
    def found(self) -> tuple[str, ...]:
        """The labels with a class that is no guess."""
        return tuple(dict.fromkeys(row.label for row in self.rows if row.name and not row.guessed))

    @property
    def guessed(self) -> tuple[str, ...]:
        """The labels all of whose classes are guesses."""
        return tuple(label for label in dict.fromkeys(row.label for row in self.rows if row.guessed))

    @property
    def without(self) -> tuple[str, ...]:
        """The labels without a class."""
        return tuple(row.label for row in self.rows if not row.name)

    def csv(self) -> str:
        """The file that ``evaluate --map`` takes, with a column more that says why."""
        lines = [[*HEADER, "why"], *([row.label, row.name, "max" * bool(row.name), row.why] for row in self.rows)]
        return "".join(map(csv_line, lines))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        rows = [asdict(row) | {"guess": row.guessed} for row in self.rows]
        return {
            "teacher": self.teacher,
            "rows": [{("class" if key == "name" else key): value for key, value in row.items()} for row in rows],
            "found": list(self.found),
            "guessed": list(self.guessed),
            "without": list(self.without),
        }


def map_labels(options: MapOptions) -> Proposal:
    """Propose which classes of a teacher the labels of a table stand for.

    :raises SourceError: a table without such a column. :raises TeacherError: no such teacher, or no list of names.
    """
    from teachers.registry import load_teacher

    labels = _labels(options)
    return Proposal(options.teacher, tuple(propose(labels, load_teacher(options.teacher).classes)))


def _labels(options: MapOptions) -> Sequence[str]:
    column = options.label_column
    if column is None:
        try:
            first = read_text(options.labels).lstrip("# \n").partition("\n")[0]
        except (OSError, ValueError) as error:
            reason = error.strerror or error if isinstance(error, OSError) else error
            raise UsageError(f"LABELS {options.labels!r} cannot be read: {reason}") from error
        cells = [cell.strip() for mark in ",;\t" for cell in next(csv.reader([first], delimiter=mark), [])]
        if DEFAULT_COLUMN not in cells:
            return read_classes(options.labels)
        column = DEFAULT_COLUMN
    _, labels, _ = read_listing(options.labels, column, where=options.where, label_separator=options.label_separator)
    return label_names(labels)
