"""A store as Arrow tables that are decoded when they are read: part by part, and only the columns asked for.

=========  =====================================================================================================
table      a row is
=========  =====================================================================================================
clips      a clip: ``clip`` (its number, which joins all tables), path, start, length, rate, the manifest's columns
views      a view of a clip that has targets: ``clip``, ``view``, every draw parameter, entropy, top1, top1_probability,
           and of a store with a quality kept_classes and rest_probability, that of each other class
topk       one of the k classes of a view: clip, view, rank (from 1), class_index, class, probability and, where members
           were kept, disagreement
answers    a class that is stored for some view of a clip: clip, rank (from 1, falling by the mean), class_index, class,
           probability (the mean over the clip's views, where what is not stored counts 0, or the view's rest in a store
           with a quality), disagreement (of these views about the class, Jensen-Shannon, nats), views (how many it has)
frames     a stretch of time in which a class has one probability, of a store that says when: clip, view, class_index,
           class, start_s and end_s (seconds of the view, as it was drawn), probability
members    what one member said of it, where that was kept: clip, view, rank, member, class_index, class, probability
levels     how loud a clip is, of a store opened with its audio: see ``levels.py``
teachers   a member of the ensemble
ops        how much an op did to a view: op, amount (0 for nothing), the most that it can be, their unit
recipe     a parameter that ``views`` shows of a draw: op, parameter (its column in ``views``), meaning, and the lowest
           and highest value that the recipe can draw (NULL where it is the number of a clip)
failures   a clip that has no targets: clip, path, start_s (in its file, NULL where that could not be read), reason,
           view_start, view_stop
verdicts   what a person says of a clip, where there is a file of verdicts: clip, verdict (right, wrong, unsure), label
           (the right one, if given), note, person, given_at (UTC)
blocks     a block: name, shard, first_clip, clips, view_start, view_stop, failed, bytes
=========  =====================================================================================================

Of a store of several pieces the clips are numbered through, and ``blocks.name`` begins with the piece's place.
``entropy`` is in nats: of a sigmoid ensemble the sum of the k Bernoulli entropies, of a softmax ensemble
-sum(p ln p) over the k stored classes; of a store with a quality over all classes, each that a view does not have with
the view's ``rest_probability``. ``disagreement`` is how far the members are apart about a class, in nats: the
Jensen-Shannon divergence of their Bernoulli distributions for it, weighted as the ensemble weights them; of a softmax
ensemble the class's part of the divergence of their distributions. Summed over a view's classes it is the divergence of
the k classes. Rows come in no promised order.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence, Set
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from logitstore.arrays import F32, F64, I64
from logitstore.store.format.commits import Commit
from logitstore.store.format.manifest import member_names
from logitstore.store.format.quality import addable
from logitstore.store.measures import entropy, jensen_shannon, surprise
from logitstore.store.piece import Piece
from logitstore.store.pieces import Pieces, joined_schema
from logitstore.store.sql.lazy import LazyTable, TablePart
from logitstore.store.sql.levels import levels_table
from logitstore.store.verdicts import Verdict, judged, verdicts_of
from logitstore.views.recipe import Recipe, fitting

_CLASS = pa.dictionary(pa.uint16(), pa.string())
_NAME = pa.dictionary(pa.int32(), pa.string())
_RUNS_A_VIEW = 100  # about so many stretches a view
_MOST_CELLS = 1 << 22  # of clips x classes that are averaged at a time


def tables(store: Pieces) -> dict[str, Callable[[], pa.Table | LazyTable]]:
    """How to make each table of a store, by its name; nothing is read before one is made."""
    makers: dict[str, Callable[[], pa.Table | LazyTable]] = {
        "clips": lambda: clips_table(store),
        "views": lambda: _views_table(store),
        "topk": lambda: _topk_table(store),
        "answers": lambda: _answers_table(store),
        "frames": lambda: _frames_table(store),
        "members": lambda: _members_table(store),
        "teachers": lambda: teachers_table(store),
        "recipe": lambda: recipe_table(store),
        "ops": lambda: _ops_table(store),
        "failures": lambda: failures_table(store),
        "blocks": lambda: _blocks_table(store),
    }
    if not store.manifest.keep_members:
        del makers["members"]
    if store.manifest.frames is None:
        del makers["frames"]
    verdicts = verdicts_of(store)
    if verdicts is not None:
        makers["verdicts"] = lambda: verdicts_table(judged(store.clips, verdicts))
    if store.audible:
        makers["levels"] = lambda: levels_table(store)
    return makers


def joined_names(recipe: Recipe | None) -> frozenset[str]:
    """The columns, in lower case, of the tables that ``clip`` joins: beside one of these a user's is ambiguous.

    :param recipe: of the store; None where it is not chosen yet. Those of the recipes to choose from count always, so
        that a column has one name in a store whatever was asked.
    """
    keys = {"clip", "view", "rank", "member", "entropy", "top1", "top1_probability", "reason", *_RESTS}
    recipes = (fitting(True), fitting(False), *(() if recipe is None else (recipe,)))
    drawn = {column.name for each in recipes for column in each.sql_columns}
    return frozenset(name.lower() for name in {*keys, *drawn, *(name for name, _ in _TOPK)})


def clips_table(store: Pieces) -> LazyTable:
    """The clip table, read by groups of rows.

    :raises CorruptStoreError: a file of it is missing, or is not the one that was committed.
    :raises MismatchError: a column has another type, or case, in another piece.
    """
    files = [piece.clip_files() for piece in store.pieces]
    schemas = [_clip_schema(list(of_piece.values())) for of_piece in files]
    places = [piece.location for piece in store.pieces]
    schema = joined_schema(schemas, places) if len(schemas) > 1 else schemas[0]
    parts, first = [], 0
    for piece, of_piece in zip(store.pieces, files, strict=True):
        for name, file in of_piece.items():
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                read = _clip_rows(piece, name, group, first, schema)
                parts.append(
                    TablePart({"clip": (first, first + rows)}, rows, read, f"clips {first:,} to {first + rows - 1:,}")
                )
                first += rows
    return LazyTable(schema, parts)


def _clip_schema(files: Sequence[pq.ParquetFile]) -> pa.Schema:
    schema = pa.unify_schemas([file.schema_arrow for file in files], promote_options="default")
    return schema.remove_metadata().insert(0, pa.field("clip", pa.int64()))


def _clip_rows(piece: Piece, name: str, group: int, first: int, schema: pa.Schema) -> Callable[[Set[str]], pa.Table]:
    def decode(columns: Set[str]) -> pa.Table:
        with piece.clip_file(name) as file:
            stored = [column for column in schema.names if column in columns and column in file.schema_arrow.names]
            rows = file.metadata.row_group(group).num_rows
            table = piece.clip_group(name, file, stored, group)
        arrays = []
        wanted = [field for field in schema if field.name in columns]
        for field in wanted:
            if field.name == "clip":
                arrays.append(pa.chunked_array([np.arange(first, first + rows)]))
            elif field.name in stored:
                arrays.append(table[field.name].cast(field.type))
            else:
                arrays.append(pa.chunked_array([pa.nulls(rows, field.type)]))
        return pa.table(arrays, schema=pa.schema(wanted))

    return decode


def _views_table(store: Pieces) -> LazyTable:
    quality = store.manifest.quality is not None
    drawn = _draw_columns(store, None, {name: np.zeros(0, np.int64) for name in store.manifest.recipe.columns})
    schema = pa.schema(
        [("clip", pa.int64()), ("view", pa.int32())]
        + [(name, values.type) for name, values in drawn.items()]
        + [("entropy", pa.float64()), ("top1", _CLASS), ("top1_probability", pa.float32())]
        + (_RESTS_COLUMNS if quality else [])
    )

    def decode(commit: Commit, columns: Set[str]) -> dict[str, Any]:
        kept = commit.readable
        made: dict[str, Any] = _keys(commit, columns, 1)
        if columns & set(drawn):
            flat = {name: values[kept].reshape(-1) for name, values in store.block_draws(commit).items()}
            made |= _draw_columns(store, commit, flat)
        if columns & set(_ANSWER):
            made |= _answers(store, commit, *store.block_targets(commit), columns)
        if columns & set(_RESTS) and quality:
            rests, classes = store.block_rests(commit)[kept], store.block_targets(commit)[0][kept]
            counts = np.count_nonzero(classes < len(store.manifest.classes), axis=2).astype(np.int32)
            made |= {"kept_classes": counts.reshape(-1), "rest_probability": rests.reshape(-1)}
        return made

    return _by_block(store, schema, 1, decode)


#: Of a store with a quality: how many classes a view keeps, and the probability that stands for each of the others.
_RESTS_COLUMNS = [("kept_classes", pa.int32()), ("rest_probability", pa.float32())]
_RESTS = ("kept_classes", "rest_probability")
_ANSWER = {"entropy": pa.float64(), "top1": _CLASS, "top1_probability": pa.float32()}


def _answers(
    store: Pieces, commit: Commit, classes: npt.NDArray[np.uint16], probabilities: F32, columns: Set[str]
) -> dict[str, Any]:
    kept = commit.readable
    made: dict[str, Any] = {
        "top1": _class_names(store, classes[kept, :, 0]),
        "top1_probability": probabilities[kept, :, 0].reshape(-1),
    }
    if "entropy" in columns:
        rests = None if store.manifest.quality is None else store.block_rests(commit)[kept]
        made["entropy"] = entropy(
            probabilities[kept], store.manifest.scores, rests, len(store.manifest.classes)
        ).reshape(-1)  # fmt: skip
    return made


def answers(store: Pieces, commit: Commit, classes: npt.NDArray[np.uint16], probabilities: F32) -> pa.Table:
    """What the table ``views`` says of the answers of a block: clip, view, entropy, top1, top1_probability.

    :param classes, probabilities: of the block, (R, V, k).
    """
    schema = pa.schema([("clip", pa.int64()), ("view", pa.int32()), *_ANSWER.items()])
    columns = set(schema.names)
    made = _keys(commit, columns, 1) | _answers(store, commit, classes, probabilities, columns)
    return pa.table([made[name] for name in schema.names], schema=schema)


def _draw_columns(store: Pieces, commit: Commit | None, draws: dict[str, I64]) -> dict[str, pa.Array]:
    """Draw columns (n,) as SQL shows them, in plain units; NULL where an op has nothing to say."""
    made = {}
    for column in store.manifest.recipe.sql_columns:
        values = column.values(draws)
        if column.of_shard and commit is not None:
            values = values + commit.first_clip
        made[column.name] = pa.array(values, mask=None if column.null is None else column.null(draws))
    return made


def _ops_table(store: Pieces) -> LazyTable:
    manifest = store.manifest
    amounts = manifest.recipe.amounts(manifest.place)
    schema = pa.schema([("clip", pa.int64()), ("view", pa.int32()), ("op", _NAME), ("amount", pa.float64()),
                        ("most", pa.float64()), ("unit", _NAME)])  # fmt: skip
    fixed = {
        "op": pa.array([op.name for op, _, _ in amounts], pa.string()),
        "most": np.array([most for _, most, _ in amounts], np.float64),
        "unit": pa.array([unit for _, _, unit in amounts], pa.string()),
    }

    def decode(commit: Commit, columns: Set[str]) -> dict[str, Any]:
        kept, count = commit.readable, len(amounts)
        made = _keys(commit, columns, count)
        codes = np.tile(np.arange(count, dtype=np.int32), len(kept) * commit.views)
        for name in ("op", "unit"):
            made[name] = pa.DictionaryArray.from_arrays(pa.array(codes), fixed[name])
        made |= {"most": fixed["most"][codes], "amount": np.zeros(len(codes))}
        if "amount" in columns and amounts:
            draws = {name: values[kept].reshape(-1) for name, values in store.block_draws(commit).items()}
            said = [op.amount(draws, manifest.place) for op, _, _ in amounts]
            made["amount"] = np.stack([each[0] for each in said if each is not None], axis=1).reshape(-1)
        return made

    return _by_block(store, schema, len(amounts), decode)


_TOPK = [("class_index", pa.int32()), ("class", _CLASS), ("probability", pa.float32())]


def _topk_table(store: Pieces) -> LazyTable:
    columns_of_members = [("disagreement", pa.float64())] if store.manifest.keep_members else []
    schema = pa.schema([("clip", pa.int64()), ("view", pa.int32()), ("rank", pa.int32()), *_TOPK, *columns_of_members])

    def decode(commit: Commit, columns: Set[str]) -> dict[str, Any]:
        fixed = store.manifest.quality is None
        if fixed and not columns & {"class_index", "class", "probability", "disagreement"}:
            return _keys(commit, columns, store.k)
        if not columns & {"rank", "probability", "disagreement"}:
            return _unranked(store, commit, columns)
        kept = commit.readable
        classes, probabilities = store.block_targets(commit)
        used = _used(store, classes[kept])
        apart = disagreement(store, commit, classes[kept])[used] if "disagreement" in columns else None
        named = classes[kept].reshape(-1)[used]
        return {name: values[used] for name, values in _keys(commit, columns, store.k).items()} | {
            "disagreement": apart,
            "class_index": named.astype(np.int32) if "class_index" in columns else None,
            "class": _class_names(store, named),
            "probability": probabilities[kept].reshape(-1)[used],
        }

    return _by_block(store, schema, store.k, decode)


def _used(store: Pieces, classes: npt.NDArray[np.uint16]) -> Any:
    """What picks the places that are used of those of some views (n, V, k), flat: all, of a store without a quality."""
    if store.manifest.quality is None:
        return slice(None)
    return np.flatnonzero(classes.reshape(-1) < len(store.manifest.classes))


def _answers_table(store: Pieces) -> LazyTable:
    schema = pa.schema([("clip", pa.int64()), ("rank", pa.int32()), ("class_index", pa.int32()), ("class", _CLASS),
                        ("probability", pa.float64()), ("disagreement", pa.float64()),
                        ("views", pa.int32())])  # fmt: skip
    shards: dict[int, list[Commit]] = {}
    for commit in store.commits:
        shards.setdefault(commit.first_clip, []).append(commit)

    def part(first: int, commits: Sequence[Commit]) -> TablePart:
        clips = max(commit.clips for commit in commits)
        step = max(1, _MOST_CELLS // len(store.manifest.classes))

        def decode(columns: Set[str]) -> pa.Table:
            found = [
                _mean_answers(store, commits, range(start, min(start + step, clips))) for start in range(0, clips, step)
            ]
            row, rank, labels, means, apart, counts = (np.concatenate(each) for each in zip(*found, strict=True))
            made = {
                "clip": first + row, "rank": rank, "class_index": labels.astype(np.int32),
                "class": _class_names(store, labels.astype(np.uint16)), "probability": means, "disagreement": apart,
                "views": counts,
            }  # fmt: skip
            wanted = [field for field in schema if field.name in columns]
            return pa.table([made[field.name] for field in wanted], schema=pa.schema(wanted))

        rows = clips * store.k * 2
        return TablePart({"clip": (first, first + clips)}, rows, decode, ", ".join(commit.name for commit in commits))

    return LazyTable(schema, [part(first, commits) for first, commits in sorted(shards.items())])


def _mean_answers(store: Pieces, commits: Sequence[Commit], some: range) -> tuple[I64, I64, I64, F64, F64, I64]:
    """Of a range of rows of a shard, what is stored of each clip: row, rank, class, mean over its views, how far the
    views are apart about the class, and views.

    A class that a view does not keep has its rest there, where the store has a quality, and 0 elsewhere.
    """
    class_count, scores = len(store.manifest.classes), store.manifest.scores
    cells = len(some) * class_count
    total, own, stored = np.zeros(cells), np.zeros(cells), np.zeros(cells, np.bool_)
    views, rest, unsure = np.zeros(len(some), np.int64), np.zeros(len(some)), np.zeros(len(some))
    for commit in commits:
        kept = commit.readable
        kept = kept[(kept >= some.start) & (kept < some.stop)]
        row = kept - some.start
        classes, probabilities = store.block_targets(commit)
        classes, probabilities = classes[kept], probabilities[kept]
        keys = (row[:, None, None] * class_count + addable(classes, class_count)).reshape(-1)
        p = probabilities.astype(np.float64)
        by_class = surprise(p, scores)
        if store.manifest.quality is not None:
            rests = store.block_rests(commit)[kept].astype(np.float64)  # (n, V): once for every class of a view
            used, by_rest = classes < class_count, surprise(rests, scores)
            rest[row] += rests.sum(axis=1)
            unsure[row] += by_rest.sum(axis=1)
            p, by_class = (
                np.where(used, each - less[..., None], 0) for each, less in ((p, rests), (by_class, by_rest))
            )
        total += np.bincount(keys, p.reshape(-1), cells)
        own += np.bincount(keys, by_class.reshape(-1), cells)
        stored[keys] = True
        views[row] += commit.views
    found = np.flatnonzero(stored)
    row, labels = found // class_count, found % class_count
    means = (total[found] + rest[row]) / views[row]
    apart = np.maximum(surprise(means, scores) - (own[found] + unsure[row]) / views[row], 0)
    order = np.lexsort((-means, row))  # stable: the lower class first where two are alike
    row, labels, means, apart = row[order], labels[order], means[order], apart[order]
    each = np.bincount(row, minlength=len(some))
    rank = np.arange(1, len(row) + 1) - np.repeat(np.cumsum(each) - each, each)
    return some.start + row, rank, labels, means, apart, views[row]


def disagreement(store: Pieces, commit: Commit, classes: npt.NDArray[np.uint16]) -> npt.NDArray[np.float64]:
    """How far a block's members are apart about each of its classes (n, V, k): nats, float64 (n * V * k,)."""
    said, members = store.block_members(commit), store.manifest.teachers
    assert said is not None
    numbers = list(store.block_teachers(commit))
    known = np.stack([members[number].known(len(store.manifest.classes)) for number in numbers])
    heard = np.where(
        known[:, addable(classes, known.shape[1])], said[numbers][:, commit.readable], np.float32("nan")
    )  # fmt: skip
    return jensen_shannon(heard, [members[number].weight for number in numbers], store.manifest.scores).reshape(-1)


