"""Events: when classes sound, of frame probabilities and of strong labels, and how well the two agree.

Event F1 is the collar-based one of DCASE's challenges (Mesaros et al., *Metrics for polyphonic sound event detection*,
2016): an event that was found is right where one of the same class begins within a collar of it and ends within the
collar or a share of the true event's length, whichever is more; each true event accounts for one found event at most,
and as many as can be are paired. PSDS (Bilen et al., arXiv 1910.08440) is of no single threshold: it is the area
under the curve of true positives over false ones an hour, of all thresholds that there are (Ebbers et al., arXiv
2201.13148), events being right by the share of time that they have in common. Both are equal to those of the package
sed_scores_eval 0.0.4, which does not run beside current versions of what it needs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from logitstore.arrays import F32, F64, I64
from logitstore.errors import SourceError

if TYPE_CHECKING:
    import pyarrow as pa

    from logitstore.audio.source import ColumnNames

#: Seconds and share of an event's length by which its onset, and its offset, may be missed.
COLLAR, OFFSET_SHARE = 0.2, 0.2
#: Columns of strong labels that hold the class, in the order in which they are looked for.
LABEL_COLUMNS = ("event_label", "label", "class")
#: The effective false positives an hour up to which PSDS looks.
MOST_FALSE = 100.0

_NOTHING_TRUE = "there is no true event of these classes, so nothing can be measured"
_TOLERANCE = 1e-6  # seconds
_CELLS = 1 << 22  # thresholds x frames that are looked at together


class Event(NamedTuple):
    """A class from ``start`` to ``end``, in seconds of its file; ``probability``, the highest there, in [0, 1]."""

    start: float
    end: float
    label: str
    probability: float = 1.0


#: The events of each file, by its path; none of a file that is known to have none.
Events = Mapping[str, Sequence[Event]]


@dataclass(frozen=True)
class Scenario:
    """What PSDS counts: a found event is right where it shares ``dtc`` of its time with true ones of its class, and a
    true one is found where right ones cover ``gtc`` of it. ``cttc`` is the share from which a wrong one is taken for
    another class, which counts ``alpha_ct`` besides; ``alpha_st`` weighs how unlike classes are."""

    dtc: float
    gtc: float
    cttc: float | None = None
    alpha_ct: float = 0.0
    alpha_st: float = 1.0


#: DCASE's two: one for the exact time, one for the class.
SCENARIOS = {"psds1": Scenario(0.7, 0.7), "psds2": Scenario(0.1, 0.1, 0.3, 0.5)}


@dataclass(frozen=True)
class ClassCounts:
    """A class with ``events`` true events: those found (``hits``), found events that are none (``false``), F1."""

    name: str
    events: int
    hits: int
    false: int

    @property
    def f1(self) -> float:
        """In [0, 1]."""
        return 2 * self.hits / max(1, self.events + self.hits + self.false)


@dataclass(frozen=True)
class EventF1:
    """Event F1: ``macro``, the mean over the classes that have true events, and ``micro``, over all events."""

    by_class: tuple[ClassCounts, ...]

    @property
    def macro(self) -> float:
        """In [0, 1]."""
        return float(np.mean([each.f1 for each in self.by_class if each.events]))

    @property
    def micro(self) -> float:
        """In [0, 1]."""
        sums = (sum(getattr(each, name) for each in self.by_class) for name in ("events", "hits", "false"))
        return ClassCounts("", *sums).f1


def read_events(
    file: str | Path, label_column: str | None = None, columns: ColumnNames | None = None
) -> dict[str, tuple[Event, ...]]:
    """Strong labels, or events that were found: a table with a row an event, CSV, TSV, JSON lines or Parquet.

    Columns are ``filename``, ``onset``, ``offset`` (seconds) and ``event_label``, as DCASE's tables have them, or
    ``path``, ``start``, ``end`` and ``class`` with ``probability``, as ``logitstore tag --frames`` writes them. A row
    without a label says that a file has no event.

    :param label_column: the column of classes; the first of :data:`LABEL_COLUMNS` by default.
    :param columns: which others say what; by their usual names by default.
    :raises SourceError: unreadable, no such column, an event without onset or offset, or of a probability that is none.
    """
    from logitstore.audio.manifest import read_manifest

    table = read_manifest(Path(file), columns)
    chosen = [name for name in ((label_column,) if label_column else LABEL_COLUMNS) if name in table.column_names]
    if not chosen:
        wanted = repr(label_column) if label_column else " or ".join(LABEL_COLUMNS)
        raise SourceError(f"{file}: no column {wanted} of classes; it has {', '.join(table.column_names)}")
    nothing = [None] * table.num_rows
    cells = {name: table[name].to_pylist() if name in table.column_names else nothing for name in _COLUMNS}
    found: dict[str, list[Event]] = {}
    rows = zip(*cells.values(), table[chosen[0]].to_pylist(), strict=True)
    for row, (path, start, duration, probability, label) in enumerate(rows, start=1):
        events = found.setdefault(path, [])
        if label is None or not str(label).strip():
            continue
        what = f"{file}, event {row}, {label!r} in {path}"
        if start is None or duration is None:
            raise SourceError(
                f"{what}: no {'onset' if start is None else 'offset'}: {_times(table, columns, row - 1)}; strong "
                "labels have both, in seconds"
            )
        events.append(Event(start, start + duration, str(label), _probability(probability, what)))
    return {path: tuple(sorted(events)) for path, events in found.items()}


_COLUMNS = ("path", "start", "duration", "probability")


def _times(table: pa.Table, columns: ColumnNames | None, row: int) -> str:
    """What stands in the cells of a row that times were looked for in."""
    from logitstore.audio.roles import roles
    from logitstore.audio.source import ColumnNames

    found = roles(table.column_names, columns or ColumnNames(), "")
    names = [name for name in (found.start, found.end, found.duration) if name in table.column_names]
    cells = {name: table[name][row].as_py() for name in names}
    return ", ".join(f"{name} is {'empty' if cell in (None, '') else repr(cell)}" for name, cell in cells.items())


def _probability(cell: Any, what: str) -> float:
    """The probability in a cell, 1 where it is empty.

    :raises SourceError: it is none.
    """
    if cell is None or cell == "":
        return 1.0
    try:
        number = float(cell)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number <= 1:
        raise SourceError(f"{what}: its probability is {cell!r}; allowed is a number from 0 to 1, or nothing")
    return number


def filtered(probabilities: F32, hop: float, seconds: float) -> F32:
    """Frame probabilities (T, C) through a median filter of so many seconds, an odd number of frames; 0 for none."""
    size = 2 * int(seconds / hop / 2 + 1e-9) + 1
    if size == 1:
        return probabilities
    from scipy.ndimage import median_filter

    smooth: F32 = median_filter(probabilities, size=(size, 1), mode="nearest")
    return smooth


def found_events(
    probabilities: F32, classes: Sequence[str], hop: float, *, threshold: float, shortest: float = 0.0, end: float
) -> list[Event]:
    """The stretches of frames in which classes have at least some probability, by start.

    :param probabilities: (T, C). :param hop: seconds of a frame. :param shortest: events shorter than these seconds are
        left out. :param end: the end of the file, in seconds, beyond which the last frame may reach.
    """
    rows, starts, stops = _runs((probabilities >= threshold).T)
    found = []
    for index, start, stop in zip(rows.tolist(), starts.tolist(), stops.tolist(), strict=True):
        last = min(stop * hop, end)
        if last - start * hop >= max(shortest - _TOLERANCE, _TOLERANCE):
            highest = float(probabilities[start:stop, index].max())
            found.append(Event(round(start * hop, 6), round(last, 6), classes[index], highest))
    return sorted(found)


def event_f1(
    truth: Events, found: Events, classes: Sequence[str], *, collar: float = COLLAR, share: float = OFFSET_SHARE
) -> EventF1:
    """How well events were found in the files of ``truth``.

    :param collar: seconds. :param share: of a true event's length. :raises SourceError: there is no true event.
    """
    counts = {name: [0, 0, 0] for name in classes}
    for path, events in truth.items():
        given = found.get(path, ())
        for name in {each.label for each in (*events, *given)}:
            true = _spans(each for each in events if each.label == name)
            said = _spans(each for each in given if each.label == name)
            hits = _pairs(true, said, collar, share)
            for at, more in enumerate((len(true), hits, len(said) - hits)):
                counts.setdefault(name, [0, 0, 0])[at] += more
    if not any(events for events, _, _ in counts.values()):
        raise SourceError(_NOTHING_TRUE)
    return EventF1(tuple(ClassCounts(name, *each) for name, each in counts.items()))


def psds(
    scores: Mapping[str, F32],
    hop: float,
    truth: Events,
    lengths: Mapping[str, float],
    classes: Sequence[str],
    scenario: Scenario,
) -> float:
    """The polyphonic sound detection score, in [0, 1], over the classes that have true events.

    :param scores: (T, C) of every file, frame t being of [t, t + 1) * hop, none beyond the end of the file.
    :param lengths: of the files, in seconds.
    :raises SourceError: there is no true event, or no file that is longer than 0 s.
    """
    spans = {path: [_spans(each for each in truth[path] if each.label == name) for name in classes] for path in scores}
    sounding = np.sum([[_total(each) for each in of] for of in spans.values()], axis=0)  # seconds of each class
    true = np.sum([[len(each) for each in of] for of in spans.values()], axis=0)
    if not np.any(true):
        raise SourceError(_NOTHING_TRUE)
    hours = sum(lengths[path] for path in scores) / 3600
    if not hours > 0:
        raise SourceError("the files of these events have a length of 0 s, so nothing can be measured")
    curves = []
    for at in np.flatnonzero(true).tolist():
        steps = [_steps(scores[path][:, at], hop, lengths[path], spans[path], at, scenario) for path in scores]
        thresholds, order = np.unique(-np.concatenate([of for of, _ in steps]), return_inverse=True)
        counts = np.zeros((len(thresholds), 2 + len(classes)))
        np.add.at(counts, order, np.concatenate([more for _, more in steps]))
        hits, false, taken = np.split(np.cumsum(counts, axis=0), [1, 2], axis=1)
        rates = false[:, 0] / hours
        others = [each for each in np.flatnonzero(true).tolist() if each != at]
        if scenario.alpha_ct and others:
            rates = rates + scenario.alpha_ct * (taken[:, others] / (sounding[others] / 3600)).mean(axis=1)
        curves.append(_best(rates, hits[:, 0] / true[at]))
    return _area(curves, scenario.alpha_st)


def _steps(
    scores: F32, hop: float, length: float, spans: Sequence[F64], at: int, scenario: Scenario
) -> tuple[F64, F64]:
    """How the counts of a class in a file change as the threshold falls to each of its scores.

    :param scores: (T,). :param spans: true events (n, 2) of every class. :param at: the class.
    :returns: thresholds (U,), falling, and what is added there to true events found, wrong events found, and wrong ones
        taken for each of the C classes: (U, 2 + C).
    """
    if not len(scores):  # of a file that is too short for a frame
        return np.zeros(0), np.zeros((0, 2 + len(spans)))
    thresholds = np.unique(scores)[::-1]
    some = max(1, _CELLS // len(scores))
    parts = [_runs(scores[None] >= thresholds[at : at + some, None]) for at in range(0, len(thresholds), some)]
    rows = np.concatenate([own + number * some for number, (own, _, _) in enumerate(parts)])
    starts, stops = (np.concatenate([part[at] for part in parts]) for at in (1, 2))
    bounds = np.minimum(np.arange(len(scores) + 1) * hop, length)
    long = np.maximum(bounds[stops] - bounds[starts], 1e-12)
    common = _common(spans[at], bounds)
    shared = common[:, stops] - common[:, starts]  # (true events, found ones)
    right = shared.sum(axis=0) >= scenario.dtc * long - _TOLERANCE
    counts = np.zeros((len(thresholds), 2 + len(spans)))
    for event, (start, end) in enumerate(spans[at]):
        covered = np.bincount(rows[right], shared[event, right], len(thresholds))
        counts[:, 0] += covered >= scenario.gtc * (end - start) - _TOLERANCE
    wrong = rows[~right]
    counts[:, 1] = np.bincount(wrong, minlength=len(thresholds))
    if scenario.cttc is not None:
        for other, of in enumerate(spans):
            if other != at and len(of):
                sums = _common(of, bounds).sum(axis=0)
                taken = (sums[stops] - sums[starts])[~right] >= scenario.cttc * long[~right] - _TOLERANCE
                counts[:, 2 + other] = np.bincount(wrong[taken], minlength=len(thresholds))
    return thresholds.astype(np.float64), np.diff(counts, axis=0, prepend=0.0)


def _common(spans: F64, bounds: F64) -> F64:
    """Seconds of each span (n, 2) before each bound: (n, len(bounds))."""
    return np.clip(bounds[None] - spans[:, :1], 0.0, spans[:, 1:] - spans[:, :1])


def _best(rates: F64, hits: F64) -> tuple[F64, F64]:
    """A curve, rising in both: the share of hits that no more than each rate of false positives has to be paid for."""
    order = np.lexsort((hits, rates))
    return rates[order], np.maximum.accumulate(hits[order])


def _area(curves: Sequence[tuple[F64, F64]], alpha_st: float) -> float:
    """The area under the curves' mean less their standard deviation, as steps, up to :data:`MOST_FALSE`."""
    rates = np.unique(np.concatenate([[0.0], *(rates for rates, _ in curves)]))
    rates = rates[rates <= MOST_FALSE]
    heights = []
    for own, hits in curves:
        last = np.searchsorted(own, rates, side="right") - 1
        heights.append(np.where(last >= 0, hits[last], 0.0))
    effective = np.maximum(np.mean(heights, axis=0) - alpha_st * np.std(heights, axis=0), 0.0)
    return float((effective * np.diff(rates, append=MOST_FALSE)).sum() / MOST_FALSE)


def _runs(active: np.ndarray) -> tuple[I64, I64, I64]:
    """Row, start and stop of every stretch of true values in the rows of bool (n, T)."""
    edges = np.diff(active.astype(np.int8), axis=1, prepend=0, append=0)
    rows, starts = np.nonzero(edges == 1)
    return rows, starts, np.nonzero(edges == -1)[1]


def _spans(events: Iterable[Event]) -> F64:
    """Starts and ends, float64 (n, 2)."""
    return np.array([(each.start, each.end) for each in events], dtype=np.float64).reshape(-1, 2)


def _total(spans: F64) -> float:
    return float((spans[:, 1] - spans[:, 0]).sum())


def _pairs(true: F64, said: F64, collar: float, share: float) -> int:
    """How many true events can be paired each with a found one of its own."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    if not len(true) or not len(said):
        return 0
    least = np.maximum(collar, share * (true[:, 1] - true[:, 0]))[:, None]
    near = np.abs(true[:, :1] - said[None, :, 0]) <= collar + _TOLERANCE
    near &= np.abs(true[:, 1:] - said[None, :, 1]) <= least + _TOLERANCE
    return int((maximum_bipartite_matching(csr_array(near.astype(np.int8)), perm_type="column") >= 0).sum())
