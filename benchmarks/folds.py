"""What the students of one held-out fold need: teachers, stores, and every view's log-mel, made once.

Everything goes through the product: ``train-teacher`` and ``logitstore build`` make teachers and stores, the students'
own reader gives draws and targets, and the log-mels are the student's own of the waveforms that its replay gives. Only
one thing is the benchmark's: a log-mel is computed once a view, not once a step. All models of a fold have one front
end, and as many frames of features.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.arms import Arm
from logitstore.arrays import F32, I64
from logitstore.audio.clips import ClipAudio
from logitstore.errors import RunError
from logitstore.evaluation.labelled import Labelled, label_matrix, read_labelled
from logitstore.evaluation.metrics import measure
from logitstore.jobs.build.job import DEFAULT_TOPK, build
from logitstore.jobs.options import BuildOptions
from logitstore.models.registry import build as build_model
from logitstore.models.tagger import Tagger
from logitstore.store.format.codec import quantizer, top_k
from logitstore.store.format.relations import LEAST_FRAMES, MOST_FRAMES
from logitstore.store.reader import Store, open_store
from logitstore.training.batches import Replayer, Views
from logitstore.training.sampling import epoch_steps
from logitstore.views.ops.frequency_mask import FrequencyMask
from logitstore.views.ops.mixup import Mixup
from logitstore.views.ops.roll import Roll
from logitstore.views.ops.time_mask import TimeMask
from logitstore.views.recipe import Masks, Recipe, masks
from logitstore.views.render import pad
from students.data import fresh_draws, stored_views
from students.targets import dense_targets
from teachers.ensemble import Ensemble, load_ensemble
from teachers.options import TeacherOptions
from teachers.train import train_teacher

_Given = ParamSpec("_Given")
_Made = TypeVar("_Made")

RATE = 16_000
MODEL = "cnn4"
FRONT_END: dict[str, Any] = {"mels": 32, "hop_ms": 80.0}
#: What gives the models features for every second frame of the log-mel: 31 in 5 s, where they have 3 without it.
MANY_FRAMES: dict[str, Any] = FRONT_END | {"time_halvings": 1}
TEACHER_WIDTH, TEACHERS = 16, 2
BATCH = 32
FRESH_SEED = 0

_CHUNK = 64  # views that are replayed at a time
_CACHE_BYTES = 1 << 30


@dataclass(frozen=True)
class Data:
    """A labelled data set: a manifest with the columns path, label, fold and number.

    :param folds: every fold. :param pool: how many rows of each of the other folds students learn from; None for all.
    """

    name: str
    manifest: str
    audio_root: str
    folds: tuple[str, ...]
    clip_seconds: float
    main_width: int
    pool: int | None = None

    def pool_where(self, held_out: str) -> str:
        """SQL: what is learned from."""
        return f"fold <> '{held_out}'" + (f" AND number < {self.pool}" if self.pool is not None else "")

    def test_where(self, held_out: str) -> str:
        """SQL: what is measured on."""
        return f"fold = '{held_out}'"


def recipes(seconds: float) -> dict[str, Recipe]:
    """The recipes of the stores: CED's masks in their share of the clip, wider ones, CED's after a mix, none.

    The roll stands first in all of them, so that the same clips are rolled alike whatever follows.
    """
    roll, bands = Roll(probability=0.5, max_fraction=0.5), FrequencyMask(max_steps=24)
    time = TimeMask(max_seconds=round(0.192 * seconds, 2))
    strong = TimeMask(max_seconds=round(0.73 * seconds, 2)), FrequencyMask(max_steps=40)
    return {
        "masks": Recipe("masks", (roll, time, bands)),
        "strong": Recipe("strong", (roll, *strong)),
        "mixup": Recipe("mixup", (roll, Mixup(probability=0.5), time, bands)),
        "still": Recipe("none", ()),
    }


def prepare(
    data: Data,
    held_out: str,
    folder: Path,
    *,
    views: int,
    steps: int,
    teacher_steps: int,
    model_args: Mapping[str, Any] = FRONT_END,
    stores: Sequence[str] = ("masks", "strong", "mixup", "still"),
) -> None:
    """Make what is not there yet: teachers, stores, log-mels and exact targets, under ``folder``.

    :param views: of the stores. :param steps: of the students; every epoch of theirs gets fresh draws of its own.
    :param model_args: of all models, besides their width. :param stores: "masks" alone is enough for students that hear
        the stored views and learn stored targets or labels; nothing is made then that only others need.
    """
    read = functools.partial(
        read_labelled, data.manifest, data.audio_root, "label", clip_seconds=data.clip_seconds, workers=1
    )
    for number in range(TEACHERS):
        train_teacher(
            TeacherOptions(
                manifest=data.manifest, audio_root=data.audio_root, label_column="label", model=MODEL,
                model_args={"width": TEACHER_WIDTH, **model_args}, where=data.pool_where(held_out),
                clip_seconds=data.clip_seconds, steps=teacher_steps, seed=number, device="cpu", workers=1,
                out=str(folder / f"teacher-{number}"),
            )
        )  # fmt: skip
    teachers = [str(folder / f"teacher-{number}") for number in range(TEACHERS)]
    used = {name: recipe for name, recipe in recipes(data.clip_seconds).items() if name in stores}
    for name, recipe in used.items():
        build(
            BuildOptions(
                source=data.manifest, audio_root=data.audio_root, out=str(folder / f"store-{name}"), teachers=teachers,
                views=1 if name == "still" else views, recipe=recipe, where=data.pool_where(held_out),
                clip_seconds=data.clip_seconds, workers=1, device="cpu", shard_clips=4096,
                relations="frames,clips" if name == "masks" else None,
                similarity_frames=_frames(data.clip_seconds, model_args),
            )
        )  # fmt: skip
    opened = {name: open_store(folder / f"store-{name}") for name in used}
    first = opened["masks"]
    classes = first.manifest.classes
    pool, test = read(where=data.pool_where(held_out)), read(where=data.test_where(held_out))
    if pool.table["path"].to_pylist() != first.clips["path"].to_pylist():
        raise RunError(f"{folder}: the stores are not of the clips of {data.manifest}; give another --out")
    audio = ClipAudio(pool.source, pool.table, RATE, _CACHE_BYTES)
    ear = _ear(classes)
    clip_samples = first.manifest.clip_samples
    made = functools.partial(keep, folder)
    made("labels", lambda: label_matrix(pool.labels, classes, whose=data.name)[pool.row_of].astype(np.float32))
    made("test_labels", lambda: label_matrix(test.labels, classes, whose=data.name))
    made("test_row_of", lambda: test.row_of)
    made("test", lambda: _plain(ear, test, clip_samples))
    made("still", lambda: _plain(ear, pool, clip_samples))
    ensemble = _hearing_log_mels(load_ensemble(teachers, classes=classes, sample_rate=RATE))
    made("teachers_test", lambda: _teachers_test(ensemble, folder))
    made("stored", functools.partial(_stored_views, ear, audio, first, views))
    if set(used) == {"masks"}:
        return
    _same_rolls(first, opened["strong"])
    made("mixup", functools.partial(_stored_views, ear, audio, opened["mixup"], views))
    fresh = -(-steps // epoch_steps(len(audio), BATCH))
    made(
        "fresh",
        lambda: np.stack(
            [_heard(ear, audio, first, stored_views(first, 0, fresh=(FRESH_SEED, e))) for e in range(fresh)]
        ),
    )
    made("exact", lambda: _said(ensemble, first, np.load(folder / "stored.npy", mmap_mode="r")))


class Fold:
    """What :func:`prepare` made, opened; ``labels`` float32 (n, C) of the pool, ``classes`` C names.

    :param model_args: those that it was made with.
    """

    def __init__(self, folder: Path, model_args: Mapping[str, Any] = FRONT_END) -> None:
        self.folder, self.model_args = folder, model_args
        self.stores: dict[str, Store] = {}
        self.labels: F32 = np.load(folder / "labels.npy")
        self.test_labels, self.test_row_of = np.load(folder / "test_labels.npy"), np.load(folder / "test_row_of.npy")
        self.clips: I64 = np.arange(len(self.labels), dtype=np.int64)
        self.classes = self.store("masks").manifest.classes
        self._arrays: dict[str, F32] = {}
        self._kept: dict[tuple[Any, ...], Any] = {}
        self._maps: list[float] = []

    def store(self, name: str) -> Store:
        """One of its stores."""
        if name not in self.stores:
            self.stores[name] = open_store(self.folder / f"store-{name}")
        return self.stores[name]

    def array(self, name: str) -> F32:
        """One of its arrays, mapped."""
        if name not in self._arrays:
            self._arrays[name] = np.load(self.folder / f"{name}.npy", mmap_mode="r")
        return self._arrays[name]

    def view(self, arm: Arm, epoch: int) -> int:
        """The stored view whose targets an epoch uses."""
        return epoch % (arm.views or self.store(arm.store).views)

    def sound(self, arm: Arm, epoch: int) -> tuple[F32, Masks]:
        """Log-mels float32 (n, F, T) of the pool in an epoch, and the masks on them."""
        view = self.view(arm, epoch)
        name = {"masks": "stored", "strong": "stored", "mixup": "mixup"}[arm.store]
        if arm.sound == "stored":
            return self.array(name)[view], self._once(self._stored_masks, arm.store, view)
        if epoch >= len(self.array("fresh")):
            raise RunError(
                f"{self.folder}: {len(self.array('fresh'))} fresh draws, and epoch {epoch} needs one more; fresh "
                "sounds are never used twice"
            )
        sound = self.array("fresh")[epoch] if arm.sound == "fresh" else self.array("still")
        return sound, self._once(self._fresh_masks, arm.store, epoch)

    def relations(self, arm: Arm, epoch: int, at: I64, names: Sequence[str]) -> dict[str, torch.Tensor]:
        """What a batch gets of the teachers' relations in an epoch, by the names of its fields.

        :param at: int64 (B,), clips of the pool. :param names: "frames", "clips".
        """
        if not names:
            return {}
        known = self.store(arm.store).relations(self.view(arm, epoch), at)
        found = {"frame_grams": known.frames, "clip_vectors": known.clips}
        wanted = {"frames": "frame_grams", "clips": "clip_vectors"}
        return {wanted[name]: torch.from_numpy(found[wanted[name]]) for name in names}

    def targets(self, arm: Arm, epoch: int) -> F32:
        """What is learned of the pool in an epoch, float32 (n, C)."""
        if arm.target == "labels":
            return self.labels
        if arm.target == "still":
            return self._once(self._stored_targets, "still", 0)
        view = self.view(arm, epoch)
        if arm.target == "stored":
            return self._once(self._stored_targets, arm.store, view)
        exact: F32 = self.array("exact")[self.best_member() + 1 if arm.target == "member" else 0, view]
        if arm.target == "exact" and arm.k is None and arm.bits is None:
            return exact
        k = min(arm.k or DEFAULT_TOPK, len(self.classes))
        return self._once(self._coded, arm.target, view, k, arm.bits or 8)

    def teachers_map(self) -> list[float]:
        """mAP, in points, of the ensemble and then of its members on the test rows."""
        if not self._maps:
            self._maps = [100 * measure(self.test_labels, said).mAP for said in self.array("teachers_test")]
        return self._maps

    def best_member(self) -> int:
        """The teacher with the highest mAP on the test rows: a choice that favours it."""
        return int(np.argmax(self.teachers_map()[1:]))

    def of_fold(self, fold: str) -> npt.NDArray[np.bool_]:
        """Which clips of the pool are of a fold, bool (n,)."""
        return np.array([str(each) == fold for each in self.store("masks").clips["fold"].to_pylist()])

    def bytes_a_view(self, name: str) -> float:
        """Bytes of a store for each of its views, everything included."""
        return round(self.store(name).size() / self.store(name).view_count(), 1)

    def _stored_masks(self, store: str, view: int) -> Masks:
        return _spans(self.store(store).manifest.recipe, self.store(store).draws(view, self.clips))

    def _fresh_masks(self, store: str, epoch: int) -> Masks:
        return _spans(self.store(store).manifest.recipe, fresh_draws(self.store(store), self.clips, FRESH_SEED, epoch))

    def _stored_targets(self, store: str, view: int) -> F32:
        return dense_targets(*self.store(store).targets(view, self.clips), len(self.classes))

    def _coded(self, target: str, view: int, k: int, bits: int) -> F32:
        exact = np.array(self.array("exact")[self.best_member() + 1 if target == "member" else 0, view])
        return coded(exact, k, bits)

    def _once(self, make: Callable[_Given, _Made], *given: _Given.args, **named: _Given.kwargs) -> _Made:
        key = (make.__name__, *given, *named.items())
        if key not in self._kept:
            self._kept[key] = make(*given, **named)
        made: _Made = self._kept[key]
        return made


def coded(exact: F32, k: int, bits: int) -> F32:
    """Dense targets (n, C) as they come back from a store of k classes and so many bits; the tail is zero."""
    classes, probabilities = top_k(exact, k)
    codes = quantizer("sigmoid", bits)
    return dense_targets(classes, codes.table()[codes.encode(probabilities)], exact.shape[1])


def _spans(recipe: Recipe, draws: Any) -> Masks:
    spans = masks(recipe, draws)
    if spans is None:
        raise RunError(f"recipe {recipe.name!r} has no masks")
    return spans.to("cpu")


def _ear(classes: tuple[str, ...]) -> torch.nn.Module:
    """Waveforms to the log-mels of every model here."""
    return build_model(MODEL, len(classes), **FRONT_END).log_mel


def _frames(seconds: float, model_args: Mapping[str, Any]) -> int:
    """Frames of the models' features in a clip: relations of more of them would only repeat some."""
    halvings: int = model_args.get("time_halvings", 4)
    frames = int(seconds * 1000 / FRONT_END["hop_ms"] + 1) >> halvings
    return min(MOST_FRAMES, max(LEAST_FRAMES, frames))


