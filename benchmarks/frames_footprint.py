"""Bytes a view of frame targets: what a store keeps of when, of made events and of real stores.

    python -m benchmarks.frames_footprint            # made events, in several numbers of bits and floors (a minute)
    python -m benchmarks.frames_footprint STORE …    # what stores that were built with --frames hold

Made events: views of 10 s at a hop of 40 ms over 447 classes. A clip has 1 + Poisson(7) events of classes drawn with
weights 1 / rank**0.8, that begin anywhere from 1 s before the clip on, last a log-normal time (median 1 s, sigma 0.8)
with logistic ramps of 30 to 150 ms, and peak at a logit of N(2, 1.5). Each brings three relatives that follow it at
lower logits, as parents in an ontology do; ten more classes murmur all along near a logit of N(-3, 1) that drifts; all
others lie at N(-8, 1). Ten views of a clip are its logits rolled in time, with offsets of N(0, 0.35) a class and noise
of 0.35 that stays alike from frame to frame (0.8). Counted is everything that frame targets add to a block: the packed
array, its description, and the digests of both. ``dense`` is float16 of every frame and class, as PretrainedSED
publishes its logits; ``dense, zstd`` the same codes as a store has them, a byte for every frame and class, compressed.

Error: the mean Bernoulli KL (nats) of a kept frame of a class, and the mean difference of its probability.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from logitstore import open_store
from logitstore.arrays import F32, F64
from logitstore.digests import digest
from logitstore.jobs.report.sizes import packed_sizes
from logitstore.store.format.frames import BITS, FLOOR, FrameSpec, Runs, decode_frames, encode_frames, to_arrays
from logitstore.store.format.objects import FRAMES, ZSTD_LEVEL, encode_group
from logitstore.store.reader import Store

SECONDS, HOP_MS, CLASSES, VIEWS = 10.0, 40, 447, 10
COUNT = int(SECONDS * 1000 / HOP_MS)
BAR = 1_500  # bytes a view
_BATCH = 32
_COMMIT_BYTES = 2 * (len(digest(b"")) + len('"frames/c/0/0":"",'))  # two digests in the commit, and their names
_SETTINGS = ((BITS, FLOOR), (4, FLOOR), (6, FLOOR), (BITS, 0.02), (BITS, 0.1))


def made_clip(random: np.random.Generator) -> F64:
    """Logits of a clip's frames, float64 (T, C)."""
    seconds = (np.arange(COUNT) + 0.5) * HOP_MS / 1000
    popular = 1 / np.arange(1, CLASSES + 1) ** 0.8
    popular /= popular.sum()
    logits = np.broadcast_to(random.normal(-8, 1, CLASSES), (COUNT, CLASSES)).copy()
    for _ in range(1 + int(random.poisson(7))):
        label = int(random.choice(CLASSES, p=popular))
        onset, length = random.uniform(-1, SECONDS), np.exp(random.normal(0, 0.8))
        ramp, peak = random.uniform(0.03, 0.15), random.normal(2, 1.5)
        shape = _sigmoid((seconds - onset) / ramp) * _sigmoid((onset + length - seconds) / ramp)
        track = peak + 1.5 * np.log(np.maximum(shape, 1e-6))
        logits[:, label] = np.maximum(logits[:, label], track)
        for apart in (1, 2, 3):
            other = (label + 37 * apart) % CLASSES
            logits[:, other] = np.maximum(logits[:, other], track - apart * random.uniform(0.5, 1.5))
    for label in random.choice(CLASSES, 10, replace=False, p=popular):
        drift = 0.7 * np.cumsum(random.normal(0, 1, COUNT)) / np.sqrt(COUNT)
        logits[:, label] = np.maximum(logits[:, label], random.normal(-3, 1) + drift)
    return logits


def made_views(random: np.random.Generator) -> F32:
    """Probabilities of the views of a clip, float32 (V, T, C)."""
    clip = made_clip(random)
    views = np.empty((VIEWS, COUNT, CLASSES), dtype=np.float32)
    for view in range(VIEWS):
        noise = random.normal(0, 1, (COUNT, CLASSES))
        for frame in range(1, COUNT):
            noise[frame] = 0.8 * noise[frame - 1] + 0.6 * noise[frame]
        moved = np.roll(clip, int(random.integers(COUNT)), axis=0)
        views[view] = _sigmoid(moved + 0.35 * noise + random.normal(0, 0.35, CLASSES))
    return views


def _sigmoid(values: npt.NDArray[np.floating]) -> F64:
    return np.asarray(1 / (1 + np.exp(-values)), dtype=np.float64)


def added_bytes(runs: Runs) -> int:
    """Bytes that a block with these runs has more than one without."""
    objects = encode_group({}, {}, {FRAMES: to_arrays(runs)})
    return sum(len(data) for name, data in objects.items() if name.startswith(FRAMES)) + _COMMIT_BYTES


