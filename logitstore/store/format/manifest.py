"""The manifest: what must be the same for everything in a store. Written once, into the attributes of the root group.

There are no counts in it and no timestamps; what a store holds follows from its commits.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from logitstore.arrays import Bool
from logitstore.audio.lengths import clip_samples
from logitstore.errors import CorruptStoreError, MismatchError, NotAStoreError
from logitstore.store.format import quality
from logitstore.store.format.codec import Quantizer, quantizer
from logitstore.store.format.frames import FrameSpec
from logitstore.store.format.layout import Column
from logitstore.store.format.relations import RelationSpec
from logitstore.store.names import shown
from logitstore.views.ops import Place
from logitstore.views.recipe import Recipe, parse_recipe

#: What is written, and what of stores that say when or that were given a quality; of older stores, 1 is of those
#: without relations and 2 of those with them.
FORMAT_VERSION, LATEST_VERSION = 3, 4
#: ``made_by`` has this where the teachers' nets were compiled, and by what.
COMPILER = "compiler"
VERSIONS = (1, 2, 3, 4)
#: Members of a manifest that only version 4 has; a manifest is written without those that are null.
_LATEST = ("frames", "quality")
#: Classes that a store has room for: a class index has 16 bits.
MOST_CLASSES = 1 << 16
MOST_VIEWS = 1 << 16
MOST_SHARD_CLIPS = 1 << 31
ROOT = "zarr.json"
#: What the manifest has for the device of a store whose targets come from elsewhere, and of one that was merged.
IMPORTED, MERGED = "imported", "merged"
_ATTRIBUTE = "logitstore"
#: Keys of a contract that only some members have: arguments of the net that its weights do not show; the digest of the
#: names of its classes, where they are not the ensemble's, and which of the ensemble's classes it knows, where it does
#: not know all, as ranges [first, stop); the digest of code of the user's own; what the member's digest does not cover;
#: its window, its pooling over time, licence and origin.
ARGUMENTS, CLASSES, CODE, NOT_COVERED = "arguments", "classes", "code", "not_covered"
KNOWS, WINDOW, POOLING, LICENCE, ORIGIN = "knows", "window", "frame_pooling", "licence", "origin"
NON_COMMERCIAL = "non_commercial"
_MOST_NAME = 4096  # letters of a class
_MOST_RATE = 1 << 24  # Hz
_MOST_CLIP_SAMPLES = 1 << 31


class Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One teacher of the ensemble.

    ``digest`` is of its weights; ``contract`` says which front end it hears through, and at which stage and with which
    value a mask is filled; ``weight`` is its share of the mean, the shares summing to 1.
    """

    name: str
    digest: str
    scores: str
    sample_rate: int
    weight: float
    contract: dict[str, Any]

    def known(self, classes: int) -> Bool:
        """Which of the store's classes it knows, bool (C,); what it is said to say of the others means nothing.

        :raises CorruptStoreError: its contract has no such ranges.
        """
        ranges = self.contract.get(KNOWS)
        if ranges is None:
            return np.ones(classes, dtype=bool)
        known = np.zeros(classes, dtype=bool)
        try:
            for first, stop in msgspec.convert(ranges, tuple[tuple[int, int], ...]):
                known[first:stop] = True
        except (msgspec.ValidationError, ValueError, TypeError) as error:
            raise CorruptStoreError(
                f"member {shown(self.name)} knows classes of no ranges [first, stop): {error}"
            ) from error
        return known


def known_ranges(known: Bool) -> list[list[int]]:
    """Where a bool (C,) is true, as ranges [first, stop): what a contract says of the classes that a member knows."""
    ends = np.flatnonzero(np.diff(np.concatenate([[False], known, [False]]).astype(np.int8)))
    ranges: list[list[int]] = ends.reshape(-1, 2).tolist()
    return ranges


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What must match for a build to go on, a store to be extended, or a student to replay it.

    ``made_by`` (versions of what wrote the store) is recorded only: a difference there is worth a warning.
    """

    format_version: int
    classes: tuple[str, ...]
    scores: str  # "sigmoid" or "softmax"
    teachers: tuple[Member, ...]
    average: str  # "probability" or "logit"
    recipe_document: dict[str, Any] = msgspec.field(name="recipe")
    draw_columns: tuple[dict[str, Any], ...]  # name, low, planes of every stored draw column
    seed: int
    sample_rate: int  # Hz
    clip_seconds: float
    topk: int
    value_bits: int
    shard_clips: int
    batch_size: int
    device_kind: str
    precision: str  # "float32", "amp" (the device's own 16-bit type), "bf16" or "fp16"
    keep_members: bool
    relations: RelationSpec | None = None
    frames: FrameSpec | None = None
    quality: float | None = None  # nats a view, see quality.py
    digest: str = "blake2b-128"
    made_by: dict[str, str]

    @property
    def recipe(self) -> Recipe:
        """The recipe, parsed."""
        return parse_recipe(self.recipe_document)

    @property
    def place(self) -> Place:
        """View length, rate and shard size: what draws depend on."""
        return Place(self.clip_samples, self.sample_rate, self.shard_clips)

    @property
    def clip_samples(self) -> int:
        """Length of every view in samples at the store's rate."""
        return clip_samples(self.clip_seconds, self.sample_rate)

    @property
    def columns(self) -> tuple[Column, ...]:
        """The stored draw columns."""
        return tuple(msgspec.convert(column, Column) for column in self.draw_columns)

    @property
    def quantizer(self) -> Quantizer:
        """How probabilities become codes."""
        return quantizer(self.scores, self.value_bits)


