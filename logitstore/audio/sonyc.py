"""SONYC-UST's tables: the taxonomy, ``annotations.csv`` (one row an annotation), and what is said of each clip.

Columns are found by name, so that the files of 2019 (v1) and of 2020 (v2.3) are read alike. -1, "not judged", is never
counted. A coarse class is there where one of its fine tags is, X ("of this class, but which?") included: the column of
the coarse class is not believed, because before v0.4 machinery-impact was marked wherever non-machinery-impact was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from logitstore.arrays import F64, I64, Bool
from logitstore.audio.delimited import Rows, read_rows
from logitstore.audio.parquet import rows_of
from logitstore.errors import SourceError
from logitstore.texts import shown

if TYPE_CHECKING:
    import pyarrow as pa

    from logitstore.audio.source import Reading
    from logitstore.audio.stems import Stems

Rule = Literal["2019", "2020"]

FILE, SPLIT, ANNOTATOR = "audio_filename", "split", "annotator_id"
SPLITS = ("train", "validate", "test")
#: Columns that say the same of a clip in all of its rows, where a table has them.
_OF_CLIP = ("sensor_id", "year", "week", "day", "hour", "borough", "block", "latitude", "longitude")
_PRESENCE = "_presence"
#: The columns that :func:`one_row_a_clip` makes.
_LISTS = ("coarse", "fine", "uncertain")
_MOST_NAMED = 3


@dataclass(frozen=True)
class Coarse:
    """A coarse class: its tag, its fine tags without X, and the tag of X, where there is one."""

    name: str
    fine: tuple[str, ...]
    uncertain: str | None

    @property
    def tags(self) -> tuple[str, ...]:
        """The fine tags, X last."""
        return self.fine if self.uncertain is None else (*self.fine, self.uncertain)


def _coarse(number: int, name: str, fine: str, uncertain: str | None = None) -> Coarse:
    names = tuple(f"{number}-{place}_{each}" for place, each in enumerate(fine.split(), 1))
    return Coarse(f"{number}_{name}", names, None if uncertain is None else f"{number}-X_{uncertain}")


TAXONOMY = (
    _coarse(1, "engine", "small-sounding-engine medium-sounding-engine large-sounding-engine",
            "engine-of-uncertain-size"),
    _coarse(2, "machinery-impact", "rock-drill jackhammer hoe-ram pile-driver", "other-unknown-impact-machinery"),
    _coarse(3, "non-machinery-impact", "non-machinery-impact"),
    _coarse(4, "powered-saw", "chainsaw small-medium-rotating-saw large-rotating-saw", "other-unknown-powered-saw"),
    _coarse(5, "alert-signal", "car-horn car-alarm siren reverse-beeper", "other-unknown-alert-signal"),
    _coarse(6, "music", "stationary-music mobile-music ice-cream-truck", "music-from-uncertain-source"),
    _coarse(7, "human-voice",
            "person-or-small-group-talking person-or-small-group-shouting large-crowd amplified-speech",
            "other-unknown-human-voice"),
    _coarse(8, "dog", "dog-barking-whining"),
)  # fmt: skip
#: The 8 coarse tags; the 23 fine ones; the 6 X; the 29 fine columns in the order of the tables.
COARSE = tuple(each.name for each in TAXONOMY)
FINE = tuple(name for each in TAXONOMY for name in each.fine)
UNCERTAIN = tuple(each.uncertain for each in TAXONOMY if each.uncertain is not None)
TAGS = tuple(name for each in TAXONOMY for name in each.tags)
#: Which coarse class each of the 29 is of, and which of the 29 are X.
COARSE_OF: I64 = np.array([number for number, each in enumerate(TAXONOMY) for _ in each.tags])
IS_UNCERTAIN: Bool = np.array([name in UNCERTAIN for name in TAGS])


@dataclass(frozen=True)
class Annotations:
    """The rows of an ``annotations.csv``.

    ``splits`` and ``files`` (R,) text, ``annotators`` int64 (R,), ``present`` bool (R, 29) which fine tags a row says
    to be there. ``rule`` is whose baseline made such tables: 2020's have the time of recording. ``notes`` are sentences
    that a user should know.
    """

    splits: tuple[str, ...]
    files: tuple[str, ...]
    annotators: I64
    present: Bool
    rule: Rule
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Targets:
    """What is said of each clip: ``tags`` bool (n, 29), and the row of the table that each clip has first.

    ``agreed`` bool (n,): whether the team's agreed row was taken. ``dropped`` clips have labels of nobody who counts.
    """

    files: tuple[str, ...]
    splits: tuple[str, ...]
    tags: Bool
    rows: I64
    agreed: Bool
    dropped: int

    def of(self, split: str) -> Targets:
        """The clips of one split."""
        kept = np.array([each == split for each in self.splits], dtype=np.bool_)
        return replace(
            self, files=_kept(self.files, kept), splits=_kept(self.splits, kept), tags=self.tags[kept],
            rows=self.rows[kept], agreed=self.agreed[kept],
        )  # fmt: skip


def column_for(classes: Sequence[str]) -> Literal["coarse", "fine"]:
    """Which of the columns of :func:`one_row_a_clip` has the labels that classes are of."""
    return "coarse" if set(classes) & set(COARSE) else "fine"


def coarse_of(tags: Bool) -> Bool:
    """The coarse classes (n, 8) of fine tags bool (n, 29): any of its own, X included."""
    return np.stack([tags[:, each == COARSE_OF].any(axis=1) for each in range(len(TAXONOMY))], axis=1)


def is_annotations(names: Sequence[str]) -> bool:
    """Whether a table with these columns is an ``annotations.csv``."""
    return {FILE, SPLIT, ANNOTATOR} <= set(names) and any(f"{tag}{_PRESENCE}" in names for tag in TAGS)


def read_annotations(path: str) -> Annotations:
    """The rows of an ``annotations.csv``.

    :raises SourceError: no such file, none of SONYC-UST's tables, a cell that is no number.
    """
    return annotations_of(read_table(path, "annotations"), path)


def read_table(path: str, what: str) -> Rows:
    """A table of the data set, text or Parquet; it has a column of audio files.

    :raises SourceError: no such file, no such table.
    """
    if not Path(path).is_file():
        raise SourceError(f"{path}: no such file; give the {what} as a CSV or Parquet file")
    packed = Path(path).suffix.lower() == ".parquet"
    rows = in_text(rows_of(Path(path))) if packed else read_rows(Path(path), lambda names: FILE in names)
    names = rows.table.column_names
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise SourceError(f"{path}: the column {twice!r} is there twice; remove one")
    if FILE not in names:
        raise SourceError(
            f"{path}: no column {FILE!r}; found {', '.join(map(repr, names[:_MOST_NAMED]))}; "
            f"the {what} of SONYC-UST have one"
        )
    if not rows.table.num_rows:
        raise SourceError(f"{path}: no rows under the header")
    return rows


def in_text(rows: Rows) -> Rows:
    """Rows of typed columns with those that are names as text; an empty cell of them is empty text."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for name in (SPLIT, FILE):
        at = rows.table.column_names.index(name) if rows.table.column_names.count(name) == 1 else None
        if at is not None:
            try:
                texts = pc.fill_null(rows.table.column(at).cast(pa.string()), "")
            except pa.ArrowException:
                raise SourceError(
                    f"{rows.where(0)}: the column {name!r} must be text; it is {rows.table.column(at).type}"
                ) from None
            rows.table = rows.table.set_column(at, name, texts)
    return rows


