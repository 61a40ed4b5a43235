"""Whether the objects of one block, whose digests are right, hold what its commit, manifest and clips say."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from logitstore.arrays import U8
from logitstore.errors import CorruptStoreError
from logitstore.jobs.build.block import BlockPlan, block_draws
from logitstore.jobs.imports.shared import IMPORTED, imported_ranges
from logitstore.store.format import layout
from logitstore.store.format.commits import Commit
from logitstore.store.format.manifest import Manifest
from logitstore.store.format.objects import GROUP, decode_array
from logitstore.store.format.parts import Part
from logitstore.store.format.relations import from_arrays
from logitstore.views.fingerprint import BANDS
from logitstore.views.ops import MEL_STEPS


def block_problems(manifest: Manifest, commit: Commit, contents: Mapping[str, bytes], rows: pa.Table) -> list[str]:
    """What is wrong with a block, one line each.

    :param contents: its objects by name. :param rows: its clips: path, start, length and rate.
    """
    problems = list(_commit_problems(commit))
    try:
        arrays = _arrays(manifest, commit, contents)
    except (CorruptStoreError, KeyError, ValueError, TypeError) as error:
        return [*problems, f"it is not the arrays that the format names: {error}"]
    shapes = list(_shape_problems(manifest, commit, arrays))
    if shapes or problems:
        return problems + shapes
    return [
        *_target_problems(manifest, commit, arrays),
        *_draw_problems(manifest, commit, arrays, rows),
        *_relation_problems(manifest, commit, arrays),
    ]


def _commit_problems(commit: Commit) -> Iterator[str]:
    failed = [row for row, _ in commit.failed]
    if sorted(set(failed)) != failed or any(not 0 <= row < commit.clips for row in failed):
        yield f"the failed rows {failed} are not rising rows of {commit.clips}"
    if not 0 <= commit.view_start < commit.view_stop:
        yield f"it has the views {commit.view_start}:{commit.view_stop}"
    for mark in commit.fingerprints:
        inside = 0 <= mark.row < commit.clips and commit.view_start <= mark.view < commit.view_stop
        if not inside or mark.row in failed or len(mark.bands) != BANDS:
            yield f"the fingerprint of row {mark.row}, view {mark.view} is of no view that it holds"


def _arrays(manifest: Manifest, commit: Commit, contents: Mapping[str, bytes]) -> dict[str, U8]:
    """Every array of the block; the objects are those of these arrays and no others."""
    code_bytes = manifest.quantizer.code_bytes
    planes = {"classes": 1, "views": -(-commit.views // 8), "firsts": code_bytes, "residuals": code_bytes}
    if manifest.keep_members:
        planes["members"] = code_bytes * len(manifest.teachers)
    if manifest.columns:
        planes["draws"] = sum(column.planes for column in manifest.columns)
    if manifest.relations is not None:
        planes |= dict.fromkeys(manifest.relations.lengths, 1)
    named = {GROUP}
    if json.loads(contents[GROUP])["node_type"] != "group":
        raise ValueError(f"{GROUP} is not of a group")
    arrays = {}
    for name, count in planes.items():
        described = json.loads(contents[f"{name}/{GROUP}"])
        shape, kind = tuple(described["shape"]), described["data_type"]
        chunks = tuple(described["chunk_grid"]["configuration"]["chunk_shape"])
        if len(shape) != 2 or shape[0] != count or kind != "uint8" or chunks != (1, max(1, shape[1])):
            raise ValueError(f"{name} is {kind} of shape {shape} in chunks of {chunks}, not uint8 of ({count}, n)")
        arrays[name] = decode_array(name, count, shape[1], lambda chunk: contents[chunk])
        named |= {f"{name}/{GROUP}"} | {f"{name}/c/{plane}/0" for plane in range(count) if shape[1]}
    extra = sorted(contents.keys() - named)
    if extra:
        raise ValueError(f"{extra[0]} belongs to none of its arrays")
    return arrays


def _shape_problems(manifest: Manifest, commit: Commit, arrays: dict[str, U8]) -> Iterator[str]:
    count = int(np.count_nonzero(arrays["classes"] < 255))
    if arrays["views"].shape[1] != count:
        yield f"views has {arrays['views'].shape[1]} columns for {count} entries"
        return
    entries = layout.decode_entries(arrays, commit.views)
    numbers = entries.numbers
    present = int(entries.present.sum())
    expected = {"firsts": len(numbers), "residuals": present - len(numbers)}
    if "members" in arrays:
        expected["members"] = present
    if "draws" in arrays:
        expected["draws"] = commit.clips * commit.views
    if manifest.relations is not None:
        views = commit.clips * commit.views
        expected |= {name: length * views for name, length in manifest.relations.lengths.items()}
    for name, length in expected.items():
        if arrays[name].shape[1] != length:
            yield f"{name} has {arrays[name].shape[1]} columns, not {length}"
    spare = -commit.views % 8
    if spare and len(numbers) and int((arrays["views"][-1] >> (8 - spare)).max()):
        yield f"views names a view beyond its {commit.views}"
    if len(numbers) and (int(numbers[-1]) >= commit.clips * len(manifest.classes) or (np.diff(numbers) < 1).any()):
        yield f"classes is not rising below {commit.clips} rows x {len(manifest.classes)} classes"
    if not entries.present.any(axis=1).all():
        yield "an entry is in no view"


def _target_problems(manifest: Manifest, commit: Commit, arrays: dict[str, U8]) -> Iterator[str]:
    class_count, k = len(manifest.classes), manifest.topk
    readable = np.ones(commit.clips, dtype=bool)
    readable[[row for row, _ in commit.failed]] = False
    entries = layout.decode_entries(arrays, commit.views)
    held = np.zeros((commit.clips, commit.views), dtype=np.int64)
    np.add.at(held, entries.numbers // class_count, entries.present)
    wrong = np.argwhere(held != np.where(readable, k, 0)[:, None])
    if len(wrong):
        row, view = (int(index) for index in wrong[0])
        yield (
            f"clip {commit.first_clip + row}, view {commit.view_start + view} has {held[row, view]} classes, "
            f"not {k if readable[row] else 0}{'' if readable[row] else ', for it failed'} (of {len(wrong)} such views)"
        )
        return
    targets = layout.decode_targets(arrays, commit.clips, commit.views, k, class_count)
    codes: dict[str, Any] = {"a target": targets.codes[readable]}
    if "members" in arrays:
        codes["a member"] = layout.decode_members(arrays, targets, class_count)[:, readable]
    table = manifest.quantizer.table()
    for what, values in codes.items():
        if values.size and (int(values.max()) >= len(table) or not (table[values] > 0).all()):
            yield f"{what} has a code that is no probability in (0, 1)"


def _draw_problems(manifest: Manifest, commit: Commit, arrays: dict[str, U8], rows: pa.Table) -> Iterator[str]:
    """Draws outside of their recipe's ranges, or other than what the seed gives."""
    recipe, place = manifest.recipe, manifest.place
    if tuple(column.name for column in manifest.columns) != recipe.columns:
        yield f"the manifest's draw columns are not those of its recipe {recipe.name!r}"
        return
    if not recipe.columns:
        return
    draws = layout.decode_draws(manifest.columns, arrays["draws"], commit.views)
    outside: dict[str, Any] = {}
    imported = imported_ranges(recipe, place) if manifest.device_kind == IMPORTED else {}
    for name, (low, high) in recipe.ranges(place).items():
        high = max(high, imported.get(name, (low, high))[1])
        outside[name] = (draws[name] < low) | (draws[name] >= high)
    if "time_start" in draws:
        outside["time_start"] |= draws["time_start"] + draws["time_length"] > place.ticks
    if "freq_low" in draws:
        outside["freq_low"] |= draws["freq_low"] + draws["freq_steps"] > MEL_STEPS
    if recipe.has_mixup:
        own = np.arange(commit.clips)[:, None]
        mixed = draws["mixup_weight"] > 0
        outside["mixup_partner"] |= (draws["mixup_partner"] >= commit.clips) | (mixed & (draws["mixup_partner"] == own))
    for name, bad in outside.items():
        if bad.any():
            yield f"{_first(commit, bad)}: {name} {int(draws[name][bad][0])} is outside of its range"
    if any(bad.any() for bad in outside.values()) or manifest.device_kind == IMPORTED:
        return
    plan = BlockPlan(commit.shard, range(commit.first_clip, commit.first_clip + commit.clips),
                     commit.view_start, commit.view_stop)  # fmt: skip
    expected = block_draws(manifest, Part("", "", rows, commit.first_clip, commit.shard), plan)
    for name in recipe.columns:
        other = draws[name] != expected[name]
        if name.startswith("mixup_"):  # a partner that could not be decoded leaves weight and partner 0
            other &= (draws["mixup_weight"] != 0) | (draws["mixup_partner"] != 0)
        if other.any():
            yield (
                f"{_first(commit, other)}: {name} is {int(draws[name][other][0])} and the seed gives "
                f"{int(expected[name][other][0])} (of {int(other.sum())} such views)"
            )


def _relation_problems(manifest: Manifest, commit: Commit, arrays: dict[str, U8]) -> Iterator[str]:
    """Codes that no encoder gives."""
    spec = manifest.relations
    if spec is None:
        return
    codes = from_arrays(spec, arrays, commit.clips, commit.views)
    failed = np.zeros(commit.clips, dtype=bool)
    failed[[row for row, _ in commit.failed]] = True
    if codes[failed].any():
        yield "a clip that failed has relations"
    kept = codes[~failed]
    if spec.frames is not None:
        loudest = kept[:, :, : spec.frames].max(axis=2)
        if not np.isin(loudest, (0, 255)).all():
            yield f"the frame norms of a view go up to {int(loudest[(loudest > 0) & (loudest < 255)][0])}, not to 255"
    if spec.clips is not None:
        vectors = kept[:, :, spec.width - spec.clips - 1 :]
        if not vectors.all():
            yield "the vector of a clip has a code 0, which is none"


def _first(commit: Commit, where: npt.NDArray[np.bool_]) -> str:
    row, view = (int(index) for index in np.argwhere(where)[0])
    return f"clip {commit.first_clip + row}, view {commit.view_start + view}"