def written_version(frames: FrameSpec | None = None, quality: float | None = None) -> int:
    """The format version of a new store: the latest only where it keeps what older ones cannot."""
    return FORMAT_VERSION if frames is None and quality is None else LATEST_VERSION


def to_json(value: Any) -> bytes:
    """Canonical JSON bytes: fixed key order, no spaces, a closing newline."""
    return msgspec.json.encode(value, order="deterministic") + b"\n"


def encode_root(manifest: Manifest) -> bytes:
    """The root group's ``zarr.json``, with the manifest in its attributes: a line a member, for people read it."""
    members = json.loads(msgspec.json.encode(manifest))
    members = {name: value for name, value in members.items() if value is not None or name not in _LATEST}
    lines = ",\n".join(f"{json.dumps(name)}:{_compact(value)}" for name, value in members.items())
    head = _compact({"zarr_format": 3, "node_type": "group", "attributes": {_ATTRIBUTE: {}}})
    return f"{head[:-3]}\n{lines}\n{head[-3:]}\n".encode()


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def decode_root(content: bytes, location: str) -> Manifest:
    """The manifest of a root group.

    :raises NotAStoreError: not a store, or one of an unknown format version.
    :raises CorruptStoreError: a store whose manifest does not have the format's fields.
    """
    try:
        document = json.loads(content)
        raw = document["attributes"][_ATTRIBUTE]
        version = raw["format_version"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise NotAStoreError(
            f"{location} is not a logitstore: its {ROOT} holds no {_ATTRIBUTE!r} manifest; give a folder that "
            "`logitstore build` wrote"
        ) from error
    if type(version) is not int or version not in VERSIONS:
        raise NotAStoreError(
            f"{location} has format version {shown(version)}; this release reads versions {VERSIONS[0]} to "
            f"{VERSIONS[-1]}; install a release that reads it"
        )
    try:
        manifest = msgspec.convert(raw, Manifest)
        _ = (manifest.recipe, manifest.place, manifest.columns, manifest.quantizer)  # all that readers derive from it
        if manifest.relations is not None:
            manifest.relations.check()
        for problem in problems(manifest):
            raise ValueError(problem)
        if manifest.frames is not None:
            manifest.frames.check(manifest.clip_samples, manifest.sample_rate)
        if version < FORMAT_VERSION and version != (1 if manifest.relations is None else 2):
            raise ValueError(f"format version {version} with relations {_brief(manifest.relations, None)}")
        if (version == LATEST_VERSION) != (written_version(manifest.frames, manifest.quality) == LATEST_VERSION):
            told = ", ".join(f"{name} {_brief(getattr(manifest, name), None)}" for name in _LATEST)
            raise ValueError(f"format version {version} with {told}")
        return manifest
    except (msgspec.ValidationError, ArithmeticError, TypeError, ValueError, RecursionError) as error:
        why = " ".join(str(error).split())
        raise CorruptStoreError(f"the manifest of {location} is damaged: {why}; restore it from a copy") from error


def problems(manifest: Manifest) -> Iterator[str]:
    """What no store can have, whoever wrote it: numbers out of range, more classes than there is room for."""
    count = len(manifest.classes)
    numbers = {
        "topk": (manifest.topk, 1, count),
        "seed": (manifest.seed, 0, (1 << 64) - 1),
        "sample_rate": (manifest.sample_rate, 1, _MOST_RATE),
        "shard_clips": (manifest.shard_clips, 1, MOST_SHARD_CLIPS),
        "batch_size": (manifest.batch_size, 0, 1 << 31),  # 0 of imported stores
    }
    if not 1 <= count <= MOST_CLASSES:
        yield f"there are {count:,} classes, and a store has room for 1 to {MOST_CLASSES:,}"
    long = next((name for name in manifest.classes if len(name) > _MOST_NAME), None)
    if long is not None:
        yield f"the class {shown(long)} has {len(long):,} letters, and at most {_MOST_NAME:,} are allowed"
    for name, (value, least, most) in numbers.items():
        if not least <= value <= most:
            yield f"{name} is {shown(value)}, and must be {least} to {most}"
            return
    seconds = manifest.clip_seconds
    if not (math.isfinite(seconds) and 0 < seconds * manifest.sample_rate <= _MOST_CLIP_SAMPLES):
        yield f"clip_seconds is {seconds}, and a view must have 1 to {_MOST_CLIP_SAMPLES} samples"
        return
    if manifest.clip_samples < 1:
        yield f"clip_seconds is {seconds}, which is no sample at {manifest.sample_rate} Hz"
    for name, allowed in (("scores", ("sigmoid", "softmax")), ("average", ("probability", "logit")),
                          ("digest", ("blake2b-128",))):  # fmt: skip
        if getattr(manifest, name) not in allowed:
            yield f"{name} is {shown(getattr(manifest, name))}; allowed are {', '.join(allowed)}"
    if not manifest.teachers:
        yield "there are no teachers"
    for member in manifest.teachers:
        if not math.isfinite(member.weight) or not 0 <= member.sample_rate <= _MOST_RATE:
            yield f"the teacher {shown(member.name)} has weight {member.weight} and {shown(member.sample_rate)} Hz"
    if manifest.device_kind != IMPORTED:
        manifest.recipe.check(manifest.place)
    if manifest.quality is not None:
        if not quality.LEAST <= manifest.quality <= quality.MOST:  # nor is what is no number
            yield f"quality is {manifest.quality:g} nats, and must be {quality.LEAST:g} to {quality.MOST:g}"
        if manifest.value_bits != quality.VALUE_BITS:
            yield f"value_bits is {manifest.value_bits}, and with a quality must be {quality.VALUE_BITS}"
        if count >= MOST_CLASSES:
            yield f"there are {count:,} classes, and with a quality there is room for {MOST_CLASSES - 1:,}"
    names = tuple(column.name for column in manifest.columns)
    if names != manifest.recipe.columns:
        yield f"the manifest's draw columns are not those of its recipe {shown(manifest.recipe.name)}"
    for column in manifest.columns:
        if not 1 <= column.planes <= 7 or abs(column.low) >= 1 << 62:
            yield f"the draw column {shown(column.name)} has {shown(column.planes)} planes from {shown(column.low)}"


def member_names(manifest: Manifest) -> list[str]:
    """A name for every member, unique: a name that comes again is numbered, as in ``cnn4 #2``."""
    names: list[str] = []
    for member in manifest.teachers:
        before = sum(name.rsplit(" #", 1)[0] == member.name for name in names)
        names.append(f"{member.name} #{before + 1}" if before else member.name)
    return names


def differences(stored: Manifest, asked: Manifest) -> list[str]:
    """What differs between two manifests, one line a field, both values shown; versions are left out."""
    lines = []
    for field in msgspec.structs.fields(Manifest):
        if field.name in ("made_by", "format_version"):  # a store that was begun in an older version goes on in it
            continue
        old, new = getattr(stored, field.name), getattr(asked, field.name)
        if old != new:
            lines.append(f"{field.encode_name}: stored {_brief(old, new)}, asked {_brief(new, old)}")
    return lines


def require_same(stored: Manifest, asked: Manifest, location: str) -> None:
    """Refuse to go on with a store that was made otherwise.

    :raises MismatchError: naming every field that differs, with both values.
    """
    lines = differences(stored, asked)
    if lines:
        raise MismatchError(
            f"the store {location} was made otherwise: {'; '.join(lines)}; "
            "give the options that it was made with, or another --out"
        )


def _brief(value: Any, other: Any) -> str:
    if isinstance(value, tuple) and isinstance(other, tuple) and len(value) > 4:
        here = [item for item in value if item not in set(other)] if all(isinstance(i, str) for i in value) else []
        detail = f", among them {', '.join(map(repr, here[:3]))}" if here else ""
        return f"{len(value)} values{detail}"
    if isinstance(value, tuple) and value and isinstance(value[0], Member):
        return "[" + ", ".join(_member(m, other) for m in value) + "]"
    if isinstance(value, RelationSpec):
        return f"{value.names} of {value.pooled} frames"
    if isinstance(value, FrameSpec):
        return f"every {value.hop_ms} ms, {value.bits} bits from {value.floor:g} on"
    if isinstance(value, dict | tuple):
        return json.dumps(msgspec.to_builtins(value), ensure_ascii=False)
    return repr(value)


def _member(member: Member, others: Any) -> str:
    """A member in a list of differences: its contract too where the other list has all but that of it."""
    shown = f"{member.name} x{member.weight:g} ({member.digest[:12]})"
    alike = [each for each in others if (each.name, each.digest) == (member.name, member.digest)]
    if not alike or member in alike:
        return shown
    return f"{shown} {json.dumps(member.contract, ensure_ascii=False)}"
