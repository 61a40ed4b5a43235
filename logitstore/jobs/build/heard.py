"""Is the audio still the one that was heard? Asked before a shard that has a block gets another, or one of them anew.

Some views that have fingerprints are rendered again and compared. Fingerprints are of a few views only, so the teachers
are asked again, too, about one batch of stored views, spread over the clips: of a small shard that is every clip. A
clip that cannot be decoded any more is no other sound; it fails where it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor

import numpy as np

from logitstore.arrays import F32, I64
from logitstore.audio.clips import ClipAudio
from logitstore.errors import AudioError, MismatchError
from logitstore.jobs.build.block import Ask
from logitstore.store.format.commits import Commit
from logitstore.store.format.quality import addable, nearest
from logitstore.store.piece import Piece
from logitstore.views.fingerprint import difference, fingerprint
from logitstore.views.recipe import Draws
from logitstore.views.render import Renderer

#: Fingerprints of a block that are compared.
MOST_FINGERPRINTS = 4
#: A probability may differ by so much on another machine, or in mixed precision.
MOST_DIFFERENCE = 0.05
_SHOWN = 3  # files that an error names


class Heard:
    """What the finished blocks of a store were made from, for its audio to be held against.

    :param store: its manifest and blocks. :param audio: its clips. :param ask: its teachers; None where they are not at
        hand, and fingerprints alone are compared.
    :param source: what messages call the audio.
    """

    def __init__(self, store: Piece, audio: ClipAudio, ask: Ask | None, pool: Executor | None, source: str) -> None:
        self.store, self.audio, self.ask, self.source = store, audio, ask, source
        self.renderer = Renderer(audio, store.manifest.recipe, store.manifest.place, pool=pool)
        self._checked: set[str] = set()

    def check(self, commit: Commit) -> None:
        """Refuse to go on beside a block whose audio has changed; a block is looked at once.

        :raises MismatchError: naming files that sound otherwise, or of which the teachers say otherwise.
        """
        if commit.name in self._checked:
            return
        self._checked.add(commit.name)
        draws = {name: values.reshape(-1) for name, values in self._draws(commit).items()}
        wrong = list(self._other_sounds(commit, Draws(draws)))
        if not wrong and self.ask is not None:
            wrong = list(self._other_answers(commit, self.ask, Draws(draws)))
        if wrong:
            more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
            raise MismatchError(
                f"the audio of {self.source} is not the one that {self.store.location} was made from: "
                f"{'; '.join(wrong[:_SHOWN])}{more}; give that audio, or another --out"
            )

    def _draws(self, commit: Commit) -> dict[str, I64]:
        return self.store.block_draws(commit) if self.store.manifest.columns else {}

    def _partners(self, commit: Commit, draws: Draws) -> I64 | None:
        rows = self.store.manifest.recipe.partners(draws)
        return None if rows is None else np.where(rows < 0, -1, commit.first_clip + rows)

    def _name(self, clip: int) -> str:
        return f"clip {clip} ({self.store.clips['path'][clip].as_py()})"

    def _other_sounds(self, commit: Commit, draws: Draws) -> Iterator[str]:
        known = commit.fingerprints
        chosen = np.unique(np.linspace(0, len(known) - 1, min(MOST_FINGERPRINTS, len(known))).astype(int))
        for stored in (known[i] for i in chosen.tolist()):
            here = draws[[stored.row * commit.views + stored.view - commit.view_start]]
            partners = self._partners(commit, here)
            clip = commit.first_clip + stored.row
            try:
                waveform, masks = self.renderer.view(clip, here, -1 if partners is None else int(partners[0]))
            except AudioError:
                continue
            rate = self.renderer.place.sample_rate
            different = difference(stored, fingerprint(stored.row, stored.view, waveform, masks, rate))
            if different is not None:
                yield f"{self._name(clip)}, view {stored.view}: {different}"

    def _other_answers(self, commit: Commit, ask: Ask, draws: Draws) -> Iterator[str]:
        """Clips of which the teachers say otherwise than the store; none if they do not say the same twice."""
        at = (commit.readable[:, None] * commit.views + np.arange(commit.views)).reshape(-1)
        at = at[np.unique(np.linspace(0, len(at) - 1, min(self._batch, len(at))).astype(int))]
        now, kept = self._said(commit, ask, draws, at)
        classes, probabilities = (stored.reshape(-1, stored.shape[2])[at[kept]] for stored in self._stored(commit))
        apart = self._apart(now, classes, probabilities, commit.bits)
        if not (apart > MOST_DIFFERENCE).any():
            return
        again, _ = self._said(commit, ask, draws, at)
        if np.abs(again - now).max(initial=0.0) > MOST_DIFFERENCE:
            return
        for position in np.flatnonzero(apart > MOST_DIFFERENCE).tolist():
            row, view = divmod(int(at[kept[position]]), commit.views)
            yield (
                f"{self._name(commit.first_clip + row)}, view {commit.view_start + view}: the teachers' probabilities "
                f"differ from the stored ones by {apart[position]:.2f}"
            )

    @property
    def _batch(self) -> int:
        return self.store.manifest.batch_size

    def _stored(self, commit: Commit) -> Sequence[np.ndarray]:
        return self.store.block_targets(commit)

    def _apart(self, said: F32, classes: np.ndarray, probabilities: F32, bits: int | None) -> F32:
        """By how much each view's probabilities are others: at its stored classes, or above them at any other class."""
        quantizer, stored = self.store.manifest.quantizer, addable(classes, said.shape[1]).astype(np.int64)
        table, codes = quantizer.table(), quantizer.encode(said)
        used = probabilities > 0
        here = np.take_along_axis(codes, stored, axis=1)
        there = nearest(here, quantizer.encode(probabilities), bits)
        apart = np.where(used, np.abs(table[here] - table[there]), 0).max(axis=1, initial=0.0)
        now = table[codes]
        np.put_along_axis(now, stored, 0.0, axis=1)
        least: F32 = np.where(used, table[there], 1.0).min(axis=1, initial=1.0)
        more: F32 = np.maximum(apart, now.max(axis=1, initial=0.0) - least)
        return more

    def _said(self, commit: Commit, ask: Ask, draws: Draws, at: I64) -> tuple[F32, I64]:
        """What the teachers say of some views of a block, float32 (n, C), and which could be rendered, int64 (n,)."""
        import torch

        here = draws[at]
        rendered = self.renderer.batch(commit.first_clip + at // commit.views, here, self._partners(commit, here))
        kept = np.flatnonzero(rendered.readable)
        if not len(kept):
            return np.zeros((0, len(self.store.manifest.classes)), np.float32), kept
        masks = None if rendered.masks is None else rendered.masks[kept]
        said = ask(rendered.waveforms[torch.from_numpy(kept)], masks, np.ones(len(kept), dtype=bool), None)
        return said.probabilities.cpu().numpy(), kept
