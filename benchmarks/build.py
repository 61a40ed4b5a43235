"""What a build costs beside its teachers, and whether that or its memory grows with the number of clips.

    python -m benchmarks.build              # 1,000 and 10,000 clips with a teacher that takes no time; then a real one
    python -m benchmarks.build --quick      # 200 and 2,000 clips

Own cost is the time of a build, from the scanned clips to the finished store, less the time inside the teachers. Every
build runs in a process of its own; peak is its VmHWM (Linux only). The share is the rate of a whole build over the bare
rate of the same ensemble on the same batches, measured in the same process; the share of processor time is the same of
the seconds that the processors worked for the process, which other processes of the machine do not change.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from benchmarks.query import peak_megabytes
from benchmarks.read import table
from logitstore.models.registry import build as build_model
from logitstore.models.tagger import probabilities

RATE, CLASSES, K = 16_000, 527, 20
DISTINCT = 64


class Instant(torch.nn.Module):
    """A teacher that takes no time: a row of made-up probabilities for each view."""

    classes = tuple(f"class {number}" for number in range(CLASSES))
    sample_rate = RATE
    scores = "sigmoid"

    def __init__(self) -> None:
        super().__init__()
        self.said = torch.nn.Parameter(torch.rand(4096, CLASSES, generator=torch.Generator().manual_seed(0)) ** 8)

    def forward(self, waveforms: torch.Tensor, masks: Any = None) -> torch.Tensor:
        """Probabilities (B, C)."""
        return self.said[: len(waveforms)]


class Real(Instant):
    """The student model cnn4 with random weights, as a teacher."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        torch.manual_seed(0)
        self.model = build_model("cnn4", CLASSES)

    def forward(self, waveforms: torch.Tensor, masks: Any = None) -> torch.Tensor:
        """Probabilities (B, C)."""
        return probabilities(self.model(waveforms, masks), "sigmoid")


def instant() -> torch.nn.Module:
    """The factory of ``python:benchmarks.build:instant``."""
    return Instant()


def real() -> torch.nn.Module:
    """The factory of ``python:benchmarks.build:real``."""
    return Real()


def write_audio(folder: Path, clips: int, seconds: float) -> None:
    """WAV files of noise: 64 distinct ones, and hard links to them."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(clips):
        target = folder / f"{number:06d}.wav"
        if number < DISTINCT:
            wave = 0.1 * random.standard_normal(int(RATE * seconds))
            soundfile.write(target, wave.astype(np.float32), RATE, subtype="PCM_16")
        else:
            os.link(folder / f"{number % DISTINCT:06d}.wav", target)


def one(root: Path, seconds: float, views: int, teacher: str, batch_size: int) -> dict[str, float]:
    """One build of ``root/audio`` in this process: views, seconds, seconds inside the ensemble, peak MB, share."""
    from logitstore.jobs.build import job
    from logitstore.jobs.options import BuildOptions

    options = BuildOptions(
        source=str(root / "audio"),
        out=str(root / f"store-{os.getpid()}"),
        teachers=[f"python:benchmarks.build:{teacher}"],
        views=views,
        topk=K,
        clip_seconds=max(2.0, seconds),
        batch_size=batch_size,
        device="cpu",
    )
    prepared = job.prepare(options)
    inside, answer = 0.0, prepared.ask
    batches: list[tuple[torch.Tensor, Any]] = []

    def ask(waveforms: torch.Tensor, masks: Any, heard: Any = None) -> Any:
        nonlocal inside
        started = time.perf_counter()
        said = answer(waveforms, masks, heard)
        inside += time.perf_counter() - started
        if teacher == "real" and len(batches) < 8:
            batches.append((waveforms, masks))
        return said

    prepared.ask = ask  # type: ignore[method-assign]
    started, busy = time.perf_counter(), time.process_time()
    summary = job.run(prepared, job.Progress())
    took, busy = time.perf_counter() - started, time.process_time() - busy
    found = {"views": summary.made_views, "seconds": took, "inside": inside, "busy": busy, "peak": peak_megabytes()}
    if teacher == "real":
        count = sum(len(waveforms) for waveforms, _ in batches)
        started, before = time.perf_counter(), time.process_time()
        for _ in range(3):
            for waveforms, masks in batches:
                answer(waveforms, masks)
        found["bare"] = 3 * count / (time.perf_counter() - started)
        found["bare_busy"] = (time.process_time() - before) / (3 * count)
    return found


def measure(
    root: Path, clips: int, seconds: float, views: int, teacher: str, runs: int, batch: int
) -> dict[str, float]:
    """The best of some builds, each in a process of its own."""
    folder = root / f"{clips}-{seconds:g}"
    if not folder.exists():
        folder.mkdir()
        write_audio(folder / "audio", clips, seconds)
    found: list[dict[str, float]] = []
    for _ in range(runs):
        given = [str(folder), str(seconds), str(views), teacher, str(batch)]
        command = [sys.executable, "-m", "benchmarks.build", "--one", *given]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
    return min(found, key=lambda run: run["seconds"])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer clips, one run each")
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        root, seconds, views, teacher, batch = given.one
        print(json.dumps(one(Path(root), float(seconds), int(views), teacher, int(batch))))
        return
    runs = 1 if given.quick else 2
    with tempfile.TemporaryDirectory() as scratch:
        rows = []
        for clips in (200, 2000) if given.quick else (1000, 10_000):
            run = measure(Path(scratch), clips, 0.5, 4, "instant", runs, 32)
            own = run["seconds"] - run["inside"]
            rate, cost = run["views"] / run["seconds"], 1e6 * own / run["views"]
            rows.append([f"{clips:,} clips x 4 views of 2 s", f"{rate:,.0f}", f"{cost:,.0f}", f"{run['peak']:,.0f}"])
        print("A teacher that takes no time\n")
        print(table(["build", "views/s", "own cost, us a view", "peak MB"], rows))
        clips = 32 if given.quick else 192
        rows = []
        for teacher in ("instant", "real"):
            run = measure(Path(scratch), clips, 10.0, 10, teacher, runs, 32)
            own = run["seconds"] - run["inside"]
            rate = run["views"] / run["seconds"]
            name = "no time" if teacher == "instant" else "cnn4"
            bare = f"{run['bare']:,.0f}" if "bare" in run else ""
            share = f"{rate / run['bare']:.2f}" if "bare" in run else ""
            processor = f"{run['bare_busy'] * run['views'] / run['busy']:.2f}" if "bare" in run else ""
            cost = 1e6 * own / run["views"]
            rows.append([name, f"{rate:,.0f}", f"{cost:,.0f}", bare, share, processor, f"{run['peak']:,.0f}"])
        print(f"{clips} clips x 10 views of 10 s, recipe ced\n")
        header = ["views/s", "own cost, us a view", "bare forward, views/s", "share", "of processor time", "peak MB"]
        print(table(["teacher", *header], rows))


if __name__ == "__main__":
    main()
