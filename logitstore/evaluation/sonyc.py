"""The official measure of DCASE 2019 task 5 and 2020 task 5 (SONYC-UST): AUPRC by the trapezoidal rule, and F1 at 0.5.

It is not average precision. Points of equal recall come in any order in the original code, whose numbers so depend on
the versions of its libraries; here they have one order, and the least and the largest area over all orders are given.

A fine tag that nobody could make out (X) forgives: where X of a coarse class is true in a clip, its false alarms there
are not counted, and any tag of the class is a hit, once.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from logitstore.arrays import F32, F64, I64, Bool
from logitstore.audio.sonyc import (
    COARSE,
    COARSE_OF,
    FILE,
    FINE,
    IS_UNCERTAIN,
    TAGS,
    TAXONOMY,
    Annotations,
    coarse_of,
    numbers,
    read_annotations,
    read_table,
)
from logitstore.errors import SourceError
from logitstore.files import open_out
from logitstore.notes import note

Level = Literal["coarse", "fine"]
LEVELS: tuple[Level, ...] = ("coarse", "fine")
ESTIMATOR = "DCASE 2019/2020 task 5: trapezoidal AUPRC over thresholds from 0.01, points of equal recall in one order"
#: Scores below this are no thresholds.
LEAST_THRESHOLD = 0.01
_F1_AT = 0.5
_MOST_NAMED = 3


@dataclass(frozen=True)
class Truth:
    """What the team agreed on: ``tags`` bool (n, 29) of the clips ``files`` of a split."""

    files: tuple[str, ...]
    tags: Bool
    split: str


@dataclass(frozen=True)
class Predictions:
    """Scores float64 in [0, 1] of the clips ``files``: ``fine`` (n, 29), ``coarse`` (n, 8).

    ``missing`` are tags that were not given; their scores are 0.
    """

    files: tuple[str, ...]
    fine: F64
    coarse: F64
    missing: tuple[str, ...] = ()

    def only(self, files: Sequence[str]) -> Predictions:
        """Those of some clips, where they are there."""
        wanted = set(files)
        kept = np.array([each in wanted for each in self.files], dtype=np.bool_)
        names = tuple(each for each in self.files if each in wanted)
        return Predictions(names, self.fine[kept], self.coarse[kept], self.missing)


@dataclass(frozen=True)
class Curve:
    """Counts at rising ``thresholds`` (T,): ``tp``, ``fp`` and ``fn`` int64 (T,)."""

    thresholds: F64
    tp: I64
    fp: I64
    fn: I64

    @property
    def precision(self) -> F64:
        """TP / (TP + FP), 0 where nothing is predicted."""
        found: F64 = self.tp / np.maximum(self.tp + self.fp, 0.5)
        return found

    @property
    def recall(self) -> F64:
        """TP / (TP + FN), 0 where nothing is true."""
        found: F64 = self.tp / np.maximum(self.tp + self.fn, 0.5)
        return found


@dataclass(frozen=True)
class Area:
    """An AUPRC in [0, 1], and the least and the largest that another order of points of equal recall would give."""

    auprc: float
    least: float
    largest: float


@dataclass(frozen=True)
class ClassAreas:
    """One coarse class: its tag, clips that it is in, its area (at the fine level over its fine tags)."""

    name: str
    positives: int
    area: Area


@dataclass(frozen=True)
class SonycMetrics:
    """The official measure at one level, beside others, each under its own name.

    ``macro`` is the mean over all 8 coarse classes, those without positives counting 0 (``without_positives``);
    ``micro_f1`` is at ``micro_f1_threshold``, the smallest threshold of the micro curve that is at least 0.5.
    ``average_precision_micro`` and ``_macro`` (without interpolation, classes without positives left out) are over the
    8 coarse or the 23 fine tags, and None where none is true. ``lwlrap`` is label-weighted label-ranking average
    precision over the 8 coarse or the 29 fine columns, ``lwlrap_23`` over the fine ones without X: ties go to the last
    column; ``lwlrap_ties`` and ``lwlrap_23_ties`` count tied columns as ranked above, as scikit-learn does.
    """

    level: Level
    split: str
    clips: int
    micro: Area
    macro: Area
    by_class: tuple[ClassAreas, ...]
    micro_f1: float
    micro_f1_threshold: float
    without_positives: tuple[str, ...]
    average_precision_micro: float | None
    average_precision_macro: float | None
    lwlrap: float | None
    lwlrap_ties: float | None
    lwlrap_23: float | None = None
    lwlrap_23_ties: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        other = {
            name: getattr(self, name)
            for name in ("average_precision_micro", "average_precision_macro", "lwlrap", "lwlrap_ties")
        }
        if self.level == "fine":
            other |= {"lwlrap_23": self.lwlrap_23, "lwlrap_23_ties": self.lwlrap_23_ties}
        return {
            "level": self.level,
            "split": self.split,
            "clips": self.clips,
            "estimator": ESTIMATOR,
            "micro_auprc": self.micro.auprc,
            "macro_auprc": self.macro.auprc,
            "class_auprc": {each.name: each.area.auprc for each in self.by_class},
            "micro_f1": self.micro_f1,
            "micro_f1_threshold": self.micro_f1_threshold,
            "bounds": {
                "micro_auprc": [self.micro.least, self.micro.largest],
                "macro_auprc": [self.macro.least, self.macro.largest],
                "class_auprc": {each.name: [each.area.least, each.area.largest] for each in self.by_class},
            },
            "positives": {each.name: each.positives for each in self.by_class},
            "without_positives": list(self.without_positives),
            "other": other,
        }


@dataclass(frozen=True)
class SonycEvaluation:
    """The official measure of one thing that gave scores, at one level or at both."""

    scored: str
    levels: tuple[SonycMetrics, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "measure": "sonyc",
            "scored": self.scored,
            "split": self.levels[0].split,
            "clips": self.levels[0].clips,
            "levels": {each.level: each.to_dict() for each in self.levels},
        }

    def __repr__(self) -> str:
        found = ", ".join(f"{each.level} micro AUPRC {each.micro.auprc:.4f}" for each in self.levels)
        return f"<SonycEvaluation of {self.scored}: {found}>"


def evaluate(scored: str, truth: Truth, predictions: Predictions, level: Level | None = None) -> SonycEvaluation:
    """The official measure at a level; without one, at each of which some tag is predicted.

    :param scored: what to call it.
    """
    there = [each for each, tags in (("coarse", COARSE), ("fine", FINE)) if set(tags) - set(predictions.missing)]
    levels = [each for each in LEVELS if (each in there if level is None else each == level)]
    return SonycEvaluation(scored, tuple(measure(truth, predictions, each) for each in levels))


@dataclass(frozen=True)
class WhileTraining:
    """The official measure of a model at one level, in numbers with names of their own for the log of a training."""

    truth: Truth
    classes: tuple[str, ...]
    level: Level

    def require(self, files: Sequence[str]) -> None:
        """Refuse what can never be measured, before any training.

        :param files: the clips whose audio is there.
        :raises SourceError: a verified clip is not among them, or no class is of the level.
        """
        if not set(self.classes) & set(FINE if self.level == "fine" else (*COARSE, *FINE)):
            raise SourceError(
                f"none of the {len(self.classes)} classes, as {self.classes[0]!r}, is one of SONYC-UST's {self.level} "
                "ones, so the official measure would be 0; "
                + ("give --level coarse" if self.level == "fine" else "leave --eval-measure out")
            )
        there = set(files)
        absent = [name for name in self.truth.files if name not in there]
        if absent:
            raise SourceError(
                f"{len(absent):,} of the {len(self.truth.files):,} verified clips of the split {self.truth.split} have "
                f"no audio that can be read, as {absent[0]!r}; the official measure needs all of them"
            )

    def __call__(self, files: Sequence[str], scores: F32) -> dict[str, Any]:
        """Of the scores float32 (n, C) of clips.

        :raises SourceError: a verified clip is not among them.
        """
        said = predictions_of(files, self.classes, scores.astype(np.float64), derive=True)
        found = measure(self.truth, said.only(self.truth.files), self.level)
        return {
            "sonyc_micro_auprc": found.micro.auprc,
            "sonyc_macro_auprc": found.macro.auprc,
            "sonyc_micro_f1": found.micro_f1,
            "sonyc_level": self.level,
            "sonyc_clips": found.clips,
        }


def unknown(uncertain: Sequence[Sequence[str]], classes: Sequence[str]) -> Bool:
    """Which fine classes nobody could tell, bool (n, C): all of a coarse class whose X is among a clip's.

    :param uncertain: the X tags of each of n clips.
    """
    of = {each.uncertain: {at for at, name in enumerate(classes) if name in each.tags} for each in TAXONOMY}
    found = np.zeros((len(uncertain), len(classes)), dtype=np.bool_)
    for row, tags in enumerate(uncertain):
        found[row, sorted(at for tag in tags for at in of[tag])] = True
    return found


def read_truth(path: str, split: str, *, told: bool = True) -> Truth:
    """The agreed labels of a split, of an ``annotations.csv``.

    :param told: whether what is odd in it is said.
    :raises SourceError: see :func:`logitstore.audio.sonyc.read_annotations`; no agreed row in the split.
    """
    of = read_annotations(path)
    for line in of.notes if told else ():
        note(f"{path}: {line}")
    return truth_of(of, split, path)


def truth_of(of: Annotations, split: str, what: str) -> Truth:
    """The agreed labels of a split. :param what: how messages call the annotations."""
    rows = np.flatnonzero((of.annotators == 0) & np.array([each == split for each in of.splits]))
    files = tuple(of.files[row] for row in rows.tolist())
    if not files:
        raise SourceError(f"{what}: no agreed row (annotator_id 0) in the split {split}; --split names another")
    twice = _twice(files)
    if twice is not None:
        raise SourceError(f"{what}: {twice} has several agreed rows (annotator_id 0); keep one")
    return Truth(files, of.present[rows], split)


def read_predictions(path: str) -> Predictions:
    """A file in the task's submission format: ``audio_filename`` and a column of scores for each tag.

    A tag without a column has the score 0 everywhere, as in the original code; see ``missing``.

    :raises SourceError: no such file, no tag at all, a clip twice, a score that is not in [0, 1].
    """
    rows = read_table(path, "predictions")
    names = rows.table.column_names
    files = tuple(rows.table.column(FILE).to_pylist())
    twice = _twice(files)
    if twice is not None:
        raise SourceError(f"{path}: {twice} is there twice; a clip has one row")
    known = [name for name in (*TAGS, *COARSE) if name in names]
    if not known:
        raise SourceError(
            f"{path}: none of the columns is a tag of SONYC-UST, as {TAGS[0]!r} or {COARSE[0]!r}; write predictions in "
            "the task's submission format"
        )
    others = [name for name in names if name not in (*TAGS, *COARSE, FILE)]
    if others:
        note(f"{path}: {len(others)} columns are no tags and are not read, as {others[0]!r}")
    scores = {name: numbers(rows, name) for name in known}
    for name, values in scores.items():
        wrong = (values < 0) | (values > 1)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise SourceError(f"{rows.where(row)}: {name} is {values[row].item()!r}; a score lies in [0, 1]")
    return predictions_of(files, known, np.stack([scores[name] for name in known], axis=1))


def predictions_of(files: Sequence[str], classes: Sequence[str], scores: F64, *, derive: bool = False) -> Predictions:
    """Scores (n, C) of any of the tags as predictions.

    :param derive: coarse scores are the largest of their fine ones where no coarse class is among ``classes``.
    """
    place = {name: at for at, name in enumerate(classes)}

    def columns(names: Sequence[str]) -> F64:
        made = np.zeros((len(files), len(names)), dtype=np.float64)
        for at, name in enumerate(names):
            if name in place:
                made[:, at] = scores[:, place[name]]
        return made

    fine, coarse = columns(TAGS), columns(COARSE)
    missing = [name for name in (*TAGS, *COARSE) if name not in place]
    if derive and not any(name in place for name in COARSE):
        coarse = np.stack([fine[:, each == COARSE_OF].max(axis=1) for each in range(len(COARSE))], axis=1)
        missing = [name for name in missing if name in TAGS]
    return Predictions(tuple(files), fine, coarse, tuple(missing))


def as_text(predictions: Predictions, *, header: bool = True) -> str:
    """Predictions in the task's submission format: ``audio_filename``, 29 fine columns, 8 coarse ones."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow((FILE, *TAGS, *COARSE))
    for file, fine, coarse in zip(predictions.files, predictions.fine, predictions.coarse, strict=True):
        writer.writerow((file, *(f"{each:.9g}" for each in (*fine.tolist(), *coarse.tolist()))))
    return text.getvalue()


