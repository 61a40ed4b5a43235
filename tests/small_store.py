"""Small stores for tests, written through the real writer: made-up targets, every draw from the real recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from logitstore.store.format.codec import quantizer, top_k
from logitstore.store.format.commits import object_name
from logitstore.store.format.frames import BITS, FLOOR, FrameSpec, encode_frames, frame_count
from logitstore.store.format.layout import Kept, Targets, columns_for
from logitstore.store.format.manifest import Manifest, Member, written_version
from logitstore.store.format.quality import REST, answers, choose
from logitstore.store.storage import LocalStorage
from logitstore.store.writer import BlockContent, StoreWriter
from logitstore.views.ops import Place
from logitstore.views.recipe import CED, Draws, Recipe, draw

RATE = 16_000


@dataclass(frozen=True)
class Spec:
    """What to build; the defaults give 5 shards of up to 8 clips, 3 views, 5 of 12 classes, clip 10 unreadable."""

    clips: int = 37
    shard_clips: int = 8
    version: int | None = None  # of the format: what the options need
    quality: float | None = None  # nats
    view_ranges: tuple[tuple[int, int], ...] = ((0, 3),)
    classes: int = 12
    topk: int = 5
    recipe: Recipe = CED
    scores: str = "sigmoid"
    keep_members: bool = False
    failed: tuple[int, ...] = (10,)
    skip_blocks: tuple[str, ...] = ()
    seed: int = 1
    spread: float = 1.5  # of the logits of a class over the clips
    skew: float = 0.0  # by how much they fall from class to class
    path: str = "folder/clip {:06d}.wav"
    reason: str = "not audio"
    weights: tuple[float, float] = (0.5, 0.5)  # of the members
    hop_ms: int | None = None  # of frames


@dataclass(frozen=True)
class Made:
    """A store and what was written into it: classes uint16, probabilities as decoded float32, both (N, V, k).

    ``exact`` float32 (N, V, C) is what it was written from. With a quality every view keeps fewer classes: places that
    are not used have the class C and the probability 0, and ``rests`` are what stands for the other classes.
    """

    path: Path
    classes: npt.NDArray[np.uint16]
    probabilities: npt.NDArray[np.float32]
    members: npt.NDArray[np.float32]  # (M, N, V, k)
    draws: dict[str, npt.NDArray[np.int64]]  # (N, V)
    readable: npt.NDArray[np.bool_]
    names: tuple[str, ...]
    exact: npt.NDArray[np.float32]
    rests: npt.NDArray[np.float32]  # (N, V)
    frames: npt.NDArray[np.float32]  # (N, V, T, C), as the ensemble said them; T is 0 of a store without


def names_of(spec: Spec) -> tuple[str, ...]:
    """The names of a store's classes."""
    return tuple(f"class {number}" for number in range(spec.classes))


