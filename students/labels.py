"""Labels of a store's own clips, for the clips that have some, from a column of its clip table."""

from __future__ import annotations

import numpy as np

from logitstore.arrays import F32, I64, Bool
from logitstore.digests import digest
from logitstore.errors import RunError, SourceError
from logitstore.evaluation.cells import read_cells
from logitstore.evaluation.labelled import label_matrix
from logitstore.evaluation.sonyc import unknown as unknown_classes
from logitstore.notes import note
from logitstore.store.reader import Store
from logitstore.store.verdicts import corrected_cells

_UNLABELLED = -1
_UNCERTAIN = "uncertain"


class ClipLabels:
    """Labels by clip: ``labels(clips)`` gives float32 (B, C), and bool (B,), which clips have labels.

    :param codes: int64, for every clip which of the sets it has, -1 where it has no labels.
    :param sets: bool (S, C), the distinct sets of classes. :param unknown: bool (S, C), classes of which a set says
        nothing, whose labels are -1; none by default.
    :param shared: whether the classes of a clip share 1 among them, as softmax scores do; otherwise each has 1.
    """

    def __init__(self, codes: I64, sets: Bool, *, shared: bool = False, unknown: Bool | None = None) -> None:
        self.codes, self.sets, self.shared = codes, sets, shared
        self.unknown = None if unknown is None or not unknown.any() else unknown

    @property
    def digest(self) -> str:
        """BLAKE2b-128, hex, of the labels of all clips."""
        unknown = b"" if self.unknown is None else self.unknown.tobytes()
        return digest(self.codes.astype("<i8").tobytes() + self.sets.tobytes() + unknown)

    def __call__(self, clips: I64) -> tuple[F32, Bool]:
        codes = self.codes[clips]
        labelled = codes != _UNLABELLED
        labels = (self.sets[codes] & labelled[:, None]).astype(np.float32)
        if self.shared:
            labels /= np.maximum(labels.sum(axis=1, keepdims=True), 1)
        if self.unknown is not None:
            labels[self.unknown[codes] & labelled[:, None]] = -1
        return labels, labelled


def clip_labels(
    store: Store, column: str, separator: str | None = None, verdicts: str | None = None, *, masked: bool = False
) -> ClipLabels:
    """The labels in a column of a store's clip table, as :func:`logitstore.evaluation.cells.read_cells` reads them.

    A cell that is NULL (or NaN) says nothing of the clip. An empty one says that it has none of the classes, as for
    ``train-teacher`` and ``evaluate``; a CSV's empty cells are NULL in a column of numbers and empty in one of text.
    The clips that a longer file was cut into all have its labels.

    :param verdicts: a file of verdicts that correct them.
    :param masked: whether the column ``uncertain``, SONYC-UST's X, says of which fine classes nothing is known.
    :raises SourceError: no such column. :raises TeacherError: a label that is none of the store's classes.
    :raises RunError: no clip has labels; or one has none of the classes, or an X, and the teachers give softmax scores.
    """
    if column not in store.clips.column_names:
        raise SourceError(
            f"the clips of {store.location} have no column {column!r} to take labels from; found "
            f"{', '.join(map(repr, store.clips.column_names))}; name one with --label-column"
        )
    if masked and _UNCERTAIN not in store.clips.column_names:
        raise SourceError(
            f"the clips of {store.location} have no column {_UNCERTAIN!r}, so they are not those of SONYC-UST's "
            "annotations.csv; give --label-column instead of --labels sonyc"
        )
    numbers: dict[tuple[tuple[str, ...], tuple[str, ...]], int] = {}
    uncertain = store.clips[_UNCERTAIN].to_pylist() if masked else []
    codes = np.full(store.clips.num_rows, _UNLABELLED, dtype=np.int64)
    told = store.clips[column].to_pylist()
    if verdicts is not None:
        told = corrected_cells(store, told, verdicts)
    cells = read_cells(
        told, column=column, source=f"the store {store.location}", separator=separator,
        classes=store.manifest.classes,
    )  # fmt: skip
    for clip, names in enumerate(cells.labels):
        if names is None:
            continue
        if not names and store.manifest.scores == "softmax":
            path = store.clips["path"][clip].as_py()
            raise RunError(
                f"clip {clip} ({path}) has an empty cell in the column {column!r}, and softmax scores need a class; "
                "make it NULL where nothing is known of the clip"
            )
        codes[clip] = numbers.setdefault((names, tuple(uncertain[clip] or ()) if masked else ()), len(numbers))
    if not numbers:
        raise RunError(
            f"no clip of {store.location} has labels in the column {column!r}, it is all NULL; leave --label-weight out"
        )
    unknown, empty = int((codes == _UNLABELLED).sum()), cells.empty - int((codes == _UNLABELLED).sum())
    if unknown or empty:
        note(
            f"the store {store.location}: of {len(codes)} clips, {unknown} have no label in the column {column!r} "
            f"(NULL) and add nothing to the loss; {empty} have an empty cell, which says none of the classes"
        )
    sets = label_matrix(
        [names for names, _ in numbers],
        store.manifest.classes,
        whose=f"the store {store.location}",
        source=f"the column {column!r}",
    )
    hidden = unknown_classes([tags for _, tags in numbers], store.manifest.classes) if masked else None
    if hidden is not None and hidden.any() and store.manifest.scores == "softmax":
        clip = int(np.flatnonzero(np.isin(codes, np.flatnonzero(hidden.any(axis=1))))[0])
        raise RunError(
            f"clip {clip} ({store.clips['path'][clip].as_py()}) has an X, so nothing is known of some of its classes, "
            "and softmax scores need to know of all; leave the labels out of the loss: --label-weight, or --term labels"
        )
    return ClipLabels(codes, sets, shared=store.manifest.scores == "softmax", unknown=hidden)