def write_predictions(predictions: Predictions, path: str) -> None:
    """Write a file of :func:`as_text`.

    :raises OutputError: it cannot be written.
    """
    with open_out(path, "--write-predictions") as out:
        out.write(as_text(predictions).encode("utf-8", "surrogateescape"))


def measure(truth: Truth, predictions: Predictions, level: Level) -> SonycMetrics:
    """The official measure of predictions at a level.

    :raises SourceError: the clips of the two are not the same.
    """
    place = _same(truth, predictions)
    fine, coarse = predictions.fine[place], predictions.coarse[place]
    there = coarse_of(truth.tags)
    if level == "coarse":
        _say_missing(predictions, COARSE, level)
        curves = [coarse_curve(there[:, each], coarse[:, each]) for each in range(len(COARSE))]
        labels, scores, ranked = there, coarse, coarse
        every = labels
    else:
        _say_missing(predictions, TAGS, level)
        curves = [
            fine_curve(
                truth.tags[:, each == COARSE_OF], fine[:, each == COARSE_OF], TAXONOMY[each].uncertain is not None
            )
            for each in range(len(COARSE))
        ]
        labels, scores = truth.tags[:, ~IS_UNCERTAIN], fine[:, ~IS_UNCERTAIN]
        every, ranked = truth.tags, fine
    whole = micro_curve(curves)
    positives = there.sum(axis=0).tolist()
    found = [
        ClassAreas(name, count, area(curve, rising=False))
        for name, count, curve in zip(COARSE, positives, curves, strict=True)
    ]
    middle = Area(*(float(np.mean([getattr(each.area, name) for each in found])) for name in Area.__annotations__))
    f1, at = f1_at(whole)
    ap_micro, ap_macro = _average_precision(labels, scores)
    small = (lwlrap(labels, scores), lwlrap(labels, scores, together=True)) if level == "fine" else (None, None)
    return SonycMetrics(
        level, truth.split, len(truth.files), area(whole, rising=True), middle, tuple(found), f1, at,
        tuple(each.name for each in found if not each.positives), ap_micro, ap_macro, lwlrap(every, ranked),
        lwlrap(every, ranked, together=True), *small,
    )  # fmt: skip


