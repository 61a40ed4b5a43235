"""Ensembles that grow: stores of old and of new teachers, merged, against one store built with all of them at once.

    python -m benchmarks.grow AUDIO --out DIR --teacher runs/a --teacher runs/b [--new 1] [--k 10 20 50]

The last ``--new`` teachers are asked later, for a store of their own that is drawn like the others'. All are asked
once, and everything that they say is kept in 16 bits; the stores of k classes and 8 bits are what is left of that. So
"at once" is what a build with all teachers keeps, and "merged" what ``logitstore merge`` makes of the two.

KL is the sum of Bernoulli divergences from what the ensemble said to what a store says, over the k classes that are
likeliest to the ensemble, in 1/1000 nats, the mean of all views; of a class that a store does not hold, half of its
smallest probability is taken, for all stores alike. Students learn from four fifths of the clips and are compared with
the ensemble, all of its classes, on view 0 of the others: KL in nats, share of views of which the first class is the
same, and mAP with the ensemble's first class as the label.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

import logitstore
from logitstore.arrays import F32, I64
from logitstore.evaluation.agreement import divergence
from logitstore.evaluation.metrics import measure
from logitstore.jobs.merge import MergeProgress, write_joint
from logitstore.models.machine import versions
from logitstore.store.format.codec import top_k
from logitstore.store.joint import Joint
from logitstore.store.piece import open_piece
from logitstore.store.reader import Store, open_store
from logitstore.store.storage import open_storage
from logitstore.store.writer import StoreWriter
from students.data import ReplayDataset

HELD_OUT = 5  # one clip in so many
_BATCH = 32


@dataclass(frozen=True)
class Sizes:
    """How much is done: views of a clip, steps of a student, its width, seeds."""

    views: int = 4
    steps: int = 300
    width: int = 4
    seeds: int = 1


@dataclass(frozen=True)
class Row:
    """What was measured of one store: KL of its targets in nats, share of the ensemble's k classes that it holds, bytes
    a view; and of its students KL in nats, agreement and mAP, means over seeds (NaN without students)."""

    k: int
    store: str
    kl: float
    held: float
    bytes_a_view: float
    student: tuple[float, float, float]


def grow(
    audio: str,
    teachers: Sequence[str],
    out: Path,
    ks: Sequence[int],
    *,
    new: int = 1,
    clip_seconds: float | None = None,
    recipe: str = "auto",
    sizes: Sizes | None = None,
) -> Iterator[Row]:
    """The rows of the table, one a store, as soon as each is measured.

    :param teachers: specs, at least two; the last ``new`` are asked later. :param out: an empty folder, or none.
    """
    sizes = sizes or Sizes()
    old, late = list(teachers[:-new]), list(teachers[-new:])
    everything: dict[str, Any] = {"topk": None, "value_bits": 16, "views": sizes.views}
    if not (out / "old").exists():
        known = len(_vocabulary(old))
        logitstore.build(source=audio, out=str(out / "old"), teachers=old, clip_seconds=clip_seconds, recipe=recipe,
                         **everything | {"topk": known})  # fmt: skip
    if not (out / "new").exists():
        logitstore.build(like=str(out / "old"), audio_root=audio, out=str(out / "new"), teachers=late,
                         **everything | {"topk": len(_vocabulary(late))})  # fmt: skip
    ensemble = Joint([open_piece(out / "old"), open_piece(out / "new")])
    said = _dense(Store([ensemble]))
    for k in ks:
        for name, source in (("old", [out / "old"]), ("new", [out / "new"]), ("at once", [out / "old", out / "new"])):
            narrow(source, k, out / f"{name} {k}")
        merged = out / f"merged {k}"
        logitstore.merge(stores=[str(out / f"old {k}"), str(out / f"new {k}")], ensemble=True, out=str(merged))
        for name in ("at once", "merged", "old"):
            store = open_store(out / f"{name} {k}")
            kl, held = distance(said, store, k)
            student = _students(store, audio, Store([ensemble]), said[0], out / f"runs {name} {k}", sizes)
            yield Row(k, name, kl, held, store.size() / store.view_count(), student)


def narrow(stores: Sequence[Path], k: int, out: Path) -> None:
    """A store of k classes in 8 bits, of one that kept all, or of the ensemble of several."""
    joint = Joint([open_piece(store) for store in stores], topk=k, value_bits=8)
    manifest = joint.manifest if len(stores) > 1 else joint.pieces[0].manifest
    manifest = msgspec.structs.replace(manifest, topk=k, value_bits=8, made_by=versions())
    first = joint.pieces[0]
    parts = [first.storage.get(name) for name in first.clip_files()]
    write_joint(StoreWriter.open_like(open_storage(out), manifest, parts), joint, MergeProgress())


def distance(said: list[F32], store: Store, k: int) -> tuple[float, float]:
    """KL of a store's targets in nats a view, and the share of the ensemble's k classes that it holds.

    :param said: what the ensemble says of each view, float32 (n, C).
    """
    totals, held, views = 0.0, 0.0, 0
    for view, dense in enumerate(said):
        classes, probabilities = store.targets(view, store.clips_of(view))
        filled = np.repeat(probabilities.min(axis=1, keepdims=True) / 2, dense.shape[1], axis=1)
        named = np.zeros(dense.shape, dtype=bool)
        at = classes.astype(np.int64)
        np.put_along_axis(filled, at, probabilities, axis=1)
        np.put_along_axis(named, at, True, axis=1)
        best = top_k(dense, k)[0].astype(np.int64)
        here, there = (np.take_along_axis(each, best, axis=1) for each in (dense, filled))
        totals += float(divergence(here, there, np.ones(best.shape, dtype=bool), "sigmoid").sum())
        held += float(np.take_along_axis(named, best, axis=1).mean(axis=1).sum())
        views += len(dense)
    return totals / views, held / views


def _vocabulary(teachers: Sequence[str]) -> set[str]:
    return {name for spec in teachers for name in logitstore.load_teacher(spec).classes}


def _dense(store: Store) -> list[F32]:
    """Probabilities of every class, of each view float32 (n, C)."""
    found = []
    for view in range(store.views):
        classes, probabilities = store.targets(view, store.clips_of(view))
        dense = np.zeros((len(classes), len(store.manifest.classes)), np.float32)
        np.put_along_axis(dense, classes.astype(np.int64), probabilities, axis=1)
        found.append(dense)
    return found


def _students(
    store: Store, audio: str, ensemble: Store, said: F32, out: Path, sizes: Sizes
) -> tuple[float, float, float]:
    if not sizes.steps:
        return (float("nan"),) * 3
    found = []
    for seed in range(sizes.seeds):
        run = out / str(seed)
        if not (run / "model.safetensors").exists():
            logitstore.train_student(
                store=store.location, audio_root=audio, student="cnn4", model_args={"width": sizes.width, "hop_ms": 20},
                out=str(run), steps=sizes.steps, batch_size=_BATCH, seed=seed, tail="half",
                where=f"clip % {HELD_OUT} <> 0",
            )  # fmt: skip
        clips = ensemble.clips_of(0)
        apart = np.flatnonzero(clips % HELD_OUT == 0)
        found.append(_compared(run, ReplayDataset(ensemble, audio, 0, rows=clips[apart]), said[apart], store, ensemble))
    means = np.mean(found, axis=0)
    return float(means[0]), float(means[1]), float(means[2])


def _compared(run: Path, data: ReplayDataset, said: F32, store: Store, ensemble: Store) -> tuple[float, float, float]:
    model = logitstore.load_student(str(run)).eval()
    answers = []
    with torch.inference_mode():
        for low in range(0, len(data), _BATCH):
            batch = ReplayDataset.collate([data[i] for i in range(low, min(low + _BATCH, len(data)))])
            answers.append(model(batch["waveform"], batch["masks"]).sigmoid().numpy())
    place = {name: number for number, name in enumerate(ensemble.manifest.classes)}
    columns: I64 = np.array([place[name] for name in store.manifest.classes], dtype=np.int64)
    answer = np.full(said.shape, 1e-4, np.float32)
    answer[:, columns] = np.concatenate(answers)
    first = said.argmax(axis=1)
    labels = np.zeros(said.shape, bool)
    labels[np.arange(len(said)), first] = True
    agreement = float((answer.argmax(axis=1) == first).mean())
    return (
        float(divergence(said, answer, np.ones(said.shape, dtype=bool), "sigmoid").mean()),
        agreement,
        measure(labels, answer).mAP,
    )


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    lines = [
        "| k | store | KL of targets | of the ensemble's k classes | bytes a view | student: KL, agreement, mAP |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        kl, agreement, score = row.student
        lines.append(
            f"| {row.k} | {row.store} | {1000 * row.kl:.2f} | {100 * row.held:.1f} % | {row.bytes_a_view:.1f} | "
            f"{kl:.3f}, {100 * agreement:.1f} %, {score:.3f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("audio", help="a folder of audio")
    parser.add_argument("--out", required=True, type=Path, help="where stores and students go; what is there is used")
    parser.add_argument("--teacher", action="append", required=True, help="a teacher, as for build; repeatable")
    parser.add_argument("--new", type=int, default=1, help="how many of the teachers, the last, come later")
    parser.add_argument("--k", type=int, nargs="+", default=[10, 20, 50])
    parser.add_argument("--clip-seconds", type=float)
    parser.add_argument("--recipe", default="auto", help="how views are augmented")
    parser.add_argument("--views", type=int, default=Sizes.views)
    parser.add_argument("--steps", type=int, default=Sizes.steps, help="of a student; 0 for no students")
    parser.add_argument("--seeds", type=int, default=Sizes.seeds)
    parser.add_argument("--fresh", action="store_true", help="empty --out first")
    given = parser.parse_args()
    if given.fresh:
        shutil.rmtree(given.out, ignore_errors=True)
    sizes = Sizes(views=given.views, steps=given.steps, seeds=given.seeds)
    rows = []
    for row in grow(given.audio, given.teacher, given.out, given.k, new=given.new, clip_seconds=given.clip_seconds,
                    recipe=given.recipe, sizes=sizes):  # fmt: skip
        rows.append(row)
        print(table([row]).splitlines()[-1], flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
