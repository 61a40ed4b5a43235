"""What an evaluation found, as plain values and as CSV files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from logitstore import notebook
from logitstore.audio.sonyc import COARSE
from logitstore.errors import UsageError
from logitstore.evaluation.mapping import MapUse
from logitstore.evaluation.metrics import Metrics
from logitstore.evaluation.sonyc import SonycEvaluation
from logitstore.evaluation.stored import StoredScores
from logitstore.files import open_out
from logitstore.texts import csv_line

ENSEMBLE = "ensemble"
_SHOWN = 10  # classes, in a notebook

_NUMBERS = (
    *("rows", "classes", "left_out", "mAP", "micro_auprc", "macro_auprc", "mean_auc"),
    *("d_prime", "d_prime_of_mean_auc", "d_prime_clipped"),
)
_OF_CLASS = ("positives", "average_precision", "auc", "d_prime", "mean_score", "best_f1", "threshold")
_OF_BIN = ("low", "high", "count", "mean_score", "positive_share")
_OF_SONYC = ("micro_auprc", "macro_auprc", "micro_f1")
_OF_VIEW = ("view", "rows", "mAP", "micro_auprc")


@dataclass(frozen=True, kw_only=True, repr=False)
class Evaluation:
    """Metrics of every member by its spec, of the ensemble where there are several, of a store's targets where asked.

    ``classes`` are the names behind the indices of ``Metrics.by_class``: the labels, where there was a ``map``.
    ``sonyc`` is the official measure of SONYC-UST, where it was asked for: of the ensemble first, then of its members.
    """

    members: tuple[tuple[str, Metrics], ...]
    ensemble: Metrics | None
    stored: StoredScores | None
    classes: tuple[str, ...]
    rows: int
    clips: int
    clip_seconds: float
    sample_rate: int
    failures: tuple[tuple[str, str], ...]
    map: MapUse | None = None
    sonyc: tuple[SonycEvaluation, ...] = ()

    def named(self) -> list[tuple[str, Metrics]]:
        """Everything that was scored, each with what to call it: members, ensemble, store."""
        found = list(self.members)
        if self.ensemble is not None:
            found.append((ENSEMBLE, self.ensemble))
        if self.stored is not None:
            found.append((f"targets of {self.stored.store}", self.stored.metrics))
        return found

    def by_class(self, metrics: Metrics) -> list[dict[str, Any]]:
        """The classes that have positives, each as ``class`` and the fields of ``ClassMetrics`` but its index."""
        return [
            {"class": self.classes[each.index]} | {name: getattr(each, name) for name in _OF_CLASS}
            for each in metrics.by_class
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        stored = self.stored
        return {
            "members": [{"teacher": spec} | self._all(metrics) for spec, metrics in self.members],
            "ensemble": None if self.ensemble is None else self._all(self.ensemble),
            "stored": None if stored is None else stored.to_dict() | {"metrics": self._all(stored.metrics)},
            "rows": self.rows,
            "clips": self.clips,
            "clip_seconds": self.clip_seconds,
            "sample_rate": self.sample_rate,
            "failures": [{"path": path, "reason": reason} for path, reason in self.failures],
            "map": None if self.map is None else asdict(self.map),
            "sonyc": [each.to_dict() for each in self.sonyc] or None,
        }

    def __repr__(self) -> str:
        scored = ", ".join(f"{name} mAP {_short(metrics.mAP)}" for name, metrics in self.named())
        return f"<Evaluation on {self.rows:,} rows, {len(self.classes):,} classes: {scored}>"

    def _repr_html_(self) -> str:
        named = self.named()
        rows = [
            (
                name,
                metrics.mAP or 0.0,
                [_short(each) for each in (metrics.mAP, metrics.micro_auprc, metrics.mean_auc, metrics.d_prime)]
                + [_short(metrics.calibration.ece)],
            )
            for name, metrics in named
        ]
        name, metrics = named[-1]
        classes = sorted(self.by_class(metrics), key=lambda row: (row["average_precision"], row["class"]))[:_SHOWN]
        least = [
            (row["class"], row["average_precision"], [_short(row["average_precision"]), f"{row['positives']:,}"])
            for row in classes
        ]
        return notebook.card(
            "evaluation",
            notebook.note(
                f"{self.rows:,} labelled rows in {self.clips:,} clips of {self.clip_seconds:g} s; "
                f"{len(self.classes):,} classes"
            ),
            notebook.bars(rows, ("", "mAP", "", "micro AUPRC", "AUC", "d-prime", "ECE")),
            notebook.bars(least, (f"hardest for {name}", "average precision", "", "positives")),
            notebook.note(f"{len(self.failures):,} clips could not be decoded") if self.failures else "",
        )

    def _all(self, metrics: Metrics) -> dict[str, Any]:
        return metrics.to_dict() | {"by_class": self.by_class(metrics)}


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def write_csv(found: Evaluation, folder: str, *, spreadsheet: bool = False) -> list[str]:
    """``metrics.csv``, ``classes.csv`` and ``calibration.csv``; files there are replaced.

    Of a store there is ``views.csv`` too, of SONYC-UST's official measure ``sonyc.csv``. The first column of each but
    ``views.csv`` says what was scored. An undefined number is an empty cell.

    :param folder: made by :func:`make_folder`. :param spreadsheet: mark the cells that a spreadsheet would run.
    :returns: the names of the files.
    :raises UsageError: the folder cannot be written. :raises OutputError: nor can a file, to its end.
    """
    named = found.named()
    tables: dict[str, tuple[Sequence[str], Iterable[Sequence[Any]]]] = {
        "metrics.csv": (("scored", *_NUMBERS, "ece", "brier"), _metric_rows(named)),
        "classes.csv": (("scored", "class", *_OF_CLASS), _class_rows(found, named)),
        "calibration.csv": (("scored", *_OF_BIN), _bin_rows(named)),
    }
    if found.stored is not None:
        views = found.stored.views
        tables["views.csv"] = (_OF_VIEW, [[getattr(view, name) for name in _OF_VIEW] for view in views])
    if found.sonyc:
        tables["sonyc.csv"] = (("scored", "level", *_OF_SONYC, *COARSE), _sonyc_rows(found))
    for name, (header, rows) in tables.items():
        with open_out(Path(folder) / name, "--csv") as file:
            for row in (header, *rows):
                cells = ["" if cell is None else str(cell) for cell in row]
                numbers = [not isinstance(cell, str) for cell in row]
                line = csv_line(cells, numbers=numbers, spreadsheet=spreadsheet)
                file.write(line.encode("utf-8", "surrogateescape"))
    return list(tables)


def make_folder(folder: str) -> None:
    """Make the folder of the CSV files, before the work that they report.

    :raises UsageError: it cannot be made.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _refused(folder, error) from None


def _refused(folder: str, error: OSError) -> UsageError:
    return UsageError(f"--csv {folder} cannot be written: {error.strerror or error}; give another folder")


def _sonyc_rows(found: Evaluation) -> Iterator[list[Any]]:
    """The official measure, a row for each level: its means, its F1, and the area of every coarse class."""
    for each in found.sonyc:
        for of in each.levels:
            numbers = [of.micro.auprc, of.macro.auprc, of.micro_f1]
            yield [each.scored, of.level, *numbers, *(one.area.auprc for one in of.by_class)]


def _metric_rows(named: list[tuple[str, Metrics]]) -> Iterator[list[Any]]:
    for name, metrics in named:
        numbers = [getattr(metrics, number) for number in _NUMBERS]
        yield [name, *numbers, metrics.calibration.ece, metrics.calibration.brier]


def _class_rows(found: Evaluation, named: list[tuple[str, Metrics]]) -> Iterator[list[Any]]:
    for name, metrics in named:
        for row in found.by_class(metrics):
            yield [name, *row.values()]


def _bin_rows(named: list[tuple[str, Metrics]]) -> Iterator[list[Any]]:
    for name, metrics in named:
        for each in metrics.calibration.bins:
            yield [name, *asdict(each).values()]