def coarse_curve(true: Bool, scores: F64) -> Curve:
    """The counts of one coarse class. :param true: (n,). :param scores: (n,)."""
    return fine_curve(true[:, None], scores[:, None], uncertain=False)


def fine_curve(true: Bool, scores: F64, uncertain: bool) -> Curve:
    """The counts of one coarse class over its fine tags (n, K), X last where ``uncertain``.

    Every count is a sum over clips of whether some score of the clip reaches the threshold, so that all thresholds are
    counted by sorting: "any of them" is the largest score, "all of them" the smallest.
    """
    own = true.shape[1] - uncertain
    t, s = true[:, :own], scores[:, :own]
    unsure, x = (true[:, own], scores[:, own]) if uncertain else (np.zeros(len(true), np.bool_), np.zeros(len(true)))
    thresholds = np.unique(np.append(s[s >= LEAST_THRESHOLD], 1.0))
    highest = np.maximum(s.max(axis=1), x)
    hit = np.where(t, s, -np.inf).max(axis=1)  # the largest score of a tag that is true

    def reached(values: F64) -> I64:
        """How many values are at least each threshold."""
        return len(values) - np.searchsorted(np.sort(values), thresholds, side="left")

    none = ~t.any(axis=1)
    true_ones, only_x, nothing = s[t], highest[unsure & none], none & ~unsure
    tp = reached(true_ones) + reached(highest[unsure]) - reached(hit[unsure])
    fp = reached(s[~t & ~unsure[:, None]])
    if uncertain:  # X alone, where nothing is true: an alarm of its own unless all fine tags are alarms already
        fp = fp + reached(x[nothing]) - reached(np.minimum(s.min(axis=1), x)[nothing])
    fn = len(true_ones) - reached(true_ones) + len(only_x) - reached(only_x)
    return Curve(thresholds, tp, fp, fn)


