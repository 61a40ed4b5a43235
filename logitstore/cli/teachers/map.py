"""``logitstore teachers map``."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from logitstore.cli.command import answer, command, next_steps, note
from logitstore.jobs.options import MapOptions
from logitstore.options import JsonOptions, only


@dataclass(frozen=True, kw_only=True)
class _Map(JsonOptions, MapOptions):
    pass


@command("map", _Map)
def map_command(options: _Map) -> None:
    """Propose which classes of a teacher the labels of LABELS stand for: a file for evaluate --map.

    In this order: classes of that name or MID, and what AudioSet's ontology has below them; what it has below a label
    that is no class; guesses by spelling, marked as such, to be looked at. Where nothing is found the class is empty:
    fill it in, or leave it, and the label is left out.

    \b
    Example:
      logitstore teachers map runs/teacher labels.csv --out map.csv
      logitstore evaluate labels.csv --audio-root audio --label-column label --teacher runs/teacher --map map.csv
    """
    from logitstore.cli.afterwards import with_teachers
    from logitstore.cli.progress import working
    from logitstore.files import check_out, open_out
    from logitstore.jobs.map_labels import map_labels

    if options.out is not None:
        check_out(options.out, "--out", (".csv",))
    with working("loading the teacher"):
        found = map_labels(only(options, MapOptions))
    text = found.csv()
    if options.out is not None:
        with open_out(options.out, "--out") as file:
            file.write(text.encode())
    counts = f"{len(found.labels)} labels: {len(found.found)} by name or MID, {len(found.guessed)} guessed, "
    note(f"{counts}{len(found.without)} without a class; look at the guesses before you use them")
    wrote = text.rstrip("\n") if options.out is None else f"wrote {options.out}"
    answer(options, found.to_dict() | {"out": options.out}, wrote)
    if options.out is not None and options.label_column is not None:
        labels, written = shlex.quote(options.labels), shlex.quote(options.out)
        column = f"--label-column {shlex.quote(options.label_column)}"
        next_steps(f"logitstore evaluate {labels} {column} {with_teachers([options.teacher])} --map {written}")
