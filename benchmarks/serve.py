"""The listening page over many views: seconds until it is served, milliseconds of its requests, memory.

    python -m benchmarks.serve                   # over 1,000,000 synthetic views (their making takes some minutes)
    python -m benchmarks.serve --views 100000
    python -m benchmarks.serve --store STORE     # over a store that is there

A server is started as a user starts it. First is the first request of its kind, warm the best of five; the page itself
is what a browser asks for before it shows anything. Peak is the server's largest resident set (Linux only). The clips
have no audio here: what a view's sound costs is its decoding, which ``benchmarks.read`` measures.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import httpx

from benchmarks.query import best_of, make

PAGE = ("/", "/api/store", "/api/search")
SEARCHES = (
    "/api/search?class=class+3",
    "/api/search?class=class+3&sort=entropy&offset=500",
    "/api/search?text=clip",
    "/api/search?sort=entropy",
    "/api/search?sort=path&descending=1",
    "/api/search?verdict=none&sort=confidence",
    "/api/search?where=" + quote("confidence < 0.5 AND path LIKE '%7%'"),
    "/api/search?where=" + quote("clip IN (SELECT clip FROM topk WHERE class = 'class 3' AND probability > 0.5)"),
    "/api/search?question=uncertain_clips",
    "/api/search?question=torn",
    "/api/clip/77777",
)


def timed(call: Callable[[], object]) -> float:
    """Milliseconds of one call."""
    started = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - started)


def measure(store: str) -> None:
    """Start a server, and print the table."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "logitstore", "serve", store, "--audio-root", folder]
        command += ["--verdicts", str(Path(folder, "verdicts.csv"))]
        started = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                address = server.stdout.readline().strip()
                print(f"served after {time.perf_counter() - started:.1f} s\n\n{'first ms':>9}  {'warm ms':>8}  request")
                ask(address)
                print(f"\npeak {peak_megabytes(server.pid):.0f} MB")
            finally:
                server.terminate()


def ask(address: str) -> None:
    """Ask everything, and print how long it took."""
    with httpx.Client(base_url=address.partition("/?")[0], timeout=60) as client:
        client.get(address)

        def get(path: str) -> None:
            answer = client.get(path)
            assert answer.status_code in (200, 404 if path == "/" else 200), f"{path}: {answer.text[:300]}"

        def page() -> None:
            for path in PAGE:
                get(path)

        first, warm = timed(page), best_of(page)
        print(f"{first:9.0f}  {warm:8.0f}  the page: {', '.join(PAGE)}")
        for path in SEARCHES:
            first = timed(lambda path=path: get(path))  # type: ignore[misc]
            warm = best_of(lambda path=path: get(path))  # type: ignore[misc]
            print(f"{first:9.0f}  {warm:8.0f}  {path}", flush=True)


def peak_megabytes(process: int) -> float:
    """The largest resident set of a process so far."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return float("nan")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--views", type=int, default=1_000_000, help="views of the synthetic store")
    parser.add_argument("--store", help="measure this store instead")
    arguments = parser.parse_args()
    if arguments.store is not None:
        measure(arguments.store)
        return
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder, "store"), arguments.views)
        measure(str(Path(folder, "store")))


if __name__ == "__main__":
    main()