def micro_curve(curves: Sequence[Curve]) -> Curve:
    """Counts summed over classes at every threshold of any; a class gives those of its next threshold at or above."""
    thresholds = np.unique(np.concatenate([each.thresholds for each in curves]))
    sums = np.zeros((3, len(thresholds)), dtype=np.int64)
    for each in curves:
        sums += np.stack([each.tp, each.fp, each.fn])[:, np.searchsorted(each.thresholds, thresholds)]
    return Curve(thresholds, *sums)


def area(curve: Curve, *, rising: bool) -> Area:
    """The trapezoidal area under precision over recall, from (0, 1) to (1, 0).

    :param rising: whether points of equal recall come by rising thresholds (the micro curve) or by falling ones.
    """
    recall, precision = curve.recall, curve.precision
    if not rising:
        recall, precision = recall[::-1], precision[::-1]
    order = np.argsort(recall, kind="stable")
    recall, precision = recall[order], precision[order]
    xs, ys = np.concatenate([[0.0], recall, [1.0]]), np.concatenate([[1.0], precision, [0.0]])
    stable = float(np.sum(np.diff(xs) * (ys[1:] + ys[:-1]) / 2))
    # Of points of equal recall only the first and the last matter: they meet the neighbours on either side.
    starts = np.flatnonzero(np.append(True, np.diff(recall) > 0))
    at = recall[starts]
    before = np.diff(at, prepend=0.0)
    after = np.diff(at, append=1.0)
    ends = before[0] / 2  # half of the way from (0, 1), at its precision of 1; (1, 0) gives nothing
    bounds = []
    for sign in (-1, 1):
        total = 0.0
        for group, (left, right) in zip(
            np.split(sign * precision, starts[1:]), zip(before, after, strict=True), strict=True
        ):
            best = np.sort(group)[::-1][:2]
            one, other = best[0], best[-1]
            total += max(left * one + right * other, left * other + right * one) / 2
        bounds.append(float(sign * total + ends))
    return Area(stable, *bounds)


