"""AudioSet's lists of segments as they are published: YTID, start_seconds, end_seconds, positive_labels.

A file of the audio root belongs to a segment if it is called by the video's id, as ``YTID.wav``, or ``YYTID.wav``, or
by the id and the start of the segment in seconds or milliseconds, as ``YTID_30.000.wav`` or ``YTID_30000.wav``.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from logitstore.audio.stems import Stems

if TYPE_CHECKING:
    import pyarrow as pa

    from logitstore.audio.source import Reading

ID, LABELS = "YTID", "positive_labels"


def is_list(reading: Reading) -> bool:
    """Whether a table that was read is a list of AudioSet's segments."""
    return reading.used.get("path", "").upper() == ID


def with_lists(table: pa.Table) -> pa.Table:
    """The table with the labels of each segment as a list of MIDs, where it is a list of AudioSet's segments."""
    import pyarrow as pa
    import pyarrow.compute as pc

    names = table.column_names
    if LABELS not in names or not any(name.upper() == ID for name in names):
        return table
    cells = table.column(LABELS)
    if not pa.types.is_string(cells.type):
        return table
    split = pc.split_pattern_regex(pc.utf8_trim_whitespace(cells), r"\s*,\s*")
    return table.set_column(names.index(LABELS), LABELS, split)


def find(ids: list[str], starts: list[float], ends: list[float], stems: Stems, reading: Reading) -> list[str]:
    """The file of every segment; where there is none, the id with the ending that most files have, which will fail.

    :param starts, ends: of the segments in seconds.
    """
    found, absent = [], 0
    for video, start, end in zip(ids, starts, ends, strict=True):
        key = next((key for name in _names(video, start, end) if (key := stems.find(name)) is not None), None)
        absent += key is None
        found.append(key)
    if absent:
        reading.notes.append(f"{absent} of {len(ids)} segments have no file in the audio root, and will be failures")
    endings = [posixpath.splitext(key)[1] for key in found if key is not None]
    usual = max(sorted(set(endings)), key=endings.count) if endings else ".wav"
    return [f"{video}{usual}" if key is None else key for video, key in zip(ids, found, strict=True)]


def _names(video: str, start: float, end: float) -> list[str]:
    """What a segment's file may be called, without its ending."""
    times = [(f"{at:g}", f"{at:.1f}", f"{at:.3f}", f"{at * 1000:.0f}") for at in (start, end)]
    spans = [f"{video}_{first}" for first in times[0]] + [
        f"{video}_{first}_{last}" for first, last in zip(*times, strict=True)
    ]
    return [video, *spans, f"Y{video}", *(f"Y{span}" for span in spans)]
