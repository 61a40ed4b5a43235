"""Reading targets: this store beside CED's HDF5 files and Parquet, on the same targets in one run.

    python -m benchmarks.read               # 400,000 views, and the opening of a store of 2,000,000 clips (minutes)
    python -m benchmarks.read --quick       # 40,000 views, 100,000 clips

Every rate is of one process on one core, the best of some runs. HDF5 is read as CED's dataset reads it: one file a
view, kept open, row by row. Memory is Linux's: VmHWM of a process of its own, and Pss, which counts a shared page once.
"""

from __future__ import annotations

import argparse
import mmap
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from benchmarks.footprint import write_ced, write_store
from benchmarks.query import peak_megabytes
from benchmarks.synthetic import Case, clip_names, top_k
from benchmarks.tables import table
from logitstore import open_store

CLASSES, VIEWS, K = 527, 10, 20
DISTINCT = 4096
RUNS = 5


def best_rate(count: int, read: Callable[[], object], before: Callable[[], object] = lambda: None) -> float:
    """Views a second of the best of some runs."""
    times = []
    for _ in range(RUNS):
        before()
        started = time.perf_counter()
        read()
        times.append(time.perf_counter() - started)
    return count / min(times)


def make(folder: Path, clips: int, k: int, views: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """A store at ``folder`` of 4,096 distinct clips; its classes and probabilities, (clips, views, k), and names."""
    classes, values = top_k(Case(clips=min(clips, DISTINCT), classes=CLASSES, k=k, views=views))
    rows = np.random.default_rng(0).integers(0, len(classes), clips)
    names = clip_names(clips)
    write_store(folder, names, classes[rows], values[rows], CLASSES, 8)
    return classes[rows], values[rows], names


def evict(*files: Path, store: Any = None) -> None:
    """Drop the pages of some files from memory, and of what a store has decoded."""
    if store is not None:
        store.pieces[0]._decoded._file.map.madvise(mmap.MADV_DONTNEED)
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def random_order(scratch: Path, clips: int) -> None:
    """Targets in random order: in memory, and read back from the disk."""
    import h5py
    import pyarrow as pa
    import pyarrow.dataset as ds
    import pyarrow.parquet as pq

    classes, values, names = make(scratch / "store", clips, K, VIEWS)
    (scratch / "ced").mkdir()
    write_ced(scratch / "ced", names, classes, values, 10.0)
    flat = pa.table(
        {
            "classes": pa.FixedSizeListArray.from_arrays(pa.array(classes[:, 0].reshape(-1)), K),
            "probabilities": pa.FixedSizeListArray.from_arrays(pa.array(values[:, 0].reshape(-1)), K),
        }
    )
    pq.write_table(flat, scratch / "flat.parquet", compression="zstd", row_group_size=1024)
    order = np.random.default_rng(1).permutation(clips)

    peer = scratch / "ced" / "logits_ep1_0.h5"

    def read_h5(count: int, look_up: bool = False) -> None:
        with h5py.File(peer, "r") as file:
            held = file if look_up else {name: file[name] for name in ("topk_values", "topk_indexes")}
            for row in order[:count].tolist():
                held["topk_values"][row, :]
                held["topk_indexes"][row, :]

    few = min(clips, 5000)
    base = best_rate(few, lambda: read_h5(few))
    rows = [["HDF5, row by row, its two arrays held open", f"{base:,.0f}", "1"]]

    def line(name: str, rate: float, ratio_to: float = base) -> None:
        rows.append([name, f"{rate:,.0f}", f"{rate / ratio_to:,.1f}"])

    line("HDF5 as CED reads it: row by row, arrays looked up by name", best_rate(few, lambda: read_h5(few, True)))
    data = ds.dataset(scratch / "flat.parquet")
    for size in (256, 4096):
        line(f"Parquet, pyarrow take, {size} rows a call", best_rate(size, lambda n=size: data.take(order[:n])))  # type: ignore[misc]
    file = pq.ParquetFile(scratch / "flat.parquet")
    groups = order[:20] % file.num_row_groups
    line("Parquet, one row group a row", best_rate(20, lambda: [file.read_row_group(int(g)) for g in groups]))

    store = open_store(scratch / "store")
    views = clips * VIEWS
    started = time.perf_counter()
    store.targets(0, order)
    decoding = views / (time.perf_counter() - started)

    def read(size: int, count: int, before: Callable[[], object] = lambda: None) -> None:
        for start in range(0, count, size):
            before()
            store.targets(0, order[start : start + size])

    for size in (1, 32, 256, 4096):
        count = min(clips, size * 2000)
        line(f"logitstore, {size} views a call", best_rate(count, lambda n=size, c=count: read(n, c)))  # type: ignore[misc]
    print(f"\nRandom order, in memory; {views:,} views, k = {K}, of {CLASSES} classes\n")
    print(table(["reader", "views/s", "to HDF5"], rows))
    print(f"Decoding all of it, once a machine: {decoding:,.0f} views/s\n")

    rows = []
    files = list(Path(tempfile.gettempdir(), f"logitstore-{os.getuid()}").glob("*"))
    held = [file for file in files if file.suffix != ".lock"]
    cold = best_rate(few, lambda: read_h5(few), lambda: evict(peer))
    rows.append(["HDF5, its file evicted before", f"{cold:,.0f}", "1"])
    line(
        "logitstore, 256 a call, evicted before",
        best_rate(clips, lambda: read(256, clips), lambda: evict(*held, store=store)),
        cold,
    )
    seconds = 0.0
    for start in range(0, clips, 4096):
        evict(*held, store=store)
        started = time.perf_counter()
        for first in range(start, min(start + 4096, clips), 256):
            store.targets(0, order[first : first + 256])
        seconds += time.perf_counter() - started
    line("logitstore, 256 a call, evicted every 4,096 views", clips / seconds, cold)
    for share in (2, 5):
        small = open_store(scratch / "store")
        small.decoded_bytes = views * K * 3 // share

        def epochs(reader: Any = small) -> None:
            for view in range(VIEWS):
                for start in range(0, clips, 256):
                    reader.targets(view, order[start : start + 256])

        started = time.perf_counter()
        epochs()
        name = f"logitstore, 256 a call, a disk that holds 1/{share} of the views, {VIEWS} epochs with decoding"
        line(name, views / (time.perf_counter() - started), cold)
    print("Random order, not in memory\n")
    print(table(["reader", "views/s", "to HDF5"], rows))
    dense(store, order)


def dense(store: Any, order: np.ndarray) -> None:
    """Targets as (B, C), read and filled."""
    from students.targets import TAILS, dense_targets

    rows = []
    for tail in (each for each in TAILS if each != "stored"):  # which needs a store with a quality
        for size in (32, 256):
            count = min(len(order), 8192)

            def read(fill: str = tail, n: int = size, until: int = count) -> None:
                for start in range(0, until, n):
                    clips = order[start : start + n]
                    classes, values = store.targets(0, clips)
                    dense_targets(classes, values, CLASSES, fill, clips=clips, view=0, seed=0)

            rows.append([tail, str(size), f"{best_rate(count, read):,.0f}"])
    print(f"Dense targets (B, {CLASSES}), in random order\n")
    print(table(["fill", "B", "views/s"], rows))


class Batches:
    """A map-style dataset of whole batches for ``DataLoader(..., batch_size=None)``; counts blocks that are decoded."""

    def __init__(self, store: Any, clips: int, size: int, seen: Any) -> None:
        self.store, self.clips, self.size, self.seen = store, clips, size, seen
        self.counting = False

    def __len__(self) -> int:
        return self.clips // self.size

    def __getitem__(self, index: int) -> Any:
        import torch

        if not self.counting:
            (piece,) = self.store.pieces
            self.counting, decode = True, piece._decode

            def counted(*arguments: Any) -> Any:
                self.seen[0] += 1
                return decode(*arguments)

            piece._decode = counted
        random = np.random.default_rng(index)
        classes, probabilities = self.store.targets(index // 2 % VIEWS, random.integers(0, self.clips, self.size))
        worker = torch.utils.data.get_worker_info()
        if worker is not None and index >= len(self) - worker.num_workers:
            rss, pss = shared_megabytes()
            self.seen[1 + 2 * worker.id], self.seen[2 + 2 * worker.id] = rss, pss
        return torch.from_numpy(classes.astype(np.int32)), torch.from_numpy(probabilities)


def shared_megabytes() -> tuple[float, float]:
    """Rss and Pss of the map of the decoded file in this process, in MB."""
    rss = pss = 0.0
    inside = False
    for row in Path("/proc/self/smaps").read_text().splitlines():
        first = row.split(" ", 1)[0]
        if "-" in first and not first.endswith(":"):
            inside = f"/logitstore-{os.getuid()}/" in row
        elif inside and first in ("Rss:", "Pss:"):
            megabytes = int(row.split()[1]) / 1024
            rss, pss = rss + megabytes * (first == "Rss:"), pss + megabytes * (first == "Pss:")
    return rss, pss


def loaders(location: Path, clips: int) -> None:
    """Two workers of a DataLoader, forked and spawned, on one decode."""
    import torch

    rows = []
    for start in ("fork", "spawn"):
        store = open_store(location)
        store.pieces[0]._decoded.share()
        blocks = len(store.commits)
        seen = torch.zeros(8).share_memory_()  # type: ignore[no-untyped-call]
        data = Batches(store, clips, 256, seen)
        loader: Any = torch.utils.data.DataLoader(
            data,  # type: ignore[arg-type]
            None,
            num_workers=2,
            multiprocessing_context=start,
            persistent_workers=True,
        )
        for _ in range(3):  # the first with the start of the workers and the decoding
            started = time.perf_counter()
            views = sum(len(probabilities) for _, probabilities in loader)
            rate = views / (time.perf_counter() - started)
        del loader, store, data
        memory = [f"{seen[i]:.0f} / {seen[i + 1]:.0f}" for i in (1, 3)]
        rows.append([start, f"{int(seen[0])} of {blocks}", *memory, f"{rate:,.0f}"])
    print("DataLoader, two workers that begin with nothing decoded, batches of 256\n")
    header = ["workers", "blocks decoded, by both", "worker 0: Rss / Pss of it, MB", "worker 1", "views/s, third epoch"]
    print(table(header, rows))


OPENINGS = {
    "open_store": "",
    "store.commits": "store.commits",
    "store.clips_of(0)": "store.clips_of(0)",
    "store.targets(0, 256 random clips)": "store.targets(0, np.random.default_rng(0).integers(0, CLIPS, 256))",
    "store.draws(0, 256 random clips)": "store.draws(0, np.random.default_rng(0).integers(0, CLIPS, 256))",
    "store.lengths(256 clips)": "store.lengths(np.arange(256))",
    "store.clips": "store.clips",
    "logitstore status": "__import__('logitstore.jobs.status').jobs.status.status(sys.argv[1])",
}
MEASURE = """
import sys, time, numpy as np
CLIPS = {clips}
import logitstore
from benchmarks.query import peak_megabytes
before = peak_megabytes()
started = time.perf_counter()
store = logitstore.open_store(sys.argv[1])
{code}
print(time.perf_counter() - started, peak_megabytes(), before)
"""


def opening(scratch: Path, clips: int) -> None:
    """What opening a large store costs, and each thing that is then asked first."""
    make(scratch / "large", clips, 5, 1)
    rows = []
    for name, code in OPENINGS.items():
        program = MEASURE.format(clips=clips, code=code)
        found = []
        for _ in range(3):
            command = [sys.executable, "-c", program, str(scratch / "large")]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found.append([float(value) for value in done.stdout.split()])
        seconds, peak, before = min(found)
        rows.append([name, f"{1000 * seconds:,.0f}", f"{peak:,.0f}", f"{peak - before:,.0f}"])
    print(f"A store of {clips:,} clips: the first use of it, each in a process of its own\n")
    print(table(["", "ms", "peak MB", "of which over the imports"], rows))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller stores")
    parser.add_argument("--clips", type=int, default=40_000)
    parser.add_argument("--large", type=int, default=2_000_000, help="clips of the store that is opened")
    given = parser.parse_args()
    clips, large = (4000, 100_000) if given.quick else (given.clips, given.large)
    with tempfile.TemporaryDirectory() as scratch:
        random_order(Path(scratch), clips)
        loaders(Path(scratch, "store"), clips)
        opening(Path(scratch), large)
    print(f"Peak of this process: {peak_megabytes():,.0f} MB")


if __name__ == "__main__":
    main()
