"""Any labelled manifest as a data set of the ablation."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from benchmarks.folds import Data
from logitstore.audio.manifest import read_manifest
from logitstore.errors import SourceError

HASHED_FOLDS = 5
MAIN_WIDTH = 8


def own_data(
    manifest: str,
    audio_root: str | None,
    label_column: str,
    fold_column: str | None,
    clip_seconds: float,
    out: Path,
) -> Data:
    """A copy of a manifest under ``out/data`` with the columns that the ablation knows.

    :param fold_column: where it is None, the fold of a row is a hash of its path: equal paths fall into one fold.
    :raises SourceError: no such column, no audio root, or a row without a fold.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if audio_root is None:
        raise SourceError(f"{manifest}: give --audio-root, the folder that its paths are relative to")
    table = read_manifest(Path(manifest))
    for column in (label_column, *([fold_column] if fold_column else [])):
        if column not in table.column_names:
            raise SourceError(f"{manifest}: no column {column!r}; it has {', '.join(table.column_names)}")
    paths = table["path"].to_pylist()
    folds = (
        [_hashed(path) for path in paths] if fold_column is None else [str(f) for f in table[fold_column].to_pylist()]
    )
    if "None" in folds:
        raise SourceError(f"{manifest}, line {folds.index('None') + 2}: no fold; fill the column {fold_column!r}")
    kept = [name for name in ("path", "start", "duration") if name in table.column_names]
    columns = {name: table[name] for name in kept} | {"label": table[label_column], "fold": folds}
    (out / "data").mkdir(parents=True, exist_ok=True)
    written = out / "data" / "manifest.parquet"
    pq.write_table(pa.table(columns | {"number": np.arange(len(paths))}), written)
    return Data("data", str(written), audio_root, tuple(sorted(set(folds))), clip_seconds, MAIN_WIDTH)


def _hashed(path: str) -> str:
    digest = hashlib.blake2b(path.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return str(1 + int.from_bytes(digest, "little") % HASHED_FOLDS)