def _unranked(store: Pieces, commit: Commit, columns: Set[str]) -> dict[str, Any]:
    """Which classes are stored for which views, without their values and so without their order."""
    entries, class_count = store.block_classes(commit)
    labels = (entries.numbers % class_count).astype(np.uint16)
    made: dict[str, Any] = {}
    if columns & {"clip", "view"}:
        entry, view = np.nonzero(entries.present)
        made["clip"] = commit.first_clip + entries.numbers[entry] // class_count
        made["view"] = (commit.view_start + view).astype(np.int32)
        labels = labels[entry]
    else:
        labels = np.repeat(labels, np.count_nonzero(entries.present, axis=1))
    return made | {"class_index": labels.astype(np.int32), "class": _class_names(store, labels)}


def _members_table(store: Pieces) -> LazyTable:
    keys = [("clip", pa.int64()), ("view", pa.int32()), ("rank", pa.int32()), ("member", _NAME)]
    names = member_names(store.manifest)
    known = np.stack([member.known(len(store.manifest.classes)) for member in store.manifest.teachers])

    def decode(commit: Commit, columns: Set[str]) -> dict[str, Any]:
        kept, teachers = commit.readable, store.block_teachers(commit)
        count, used, each = len(teachers), slice(None), len(kept) * commit.views * store.k
        if store.manifest.quality is not None:
            used = _used(store, store.block_targets(commit)[0][kept])
            each = len(used)
        made = {name: np.tile(values[used], count) for name, values in _keys(commit, columns, store.k).items()}
        codes = np.repeat(np.array(teachers, dtype=np.int32), each)
        made["member"] = pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(names))
        if columns & {"class", "class_index"}:
            classes = np.tile(store.block_targets(commit)[0][kept].reshape(-1)[used], count)
            made |= {"class": _class_names(store, classes), "class_index": classes.astype(np.int32)}
        probabilities = store.block_members(commit) if "probability" in columns else None
        if probabilities is not None:
            of = probabilities[teachers][:, kept].reshape(count, -1)[:, used].reshape(-1)
            unknown = None
            if not known.all():
                named = store.block_targets(commit)[0][kept].reshape(-1)[used]
                unknown = ~known[list(teachers)][:, named].reshape(-1)
            made["probability"] = pa.array(of, pa.float32(), mask=unknown)
        return made

    return _by_block(store, pa.schema(keys + _TOPK), store.k * len(names), decode)