def hearing_log_mels(model: Tagger) -> Tagger:
    """A model whose input are log-mels; masks act where they always do."""
    model.log_mel = torch.nn.Identity()
    return model


def _hearing_log_mels(ensemble: Ensemble) -> Ensemble:
    for member in ensemble.members:
        hearing_log_mels(member.model)  # type: ignore[attr-defined]
    return ensemble


@torch.inference_mode()
def _heard(ear: torch.nn.Module, audio: ClipAudio, store: Store, views: Views) -> F32:
    manifest = store.manifest
    replayer = Replayer(audio, str, manifest.recipe, manifest.clip_samples, manifest.sample_rate)
    parts = [ear(replayer.batch(views, at).waveforms).numpy() for at in _chunks(len(views))]
    return np.concatenate(parts)


def _stored_views(ear: torch.nn.Module, audio: ClipAudio, store: Store, views: int) -> F32:
    return np.stack([_heard(ear, audio, store, stored_views(store, view)) for view in range(views)])


@torch.inference_mode()
def _plain(ear: torch.nn.Module, labelled: Labelled, clip_samples: int) -> F32:
    audio = ClipAudio(labelled.source, labelled.table, RATE)
    return np.concatenate([
        ear(pad([audio[int(clip)] for clip in at], clip_samples)[0]).numpy() for at in _chunks(len(audio))
    ])  # fmt: skip


