"""The SQL tables of several stores read as one: the members' tables one after the other, with clips numbered through.

The tables and their columns are those of one store (see ``tables.py``). ``blocks.name`` begins with the store's place.
"""

from __future__ import annotations

from collections.abc import Callable, Set

import pyarrow as pa
import pyarrow.compute as pc

from logitstore.store.combined import CombinedStore, joined_schema
from logitstore.store.sql import tables
from logitstore.store.sql.lazy import LazyTable, Part

Maker = Callable[[], pa.Table | LazyTable]
_CLIPS = ("clip", "mixup_partner_clip", "first_clip")


def combined_tables(store: CombinedStore) -> dict[str, Maker]:
    """How to make each table of the stores, by its name."""
    own = [tables.tables(member) for member in store.members]
    makers: dict[str, Maker] = {
        name: lambda name=name: _joined(store, name, [made[name]() for made in own])  # type: ignore[misc]
        for name in own[0]
        if all(name in made for made in own)
    }
    return makers | {"teachers": lambda: tables.teachers_table(store), "failures": lambda: tables.failures_table(store)}


def _joined(store: CombinedStore, name: str, made: list[LazyTable]) -> LazyTable:
    places = [member.location for member in store.members]
    schema = joined_schema([table.schema for table in made], places) if name == "clips" else made[0].schema
    names = pa.array(tables.member_names(store)) if name == "members" else None
    parts: list[Part] = []
    for number, table in enumerate(made):
        teachers = pa.array(store.member_numbers(store.members[number]), pa.int32())

        def adapt(rows: pa.Table, number: int = number, teachers: pa.Array = teachers) -> pa.Table:
            for column in _CLIPS:
                if column in rows.column_names:
                    rows = _replaced(rows, column, pc.add(rows[column], int(store.offsets[number])))
            if name == "blocks":
                rows = _replaced(rows, "shard", pc.add(rows["shard"], store.shard_offsets[number]))
                full = pc.binary_join_element_wise(pa.scalar(places[number]), rows["name"], "/")
                rows = _replaced(rows, "name", full)
            if names is not None and "member" in rows.column_names:
                codes = rows["member"].combine_chunks().indices
                rows = _replaced(rows, "member", pa.DictionaryArray.from_arrays(teachers.take(codes), names))
            return rows

        for part in table.parts:
            shifted = _part(store, number, part, schema, table.schema, adapt)
            if shifted is not None:
                parts.append(shifted)
    return LazyTable(schema, parts)


def _part(
    store: CombinedStore,
    number: int,
    part: Part,
    schema: pa.Schema,
    own: pa.Schema,
    adapt: Callable[[pa.Table], pa.Table],
) -> Part | None:
    """A part of a member's table as one of ours; None where none of its views are common."""
    bounds = dict(part.bounds)
    if "clip" in bounds:
        offset = int(store.offsets[number])
        bounds["clip"] = (bounds["clip"][0] + offset, bounds["clip"][1] + offset)
    cut = "view" in bounds and bounds["view"][1] > store.views
    if cut:
        bounds["view"] = (bounds["view"][0], store.views)
        if bounds["view"][0] >= store.views:
            return None

    def decode(columns: Set[str]) -> pa.Table:
        wanted = set(columns) & set(own.names) | ({"view"} if cut else set())
        # a member's blocks are few: their table is read whole
        rows = part.decode(wanted if "first_clip" not in own.names else set(own.names))
        if cut:
            rows = rows.filter(pc.field("view") < store.views)
        rows = adapt(rows)
        fields = [field for field in schema if field.name in columns]
        arrays = [
            rows[field.name].cast(field.type)
            if field.name in rows.column_names and not pa.types.is_dictionary(field.type)
            else rows[field.name]
            if field.name in rows.column_names
            else pa.chunked_array([pa.nulls(rows.num_rows, field.type)])
            for field in fields
        ]
        return pa.table(arrays, schema=pa.schema(fields))

    return Part(bounds, part.rows, decode)


def _replaced(rows: pa.Table, name: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    place = rows.schema.get_field_index(name)
    chunks = values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([values])
    return rows.set_column(place, pa.field(name, chunks.type), chunks)