def _frames_table(store: Pieces) -> LazyTable:
    schema = pa.schema([("clip", pa.int64()), ("view", pa.int32()), ("class_index", pa.int32()), ("class", _CLASS),
                        ("start_s", pa.float64()), ("end_s", pa.float64()), ("probability", pa.float32())])  # fmt: skip
    manifest = store.manifest

    def decode(commit: Commit, columns: Set[str]) -> dict[str, Any]:
        frames = store.block_frames(commit)
        row, view = np.divmod(frames.clips, commit.views)
        return {
            "clip": commit.first_clip + row,
            "view": (commit.view_start + view).astype(np.int32),
            "class_index": frames.classes.astype(np.int32) if "class_index" in columns else None,
            "class": _class_names(store, frames.classes),
            "start_s": np.round(frames.starts * frames.hop, 3),
            "end_s": np.minimum(np.round(frames.stops * frames.hop, 3), manifest.clip_seconds),
            "probability": frames.probabilities,
        }

    return _by_block(store, schema, _RUNS_A_VIEW, decode)


def teachers_table(store: Pieces) -> pa.Table:
    """The members of the ensemble."""
    members = store.manifest.teachers
    return pa.table(
        {
            "member": pa.array(member_names(store.manifest), pa.string()),
            "weight": pa.array([member.weight for member in members], pa.float64()),
            "scores": pa.array([member.scores for member in members], pa.string()),
            "sample_rate": pa.array([member.sample_rate for member in members], pa.int32()),
            "digest": pa.array([member.digest for member in members], pa.string()),
        }
    )