def _said(ensemble: Ensemble, store: Store, sounds: F32) -> F32:
    """Exact probabilities of the ensemble, then of its members: float32 (1 + M, V, n, C)."""
    found = []
    for view, sound in enumerate(sounds):
        spans = _spans(store.manifest.recipe, store.draws(view))
        parts = []
        for at in _chunks(len(sound)):
            mean, members = ensemble.probabilities(torch.from_numpy(np.array(sound[at])), spans[at], members=True)
            parts.append(np.concatenate([mean[None].numpy(), members.numpy()]))
        found.append(np.concatenate(parts, axis=1))
    return np.stack(found, axis=1)


def _teachers_test(ensemble: Ensemble, folder: Path) -> F32:
    """What the ensemble and its members say of the test rows: float32 (1 + M, rows, C)."""
    sounds, row_of = np.load(folder / "test.npy"), np.load(folder / "test_row_of.npy")
    mean, members = ensemble.probabilities(torch.from_numpy(sounds), None, members=True)
    return by_row(np.concatenate([mean[None].numpy(), members.numpy()]), row_of)


def by_row(scores: F32, row_of: I64) -> F32:
    """Means over the clips of a row: (..., n, C) to (..., rows, C)."""
    order, counts = np.argsort(row_of, kind="stable"), np.bincount(row_of)
    sums = np.add.reduceat(scores[..., order, :], np.concatenate([[0], np.cumsum(counts)[:-1]]), axis=-2)
    return (sums / counts[:, None]).astype(np.float32)


def _same_rolls(one: Store, other: Store) -> None:
    for view in range(one.views):
        if (one.draws(view).columns["roll"] != other.draws(view).columns["roll"]).any():
            raise RunError(f"{one.location} and {other.location} have other rolls, so they do not share their sounds")


def keep(folder: Path, name: str, make: Callable[[], npt.NDArray[Any]]) -> None:
    """Write an array that is not there yet."""
    path = folder / f"{name}.npy"
    if not path.is_file():
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.save(file, make())
        partial.replace(path)


def _chunks(count: int) -> Iterator[I64]:
    return (np.arange(start, min(count, start + _CHUNK)) for start in range(0, count, _CHUNK))
