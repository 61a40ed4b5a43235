"""The verify job: is a store still what was written, does its audio still sound so, do its teachers still say so?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from logitstore.arrays import F32
from logitstore.audio.clips import ClipAudio
from logitstore.digests import digest
from logitstore.errors import MismatchError, UsageError
from logitstore.jobs.options import VerifyOptions
from logitstore.jobs.verify.audit import Audit, audit
from logitstore.jobs.verify.sample import Sample
from logitstore.store.format.codec import top_k
from logitstore.store.format.frames import decode_frames, encode_frames
from logitstore.store.format.manifest import IMPORTED, MERGED, ROOT, Manifest, differences
from logitstore.store.format.quality import nearest
from logitstore.store.joint import as_built
from logitstore.store.reader import Store, open_store
from logitstore.store.requests import Requests, sent, since
from logitstore.store.storage import open_storage
from logitstore.texts import in_lines
from logitstore.views.fingerprint import compare
from logitstore.views.recipe import Draws
from logitstore.views.render import Renderer

if TYPE_CHECKING:
    from teachers.ensemble import Ensemble

DEFAULT_VIEWS = 16
#: Teachers that run again on another machine, or in mixed precision, may differ by so much and no more.
MOST_DIFFERENCE = 0.05
MOST_CHANGED = 0.1
MOST_RELATION_ERROR = 0.1
MOST_FRAME_ERROR = 0.05


@dataclass(frozen=True)
class Recomputed:
    """What teachers say of ``views`` views when they are asked again.

    ``largest_difference`` of a probability at the stored classes, both through the store's quantiser; ``changed``, the
    share of stored classes that are no longer among the k; ``relation_error``, where the store keeps relations, the
    largest ‖stored - now‖ / ‖now‖ of a view's row-normalised Gram matrix or of its vector, both through the codec.
    ``merged``: the store was merged, so that some of its probabilities are estimates. ``frame_error``, where the store
    says when: the largest of the views' mean differences of frame probabilities, where one is kept, both through the
    codec.
    """

    views: int
    largest_difference: float
    changed: float
    relation_error: float | None = None
    merged: bool = False
    frame_error: float | None = None


@dataclass(frozen=True)
class Verified:
    """What was checked of a store, and what is wrong with it."""

    location: str
    audit: Audit
    replayed: int | None
    recomputed: Recomputed | None
    problems: tuple[str, ...]
    sampled: str | None = None
    requests: Requests | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        names = ("objects", "parts", "clips", "failed", "shards", "blocks", "views", "stored_views", "unfinished")
        return {
            "store": self.location,
            "bytes": self.audit.checked_bytes,
            **{name: getattr(self.audit, name) for name in names},
            "replayed": self.replayed,
            "recomputed": None if self.recomputed is None else asdict(self.recomputed),
            "problems": list(self.problems),
            "requests": None if self.requests is None else self.requests.to_dict(),
            **({} if self.sampled is None else {"sampled": self.sampled}),
        }

    def render(self) -> str:
        """The lines that ``logitstore verify`` prints."""
        found = self.audit
        files = f" in {found.parts:,} files" if found.parts > 1 else ""
        lines = [
            f"store      {self.location}",
            f"objects    {found.objects:,} read, {found.checked_bytes:,} bytes"
            + (f"; {found.unfinished:,} of blocks that are not finished left aside" if found.unfinished else ""),
            f"clips      {found.clips:,}{files}, {found.failed:,} failed",
            f"blocks     {found.blocks:,} in {found.shards:,} shards x {found.views:,} views, "
            f"{len(found.sound):,} sound",
            f"views      {found.stored_views:,} decoded: {self._decoded()}",
        ]
        if self.sampled is not None:
            lines.append(f"sample     {self.sampled}")
        if self.replayed is not None:
            lines.append(f"replayed   {self.replayed:,} views")
        if self.recomputed is not None:
            again = self.recomputed
            estimates = " (estimates of a merge among them)" if again.merged else ""
            lines.append(
                f"teachers   {again.views:,} views: largest difference of a probability "
                f"{again.largest_difference:.4f}, {100 * again.changed:.2f} % of the classes changed{estimates}"
                + ("" if again.relation_error is None else f", relations differ by {100 * again.relation_error:.2f} %")
                + ("" if again.frame_error is None else f", frames by {again.frame_error:.4f}")
            )
        if self.requests is not None:
            lines.append(f"requests   {self.requests}")
        lines.append(f"problems   {len(self.problems):,}")
        return in_lines([*lines, *(f"           {problem}" for problem in self.problems)])

    def _decoded(self) -> str:
        manifest = self.audit.manifest
        if manifest is None:
            return "none, for the manifest is damaged"
        kinds = "targets" if manifest.relations is None else f"targets, relations ({manifest.relations.names})"
        kinds += "" if manifest.frames is None else f", frames every {manifest.frames.hop_ms} ms"
        if not manifest.columns:
            return kinds
        seed = "" if manifest.device_kind == IMPORTED else f", draws are those of seed {manifest.seed}"
        return f"{kinds}, draws within their ranges{seed}"


def verify(options: VerifyOptions, advance: Callable[[int, int], None] | None = None) -> Verified:
    """Check a store; what is wrong is in the result, not an error.

    :param advance: told (blocks checked, blocks).
    :raises NotAStoreError: there is no store.
    :raises MismatchError: the teachers given are not the store's.
    :raises UsageError: options that do not go together.
    """
    _check(options)
    before = sent()
    storage = open_storage(options.store)
    sample = None
    if options.sample is not None and options.state is not None:
        root = next(iter(storage.get_many([ROOT])))
        sample = Sample(options.sample, options.state, options.store, digest(root or b""))
    found = audit(
        storage,
        partial=options.partial,
        advance=advance,
        choose=None if sample is None else sample.choose,
        checked=(lambda name, sound: None) if sample is None else sample.checked,
    )
    problems = list(found.problems)
    replayed, recomputed = None, None
    if options.audio_root is not None:
        if found.problems:
            problems.append("nothing was replayed: replay needs a store in which nothing else is wrong")
        else:
            store = open_store(options.store)
            audio = _audio(store, options.audio_root)
            recorded = store.fingerprinted(DEFAULT_VIEWS if options.replay is None else options.replay)
            replayed = len(recorded)
            problems += compare(Renderer(audio, store.manifest.recipe, store.manifest.place), recorded)
            if options.teachers:
                count = DEFAULT_VIEWS if options.recompute is None else options.recompute
                recomputed, wrong = recompute(store, audio, options.teachers, count, options.device)
                problems += wrong
    sampled = None if sample is None else sample.render()
    return Verified(storage.location, found, replayed, recomputed, tuple(problems), sampled, since(before))


def recompute(
    store: Store, audio: ClipAudio, specs: Sequence[str], count: int, device: str = "auto"
) -> tuple[Recomputed, list[str]]:
    """Ask the teachers of a store again of up to ``count`` of its views, spread over it.

    :returns: how far they differ, and a line for each clip that cannot be decoded and for a difference that is more
        than another machine's rounding.
    :raises MismatchError: the teachers are not the store's; both are shown.
    """
    import torch

    from logitstore.jobs.build.relate import relation_comparer

    manifest = store.manifest
    ensemble = store_ensemble(store.location, manifest, specs, device)
    problems: list[str] = []
    largest, changed, compared, asked = 0.0, 0, 0, 0
    of_first: list[float] = []  # differences at each view's first class
    compare_relations = relation_comparer(store, ensemble) if manifest.relations is not None else None
    apart: list[float] = []
    frames_apart: list[float] = []
    views = _spread(store, count)
    renderer = Renderer(audio, manifest.recipe, manifest.place)
    for low in range(0, len(views), manifest.batch_size):
        batch = views[low : low + manifest.batch_size]
        clips = np.array([clip for clip, _ in batch])
        draws = Draws.joined([store.draws(view, [clip]) for clip, view in batch])
        rendered = renderer.batch(clips, draws, store.partners(clips, draws))
        for position, blamed in rendered.failures.items():
            clip = batch[position][0]
            problems.append(f"clip {clip} ({store.clips['path'][clip].as_py()}): {rendered.errors[blamed]}")
        kept = np.flatnonzero(rendered.readable)
        batch = [batch[position] for position in kept.tolist()]
        if not batch:
            continue
        masks = None if rendered.masks is None else rendered.masks[kept]
        waveforms = rendered.waveforms[torch.from_numpy(kept)]
        asked_again = ensemble.outputs(waveforms, masks, features=compare_relations is not None, frames=manifest.frames)
        said = asked_again.probabilities.cpu().numpy()
        if compare_relations is not None:
            apart += compare_relations(batch, asked_again.features)
        if asked_again.frames is not None:
            frames_apart += _frames_apart(store, batch, asked_again.frames.cpu().numpy())
        best, _ = top_k(said, manifest.topk)
        table, encode = manifest.quantizer.table(), manifest.quantizer.encode
        for (clip, view), now, among in zip(batch, said, best, strict=True):
            classes, probabilities = store.targets(view, [clip])
            used = probabilities[0] > 0
            again = encode(now[classes[0, used]])
            stored = nearest(again, encode(probabilities[0, used]), _bits(store, clip, view))
            apart_here = np.abs(table[again] - table[stored])
            largest = max(largest, float(apart_here.max()))
            of_first.append(float(apart_here[0]))
            among = among[: np.count_nonzero(used)]
            changed, compared = (
                changed + len(set(classes[0, used].tolist()) - set(among.tolist())),
                compared + len(among),
            )
        asked += len(batch)
    found = Recomputed(
        asked, largest, changed / compared if compared else 0.0, max(apart) if apart else None,
        manifest.device_kind == MERGED, max(frames_apart) if frames_apart else None,
    )  # fmt: skip
    if found.relation_error is not None and found.relation_error > MOST_RELATION_ERROR:
        problems.append(
            f"the teachers' features are now others: relations differ by up to {100 * found.relation_error:.1f} % (at "
            f"most {100 * MOST_RELATION_ERROR:.0f} %)"
        )
    if found.frame_error is not None and found.frame_error > MOST_FRAME_ERROR and not found.merged:
        problems.append(
            f"the teachers now say otherwise of when: the frame probabilities of a view differ by "
            f"{found.frame_error:.3f} on average (at most {MOST_FRAME_ERROR})"
        )
    if found.merged:
        median = float(np.median(of_first)) if of_first else 0.0
        if median > MOST_DIFFERENCE:
            problems.append(
                f"the teachers now say otherwise: the likeliest class of half of the views differs by {median:.4f} or "
                f"more (rounding gives at most {MOST_DIFFERENCE}, and estimates of a merged store are below it there)"
            )
    elif found.largest_difference > MOST_DIFFERENCE or found.changed > MOST_CHANGED:
        problems.append(
            f"the teachers now say otherwise: probabilities differ by up to {found.largest_difference:.4f} (rounding "
            f"gives at most {MOST_DIFFERENCE}), {100 * found.changed:.1f} % of the classes changed (at most "
            f"{100 * MOST_CHANGED:.0f} %)"
        )
    return found, problems


def _frames_apart(store: Store, views: Sequence[tuple[int, int]], now: F32) -> list[float]:
    """How far apart stored frames of some views and those of now, (n, T, C), are: of each the mean difference of
    probabilities where either is kept."""
    spec = store.require_frames()
    again = decode_frames(encode_frames(now, spec), spec, now.shape[2]).dense()
    apart = []
    for (clip, view), here in zip(views, again, strict=True):
        stored = store.frames(view, [clip]).dense()[0]
        kept = (stored > 0) | (here > 0)
        apart.append(float(np.abs(stored - here)[kept].mean()) if kept.any() else 0.0)
    return apart


def store_ensemble(location: str, manifest: Manifest, specs: Sequence[str], device: str) -> Ensemble:
    """The ensemble that a store was built with, from its teachers in any order.

    :raises MismatchError: other teachers than the store's; both are shown.
    """
    from teachers.ensemble import load_ensemble, members_as_stored
    from teachers.registry import load_teacher

    manifest = as_built(manifest)
    given = [load_teacher(spec) for spec in specs]
    spare, ordered = list(given), []
    for member in manifest.teachers:
        fits = [teacher for teacher in spare if member.digest in (teacher.digest, *teacher.earlier_digests())]
        if fits:
            ordered.append(fits[0])
            spare.remove(fits[0])
    if spare or len(ordered) != len(manifest.teachers):
        stored = ", ".join(f"{member.name} ({member.digest})" for member in manifest.teachers)
        shown = ", ".join(f"{teacher.spec} ({teacher.digest})" for teacher in given)
        raise MismatchError(
            f"these are not the teachers of {location}: stored {stored}, given {shown}; give each of the store's "
            "teachers once"
        )
    ensemble = load_ensemble(
        ordered,
        [member.weight for member in manifest.teachers],
        manifest.average,
        manifest.classes,
        sample_rate=manifest.sample_rate,
        device=device,
        precision="float32" if manifest.precision == IMPORTED else manifest.precision,
        scale_weights=False,
    )
    described, _ = members_as_stored(ensemble, manifest.teachers)
    contracts = differences(manifest, msgspec.structs.replace(manifest, teachers=described))
    if contracts and manifest.device_kind != IMPORTED:
        stored, now = (json_text([member.contract for member in members]) for members in (manifest.teachers, described))
        raise MismatchError(
            f"the teachers of {location} hear otherwise than they did: stored {stored}, given {now}; use the release "
            "of logitstore and the options that the store was built with"
        )
    return ensemble


def json_text(value: Any) -> str:
    """A value as one line of JSON."""
    return msgspec.json.encode(value).decode()


def _spread(store: Store, count: int) -> list[tuple[int, int]]:
    """Up to ``count`` stored views (clip, view), evenly over all of them."""
    sizes = [commit.stored_views for commit in store.commits]
    stops = np.cumsum(sizes)
    total = int(stops[-1]) if len(stops) else 0
    chosen = []
    for position in np.unique(np.linspace(0, total - 1, min(count, total)).astype(int)).tolist():
        block = int(np.searchsorted(stops, position, side="right"))
        commit = store.commits[block]
        row, view = divmod(position - int(stops[block]) + sizes[block], commit.views)
        chosen.append((commit.first_clip + int(commit.readable[row]), commit.view_start + view))
    return chosen


def _audio(store: Store, audio_root: str) -> ClipAudio:
    from logitstore.audio.sources import open_audio

    return ClipAudio(open_audio(audio_root), store.clips, store.manifest.sample_rate)


def _check(options: VerifyOptions) -> None:
    if (options.sample is None) != (options.state is None):
        raise UsageError("--sample and --state go together: a part of the store, and the file that says which was last")
    if options.recompute is not None and not options.teachers:
        raise UsageError("--recompute asks the teachers again, and there is no --teacher SPEC")
    if options.audio_root is None and (options.replay is not None or options.teachers):
        what = "--replay" if options.replay is not None else "--teacher"
        raise UsageError(f"{what} needs the clips; give --audio-root, the audio that the store was built from")


def _bits(store: Store, clip: int, view: int) -> int | None:
    """Bits of the codes of a view, of a store with a quality."""
    for commit in store.commits:
        inside = commit.first_clip <= clip < commit.first_clip + commit.clips
        if inside and commit.view_start <= view < commit.view_stop:
            return commit.bits
    return None