def make_store(path: Path, spec: Spec | None = None, **columns: Any) -> Made:
    """Write a store. ``columns`` are further columns of its clip table."""
    spec = spec or Spec()
    rng = np.random.default_rng(spec.seed)
    place = Place(2 * RATE, RATE, spec.shard_clips)
    names = names_of(spec)
    members = tuple(
        Member("net", f"{i:032x}", spec.scores, RATE, each, {"fill": 0}) for i, each in enumerate(spec.weights)
    )
    frames = None
    if spec.hop_ms is not None:
        count = frame_count(spec.hop_ms, place.clip_samples, RATE)
        frames = FrameSpec(hop_ms=spec.hop_ms, count=count, bits=BITS, floor=FLOOR)
    manifest = Manifest(
        format_version=spec.version or written_version(frames, spec.quality),
        frames=frames,
        classes=names,
        scores=spec.scores,
        teachers=members,
        average="probability",
        recipe_document=spec.recipe.to_dict(),
        draw_columns=tuple(vars(column) for column in columns_for(spec.recipe.ranges(place))),
        seed=7,
        sample_rate=RATE,
        clip_seconds=2.0,
        topk=spec.topk,
        value_bits=8,
        shard_clips=spec.shard_clips,
        batch_size=8,
        device_kind="cpu",
        precision="float32",
        keep_members=spec.keep_members,
        quality=spec.quality,
        made_by={"logitstore": "test"},
    )
    paths = [spec.path.format(number) for number in range(spec.clips)]
    lengths = np.where(np.isin(np.arange(spec.clips), spec.failed), 0, RATE)
    table = pa.table(
        {
            "path": pa.array(paths),
            "start": pa.array(np.zeros(spec.clips, np.int64)),
            "length": pa.array(lengths),
            "rate": pa.array(np.where(lengths > 0, RATE, 0).astype(np.int32)),
            **columns,
        }
    )
    storage = LocalStorage(path)
    writer = StoreWriter.open(storage, manifest, table)
    quantize = quantizer(spec.scores, 8)
    views = spec.view_ranges[-1][1]
    shape = (spec.clips, views, spec.topk)
    classes, codes = np.zeros(shape, np.uint16), np.zeros(shape, np.uint16)
    member_codes = np.zeros((2, *shape), np.uint16)
    exact, rests = np.zeros((spec.clips, views, spec.classes), np.float32), np.zeros(shape[:2], np.float32)
    kept_of: dict[str, Kept] = {}
    readable = np.ones(spec.clips, bool)
    readable[list(spec.failed)] = False
    drawn = {name: np.zeros((spec.clips, views), np.int64) for name in spec.recipe.columns}
    when = made_frames(spec.seed, (spec.clips, views, 0 if frames is None else frames.count, spec.classes))
    when[~readable] = 0
    for shard in range(writer.shards):
        rows = np.array(writer.clips_of(shard))
        level = rng.normal(-3, spec.spread, (len(rows), 1, spec.classes)) - spec.skew * np.arange(spec.classes)
        scores = level + rng.normal(0, 0.5, (len(rows), views, spec.classes))
        if spec.scores == "sigmoid":
            dense = (1 / (1 + np.exp(-scores))).astype(np.float32)
        else:
            dense = (np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)).astype(np.float32)
        exact[rows] = dense
        best, values = top_k(dense.reshape(-1, spec.classes), spec.topk)
        order = np.lexsort((best, -quantize.encode(values).astype(np.int64)), axis=1)  # as the store gives them back
        classes[rows] = np.take_along_axis(best, order, 1).reshape(len(rows), views, -1)
        codes[rows] = quantize.encode(np.take_along_axis(values, order, 1)).reshape(len(rows), views, -1)
        if spec.quality is not None:
            for start, stop in spec.view_ranges:
                here = rows, slice(start, stop)
                kept = _kept(dense[:, start:stop], spec, readable[rows], classes, codes, here)
                kept_of[f"{shard:06d}-{start}-{stop}"] = kept
                rests[here] = REST.table()[kept.rests]
        member_codes[:, rows] = np.clip(codes[rows] + rng.integers(-3, 4, (2, *codes[rows].shape)), 0, 255)
        for view in range(views):
            own = draw(
                spec.recipe, seed=7, keys=[(paths[row], 0, int(lengths[row])) for row in rows], view=view,
                lengths=lengths[rows], place=place, shard_rows=len(rows),
            )  # fmt: skip
            for name, values_of in own.columns.items():
                drawn[name][rows, view] = values_of
        hidden = rows[~readable[rows]]
        classes[hidden], codes[hidden], member_codes[:, hidden] = 0, 0, 0
        for start, stop in spec.view_ranges:
            name = f"{shard:06d}-{start}-{stop}"
            if name in spec.skip_blocks:
                continue
            within = slice(start, stop)
            content = BlockContent(
                Targets(classes[rows][:, within], codes[rows][:, within], readable[rows], kept_of.get(name)),
                member_codes[:, rows][:, :, within] if spec.keep_members else None,
                Draws({column: values_of[rows][:, within] for column, values_of in drawn.items()}),
                {int(row - rows[0]): spec.reason for row in hidden},
                (),
                frames=None if frames is None else encode_frames(_flat(when[rows][:, within]), frames),
            )
            writer.write_block(shard, start, stop, content, f"blocks/{name}")
    decoded = quantize.table()
    probabilities, member_values = decoded[codes], decoded[member_codes]
    probabilities[~readable], rests[~readable] = 0, 0
    probabilities[classes == spec.classes] = 0
    member_values[:, classes == spec.classes] = np.nan
    member_values[:, ~readable] = 0
    return Made(path, classes, probabilities, member_values, drawn, readable, names, exact, rests, when)


def _kept(
    dense: npt.NDArray[np.float32], spec: Spec, readable: npt.NDArray[np.bool_], classes: Any, codes: Any, here: Any
) -> Kept:
    """What a block keeps, with its classes and codes put where they are written."""
    assert spec.quality is not None
    rows, views = dense.shape[:2]
    said = answers(dense.reshape(-1, spec.classes), spec.topk, spec.scores)
    of_views = np.repeat(readable, views)
    chosen = choose(said, spec.quality, spec.scores, spec.classes, of_views)
    used = np.arange(spec.topk) < chosen.counts[:, None]
    labels, found = np.where(used, said.classes, spec.classes), np.where(used, chosen.codes, 0)
    order = np.lexsort((labels, -found.astype(np.int64), ~used), axis=1)
    for into, values in ((classes, labels), (codes, found)):
        into[here] = np.take_along_axis(values, order, axis=1).reshape(rows, views, -1)
    counts, rests = (np.where(of_views, each, 0).reshape(rows, views) for each in (chosen.counts, chosen.rests))
    return Kept(counts.astype(np.uint16), rests.astype(np.uint8), chosen.bits, chosen.loss)


def made_frames(seed: int, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Probabilities float32 (…, T, C) of events: most classes silent, some on for a while, with soft ends."""
    random = np.random.default_rng((seed, 1))
    *views, frames, classes = shape
    center, half = random.uniform(0, frames, (*views, 1, classes)), random.exponential(frames / 6, (*views, 1, classes))
    away = np.abs(np.arange(frames)[:, None] - center) - half
    loud = random.normal(1, 1, (*views, 1, classes)) - 8 * (random.random((*views, 1, classes)) > 0.3)
    logits = loud - np.maximum(away, 0) + random.normal(0, 0.2, shape)
    return np.asarray(1 / (1 + np.exp(-logits)), dtype=np.float32)


def _flat(frames: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return frames.reshape(-1, *frames.shape[2:])


def damage(path: Path, block: str) -> Path:
    """Change one byte in the middle of an object of a block; returns the file."""
    objects: dict[str, str] = msgspec.json.decode((path / object_name(block)).read_bytes())["objects"]
    name = next(name for name in sorted(objects) if name.startswith(("classes/c/", "packed/c/")))
    file: Path = path / "blocks" / block / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    return file
