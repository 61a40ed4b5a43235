"""What a file a clip costs the audio cache, beside one file for a shard of clips.

    python -m benchmarks.audio_cache            # 1,000 to 100,000 small clips, and 256 clips of 10 s (two minutes)
    python -m benchmarks.audio_cache --quick    # 1,000 and 10,000, and 32

First what grows with the number of clips: short ones (100 ms), so that files and not samples are what is measured. Then
clips of 10 s at 16 kHz as they lie there after Ogg, float32, each into a row of a batch: from a file of its own as the
cache reads it, and from one file of all of them, read or mapped. Everything is in the page cache; times are of the
processor, the best of three rounds in random orders.
"""

from __future__ import annotations

import argparse
import mmap
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.tables import table
from logitstore.audio.cache import AudioCache
from logitstore.digests import hasher

RATE, SHORT, LONG = 16_000, 1_600, 160_000


def key(number: int) -> bytes:
    """The name of a clip."""
    return hasher(str(number).encode()).digest()


def best(count: int, once: Callable[[np.ndarray], object], rounds: int = 3) -> float:
    """Microseconds of processor time a clip."""
    times = []
    for turn in range(rounds):
        order = np.random.default_rng(turn).permutation(count)
        started = time.process_time()
        once(order)
        times.append((time.process_time() - started) / count * 1e6)
    return min(times)


def from_cache(cache: AudioCache, keys: list[bytes], row: np.ndarray, *, verify: bool = False) -> Callable[..., None]:
    """Reads clips one by one, as a training does."""

    def once(order: np.ndarray) -> None:
        for number in order.tolist():
            samples = cache.open(keys[number], RATE, verify)
            assert samples is not None
            samples.read(0, row)
            samples.close()

    return once


def growing(scratch: Path, counts: list[int]) -> list[list[str]]:
    """A row for each number of clips."""
    rows = []
    samples = np.random.default_rng(0).uniform(-1, 1, SHORT).astype(np.float32)
    row = np.empty(SHORT, np.float32)
    for count in counts:
        folder = scratch / str(count)
        cache = AudioCache(folder)
        keys = [key(number) for number in range(count)]
        started = time.process_time()
        for each in keys:
            cache.keep(each, samples)
        kept = (time.process_time() - started) / count * 1e6
        read = best(count, from_cache(cache, keys, row))
        started = time.perf_counter()
        AudioCache(folder)
        opening = time.perf_counter() - started
        (folder / "size").unlink()
        started = time.perf_counter()
        AudioCache(folder)
        counting = time.perf_counter() - started
        files = [file.stat() for file in folder.glob("??/*.pcm")]
        over = sum(512 * each.st_blocks for each in files) / count - 4 * SHORT
        rows.append(
            [f"{count:,}", f"{len(files) + 257:,}", f"{over:,.0f}", f"{kept:.0f}", f"{read:.1f}",
             f"{1000 * opening:.1f}", f"{counting:.2f}"]
        )  # fmt: skip
    return rows


def layouts(scratch: Path, count: int) -> list[list[str]]:
    """A row for each way to keep clips of 10 s."""
    cache, keys = AudioCache(scratch / "long"), [key(number) for number in range(count)]
    together = scratch / "together.pcm"
    with together.open("wb") as file:
        for number, each in enumerate(keys):
            samples = np.random.default_rng(number).uniform(-1, 1, LONG).astype(np.float32)
            cache.keep(each, samples)
            file.write(samples.tobytes())
    row, size = np.empty(LONG, np.float32), 4 * LONG
    opened = os.open(together, os.O_RDONLY)
    mapped = np.frombuffer(mmap.mmap(opened, 0, access=mmap.ACCESS_READ), np.float32).reshape(count, LONG)

    def read(order: np.ndarray) -> None:
        for number in order.tolist():
            os.preadv(opened, [row.data], number * size)

    def copied(order: np.ndarray) -> None:
        for number in order.tolist():
            row[:] = mapped[number]

    ways = {
        "a file a clip, as the cache reads it": from_cache(cache, keys, row),
        "the same, digests compared, as a process does when it first reads a clip": from_cache(
            cache, keys, row, verify=True
        ),
        "one file, kept open, read": read,
        "one file, memory-mapped, copied": copied,
    }
    found = {name: best(count, way) for name, way in ways.items()}
    os.close(opened)
    return [[name, f"{microseconds:.0f}"] for name, microseconds in found.items()]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer clips")
    given = parser.parse_args()
    counts, long = ([1_000, 10_000], 32) if given.quick else ([1_000, 10_000, 100_000], 256)
    with tempfile.TemporaryDirectory() as scratch:
        rows = growing(Path(scratch), counts)
        header = ["clips of 100 ms", "inodes", "bytes a clip on disk beside its samples", "us to keep one",
                  "us to read one", "ms to open the cache", "s to open it, its size lost"]  # fmt: skip
        print(table(header, rows))
        print(table(["clips of 10 s", "us a clip"], layouts(Path(scratch), long)))


if __name__ == "__main__":
    main()