def f1_at(curve: Curve, least: float = _F1_AT) -> tuple[float, float]:
    """F1 at the smallest threshold that is at least ``least``, and that threshold."""
    at = int(np.searchsorted(curve.thresholds, least))
    precision, recall = float(curve.precision[at]), float(curve.recall[at])
    f1 = 2 / (1 / precision + 1 / recall) if precision > 0 and recall > 0 else 0.0
    return f1, float(curve.thresholds[at])


def lwlrap(labels: Bool, scores: F64, *, together: bool = False) -> float | None:
    """Label-weighted label-ranking average precision of scores (n, C) against labels bool (n, C); None without any.

    The mean over all true labels of: true labels at or above its rank in its clip, over the rank.

    :param together: columns of equal score all rank as the last of them; else the last column is the first in rank.
    """
    clips, columns = np.nonzero(labels)
    if not len(clips):
        return None
    own = scores[clips, columns][:, None]
    above = scores[clips] >= own if together else scores[clips] > own
    if not together:
        above |= (scores[clips] == own) & (np.arange(labels.shape[1]) >= columns[:, None])
    return float(np.mean((above & labels[clips]).sum(axis=1) / above.sum(axis=1)))


def _average_precision(labels: Bool, scores: F64) -> tuple[float | None, float | None]:
    if not labels.any():
        return None, None
    from logitstore.evaluation.metrics import areas

    macro, micro = areas(labels, scores)
    return micro, macro


def _same(truth: Truth, predictions: Predictions) -> I64:
    """Where each clip of the truth is among the predictions."""
    place = {name: at for at, name in enumerate(predictions.files)}
    absent = [name for name in truth.files if name not in place]
    more = sorted(set(predictions.files) - set(truth.files))
    if absent or more:
        said = [
            f"{len(names):,} {what}, as {names[0]!r}"
            for names, what in ((absent, "have no prediction"), (more, "are predicted and not among them"))
            if names
        ]
        raise SourceError(
            f"the clips of the predictions are not the {len(truth.files):,} verified ones of the split {truth.split}: "
            f"{'; '.join(said)}; the official measure needs just these"
        )
    return np.array([place[name] for name in truth.files], dtype=np.int64)


def _say_missing(predictions: Predictions, wanted: Sequence[str], level: str) -> None:
    missing = [name for name in wanted if name in predictions.missing]
    if missing:
        shown = ", ".join(missing[:_MOST_NAMED]) + (", …" if len(missing) > _MOST_NAMED else "")
        note(f"{len(missing)} of {len(wanted)} {level} tags are not predicted and count as 0 throughout: {shown}")


def _twice(names: Sequence[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
