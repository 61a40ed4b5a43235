"""Small folders of files as CED's ``save_logits.py`` writes them, and the audio that they are of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

RATE = 16_000
CLASSES = 30
K = 5


@dataclass
class Row:
    """One row of an epoch."""

    name: str
    start: float
    end: float
    classes: npt.NDArray[np.int16]
    values: npt.NDArray[np.float16]
    seed: int

    @property
    def clip(self) -> tuple[str, float]:
        return self.name, self.start


def write_wav(path: Path, samples: int, rate: int = RATE, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = 0.1 * np.random.default_rng(seed).standard_normal(samples)
    soundfile.write(path, noise.astype(np.float32), rate, subtype="PCM_16")


def make_rows(clips: Sequence[tuple[str, float, float]], epochs: int = 2, seed: int = 5) -> list[list[Row]]:
    """Rows of all epochs: every clip, as (name, start, end) in seconds, once in each."""
    rng = np.random.default_rng(seed)
    return [
        [
            Row(
                name, start, end,
                rng.permutation(CLASSES)[:K].astype(np.int16),
                np.sort(rng.uniform(0.01, 0.99, K).astype(np.float16))[::-1],
                int(rng.integers(0, 1 << 31)),
            )
            for name, start, end in clips
        ]
        for _ in range(epochs)
    ]  # fmt: skip


def write_ced(folder: Path, epochs: Sequence[Sequence[Row]], ranks: int = 1) -> Path:
    """Write rows as they stand, dealt out to ranks in pieces."""
    folder.mkdir(parents=True, exist_ok=True)
    for epoch, rows in enumerate(epochs, start=1):
        for rank, part in enumerate(np.array_split(np.arange(len(rows)), ranks)):
            write_rank(folder / f"logits_ep{epoch}_{rank}", [rows[i] for i in part])
    return folder


def write_rank(stem: Path, rows: Sequence[Row]) -> None:
    k = len(rows[0].values)
    with h5py.File(stem.with_name(stem.name + ".h5"), "w") as file:
        for name, kind, values in (
            ("topk_values", np.float16, [row.values for row in rows]),
            ("topk_indexes", np.int16, [row.classes for row in rows]),
            ("seeds", np.int32, [row.seed for row in rows]),
        ):
            shape = (None,) if name == "seeds" else (None, k)
            file.create_dataset(name, data=np.array(values, dtype=kind), maxshape=shape, chunks=True)
    table = pa.table(
        {
            "filename": [row.name for row in rows],
            "start": pa.array([row.start for row in rows], pa.float32()),
            "end": pa.array([row.end for row in rows], pa.float32()),
        }
    )
    pq.write_table(table, stem.with_name(stem.name + ".parquet"), compression="brotli")


def write_classes(path: Path, count: int = CLASSES) -> Path:
    path.write_text("".join(f"class {number}\n" for number in range(count)))
    return path