def recipe_table(store: Pieces) -> pa.Table:
    """What can be drawn: each column of ``views`` that shows a draw.

    Its extremes are those where each integer that its op draws is at an end of its range, as far as they can be there
    together.
    """
    types = {
        "op": pa.string(), "parameter": pa.string(), "meaning": pa.string(), "lowest": pa.float64(),
        "highest": pa.float64(),
    }  # fmt: skip
    rows = []
    place = store.manifest.place
    for op in store.manifest.recipe.ops:
        ranges = op.ranges(place)
        corners = np.array(list(itertools.product(*((low, high - 1) for low, high in ranges.values()))), np.int64)
        drawn = dict(zip(ranges, corners.T, strict=True))
        impossible = op.impossible(drawn, np.zeros(len(corners), np.int64), place.shard_clips, place).values()
        possible = ~np.any([np.zeros(len(corners), bool), *impossible], axis=0)
        drawn = {name: values[possible] for name, values in drawn.items()}
        for column in op.sql_columns():
            values = np.asarray(column.values(drawn), dtype=np.float64)
            if column.null is not None:
                values = values[~column.null(drawn)]
            known = len(values) and not column.of_shard
            lowest, highest = (float(values.min()), float(values.max())) if known else (None, None)
            rows.append(dict(zip(types, (op.name, column.name, column.doc, lowest, highest), strict=True)))
    return pa.Table.from_pylist(rows, schema=pa.schema(types))


