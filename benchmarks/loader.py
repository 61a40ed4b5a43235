"""Replayed training examples a second: this loader, a reader written as CED's is, and the limit, on the same clips.

    python -m benchmarks.loader             # 400 clips of 10 s, 16-bit PCM at 16 kHz, batches of 32 (two minutes)
    python -m benchmarks.loader --quick     # 64 clips

Rates without workers are of processor time, which other processes of the machine do not change; those with workers are
of wall time, and so is the last column. Each is the best of some rounds, and a round goes through all lines in turn. An
example is a clip's float32 waveform, turned as its draw says, its masks and 527 probabilities, in a collated batch.
The audio is in the page cache. CED's reader keeps its audio in one HDF5 file as int16, looks its logits up by name and
row in another, seeds the generators for every item, rolls, fills the dense target, and pads items to a batch.
"""

from __future__ import annotations

import argparse
import gc
import mmap
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import soundfile
import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks.footprint import RATE, SAMPLES, write_ced, write_store
from benchmarks.synthetic import Case, clip_names, top_k
from benchmarks.tables import table
from logitstore import open_store
from logitstore.audio.cache import AudioCache
from logitstore.store.audio import clip_audio, open_sources
from logitstore.training.batches import Replayer
from logitstore.views.recipe import NONE, Draws
from logitstore.views.render import Renderer
from students import ReplayDataset
from students.data import open_replayer, stored_views

CLASSES, VIEWS, K, BATCH = 527, 2, 20, 32
DEAR = 64  # clips that are there as Ogg, too


def write_audio(folder: Path, names: list[str]) -> None:
    """A WAV file of noise for each name, an Ogg file beside the first of them, and all in one HDF5 file."""
    import h5py

    folder.mkdir()
    generator = np.random.default_rng(0)
    with h5py.File(folder.parent / "audio.h5", "w") as file:
        for name in names:
            samples = (3000 * generator.standard_normal(SAMPLES)).astype(np.int16)
            soundfile.write(folder / name, samples, RATE, subtype="PCM_16")
            file.create_dataset(name, data=samples)
            if len(file) <= DEAR:
                soundfile.write(folder / f"{name}.ogg", samples / 32768, RATE)


def dear(scratch: Path, names: list[str], cache: AudioCache | None) -> Callable[[], int]:
    """Goes once through the Ogg files of the first clips."""
    if not (scratch / "ogg").exists():
        classes, values = top_k(Case(clips=len(names), classes=CLASSES, k=K, views=VIEWS))
        write_store(scratch / "ogg", [f"{name}.ogg" for name in names], classes, values, CLASSES, 8)
    store = open_store(scratch / "ogg")
    replayer = open_replayer(store, open_sources(store, scratch / "audio"), disk=cache)
    views = stored_views(store, 0)
    return lambda: sum(len(replayer.batch(views, some)) for some in batches(len(names)))


class AsCed(Dataset[Any]):
    """Items as CED's reader makes them: waveform, dense target, two numbers for the masks, name."""

    def __init__(self, audio: Path, logits: Path, names: list[str]) -> None:
        self.audio, self.logits, self.names = audio, logits, names
        self.files: tuple[Any, Any] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Any:
        import h5py

        if self.files is None:
            self.files = h5py.File(self.audio, "r"), h5py.File(self.logits, "r")
        audio, logits = self.files
        name = self.names[index]
        waveform = torch.from_numpy((audio[name][0:SAMPLES] / 32768.0).astype(np.float32))
        classes = torch.as_tensor(logits["topk_indexes"][index, :]).long()
        values = torch.as_tensor(logits["topk_values"][index, :]).float()
        seed = int(logits["seeds"][index])
        before = random.getstate(), np.random.get_state(), torch.get_rng_state()
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        if float(torch.rand(1)) < 0.5:
            waveform = waveform.roll(int((float(torch.rand(1)) - 0.5) * SAMPLES))
        masks = torch.rand(1), torch.rand(1)
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])
        target = torch.zeros(CLASSES).scatter_(0, classes, values)
        return waveform, target, *masks, name


def padded(items: list[Any]) -> Any:
    """A batch of items as CED's."""
    waveforms, targets, *masks, names = zip(*items, strict=True)
    batch = torch.zeros(len(items), max(map(len, waveforms)))
    for row, waveform in zip(batch, waveforms, strict=True):
        row[: len(waveform)] = waveform
    return batch, torch.stack(targets), *map(torch.cat, masks), names


def batches(count: int) -> Iterator[np.ndarray]:
    """Positions of the batches of an epoch, in random order."""
    order = np.random.default_rng(1).permutation(count)
    for start in range(0, count, BATCH):
        yield order[start : start + BATCH]


