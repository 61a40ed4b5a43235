"""What the similarity losses' part of a store costs and how far it errs, of any source and teachers with features.

    python -m benchmarks.relations                # synthetic scenes, two small teachers trained on them (minutes)
    python -m benchmarks.relations labels.csv --audio-root audio --clip-seconds 5 --teacher runs/t1 --teacher runs/t2

A store is built with `--relations frames,clips`; some of its views are replayed, the teachers are asked again, and what
the losses would make of the exact features is held against what they make of the stored bytes:

error    ‖stored - exact‖_F / ‖exact‖_F of the row-normalised matrix, mean over matrices
signal   the same off the diagonal: root mean square error over the standard deviation of the exact entries
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.tables import table
from logitstore import open_store
from logitstore.arrays import F32, F64
from logitstore.audio.clips import ClipAudio
from logitstore.audio.sources import open_audio, open_source
from logitstore.jobs.build.job import build
from logitstore.jobs.build.relate import mean_gram, unit_frames
from logitstore.jobs.options import BuildOptions
from logitstore.jobs.synth import write_scenes
from logitstore.store.format.basis import Basis, fit
from logitstore.store.format.commits import Commit
from logitstore.store.format.relations import ARRAYS, decode_clips, encode_clips, relation_bytes
from logitstore.store.reader import Store
from logitstore.views.recipe import Draws
from logitstore.views.render import Renderer
from teachers.ensemble import Ensemble, load_ensemble

BATCH, BATCHES, SEED = 32, 200, 0


def rows_of(matrices: Any) -> F64:
    """Matrices (…, n, n) with every row divided by its norm."""
    values = np.asarray(matrices, dtype=np.float64)
    norms = np.linalg.norm(values, axis=-1, keepdims=True)
    return values / np.where(norms > 0, norms, 1.0)


def errors(exact: Sequence[F64], found: Sequence[F64]) -> tuple[float, float]:
    """(error, signal) of row-normalised matrices; see the module."""
    relative, squares, entries = [], [], []
    for one, other in zip(exact, found, strict=True):
        off = ~np.eye(len(one), dtype=bool)
        relative.append(float(np.linalg.norm(other - one) / np.linalg.norm(one)))
        squares.append(((other - one)[off] ** 2).mean())
        entries.append(one[off])
    return float(np.mean(relative)), float(np.sqrt(np.mean(squares)) / np.concatenate(entries).std())


def clip_errors(exact: F32, found: F32, *, unit: bool = True) -> tuple[float, float]:
    """(error, signal) of SP's matrices of random batches of vectors (n, D) and what stands for them (n, d).

    :param unit: whether a clip's product with itself is taken to be 1, as the loss does.
    """
    random = np.random.default_rng(SEED)
    one, other = [], []
    for _ in range(BATCHES):
        chosen = random.choice(len(exact), min(BATCH, len(exact)), replace=False)
        products = found[chosen] @ found[chosen].T
        if unit:
            np.fill_diagonal(products, 1.0)
        one.append(rows_of(exact[chosen] @ exact[chosen].T))
        other.append(rows_of(products))
    return errors(one, other)


def features_of(
    store: Store, audio: ClipAudio, ensemble: Ensemble, views: Sequence[tuple[int, int]]
) -> list[torch.Tensor]:
    """The exact features (n, T_m, D_m) of each member, of stored views (clip, view)."""
    found: list[list[torch.Tensor]] = []
    renderer = Renderer(audio, store.manifest.recipe, store.manifest.place)
    for start in range(0, len(views), BATCH):
        clips = np.array([clip for clip, _ in views[start : start + BATCH]])
        draws = Draws.joined([store.draws(view, [clip]) for clip, view in views[start : start + BATCH]])
        rendered = renderer.batch(clips, draws, store.partners(clips, draws))
        for error in rendered.errors.values():
            raise error
        found.append(list(ensemble.outputs(rendered.waveforms, rendered.masks).features))
    return [torch.cat(parts).cpu() for parts in zip(*found, strict=True)]


def frame_rows(store: Store, views: Sequence[tuple[int, int]], features: list[torch.Tensor]) -> list[list[str]]:
    """Lines of the table of IUSP: as stored, and what else could have been stored."""
    spec = store.require_relations(frames=True)
    exact = mean_gram(features, spec.pooled).numpy()
    stored = np.concatenate([store.relations(view, [clip]).frames for clip, view in views])
    highest = np.abs(exact).max(axis=(1, 2), keepdims=True)
    linear = np.round(exact / highest * 255) / 255
    count = spec.pooled * (spec.pooled + 1) // 2
    per_view = relation_bytes(store.storage.sizes())["frames"] / store.view_count()
    kinds: list[tuple[str, str, F32]] = [
        ("stored: norms and angles, 8 bits", f"{per_view:.1f}", stored),
        ("triangle, linear in 8 bits, not compressed", f"{count + 1}", linear),
        ("triangle, float16, not compressed", f"{2 * count}", exact.astype(np.float16).astype(np.float32)),
    ]
    return [
        ["IUSP", name, size, *_percent(errors(list(rows_of(exact)), list(rows_of(values))))]
        for name, size, values in kinds
    ]


def clip_rows(store: Store, views: Sequence[tuple[int, int]], features: list[torch.Tensor]) -> list[list[str]]:
    """Lines of the table of SP: as stored, at other ranks of the basis, and projected at random."""
    spec = store.require_relations(clips=True)
    members = [part.numpy() for part in unit_frames(features, spec.pooled)]
    whole = np.concatenate([part.reshape(len(part), -1) for part in members], axis=1)
    stored = np.concatenate([store.relations(view, [clip]).clips for clip, view in views])
    exact = store.basis.project(members)
    sizes, count = relation_bytes(store.storage.sizes()), store.view_count()
    rows = [
        ["SP", "stored: 64 components, 8 bits", f"{sizes['clips'] / count:.1f} + basis {sizes['basis'] / count:.1f}",
         *_percent(clip_errors(whole, stored))],
        ["SP", "stored, the diagonal left as it is", "", *_percent(clip_errors(whole, stored, unit=False))],
    ]  # fmt: skip
    rows += [
        ["SP", f"first {rank} components, not rounded", "", *_percent(clip_errors(whole, exact[:, :rank]))]
        for rank in (16, 32, 64)
    ]
    random = np.random.default_rng(SEED)
    for width in (64, 256):
        signs = random.choice(np.array([-1, 1], np.float32), (whole.shape[1], width)) / np.float32(width**0.5)
        rows.append(
            [
                "SP",
                f"random ±1 projection to {width}",
                "",
                *_percent(clip_errors(whole, (whole @ signs).astype(np.float32))),
            ]
        )
    clips = np.array([clip for clip, _ in views])
    half = np.isin(clips, np.unique(clips)[::2])
    known, other = [part[half] for part in members], [part[~half] for part in members]
    kinds: list[tuple[str, Callable[[], F32]]] = [
        ("basis of half of the clips, on the other half", lambda: _stored(fit(known), other)),
        ("the same in one step from all features to 64", lambda: _one_step(whole[half], whole[~half])),
    ]
    return rows + [["SP", name, "", *_percent(clip_errors(whole[~half], make()))] for name, make in kinds]


def _stored(basis: Basis, members: list[F32]) -> F32:
    return decode_clips(encode_clips(basis.project(members), basis.mean), basis.mean)


def _one_step(known: F32, other: F32) -> F32:
    _, _, components = np.linalg.svd(known, full_matrices=False)
    projected: F32 = other @ components[:64].T
    return projected


def _percent(pair: tuple[float, float]) -> list[str]:
    return [f"{100 * value:.2f} %" for value in pair]


def commit_bytes(store: Store) -> int:
    """Bytes that the names and digests of the relations' objects take in the commits, the basis's among them."""

    def of(commit: Commit) -> int:
        named = sum(len(f'"{name}":"{digest}",') for name, digest in commit.objects.items()
                    if name.split("/")[0] in ARRAYS)  # fmt: skip
        return named + (len(f'"basis":"{commit.basis}",') if isinstance(commit.basis, str) else 0)

    return sum(map(of, store.commits))


def report(store: Store, audio: ClipAudio, ensemble: Ensemble, count: int) -> str:
    """The table of a store with both relations, measured on up to ``count`` of its views beyond the first."""
    random = np.random.default_rng(SEED)
    late = [(int(clip), view) for view in range(min(1, store.views - 1), store.views) for clip in store.clips_of(view)]
    views = [late[i] for i in sorted(random.choice(len(late), min(count, len(late)), replace=False))]
    features = features_of(store, audio, ensemble, views)
    header = ["loss", "what", "bytes a view", "error", "signal"]
    lines = [
        f"{store.clips.num_rows:,} clips x {store.views} views in {len(store.commits)} blocks, errors of {len(views)}",
        f"teachers: {', '.join(member.name for member in store.manifest.teachers)}; {len(features)} members, "
        f"features {', '.join(str(tuple(part.shape[1:])) for part in features)} pooled to "
        f"{store.require_relations().pooled} frames",
        f"names and digests in the commits: {commit_bytes(store) / store.view_count():.1f} bytes a view more",
        "",
        table(header, frame_rows(store, views, features) + clip_rows(store, views, features)),
    ]
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", help="as for logitstore build; without it, synthetic scenes")
    parser.add_argument("--audio-root")
    parser.add_argument("--where")
    parser.add_argument("--teacher", action="append", default=[], help="a teacher with features; repeatable")
    parser.add_argument("--clip-seconds", type=float, default=10.0)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--measured", type=int, default=480, help="views that errors are measured on")
    parser.add_argument("--store", help="a store with both relations that was built from the source before")
    asked = parser.parse_args()
    if asked.source is not None and not asked.teacher:
        parser.error("a source needs --teacher SPEC")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if asked.source is None:
            _synthetic(folder, asked)
        place = asked.store or str(folder / "store")
        if not asked.store:
            build(
                BuildOptions(
                    source=asked.source, out=place, teachers=asked.teacher, audio_root=asked.audio_root,
                    where=asked.where, clip_seconds=asked.clip_seconds, views=asked.views,
                    relations="frames,clips", similarity_frames=asked.frames,
                )
            )  # fmt: skip
        store = open_store(place)
        root = open_audio(asked.audio_root) if asked.audio_root else open_source(asked.source)
        audio = ClipAudio(root, store.clips, store.manifest.sample_rate)
        ensemble = load_ensemble(asked.teacher, sample_rate=store.manifest.sample_rate)
        print(report(store, audio, ensemble, asked.measured))


def _synthetic(folder: Path, asked: argparse.Namespace) -> None:
    """Scenes of 12 classes, and two small teachers trained on them for a moment."""
    from logitstore.cli.train_teacher import train_teacher_command as train_teacher

    manifest, _ = write_scenes(folder, clips=240, test_clips=0, classes=12, seconds=4.0, seed=SEED)
    asked.source, asked.audio_root, asked.clip_seconds = str(manifest), str(folder / "audio"), 4.0
    for seed in ("1", "2"):
        out = str(folder / f"teacher-{seed}")
        train_teacher(
            [str(manifest), "--audio-root", asked.audio_root, "--label-column", "labels", "--clip-seconds", "4",
             "--model", "cnn4", "--model-arg", "width=8", "--steps", "60", "--seed", seed, "--out", out],
            standalone_mode=False,
        )  # fmt: skip
        asked.teacher.append(out)


if __name__ == "__main__":
    main()