def failures_table(store: Pieces) -> pa.Table:
    """The clips without targets."""
    types = {
        "clip": pa.int64(), "path": pa.string(), "start_s": pa.float64(), "reason": pa.string(),
        "view_start": pa.int32(), "view_stop": pa.int32(),
    }  # fmt: skip
    failures = store.failures()
    return pa.table(
        {name: pa.array([getattr(failure, name) for failure in failures], kind) for name, kind in types.items()}
    )


def verdicts_table(by_clip: Mapping[int, Mapping[str, Verdict]]) -> pa.Table:
    """What people say of clips: the latest of each person.

    :param by_clip: verdicts by the clip's number and the person.
    """
    rows = [(clip, each) for clip, said in sorted(by_clip.items()) for each in said.values()]
    texts = ("verdict", "label", "note", "person")
    made = {name: pa.array([getattr(each, name) for _, each in rows], pa.string()) for name in texts}
    times = [datetime.fromisoformat(each.at).replace(tzinfo=None) for _, each in rows]
    clips = pa.array([clip for clip, _ in rows], pa.int64())
    return pa.table({"clip": clips, **made, "given_at": pa.array(times, pa.timestamp("us"))})


def _blocks_table(store: Pieces) -> LazyTable:
    numbers = ("shard", "first_clip", "clips", "view_start", "view_stop")
    schema = pa.schema(
        [("name", pa.string())]
        + [(name, pa.int64()) for name in numbers]
        + [("failed", pa.int64()), ("bytes", pa.int64())]
    )

    def decode(columns: Set[str]) -> pa.Table:
        made: dict[str, list[Any]] = {name: [] for name in schema.names}
        for number, piece in enumerate(store.pieces):
            several = len(store.pieces) > 1
            clips, shards = (int(store.offsets[number]), int(store.shard_offsets[number])) if several else (0, 0)
            sizes = piece.block_bytes() if "bytes" in columns else {}
            for commit in piece.commits:
                made["name"].append(f"{piece.location}/{commit.name}" if several else commit.name)
                made["shard"].append(commit.shard + shards)
                made["first_clip"].append(commit.first_clip + clips)
                for name in ("clips", "view_start", "view_stop"):
                    made[name].append(getattr(commit, name))
                made["failed"].append(len(commit.failed))
                made["bytes"].append(sizes.get(commit.name, 0))
        return pa.table(made, schema=schema)

    return LazyTable(schema, [TablePart({}, sum(len(piece.commits) for piece in store.pieces), decode, "all")])


