"""How loud the clips are: a table that is decoded from the audio itself, where a store was opened with it.

=============  ==================================================================================================
column         of the clip's own samples, at the store's rate, before any padding or augmentation
=============  ==================================================================================================
clip           its number
peak_db        the largest sample, in dB below full scale (dBFS): 0 where it is 1 or -1
rms_db         the root of the mean square, dBFS: 0 of a full-scale square wave, -3 of a sine
silent_share   share of its windows of 10 ms, the last one shorter, whose rms is below -60 dBFS
clipped_share  share of its samples at 0.999 of full scale or beyond
audio_digest   a digest of the samples: two clips that share one sound alike to the last bit
unreadable     why it could not be decoded, and then the others are NULL; else NULL
=============  ==================================================================================================

Nothing is below -150 dBFS: digital silence is there. A query decodes the clips that its condition on ``clip`` leaves,
by groups of 64.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from logitstore.arrays import F32
from logitstore.digests import digest
from logitstore.errors import AudioError
from logitstore.store.sql.lazy import LazyTable, TablePart

if TYPE_CHECKING:
    from logitstore.store.pieces import Pieces

_FLOOR_DB, _SILENT_DB, _CLIPPED = -150.0, -60.0, 0.999
_GROUP = 64  # clips that are decoded as a whole
_MEASURES = {
    "peak_db": pa.float64(), "rms_db": pa.float64(), "silent_share": pa.float64(), "clipped_share": pa.float64(),
    "audio_digest": pa.string(),
}  # fmt: skip
_SCHEMA = pa.schema([("clip", pa.int64()), *_MEASURES.items(), ("unreadable", pa.string())])


def levels_table(store: Pieces) -> LazyTable:
    """The table of a store that was opened with its audio.

    :raises UsageError: another number of audio roots than one, or one for each piece.
    """
    count = int(store.offsets[-1])
    parts = []
    for first in range(0, count, _GROUP):
        stop = min(first + _GROUP, count)
        decode, name = _of_clips(store, first, stop), f"clips {first:,} to {stop - 1:,}"
        parts.append(TablePart({"clip": (first, stop)}, stop - first, decode, name))
    return LazyTable(_SCHEMA, parts)


def _of_clips(store: Pieces, first: int, stop: int) -> Callable[[Set[str]], pa.Table]:
    def decode(columns: Set[str]) -> pa.Table:
        wanted = [field for field in _SCHEMA if field.name in columns]
        rows = [{"clip": clip} | (_of_clip(store, clip) if columns - {"clip"} else {}) for clip in range(first, stop)]
        return pa.Table.from_pylist(rows, schema=pa.schema(wanted))

    return decode


def _of_clip(store: Pieces, clip: int) -> dict[str, Any]:
    assert store.audio is not None
    try:
        samples = store.audio[clip]
    except AudioError as error:
        return {"unreadable": str(error)}
    return measured(samples, store.manifest.sample_rate)


def measured(samples: F32, rate: int) -> dict[str, Any]:
    """The measures of a clip's samples, float32 (n,), at a rate in Hz, by the names of the columns."""
    size = np.abs(samples.astype(np.float64))
    squares = np.square(size)
    window = max(1, rate // 100)
    starts = np.arange(0, len(samples), window)
    each = np.add.reduceat(squares, starts) / np.diff(starts, append=len(samples)) if len(starts) else np.zeros(1)
    return {
        "peak_db": _db(size.max(initial=0.0)),
        "rms_db": _db(np.sqrt(squares.mean())) if len(squares) else _FLOOR_DB,
        "silent_share": float((each < 10 ** (_SILENT_DB / 10)).mean()),
        "clipped_share": float((size >= _CLIPPED).mean()) if len(size) else 0.0,
        "audio_digest": digest(np.ascontiguousarray(samples).tobytes()),
    }


def _db(amplitude: float) -> float:
    return max(_FLOOR_DB, 20 * float(np.log10(max(amplitude, 1e-30))))
