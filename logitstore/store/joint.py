"""Stores that heard the same views, read as one ensemble: what each says of a view, averaged class by class.

Draws depend on the seed, the clip and the view alone. So two stores of the same clips, seed and recipe, of other
teachers, hold what different ears said of the same sound (``build --like STORE`` makes such a store). Here they are one
piece like any other: a class is averaged over the stores that know it, a store weighing as much as its teachers, and
the k highest are its targets, in codes, exactly as ``logitstore merge`` writes them.

A store kept the top k of its own. What it said of a class that only another one kept is not known, but that it is at
most its smallest kept probability m: m times :data:`FILL` is taken for it, of softmax scores its part of the
probability that is left, where that is less. A class that no store kept is never among the targets.

A store with a quality says what stands for the classes that a view does not keep, and that is taken for them. If one of
the stores has a quality, the ensemble has the largest of theirs: its targets keep of the joint probabilities what a
build with that quality would, and what is lost is counted against these.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np

from logitstore.arrays import F32, F64, I64, U8, U16, Bool
from logitstore.classes import join
from logitstore.digests import digest
from logitstore.errors import MismatchError, UsageError
from logitstore.notes import note
from logitstore.store.decoded import DecodedTargets, content_key
from logitstore.store.format import layout
from logitstore.store.format.codec import quantizer, top_k
from logitstore.store.format.commits import Commit, KeptSpec
from logitstore.store.format.frames import Runs, common_spec, decode_frames, encode_frames
from logitstore.store.format.manifest import (
    CLASSES,
    KNOWS,
    MERGED,
    Manifest,
    Member,
    known_ranges,
    written_version,
)
from logitstore.store.format.quality import REST, VALUE_BITS, Answers, choose
from logitstore.store.piece import Piece
from logitstore.views import fingerprint

#: What a store is taken to have said of a class that it did not keep, as a share of its smallest kept probability.
FILL = 0.6
#: A member's contract in a joint manifest says under this key how many classes its own store kept.
KEPT = "kept"
_CELLS = 1 << 22  # probabilities at a time
_MOST_CELLS = 1 << 26  # of one view
_EPSILON = 1e-7  # as in an ensemble of teachers
_SAME = ("seed", "sample_rate", "clip_seconds", "shard_clips")


@dataclass(frozen=True)
class Voice:
    """How one store speaks in the ensemble: where its classes stand among the joint ones, int64 (own classes,); and its
    share in each joint class, float64 (C,), zero of those that it does not know."""

    at: I64
    share: F64


def joint_targets(
    said: Sequence[tuple[U16, F32]], voices: Sequence[Voice], k: int, scores: str, average: str
) -> tuple[U16, F32]:
    """The k highest of the joint probabilities of n views.

    :param said: of each store its classes uint16 (n, its k) and probabilities float32 (n, its k).
    :returns: classes uint16 (n, k), numbers of joint classes, and probabilities float32 (n, k), falling.
    """
    count, classes = len(said[0][0]), len(voices[0].share)
    best, values = np.zeros((count, k), np.uint16), np.zeros((count, k), np.float32)
    rows = max(1, _CELLS // classes)
    for low in range(0, count, rows):
        part = [(own[low : low + rows], p[low : low + rows], None) for own, p in said]
        joint, named = _joint(part, voices, scores, average)
        best[low : low + rows], values[low : low + rows] = top_k(np.where(named, joint, np.float32(-1)), k)
    return best, values


def joint_answers(
    said: Sequence[tuple[U16, F32, F32 | None]], voices: Sequence[Voice], k: int, scores: str, average: str
) -> Answers:
    """What an ensemble with a quality says of n views: as :func:`joint_targets`, every class being one of its own.

    :param said: likewise, with the rests float32 (n,) of a store that has a quality. Places not used have the class of
        which that store has none.
    """
    count, rows = len(said[0][0]), max(1, _CELLS // len(voices[0].share))
    found = Answers.of_views(count, k)
    for low in range(0, count, rows):
        here = slice(low, low + rows)
        part = [(own[here], p[here], None if rests is None else rests[here]) for own, p, rests in said]
        found.put(here, _joint(part, voices, scores, average)[0], scores)
    return found


def _joint(
    said: Sequence[tuple[U16, F32, F32 | None]], voices: Sequence[Voice], scores: str, average: str
) -> tuple[F32, Bool]:
    """Joint probabilities float32 (n, C), and which classes any store kept, bool (n, C)."""
    count, classes = len(said[0][0]), len(voices[0].share)
    total, named = np.zeros((count, classes)), np.zeros((count, classes + 1), dtype=bool)
    whole = any(rests is not None for _, _, rests in said)  # then each store says something of every class
    for (own, probabilities, rests), voice in zip(said, voices, strict=True):
        at = np.append(voice.at, classes)[own.astype(np.int64)]  # a place that is not used falls beside the classes
        fill = _filled(probabilities.astype(np.float64), len(voice.at), scores) if rests is None else rests[:, None]
        dense = np.repeat(fill.astype(np.float64), classes + 1, axis=1)
        np.put_along_axis(dense, at, probabilities, axis=1)
        np.put_along_axis(named, at, True, axis=1)
        dense = dense[:, :classes]
        if scores == "softmax" and whole:
            dense /= dense.sum(axis=1, keepdims=True)
        total += voice.share * (_stretched(dense, scores) if average == "logit" else dense)
    if average == "logit" and scores == "sigmoid":
        total = 1 / (1 + np.exp(-total))
    elif average == "logit":
        total = np.exp(total)
        total /= total.sum(axis=1, keepdims=True)
    return total.astype(np.float32), named[:, :classes]


def _filled(probabilities: F64, classes: int, scores: str) -> F64:
    """What stands for the classes that a store did not keep, float64 (n, 1).

    :param probabilities: kept ones, float64 (n, k). :param classes: how many the store knows.
    """
    fill = FILL * probabilities.min(axis=1, keepdims=True)
    if scores == "softmax":
        left = np.maximum(0, 1 - probabilities.sum(axis=1, keepdims=True)) / max(1, classes - probabilities.shape[1])
        fill = np.minimum(fill, left)
    return np.asarray(fill)


def _stretched(p: F64, scores: str) -> F64:
    """Logits of sigmoid scores, logarithms of softmax scores."""
    if scores == "softmax":
        return np.log(np.maximum(p, 1e-30))
    inside = np.clip(p, _EPSILON, 1 - _EPSILON)
    return np.log(inside) - np.log1p(-inside)


class Joint(Piece):
    """Pieces that heard the same views, as one piece whose targets are the joint ones.

    Clips, draws and fingerprints are the first's; views and blocks those that all have; a clip that failed in one has
    no targets. What members said, and relations, are left out; frames of one hop are averaged like targets, where any
    store kept something.

    :param pieces: at least two that :func:`difference` finds alike.
    :param weights: one positive number a piece; by default the number of its teachers, so that all count alike.
    :param topk: k, the largest of the pieces' by default. :param value_bits: likewise.
    :raises MismatchError: score kinds or averages that cannot be joined; softmax scores of unequal classes.
    :raises UsageError: weights or a k that cannot be right.
    """

    def __init__(
        self,
        pieces: Sequence[Piece],
        weights: Sequence[float] | None = None,
        topk: int | None = None,
        value_bits: int | None = None,
        decoded_bytes: int | None = None,
    ) -> None:
        self.pieces = tuple(pieces)
        self.weights = _weights(self.pieces, weights)
        manifest, self.voices = _joint_manifest(self.pieces, self.weights, topk, value_bits)
        self._own: dict[str, list[Commit]] = {}
        about = [*(piece.root_digest for piece in pieces), *map(repr, self.weights), manifest.topk, manifest.value_bits]
        root_digest = digest(" ".join(map(str, about)).encode())
        super().__init__(pieces[0].storage, manifest, root_digest, decoded_bytes)

    def __reduce__(self) -> tuple[Any, ...]:
        if self.commits:
            self._decoded.share()
        manifest = self.manifest
        return Joint, (self.pieces, self.weights, manifest.topk, manifest.value_bits, self.decoded_bytes)

    @property
    def parts(self) -> Sequence[Piece]:
        """The stores."""
        return self.pieces

    @property
    def k(self) -> int:
        """Classes that a view has places for; how many of them a view uses is told when it is read."""
        return self.manifest.topk

    @property
    def views(self) -> int:
        """Number of views V: one more than the highest view of any block."""
        return max((commit.view_stop for commit in self.commits), default=0)

    @property
    def location(self) -> str:
        """What a user calls the stores."""
        return " & ".join(piece.location for piece in self.pieces)

    @functools.cached_property
    def commits(self) -> tuple[Commit, ...]:
        """A block for every range of views of a shard that each store has within one block."""
        by_shard: list[dict[int, list[Commit]]] = []
        for piece in self.pieces:
            by_shard.append({})
            for commit in piece.commits:
                by_shard[-1].setdefault(commit.shard, []).append(commit)
        found = []
        for shard in sorted(set.intersection(*map(set, by_shard))):
            all_of = [own[shard] for own in by_shard]
            cuts = {cut for own in all_of for each in own for cut in (each.view_start, each.view_stop)}
            for start, stop in pairwise(sorted(cuts)):
                holding = [[c for c in own if c.view_start <= start and stop <= c.view_stop] for own in all_of]
                if all(holding):
                    found.append(self._block([each[0] for each in holding], start, stop))
        return tuple(found)

    def _block(self, own: list[Commit], start: int, stop: int) -> Commit:
        first = own[0]
        for piece, other in zip(self.pieces, own, strict=True):
            if (other.first_clip, other.clips) != (first.first_clip, first.clips):
                raise MismatchError(
                    f"block {other.name} of {piece.location} has other clips than block {first.name} of "
                    f"{self.pieces[0].location}; the two cannot be read as one ensemble"
                )
        failed = {row: reason for each in own[::-1] for row, reason in each.failed}
        commit = msgspec.structs.replace(
            first,
            view_start=start,
            view_stop=stop,
            manifest_digest=self.root_digest,
            failed=tuple(sorted(failed.items())),
            fingerprints=tuple(f for f in first.fingerprints if start <= f.view < stop and f.row not in failed),
            basis=msgspec.UNSET,
            kept=msgspec.UNSET if self.manifest.quality is None else KeptSpec(bits=8, most=self.k, loss=math.nan),
            digest=digest(" ".join([f"{start} {stop}", *(each.digest for each in own)]).encode()),
        )
        self._own[commit.name] = own
        return commit

    def _sources(self, commit: Commit) -> list[Commit]:
        """The blocks of the pieces that a block is made of."""
        _ = self.commits
        return self._own[commit.name]

    def draws(self, view: int, clips: I64) -> dict[str, I64]:
        """The draw columns of one view of some clips, each int64 (n,)."""
        return self.pieces[0].draws(view, clips)

    def block_draws(self, commit: Commit) -> dict[str, I64]:
        """Draw columns of a block, each int64 (R, V)."""
        return self._draws_of(self.pieces[0], self._sources(commit)[0], commit)

    def block_bytes(self) -> dict[str, int]:
        """Bytes of the stores' blocks that make up each block, by its name."""
        sizes = [piece.block_bytes() for piece in self.pieces]
        return {
            commit.name: sum(of[own.name] for of, own in zip(sizes, self._sources(commit), strict=True))
            for commit in self.commits
        }

    def sizes(self) -> dict[str, int]:
        """Bytes of every object of every store, by the store's place and the object's name."""
        return {
            f"{piece.location}/{name}": size for piece in self.pieces for name, size in piece.sizes().items()
        }  # fmt: skip

    @functools.cached_property
    def _decoded(self) -> DecodedTargets:
        keys = [content_key(piece.storage, piece.commits) for piece in self.pieces]
        width = self.k * (2 + self.manifest.quantizer.code_bytes) + (self.manifest.quality is not None)
        key = digest(" ".join([self.root_digest, *keys]).encode())
        return DecodedTargets(key, self.commits, width, self.decoded_bytes)

    def joint(self, commit: Commit) -> layout.Targets:
        """The targets of a block, in codes.

        :raises MismatchError: the stores' views were not drawn alike.
        """
        return self._decode(commit)[0]

    def _decode(self, commit: Commit, *more: str) -> tuple[layout.Targets, U16 | None]:
        manifest, own = self.manifest, self._sources(commit)
        self._require_drawn_alike(commit)
        rows, said = commit.readable, []
        for piece, of in zip(self.pieces, own, strict=True):
            views = _views_of(of, commit)
            stored, _ = piece._decode(of)
            classes, codes = (
                values[rows, views].reshape(-1, values.shape[2]) for values in (stored.classes, stored.codes)
            )
            rests = None if stored.kept is None else REST.table()[stored.kept.rests[rows, views].reshape(-1)]
            said.append((classes, piece.manifest.quantizer.table()[codes], rests))
        if manifest.quality is not None:
            return self._kept(said, commit), None
        plain = [(classes, probabilities) for classes, probabilities, _ in said]
        classes, probabilities = joint_targets(plain, self.voices, manifest.topk, manifest.scores, manifest.average)
        codes = manifest.quantizer.encode(probabilities)
        order = np.lexsort((classes, -codes.astype(np.int64)), axis=1)  # as a block gives them back
        shape = (commit.clips, commit.views, manifest.topk)
        targets = layout.Targets(np.zeros(shape, np.uint16), np.zeros(shape, np.uint16), np.zeros(commit.clips, bool))
        for values, found in ((targets.classes, classes), (targets.codes, codes)):
            values[rows] = np.take_along_axis(found, order, axis=1).reshape(len(rows), *shape[1:])
        targets.readable[rows] = True
        return targets, None

    def _decoded_frames(self, commit: Commit) -> Runs:
        """The runs of a block: of every frame the mean over the stores, where one of them kept anything."""
        spec, classes = self._frame_spec, len(self.manifest.classes)
        self._require_drawn_alike(commit)
        kept = np.zeros((commit.clips, commit.views), dtype=bool)
        kept[commit.readable] = True
        said = []
        for piece, own in zip(self.pieces, self._sources(commit), strict=True):
            views = np.arange(own.clips * own.views).reshape(own.clips, own.views)[:, _views_of(own, commit)]
            runs = piece.block_frames(own).take(views.reshape(-1))
            said.append((runs, piece._frame_spec, len(piece.manifest.classes)))
        step = max(1, _CELLS // (spec.count * classes))
        if spec.count * classes > _MOST_CELLS:
            raise UsageError(
                f"{self.location} has {spec.count:,} frames of {classes:,} classes a view, {spec.count * classes:,} "
                f"numbers, and stores are averaged up to {_MOST_CELLS:,} of them; read each by itself"
            )
        found = []
        for low in range(0, kept.size, step):
            some = np.arange(low, min(low + step, kept.size))
            total, named = np.zeros((len(some), spec.count, classes)), np.zeros((len(some), spec.count, classes), bool)
            for (runs, own_spec, own_classes), voice in zip(said, self.voices, strict=True):
                own_said = decode_frames(runs.take(some), own_spec, own_classes).dense()
                dense = np.full(total.shape, FILL * own_spec.floor)
                dense[:, :, voice.at] = np.where(own_said > 0, own_said, FILL * own_spec.floor)
                named[:, :, voice.at] |= own_said > 0
                total += voice.share * (
                    _stretched(dense, self.manifest.scores) if self.manifest.average == "logit" else dense
                )
            if self.manifest.average == "logit":
                total = 1 / (1 + np.exp(-total)) if self.manifest.scores == "sigmoid" else np.exp(total)
            total[~named | ~kept.reshape(-1)[some, None, None]] = 0
            found.append(encode_frames(total, spec))
        return Runs.joined(found)

    def _kept(self, said: Sequence[tuple[U16, F32, F32 | None]], commit: Commit) -> layout.Targets:
        """What a block of an ensemble with a quality keeps."""
        manifest, rows, classes = self.manifest, commit.readable, len(self.manifest.classes)
        assert manifest.quality is not None
        found = joint_answers(said, self.voices, manifest.topk, manifest.scores, manifest.average)
        chosen = choose(found, manifest.quality, manifest.scores, classes, np.ones(len(found.classes), bool))
        used = np.arange(manifest.topk) < chosen.counts[:, None]
        labels = np.where(used, found.classes, np.uint16(classes)).astype(np.uint16)
        codes = np.where(used, chosen.codes, 0).astype(np.uint16)
        order = np.lexsort((labels, -codes.astype(np.int64), ~used), axis=1)  # as a block gives them back
        shape = (commit.clips, commit.views)
        whole = [np.zeros((*shape, manifest.topk), np.uint16) for _ in range(2)]
        counts, rests = np.zeros(shape, np.uint16), np.zeros(shape, np.uint8)
        for values, kept in zip(whole, (labels, codes), strict=True):
            values[rows] = np.take_along_axis(kept, order, axis=1).reshape(len(rows), commit.views, manifest.topk)
        counts[rows], rests[rows] = (each.reshape(len(rows), commit.views) for each in (chosen.counts, chosen.rests))
        readable = np.zeros(commit.clips, bool)
        readable[rows] = True
        return layout.Targets(whole[0], whole[1], readable, layout.Kept(counts, rests, chosen.bits, chosen.loss))

    def _require_drawn_alike(self, commit: Commit) -> None:
        own = self._sources(commit)
        first = self.block_draws(commit)
        rows = commit.readable
        for piece, of in zip(self.pieces[1:], own[1:], strict=True):
            for name, values in self._draws_of(piece, of, commit).items():
                apart = np.argwhere(values[rows] != first[name][rows])
                if len(apart):
                    row, view = apart[0].tolist()
                    raise MismatchError(
                        f"clip {commit.first_clip + int(rows[row])}, view {commit.view_start + view} was drawn "
                        f"otherwise in {piece.location} than in {self.pieces[0].location} ({name}); the two cannot "
                        "be read as one ensemble"
                    )

    def _draws_of(self, piece: Piece, own: Commit, commit: Commit) -> dict[str, I64]:
        if not self.manifest.columns:
            return {}
        return {name: values[:, _views_of(own, commit)] for name, values in piece.block_draws(own).items()}

    def _arrays(self, commit: Commit, *names: str) -> dict[str, U8]:
        """Arrays of a block as they would be stored."""
        code_bytes = self.manifest.quantizer.code_bytes
        version = self.manifest.format_version
        arrays = layout.encode_targets(
            self._decode(commit)[0], len(self.manifest.classes), code_bytes, version=version
        )  # fmt: skip
        return {name: arrays[name] for name in names}


def _views_of(own: Commit, commit: Commit) -> slice:
    """Where the views of a joint block stand in a store's own."""
    return slice(commit.view_start - own.view_start, commit.view_stop - own.view_start)


# which stores are an ensemble


def arranged(pieces: Sequence[Piece], weights: Sequence[float] | None = None) -> list[Piece]:
    """Pieces as they are to be read: those that heard the same views as one, the others one after the other.

    :param weights: what each counts in the ensemble, which is then meant: none may stand alone.
    :raises MismatchError: with ``weights``, pieces that did not hear the same; without, where it cannot be told.
    :raises UsageError: weights that cannot be right.
    """
    if weights is not None and len(weights) != len(pieces):
        raise UsageError(
            f"{len(weights)} store weights for {len(pieces)} stores; give --store-weight once for each, in their order"
        )
    groups: list[list[int]] = []
    for number, piece in enumerate(pieces):
        for group in groups:
            reason, compared = compare(pieces[group[0]], piece)
            if reason is None and not compared and weights is None:
                raise MismatchError(
                    f"{pieces[group[0]].location} and {piece.location} have the same clips, seed and recipe, and no "
                    "fingerprint in common that would tell whether they heard the same sound; give --store-weight for "
                    "each to read them as one ensemble"
                )
            if reason is None:
                group.append(number)
                break
        else:
            groups.append([number])
    alone = next((group[0] for group in groups if len(group) == 1), None)
    if weights is not None and alone is not None:
        others = [piece for number, piece in enumerate(pieces) if number != alone]
        why = f" {others[0].location} did: {compare(others[0], pieces[alone])[0]}" if others else " another did"
        raise MismatchError(
            f"--store-weight is for stores that heard the same views, and {pieces[alone].location} did not hear what"
            f"{why}; leave it out to read the stores one after the other"
        )
    found: list[Piece] = []
    for group in groups:
        if len(group) == 1:
            found.append(pieces[group[0]])
            continue
        joint = Joint([pieces[number] for number in group], weights and [weights[number] for number in group])
        for line in joint_notes(joint):
            note(line)
        found.append(joint)
    return found


def joint_notes(joint: Joint) -> list[str]:
    """What a user should know of stores that are read as one ensemble."""
    shares = ", ".join(
        f"{weight / math.fsum(joint.weights):.3g} of {piece.location} ({len(piece.manifest.teachers)})"
        for weight, piece in zip(joint.weights, joint.pieces, strict=True)
    )
    manifest = joint.manifest
    lines = [
        f"{joint.location} heard the same views: read as one ensemble of {len(manifest.teachers)} teachers, {shares}"
    ]
    most = max(piece.views for piece in joint.pieces)
    if joint.views < most:
        lines.append(f"all of them have {joint.views} views; the further ones, up to {most}, are left out")
    sizes = {len(piece.manifest.classes) for piece in joint.pieces}
    if len(sizes) > 1 or max(sizes) < len(manifest.classes):
        counts = ", ".join(f"{len(piece.manifest.classes)} of {piece.location}" for piece in joint.pieces)
        lines.append(
            f"the classes join to {len(manifest.classes)} ({counts}), by MID and name; a class is averaged over the "
            "teachers that know it"
        )
    left: dict[str, Callable[[Manifest], bool]] = {
        "relations": lambda m: m.relations is not None,
        "members": lambda m: m.keep_members,
        "frames": lambda m: m.frames is not None and joint.manifest.frames is None,
    }
    for what, has in left.items():
        holding = [piece.location for piece in joint.pieces if has(piece.manifest)]
        if holding:
            lines.append(f"the {what} that {', '.join(holding)} keep{'s' * (len(holding) == 1)} are left out")
    known: dict[str, str] = {}
    for piece in joint.pieces:
        for member in piece.manifest.teachers:
            other = known.setdefault(member.digest, piece.location)
            if other != piece.location:
                lines.append(
                    f"teacher {member.name} ({member.digest[:12]}) is in {other} and {piece.location}: it counts twice"
                )
    return lines


def require_alike(pieces: Sequence[Piece]) -> None:
    """Refuse stores that did not hear the same views.

    :raises MismatchError: naming what differs, with both values.
    """
    for piece in pieces[1:]:
        reason, _ = compare(pieces[0], piece)
        if reason is not None:
            raise MismatchError(
                f"{pieces[0].location} and {piece.location} did not hear the same views, so they are no ensemble: "
                f"{reason}; build one like the other: logitstore build --like {pieces[0].location}"
            )


def compare(first: Piece, other: Piece) -> tuple[str | None, int]:
    """Why two stores did not hear the same views, None where they did; and how many fingerprints say so."""
    old, new = first.manifest, other.manifest
    for name in _SAME:
        here, there = getattr(old, name), getattr(new, name)
        if here != there:
            return f"{name}: {here} and {there}", 0
    if old.recipe.to_dict()["ops"] != new.recipe.to_dict()["ops"]:
        return f"recipe: {old.recipe.name} and {new.recipe.name}, whose ops are others", 0
    reason = _other_clips(first, other)
    if reason is not None:
        return reason, 0
    prints = [
        {(commit.first_clip + each.row, each.view): each for commit in piece.commits for each in commit.fingerprints}
        for piece in (first, other)
    ]
    common = sorted(set.intersection(*map(set, prints)))
    for clip, view in common:
        apart = fingerprint.difference(prints[0][clip, view], prints[1][clip, view])
        if apart is not None:
            return f"clip {clip}, view {view}, sounded otherwise: {apart}", len(common)
    return None, len(common)


def _other_clips(first: Piece, other: Piece) -> str | None:
    from logitstore.store.format.parts import KEY

    if first.part_clips != other.part_clips:
        return f"clips: {' + '.join(map(str, first.part_clips))} and {' + '.join(map(str, other.part_clips))}"
    if _table_digests(first) == _table_digests(other) != {}:
        return None
    keys = [piece.read_clips([*KEY, "rate"]) for piece in (first, other)]
    for name in (*KEY, "rate"):
        here, there = (table[name].to_pylist() for table in keys)
        for number, (old, new) in enumerate(zip(here, there, strict=True)):
            if old != new:
                return f"{name} of clip {number}: {old} and {new}"
    return None


def _table_digests(piece: Piece) -> dict[str, str]:
    found = {commit.clip_table: commit.clip_table_digest for commit in piece.commits}
    return found if len(found) == len(piece.part_clips) else {}


# one manifest


def _weights(pieces: Sequence[Piece], weights: Sequence[float] | None) -> tuple[float, ...]:
    if weights is None:
        return tuple(float(len(piece.manifest.teachers)) for piece in pieces)
    if len(weights) != len(pieces):
        raise UsageError(
            f"{len(weights)} store weights for {len(pieces)} stores; give --store-weight once for each, in their order"
        )
    for weight in weights:
        if not (math.isfinite(weight) and weight > 0):
            raise UsageError(f"--store-weight is {weight:g}; weights must be positive numbers")
    return tuple(map(float, weights))


def _joint_manifest(
    pieces: Sequence[Piece], weights: Sequence[float], topk: int | None, value_bits: int | None
) -> tuple[Manifest, tuple[Voice, ...]]:
    manifests = [piece.manifest for piece in pieces]
    first = manifests[0]
    for piece in pieces[1:]:
        if piece.manifest.scores != first.scores:
            raise MismatchError(
                f"{pieces[0].location} holds {first.scores} scores and {piece.location} {piece.manifest.scores} "
                "scores; an ensemble needs one kind"
            )
    averages = {each.average: piece for each, piece in zip(manifests, pieces, strict=True) if len(each.teachers) > 1}
    averages = averages or {each.average: piece for each, piece in zip(manifests, pieces, strict=True)}
    if len(averages) > 1:
        shown = " and ".join(f"{kind} in {piece.location}" for kind, piece in averages.items())
        raise MismatchError(f"of the teachers was averaged: {shown}; stores of one ensemble need one average")
    classes, called = join([(each.classes, None) for each in manifests])
    for piece, names in zip(pieces, called, strict=True):
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise MismatchError(f"two classes of {piece.location} are one class of the ensemble, {twice!r}")
        if first.scores == "softmax" and set(names) != set(classes):
            lacking = [name for name in classes if name not in set(names)]
            raise MismatchError(
                f"{piece.location} lacks {len(lacking)} of the {len(classes)} joint classes, such as {lacking[0]!r}, "
                "and softmax scores over unequal classes have no mean; build stores of one class list"
            )
    most = max(each.topk for each in manifests)
    if topk is not None and topk > most:
        raise UsageError(f"--topk {topk} is more than any of the stores kept; give 1 to {most}")
    place = {name: number for number, name in enumerate(classes)}
    at = [np.array([place[name] for name in names], dtype=np.int64) for names in called]
    members, shares = [], []
    total = math.fsum(weights)
    for manifest, own, weight in zip(manifests, at, weights, strict=True):
        share = np.zeros(len(classes))
        for member in manifest.teachers:
            scaled = weight / total * member.weight
            known = np.zeros(len(classes), dtype=bool)
            known[own[member.known(len(manifest.classes))]] = True
            share += scaled * known
            members.append(_joint_member(member, manifest, classes, known, scaled))
        shares.append(share)
    norm = np.sum(shares, axis=0)
    qualities = [each.quality for each in manifests if each.quality is not None]
    quality = max(qualities, default=None)
    if quality is not None and value_bits not in (None, VALUE_BITS):
        raise UsageError(f"--value-bits {value_bits}: of stores with a quality that chooses the bits; leave it out")
    bits = max(each.value_bits for each in manifests) if value_bits is None else value_bits
    bits = bits if quality is None else VALUE_BITS
    quantizer(first.scores, bits)
    precisions = {each.precision for each in manifests}
    frames = common_spec([each.frames for each in manifests])
    return msgspec.structs.replace(
        first,
        format_version=written_version(frames, quality),
        classes=classes,
        teachers=tuple(members),
        average=next(iter(averages)),
        topk=most if topk is None else topk,
        value_bits=bits,
        device_kind=MERGED,
        precision=precisions.pop() if len(precisions) == 1 else "float32",
        keep_members=False,
        relations=None,
        frames=frames,
        quality=quality,
    ), tuple(Voice(own, share / norm) for own, share in zip(at, shares, strict=True))


def as_built(manifest: Manifest) -> Manifest:
    """The manifest as a build of all its teachers would have them described; of no merged store the same."""
    if manifest.device_kind != MERGED:
        return manifest
    members = (
        msgspec.structs.replace(each, contract={key: value for key, value in each.contract.items() if key != KEPT})
        for each in manifest.teachers
    )
    return msgspec.structs.replace(manifest, teachers=tuple(members))


def _joint_member(member: Member, manifest: Manifest, classes: tuple[str, ...], known: Bool, weight: float) -> Member:
    """A store's member as the joint manifest has it."""
    contract = {KEPT: manifest.topk} | {key: value for key, value in member.contract.items() if key != KNOWS}
    names = contract.pop(CLASSES, digest("\n".join(manifest.classes).encode()))
    if names != digest("\n".join(classes).encode()):
        contract[CLASSES] = names
    if not known.all():
        contract[KNOWS] = known_ranges(known)
    return msgspec.structs.replace(member, weight=weight, contract=contract)
