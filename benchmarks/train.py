"""Steps a second of a training from a store, beside ready-made batches and beside the ensemble run for every batch.

    python -m benchmarks.train                                # cnn4 and ced-tiny (ten minutes of one core)
    python -m benchmarks.train --quick                        # cnn4 alone, few steps
    python -m benchmarks.train --student cnn4 --ensemble cnn4,cnn4,cnn4

Every line is the loop of `train-student` on the same 64 clips of 10 s, in one process on one core, with another way to
come by its batches. Ready-made: made before, so no teacher, no audio and no store. Store: replayed and read; the audio
cache has all of it, and its digests were compared. Online: the batch is replayed from PCM, and the ensemble is asked
for its targets. Nets have random weights, as fast as others.
Rates are of processor time, which other processes of the machine do not change, the best of some rounds through all
lines in turn; the last column is of wall time.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from benchmarks.footprint import write_store
from benchmarks.loader import CLASSES, DEAR, VIEWS, K, write_audio
from benchmarks.synthetic import Case, clip_names, top_k
from benchmarks.tables import table
from logitstore import open_store
from logitstore.arrays import I64
from logitstore.audio.cache import AudioCache
from logitstore.models.machine import keep_freed_memory
from logitstore.models.registry import build
from logitstore.models.tagger import Tagger, probabilities
from logitstore.store.audio import open_sources
from logitstore.training.batches import Batch
from logitstore.training.loop import Epoch, FitOptions, fit
from logitstore.training.sampling import order_generator, plan
from students.data import open_replayer, stored_views
from students.objective import Objective
from students.terms import TARGET, Setting

Batches = Callable[[I64], Batch]


def asked(replay: Batches, members: Sequence[Tagger]) -> Batches:
    """Batches whose targets the ensemble gives, as it hears them."""

    @torch.inference_mode()
    def said(batch: Batch) -> torch.Tensor:
        every = [probabilities(member(batch.waveforms, batch.masks), "sigmoid") for member in members]
        return torch.stack(every).mean(dim=0)

    def batch(positions: I64) -> Batch:
        replayed = replay(positions)
        return replace(replayed, targets=said(replayed).clone())

    return batch


def rates(
    scratch: Path, student: str, ensemble: Sequence[str], steps: int, batch_size: int, rounds: int
) -> dict[str, tuple[float, float]]:
    """Steps a second of each way: of processor time, and of wall time."""
    names = clip_names(DEAR)
    if not (scratch / "audio").exists():
        write_audio(scratch / "audio", names)
        classes, values = top_k(Case(clips=DEAR, classes=CLASSES, k=K, views=VIEWS))
        for kind, ending in (("pcm", ""), ("ogg", ".ogg")):
            write_store(scratch / kind, [name + ending for name in names], classes, values, CLASSES, 8)
    torch.manual_seed(0)
    model = build(student, CLASSES)
    members = [build(name, CLASSES).eval() for name in ensemble]
    with ThreadPoolExecutor(1, "decode") as pool:

        def replayed(kind: str, cache: AudioCache | None = None) -> Batches:
            store = open_store(scratch / kind)
            replayer = open_replayer(store, open_sources(store, scratch / "audio"), disk=cache, pool=pool)
            views = stored_views(store, 0)
            return lambda positions: replayer.batch(views, positions)

        pcm = replayed("pcm")
        ready = [pcm(positions) for positions in plan(DEAR, batch_size, order_generator(0, 0))]
        ready = [replace(batch, waveforms=batch.waveforms.clone()) for batch in ready]
        turn = iter(range(1 << 60))
        ways: dict[str, Batches] = {
            "ready-made batches": lambda positions: ready[next(turn) % len(ready)],
            "from the store, 16-bit PCM": pcm,
            "from the store, Ogg Vorbis, --audio-cache": replayed("ogg", AudioCache(scratch / "cache")),
            "from the store, Ogg Vorbis, decoded each time": replayed("ogg"),
            f"online, {' + '.join(ensemble)}, 16-bit PCM": asked(pcm, members),
        }
        for _ in range(
            2
        ):  # kept by the first pass, its digests compared by the second, as in a later run's first epoch
            for positions in plan(DEAR, batch_size, order_generator(0, 0)):
                ways["from the store, Ogg Vorbis, --audio-cache"](positions)
        objective = Objective({TARGET: 1.0}, Setting("bce", 1.0, None))
        best: dict[str, tuple[float, float]] = {}
        for number in range(rounds):
            for name, way in ways.items():
                online = name.startswith("online")
                if online and number:
                    continue  # far from the others: one round tells

                def epoch(number: int, way: Batches = way) -> Epoch:
                    return Epoch(plan(DEAR, batch_size, order_generator(0, number)), way)

                with tempfile.TemporaryDirectory() as run:
                    options = FitOptions(steps=steps, lr=1e-4, seed=0)
                    worked, started = time.process_time(), time.perf_counter()
                    fit(model, options, epoch, objective, Path(run))
                    worked, took = time.process_time() - worked, time.perf_counter() - started
                before = best.get(name, (0.0, 0.0))
                best[name] = max(before[0], steps / worked), max(before[1], steps / took)
    return best


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="cnn4 alone, few steps")
    parser.add_argument("--student", nargs="*", default=["cnn4", "ced-tiny"])
    parser.add_argument("--ensemble", default="ced-mini,ced-tiny,cnn4", help="nets that are the members")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    students, steps, rounds = (["cnn4"], 8, 2) if given.quick else (given.student, given.steps, given.rounds)
    with tempfile.TemporaryDirectory() as scratch:
        for student in students:
            found = rates(Path(scratch), student, given.ensemble.split(","), steps, given.batch_size, rounds)
            (base, wall), *_ = found.values()
            rows = [
                [name, f"{busy:.3g}", f"{busy / base:.2f}", f"{took / wall:.2f}"]
                for name, (busy, took) in found.items()
            ]
            online = list(found.values())[-1][0]
            print(f"{student}, batches of {given.batch_size} clips of 10 s\n")
            print(table(["batches", "steps/s", "to ready-made", "by wall time"], rows))
            print(f"From the store {found['from the store, 16-bit PCM'][0] / online:.1f} times as fast as online.\n")


if __name__ == "__main__":
    main()