def lines(scratch: Path, clips: int) -> dict[str, Callable[[], int]]:
    """What is measured without workers, by its name: goes through all clips once, and says how many examples made."""
    names = clip_names(clips)
    write_audio(scratch / "audio", names)
    classes, values = top_k(Case(clips=clips, classes=CLASSES, k=K, views=VIEWS))
    write_store(scratch / "store", names, classes, values, CLASSES, 8)
    (scratch / "ced").mkdir()
    write_ced(scratch / "ced", names, classes, values, 10.0)
    files = [scratch / "audio" / name for name in names]
    store = open_store(scratch / "store")
    data = ReplayDataset(store, scratch / "audio", 0, checked_views=0)
    peer = AsCed(scratch / "audio.h5", scratch / "ced" / "logits_ep1_0.h5", names)
    audio = clip_audio(store, scratch / "audio")
    manifest, views = store.manifest, stored_views(store, 0)
    replayer = Replayer(audio, str, manifest.recipe, SAMPLES, RATE)
    unturned, turned = Renderer(audio, NONE, manifest.place), Renderer(audio, manifest.recipe, manifest.place)
    buffer = np.empty((BATCH, SAMPLES), np.float32)

    def limit() -> int:
        for positions in batches(clips):
            for row, position in zip(buffer, positions.tolist(), strict=False):
                with files[position].open("rb") as file:
                    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                row[...] = np.frombuffer(mapped, "<i2", SAMPLES, 44)
                row *= np.float32(1 / 32768)
        return clips

    def decoded() -> int:
        return sum(len(soundfile.read(file, dtype="float32")[0]) == SAMPLES for file in files)

    def read() -> int:
        return sum(len(unturned.batch(some, Draws({})).waveforms) for some in batches(clips))

    def rendered() -> int:
        return sum(len(turned.batch(some, views.draws[some]).waveforms) for some in batches(clips))

    def replayed() -> int:
        return sum(len(replayer.batch(views, some)) for some in batches(clips))

    def loaded(dataset: Dataset[Any], collate: Any = None) -> Callable[[], int]:
        loader: DataLoader[Any] = DataLoader(dataset, BATCH, shuffle=True, collate_fn=collate)
        return lambda: sum(len(batch[0] if collate else batch["waveform"]) for batch in loader)

    def one_by_one() -> int:
        return sum(len(data.collate([data[i] for i in some.tolist()])["waveform"]) for some in batches(clips))

    return {
        "the limit: memory-mapped int16 to float32, in one batch's memory": limit,
        "soundfile.read alone": decoded,
        "as CED's: DataLoader, no workers": loaded(peer, padded),
        "logitstore: read": read,
        "logitstore: read, rolled, masks": rendered,
        "logitstore: and dense targets, a batch at a time (train-student)": replayed,
        "logitstore: ReplayDataset, DataLoader, no workers": loaded(data),
        "logitstore: ReplayDataset, item by item": one_by_one,
        "logitstore: Ogg Vorbis, decoded each time": dear(scratch, names[:DEAR], None),
        "logitstore: Ogg Vorbis, from --audio-cache": dear(scratch, names[:DEAR], AudioCache(scratch / "cache")),
    }


def with_workers(scratch: Path, clips: int, workers: int, rounds: int) -> list[tuple[str, float]]:
    """Examples a second of wall time of both datasets with worker processes that stay."""
    names = clip_names(clips)
    peer = AsCed(scratch / "audio.h5", scratch / "ced" / "logits_ep1_0.h5", names)
    data = ReplayDataset(scratch / "store", scratch / "audio", 0, checked_views=0)
    best: dict[str, float] = {}
    given: list[tuple[str, Dataset[Any], Any]] = [("as CED's", peer, padded), ("logitstore: ReplayDataset", data, None)]
    loaders: dict[str, DataLoader[Any]] = {
        name: DataLoader(each, BATCH, shuffle=True, collate_fn=collate, num_workers=workers, persistent_workers=True)
        for name, each, collate in given
    }
    for turn in range(rounds + 1):  # the first with the start of the workers
        for name, loader in loaders.items():
            started = time.perf_counter()
            count = sum(len(batch[0] if isinstance(batch, list | tuple) else batch["waveform"]) for batch in loader)
            rate = count / (time.perf_counter() - started)
            best[name] = max(best.get(name, 0.0), rate if turn else 0.0)
    return [(f"{name}, {workers} worker{'s' * (workers > 1)}", rate) for name, rate in best.items()]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="64 clips, fewer rounds")
    parser.add_argument("--clips", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4])
    given = parser.parse_args()
    torch.set_num_threads(1)
    clips, rounds = (64, 3) if given.quick else (given.clips, given.rounds)
    with tempfile.TemporaryDirectory() as scratch:
        measured = lines(Path(scratch), clips)
        busy, wall = dict.fromkeys(measured, 0.0), dict.fromkeys(measured, 0.0)
        for _ in range(rounds):
            for name, once in measured.items():
                gc.collect()
                started, worked = time.perf_counter(), time.process_time()
                count = once()
                busy[name] = max(busy[name], count / (time.process_time() - worked))
                wall[name] = max(wall[name], count / (time.perf_counter() - started))
        limit, peer = (busy[name] for name in list(measured)[:3:2])
        rows = [
            [name, f"{rate:,.0f}", f"{rate / peer:.1f}", f"{rate / limit:.2f}", f"{wall[name]:,.0f}"]
            for name, rate in busy.items()
        ]
        print(f"{clips} clips of 10 s, 16-bit PCM, one core, batches of {BATCH}\n")
        print(table(["", "examples/s", "to CED's", "to the limit", "by wall time"], rows))
        rows = []
        for workers in given.workers:
            found = with_workers(Path(scratch), clips, workers, min(3, rounds))
            rows += [[name, f"{rate:,.0f}", f"{rate / found[0][1]:.1f}"] for name, rate in found]
        if rows:
            print(f"With worker processes, {os.cpu_count()} cores, wall time\n")
            print(table(["", "examples/s", "to CED's"], rows))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