# what the tables that go block by block share


def _by_block(
    store: Pieces, schema: pa.Schema, rows_a_view: int, decode: Callable[[Commit, Set[str]], dict[str, Any]]
) -> LazyTable:
    def part(commit: Commit) -> TablePart:
        def decode_columns(columns: Set[str]) -> pa.Table:
            made = decode(commit, columns)
            wanted = [field for field in schema if field.name in columns]
            return pa.table([made[field.name] for field in wanted], schema=pa.schema(wanted))

        bounds = {
            "clip": (commit.first_clip, commit.first_clip + commit.clips),
            "view": (commit.view_start, commit.view_stop),
        }
        return TablePart(bounds, commit.clips * commit.views * rows_a_view, decode_columns, commit.name)

    return LazyTable(schema, [part(commit) for commit in store.commits])


def _keys(commit: Commit, columns: Set[str], repeats: int) -> dict[str, Any]:
    """The columns clip, view and, from 1 to ``repeats``, rank: those that are asked for."""
    rows = commit.readable
    made: dict[str, Any] = {}
    if "clip" in columns:
        made["clip"] = np.repeat(commit.first_clip + rows, commit.views * repeats)
    if "view" in columns:
        views = np.arange(commit.view_start, commit.view_stop, dtype=np.int32)
        made["view"] = np.tile(np.repeat(views, repeats), len(rows))
    if "rank" in columns:
        made["rank"] = np.tile(np.arange(1, repeats + 1, dtype=np.int32), len(rows) * commit.views)
    return made


def _class_names(store: Pieces, classes: npt.NDArray[np.uint16]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(classes.reshape(-1)), pa.array(store.manifest.classes, pa.string()))