def annotations_of(rows: Rows, what: str) -> Annotations:
    """The annotations that a table holds. :param what: how messages call it.

    :raises SourceError: a column is missing, a cell is no number, an unknown split.
    """
    names = rows.table.column_names
    wanted = (SPLIT, FILE, ANNOTATOR, *(f"{tag}{_PRESENCE}" for tag in TAGS))
    missing = [name for name in wanted if name not in names]
    if missing:
        some = ", ".join(map(repr, missing[:_MOST_NAMED])) + (", …" if len(missing) > _MOST_NAMED else "")
        raise SourceError(
            f"{what}: {len(missing)} columns of SONYC-UST's annotations are missing ({some}); give annotations.csv "
            "as it was released"
        )
    splits = tuple(rows.table.column(SPLIT).to_pylist())
    odd = next((row for row, split in enumerate(splits) if split not in SPLITS), None)
    if odd is not None:
        raise SourceError(f"{rows.where(odd)}: the split is {shown(splits[odd])}; allowed are {', '.join(SPLITS)}")
    who = numbers(rows, ANNOTATOR)
    present = np.stack([numbers(rows, f"{tag}{_PRESENCE}") for tag in TAGS], axis=1)
    wrong = np.argwhere(~np.isin(present, (-1, 0, 1)))
    if len(wrong):
        row, tag = wrong[0].tolist()
        raise SourceError(
            f"{rows.where(row)}: {TAGS[tag]}{_PRESENCE} is {present[row, tag]:g}; allowed are 1, 0 and -1 (not judged)"
        )
    found: Bool = present == 1
    judged: Bool = np.any(present >= 0, axis=1)
    return Annotations(
        splits, tuple(rows.table.column(FILE).to_pylist()), who.astype(np.int64), found,
        "2020" if "year" in names else "2019", tuple(_contrary(rows, found, judged)),
    )  # fmt: skip


