"""Bytes a view of a store, of CED's layout and of a dense array, on the same targets in one run.

    python -m benchmarks.footprint                 # the base cases, then one axis at a time (about ten minutes)
    python -m benchmarks.footprint --quick         # the base cases alone, with fewer clips
    python -m benchmarks.footprint --store STORE   # what a real store holds, beside CED's layout of the same targets
    python -m benchmarks.footprint --quality 0.5   # stores that choose bits and classes, of at most --topk of them

Everything is counted: arrays, draws, clip table, commits and manifest for ours; HDF5 files and brotli Parquet for
CED's, which is written as its `save_logits.py` does. Percent is of the clips' audio as 16-bit PCM, all views together.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.synthetic import (
    SURE,
    YAMNET_CED,
    YAMNET_GENTLE,
    Case,
    clip_names,
    probabilities,
    synthetic_manifest,
    top_k,
)
from logitstore import open_store
from logitstore.store.format.codec import quantizer
from logitstore.store.format.layout import Kept, Targets
from logitstore.store.format.objects import PACKED, packed_parts
from logitstore.store.format.quality import answers, choose
from logitstore.store.shards import default_shard_clips
from logitstore.store.storage import LocalStorage
from logitstore.store.writer import BlockContent, StoreWriter
from logitstore.views.fingerprint import Fingerprint
from logitstore.views.ops import Place
from logitstore.views.recipe import CED, Draws, draw

RATE = 16_000
SECONDS = 10.0
SAMPLES = int(RATE * SECONDS)
PCM_BYTES = 2 * SAMPLES  # of a clip
NAMES = {SURE: "sure", YAMNET_CED: "as YAMNet, ced", YAMNET_GENTLE: "as YAMNet, gentle"}


@dataclass(frozen=True)
class Row:
    """One line of the table; ``size`` and ``pcm`` (a clip's audio over its views) in bytes a view, rates in views/s."""

    name: str
    size: float
    pcm: float
    divergence: float
    error: float
    encode: float
    decode: float

    def cells(self) -> list[str]:
        """The line as text."""
        return [
            self.name,
            f"{self.size:.1f}",
            f"{100 * self.size / self.pcm:.3f} %",
            f"{self.divergence:.1e}" if self.divergence else "0",
            f"{self.error:.4f}" if self.error else "0",
            f"{self.encode:,.0f}" if self.encode else "",
            f"{self.decode:,.0f}" if self.decode else "",
        ]


HEADER = ["layout", "bytes a view", "of PCM", "KL a view (nats)", "largest error", "encode views/s", "decode views/s"]


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [HEADER, ["---", *["---:"] * (len(HEADER) - 1)], *(row.cells() for row in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def folder_bytes(folder: Path) -> int:
    """Bytes of every file of a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def divergence(exact: np.ndarray, stored: np.ndarray) -> float:
    """Mean over views of the summed Bernoulli KL divergences of the k classes, in nats."""
    p = np.clip(exact.astype(np.float64), 1e-7, 1 - 1e-7)
    q = np.clip(stored.astype(np.float64), 1e-7, 1 - 1e-7)
    return float((p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).sum(axis=-1).mean())


def write_ced(folder: Path, names: Sequence[str], classes: np.ndarray, values: np.ndarray, seconds: float) -> None:
    """CED's layout: one uncompressed HDF5 and one brotli Parquet a view."""
    import h5py

    count, views, k = classes.shape
    seeds = np.random.default_rng(0).integers(0, 1 << 31, (views, count)).astype(np.int32)
    for view in range(views):
        with h5py.File(folder / f"logits_ep{view + 1}_0.h5", "w") as file:
            file.create_dataset("topk_values", data=values[:, view].astype(np.float16), maxshape=(None, k))
            file.create_dataset("topk_indexes", data=classes[:, view].astype(np.int16), maxshape=(None, k))
            file.create_dataset("seeds", data=seeds[view], maxshape=(None,))
        start = pa.array(np.zeros(count, np.float32))
        end = pa.array(np.full(count, seconds, np.float32))
        rows = pa.table({"filename": pa.array(names), "start": start, "end": end})
        pq.write_table(rows, folder / f"logits_ep{view + 1}_0.parquet", compression="brotli")


def read_ced(folder: Path, views: int) -> np.ndarray:
    """Every value of CED's layout, float32 (clips, views, k), file by file."""
    import h5py

    read = []
    for view in range(views):
        with h5py.File(folder / f"logits_ep{view + 1}_0.h5", "r") as file:
            read.append(file["topk_values"][:])
            file["topk_indexes"][:]
    return np.stack(read, axis=1).astype(np.float32)


def entropy(symbols: np.ndarray) -> float:
    """Order-0 entropy of symbols, in bytes for all of them."""
    _, counts = np.unique(symbols, return_counts=True)
    share = counts / counts.sum()
    return float(-(share * np.log2(share)).sum() * counts.sum() / 8)


def estimate(classes: np.ndarray, values: np.ndarray, class_count: int) -> float:
    """Bytes a view that a perfect coder of the same numbers would need, as far as simple models tell.

    Gaps of the classes of a clip and the patterns of views that hold them by their order-0 entropies, the pattern
    given the code in its first view (in 16 levels); first codes by theirs; later codes given the prediction from the
    views before; draws by the logarithm of their ranges; clip names by theirs (66 bits and the start).
    """
    count, views, _ = classes.shape
    codes = quantizer("sigmoid", 8).encode(values).astype(np.int64)
    entries, inverse = np.unique(np.arange(count)[:, None, None] * class_count + classes, return_inverse=True)
    inverse = inverse.reshape(classes.shape)
    grid = np.full((len(entries), views), -1)
    grid[inverse, np.arange(views)[None, :, None]] = codes
    present = grid >= 0
    first = present.argmax(axis=1)
    firsts = grid[np.arange(len(entries)), first]
    size = entropy(np.diff(entries, prepend=-1)) + entropy(firsts)
    patterns = np.packbits(present, axis=1).astype(np.int64) @ (256 ** np.arange(-(-views // 8)))
    size += sum(entropy(patterns[firsts // 16 == level]) for level in np.unique(firsts // 16))
    total, seen, coded, predicted = firsts.copy(), np.ones(len(entries), np.int64), [], []
    for view in range(views):
        here = present[:, view] & (first != view)
        predicted.append((2 * total[here] + seen[here]) // (2 * seen[here]))
        coded.append(grid[here, view])
        total[here] += grid[here, view]
        seen[here] += 1
    later, prediction = np.concatenate(coded), np.concatenate(predicted)
    size += sum(entropy(later[prediction == level]) for level in np.unique(prediction))
    roll, time_mask, frequency_mask = np.log2(SAMPLES), np.log2(192) + np.log2(905), np.log2(24) + np.log2(53.5)
    draws = (1 + 0.5 * roll + time_mask + frequency_mask) / 8
    names = (66 + np.log2(60)) / 8 / views
    return float(size / (count * views) + draws + names)


def write_store(
    folder: Path,
    names: Sequence[str],
    classes: np.ndarray,
    values: np.ndarray,
    class_count: int,
    bits: int,
    quality: float | None = None,
    kept: Sequence[Kept] = (),
) -> None:
    """The same targets as a store with the recipe ``ced`` and the default shard size.

    :param quality: nats; then ``values`` are codes as they are read, and ``kept`` says what each shard keeps.
    """
    count, views, k = classes.shape
    codes = quantizer("sigmoid", bits).encode(values) if quality is None else values
    shard = default_shard_clips(count)
    place = Place(SAMPLES, RATE, shard)
    manifest = synthetic_manifest(class_count, k, bits, RATE, SECONDS, shard, quality)
    clips = pa.table({
        "path": pa.array(names),
        "start": pa.array(np.zeros(count, np.int64)),
        "length": pa.array(np.full(count, SAMPLES, np.int64)),
        "rate": pa.array(np.full(count, RATE, np.int32)),
    })  # fmt: skip
    writer = StoreWriter.open(LocalStorage(folder), manifest, clips)
    mark = Fingerprint(0, 0, "0" * 32, "f" * 32, tuple(float(f"-1{band}.345") for band in range(8)))
    for number in range(writer.shards):
        rows = writer.clips_of(number)
        part = slice(rows.start, rows.stop)
        keys = [(name, 0, SAMPLES) for name in names[part]]
        lengths = np.full(len(rows), SAMPLES)
        drawn = [draw(CED, seed=0, keys=keys, view=v, lengths=lengths, place=place) for v in range(views)]
        columns = {name: np.stack([d.columns[name] for d in drawn], axis=1) for name in CED.columns}
        targets = Targets(classes[part], codes[part], np.ones(len(rows), bool), kept[number] if kept else None)
        content = BlockContent(targets, None, Draws(columns), {}, [mark])
        writer.write_block(number, 0, views, content, f"blocks/{number:06d}-0-{views}")


def measure(case: Case, bits: Sequence[int], *, peers: bool) -> list[Row]:
    """The lines of one case: CED's layout and a dense array where asked, and a store for each number of bits."""
    classes, values = top_k(case)
    names = clip_names(case.clips)
    total = case.clips * case.views
    of = NAMES[case.ensemble] + ("" if case.noise is None else f", noise {case.noise}")
    label = f"{of}, k={case.k}, V={case.views}" + (f", tail -{case.tail}" if case.tail else "")
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        if peers:
            folder = Path(scratch) / "ced"
            folder.mkdir()
            began = time.perf_counter()
            write_ced(folder, names, classes, values, SECONDS)
            written = time.perf_counter()
            stored = read_ced(folder, case.views)
            read = time.perf_counter()
            rows.append(
                Row(f"CED, {label}", folder_bytes(folder) / total, PCM_BYTES / case.views, divergence(values, stored),
                    float(abs(stored - values).max()), total / (written - began), total / (read - written))
            )  # fmt: skip
            rows.append(
                Row(
                    f"dense float16 .npy, {case.classes} classes",
                    2.0 * case.classes,
                    PCM_BYTES / case.views,
                    0,
                    0,
                    0,
                    0,
                )
            )
        for number in bits:
            folder = Path(scratch) / f"store-{number}"
            began = time.perf_counter()
            write_store(folder, names, classes, values, case.classes, number)
            written = time.perf_counter()
            store = open_store(folder)
            stored = np.concatenate([store.block_targets(commit)[1] for commit in store.commits])
            read = time.perf_counter()
            rows.append(
                Row(f"logitstore {number} bits, {label}", folder_bytes(folder) / total, PCM_BYTES / case.views,
                    divergence(values, stored), float(abs(stored - values).max()),
                    total / (written - began), total / (read - written))
            )  # fmt: skip
        if peers:
            size = estimate(classes, values, case.classes)
            rows.append(Row(f"entropy estimate, {label}", size, PCM_BYTES / case.views, 0, 0, 0, 0))
    return rows


def measure_quality(case: Case, asked: float) -> Row:
    """The line of a store that chooses bits and classes, at most the case's k; ``divergence`` is over all classes."""
    shard, kept = default_shard_clips(case.clips), []
    classes, codes = (np.zeros((case.clips, case.views, case.k), np.uint16) for _ in range(2))
    began, lost = time.perf_counter(), 0.0
    for number, said in enumerate(probabilities(case, chunk=shard)):
        found = answers(said.reshape(-1, case.classes), case.k, "sigmoid")
        chosen = choose(found, asked, "sigmoid", case.classes, np.ones(len(found.classes), bool))
        here, shape = slice(number * shard, number * shard + len(said)), said.shape[:2]
        classes[here], codes[here] = found.classes.reshape(*shape, -1), chosen.codes.reshape(*shape, -1)
        counts, rests = chosen.counts.reshape(shape), chosen.rests.reshape(shape)
        kept.append(Kept(counts, rests, chosen.bits, chosen.loss))
        lost += chosen.loss * len(said) / case.clips
    total = case.clips * case.views
    with tempfile.TemporaryDirectory() as folder:
        write_store(Path(folder), clip_names(case.clips), classes, codes, case.classes, 8, asked, kept)
        written = time.perf_counter()
        store = open_store(folder)
        for commit in store.commits:
            store.block_targets(commit)
        read = time.perf_counter()
        mean = sum(int(each.counts.sum()) for each in kept) / total
        label = f"{NAMES[case.ensemble]}: {asked:g} nats, {kept[0].bits} bits, {mean:.1f} of at most {case.k} classes"
        return Row(label, folder_bytes(Path(folder)) / total, PCM_BYTES / case.views, lost, 0,
                   total / (written - began), total / (read - written))  # fmt: skip


def measure_store(location: str) -> list[Row]:
    """A real store, and its targets in CED's layout."""
    store = open_store(location)
    blocks = [store.block_targets(commit) for commit in store.commits]
    views = {commit.views for commit in store.commits}
    if len(views) != 1:
        raise SystemExit(f"{location} has blocks of different numbers of views; give a store of one build")
    kept = np.concatenate([p.any(axis=(1, 2)) for _, p in blocks])
    classes = np.concatenate([c for c, _ in blocks])[kept]
    values = np.concatenate([p for _, p in blocks])[kept]
    names = [Path(path).name for path in store.clips["path"].to_pylist()]
    total = store.view_count()
    lengths = store.lengths(np.flatnonzero(kept))
    pcm = 2 * float(lengths.sum()) / total
    with tempfile.TemporaryDirectory() as scratch:
        write_ced(Path(scratch), [names[i] for i in np.flatnonzero(kept)], classes, values, store.manifest.clip_seconds)
        ced = folder_bytes(Path(scratch)) / total
    label = f"{len(store.manifest.classes)} classes, k={store.manifest.topk}, {total:,} views"
    bits = store.manifest.value_bits
    return [
        Row(f"CED, {label}", ced, pcm, 0, 0, 0, 0),
        Row(f"logitstore {bits} bits, {label}", store.size() / total, pcm, 0, 0, 0, 0),
    ]


def part_sizes(location: str) -> dict[str, float]:
    """Bytes a view of each kind of object of a store, and of each array of its blocks."""
    store = open_store(location)
    sizes: dict[str, float] = {}
    for piece in store.pieces:
        for name, size in piece.sizes().items():
            folder = name.split("/")[0]
            array = name.split("/")[2] if folder == "blocks" and "/c/" in name else folder
            key = "manifest" if name == "zarr.json" else "blocks' zarr.json" if name.endswith("zarr.json") else array
            if array != PACKED or name.endswith("zarr.json"):
                sizes[key] = sizes.get(key, 0) + size
                continue
            group = name.removesuffix("/packed/c/0/0")
            parts = packed_parts(piece.storage.get(f"{group}/packed/zarr.json"), PACKED)
            planes = sum(part.planes for part in parts.values())
            index = np.frombuffer(piece.storage.get(name)[-16 * planes - 4 : -4], "<u8").reshape(planes, 2)
            for part, (row, count, _) in parts.items():
                sizes[part] = sizes.get(part, 0) + int(index[row : row + count, 1].sum())
            sizes["index of planes"] = sizes.get("index of planes", 0) + 16 * planes + 4
    total = store.view_count()
    return {name: size / total for name, size in sorted(sizes.items(), key=lambda item: -item[1])}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the base cases alone, with 2,048 clips")
    parser.add_argument("--base", action="store_true", help="the base cases alone")
    parser.add_argument("--clips", type=int, default=8192)
    parser.add_argument("--store", help="measure this store")
    parser.add_argument("--quality", type=float, action="append", help="nats a view; repeatable")
    parser.add_argument("--topk", type=int, default=20, help="classes of a view at most, with --quality")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if given.store:
        print(table(measure_store(given.store)))
        print(", ".join(f"{name} {size:.2f}" for name, size in part_sizes(given.store).items()))
        return
    if given.quality:
        base = Case(clips=given.clips, k=given.topk, noise=0.35)
        print(table([measure_quality(base, asked) for asked in given.quality]))
        return
    base = Case(clips=2048 if given.quick else given.clips, classes=521, ensemble=YAMNET_GENTLE)
    rows = measure(base, [8], peers=True)
    rows += measure(replace(base, ensemble=YAMNET_CED), [8], peers=True)
    rows += measure(replace(base, ensemble=SURE, classes=527), [8], peers=True)
    if not (given.quick or given.base):
        rows += measure(base, [4, 5, 6, 7, 16], peers=False)
        axes = [
            ("k", 5),
            ("k", 10),
            ("k", 50),
            ("views", 1),
            ("views", 5),
            ("views", 40),
        ]
        for name, value in [*axes, ("tail", 2.0)]:
            changes: dict[str, Any] = {name: value}
            if (name, value) == ("views", 40):
                changes["clips"] = base.clips // 4
            rows += [row for row in measure(replace(base, **changes), [8], peers=True) if ".npy" not in row.name]
    print(table(rows))


if __name__ == "__main__":
    main()
