"""Whether a source has the audio of clips that it was not asked to list."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from logitstore.audio.audiofile import frame_count
from logitstore.errors import AudioError

if TYPE_CHECKING:
    import pyarrow as pa

    from logitstore.audio.source import Source

_CHUNK = 1024


def holds(source: Source, clips: pa.Table, workers: int) -> bool:
    """Whether a source has every file of a clip table, each of its rate and long enough, by their headers alone.

    Clips whose file could not be read when they were scanned do not count.
    """
    stops = np.asarray(clips["start"].to_numpy()) + np.asarray(clips["length"].to_numpy())
    wanted: dict[str, tuple[int, int]] = {}
    for path, rate, stop in zip(clips["path"].to_pylist(), clips["rate"].to_pylist(), stops.tolist(), strict=True):
        if rate:
            wanted[path] = (rate, max(stop, wanted.get(path, (0, 0))[1]))

    def fits(path: str) -> bool:
        try:
            frames, rate = frame_count(source.read(path))
        except AudioError:
            return False
        return rate == wanted[path][0] and frames >= wanted[path][1]

    paths = list(wanted)
    with ThreadPoolExecutor(max(1, workers)) as pool:
        return all(all(pool.map(fits, paths[low : low + _CHUNK])) for low in range(0, len(paths), _CHUNK))
