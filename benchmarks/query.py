"""SQL over a store: milliseconds of a warm query, memory, and a cold ``logitstore inspect``.

    python -m benchmarks.query                   # over 1,000,000 synthetic views (their making takes some minutes)
    python -m benchmarks.query --views 100000
    python -m benchmarks.query --store STORE     # over a store that is there

Warm is the best of five runs in one process, in which a store is opened once. Peak is the largest resident set of that
process so far (Linux only). Cold is the best of five processes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

QUERIES = (
    "SELECT count(*) FROM topk",
    "SELECT class, count(*) FROM topk GROUP BY class",
    "SELECT max(probability) FROM topk WHERE clip BETWEEN 100 AND 199 AND view = 3",
    "SELECT count(*) FROM topk WHERE view = 3 AND class = 'class 3'",
    "SELECT avg(roll_samples), avg(time_end_ms - time_start_ms) FROM views",
    "SELECT avg(entropy) FROM views",
    "SELECT view, class, avg(probability) FROM topk GROUP BY ALL",
    "SELECT count(*) FROM topk a JOIN topk b USING (clip, rank) WHERE a.view = 0 AND b.view = 1 AND a.class = b.class",
    "SELECT clip, class, avg(probability) p FROM topk GROUP BY ALL ORDER BY p DESC LIMIT 10",
    "@measures",
    "@survival",
    "@near_duplicates",
    "@topk_tail",
)
VIEWS_A_CLIP = 10
DISTINCT = 4096
RUNS = 5


def best_of(call: Callable[[], object]) -> float:
    """The shortest of some runs, in milliseconds."""
    times = []
    for _ in range(RUNS):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return 1000 * min(times)


def peak_megabytes() -> float:
    """The largest resident set of this process so far. (getrusage would count what started it, too.)"""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return float("nan")


def make(folder: Path, views: int) -> None:
    """A store of about so many views: as many clips as it takes, of 4,096 distinct ones in a random order."""
    from benchmarks.footprint import write_store
    from benchmarks.synthetic import Case, clip_names, top_k

    clips = max(1, views // VIEWS_A_CLIP)
    classes, values = top_k(Case(clips=min(clips, DISTINCT), views=VIEWS_A_CLIP))
    rows = np.random.default_rng(0).integers(0, len(classes), clips)
    write_store(folder, clip_names(clips), classes[rows], values[rows], 527, 8)


def measure(store: str) -> None:
    """Print the table for a store."""
    import logitstore

    opened = logitstore.open_store(store)
    print(f"{opened.view_count():,} views in {len(opened.commits):,} blocks, k = {opened.manifest.topk}\n")
    print(f"{'warm ms':>9}  {'peak MB':>7}  query")
    for query in QUERIES:
        shortest = best_of(lambda query=query: opened.sql(query))  # type: ignore[misc]
        print(f"{shortest:9.0f}  {peak_megabytes():7.0f}  {query}", flush=True)
    print(f"\n{'cold ms':>9}  command")
    command = [sys.executable, "-c", "from logitstore.cli.main import main; main()", "inspect", store]
    for arguments, shown in (([], "STORE"), (["SELECT count(*) FROM clips"], 'STORE "SELECT count(*) FROM clips"')):
        whole = [*command, *arguments]
        shortest = best_of(lambda whole=whole: subprocess.run(whole, check=True, capture_output=True))  # type: ignore[misc]
        print(f"{shortest:9.0f}  logitstore inspect {shown}", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--views", type=int, default=1_000_000, help="views of the synthetic store")
    parser.add_argument("--store", help="measure this store instead")
    options = parser.parse_args()
    if options.store:
        measure(options.store)
        return
    with tempfile.TemporaryDirectory() as folder:
        location = str(Path(folder) / "store")
        make(Path(location), options.views)
        subprocess.run([sys.executable, "-m", "benchmarks.query", "--store", location], check=True)


if __name__ == "__main__":
    main()