def errors(said: F32, runs: Runs, spec: FrameSpec) -> tuple[float, float]:
    """Mean KL in nats, and mean difference of a probability, of the frames and classes that are kept."""
    stored = decode_frames(runs, spec, said.shape[2]).dense()
    kept = stored > 0
    p, q = np.clip(said[kept].astype(np.float64), 1e-7, 1 - 1e-7), stored[kept].astype(np.float64)
    divergence = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    return float(divergence.mean()), float(np.abs(p - q).mean())


def made(clips: int, seed: int) -> None:
    """The table of made events, a block of so many clips."""
    spec = FrameSpec(hop_ms=HOP_MS, count=COUNT, bits=BITS, floor=FLOOR)
    specs = [msgspec.structs.replace(spec, bits=bits, floor=floor) for bits, floor in _SETTINGS]
    random = np.random.default_rng(seed)
    runs: list[list[Runs]] = [[] for _ in specs]
    apart: list[list[tuple[float, float]]] = [[] for _ in specs]
    tracks, active, dense_codes = 0, 0, []
    for number in range(clips):
        said = made_views(random)
        tracks += int((said >= FLOOR).any(axis=1).sum())
        active += int((said >= FLOOR).sum())
        if number < 2:
            codes = spec.quantizer.encode(said).astype(np.uint8)
            dense_codes.append(np.where(said >= FLOOR, codes, 0))
        for at, each in enumerate(specs):
            found = encode_frames(said, each)
            runs[at].append(found)
            apart[at].append(errors(said, found, each))
    views = clips * VIEWS
    stack = np.concatenate(dense_codes)
    packed = len(pa.Codec("zstd", compression_level=ZSTD_LEVEL).compress(stack.tobytes())) / len(stack)
    print(
        f"{clips} clips x {VIEWS} views of {SECONDS:g} s every {HOP_MS} ms, {CLASSES} classes: of a view "
        f"{tracks / views:.1f} classes and {active / views:,.0f} frames x classes lie at {FLOOR:g} or more"
    )
    print(f"{'bits':>6}{'floor':>7}{'bytes a view':>14}{'runs':>8}{'KL (nats)':>11}{'|p - q|':>9}")
    for at, each in enumerate(specs):
        whole = Runs.joined(runs[at])
        divergence, difference = np.mean(apart[at], axis=0)
        size = added_bytes(whole) / views
        says = "" if at else f"   {'within' if size <= BAR else 'above'} the bar of {BAR:,}"
        print(f"{each.bits:>6}{each.floor:>7g}{size:>14,.1f}{len(whole.codes) / views:>8,.1f}{divergence:>11.5f}"
              f"{difference:>9.4f}{says}")  # fmt: skip
    print(f"dense      {2 * COUNT * CLASSES:>12,} bytes a view, zstd of its {BITS}-bit codes {packed:,.0f}")


def stored(place: str) -> None:
    """What a store holds."""
    store = open_store(place)
    spec = store.require_frames()
    sizes: dict[str, int] = {}
    for piece in store.pieces:
        for name, size in piece.sizes().items():
            if f"/{FRAMES}/" not in name:
                continue
            parts: dict[str, Any] = packed_sizes(piece, name) if name.endswith("c/0/0") else {"descriptions": size}
            sizes |= {what: sizes.get(what, 0) + more for what, more in parts.items()}
    views = store.view_count()
    blocks = len(store.commits)
    total = (sum(sizes.values()) + blocks * _COMMIT_BYTES) / views
    runs = tracks = active = 0
    for commit in store.commits:
        frames = store.block_frames(commit)
        runs += len(frames)
        tracks += len(np.unique(frames.clips * len(store.manifest.classes) + frames.classes))
        active += int((frames.stops.astype(np.int64) - frames.starts).sum())
    seconds = store.manifest.clip_seconds
    classes = len(store.manifest.classes)
    dense = 2 * spec.count * classes
    print(
        f"{place}: {views:,} views of {seconds:g} s every {spec.hop_ms} ms, {classes} classes, in {blocks} blocks: "
        f"{total:,.1f} bytes a view, {total * 10 / seconds:,.1f} for 10 s (dense float16 {dense:,}), "
        f"of {tracks / views:.1f} classes, {runs / views:,.1f} runs, {active / views:,.0f} frames x classes a view"
    )
    print("  " + ", ".join(f"{what} {size / views:.1f}" for what, size in sizes.items()))
    runs_a_second, dense_a_second = (read_rate(store, dense) for dense in (False, True))
    print(f"  read in random order, {_BATCH} at a time: {runs_a_second:,.0f} views/s, {dense_a_second:,.0f} made dense")


def read_rate(store: Store, dense: bool) -> float:
    """Views a second of this process, of random clips once their blocks are decoded."""
    random, clips = np.random.default_rng(0), store.clips_of(0)
    read = 0
    for view in range(store.views):
        store.frames(view, clips)
    began = time.process_time()
    while time.process_time() - began < 1.0:
        frames = store.frames(int(random.integers(store.views)), random.choice(clips, _BATCH))
        if dense:
            frames.dense()
        read += _BATCH
    return read / (time.process_time() - began)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", nargs="*")
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    for place in asked.store:
        stored(place)
    if not asked.store:
        made(asked.clips, asked.seed)


if __name__ == "__main__":
    main()
