"""Other definitions of SP and IUSP than the product's, for comparison: from exact features, not from a store.

The product's features are means over bands, a clip's are divided by their norm, and members are averaged before rows
are normalised. Here a loss may take the maps before that mean, clips as loud as they are (SP as published), or the mean
of the members' row-normalised matrices. Teachers and students are of ``cnn4`` and have as many frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.arms import Arm
from benchmarks.folds import RATE, TEACHERS, Fold, hearing_log_mels, keep
from logitstore.arrays import I64
from logitstore.models.cnn4 import Cnn4
from logitstore.models.grams import gram, row_normalised
from logitstore.views.recipe import Masks
from students.terms import Pass, Setting, Term
from teachers.ensemble import load_ensemble

_CHUNK = 64  # views at a time
POOLED, MAPS = 0, 1  # features after and before their mean over bands


@dataclass(frozen=True)
class Variant:
    """How a loss is defined.

    :param term: "sp" or "iusp". :param maps: whether features are those before the mean over bands.
    :param unit: whether a clip's features are divided by their norm (SP).
    :param by_row: whether members' matrices are row-normalised before their mean, not after.
    """

    term: str
    maps: bool = False
    unit: bool = True
    by_row: bool = False


class Unpooled(Cnn4):
    """``cnn4`` whose frames are maps, (B, T, D x bands); what it says is the same."""

    def frame_features(
        self, waveforms: torch.Tensor, masks: Masks | None = None, mix: torch.Tensor | None = None
    ) -> torch.Tensor:
        return self.maps(waveforms, masks, mix).permute(0, 3, 1, 2).flatten(2)

    def head(self, frames: torch.Tensor) -> torch.Tensor:
        return super().head(over_bands(frames, self.output.in_features))


def over_bands(frames: torch.Tensor, features: int) -> torch.Tensor:
    """Maps (B, T, D x bands) averaged over bands: (B, T, D)."""
    return frames.reshape(*frames.shape[:2], features, -1).mean(dim=3)


class Compared(Term):
    """The loss of a variant, against exact matrices of every member."""

    def __init__(self, variant: Variant, features: int) -> None:
        super().__init__(Setting("bce"))
        self.variant, self.features = variant, features
        self.relations = ("clips",) if variant.term == "sp" else ("frames",)  # type: ignore[misc]

    def __call__(self, said: Pass) -> torch.Tensor:
        variant, own = self.variant, said.given("frames")
        if not variant.maps:
            own = over_bands(own, self.features)
        if variant.term == "iusp":
            given = said.given("frame_grams")[:, :, int(variant.maps)].transpose(0, 1).float()  # (M, B, T, T)
            given = given / given.norm(dim=(2, 3), keepdim=True).clamp(min=1e-12)
            student = row_normalised(gram(own))
        else:
            given = said.given("clip_vectors")[:, :, int(variant.maps)].transpose(0, 1)  # (M, B, B)
            vectors = own.flatten(1)
            if variant.unit:
                norms = given.diagonal(dim1=1, dim2=2).clamp(min=1e-12).sqrt()
                given, vectors = given / (norms[:, :, None] * norms[:, None, :]), F.normalize(vectors, dim=1)
            student = row_normalised(vectors @ vectors.T)
        teacher = row_normalised(given).mean(dim=0) if variant.by_row else row_normalised(given.mean(dim=0))
        return (teacher - student).square().mean(dim=(-2, -1)).mean()


class ExactFold(Fold):
    """A fold whose relations are exact and of every member: (B, M, 2, T, T) of frames, (B, M, 2, B) of clips."""

    def relations(self, arm: Arm, epoch: int, at: I64, names: Sequence[str]) -> dict[str, torch.Tensor]:
        view, found = self.view(arm, epoch), {}
        if "frames" in names:
            found["frame_grams"] = torch.from_numpy(np.array(self.array("frame_grams")[view][at]))
        if "clips" in names:
            of_batch = np.array(self.array("clip_grams")[view])[:, :, at][:, :, :, at]
            found["clip_vectors"] = torch.from_numpy(of_batch.transpose(2, 0, 1, 3).copy())
        return found


def keep_relations(folder: Path) -> None:
    """Make what :class:`ExactFold` needs beside what ``prepare`` made: all views' ``frame_grams`` and ``clip_grams``.

    The latter hold every pair of clips of the pool, in bytes 8 x V x M x n²: for hundreds of clips.
    """
    fold = Fold(folder)
    ensemble = load_ensemble([str(folder / f"teacher-{number}") for number in range(TEACHERS)],
                             classes=fold.classes, sample_rate=RATE)  # fmt: skip
    models = [hearing_log_mels(member.model) for member in ensemble.members]  # type: ignore[attr-defined]
    for model in models:
        model.__class__ = Unpooled
        model.eval()
    made: dict[str, np.ndarray] = {}

    def relations(name: str) -> np.ndarray:
        if not made:
            found = [_view(fold, models, view) for view in range(fold.store("masks").views)]
            made["frame_grams"] = np.stack([frames for frames, _ in found])
            made["clip_grams"] = np.stack([clips for _, clips in found])
        return made[name]

    for name in ("frame_grams", "clip_grams"):
        keep(folder, name, lambda name=name: relations(name))  # type: ignore[misc]


@torch.inference_mode()
def _view(fold: Fold, models: Sequence[torch.nn.Module], view: int) -> tuple[np.ndarray, np.ndarray]:
    """Of a view: frames' matrices float16 (n, M, 2, T, T), of Frobenius norm 1, and clips' float32 (M, 2, n, n)."""
    sounds, masks = fold.sound(Arm(), view)
    frames, clips = [], []
    for model in models:
        parts = []
        for start in range(0, len(sounds), _CHUNK):
            at = np.arange(start, min(len(sounds), start + _CHUNK))
            parts.append(model.frame_features(torch.from_numpy(np.array(sounds[at])), masks[at]))  # type: ignore
        maps = torch.cat(parts)
        both = (over_bands(maps, model.output.in_features), maps)  # type: ignore
        frames.append(torch.stack([F.normalize(gram(each).flatten(1), dim=1) for each in both], dim=1))
        clips.append(torch.stack([each.flatten(1) @ each.flatten(1).T for each in both]))
    count = both[0].shape[1]
    grams = torch.stack(frames, dim=1)
    grams = grams.reshape(*grams.shape[:3], count, count)
    return grams.numpy().astype(np.float16), torch.stack(clips).numpy()