def _contrary(rows: Rows, present: Bool, judged: Bool) -> list[str]:
    """What the columns of coarse classes say that their fine tags do not."""
    said, notes = coarse_of(present), []
    for each, name in enumerate(COARSE):
        if f"{name}{_PRESENCE}" not in rows.table.column_names:
            continue
        column = numbers(rows, f"{name}{_PRESENCE}")
        differs = ((column == 1) != said[:, each]) & judged
        if differs.any():
            trap = (
                ", as in releases before 0.4, where it was marked with non-machinery-impact too"
                if name == "2_machinery-impact" and (column[differs] == 1).any()
                else ""
            )
            notes.append(
                f"the column {name}{_PRESENCE} contradicts the fine tags of its class in {int(differs.sum()):,} "
                f"of {len(differs):,} rows{trap}; the fine tags are taken"
            )
    return notes


def numbers(rows: Rows, column: str) -> F64:
    """A column of numbers, float64 (n,), however each is written.

    :raises SourceError: a cell is none; the row is named.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    cells = rows.table.column(column).combine_chunks()
    if pa.types.is_string(cells.type) or pa.types.is_large_string(cells.type):
        cells = pc.utf8_trim_whitespace(cells)
    try:
        values: F64 = cells.cast(pa.float64()).to_numpy(zero_copy_only=False)
        wrong = ~np.isfinite(values)
    except pa.ArrowException:
        values, wrong = np.zeros(0), np.array([not _is_number(str(each)) for each in cells.to_pylist()])
        if not wrong.any():
            raise SourceError(f"{rows.where(0)}: {column} holds what cannot be read as numbers") from None
    if wrong.any():
        row = int(np.argmax(wrong))
        raise SourceError(f"{rows.where(row)}: {column} is {shown(cells[row].as_py())}; it must be a number")
    return values


def _is_number(text: str) -> bool:
    import pyarrow as pa

    try:
        return bool(pa.scalar(text).cast(pa.float64()).as_py() == float(text))
    except (pa.ArrowException, ValueError):
        return False


def targets(of: Annotations, rule: Rule | None = None) -> Targets:
    """What is said of each clip, as the baseline of a year takes it, in the order in which clips appear.

    2020: a train clip has a tag where any volunteer (id > 0) says so; of validate and test the agreed row (id 0) alone
    is taken. 2019: the agreed row where a clip has one, of any split, else a tag where any of its rows says so.
    Clips without a row that counts are left out.

    :param rule: by default that of the table. :raises SourceError: a clip of two splits, or with two agreed rows.
    """
    rule = rule or of.rule
    names, first, clip_of = np.unique(np.array(of.files, dtype=object), return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    clip_of, first = place[clip_of.ravel()], first[order]
    files = tuple(names[order].tolist())
    splits = np.array(of.splits, dtype=object)
    own = splits[first]
    if (own[clip_of] != splits).any():
        row = int(np.argmax(own[clip_of] != splits))
        raise SourceError(f"{of.files[row]} is in the splits {own[clip_of[row]]} and {splits[row]}; keep one of them")
    team = of.annotators == 0
    count = np.bincount(clip_of[team], minlength=len(files))
    if (count > 1).any():
        raise SourceError(
            f"{files[int(np.argmax(count > 1))]} has {count.max()} agreed rows (annotator_id 0); keep one"
        )
    train = own[clip_of] == "train"
    counts = np.where(train, of.annotators > 0, team) if rule == "2020" else team | (count[clip_of] == 0)
    tags = np.zeros((len(files), len(TAGS)), dtype=np.bool_)
    np.logical_or.at(tags, clip_of[counts], of.present[counts])
    kept = np.bincount(clip_of[counts], minlength=len(files)) > 0
    agreed = np.bincount(clip_of[counts & team], minlength=len(files)) > 0
    return Targets(
        _kept(files, kept), _kept(tuple(own.tolist()), kept), tags[kept], first[kept].astype(np.int64), agreed[kept],
        int((~kept).sum()),
    )  # fmt: skip


def one_row_a_clip(rows: Rows, what: str, typed: Callable[[Rows], pa.Table]) -> Rows:
    """The table with one row a clip: ``coarse``, ``fine`` and ``uncertain`` (X) as lists of tags, ``verified``.

    Columns that say the same in all rows of a clip are kept; who said what, and how near it was, is not.

    :param typed: gives text columns their types.
    """
    import pyarrow as pa

    of = annotations_of(rows, what)
    found = targets(of)
    if not found.files:
        raise SourceError(f"{what}: no clip has labels that count: no volunteer's in train, no agreed row elsewhere")
    rows.notes += of.notes
    taken = (
        "a train clip has what any volunteer says, the others what the team agreed on"
        if of.rule == "2020"
        else "a clip has what the team agreed on, and without that what any of its rows says"
    )
    rows.notes.append(
        f"SONYC-UST: {len(of.files):,} annotations of {len(found.files):,} clips; as in {of.rule}'s baseline {taken}"
    )
    if found.dropped:
        rows.notes.append(f"SONYC-UST: {found.dropped:,} clips left out, without labels that count in their split")
    kept = [name for name in (FILE, SPLIT, *_OF_CLIP) if name in rows.table.column_names]
    clips = rows.table.select(kept).take(pa.array(found.rows))
    clips = Rows(clips, lambda row: rows.where(int(found.rows[row])), rows.notes)
    clips.table = typed(clips)
    there = (coarse_of(found.tags), found.tags[:, ~IS_UNCERTAIN], found.tags[:, IS_UNCERTAIN])
    for name, of_clips, known in zip(_LISTS, there, (COARSE, FINE, UNCERTAIN), strict=True):
        cells = [[known[each] for each in np.flatnonzero(row)] for row in of_clips]
        clips.table = clips.table.append_column(name, pa.array(cells, pa.list_(pa.string())))
    clips.table = clips.table.append_column("verified", pa.array(found.agreed))
    return clips


def is_listing(reading: Reading, names: Sequence[str]) -> bool:
    """Whether a table that was read is what :func:`one_row_a_clip` makes."""
    return reading.used.get("path") == FILE and {SPLIT, *_LISTS} <= set(names)


def find(names: Sequence[str], splits: Sequence[str], stems: Stems, notes: list[str]) -> list[str]:
    """The file of every clip in an audio root: audio/NAME (2020), SPLIT/NAME (2019), or the only one of that name."""
    found, absent = [], 0
    for name, split in zip(names, splits, strict=True):
        key = next((key for each in (f"audio/{name}", f"{split}/{name}", name) if (key := stems.find(each))), None)
        absent += key is None
        found.append(key or name)
    if absent:
        notes.append(f"{absent:,} of {len(names):,} clips have no file in the audio root, and will be failures")
    return found


def _kept(names: tuple[str, ...], kept: Bool) -> tuple[str, ...]:
    return tuple(name for name, there in zip(names, kept.tolist(), strict=True) if there)
