"""The report of a store: seconds, memory, bytes of the page, over two sizes of store.

    python -m benchmarks.report                    # over 100,000 and 1,000,000 synthetic views
    python -m benchmarks.report --views 100000
    python -m benchmarks.report --store STORE      # over a store that is there

Peak is the largest resident set of the process that makes the page (Linux only). Seconds are of that whole process.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.query import make

SIZES = (100_000, 1_000_000)
_CODE = """
import json, sys
import logitstore
from benchmarks.query import peak_megabytes
found = logitstore.report(store=sys.argv[1], out=sys.argv[2])
print(json.dumps(found.to_dict() | {"peak_mb": peak_megabytes()}))
"""


def measure(store: str, folder: str) -> None:
    """Print a line for a store."""
    began = time.perf_counter()
    command = [sys.executable, "-c", _CODE, store, str(Path(folder) / "report.html")]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    seconds = time.perf_counter() - began
    print(f"{found['views']:>11,}  {seconds:7.1f}  {found['peak_mb']:7.0f}  {found['bytes']:>11,}", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--views", type=int, nargs="*", default=SIZES, help="views of the synthetic stores")
    parser.add_argument("--store", help="measure this store instead")
    options = parser.parse_args()
    print(f"{'views':>11}  {'seconds':>7}  {'peak MB':>7}  {'page, bytes':>11}")
    with tempfile.TemporaryDirectory() as folder:
        if options.store:
            measure(options.store, folder)
            return
        for views in options.views:
            place = Path(folder) / f"store-{views}"
            make(place, views)
            measure(str(place), folder)


if __name__ == "__main__":
    main()
